"""Profile intervals of many models: all models, parameters and sides march together.

The same searches, on the same scales, by the same compiled programs as those of a
single fit (``linear``, ``generalised``). Linear models are profiled by
maximum likelihood, as lme4 does, and fitted again by it where they were fitted by REML.
What no program takes, crossed factors for one, is profiled one model after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from jaxglmm import _arguments, _status
from jaxglmm._errors import JaxGLMMError, JaxGLMMWarning, NotApplicableError
from jaxglmm.many import plan as engines
from jaxglmm.many import scheduler as run
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import PENDING
from jaxglmm.many.generalised import GeneralisedLanes
from jaxglmm.many.linear import CompleteResponses, LinearLanes
from jaxglmm.many.response_rows import ResponseRows
from jaxglmm.many.responses import Responses
from jaxglmm.model import covariances
from jaxglmm.model.covariances.host import host_lambdas
from jaxglmm.postestimation.profile import constraint as held
from jaxglmm.postestimation.profile import generalised as held_generalised
from jaxglmm.postestimation.profile import linear as held_linear
from jaxglmm.postestimation.profile import moments as held_moments
from jaxglmm.postestimation.profile import rows as held_rows
from jaxglmm.postestimation.profile.profile import profile
from jaxglmm.runtime.precision import double_precision

if TYPE_CHECKING:
    from jaxglmm.formula.design import RandomTerm
    from jaxglmm.many.record import FittedModels

AT_ONCE = 2_000  # models whose lanes are searched together


class _Silent:
    """A progress bar that shows nothing."""

    def update(self, n: int) -> None:
        """Nothing."""


@double_precision
def intervals(
    fits: FittedModels, level: float, which: str | Sequence[str] | None
) -> pd.DataFrame:
    """See ``Fits.confint``."""
    if fits.source is None:
        raise NotApplicableError(
            "profile intervals fit the data again, and the data of these fits are not "
            "at hand (they were drawn, or came from a file saved without data): save "
            "with data=True"
        )
    _suitable(fits)
    D = len(fits)
    place = np.arange(D) if fits.positions is None else fits.positions
    good = np.flatnonzero(fits.status == _status.CONVERGED)
    names = _names(fits)
    wanted = _chosen(fits, names, which)
    found = np.full((D, len(names), 2), np.nan)
    ml, plan = _fitted(fits, place, good)
    z = float(ndtri((1 + level) / 2))
    done = np.zeros(D, bool)
    row_of = dict(zip(place[good].tolist(), good.tolist(), strict=True))
    for models, numbers in _together(plan, ml, place[good]):
        rows = np.array([row_of[int(i)] for i in numbers])
        found[rows] = _limits(models, names, wanted, z)
        done[rows] = True
    for row in good[~done[good]]:
        found[row] = _alone(fits, int(row), level, names, wanted)
    return _table(fits, names, wanted, found)


def _suitable(fits: FittedModels) -> None:
    """Refuse models whose profiles are made one at a time."""
    source = fits.source
    if source.family is None:
        return
    categories = source.family.family_kind in ("ordinal", "nominal")
    if categories or (source.design.parts and source.responses is None):
        raise NotApplicableError(
            "profiles of many models are not made of categories, nor of data sets of "
            "their own rows with several linear predictors: ask each, "
            "fits[i].confint(method='profile')"
        )


def _names(fits: FittedModels) -> list[str]:
    """Fixed effects, then everything else in the order of a single profile."""
    variances = [*covariances.names_by_term(fits.source.design.terms)]
    if fits.source.family is None:
        variances.append("sigma")
    return [*fits.coefficient_names, *variances, *fits.dispersion_names]


def _chosen(
    fits: FittedModels, names: list[str], which: str | Sequence[str] | None
) -> np.ndarray:
    """(k,) places of the wanted names."""
    if which is None:
        return np.arange(len(names))
    p = len(fits.coefficient_names)
    sets = {"beta": names[:p], "theta": names[p:]}
    asked = _arguments.names("which", which, meaning="a parameter's name")
    chosen = [name for w in asked for name in sets.get(w, [w])]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise NotApplicableError(
            f"confint: there is no parameter {unknown[0]!r}; there are "
            f"{', '.join(names)}"
        )
    return np.array([names.index(name) for name in chosen], int)


def _fitted(
    fits: FittedModels, place: np.ndarray, good: np.ndarray
) -> tuple[FittedModels, engines.Plan]:
    """All data sets of the source by maximum likelihood, NaN where not ``good``."""
    source: ModelSource = fits.source
    if source.family is None:
        from jaxglmm.estimate.maximise import Maximise

        source = replace(source, model=Maximise(False), satterthwaite=False)
    plan = engines.plan(source, "all")
    table, _ = engines.table(plan, source, {}, None, None)
    if source.family is None:
        others = np.ones(len(plan), bool)
        others[place[good]] = False
        table[others & (table[:, -1] == PENDING), -1] = _status.NOT_FINITE
        run.run(table, plan, _Silent())
    else:  # these are by maximum likelihood already
        kept = ("coefficients", "se", "theta", "dispersion", "log_likelihood", "status")
        parts = {
            name: getattr(fits, name)[good]
            for name in kept
            if getattr(fits, name) is not None
        }
        table[place[good]] = plan.columns.table(len(good), **parts)
    return type(fits).from_table(table, plan.columns), plan


def _together(
    plan: engines.Plan, ml: FittedModels, wanted: np.ndarray
) -> Iterator[tuple[held.Models, np.ndarray]]:
    """Models that one program takes, and their positions."""
    good = np.zeros(len(plan), bool)
    good[wanted] = ml.status[wanted] == _status.CONVERGED
    # what was fitted alone may have dropped columns: it is profiled alone
    good &= np.isfinite(ml.coefficients).all(axis=1)
    for stage in plan.stages:
        which = stage.which[good[stage.which]]
        engine: Any = stage.engine
        parts: list[tuple[Any, np.ndarray]] = [(engine, which)]
        if plan.missing is not None and len(which):
            some = _incomplete(engine, which)
            parts = [(engine, which[~some]), (plan.missing, which[some])]
        for own, all_of_it in parts:
            for start in range(0, len(all_of_it), AT_ONCE):
                part = all_of_it[start : start + AT_ONCE]
                models = _linear(own, ml, part) or _generalised(own, ml, part)
                if models is None:
                    break
                yield models, part


def _incomplete(engine: Any, which: np.ndarray) -> np.ndarray:
    """(D,) responses with missing values, or weights, offsets or trials."""
    out = np.zeros(len(which), bool)
    if isinstance(engine, GeneralisedLanes):
        source = engine.source
    else:
        source = getattr(engine, "data", engine)
    given: list[Any] = [source.responses] + [
        values
        for name in ("weights", "offset", "trials")
        if isinstance(values := getattr(source, name, None), Responses)
    ]
    for start in range(0, len(which), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        for values in given:
            out[here] |= ~np.isfinite(values.take(which[here])).all(axis=0)
    return out


def _linear(engine: Any, ml: FittedModels, which: np.ndarray) -> held.Models | None:
    if not isinstance(engine, LinearLanes):
        return None
    data = engine.data
    if isinstance(data, CompleteResponses):
        rows, groups, _ = engine.common
        given = (engine.design, data.where, groups, rows.member)
        internal = held_moments.of_responses(*given, data.complete(which))
    else:
        rows, (lanes, _) = engine.common[0], data.lanes(which)
        given = (engine.design, data.where, rows, lanes, engine.devices)
        internal = held_moments.of_own_designs(*given)
    assert ml.se is not None
    (factor,) = internal.factors
    found = held.Optima(
        ml.coefficients[which],
        ml.se[which],
        -2 * ml.log_likelihood[which],
        (lambdas(ml.theta[which], factor, internal.design.terms),),
        ml.sigma[which],
    )
    lanes = held_linear.LinearInLanes(internal, engine.devices)
    return held_linear.LinearModels(internal, found, lanes)


def _generalised(
    engine: Any, ml: FittedModels, which: np.ndarray
) -> held.Models | None:
    if not isinstance(engine, GeneralisedLanes):
        return None
    shared = isinstance(engine.data, ResponseRows)
    rows_of = held_rows.of_responses if shared else held_rows.of_own_designs
    rows = rows_of(engine.data, engine.chunk, which)
    assert ml.se is not None
    phi = np.zeros((len(which), 0))
    if ml.dispersion is not None:
        phi = rows.family.from_natural(ml.dispersion[which].T).T
    found = held.Optima(
        ml.coefficients[which],
        ml.se[which],
        -2 * ml.log_likelihood[which],
        (lambdas(ml.theta[which], rows.factor, rows.design.terms),),
        phi=phi,
    )
    return held_generalised.in_lanes(rows, found, engine.devices)


def lambdas(theta: np.ndarray, factor: Any, terms: Sequence[RandomTerm]) -> np.ndarray:
    """(D, q, q) Lambda over all columns of a factor, from theta in lme4's order."""
    out = np.zeros((len(theta), factor.q, factor.q))
    spans = sorted(factor.spans)
    own = [covariances.of(terms[index]) for index, _, _ in spans]
    for (_, a, b), lam in zip(spans, host_lambdas(theta, own), strict=True):
        out[:, a:b, a:b] = lam
    return out


def _limits(
    models: held.Models, names: list[str], wanted: np.ndarray, z: float
) -> np.ndarray:
    """(D, names, 2) limits, NaN for parameters that are not wanted."""
    place = {p.name: k for k, p in enumerate(models.parameters)}
    number = np.array([place[names[k]] for k in wanted])
    D = len(models.parameters[0].estimate)
    grid = np.meshgrid(number, np.arange(D), [-z, z], indexing="ij")
    parameter, model, target = (x.ravel() for x in grid)
    found = held.limits(models, parameter.astype(int), model.astype(int), target)
    out = np.full((D, len(names), 2), np.nan)
    out[:, wanted] = np.swapaxes(found.reshape(len(wanted), D, 2), 0, 1)
    return out


def _alone(
    fits: FittedModels, row: int, level: float, names: list[str], wanted: np.ndarray
) -> np.ndarray:
    """(names, 2) limits of one model by its own fit; NaN for what it has not."""
    out = np.full((len(names), 2), np.nan)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JaxGLMMWarning)
            fit = fits.one(row)
            there = [names[k] for k in wanted]
            curves = profile(fit)
            curves.curves = {n: c for n, c in curves.curves.items() if n in there}
            table = curves.intervals(level)
    except JaxGLMMError:
        return out
    for name, limits in zip(table.index, table.to_numpy(), strict=True):
        out[names.index(name)] = limits
    return out


def _table(
    fits: FittedModels, names: list[str], wanted: np.ndarray, found: np.ndarray
) -> pd.DataFrame:
    D, k, p = len(fits), len(wanted), len(fits.coefficient_names)
    frame = fits.frame()
    estimate = np.full((D, len(names)), np.nan)
    for j, name in enumerate(names):
        if name in frame:
            estimate[:, j] = frame[name]
    labels = np.arange(D) if fits.labels is None else fits.labels
    kind = np.array(["fixed"] * p + ["ran_pars"] * (len(names) - p))
    return pd.DataFrame(
        {
            "dataset": np.repeat(labels, k),
            "effect": np.tile(kind[wanted], D),
            "term": np.tile(np.array(names)[wanted], D),
            "estimate": estimate[:, wanted].ravel(),
            "conf_low": found[:, wanted, 0].ravel(),
            "conf_high": found[:, wanted, 1].ravel(),
            "status": np.repeat(_status.names(fits.status), k),
        }
    )
