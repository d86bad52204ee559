"""Conway-Maxwell-Poisson counts by their mean: more spread than Poisson's, or less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from jaxglmm.model.families import _conway_maxwell as conway_maxwell
from jaxglmm.model.families import _draws
from jaxglmm.model.families._base import (
    Phi,
    Rows,
    Trials,
    harmless,
    where_inside,
)
from jaxglmm.model.families._kinds import CountFamily
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.host import is_host, on_host


class ConwayMaxwellPoisson(CountFamily):
    """Counts with P(y) proportional to lambda^y / (y!)^nu, nu = 1 / phi.

    The link is that of the mean, to which lambda belongs (Huang 2017). phi = 1 is the
    Poisson family, below it counts spread less (Var y about phi mu), above it more, up
    to the geometric distribution. ``phi`` is glmmTMB's sigma.

    Example:
        >>> import jaxglmm as jg
        >>> round(float(jg.ConwayMaxwellPoisson().variance(5.0, [0.0])), 6)
        5.0
    """

    name: ClassVar[str] = "compois"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_stops: ClassVar[bool] = True
    phi_range: ClassVar[tuple[float, float]] = (-9.0, 4.5)
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {
        "phi": (
            "counts are next to equal to their means: look for a response that the "
            "covariates determine",
            "counts spread more than geometric ones: use family='nbinom2'",
        )
    }

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        y, log_mean, log_nu = jnp.broadcast_arrays(y, zeta.value, -phi[0])
        t, far = conway_maxwell.canonical(log_mean, log_nu)
        of = conway_maxwell.moments(t, log_nu, far)
        value = conway_maxwell.log_density(y, t, log_nu, of.log_z, far)
        if order == 0:
            return where_inside(Jet((value,)), log_mu)
        # t as a function of zeta = log mean: t' = mean / variance, and so on
        mean, V = jnp.exp(log_mean), of.variance
        skew, tail = of.third / V, of.fourth / V - 3 * V
        one = mean / V
        two = one - skew * one * one
        three = two - tail * one**3 - 2 * skew * one * two
        three = three + skew * skew * one**3
        rest = y - mean
        parts = (
            value,
            rest * one,
            rest * two - mean * one,
            rest * three - mean * (one + 2 * two),
        )
        return where_inside(chain(parts, zeta), log_mu)

    def _moments(self, mu: Any, phi: Any) -> tuple[Any, Any, Any, Any]:
        """log nu, t, whether that is far out, and moments, by rows."""
        log_mu = jnp.log(jnp.asarray(mu, float))
        log_mu, log_nu = jnp.broadcast_arrays(log_mu, -jnp.asarray(phi[0], float))
        t, far = conway_maxwell.canonical(log_mu, log_nu)
        return log_nu, t, far, conway_maxwell.moments(t, log_nu, far)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        if is_host() or isinstance(mu, jax.Array):
            return self._moments(mu, phi)[-1].variance
        with on_host():
            return self._moments(mu, phi)[-1].variance

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        ratio = variance / np.maximum(mean, 1e-8)
        return np.log(np.clip((1 + ratio) / 2, 0.3, 5.0))[None]

    def _rows(self, mu: Any, phi: Any) -> tuple[np.ndarray, ...]:
        """t, nu, log Z, standard deviation of rows; the terms are near zero or all."""
        with on_host():
            log_nu, t, far, found = self._moments(mu, phi)
            nu = np.exp(log_nu)
            log_z = found.log_z + np.where(far, nu * np.exp(t / nu), 0.0)
        return t, nu, log_z, np.sqrt(found.variance)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        mu = np.asarray(mu, float)
        t, nu, log_z, sd = self._rows(mu, phi)
        return _draws.summed(_mass, mu, sd, y, t, nu, log_z)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        mu = np.asarray(mu, float)
        t, nu, log_z, sd = self._rows(mu, phi)
        return _draws.by_inversion(rng, _mass, mu, sd, t, nu, log_z)


def _mass(j: np.ndarray, t: Any, nu: Any, log_z: Any) -> np.ndarray:
    from scipy import special

    return np.exp(t * j - nu * special.gammaln(j + 1) - log_z)
