"""Priors as data: densities on standard deviations, correlations, coefficients.

Each is a frozen record with its log density (JAX, normalised) and draws (NumPy). What
belongs to which parameter is said by ``Priors``, and resolved against a design by
``model.priors.build``; whatever is left out gets a default that knows the scale of
the data, and is printed.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm._typing import Array, Float
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.trees import Module

Numbers = Float[Array, "..."]


def text(prior: Any) -> str:
    """A prior as it would be written, its numbers to four digits."""
    inside = ", ".join(f"{name}={value:.4g}" for name, value in vars(prior).items())
    return f"{type(prior).__name__}({inside})"


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if not (number > 0 and isfinite(number)):
        raise ModelError(f"{name}={value!r} must be a positive number")
    return number


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        shown = _arguments.shown(value)
        raise ModelError(f"{name}={shown} must be a number") from None


def _finite(name: str, value: Any) -> float:
    number = _number(name, value)
    if not isfinite(number):
        raise ModelError(f"{name}={value!r} must be finite")
    return number


class AbstractDensity(Module):
    """A density on numbers: dispersion parameters and what else has a prior alone."""

    @abc.abstractmethod
    def log_density(self, x: Numbers) -> Numbers:
        """log p(x), normalised; JAX and pure."""

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        """Draws."""


class Normal(AbstractDensity):
    """N(mean, sd^2), for coefficients; ``sd=inf`` is flat.

    >>> import jaxglmm as jg
    >>> jg.Normal(0, 2)
    Normal(mean=0.0, sd=2.0)
    """

    mean: float
    sd: float

    def __init__(self, mean: float = 0.0, sd: float = 1.0):
        self.mean = _finite("mean", mean)
        self.sd = inf if _number("sd", sd) == inf else _positive("sd", sd)

    def log_density(self, x: Numbers) -> Numbers:
        return -HALF_LOG_2PI - jnp.log(self.sd) - ((x - self.mean) / self.sd) ** 2 / 2

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        """Draws."""
        if self.sd == inf:
            raise ModelError("a flat prior (sd=inf) cannot be drawn from; give an sd")
        return rng.normal(self.mean, self.sd, size)


class AbstractScalePrior(AbstractDensity):
    """A density on positive numbers: standard deviations, dispersion parameters."""


class HalfNormal(AbstractScalePrior):
    """|N(0, sd^2)|.

    >>> import jaxglmm as jg
    >>> jg.HalfNormal(0.5)
    HalfNormal(sd=0.5)
    """

    sd: float

    def __init__(self, sd: float = 1.0):
        self.sd = _positive("sd", sd)

    def log_density(self, x: Numbers) -> Numbers:
        return jnp.log(2.0) - HALF_LOG_2PI - jnp.log(self.sd) - (x / self.sd) ** 2 / 2

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return np.abs(rng.normal(0.0, self.sd, size))


class HalfT(AbstractScalePrior):
    """|t| with ``df`` degrees of freedom times ``scale`` (df = 1: half-Cauchy).

    >>> import jaxglmm as jg
    >>> jg.HalfT(3, 2.5)
    HalfT(df=3.0, scale=2.5)
    """

    df: float
    scale: float

    def __init__(self, df: float = 3.0, scale: float = 1.0):
        self.df, self.scale = _positive("df", df), _positive("scale", scale)

    def log_density(self, x: Numbers) -> Numbers:
        df = jnp.asarray(self.df)
        constant = gammaln((df + 1) / 2) - gammaln(df / 2) - jnp.log(df * jnp.pi) / 2
        tail = -(df + 1) / 2 * jnp.log1p((x / self.scale) ** 2 / df)
        return jnp.log(2.0) + constant - jnp.log(self.scale) + tail

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return np.abs(rng.standard_t(self.df, size)) * self.scale


class Exponential(AbstractScalePrior):
    """rate e^{-rate x}: the penalised-complexity prior of a standard deviation.

    Simpson, Rue, Riebler, Martins and Sorbye (2017); ``Exponential.tail(U, alpha)`` has
    P(x > U) = alpha.

    >>> import jaxglmm as jg
    >>> jg.Exponential.tail(1, 0.05)
    Exponential(rate=2.9957322735539913)
    """

    rate: float

    def __init__(self, rate: float = 1.0):
        self.rate = _positive("rate", rate)

    @classmethod
    def tail(cls, U: float, alpha: float = 0.05) -> Exponential:
        """The one with P(x > U) = alpha."""
        share = _number("alpha", alpha)
        if not 0 < share < 1:
            raise ModelError(f"alpha={alpha!r} must lie between 0 and 1")
        return cls(-log(share) / _positive("U", U))

    def log_density(self, x: Numbers) -> Numbers:
        return jnp.log(self.rate) - self.rate * x

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return rng.exponential(1 / self.rate, size)


class LogNormal(AbstractScalePrior):
    """log x ~ N(mean, sd^2); LogNormal(0, 1) is statsmodels' prior.

    >>> import jaxglmm as jg
    >>> jg.LogNormal(0, 1)
    LogNormal(mean=0.0, sd=1.0)
    """

    mean: float
    sd: float

    def __init__(self, mean: float = 0.0, sd: float = 1.0):
        self.mean, self.sd = _finite("mean", mean), _positive("sd", sd)

    def log_density(self, x: Numbers) -> Numbers:
        y = jnp.log(x)
        z = (y - self.mean) / self.sd
        return -HALF_LOG_2PI - jnp.log(self.sd) - z**2 / 2 - y

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return rng.lognormal(self.mean, self.sd, size)


class Uniform(AbstractDensity):
    """The same everywhere between two ends, for parameters that have such a range.

    >>> import jaxglmm as jg
    >>> jg.Uniform(1, 2)
    Uniform(low=1.0, high=2.0)
    """

    low: float
    high: float

    def __init__(self, low: float = 0.0, high: float = 1.0):
        self.low, self.high = _finite("low", low), _finite("high", high)
        if not self.low < self.high:
            raise ModelError(f"low={low!r} must be below high={high!r}")

    def log_density(self, x: Numbers) -> Numbers:
        inside = (x >= self.low) & (x <= self.high)
        return jnp.where(inside, -jnp.log(self.high - self.low), -jnp.inf)

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return rng.uniform(self.low, self.high, size)


class Fixed(Module):
    """A dispersion parameter that is known: a residual sd of 1 in a meta-analysis.

    >>> import jaxglmm as jg
    >>> jg.Fixed(1)
    Fixed(value=1.0)
    """

    value: float

    def __init__(self, value: float = 1.0):
        self.value = _finite("value", value)

    def sample(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        """The value, as often as asked for."""
        return np.full(() if size is None else size, self.value)


class LKJ(Module):
    """A density on correlation matrices, proportional to |R|^{eta - 1}.

    eta = 1 is uniform; larger values prefer small correlations (Lewandowski, Kurowicka
    and Joe 2009).

    >>> import jaxglmm as jg
    >>> jg.LKJ(2)
    LKJ(eta=2.0)
    """

    eta: float

    def __init__(self, eta: float = 1.0):
        self.eta = _positive("eta", eta)

    def sample(self, rng: np.random.Generator, K: int) -> np.ndarray:
        """The Cholesky factor of one draw, (K, K)."""
        L = np.zeros((K, K))
        for i in range(K):
            left = 1.0
            for j in range(i):
                b = self.eta + (K - 2 - j) / 2
                w = 2 * rng.beta(b, b) - 1
                L[i, j] = w * np.sqrt(left)
                left *= 1 - w**2
            L[i, i] = np.sqrt(left)
        return L


@dataclass(frozen=True)
class Priors:
    """Priors of a model; what is None gets a default on the scale of the data.

    Args:
        coefficients: a ``Normal`` or a standard deviation for all slopes; or a dict
            coefficient's name -> either, where ``"others"`` stands for all slopes that
            are not named; or a sequence, one a column of X, the intercept's among them.
        intercept: a ``Normal`` or a standard deviation.
        sd: a prior of the random effects' standard deviations (``HalfT``,
            ``HalfNormal``, ``Exponential``, ``LogNormal``); or a dict with the term's
            label (``"Subject"``) or label and column (``"Subject:Days"``) -> prior,
            ``"others"`` as above.
        correlation: ``LKJ``, or its eta; or a dict term's label -> either, likewise.
            Of structures with one correlation (``ar1``, ``cs``) its density is
            proportional to (1 - rho^2)^(eta - 1) between the ends of its range, of
            ``toep`` with eta = 1 uniform over all such matrices. What has a range
            (``ou``, ``exp``, ``gau``, ``mat``) takes a prior of positive numbers for
            it, and one for Matern's smoothness under the label and ``:nu``.
        dispersion: prior of the family's dispersion parameters (sigma of a Gaussian),
            or ``Fixed(value)`` where one is known; or a dict its name -> either,
            likewise. What can be negative takes a ``Normal``, what lies between two
            ends a ``Uniform``.
        thresholds: of an ordinal model: a ``Normal`` or a standard deviation for each
            of them, which are drawn until they are in order; or a dict a threshold's
            name (``"1|2"``) -> either, likewise. Spacings of structured thresholds are
            positive numbers and take priors of these, by name.
        centered: whether the priors of intercepts and thresholds are about the
            predictor where all its covariates are at their means (True), or at zero.

    >>> import jaxglmm as jg
    >>> jg.Priors(sd=jg.HalfNormal(1)).sd
    HalfNormal(sd=1.0)
    """

    coefficients: Any = None
    intercept: Any = None
    sd: Any = None
    correlation: Any = None
    dispersion: Any = None
    thresholds: Any = None
    centered: bool = True

    def __post_init__(self) -> None:
        _arguments.flag("centered", self.centered, error=ModelError)

    @classmethod
    def statsmodels(cls, vcp_p: float = 1.0, fe_p: float = 2.0) -> Priors:
        """Those of statsmodels' Bayesian mixed GLMs.

        beta ~ N(0, fe_p^2), intercept included; log sd ~ N(0, vcp_p^2).

        >>> import jaxglmm as jg
        >>> jg.Priors.statsmodels().sd
        LogNormal(mean=0.0, sd=1.0)
        """
        return cls(
            coefficients=Normal(0.0, fe_p),
            intercept=Normal(0.0, fe_p),
            sd=LogNormal(0.0, vcp_p),
            centered=False,
        )


def normal_from(given: Any, name: str) -> Normal:
    """A ``Normal`` from one or from a standard deviation."""
    if isinstance(given, Normal):
        return given
    if isinstance(given, int | float | np.number) and not isinstance(given, bool):
        return Normal(0.0, float(given))
    raise ModelError(
        f"the prior of {name} is {given!r}; give jg.Normal(mean, sd) or an sd"
    )


def scale_from(given: Any, name: str) -> AbstractScalePrior:
    """A prior on positive numbers."""
    if isinstance(given, AbstractScalePrior):
        return given
    raise ModelError(
        f"the prior of {name} is {given!r}; give one of jg.HalfT(df, scale), "
        "jg.HalfNormal(sd), jg.Exponential(rate), jg.LogNormal(mean, sd)"
    )


def density_from(given: Any, name: str, ends: tuple[float, float]) -> Any:
    """A prior of a dispersion parameter with this range, or its known value."""
    low, high = ends
    if isinstance(given, Fixed):
        if not low < given.value < high:
            raise ModelError(
                f"{name} is fixed at {given.value:g} and lies between {low:g} and "
                f"{high:g}"
            )
        return given
    if ends == (0.0, inf):
        return scale_from(given, name)
    if not isinstance(given, AbstractDensity):
        fits = (
            "jg.Normal(mean, sd)" if high == inf else f"jg.Uniform({low:g}, {high:g})"
        )
        raise ModelError(f"the prior of {name} is {given!r}; give {fits}")
    return given


def lkj_from(given: Any, name: str) -> LKJ:
    """An ``LKJ`` from one or from its eta."""
    if isinstance(given, LKJ):
        return given
    if isinstance(given, int | float | np.number) and not isinstance(given, bool):
        return LKJ(float(given))
    raise ModelError(f"the prior of {name} is {given!r}; give jg.LKJ(eta) or eta")


OTHERS = "others"  # key of the priors of whatever has no key of its own


def named(given: Any, known: list[str], what: str) -> Mapping[str, Any]:
    """A dict as it is where its keys are known or ``OTHERS``; {} for anything else.

    Raises:
        ModelError: a key that names nothing, with what there is.
    """
    if not isinstance(given, Mapping):
        return {}
    unknown = [key for key in given if key not in (*known, OTHERS)]
    if unknown:
        raise ModelError(
            f"priors name {what} {', '.join(map(repr, unknown))}; the model has "
            f"{', '.join(map(repr, known))}; {OTHERS!r} stands for those not named"
        )
    return given


def of(given: Mapping[str, Any], known: list[str], *names: str) -> Any:
    """The prior of the first of the names that has one; else that of the others.

    A parameter that is called as their key is has the key to itself.
    """
    found = [given[name] for name in names if name in given]
    if found or OTHERS in known:
        return found[0] if found else None
    return given.get(OTHERS)
