"""A linear mixed model of data that are read in batches.

One pass learns levels and ranges, one adds cross-products (a second time where they
lost digits), and from there on it is the model of a table in memory: the same problem,
the same search, the same record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from jaxglmm._errors import ModelError, RankDeficientWarning
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import large_crossed
from jaxglmm.fitting.fit_design import fit_engine
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.formula import check_linear
from jaxglmm.formula.absent import AbsentRows, StreamedDesign
from jaxglmm.formula.batch_rows import RowMaker
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.survey import Survey
from jaxglmm.runtime import announce
from jaxglmm.runtime.memory import programs
from jaxglmm.streaming.checkpoint import Checkpoint, keep_survey, resume_survey
from jaxglmm.streaming.passes import Summing, mean_products, survey_source, told
from jaxglmm.streaming.plan import PassPlan
from jaxglmm.streaming.pushed import roles, survey_by_sql
from jaxglmm.streaming.sources import (
    ROWS,
    Batch,
    BatchSource,
    DuckSource,
    source_of,
)
from jaxglmm.structure.moments_of_design import Moments
from jaxglmm.structure.moments_of_sums import SumFrame, moments, reduced, refuse_exact
from jaxglmm.structure.row_sums import RowSums

GENERALISED = 8  # passes of a generalised model, about

S = TypeVar("S", bound=FittedModel)


@dataclass(frozen=True)
class StreamedModel:
    """What the passes over a source found.

    plan: what was said before; seconds: of the passes.
    """

    design: StreamedDesign
    moments: Moments
    plan: PassPlan
    seconds: dict[str, float]


def read_model(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    contrasts: dict | None = None,
    context: dict[str, Any] | None = None,
    shown: bool | None = None,
    checkpoint: Any = None,
    executor: Executor | None = None,
) -> StreamedModel:
    """The passes over a source.

    checkpoint: a folder for what they found; a run that was killed goes on there.
    executor: makes the sums of batches.

    Raises:
        FormulaError, DataError, ModelError: as for a table in memory, with the file.
    """
    source = source_of(data)
    survey = surveyed(formula, source, weights, offset, context, contrasts)
    passed = passes_over(
        survey, source, missing, shown, checkpoint, executor, pushed=True
    )
    sums, frame, design = passed.sums, passed.frame, passed.design
    check_linear(design)
    found = reduced(sums, survey.counted)
    response = survey.response
    size = np.hypot(response.mean, response.sd)
    refuse_exact(found, float(size) / frame.s)
    rows = AbsentRows(survey.counted, design.p)
    made = moments(sums, frame, survey.counted, survey.log_weights, rows)
    return StreamedModel(design, made, passed.plan, passed.seconds)


def surveyed(
    formula: str,
    source: BatchSource,
    weights: Any,
    offset: Any,
    context: dict[str, Any] | None,
    contrasts: dict | None,
    **more: Any,
) -> Survey:
    """A survey that has seen nothing yet; more: as ``Survey`` takes it.

    Raises:
        ModelError: no random effects; arrays where columns have to be named.
    """
    given = {"weights": weights, "offset": offset, "trials": more.get("trials")}
    for label, value in given.items():
        if value is not None and not isinstance(value, str):
            raise ModelError(
                f"{label}= of data in batches is the name of a column, not an array"
            )
    own = weights, offset, context or {}, contrasts
    survey = Survey(formula, source.names, *own, **more)
    if not survey.read.parts:
        raise ModelError(
            "the model has no random effects. Add a term such as (1 | group)"
        )
    return survey


@dataclass(frozen=True)
class Passed:
    """What the passes of levels and of cross-products found."""

    maker: RowMaker
    summing: Summing
    sums: RowSums
    frame: SumFrame
    design: StreamedDesign
    plan: PassPlan
    seconds: dict[str, float]
    left: Checkpoint | None


def passes_over(
    survey: Survey,
    source: BatchSource,
    missing: str,
    shown: bool | None,
    checkpoint: Any,
    executor: Executor | None,
    *,
    pushed: bool,
    **facts: Any,
) -> Passed:
    """Levels, then cross-products.

    pushed: of a linear model: under the weights, and by SQL where that can be; facts:
    more that a checkpoint has to be of.
    """
    started = time.perf_counter()
    plans: list[PassPlan] = []

    def first(batch: Batch, seconds: float) -> None:
        plans.append(_planned(survey, source, batch, seconds, pushed))
        announce.tell(repr(plans[0]))

    own = roles(survey, source) if pushed else None
    if own is not None and isinstance(source, DuckSource):
        survey_by_sql(survey, source, own)
        sums_by = f"sums by SQL, GROUP BY {', '.join(survey.groupings)}"
        plans.append(_pushed(survey, source, sums_by))
        announce.tell(repr(plans[0]))
        left = None
    else:
        left = _checkpoint(checkpoint, survey, source, facts)
        if left is not None and resume_survey(left, survey):
            plans.append(_pushed(survey, source, "Arrow batches, from a checkpoint"))
        else:
            survey_source(survey, source, shown, first)
            if left is not None:
                keep_survey(left, survey)
    with told(source.description):
        survey.finish(missing)
    levels = time.perf_counter()
    maker = RowMaker(survey)
    summing = Summing(maker, source, shown, own, left, pushed, executor)
    sums, frame, kept, whole = summing.run()
    lost = _null_space(summing, kept, whole)
    if lost is not None:
        _warn_of_rank(maker, kept)
    counted = {
        f.name: int(np.count_nonzero(count))
        for f, count in zip(sums.factors, sums.counts, strict=True)
    }
    grams = mean_products(sums, frame, survey.counted)
    root = np.linalg.cholesky(sums.plain[:-1, :-1]).T @ frame.R
    design = maker.design(kept, lost, grams, counted, root)
    seconds = {
        "levels": levels - started,
        "cross-products": time.perf_counter() - levels,
    }
    plan = plans[0]
    if summing.passes + 1 != plan.passes:
        plan = replace(plan, passes=summing.passes + 1)
    return Passed(maker, summing, sums, frame, design, plan, seconds, left)


def fit_streamed(
    formula: str,
    data: Any,
    estimator: Maximise,
    tol: float,
    max_iter: int,
    satterthwaite: bool,
    *,
    make: Callable[..., S],
    **read: Any,
) -> tuple[S, StreamedModel]:
    """A linear mixed model of a source, and what its passes found."""
    model = read_model(formula, data, **read)
    programs.spare()
    engine = large_crossed.of_moments(model.moments, estimator)
    fit = fit_engine(
        model.design,
        engine,
        tol,
        max_iter,
        satterthwaite,
        model.seconds,
        make=make,
    )
    return fit, model


def _planned(
    survey: Survey, source: BatchSource, batch: Batch, seconds: float, linear: bool
) -> PassPlan:
    """From the first batch: its bytes and seconds a row, times rows."""
    n, rows = source.n_rows, batch.table.num_rows
    share = None if n is None else n / rows
    groups = sum(len(seen) for seen in survey.parts.values())
    memory = 3.0 * batch.bytes * max(1.0, ROWS / rows) + 64.0 * groups
    return PassPlan(
        survey.formula,
        source.description,
        n,
        tuple(survey.columns),
        2 if linear else GENERALISED,
        None if share is None else share * batch.bytes,
        None if share is None else share * seconds,
        memory,
        "Arrow batches" if linear else "Arrow batches, then parts of levels in files",
    )


def _checkpoint(
    folder: Any, survey: Survey, source: BatchSource, more: dict[str, Any]
) -> Checkpoint | None:
    if folder is None:
        return None
    mark = source.mark
    if mark is None:
        raise ModelError(
            f"checkpoint= needs files on this machine, whose order stays; "
            f"{source.description} may give its rows in another order"
        )
    facts = {"formula": survey.formula, "weights": survey.weights}
    facts |= {"offset": survey.offset, "contrasts": repr(survey.contrasts)}
    return Checkpoint(folder, facts | more | {"files": mark})


def _pushed(survey: Survey, source: BatchSource, method: str) -> PassPlan:
    """A plan without a first batch to time."""
    return PassPlan(
        survey.formula,
        source.description,
        survey.n,
        tuple(survey.columns),
        2,
        None,
        None,
        None,
        method,
    )


def _null_space(
    summing: Summing, kept: tuple[int, ...], whole: np.ndarray
) -> NullSpace | None:
    """What cannot be told without the columns that are left out."""
    p = len(summing.maker.x_at)
    lost = np.array([j for j in range(p) if j not in set(kept)], int)
    if not len(lost):
        return None
    moves = summing.first_moves
    shift = np.array([a for a, _ in moves])
    scale = np.array([b for _, b in moves])
    G = whole[:p, :p].copy()
    centre, constant = np.zeros(p), np.zeros(p)
    used = np.array(kept, int)
    if summing.maker.x_names[:1] == ("(Intercept)",):
        mean = G[0] / G[0, 0]
        centre, constant[0] = shift + scale * mean, 1.0
        G -= G[0, 0] * np.outer(mean, mean)
        used = used[1:]
    weights = np.zeros((len(kept), len(lost)))
    if len(used):
        a = np.linalg.lstsq(G[np.ix_(used, used)], G[np.ix_(used, lost)], rcond=None)[0]
        a = a * scale[lost] / scale[used][:, None]
        a[np.abs(a) < 1e-9 * np.abs(a).max(axis=0, initial=1e-300)] = 0.0
        weights[np.searchsorted(kept, used)] = a
    return NullSpace(np.array(kept, int), lost, weights, centre, constant)


def _warn_of_rank(maker: RowMaker, kept: tuple[int, ...]) -> None:
    dropped = [n for j, n in enumerate(maker.x_names) if j not in set(kept)]
    many = len(dropped) > 1
    warn(
        f"the fixed effects are rank deficient: dropped {len(dropped)} column"
        f"{'s' * many} that depend{'s' * (not many)} on others: {listed(dropped, 12)}",
        RankDeficientWarning,
    )
