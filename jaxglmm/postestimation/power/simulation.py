"""Power: the share of simulated data sets in which a test finds an effect.

Responses are drawn from a model, random effects anew in each, and fitted in one batch
(``many.plan``); the interval of the share is Clopper and Pearson's (1934), which is
exact for the number of simulations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import JaxGLMMError, JaxGLMMWarning, NotApplicableError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting.again import fitted_to
from jaxglmm.formula.design import Design
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.reduced import fixed_terms, without_fixed
from jaxglmm.many import generalised, linear, scheduler
from jaxglmm.many import plan as engines
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.record import FittedModels
from jaxglmm.many.responses import Responses
from jaxglmm.postestimation.choice.dropping import contrasts
from jaxglmm.postestimation.inference.denominator_df import contrast_test
from jaxglmm.runtime.progress import bar

METHODS = ("t", "z", "kenward-roger", "lrt")
SPELT = {"satterthwaite": "t", "kr": "kenward-roger", "chisq": "lrt", "anova": "lrt"}
AT_ONCE = 20_000_000  # numbers simulated at once


@dataclass(frozen=True)
class Power:
    """The share of simulations in which a test was significant; shows itself.

    test, method: what was tested, and how; alpha: its level; n: simulations; successes:
    significant ones; failed: those without a test (not converged), which count as not
    significant; p_values: (n,), NaN where there is none; rows, groups: of the design;
    effect: the value of a single coefficient, NaN of several
    """

    test: str
    method: str
    alpha: float
    n: int
    successes: int
    failed: int
    p_values: np.ndarray
    rows: int
    groups: dict[str, int]
    effect: float

    @property
    def power(self) -> float:
        """The share."""
        return self.successes / self.n

    @property
    def limits(self) -> tuple[float, float]:
        """Its limits at 95 per cent."""
        return self.interval(0.95)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Exact limits after Clopper and Pearson, at another level."""
        return clopper_pearson(self.successes, self.n, _arguments.level(level))

    def __repr__(self) -> str:
        low, high = self.limits
        groups = ", ".join(f"{n} {name}" for name, n in self.groups.items())
        lost = f"; {self.failed} did not converge" if self.failed else ""
        return (
            f"<Power of {self.test!r} ({self.method}, alpha {self.alpha:g}): "
            f"{100 * self.power:.1f} per cent ({100 * low:.1f}, {100 * high:.1f}), "
            f"{self.n:,} simulations of {self.rows} rows"
            f"{f', {groups}' if groups else ''}{lost}>"
        )


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """Exact limits of a binomial share.

    >>> low, high = clopper_pearson(8, 10, 0.95)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    """
    from scipy import stats

    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.isf(tail, k + 1, n - k))
    return low, high


@dataclass(frozen=True)
class Tested:
    """What is tested of a design: a coefficient, or the columns of a term.

    name: as given; columns: of X; term: whose columns all of them are, or None
    """

    name: str
    columns: tuple[int, ...]
    term: str | None


def tested(design: Design, name: Any) -> Tested:
    """A coefficient or a fixed term by name.

    Raises:
        NotApplicableError: neither.
    """
    terms = {t.name: t.columns for t in fixed_terms(design)}
    names = list(design.x_names)
    if isinstance(name, str) and name in terms:
        return Tested(name, tuple(terms[name]), name)
    if isinstance(name, str) and name in names:
        j = names.index(name)
        own = next((t for t, columns in terms.items() if columns == (j,)), None)
        return Tested(name, (j,), own)
    known = list(dict.fromkeys([*terms, *names]))
    raise NotApplicableError(
        f"test={_arguments.shown(name)} is no coefficient or term of the fixed effects"
        f"{nearest(str(name), known)}"
    )


def method_of(model: Any, what: Tested, method: Any) -> str:
    """The test; by default of one coefficient t or z, of several likelihood ratios."""
    single = len(what.columns) == 1
    if method is None:
        return ("t" if model.is_linear else "z") if single else "lrt"
    if isinstance(method, str):
        method = SPELT.get(method.lower(), method.lower())
    method = _arguments.choice("method", method, METHODS)
    if method in ("t", "kenward-roger") and not model.is_linear:
        raise NotApplicableError(
            f"method={method!r} belongs to linear models; a generalised one has 'z' "
            "and 'lrt'"
        )
    if method == "z" and not single:
        raise NotApplicableError(
            f"method='z' tests one coefficient, and {what.name!r} has "
            f"{len(what.columns)}: use 'lrt', or the name of one of them"
        )
    if method == "lrt" and what.term is None:
        raise NotApplicableError(
            f"method='lrt' leaves a whole term out, and {what.name!r} is one column of "
            "several: give the name of the term"
        )
    if method == "kenward-roger" and not model.reml:
        raise NotApplicableError("method='kenward-roger' is defined for REML fits")
    return method


@dataclass(frozen=True)
class PowerQuestion:
    """What ``power`` is asked for, checked: what is tested, how, how often."""

    what: Tested
    kind: str
    n: int
    alpha: float
    progress: bool | None

    def judged(self, model: Any, p: np.ndarray) -> Power:
        """The p-values of a model's simulations as a share."""
        design = model.design
        single = len(self.what.columns) == 1
        effect = float(model.estimates.beta[self.what.columns[0]]) if single else np.nan
        return Power(
            test=self.what.name,
            method=self.kind,
            alpha=self.alpha,
            n=self.n,
            successes=int(np.sum(p < self.alpha)),
            failed=int(np.isnan(p).sum()),
            p_values=p,
            rows=design.n_counted,
            groups={t.factor: t.n_levels for t in design.terms},
            effect=effect,
        )


def asked(
    model: Any,
    test: Any,
    n_simulations: Any = 1000,
    alpha: float = 0.05,
    method: Any = None,
    progress: bool | None = None,
) -> PowerQuestion:
    """Check what power is asked for."""
    n = _arguments.whole(
        "n_simulations", n_simulations, 1, _arguments.DATASETS, error=NotApplicableError
    )
    alpha = _arguments.between("alpha", alpha, "the level of the test")
    progress = None if progress is None else _arguments.flag("progress", progress)
    _refuse(model)
    what = tested(model.design, test)
    return PowerQuestion(what, method_of(model, what, method), n, alpha, progress)


def power(model: Any, test: Any, seed: Any = 0, **options: Any) -> Power:
    """See ``Fit.power``; model: a fit, or one with assumed parameters."""
    given = asked(model, test, **options)
    n, sequence = given.n, _arguments.sequence(seed)
    step = max(1, min(n, AT_ONCE // max(model.design.n, 1)))
    starts = range(0, n, step)
    total = n * (2 if given.kind == "lrt" else 1)
    found = []
    with bar(total, given.progress, " fits", "power") as shown:
        for start, own in zip(starts, sequence.spawn(len(starts)), strict=True):
            size = min(step, n - start)
            Y = np.asarray(model.drawn(size, own, None), float)
            found.append(p_values(model, Y, given.what, given.kind, shown))
    return given.judged(model, np.concatenate(found))


def has_lanes(model: Any, kind: str, what: Tested) -> bool:
    """Whether responses with gaps are lanes of one program."""
    design = model.design
    if kind == "kenward-roger" or (kind == "t" and len(what.columns) > 1):
        return False
    if design.residual is not None or not design.terms:
        return False
    if model.is_linear:
        return linear.suits(design)
    given = (design.weights, design.offset, design.trials)
    return generalised.suits(
        ModelSource(design, None, None, *given, model.marginal, model.family)
    )


def _refuse(model: Any) -> None:
    kinds = ("ordinal", "nominal")
    several = model.design.parts
    if several or (not model.is_linear and model.family.family_kind in kinds):
        raise NotApplicableError(
            "power() simulates models of one linear predictor of numbers; of others "
            "draw by fit.simulate(n) and fit by fit_many(responses=)"
        )


def p_values(
    model: Any, Y: np.ndarray, what: Tested, kind: str, shown: Any
) -> np.ndarray:
    """(n,) of the test in each simulated data set, NaN where it has none.

    Y: (n, nobs); shown: the progress bar.
    """
    from scipy import stats

    if kind == "kenward-roger" or (kind == "t" and len(what.columns) > 1):
        ddf = "kenward-roger" if kind == "kenward-roger" else "satterthwaite"
        return _one_by_one(model, Y, what, ddf, shown)
    if kind == "lrt":
        big = _many(model, model.design, Y, False, shown)
        assert what.term is not None
        small = _many(model, without_fixed(model.design, [what.term]), Y, False, shown)
        gain = 2 * (big.log_likelihood - small.log_likelihood)
        p = stats.chi2.sf(np.maximum(gain, 0.0), len(what.columns))
        return np.where(big.converged & small.converged, p, np.nan)
    found = _many(model, model.design, Y, bool(model.reml), shown)
    j = int(np.ravel(what.columns)[0])  # these tests are of one coefficient
    if kind == "z":
        with np.errstate(invalid="ignore", divide="ignore"):
            z = found.coefficients[:, j] / np.asarray(found.se)[:, j]
        p = 2 * stats.norm.sf(np.abs(z))
    else:
        p = np.asarray(found.p_values)[:, j]
    return np.where(found.converged, p, np.nan)


def _many(model: Any, design: Design, Y: np.ndarray, reml: bool, shown: Any):
    """Fits of all responses, as ``fit_many`` makes them."""
    if model.is_linear and not design.terms:
        raise NotApplicableError("power() is for models with random effects")
    if model.is_linear:
        how, family = Maximise(reml), None
    else:
        how, family = model.marginal, model.family
    weights: Any = design.weights
    if np.isnan(Y).any():  # told at once, one program serves all
        one = np.ones(design.n) if weights is None else weights
        weights = Responses(np.where(np.isnan(Y), 0.0, one).T, design.n)
    given = (weights, design.offset, design.trials)
    base = replace(design, y=np.nan_to_num(Y[0]))
    source = ModelSource(base, Responses(Y.T, design.n), None, *given, how, family)
    plan = engines.plan(source, "all")
    table, saved = engines.table(plan, source, {}, None, None)
    scheduler.run(table, plan, shown, saved)
    return FittedModels.from_table(table, plan.columns)


def _one_by_one(
    model: Any, Y: np.ndarray, what: Tested, ddf: str, shown: Any
) -> np.ndarray:
    """F-tests that need more of a fit than a batch keeps."""
    L = np.eye(model.design.p)[list(what.columns)]
    if what.term is not None and len(what.columns) > 1:
        L = contrasts(model.design, what.term)
    out = np.full(len(Y), np.nan)
    fit: Callable[[np.ndarray], Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JaxGLMMWarning)
        for i, y in enumerate(Y):
            try:
                if fit is None:
                    first = fitted_to(model, replace(model.design, y=y))
                    one, fit = first, first.refit if hasattr(first, "refit") else None
                else:
                    one = fit(y)
                if one.converged:
                    out[i] = contrast_test(one, L, ddf)["p"]
            except (JaxGLMMError, np.linalg.LinAlgError):
                pass
            shown.update(1)
    return out
