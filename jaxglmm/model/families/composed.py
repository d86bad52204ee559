"""A family with a model of zeros, of its dispersion, or of both, on top of its mean.

From a base family with density f(y | eta, phi), in the words and with the names of
glmmTMB (Brooks et al. 2017, The R Journal 9, 378):

* ``cond``: the base's own linear predictor;
* ``zi``: the logit of p, the probability of a zero that is not of the base:
  P(0) = p + (1 - p) f(0) and (1 - p) f(y) elsewhere. A base that has no zeros
  (truncated counts, positive values) has f(0) = 0: a hurdle;
* ``disp``: the first phi of the base, the logarithm of a dispersion parameter, row by
  row.

Written once over any base: l = log(p + (1 - p) f) needs f by its logarithm B alone.
With r = p / (p + (1 - p) f) where y = 0, and 0 elsewhere, the derivatives are those of
log(exp(zeta) + exp(B)) - log(1 + exp(zeta)), in zeta and in what B depends on:
r' = v = r (1 - r), v' = v (1 - 2 r).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.formula.design import DISP
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import (
    AbstractFamily,
    Derivatives,
    Method,
    Phi,
    Rows,
    Trials,
)
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.families._zeros import Parts, with_zeros, zeros_by_phi
from jaxglmm.model.links import Link, link_from
from jaxglmm.numerics.array_namespace import functions
from jaxglmm.numerics.jets import nested
from jaxglmm.numerics.scales import Scale
from jaxglmm.runtime.arrays import jnp, nn
from jaxglmm.runtime.trees import field

COND, ZI = "cond", "zi"
PARTS = (COND, ZI, DISP)
LEAST_SHARE = 0.02  # of zeros beyond those of the base, to start from


class Composed(AbstractFamily):
    """``base`` with linear predictors for zeros (``zi``) and dispersion (``disp``).

    Where a function of the base takes the mean ``mu``, here it takes the natural values
    of all predictors, (K, ...): mean, probability of a zero, dispersion.

    Args:
        base: the family of the response where it is not an added zero.
        zi: whether zeros have a model.
        disp: whether the dispersion has one.
    """

    base: AbstractFamily
    zi: bool = field(static=True)
    disp: bool = field(static=True)

    def __init__(self, base: AbstractFamily, zi: bool = False, disp: bool = False):
        self.base, self.zi, self.disp = base, bool(zi), bool(disp)
        self.link = base.link

    # -- what it takes from its base -------------------------------------------------

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def predictors(self) -> tuple[str, ...]:
        return (COND, *[ZI] * self.zi, *[DISP] * self.disp)

    @property
    def predictor_links(self) -> tuple[Link, ...]:
        others = [link_from("logit")] * self.zi + [link_from("log")] * self.disp
        return (self.link, *others)

    @property
    def n_phi(self) -> int:
        return self.base.n_phi - self.disp

    @property
    def phi_names(self) -> tuple[str, ...]:
        return self.base.phi_names[self.disp :]

    @property
    def family_kind(self):
        return self.base.family_kind

    @property
    def discrete(self) -> bool:
        return self.base.discrete

    @property
    def padding(self) -> float:
        return self.base.padding

    @property
    def phi_scales(self) -> tuple[Scale, ...]:
        return self.base.scales[self.disp :]

    @property
    def phi_apart(self) -> bool:
        return self.base.phi_apart

    @property
    def phi_range(self) -> tuple[Any, Any]:
        low, high = self.base.phi_range
        if not self.disp:
            return low, high
        return tuple(end[1:] if np.ndim(end) else end for end in (low, high))

    def natural(self, phi: Any) -> Any:
        if self.base.phi_apart or not len(phi):
            return super().natural(phi)
        return self.base.natural(_whole(phi, self.disp))[self.disp :]

    def from_natural(self, values: Any) -> Any:
        if self.base.phi_apart or not len(values):
            return super().from_natural(values)
        whole = functions(values).stack([1.0 + 0.0 * values[0], *values])
        return self.base.from_natural(whole if self.disp else values)[self.disp :]

    def natural_jacobian(self, phi: Any) -> np.ndarray:
        if self.base.phi_apart or not len(phi):
            return super().natural_jacobian(phi)
        found = self.base.natural_jacobian(_whole(np.asarray(phi, float), self.disp))
        return found[self.disp :, self.disp :]

    def log_natural_slope(self, phi: Any) -> Any:
        if self.base.phi_apart or not len(phi):
            return super().log_natural_slope(phi)
        return self.base.log_natural_slope(_whole(phi, self.disp))

    def holding(self, r: int, phi: Any) -> tuple[Any, np.ndarray]:
        whole = _whole(np.asarray(phi), self.disp)
        base, found = self.base.holding(r + self.disp, whole)
        return Composed(base, self.zi, self.disp), found[self.disp :]

    @property
    def near_zero_dispersion(self) -> tuple[float, ...]:
        return () if self.disp else self.base.near_zero_dispersion

    @property
    def limit(self) -> str | None:
        return None if self.disp else self.base.limit

    @property
    def phi_stops(self) -> bool:
        return self.base.phi_stops

    @property
    def phi_ends(self) -> Mapping[str, tuple[str, str]]:
        return self.base.phi_ends

    @property
    def phi_centre(self) -> Any:
        centre = self.base.phi_centre
        return centre[self.disp :] if np.ndim(centre) else centre

    @property
    def phi_in_units(self) -> bool:
        return self.base.phi_in_units

    @property
    def has_zeros(self) -> bool:
        return self.zi or self.base.has_zeros

    # -- inside jit ------------------------------------------------------------------

    def _of_base(self, eta: Rows, phi: Phi) -> tuple[Rows, Any]:
        """eta and phi of the base; its first phi row by row where it has a model."""
        return eta[0], (eta[-1], *phi) if self.disp else phi

    def _inside(self, y: Rows) -> Rows:
        """y, any other value in place of zeros that the base does not have."""
        if not self.zi or self.base.has_zeros:
            return y
        return jnp.where(y == 0, self.base.padding, y)

    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        own, rest = self._of_base(eta, phi)
        found = self.base.log_density(self._inside(y), own, rest, trials)
        if not self.zi:
            return found
        zeta = eta[1]
        at_zero = jnp.logaddexp(zeta, found) if self.base.has_zeros else zeta
        return jnp.where(y == 0, at_zero, found) - nn.softplus(zeta)

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        own, rest = self._of_base(eta, phi)
        parts = self._base_parts(self._inside(y), own, rest, trials)
        if self.zi:
            parts = self._mixed(y, eta, parts)
        l, one, two, three = parts
        return l, one, -two, -three

    @property
    def has_separable_term(self) -> bool:
        """As of its base, where the term of zeros is zero."""
        own = self.base.has_separable_term and self.base.has_zeros
        return own and self.zi and not self.disp

    def log_separable(self, y: Rows, phi: Phi) -> Rows:
        return self.base.log_separable(y, phi)

    def log_separable_step(self, y: Rows, phi: Phi) -> Rows:
        return self.base.log_separable_step(y, phi)

    def coupled_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        if not self.has_separable_term:
            return self.kernel_derivatives(y, eta, phi, trials)
        # what the base leaves out is zero where y is
        found = self.base.coupled_derivatives(y, eta[0], phi, trials)
        l, one, two, three = self._mixed(y, eta, _alone(found))
        return l, one, -two, -three

    def _mixed(self, y: Rows, eta: Rows, parts: Parts) -> Parts:
        """The parts of the mixture with zeros from those of the base."""
        K, some = len(self.predictors), self.base.has_zeros
        return with_zeros(y == 0, eta[1], parts, K, some)

    @property
    def knows_phi(self) -> bool:
        own = self.zi and not self.disp and self.base.has_zeros
        return own and self.base.knows_phi

    def by_phi(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> ByPhi:
        found = self.base.by_phi(y, eta[0], phi, trials)
        return zeros_by_phi(y == 0, eta[1], found)

    def _base_parts(self, y: Rows, eta: Rows, phi: Any, trials: Trials) -> Parts:
        """log f of the base with its first three derivatives in its own predictors."""
        if not self.disp:
            return _alone(self.base.derivatives(y, eta, phi, trials))

        # the derivatives in eta are formulas; along phi they are carried by tangents
        def jet(dispersion: Rows) -> tuple[Rows, ...]:
            l, s, w, w1 = self.base.derivatives(y, eta, (dispersion, *phi[1:]), trials)
            return l, s, -w, -w1

        found: Any = nested(jet, phi[0], 3).parts
        (l, s, h, t), (l1, s1, h1, _), (l2, s2, *_), (l3, *_) = found
        one = jnp.stack([s, l1])
        two = _rows([h, s1], [s1, l2])
        middle = _rows([h1, s2], [s2, l3])
        return l, one, two, jnp.stack([_rows([t, h1], [h1, s2]), middle])

    # -- on the host -----------------------------------------------------------------

    def parameters(self, eta: Any) -> Any:
        """(K, ...) natural values: what the base makes of its mean, p, dispersion."""
        others = zip(self.predictor_links[1:], eta[1:], strict=True)
        values = [self.base.parameters(eta[0]), *(f.inverse(x) for f, x in others)]
        return np.stack([np.asarray(x, float) for x in values])

    def mean(self, eta: Any) -> Any:
        """E y where it does not depend on phi; see ``mean_of``."""
        return self.mean_of(self.parameters(eta), (0.0,) * self.n_phi)

    def _split(self, mu: Any, phi: Any) -> tuple[Any, Any, Any]:
        """Mean, phi of the base, and p."""
        p = mu[1] if self.zi else 0.0
        if not self.disp:
            return mu[0], phi, p
        with np.errstate(divide="ignore"):
            return mu[0], (np.log(mu[-1]), *phi), p

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        """(1 - p) (Var + p m^2), of the base's mean m and variance."""
        mean, phi, p = self._split(mu, phi)
        own = self.base.variance(mean, phi, trials)
        size = trials if self.family_kind == "binomial" else 1.0
        m = size * self.base.mean_of(mean, phi)
        return (1 - p) * (own + p * m * m)

    def mean_of(self, mu: Any, phi: Any = ()) -> Any:
        """E y: the mean of the base less its share of added zeros."""
        mean, own, p = self._split(mu, phi)
        return (1 - p) * self.base.mean_of(mean, own)

    def conditional_mean(self, mu: Any, phi: Any = ()) -> Any:
        """E y where it is not an added zero."""
        mean, own, _ = self._split(mu, phi)
        return self.base.mean_of(mean, own)

    def cdf(self, y: Any, mu: Any, phi: Any, trials: Any = 1.0) -> np.ndarray:
        mean, phi, p = self._split(mu, phi)
        y = np.asarray(y, float)
        if not self.zi:
            return self.base.cdf(y, mean, phi, trials)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.asarray(self.base.cdf(y, mean, phi, trials))
        if not self.base.has_zeros:
            found = np.where(y > 0, found, 0.0)
        return (1 - p) * found + p * (y >= 0)

    @property
    def has_mass(self) -> bool:
        return self.zi or self.base.has_mass

    def below(self, y: Any, mu: Any, phi: Any, trials: Any = 1.0) -> np.ndarray:
        mean, phi, p = self._split(mu, phi)
        y = np.asarray(y, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.asarray(self.base.below(y, mean, phi, trials))
        if not self.base.has_zeros:
            found = np.where(y > 0, found, 0.0)
        return (1 - p) * found + p * (y > 0)

    def simulate(
        self, rng: np.random.Generator, mu: Any, phi: Any, trials: Any = 1.0
    ) -> np.ndarray:
        mean, phi, p = self._split(mu, phi)
        out = np.asarray(self.base.simulate(rng, mean, phi, trials), float)
        return np.where(rng.uniform(size=out.shape) < p, 0.0, out) if self.zi else out

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        if self.base.is_linear_model:
            trials = None  # they are its weights (``assemble.precise``)
        some = y != 0
        if self.zi and not some.any():
            _checks.not_all_zero(self.name, y)
        if self.zi and not self.base.has_zeros:
            rows = np.flatnonzero(some) if rows is None else np.asarray(rows)[some]
            y, trials = y[some], None if trials is None else trials[some]
        return self.base.check(y, trials, rows)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The base's start without the zeros that are too many for it."""
        some = y != 0
        if self.zi and not self.base.has_zeros:
            m = None if trials is None else trials[some]
            found, phi = self.base.start(y[some], m)
            own = np.full(len(y), np.mean(found))
            own[some] = found
            share = np.clip(1 - np.mean(some), LEAST_SHARE, 1 - LEAST_SHARE)
        else:
            own, phi = self.base.start(y, trials)
            own = np.array(own, float)
            share = np.clip((1 - np.mean(some)) / 2, LEAST_SHARE, 0.5)
            if self.zi and some.any():  # half of the zeros are others
                own[~some] = (own[~some] + np.mean(own[some])) / 2
        eta = [own]
        if self.zi:
            eta.append(np.full(len(y), np.log(share / (1 - share))))
        if self.disp:
            eta.append(np.full(len(y), float(phi[0])))
            phi = phi[1:]
        return np.stack(eta), np.asarray(phi, float)

    def rival(self, y: Any, eta: Any, phi: Any) -> tuple[Any, Any] | None:
        """Zeros of a family with dispersion are its own, or added: the other of both.

        With next to no added zeros, and the dispersion found; or with two thirds of
        the zeros added, and next to no dispersion.
        """
        ends = self.base.near_zero_dispersion
        if not (self.zi and self.base.has_zeros and ends):
            return None
        y, eta = np.asarray(y), np.array(eta, float)
        share = float(np.clip(np.mean(y == 0), LEAST_SHARE, 1 - LEAST_SHARE))
        added = float(np.mean(1 / (1 + np.exp(-eta[1]))))
        many = added < share / 3
        to = 2 * share / 3 if many else LEAST_SHARE / 2
        eta[1] = np.log(to / (1 - to))
        phi = np.array(phi, float)
        if many:
            middle = ends[0] / 3
            if self.disp:
                eta[-1] = middle
            else:
                phi[0] = middle
        return eta, phi

    def deviance_residuals(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        if not self.zi:
            mean, own, _ = self._split(mu, phi)
            return self.base.deviance_residuals(y, mean, own, trials)
        return super().deviance_residuals(y, mu, phi, trials)

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        mean, own, _ = self._split(mu, phi)
        return self.base.latent_variance(mean, own, trials, method)


def _whole(phi: Any, disp: bool) -> Any:
    """phi of the base, zero in the place of one that has a model."""
    if not disp:
        return phi
    first = 0.0 * phi[0] if len(phi) else np.zeros(())
    return functions(phi).stack([first, *phi])


def _alone(found: Derivatives) -> Parts:
    """What the rows of one predictor are as one of several, l's own derivatives."""
    l, s, w, w1 = found
    return l, s[None], -w[None, None], -w1[None, None, None]


def _rows(*rows: list[Array]) -> Array:
    return jnp.stack([jnp.stack(row) for row in rows])
