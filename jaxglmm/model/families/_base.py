"""The contract of a family: what the response is, given its linear predictor.

A family is a density of y with a linear predictor eta, a link and any number of
dispersion parameters, kept on scales without bounds (``phi``, an array of length
``n_phi``): as the logarithms of their natural values, unless ``phi_scales`` or
``natural`` says otherwise. Some have several linear
predictors (``model.predictors``): then eta is (K, n), s (K, n), w (K, K, n), w1
(K, K, K, n), and ``log_density`` is still all that must be written.

Two halves. What enters the likelihood is JAX and pure: ``log_density`` with all its
constants, its ``derivatives`` in eta, the Fisher information ``expected_weight``; only
``log_density`` must be written, the rest follows by differentiation. What results and
data checks need is NumPy, on the host, once a fit: ``check``, ``start``, ``variance``,
residuals, ``cdf``, ``simulate``. Prior weights are outside: they multiply the log
density of a row.

A family of one's own subclasses ``AbstractFamily`` and writes ``name``, ``n_phi`` and
``log_density``; see ``examples/custom_family.py``.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Literal

import numpy as np

from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.families._dispersion import DispersionParameters
from jaxglmm.model.families._saturated import best_eta
from jaxglmm.model.families._values import NaturalValues
from jaxglmm.model.links import LINKS, Link, link_from
from jaxglmm.numerics.jets import Jet, gradients, nested
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import filter_jit

Rows = Float[Array, "..."]
Phi = Float[Array, " r"]  # the dispersion parameters, without bounds
Trials = Rows | float
Derivatives = tuple[Rows, Rows, Rows, Rows]
Method = Literal["lognormal", "delta", "trigamma"]


class AbstractFamily(NaturalValues, DispersionParameters):
    """A conditional distribution of the response.

    Class attributes, beside those of ``DispersionParameters``:
        name: as in ``family="..."``.
        canonical: name of the canonical link, None where there is none.
        default_link: the link where none is given.
        links: names of the links that make sense; a ``Link`` object is always taken.
        predictors: names of the linear predictors; ``link`` is that of the first.
        other_links: names of the links of the others.
        family_kind: "binomial" where the response is successes out of trials, "ordinal"
            or "nominal" where it is categories, else "numeric": how y is read.
        discrete: whether y is a count (quantile residuals are then randomised).
        padding: a value of y that any row may have, for rows of weight zero.
        has_zeros: whether y may be zero.
        concave: links, beside the canonical one, at which log f is concave in eta,
            whatever y.
        near_zero_dispersion: values of the first phi at next to no dispersion and at
            none, where effects of single rows explain the same excess as it does.
        self_concordant: links at which |dw/deta| <= w, so that damping a level's Newton
            step by its length is enough.
        starts_alone: whether ``start``, by the default link, sees one row at a time.
        limit: name of the family that this is at the end of its dispersion.
        overdispersed: name of the family for more spread than this one has.
    """

    name: ClassVar[str]
    canonical: ClassVar[str | None] = None
    default_link: ClassVar[str] = "identity"
    links: ClassVar[tuple[str, ...]] = tuple(LINKS)
    predictors: ClassVar[tuple[str, ...]] = ("mean",)
    other_links: ClassVar[tuple[str, ...]] = ()
    family_kind: ClassVar[Literal["numeric", "binomial", "ordinal", "nominal"]] = (
        "numeric"
    )
    discrete: ClassVar[bool] = False
    padding: ClassVar[float] = 0.0
    has_zeros: ClassVar[bool] = True
    concave: ClassVar[tuple[str, ...]] = ()
    near_zero_dispersion: ClassVar[tuple[float, ...]] = ()
    self_concordant: ClassVar[tuple[str, ...]] = ()
    starts_alone: ClassVar[bool] = False
    limit: ClassVar[str | None] = None
    overdispersed: ClassVar[str | None] = None

    link: Link

    def __init__(self, link: str | Link | None = None):
        """A family with a link, by name or as an object."""
        found = link_from(self.default_link if link is None else link)
        if found.name in LINKS and found.name not in self.links:
            raise ModelError(
                f"link {found.name!r} does not suit the family {self.name!r}; it takes "
                f"{', '.join(map(repr, self.links))}"
            )
        self.link = found

    # -- what its link makes of a family ---------------------------------------------

    @property
    def predictor_links(self) -> tuple[Link, ...]:
        """The link of each linear predictor."""
        return (self.link, *map(link_from, self.other_links))

    @property
    def is_unit_free(self) -> bool:
        """Whether no linear predictor has a unit."""
        return all(link.unit_free for link in self.predictor_links)

    @property
    def has_canonical_link(self) -> bool:
        """Whether the link is the canonical one: observed information is expected."""
        return self.link.name == self.canonical

    @property
    def is_log_concave(self) -> bool:
        """Whether log f is concave in eta, whatever y."""
        return self.link.name in (self.canonical, *self.concave)

    @property
    def is_self_concordant(self) -> bool:
        """Whether |dw/deta| <= w."""
        return self.link.name in self.self_concordant

    @property
    def is_linear_model(self) -> bool:
        """Whether this is a linear model's family: log f is quadratic in eta."""
        return False

    # -- inside jit ------------------------------------------------------------------

    @abc.abstractmethod
    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        """log f(y | eta, phi), elementwise, with all constants; JAX and pure.

        Args:
            y: (n,) response; successes for the binomial kind.
            eta: (n,) linear predictor.
            phi: (n_phi,) logarithms of the dispersion parameters.
            trials: (n,) or 1.0; the other kinds ignore it.
        """

    def log_base(self, y: Rows, trials: Trials = 1.0) -> Rows:
        """The part of the log density that is a function of y and trials alone.

        ``log_density`` less this is what ``kernel_derivatives`` starts from; a loop
        that visits the rows many times adds it once. Zero unless overridden.
        """
        return jnp.zeros_like(y)

    def derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        """(l, s, w, w1): log density, dl/deta, -d2l/deta2 (observed), dw/deta."""
        kernel, s, w, w1 = self.kernel_derivatives(y, eta, phi, trials)
        return kernel + self.log_base(y, trials), s, w, w1

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        """``derivatives`` with ``log_base`` left out of the first; by autodiff."""

        def density(x: Rows) -> Rows:
            return self.log_density(y, x, phi, trials)

        if len(self.predictors) == 1:
            l, s, w, w1 = nested_derivatives(density, eta)
        else:
            l, s, w, w1 = signed(Jet(gradients(density, eta)))
        return l - self.log_base(y, trials), s, w, w1

    @property
    def has_separable_term(self) -> bool:
        """Whether ``log_separable`` holds what is dear to evaluate."""
        return False

    def log_separable(self, y: Rows, phi: Phi) -> Rows:
        """A part of the log density, beyond ``log_base``, without eta.

        Rows with the same y share it, so a loop may sum it over the distinct values.
        """
        return jnp.zeros_like(y)

    def log_separable_step(self, y: Rows, phi: Phi) -> Rows:
        """``log_separable`` of y + 1 less that of y, of counts: cheaper than both."""
        return self.log_separable(y + 1.0, phi) - self.log_separable(y, phi)

    def coupled_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        """``kernel_derivatives`` with ``log_separable`` left out of the first."""
        return self.kernel_derivatives(y, eta, phi, trials)

    @property
    def has_joint_information(self) -> bool:
        """Whether ``by_phi`` is known and log f concave in eta and phi together."""
        return False

    @property
    def knows_phi(self) -> bool:
        """Whether ``by_phi`` is known."""
        return self.has_joint_information

    def by_phi(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> ByPhi:
        """``coupled_derivatives`` and what they are in phi, by formulas."""
        raise NotImplementedError(self.name)

    def expected_weight(self, eta: Rows, phi: Phi, trials: Rows | float = 1.0) -> Rows:
        """Fisher information of a row about eta, positive; of one predictor.

        (d mu / d eta)^2 / variance: exact for exponential families, a lower bound
        for others (the information inequality), and the square of the slope alone
        where a family does not say its variance.
        """
        mu, slope = self.link.inverse(eta), self.link.slope(eta)
        if type(self).variance is AbstractFamily.variance:
            return positive(slope**2)
        size = trials if self.family_kind == "binomial" else 1.0
        variance = self.variance(mu, phi, trials)
        found = jnp.where(variance > 0, variance, 1.0)  # it may underflow far out
        return positive(jnp.where(variance > 0, (size * slope) ** 2 / found, 0.0))

    def expected_block(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows | None:
        """Fisher information of several predictors, (K, K, n); None: not known."""
        return None

    def kernel_over_normal(
        self, y: Rows, mean: Rows, variance: Rows, phi: Phi, trials: Trials = 1.0
    ) -> tuple[Rows, Rows, Rows] | None:
        """Means of the first three ``kernel_derivatives`` at a normal eta.

        In closed form; None for families without one.
        """
        return None

    # -- arrays of either kind -------------------------------------------------------

    def mean(self, eta: Any) -> Any:
        """E y (binomial kind: the probability, E y / trials)."""
        return self.link.inverse(eta)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        """Var y, elementwise (binomial kind: of the number of successes)."""
        raise NotApplicableError(
            f"family {self.name!r} does not say its variance; define variance(mu, phi, "
            "trials) in its class"
        )

    # -- on the host -----------------------------------------------------------------

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        """Refuse a response that the family cannot have produced.

        Args:
            y: (n,) response.
            trials: (n,) or None.
            rows: (n,) positions in the user's data where some rows were dropped.

        Raises:
            DataError: values outside the support, the first ones named.
            ModelError: a response from which nothing can be estimated.
        """
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """eta (n,) near the data and phi (n_phi,), to start an optimiser from.

        Of several predictors eta is (K, n), those after the first zero.
        """
        with np.errstate(all="ignore"):
            eta = np.asarray(self.link.link(np.asarray(y, np.float64)))
            middle = np.asarray(self.link.link(np.float64(np.mean(y))))
        if not np.isfinite(middle):
            middle = np.float64(0.0)
        eta = np.where(np.isfinite(eta), eta, middle)
        if len(self.predictors) > 1:
            rest = np.zeros((len(self.predictors) - 1, len(eta)))
            eta = np.concatenate([eta[None], rest])
        return eta, np.zeros(self.n_phi)

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray | None:
        """The phi of ``start`` (n_phi, ...) from moments of y, many at once.

        Where ``start`` finds eta row by row; None for other families.
        """
        return None if self.n_phi else np.zeros((0, *np.shape(mean)))

    def worth(self, y: np.ndarray, trials: Any = None) -> np.ndarray | None:
        """How many yes-or-no trials a row is worth, (n,).

        Laplace's approximation is in doubt where a level is worth few; None where that
        is not to be said.
        """
        return None

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """Twice the log density lost against the best mean for the row, >= 0.

        The best mean is found by search; families with a closed form override this.
        """
        best = self._best_eta(y, phi, trials)
        eta = np.asarray(self.link.link(mu))
        gain = self._log_density(y, best, phi, trials) - self._log_density(
            y, eta, phi, trials
        )
        return 2 * np.maximum(gain, 0.0)

    def deviance_residuals(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """Signed roots of the unit deviances."""
        size = trials if self.family_kind == "binomial" else 1.0
        deviance = np.maximum(self.unit_deviance(y, mu, phi, trials), 0.0)
        return np.sign(y - size * self.mean_of(mu, phi)) * np.sqrt(deviance)

    def pearson_residuals(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """(y - E y) / sd y; zero where both are, at the end of a range."""
        size = trials if self.family_kind == "binomial" else 1.0
        root = np.sqrt(self.variance(mu, phi, trials))
        return ratio(y - size * self.mean_of(mu, phi), root)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """P(Y <= y), elementwise."""
        raise NotApplicableError(
            f"family {self.name!r} does not say its distribution function; define "
            "cdf(y, mu, phi, trials) in its class"
        )

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        """One draw a row (binomial kind: successes), of the shape of ``mu``."""
        raise NotApplicableError(
            f"family {self.name!r} does not say how to draw; define simulate(rng, mu, "
            "phi, trials) in its class"
        )

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        """Variance of a row on the scale of eta, for ICC and R2.

        Nakagawa, Johnson and Schielzeth (2017), J. R. Soc. Interface 14: pi^2 / 3 and
        the like for probabilities; for log links log(1 + var / mu^2) ("lognormal"),
        var / mu^2 ("delta") or ``trigamma`` of the shape; otherwise the delta method.

        Args:
            mu: mean to evaluate at.
            phi: (n_phi,) dispersion.
            trials: only where the variance of a family depends on it.
            method: which approximation, for log links.
        """
        return _latent_variance(self, mu, phi, trials, method)

    @double_precision
    def _log_density(self, y: Any, eta: Any, phi: Any, trials: Any) -> np.ndarray:
        return np.asarray(_evaluate(self, *_arrays(y, eta, phi, trials)))

    @double_precision
    def _best_eta(self, y: Any, phi: Any, trials: Any) -> np.ndarray:
        y, start, phi, trials = _arrays(y, self.start(y, trials)[0], phi, trials)
        return np.asarray(best_eta(self, y, start, phi, trials))


def _latent_variance(
    family: AbstractFamily, mu: Any, phi: Any, trials: Any, method: Method
) -> np.ndarray:
    mu = np.asarray(mu, np.float64)
    variance = np.asarray(family.variance(mu, phi, trials), np.float64)
    if family.link.name != "log" or method == "delta":
        slope = np.asarray(family.link.slope(np.asarray(family.link.link(mu))))
        return variance / slope**2
    if method == "lognormal":
        return np.log1p(variance / mu**2)
    if method == "trigamma":
        from scipy.special import polygamma

        return polygamma(1, mu**2 / variance)
    raise ModelError(
        f"method {method!r} is not one of 'lognormal', 'delta', 'trigamma'"
    )


def ratio(above: Any, below: Any) -> np.ndarray:
    """above / below, zero where above is, whatever is below."""
    above, below = np.broadcast_arrays(
        np.asarray(above, float), np.asarray(below, float)
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(above == 0.0, 0.0, above / below)


def gain(y: Any, expected: Any) -> np.ndarray:
    """y log(y / expected), zero where y is, whatever is expected."""
    from scipy.special import xlogy

    y = np.asarray(y, float)
    with np.errstate(divide="ignore"):
        return xlogy(y, np.where(y == 0.0, 1.0, ratio(y, expected)))


def nested_derivatives(log_density: Any, eta: Rows) -> Derivatives:
    """(l, s, w, w1) by automatic differentiation, three tangents deep."""
    return signed(nested(log_density, eta, 3))


def signed(l: Jet) -> Derivatives:
    """(l, s, w, w1) of a log density: the curvatures change sign."""
    value, l1, l2, l3 = l.parts
    return value, l1, -l2, -l3


def positive(weight: Rows) -> Rows:
    """Kept above zero where it underflows."""
    return jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)


def where_inside(found: Jet, log_mu: Jet) -> Jet:
    """``found``, minus infinity and flat where the link has no mean."""
    ok = log_mu.value > -jnp.inf
    parts = (jnp.where(ok, part, 0.0) for part in found.parts[1:])
    return Jet((jnp.where(ok, found.value, -jnp.inf), *parts))


def harmless(log_mu: Jet) -> Jet:
    """log mu with zero where the link has no mean."""
    ok = log_mu.value > -jnp.inf
    return Jet((jnp.where(ok, log_mu.value, 0.0), *log_mu.parts[1:]))


def _arrays(y: Any, eta: Any, phi: Any, trials: Any) -> tuple[Array, ...]:
    shape = np.broadcast_shapes(np.shape(y), np.shape(eta))
    trials = 1.0 if trials is None else trials
    return (
        jnp.broadcast_to(jnp.asarray(y, float), shape),
        jnp.broadcast_to(jnp.asarray(eta, float), shape),
        jnp.atleast_1d(jnp.asarray(phi, float)),
        jnp.broadcast_to(jnp.asarray(trials, float), shape),
    )


class JetFamily(AbstractFamily):
    """A family whose log density is one formula in jets, of order 0 or 3."""

    @abc.abstractmethod
    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        """The log density as a jet in eta, of order 0 or 3."""

    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        return self.log_jet(y, eta, phi, trials, 0).value

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        l, s, w, w1 = signed(self.log_jet(y, eta, phi, trials, 3))
        return l - self.log_base(y, trials), s, w, w1


@filter_jit
def _evaluate(family: AbstractFamily, y, eta, phi, trials) -> Rows:
    return family.log_density(y, eta, phi, trials)
