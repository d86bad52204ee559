"""From checked arguments to numbers: which engine answers, and what it is asked.

A call is a model ``y ~ x + (1 + x_random || groups)``. By method:

    nested-laplace  marginal posterior under the reference priors: coefficients normal
                    with sd 2, logarithms of standard deviations normal with sd 1
    laplace         maximum likelihood, which may put a variance at zero and a slope at
                    infinity
    vb              mean field under the same priors, as the reference functions do, but
                    with the groups in it: too certain where columns are not centred
    reml, ml        linear models
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from jaxglmm._errors import JaxGLMMWarning, NotApplicableError
from jaxglmm.model.covariances.names import kind
from jaxglmm.model.families import AbstractFamily
from jaxglmm.spreadsheet import checks
from jaxglmm.spreadsheet.checks import Arguments
from jaxglmm.spreadsheet.layout import Answer, Effect, ShownDeviation

if TYPE_CHECKING:
    from jaxglmm.model.priors.distributions import Priors
    from jaxglmm.results.fit import Fit
    from jaxglmm.spreadsheet.moments import PosteriorMoments

Engine = Callable[["SheetArrays", bool], Answer]
GROUP, NESTED = "Group", "nested-laplace"
COEFFICIENT_SD, LOG_SD_SD = 2.0, 1.0  # the reference priors
DRAWS, FEWER, MANY_ROWS = 4000, 1000, 1000  # a posterior of many rows needs fewer


@dataclass(frozen=True)
class SheetArrays:
    """One call as arrays.

    y (n,), or (n, 2) successes and failures; X (n, p) with its intercept; labels (n,);
    slopes: name -> (n,); names: of the variances; intercept: whether X has one, its
    first column; visits (n,) labels or none; more: as in ``Arguments``.
    """

    y: np.ndarray
    X: np.ndarray
    labels: np.ndarray
    slopes: dict[str, np.ndarray]
    names: list[str]
    alpha: float
    intercept: bool = True
    visits: np.ndarray | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def p(self) -> int:
        """Coefficients."""
        return self.X.shape[1]

    def model(self) -> dict[str, Any]:
        """The arguments of ``jg.lmm`` and ``jg.glmm``."""
        return {
            "formula": self.y,
            "data": self.X,
            "groups": {GROUP: self.labels},
            "random_effects": {GROUP: ["1", *self.slopes]},
            "random_data": self.slopes or None,
            "correlated": False,
        }


def arrays(call: Arguments, names: list[str]) -> SheetArrays:
    """A checked call as arrays; ``names`` of the variances, the intercept's first."""
    text = checks.all_text(call.y)
    y = np.array(call.y, object if text else float)
    x = np.array(call.x, float)
    if call.fit_intercept:
        x = np.column_stack([np.ones(len(x)), x])
    labels = np.array([row[0] for row in call.groups])
    if labels.dtype == bool:
        labels = labels.astype(int)
    slopes, visits = {}, None
    if call.fourth == "visits":
        visits = np.array([row[0] for row in call.x_random])
    elif call.x_random is not None:
        Z = np.array(call.x_random, float)
        slopes = {f"random {j}": Z[:, j] for j in range(Z.shape[1])}
    single = y[:, 0] if y.shape[1] == 1 else y
    rest = (float(call.alpha), bool(call.fit_intercept), visits, call.more)
    return SheetArrays(single, x, labels, slopes, names, *rest)


def answer(engine: Engine, data: SheetArrays, extended: bool) -> Answer:
    """Fit by one of ``METHODS``, and gather what the table shows."""
    with collected() as notes:
        found = engine(data, extended)
    texts = dict.fromkeys([*found.warnings, *notes])
    return replace(found, warnings=list(texts))


@contextmanager
def collected() -> Iterator[list[str]]:
    """Texts of our warnings, which a worksheet shows in a cell or not at all."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield notes
    notes += [str(w.message) for w in seen if issubclass(w.category, JaxGLMMWarning)]


# By the fits of jaxglmm ---------------------------------------------------------------


def by_glmm(
    family: AbstractFamily, method: str, data: SheetArrays, extended: bool
) -> Answer:
    """A generalised model by ``jg.glmm``."""
    import jaxglmm as jg

    fit = jg.glmm(**data.model(), family=family, method=method)
    return from_fit(fit, data, method, extended, extra=_dispersion(fit, family))


def _dispersion(fit: Fit, family: AbstractFamily) -> dict[str, float]:
    """A row of the footer, of families that have a dispersion parameter."""
    return {"dispersion": float(fit.dispersion)} if family.n_phi else {}


def by_lmm(method: str, data: SheetArrays, extended: bool) -> Answer:
    """A linear model by ``jg.lmm``."""
    import jaxglmm as jg

    fit = jg.lmm(**data.model(), method=method)
    df = np.asarray(fit.df_satterthwaite, float)
    return from_fit(fit, data, method, extended, df=df, residual=fit.sigma)


def from_fit(
    fit: Fit,
    data: SheetArrays,
    method: str,
    extended: bool,
    *,
    df: Any = (),
    residual: float | None = None,
    extra: dict[str, float] | None = None,
) -> Answer:
    """What a maximum-likelihood fit says."""
    sds = np.concatenate([np.asarray(b.sd, float) for b in fit.varcorr.values()])
    errors = np.full(len(sds), math.nan)
    if extended:
        errors = sd_errors(fit, len(sds))
    q = float(ndtri(1 - data.alpha / 2))
    components = [
        ShownDeviation(name, float(sd), *log_limits(sd, se, q))
        for name, sd, se in zip(data.names, sds, errors, strict=True)
    ]
    if residual is not None:
        components.append(ShownDeviation("Residual", float(residual)))
    return Answer(
        fit.coefficients[: data.p],
        fit.se[: data.p],
        components,
        fit.log_likelihood,
        fit.aic,
        fit.bic,
        method,
        bool(fit.converged),
        fit.nobs,
        fit.ngroups[GROUP],
        tuple(fit.warnings),
        list(effects(fit, data)) if extended else (),
        df,
        extra or {},
    )


def sd_errors(fit: Fit, k: int) -> np.ndarray:
    """(k,) standard errors of the standard deviations, NaN where there are none."""
    frame = fit.tidy(effects="ran_pars")
    groups = frame["group"].astype(str).str.partition(".")[0]  # of terms by ``||``
    own = frame[(groups == GROUP) & (frame["term"].map(kind) == "sd")]
    return own["std_error"].to_numpy(float)[:k]


def log_limits(sd: float, se: float, q: float) -> tuple[float, float]:
    """Limits of a standard deviation, normal on the logarithm."""
    if not (sd > 0 and se > 0):
        return math.nan, math.nan
    width = q * se / sd
    return sd * math.exp(-width), sd * math.exp(min(width, 700.0))


def effects(fit: Fit, data: SheetArrays) -> Iterator[Effect]:
    """Predicted random effects with their standard errors, group by group."""
    modes = fit.ranef[GROUP]
    errors = np.sqrt(np.diagonal(fit.ranef_cov[GROUP], axis1=1, axis2=2))
    for label, values, own in zip(modes.index, modes.to_numpy(), errors, strict=True):
        for name, mean, se in zip(data.names, values, own, strict=True):
            yield Effect(cell(label), name, float(mean), float(se))


def cell(label: Any) -> Any:
    """A label as a cell: whole numbers without a point."""
    value = label.item() if isinstance(label, np.generic) else label
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# By the posterior ---------------------------------------------------------------------


def by_posterior(family: AbstractFamily, data: SheetArrays, extended: bool) -> Answer:
    """Means and sds of the marginal posterior under the reference priors.

    Of many rows by few draws, where they do (``moments``); else by nested Laplace.
    """
    from jaxglmm.model.priors.distributions import Priors

    priors = Priors.statsmodels(vcp_p=LOG_SD_SD, fe_p=COEFFICIENT_SD)
    few = None
    if len(data.y) > MANY_ROWS:
        from jaxglmm.spreadsheet.moments import moments

        few = moments(data.model(), family, priors)
    if few is None or extended:
        found = by_draws(family, data, priors, extended)
    else:
        blank = ([], [], [], math.nan, math.nan, math.nan)
        found = Answer(*blank, NESTED, True, few.rows, few.levels)
    if few is not None:
        found = with_moments(found, few, data)
    return with_criteria(found, data, family)


def by_draws(
    family: AbstractFamily, data: SheetArrays, priors: Priors, extended: bool
) -> Answer:
    """Nested Laplace by ``jg.glmm``; its criteria are still missing."""
    import jaxglmm as jg

    draws = DRAWS if len(data.y) <= MANY_ROWS else FEWER
    fit = jg.glmm(
        **data.model(),
        family=family,
        method=jg.NestedLaplace(draws=draws),
        priors=priors,
    )
    sds = np.asarray(fit.varcorr[GROUP].sd, float)
    limits = np.full((len(sds), 2), math.nan)
    if extended:
        frame = fit.posterior.summary(1 - data.alpha)
        limits = frame.iloc[data.p : data.p + len(sds)][["lower", "upper"]].to_numpy()
    return Answer(
        fit.coefficients,
        fit.se,
        [
            ShownDeviation(name, float(sd), float(low), float(high))
            for name, sd, (low, high) in zip(data.names, sds, limits, strict=True)
        ],
        math.nan,
        math.nan,
        math.nan,
        NESTED,
        bool(fit.converged),
        fit.nobs,
        fit.ngroups[GROUP],
        tuple(fit.warnings),
        list(drawn_effects(fit, data)) if extended else (),
        (),
        _dispersion(fit, family),
    )


def with_moments(found: Answer, few: PosteriorMoments, data: SheetArrays) -> Answer:
    """An answer with the estimates of few draws, as without ``extended``."""
    known = found.components or [ShownDeviation(name, math.nan) for name in data.names]
    components = [replace(c, sd=float(sd)) for c, sd in zip(known, few.sd, strict=True)]
    extra = {"dispersion": float(few.phi[0])} if len(few.phi) else {}
    return replace(
        found,
        coefficients=few.beta,
        errors=few.beta_sd,
        components=components,
        extra=extra,
    )


def with_criteria(found: Answer, data: SheetArrays, family: AbstractFamily) -> Answer:
    """An answer with the log-likelihood at its estimates, AIC and BIC."""
    phi = [math.log(v) for v in found.extra.values()]
    sds = np.array([c.sd for c in found.components])
    value = log_likelihood(data, family, np.asarray(found.coefficients), sds, phi)
    npar = data.p + len(sds) + len(phi)
    return replace(
        found,
        log_likelihood=value,
        aic=2 * npar - 2 * value,
        bic=math.log(found.rows) * npar - 2 * value,
    )


def drawn_effects(fit: Fit, data: SheetArrays) -> Iterator[Effect]:
    """Means and sds of the random effects' draws, group by group."""
    draws = np.asarray(fit.posterior.effects(GROUP))  # (S, J, q)
    means, sds = draws.mean(axis=0), draws.std(axis=0)
    for j, label in enumerate(fit.ranef[GROUP].index):
        for k, name in enumerate(data.names):
            yield Effect(cell(label), name, float(means[j, k]), float(sds[j, k]))


# By mean field ------------------------------------------------------------------------


def by_mean_field(family: AbstractFamily, data: SheetArrays, extended: bool) -> Answer:
    """Variational Bayes of the reference functions, with the groups in it."""
    from scipy.sparse import csr_array, hstack

    from jaxglmm.compat.statsmodels import BayesMixedGLM

    levels, codes = np.unique(data.labels, return_inverse=True)
    n, J = len(codes), len(levels)
    rows = np.arange(n)
    blocks = [
        csr_array((values, (rows, codes)), shape=(n, J))
        for values in (np.ones(n), *data.slopes.values())
    ]
    ident = np.repeat(np.arange(len(blocks)), J)
    y, trials = data.y, {}
    if y.ndim == 2:
        y, trials = y[:, 0], {"n_trials": y.sum(axis=1)}
    model = BayesMixedGLM(
        y,
        data.X,
        hstack(blocks),
        ident,
        vcp_p=LOG_SD_SD,
        fe_p=COEFFICIENT_SD,
        family=family,
        **trials,
    )
    found = model.fit_vb()
    q = float(ndtri(1 - data.alpha / 2))
    middle, spread = np.asarray(found.vcp_mean), np.asarray(found.vcp_sd)
    components = [
        ShownDeviation(name, math.exp(m), math.exp(m - q * s), math.exp(m + q * s))
        for name, m, s in zip(data.names, middle, spread, strict=True)
    ]
    value = log_likelihood(data, family, np.asarray(found.fe_mean), np.exp(middle))
    npar = data.p + len(blocks)
    shown = [
        Effect(cell(level), name, float(found.vc_mean[k * J + j]), float(sd))
        for j, level in enumerate(levels)
        for k, name in enumerate(data.names)
        for sd in [found.vc_sd[k * J + j]]
    ]
    return Answer(
        found.fe_mean,
        found.fe_sd,
        components,
        value,
        2 * npar - 2 * value,
        math.log(n) * npar - 2 * value,
        "vb",
        True,
        n,
        J,
        (),
        shown if extended else (),
    )


def log_likelihood(
    data: SheetArrays,
    family: AbstractFamily,
    beta: np.ndarray,
    sds: np.ndarray,
    phi: Any = (),
) -> float:
    """Laplace's log marginal likelihood at given parameters, all constants included."""
    from jaxglmm.spreadsheet.likelihood import laplace_at

    return laplace_at(data.model(), family, beta, sds, np.asarray(phi, float))


def no_mean_field(data: SheetArrays, extended: bool) -> Answer:
    """Of a family with a dispersion parameter."""
    raise NotApplicableError("method 'vb' is not there for the negative binomial")


def generalised(family: AbstractFamily) -> dict[str, Any]:
    """Method -> engine of a family of one predictor."""
    return {
        NESTED: partial(by_posterior, family),
        "laplace": partial(by_glmm, family, "laplace"),
        "vb": no_mean_field if family.n_phi else partial(by_mean_field, family),
    }
