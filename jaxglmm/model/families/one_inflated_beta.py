"""One-inflated beta: proportions above zero, ones among them.

P(1) = o, and what lies below is beta. With a model of zeros (``zi=``) it is the
zero-one-inflated beta: P(0) = p, P(1) = (1 - p) o (Ospina and Ferrari 2012, Comput.
Stat. Data Anal. 56, 1609, for p and o of rows in another order).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import Rows, positive
from jaxglmm.model.families._beta_with_ends import BetaWithEnds
from jaxglmm.model.families.beta import Beta
from jaxglmm.numerics.array_namespace import exp, functions
from jaxglmm.numerics.jets import Jet
from jaxglmm.numerics.scales import LOG, Scale, between
from jaxglmm.runtime.arrays import jnp, nn


class OneInflatedBeta(BetaWithEnds):
    """Values in (0, 1], ones with the probability ``oi``, otherwise beta.

    ``mu`` in the functions of the distribution is the mean of what is not one; ``mean``
    and ``mean_of`` count ones in. Zeros by ``zi=``, of whose probability of being there
    ``oi`` is a share.

    Example:
        >>> import jaxglmm as jg
        >>> jg.OneInflatedBeta().dispersion([0.0, 0.0])
        {'phi': 1.0, 'oi': 0.5}
    """

    name: ClassVar[str] = "one_inflated_beta"
    default_link: ClassVar[str] = Beta.default_link
    links: ClassVar[tuple[str, ...]] = Beta.links
    atoms: ClassVar[tuple[float, ...]] = (1.0,)
    has_zeros: ClassVar[bool] = False
    n_phi: ClassVar[int] = 2
    phi_names: ClassVar[tuple[str, ...]] = ("phi", "oi")
    phi_scales: ClassVar[tuple[Scale, ...]] = (LOG, between(0.0, 1.0))
    phi_centre: ClassVar[Any] = (2.0, 0.0)

    def log_jet(
        self,
        y: Rows,
        eta: Rows,
        phi: Float[Array, " r"],
        trials: Rows | float,
        order: int,
    ) -> Jet:
        below = y < 1
        share = jnp.where(below, -nn.softplus(phi[1]), -nn.softplus(-phi[1]))
        return self.inside_jet(y, below, eta, phi, order) + share

    def expected_weight(
        self, eta: Rows, phi: Float[Array, " r"], trials: Rows | float = 1.0
    ) -> Rows:
        own = Beta(self.link).expected_weight(eta, phi)
        return positive(nn.sigmoid(-phi[1]) * own)

    def mean_of(self, mu: Any, phi: Any = ()) -> Any:
        ones = functions(mu).expit(phi[1])
        return ones + (1 - ones) * mu

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        ones = functions(mu).expit(phi[1])
        own = mu * (1 - mu) / (1 + exp(phi[0]))
        return (1 - ones) * (own + ones * (1 - mu) ** 2)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return np.where(np.asarray(y) >= 1, 1.0, self.below(y, mu, phi))

    def below(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        ones = functions(mu).expit(phi[1])
        return (1 - ones) * self.inside_cdf(y, mu, phi)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.shares(self.name, y, rows)
        other = (
            "Model them by zi='~ 1', with which it is the zero-one-inflated beta, or "
            "use family='ordbeta'"
        )
        _checks.no_zeros(self.name, y, rows, other)
        if not (y == 1).any():
            raise DataError(
                f"family={self.name!r}: no response is one. Use family='beta'"
            )
        if (y == 1).all():
            raise DataError(
                f"family={self.name!r}: every response that is not zero is one. Use "
                "family='binomial'"
            )
        _checks.varies("beta", y[y < 1])

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        below = y < 1
        own, phi = Beta(self.link).start(y[below])
        eta = np.full(len(y), np.mean(own))
        eta[below] = own
        share = np.mean(~below)
        return eta, np.array([phi[0], np.log(share / (1 - share))])

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        draws = Beta(self.link).simulate(rng, np.asarray(mu), phi)
        ones = functions(np.asarray(phi)).expit(phi[1])
        return np.where(rng.uniform(size=draws.shape) < ones, 1.0, draws)
