"""Links: g(mu) = eta, one small stateless object each, and a table by name.

``inverse``, ``link`` and ``slope`` take NumPy and JAX arrays alike and answer in kind
(results are computed on the host, densities on the device). The logarithms of the mean
and of its complement are functions of their own, since log(inverse(eta)) loses
everything in the tails; they are JAX only. Where eta is outside the domain of a link
(eta < 0 with the inverse link, mu > 1 for a probability) they are minus infinity, with
zero derivatives: a density there is zero, and an optimiser turns back.

Reference: McCullagh and Nelder (1989), Generalized Linear Models, 2.2.3 and 4.3.
"""

from __future__ import annotations

import abc
from numbers import Real
from typing import Any, ClassVar

import jax
import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.numerics.array_namespace import functions
from jaxglmm.numerics.jets import Jet, nested, variable
from jaxglmm.numerics.special import HALF_LOG_2PI, log1mexp, log1mexp_exp, log_ndtr
from jaxglmm.runtime.arrays import jnp, nn
from jaxglmm.runtime.trees import Module


class Link(Module):
    """One link. A new one defines ``name``, ``inverse``, ``link`` and ``slope``.

    Class attributes:
        name: as in ``link="..."``.
        unit_free: whether eta has no unit, so that a change of it by one means the same
            whatever is measured.
        positive: whether eta must be positive.
        even: whether eta and -eta have the same mean.
        end: |eta| from which a row may be fitted perfectly; None where the mean has no
            end to run to.
        wide: standard deviation of effects on eta that is as good as infinite.
        strip: the inverse is analytic, and bounded, as far as this from the real axis;
            None where it is not bounded.
        tolerance: variance of the latent tolerance of a yes or no; None where unknown.
        ratio: what exp of a coefficient is, None where it is nothing.
        search: half width, in eta, of where the best eta of a row may lie; None for
            links whose eta has a unit.
    """

    name: ClassVar[str]
    unit_free: ClassVar[bool] = False
    positive: ClassVar[bool] = False
    even: ClassVar[bool] = False
    end: ClassVar[float | None] = None
    wide: ClassVar[float | None] = None
    strip: ClassVar[float | None] = None
    tolerance: ClassVar[float | None] = None
    ratio: ClassVar[str | None] = None
    search: ClassVar[float | None] = None

    @abc.abstractmethod
    def inverse(self, eta: Any) -> Any:
        """mu, elementwise; finite where mu is."""

    @abc.abstractmethod
    def link(self, mu: Any) -> Any:
        """eta, elementwise."""

    @abc.abstractmethod
    def slope(self, eta: Any) -> Any:
        """d mu / d eta, elementwise."""

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        """log mu, minus infinity where mu is not positive."""
        mu = self.inverse(eta)
        return _log_if(mu > 0, mu)

    def log_complement(self, eta: jax.Array) -> jax.Array:
        """log(1 - mu), minus infinity where mu is not below one."""
        mu = self.inverse(eta)
        return _log_if(mu < 1, 1 - mu)

    def log_jet(self, eta: jax.Array, order: int) -> Jet:
        """``log_inverse`` and, for order 3, its derivatives."""
        return nested(self.log_inverse, eta, order)

    def log_complement_jet(self, eta: jax.Array, order: int) -> Jet:
        """``log_complement`` and, for order 3, its derivatives."""
        return nested(self.log_complement, eta, order)

    def log_slope(self, eta: jax.Array) -> jax.Array:
        """log |d mu / d eta|."""
        return jnp.log(jnp.abs(self.slope(eta)))

    def over_normal(self, eta: Any, sd: Any) -> tuple[Any, Any, Any] | None:
        """E inverse(eta + sd Z), Z standard normal, and its derivatives in eta and sd.

        In closed form, on the host; None for links without one.
        """
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Logit(Link):
    """log(mu / (1 - mu)): log odds."""

    name: ClassVar[str] = "logit"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 9.0
    wide: ClassVar[float | None] = 10.0
    strip: ClassVar[float | None] = np.pi
    tolerance: ClassVar[float | None] = np.pi**2 / 3
    ratio: ClassVar[str | None] = "odds ratios"
    search: ClassVar[float | None] = 40.0

    def inverse(self, eta: Any) -> Any:
        return functions(eta).expit(eta)

    def link(self, mu: Any) -> Any:
        f = functions(mu)
        return f.log(mu) - f.log1p(-mu)

    def slope(self, eta: Any) -> Any:
        f = functions(eta)
        return f.expit(eta) * f.expit(-eta)

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return -nn.softplus(-eta)

    def log_complement(self, eta: jax.Array) -> jax.Array:
        return -nn.softplus(eta)

    def log_slope(self, eta: jax.Array) -> jax.Array:
        return -jnp.abs(eta) - 2 * jnp.log1p(jnp.exp(-jnp.abs(eta)))

    def log_jet(self, eta: jax.Array, order: int) -> Jet:
        if order == 0:
            return Jet((self.log_inverse(eta),))
        e = jnp.exp(-jnp.abs(eta))  # the only exponential
        r, up = 1 / (1 + e), eta >= 0
        p, q = jnp.where(up, 1.0, e) * r, jnp.where(up, e, 1.0) * r
        curve = e * r * r  # p q
        log_p = jnp.minimum(eta, 0.0) - jnp.log1p(e)
        return Jet((log_p, q, -curve, -curve * (q - p)))

    def log_complement_jet(self, eta: jax.Array, order: int) -> Jet:
        return _mirrored(self.log_jet(-eta, order))


class Probit(Link):
    """The quantile of the normal distribution."""

    name: ClassVar[str] = "probit"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 3.5
    wide: ClassVar[float | None] = 6.0
    tolerance: ClassVar[float | None] = 1.0
    search: ClassVar[float | None] = 8.0

    def over_normal(self, eta: Any, sd: Any) -> tuple[Any, Any, Any]:
        from scipy import special

        shrink = 1 / np.sqrt(1 + sd**2)
        at = shrink * eta
        density = np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi)
        return special.ndtr(at), shrink * density, -sd * shrink**2 * at * density

    def inverse(self, eta: Any) -> Any:
        return functions(eta).ndtr(eta)

    def link(self, mu: Any) -> Any:
        return functions(mu).ndtri(mu)

    def slope(self, eta: Any) -> Any:
        return functions(eta).exp(-0.5 * eta * eta - HALF_LOG_2PI)

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return log_ndtr(eta)

    def log_jet(self, eta: jax.Array, order: int) -> Jet:
        return variable(eta, order).of(log_ndtr)

    def log_complement_jet(self, eta: jax.Array, order: int) -> Jet:
        return _mirrored(self.log_jet(-eta, order))

    def log_complement(self, eta: jax.Array) -> jax.Array:
        return log_ndtr(-eta)

    def log_slope(self, eta: jax.Array) -> jax.Array:
        return -0.5 * eta * eta - HALF_LOG_2PI


class CLogLog(Link):
    """log(-log(1 - mu)): the event of a Poisson count above zero."""

    name: ClassVar[str] = "cloglog"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 2.0
    wide: ClassVar[float | None] = 10.0
    strip: ClassVar[float | None] = np.pi / 2
    tolerance: ClassVar[float | None] = np.pi**2 / 6
    ratio: ClassVar[str | None] = "hazard ratios"
    search: ClassVar[float | None] = 8.0

    def inverse(self, eta: Any) -> Any:
        f = functions(eta)
        return -f.expm1(-f.exp(eta))

    def link(self, mu: Any) -> Any:
        f = functions(mu)
        return f.log(-f.log1p(-mu))

    def slope(self, eta: Any) -> Any:
        f = functions(eta)
        return f.exp(eta - f.exp(eta))

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return log1mexp_exp(eta)

    def log_complement(self, eta: jax.Array) -> jax.Array:
        return -jnp.exp(eta)

    def log_complement_jet(self, eta: jax.Array, order: int) -> Jet:
        return variable(eta, order).exp() * -1.0

    def log_slope(self, eta: jax.Array) -> jax.Array:
        return eta - jnp.exp(eta)


class LogLog(Link):
    """-log(-log mu): ``cloglog`` read from the other end."""

    name: ClassVar[str] = "loglog"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 2.0
    wide: ClassVar[float | None] = 10.0
    strip: ClassVar[float | None] = np.pi / 2
    tolerance: ClassVar[float | None] = np.pi**2 / 6
    search: ClassVar[float | None] = 8.0

    def inverse(self, eta: Any) -> Any:
        f = functions(eta)
        return f.exp(-f.exp(-eta))

    def link(self, mu: Any) -> Any:
        f = functions(mu)
        return -f.log(-f.log(mu))

    def slope(self, eta: Any) -> Any:
        f = functions(eta)
        return f.exp(-eta - f.exp(-eta))

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return -jnp.exp(-eta)

    def log_complement(self, eta: jax.Array) -> jax.Array:
        return log1mexp_exp(-eta)

    def log_jet(self, eta: jax.Array, order: int) -> Jet:
        return _mirrored(CLogLog().log_complement_jet(-eta, order))

    def log_complement_jet(self, eta: jax.Array, order: int) -> Jet:
        return _mirrored(CLogLog().log_jet(-eta, order))

    def log_slope(self, eta: jax.Array) -> jax.Array:
        return -eta - jnp.exp(-eta)


class Cauchit(Link):
    """The quantile of the Cauchy distribution: heavy tails, forgiving of outliers."""

    name: ClassVar[str] = "cauchit"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 3000.0
    strip: ClassVar[float | None] = 1.0
    search: ClassVar[float | None] = 8.0

    def inverse(self, eta: Any) -> Any:
        f = functions(eta)
        return f.arctan2(f.ones_like(eta), -eta) / np.pi

    def link(self, mu: Any) -> Any:
        f = functions(mu)
        # tan of the distance to the nearer end: exact in both tails
        near = f.where(mu < 0.5, mu, 1 - mu)
        return f.where(mu < 0.5, -1.0, 1.0) / f.tan(np.pi * near)

    def slope(self, eta: Any) -> Any:
        return 1 / (np.pi * (1 + eta * eta))

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return jnp.log(self.inverse(eta))

    def log_complement(self, eta: jax.Array) -> jax.Array:
        return jnp.log(self.inverse(-eta))


class Log(Link):
    """log mu: effects are ratios."""

    name: ClassVar[str] = "log"
    unit_free: ClassVar[bool] = True
    end: ClassVar[float | None] = 9.0
    wide: ClassVar[float | None] = 10.0
    ratio: ClassVar[str | None] = "ratios of means"
    search: ClassVar[float | None] = 40.0

    def over_normal(self, eta: Any, sd: Any) -> tuple[Any, Any, Any]:
        value = np.exp(eta + sd**2 / 2)
        return value, value, sd * value

    def inverse(self, eta: Any) -> Any:
        return functions(eta).exp(eta)

    def link(self, mu: Any) -> Any:
        return functions(mu).log(mu)

    def slope(self, eta: Any) -> Any:
        return functions(eta).exp(eta)

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return eta

    def log_jet(self, eta: jax.Array, order: int) -> Jet:
        return variable(eta, order)

    def log_complement(self, eta: jax.Array) -> jax.Array:
        inside = eta < 0
        return jnp.where(inside, log1mexp(jnp.where(inside, -eta, 1.0)), -jnp.inf)

    def log_slope(self, eta: jax.Array) -> jax.Array:
        return eta


class Sqrt(Link):
    """The square root: constant variance for a Poisson count."""

    name: ClassVar[str] = "sqrt"
    even: ClassVar[bool] = True

    def over_normal(self, eta: Any, sd: Any) -> tuple[Any, Any, Any]:
        return eta**2 + sd**2, 2 * eta, 2 * sd

    def inverse(self, eta: Any) -> Any:
        return eta * eta

    def link(self, mu: Any) -> Any:
        return functions(mu).sqrt(mu)

    def slope(self, eta: Any) -> Any:
        return 2 * eta

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return 2 * _log_if(eta != 0, jnp.abs(eta))


class Identity(Link):
    """mu itself."""

    name: ClassVar[str] = "identity"

    def over_normal(self, eta: Any, sd: Any) -> tuple[Any, Any, Any]:
        return eta.copy(), np.ones_like(eta), np.zeros_like(eta)

    def inverse(self, eta: Any) -> Any:
        return eta

    def link(self, mu: Any) -> Any:
        return mu

    def slope(self, eta: Any) -> Any:
        return functions(eta).ones_like(eta)


class Inverse(Link):
    """1 / mu: canonical for the gamma distribution; eta must be positive."""

    name: ClassVar[str] = "inverse"
    positive: ClassVar[bool] = True

    def inverse(self, eta: Any) -> Any:
        return functions(eta).reciprocal(eta)

    def link(self, mu: Any) -> Any:
        return functions(mu).reciprocal(mu)

    def slope(self, eta: Any) -> Any:
        return -functions(eta).reciprocal(eta * eta)

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return jnp.where(eta > 0, -_log_if(eta > 0, eta), -jnp.inf)


class InverseSquared(Link):
    """1 / mu^2: canonical for the inverse Gaussian; eta must be positive."""

    name: ClassVar[str] = "1/mu^2"
    positive: ClassVar[bool] = True

    def inverse(self, eta: Any) -> Any:
        return functions(eta).reciprocal(functions(eta).sqrt(eta))

    def link(self, mu: Any) -> Any:
        return functions(mu).reciprocal(mu * mu)

    def slope(self, eta: Any) -> Any:
        return -0.5 * self.inverse(eta) / eta

    def log_inverse(self, eta: jax.Array) -> jax.Array:
        return jnp.where(eta > 0, -0.5 * _log_if(eta > 0, eta), -jnp.inf)


LINKS: dict[str, type[Link]] = {
    kind.name: kind
    for kind in (
        Logit,
        Probit,
        CLogLog,
        LogLog,
        Cauchit,
        Log,
        Sqrt,
        Identity,
        Inverse,
        InverseSquared,
    )
}
ALIASES = {
    "1/mu2": "1/mu^2",
    "inverse_squared": "1/mu^2",
    "inverse-squared": "1/mu^2",
    "reciprocal": "inverse",
}


def link_from(given: str | Link) -> Link:
    """A link by name, or the object as it is.

    Raises:
        ModelError: for an unknown name, with the names there are.
    """
    if isinstance(given, Link):
        return given
    if isinstance(given, type) and issubclass(given, Link):
        return given()
    if isinstance(given, Real):
        raise ModelError(
            f"link={given!r}: a family takes the link of its mean, such as 'log'. "
            "Priors are others: jg.Normal(mean, sd) of coefficients, jg.HalfT(df, "
            "scale) of standard deviations"
        )
    if not isinstance(given, str):
        raise ModelError(
            f"link must be a name such as 'log' or a Link, not {type(given).__name__}"
        )
    name = given.strip().lower()
    name = ALIASES.get(name, name)
    if name not in LINKS:
        raise ModelError(
            f"unknown link {given!r}; there are {', '.join(map(repr, LINKS))}"
        )
    return LINKS[name]()


def _mirrored(f: Jet) -> Jet:
    """f(-x) from the jet of f at -x."""
    return Jet(tuple(-a if k % 2 else a for k, a in enumerate(f.parts)))


def _log_if(inside: jax.Array, value: jax.Array) -> jax.Array:
    """log(value) where ``inside``, else minus infinity; derivatives stay finite."""
    return jnp.where(inside, jnp.log(jnp.where(inside, value, 1.0)), -jnp.inf)
