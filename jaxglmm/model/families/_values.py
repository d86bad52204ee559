"""What the functions of a family take for its predictors, and where y has a mass."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.runtime.trees import Module


class NaturalValues(Module):
    """``variance``, ``cdf``, ``simulate`` and the like are functions of ``mu``.

    That is the mean for most families. One of several predictors, or one whose mean is
    no simple function of eta, says what else it is.
    """

    discrete: ClassVar[bool]
    atoms: ClassVar[tuple[float, ...]] = ()  # y with a mass, beside counts

    def mean(self, eta: Any) -> Any:
        """E y."""
        raise NotImplementedError

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """P(Y <= y)."""
        raise NotImplementedError

    def parameters(self, eta: Any) -> Any:
        """What the others take as ``mu``: here the mean.

        Of several predictors their natural values, (K, ...); of a truncated family the
        mean before truncation.
        """
        return self.mean(eta)

    def mean_of(self, mu: Any, phi: Any = ()) -> Any:
        """The mean from ``parameters`` and phi."""
        return mu

    def at(self, phi: Any) -> Any:
        """The family whose ``mean`` is that at phi, where it depends on phi."""
        return self

    def rival(self, y: Any, eta: Any, phi: Any) -> tuple[Any, Any] | None:
        """Where else to start from: eta and phi near another maximum, of a fit.

        None where the family has but one.
        """
        return None

    @property
    def has_mass(self) -> bool:
        """Whether some values of y have a probability of their own."""
        return self.discrete or bool(self.atoms)

    def below(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """P(Y < y), elementwise."""
        if not self.discrete:
            return self.cdf(y, mu, phi, trials)
        before = np.ceil(y) - 1
        return np.where(y > 0, self.cdf(before, mu, phi, trials), 0.0)
