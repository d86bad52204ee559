"""Ordered beta: proportions with zeros and ones, by one linear predictor.

Two cutoffs c1 < c2 part the line of eta, as between ordered categories:

    P(0) = F(c1 - eta),   P(1) = F(eta - c2),   F the logistic distribution,

and what lies between is beta with mean mu = F(eta) and precision phi. Kubinec (2023),
Political Analysis 31, 519; glmmTMB's ``ordbeta``, whose parameters are c1 and
log(c2 - c1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import Rows, positive
from jaxglmm.model.families._beta_with_ends import BetaWithEnds
from jaxglmm.model.families._interval import Ends, logit
from jaxglmm.model.families.beta import Beta
from jaxglmm.numerics.array_namespace import exp, functions
from jaxglmm.numerics.jets import Jet
from jaxglmm.numerics.scales import LOG, PLAIN, Scale
from jaxglmm.runtime.arrays import jnp, nn
from jaxglmm.runtime.trees import field

LEAST = 0.5  # rows of a kind that is not there, to start from


class OrderedBeta(BetaWithEnds):
    """Values in [0, 1], zeros and ones included, of one linear predictor.

    ``mu`` in the functions of the distribution is the mean of what is neither zero nor
    one; ``mean`` and ``mean_of`` count zeros and ones in.

    Example:
        >>> import jaxglmm as jg
        >>> jg.OrderedBeta().dispersion([0.0, -1.0, 0.0])
        {'phi': 1.0, 'lower_cutoff': -1.0, 'upper_cutoff': 0.0}
    """

    name: ClassVar[str] = "ordbeta"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = ("logit",)
    atoms: ClassVar[tuple[float, ...]] = (0.0, 1.0)
    n_phi: ClassVar[int] = 3
    phi_names: ClassVar[tuple[str, ...]] = ("phi", "lower_cutoff", "upper_cutoff")
    phi_scales: ClassVar[tuple[Scale, ...]] = (LOG, PLAIN, PLAIN)
    phi_apart: ClassVar[bool] = False
    phi_centre: ClassVar[Any] = (2.0, 0.0, 0.0)
    phi_stops: ClassVar[bool] = True
    phi_range: ClassVar[tuple[Any, Any]] = (
        (-np.inf, -25.0, -25.0),
        (np.inf, 25.0, 4.0),
    )
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {
        "lower_cutoff": (
            "next to no response is zero: give those rows a small value, or model "
            "ones alone by family='one_inflated_beta'",
            "next to all responses are zero",
        ),
        "upper_cutoff": (
            "the cutoffs have met: nothing lies between zero and one",
            "next to no response is one: give those rows a value below one, or model "
            "zeros alone by family='beta', zi='~ 1'",
        ),
    }

    upper_held: bool = field(static=True)  # phi: log phi, log(c2 - c1), c2

    def __init__(self, link: Any = None):
        super().__init__(link)
        self.upper_held = False

    # -- cutoffs -----------------------------------------------------------------------

    def _cutoffs(self, phi: Any) -> tuple[Any, Any, Any]:
        """c1, c2 and log(c2 - c1)."""
        if self.upper_held:
            return phi[2] - exp(phi[1]), phi[2], phi[1]
        return phi[1], phi[1] + exp(phi[2]), phi[2]

    def natural(self, phi: Any) -> Any:
        lower, upper, _ = self._cutoffs(phi)
        return functions(phi).stack([exp(phi[0]), lower, upper])

    def from_natural(self, values: Any) -> Any:
        f = functions(values)
        phi, lower, upper = values
        gap = f.log(upper - lower)
        rest = [gap, upper] if self.upper_held else [lower, gap]
        return f.stack([f.log(phi), *rest])

    def natural_jacobian(self, phi: Any) -> np.ndarray:
        phi = np.asarray(phi, float)
        gap = np.exp(self._cutoffs(phi)[2])
        rest = (
            [[-gap, 1.0], [0.0, 1.0]] if self.upper_held else [[1.0, 0.0], [1.0, gap]]
        )
        out = np.zeros((3, 3))
        out[0, 0], out[1:, 1:] = np.exp(phi[0]), rest
        return out

    def log_natural_slope(self, phi: Any) -> Any:
        return phi[0] + self._cutoffs(phi)[2]

    def holding(self, r: int, phi: Any) -> tuple[OrderedBeta, np.ndarray]:
        phi = np.asarray(phi)
        if r != 2 or self.upper_held:
            return self, phi
        held = OrderedBeta(self.link)
        object.__setattr__(held, "upper_held", True)
        _, upper, gap = self._cutoffs(phi)
        return held, np.stack([phi[0], gap, upper])

    # -- inside jit ------------------------------------------------------------------

    def log_jet(
        self,
        y: Rows,
        eta: Rows,
        phi: Float[Array, " r"],
        trials: Rows | float,
        order: int,
    ) -> Jet:
        lower, upper, log_gap = self._cutoffs(phi)
        some, rest = y > 0, y < 1
        a = jnp.where(some, upper, lower) - eta
        b = jnp.where(rest, lower, upper) - eta
        gap = log_gap + 0.0 * eta
        share = logit(Ends(a, b, gap, some, rest), order)
        return share + self.inside_jet(y, some & rest, eta, phi, order)

    def expected_weight(
        self, eta: Rows, phi: Float[Array, " r"], trials: Rows | float = 1.0
    ) -> Rows:
        lower, upper, log_gap = self._cutoffs(phi)
        p, q = nn.sigmoid(lower - eta), nn.sigmoid(eta - upper)
        middle = jnp.exp(jnp.minimum(_log_between(lower, upper, log_gap, eta), 0.0))
        ends = p * (1 - p) ** 2 + q * (1 - q) ** 2
        slope = p * (1 - p) - q * (1 - q)
        between = slope * slope / jnp.maximum(middle, 1e-300)
        own = Beta(self.link).expected_weight(eta, phi)
        return positive(ends + between + middle * own)

    # -- on the host -----------------------------------------------------------------

    def _shares(self, mu: Any, phi: Any) -> tuple[Any, Any, Any]:
        """P(0), P(between), P(1)."""
        f = functions(mu)
        with np.errstate(divide="ignore"):
            eta = f.log(mu) - f.log1p(-mu)
        lower, upper, _ = self._cutoffs(phi)
        p, q = f.expit(lower - eta), f.expit(eta - upper)
        return p, 1 - p - q, q

    def mean_of(self, mu: Any, phi: Any = ()) -> Any:
        _, middle, ones = self._shares(mu, phi)
        return ones + middle * mu

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        _, middle, ones = self._shares(mu, phi)
        own = mu * (1 - mu) / (1 + exp(phi[0]))
        return ones + middle * (own + mu * mu) - self.mean_of(mu, phi) ** 2

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        zeros, middle, _ = self._shares(mu, phi)
        y = np.asarray(y, float)
        inside = self.inside_cdf(y, mu, phi)
        found = np.where(y >= 0, zeros + middle * inside, 0.0)
        return np.where(y >= 1, 1.0, found)

    def below(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        zeros, middle, _ = self._shares(mu, phi)
        y = np.asarray(y, float)
        return np.where(y > 0, zeros + middle * self.inside_cdf(y, mu, phi), 0.0)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.shares(self.name, y, rows)
        _checks.varies(self.name, y)
        ends = (y == 0) | (y == 1)
        if not ends.any():
            raise DataError(
                "family='ordbeta' has zeros and ones; the response has neither, so "
                "that nothing says where the cutoffs lie. Use family='beta'"
            )
        if ends.all():
            raise DataError(
                "family='ordbeta': every response is zero or one. Use family='binomial'"
            )

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        n = len(y)
        inside = y[(y > 0) & (y < 1)]
        eta, phi = np.zeros(1), np.zeros(1)
        if len(inside) > 1:
            eta, phi = Beta(self.link).start(inside)
        # an end says no more than on which side of the others the row lies
        middle, spread = float(np.mean(eta)), float(np.std(eta))
        near = (y * (n - 1) + 0.5) / n
        eta = np.clip(self.link.link(near), middle - spread, middle + spread)
        low, high = (
            max(LEAST, float(np.sum(y == end))) / (n + 1) for end in (0.0, 1.0)
        )
        lower, upper = middle + _logit(low), middle - _logit(high)
        gap = np.log(max(upper - lower, 0.1))
        return eta, np.array([phi[0], lower, gap])

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        zeros, _, ones = self._shares(mu, phi)
        draws = Beta(self.link).simulate(rng, np.asarray(mu), phi)
        u = rng.uniform(size=np.shape(mu))
        return np.where(u < zeros, 0.0, np.where(u > 1 - ones, 1.0, draws))


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def _log_between(lower: Any, upper: Any, log_gap: Any, eta: Rows) -> Rows:
    """log P(0 < y < 1)."""
    some = jnp.ones_like(eta, dtype=bool)
    ends = Ends(upper - eta, lower - eta, log_gap + 0.0 * eta, some, some)
    return logit(ends, 0).value
