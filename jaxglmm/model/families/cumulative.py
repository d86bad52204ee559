"""Cumulative link models: ordered categories.

Category y of K = 0, 1, ... is where a latent eta + e falls between thresholds,

    P(Y <= j) = F(theta_j - eta),    theta_0 < ... < theta_{K-2},

F the distribution function that the link is the inverse of (McCullagh 1980, J. R. Stat.
Soc. B 42; signs as in Christensen's R package ordinal). There is no intercept: the
thresholds are. phi = (c, log spacings), see ``_thresholds``; inside the likelihood's
algebra c is minus the intercept of an X that has one (``core``), where it is centred
and scaled as any intercept is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import DataError, ModelError
from jaxglmm.model.families import _checks, _thresholds
from jaxglmm.model.families._base import JetFamily, Method, Phi, Rows, Trials, positive
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.families._interval import INTERVALS, Apart, Ends, gap_of
from jaxglmm.model.families._spacings import (
    at_row,
    by_spacings,
    combined,
    drawn_between,
    log_gaps,
)
from jaxglmm.model.families.binomial import probability_variance
from jaxglmm.model.links import Link
from jaxglmm.numerics.jets import Jet
from jaxglmm.numerics.scales import Scale
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field

MOST = 100  # categories; more of them are a number


class ThresholdFamily(JetFamily):
    """What thresholds are made of, and by which names they are reported.

    thresholds: their structure; levels: labels of the categories; categories: how many;
    located: whether phi has their location; reference: which of them is at zero.
    """

    thresholds: str = field(static=True)
    levels: tuple[Any, ...] | None = field(static=True)
    categories: int = field(static=True)
    located: bool = field(static=True)
    reference: int | None = field(static=True)

    @property
    def _is_core(self) -> bool:
        return self.levels is None and not self.located

    @property
    def L(self) -> int:
        """How many thresholds."""
        return self.categories - 1

    @property
    def _A(self) -> np.ndarray:
        A = _thresholds.spacings(self.thresholds, self.L)
        return A if self.reference is None else A - A[self.reference]

    @property
    def n_phi(self) -> int:  # type: ignore[override]
        """Location and log spacings; 0 before the categories are known."""
        if self.categories == 0:
            return 0
        return self.located + self._A.shape[1]

    @property
    def phi_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the threshold parameters, ``1|2``, ... where they are flexible."""
        if self.categories == 0:
            return ()
        if self._is_core:
            return tuple(f"spacing.{k + 1}" for k in range(self.n_phi))
        labels = range(self.categories) if self.levels is None else self.levels
        return _thresholds.parameter_names(self.thresholds, tuple(labels))

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """``1|2``, ``2|3``, ..."""
        return _thresholds.names(self.levels or tuple(range(self.categories)))

    # -- natural parameters ----------------------------------------------------------

    def theta(self, phi: Any) -> np.ndarray:
        """(L,) thresholds, or (..., L) from (..., n_phi)."""
        c, d = np.split(np.asarray(phi, float), [int(self.located)], axis=-1)
        return (c if self.located else 0.0) + np.exp(d) @ self._A.T

    def theta_jacobian(self, phi: Any) -> np.ndarray:
        """(L, n_phi) derivatives of ``theta``."""
        A = self._A
        if not self.located:
            return A * np.exp(phi)
        return np.column_stack([np.ones(self.L), A * np.exp(phi[1:])])

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Thresholds are any numbers, spacings are positive."""
        if self._is_core:
            return super().scales
        return _thresholds.scales(self.thresholds, self.L)

    @property
    def rising(self) -> tuple[tuple[int, ...], ...]:
        """Which of the parameters that are reported must rise, from one to the next."""
        return _thresholds.rising(self.thresholds, self.L)

    @property
    def moved(self) -> np.ndarray:
        """(n_phi,) how much each moves with the location of all thresholds."""
        return self._reported[:, 0] if self.located else np.zeros(self.n_phi)

    def natural(self, phi: Any) -> Any:
        """(n_phi, ...) the parameters that are reported, ``phi_names``."""
        if isinstance(phi, jax.Array):
            at = int(self.located)
            return self._reported @ jnp.concatenate([phi[:at], jnp.exp(phi[at:])])
        phi = np.asarray(phi, float)
        c, d = np.split(phi, [int(self.located)])
        return np.tensordot(self._reported, np.concatenate([c, np.exp(d)]), axes=1)

    @property
    def phi_apart(self) -> bool:  # type: ignore[override]
        """Whether each of what is reported is a function of its own phi."""
        return self._is_core

    def log_natural_slope(self, phi: Any) -> Any:
        return np.linalg.slogdet(self._reported)[1] + sum(phi[int(self.located) :])

    def from_natural(self, values: Any) -> Any:
        """phi (n_phi, ...) of what is reported."""
        if isinstance(values, jax.Array):
            at = int(self.located)
            d = np.linalg.inv(self._reported) @ values
            return jnp.concatenate([d[:at], jnp.log(d[at:])])
        values = np.asarray(values, float)
        wide = values.reshape(len(values), -1)
        d = np.linalg.solve(self._reported, wide).reshape(values.shape)
        c, d = np.split(d, [int(self.located)])
        return np.concatenate([c, np.log(d)])

    def natural_jacobian(self, phi: Any) -> np.ndarray:
        """(..., n_phi, n_phi) derivatives of ``natural``, from phi (..., n_phi)."""
        c, d = np.split(np.asarray(phi, float), [int(self.located)], axis=-1)
        slope = np.concatenate([np.ones_like(c), np.exp(d)], axis=-1)
        return self._reported * slope[..., None, :]

    @property
    def _reported(self) -> np.ndarray:
        if self._is_core:
            return np.eye(self.n_phi)
        B = _thresholds.reported(self.thresholds, self.L)
        return B if self.located else B[:, B.shape[1] - self.n_phi :]

    def dispersion(self, phi: Any) -> dict[str, float]:
        return dict(zip(self.phi_names, self.natural(phi).tolist(), strict=True))

    def sigma(self, phi: Any) -> float:
        return 1.0


class Cumulative(ThresholdFamily):
    """Ordered categories, P(Y <= j) = F(theta_j - eta).

    Args:
        link: "logit" (proportional odds), "probit", "cloglog" (proportional hazards),
            "loglog" or "cauchit".
        thresholds: "flexible"; "symmetric" about their middle; "symmetric2", symmetric
            about zero; or "equidistant".
        levels: the categories in their order, where the response does not say it (text
            has none); those that are ordered categoricals, truths or numbers do.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Cumulative(link="probit", thresholds="equidistant")
        Cumulative(link=Probit(), thresholds='equidistant')
    """

    name: ClassVar[str] = "cumulative"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = tuple(INTERVALS)
    concave: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog", "loglog")
    self_concordant: ClassVar[tuple[str, ...]] = ("logit",)
    family_kind: ClassVar[Literal["numeric", "binomial", "ordinal", "nominal"]] = (
        "ordinal"
    )
    discrete: ClassVar[bool] = True
    phi_range: ClassVar[tuple[Any, Any]] = (-40.0, 40.0)

    def __init__(
        self,
        link: str | Link | None = None,
        thresholds: str = "flexible",
        levels: Sequence[Any] | None = None,
        categories: int | None = None,
        located: bool = True,
        reference: int | None = None,
    ):
        super().__init__(link)  # pyright: ignore[reportCallIssue]  # fields: below
        if self.link.name not in self.links:
            raise ModelError(
                f"link {self.link.name!r}: cumulative models take "
                f"{', '.join(map(repr, self.links))}"
            )
        self.thresholds = _arguments.choice(
            "thresholds", thresholds, _thresholds.STRUCTURES, error=ModelError
        )
        self.levels = category_levels(levels)
        known = 0 if self.levels is None else len(self.levels)
        self.categories = known if categories is None else categories
        self.reference = reference
        self.located = located and _thresholds.has_location(self.thresholds)

    def __repr__(self) -> str:
        shown = f"link={self.link!r}, thresholds={self.thresholds!r}"
        if self.levels is not None:
            shown += f", levels={list(self.levels)}"
        elif self.categories:
            shown += f", categories={self.categories}, located={self.located}"
        if self.reference is not None:
            shown += f", reference={self.reference}"
        return f"Cumulative({shown})"

    # -- of a response ---------------------------------------------------------------

    def of_levels(self, levels: Sequence[Any]) -> Cumulative:
        """The family of a response with these categories, in order."""
        _thresholds.check(self.thresholds, len(levels))
        return Cumulative(self.link, self.thresholds, levels)

    @property
    def core(self) -> Cumulative:
        """The same with thresholds about zero; their location is X's intercept."""
        return self if self._is_core else self.about(None)

    def about(self, reference: int | None) -> Cumulative:
        """``core`` whose thresholds are about one of them, or about their middle."""
        return Cumulative(
            self.link,
            self.thresholds,
            categories=self.categories,
            located=False,
            reference=reference,
        )

    # -- the likelihood --------------------------------------------------------------

    def _ends(self, y: Rows, eta: Rows, phi: Phi) -> Ends:
        """The interval of each row's category, less eta; phi (r,), or (r, lanes)."""
        A = self._A
        c, a = (phi[0], phi[1:]) if self.located else (0.0, phi)
        t = c + combined(A, jnp.exp(a))
        log_gap = log_gaps(np.diff(A, axis=0), a)
        y = y.real  # on the host numbers may have a complex step beside them
        last = self.L
        upper, lower = at_row(t, y), at_row(t, y - 1)
        if last == 1:
            gap, known = jnp.zeros_like(eta), None
        else:
            gap = at_row(log_gap, y - 1)
            known = Apart(*(at_row(x, y - 1) for x in gap_of(log_gap)))
        return Ends(upper - eta, lower - eta, gap, y > 0, y < last, known)

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        return INTERVALS[self.link.name](self._ends(y, eta, phi), order)

    @property
    def has_joint_information(self) -> bool:
        """log(F(a) - F(b)) is concave where the density is log-concave."""
        return self.is_log_concave and len(self.predictors) == 1 and self.n_phi > 0

    def by_phi(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> ByPhi:
        a, ends = phi[int(self.located) :], self._ends(y, eta, phi)
        return by_spacings(self.link, self.located, ends, y, a, self._A)

    def worth(self, y: np.ndarray, trials: Any = None) -> np.ndarray:
        """A yes or no at every threshold."""
        return np.full(len(y), float(self.L))

    def expected_weight(self, eta: Rows, phi: Phi, trials: Rows | float = 1.0) -> Rows:
        total = jnp.zeros_like(eta)
        for k in range(self.categories):
            l = self.log_jet(jnp.full_like(eta, float(k)), eta, phi, 1.0, 3)
            total = total + jnp.exp(l.parts[0]) * l.parts[1] ** 2
        return positive(total)

    # -- on the host -----------------------------------------------------------------

    def mean(self, eta: Any) -> Any:
        """eta itself, the mean of the latent response; see ``probabilities``."""
        return eta

    def ends(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """(..., K + 1) ends of the categories less eta, from minus to plus infinity."""
        theta = self.theta(phi) - np.asarray(eta, float)[..., None]
        edge = np.full((*theta.shape[:-1], 1), np.inf)
        return np.concatenate([-edge, theta, edge], axis=-1)

    def probabilities(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """(..., K) probabilities of the categories; small ones are exact too."""
        return self.between(self.ends(eta, phi))

    def between(self, ends: np.ndarray) -> np.ndarray:
        """(..., K) probabilities between ends (..., K + 1)."""
        F, S = self._distribution(ends), self._survival(ends)
        low, high = np.diff(F, axis=-1), -np.diff(S, axis=-1)
        return np.where(F[..., 1:] < 0.5, low, high)

    def _distribution(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(self.link.inverse(x), float)

    def _survival(self, x: np.ndarray) -> np.ndarray:
        """1 - F without its rounding."""
        other = {"cloglog": "loglog", "loglog": "cloglog"}.get(self.link.name)
        if other is None:
            return self._distribution(-x)
        return Cumulative(other)._distribution(-x)

    def densities(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """(..., K + 1) density of the latent response at the categories' ends."""
        ends = self.ends(eta, phi)
        finite = np.isfinite(ends)
        with np.errstate(over="ignore"):
            slope = np.asarray(self.link.slope(np.where(finite, ends, 0.0)), float)
        return np.where(finite, slope, 0.0)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        """Of the category's number, given eta."""
        P = self.probabilities(mu, phi)
        k = np.arange(self.categories)
        return P @ (k * k) - (P @ k) ** 2

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)
        if self.categories == 0:
            return
        bad = (y < 0) | (y >= self.categories) | (y != np.round(y))
        if bad.any():
            raise DataError(
                f"family='cumulative' has {self.categories} categories, numbered from "
                f"0; the response has {_checks.shown(bad, y, rows)}"
            )

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        K, n = self.categories, len(y)
        count = np.bincount(np.asarray(y, int), minlength=K) + 0.5
        share = np.cumsum(count) / np.sum(count)
        theta = np.asarray(self.link.link(share[:-1]), float)
        c, spacing = _thresholds.fitted_to(self.thresholds, theta)
        middle = share - count / (2 * np.sum(count))
        score = np.asarray(self.link.link(middle), float)
        eta = score[np.asarray(y, int)] if n else np.zeros(0)
        if self.located:
            return eta, np.concatenate([[c], spacing])
        return eta - c, spacing

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """-2 log probability of the category: the best there is is certainty."""
        return -2 * np.log(self._of_rows(y, mu, phi))

    def _of_rows(self, y: Any, mu: Any, phi: Any) -> np.ndarray:
        P = self.probabilities(mu, phi)
        at = np.asarray(y, int)[..., None]
        found = np.take_along_axis(P, at, axis=-1)[..., 0]
        return np.maximum(found, np.finfo(float).tiny)

    def deviance_residuals(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        expected = self.probabilities(mu, phi) @ np.arange(self.categories)
        return np.sign(y - expected) * np.sqrt(self.unit_deviance(y, mu, phi))

    def pearson_residuals(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        expected = self.probabilities(mu, phi) @ np.arange(self.categories)
        return (y - expected) / np.sqrt(self.variance(mu, phi))

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        y, mu = np.broadcast_arrays(np.asarray(y, float), np.asarray(mu, float))
        at = np.clip(np.floor(y) + 1, 0, self.categories).astype(int)
        ends = np.take_along_axis(self.ends(mu, phi), at[..., None], axis=-1)[..., 0]
        return self._distribution(ends)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        if np.ndim(phi) > 1:  # (n_phi, ...), as of other families
            phi = np.moveaxis(np.asarray(phi, float), 0, -1)
        u = rng.uniform(size=np.shape(mu))
        F = self._distribution(self.ends(mu, phi)[..., 1:-1])
        return np.sum(u[..., None] > F, axis=-1).astype(np.float64)

    def latent_between(
        self, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draws of the latent error between two ends, less its mean (cauchit: none)."""
        u = rng.uniform(size=np.shape(low))
        F, S = self._distribution, self._survival
        shares = (f(low) + u * (f(high) - f(low)) for f in (F, S))
        return drawn_between(self.link, *shares)

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        return probability_variance(self.link, mu)


def category_levels(levels: Any) -> tuple[Any, ...] | None:
    """Labels of categories as a user states them."""
    if levels is None:
        return None
    if isinstance(levels, str) or not hasattr(levels, "__len__"):
        raise ModelError(
            f"levels={_arguments.shown(levels)}: the categories in their order, such "
            "as levels=['low', 'middle', 'high']"
        )
    found = tuple(x.item() if isinstance(x, np.generic) else x for x in levels)
    if len(set(found)) < len(found):
        raise ModelError(f"levels={list(found)} names a category twice")
    if len(found) < 2:
        raise ModelError(
            f"levels={list(found)}: there must be two categories or more",
            status=_status.CONSTANT,
        )
    if len(found) > MOST:
        raise ModelError(
            f"{len(found)} categories are more than {MOST}: take the response for a "
            "number, in jg.lmm, or join categories"
        )
    return found
