"""What proportions with zeros or ones share: between the ends they are beta."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families._base import JetFamily, Rows
from jaxglmm.model.families.beta import Beta
from jaxglmm.numerics.jets import Jet, where
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field


class BetaWithEnds(JetFamily):
    """Beta between the ends; a mean that counts the ends in depends on phi."""

    padding: ClassVar[float] = 0.5

    known: tuple[float, ...] | None = field(static=True)  # phi, of what ``at`` makes

    def __init__(self, link: Any = None):
        super().__init__(link)
        self.known = None

    def at(self, phi: Any) -> Self:
        """The same family, whose mean is that at phi."""
        out = copy.copy(self)
        object.__setattr__(out, "known", tuple(np.asarray(phi, float).tolist()))
        return out

    def inside_jet(
        self, y: Rows, inside: Array, eta: Rows, phi: Array, order: int
    ) -> Jet:
        """Beta's jet of the rows ``inside``, nothing of the others."""
        own = Beta(self.link).log_jet(jnp.where(inside, y, 0.5), eta, phi, 1.0, order)
        nothing = Jet(tuple(jnp.zeros_like(x) for x in own.parts))
        return where(inside, own, nothing)

    def mean(self, eta: Any) -> Any:
        known = (0.0,) * self.n_phi if self.known is None else self.known
        return self.mean_of(self.parameters(eta), known)

    def parameters(self, eta: Any) -> Any:
        return self.link.inverse(eta)

    def inside_cdf(self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """The distribution function of what lies between the ends."""
        return Beta(self.link).cdf(np.clip(y, 0.0, 1.0), mu, phi)
