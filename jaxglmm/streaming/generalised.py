"""A generalised mixed model of data that are read in batches.

One pass learns levels and ranges, one adds cross-products, which say what X can tell
and in which coordinates nothing cancels, and one deals the rows to parts by their
levels (``parts``). The search reads the parts (``searching``): the same likelihood and
the same modes as of a table in memory.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError, ModelError, NotApplicableError
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.fitting import diagnostics
from jaxglmm.fitting.diagnostics import ResponseSize
from jaxglmm.fitting.generalised import GeneralisedEngine, estimates, inverse_root
from jaxglmm.fitting.linear import SAFETY, lambdas
from jaxglmm.fitting.separation import Separation
from jaxglmm.formula import check_generalised
from jaxglmm.formula.absent import WHERE, AbsentRows, StreamedDesign
from jaxglmm.formula.tables import as_table
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.covariances.base import lambdas as covariance_lambdas
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime import progress
from jaxglmm.runtime.ahead import ahead
from jaxglmm.runtime.memory import programs
from jaxglmm.runtime.precision import double_precision
from jaxglmm.streaming import crossed_search, searching, separating
from jaxglmm.streaming.linear import Passed, passes_over, surveyed
from jaxglmm.streaming.parts import ColumnWays, LevelBlock, Parts, PartShape
from jaxglmm.streaming.passes import SummedColumns, told
from jaxglmm.streaming.plan import PassPlan
from jaxglmm.streaming.searching import AllModes, SearchEnd, SearchPoint
from jaxglmm.streaming.sources import BatchSource, source_of
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.moments_of_sums import (
    factor_of_sums,
    reduced,
    refuse_exact,
    turned,
)
from jaxglmm.structure.rows import NoRows
from jaxglmm.structure.rows_of_design import RowData

SAMPLE_STEPS = 40  # evaluations of a part, which is a sample
GENTLE = 1e-2  # gain at which a sample has said what it can


class StreamedEngine(GeneralisedEngine):
    """What a fit asks of its engine, from what the search left.

    end: the last point, with the exact Hessian there; separation, response: what the
    warnings need to know of the rows.
    """

    separation: Separation | None = None
    response: ResponseSize | None = None
    end: SearchPoint
    modes: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        factors: tuple[Factor, ...],
        R: np.ndarray,
        base: GeneralisedProblem,
        marginal: AbstractMarginal,
        end: SearchPoint,
        modes: tuple[np.ndarray, ...],
    ) -> StreamedEngine:
        """R: (p, p) X of the user = X~ R; modes: (q, J) u of all levels, by factor."""
        n = base.y.shape[0]
        absent = AbsentRows(n)
        data = RowData(base.rows, base.X, factors, R, absent, n, n)  # type: ignore
        out = cls(data, base, marginal, absent, np.zeros(base.family.n_phi))  # type: ignore
        out.end, out.modes = end, modes
        return out

    def fit(self, *args: Any, **options: Any) -> Any:
        """Refused: the rows are gone."""
        raise NotApplicableError(WHERE)

    fit_from = for_response = working = fit  # type: ignore[assignment]

    def recovered(self, estimates: Any) -> Any:
        """psi and u, which are kept."""
        return self.end.psi, tuple(u[:, None, :] for u in self.modes)

    def parameter_root(self, psi: np.ndarray, u: Any) -> np.ndarray:
        """(k, r) root of the covariance of the parameters, at the maximum alone."""
        if not np.array_equal(psi, self.end.psi):
            raise NotApplicableError(WHERE)
        return inverse_root(self.end.H, self.pinned(psi), self.base.p)


@dataclass(frozen=True)
class StreamedGeneralisedModel:
    """What the passes found; plan, seconds: as of a linear model."""

    design: StreamedDesign
    engine: StreamedEngine
    plan: PassPlan
    seconds: dict[str, float] = field(default_factory=dict)


def fit_generalised_streamed(
    formula: str,
    data: Any,
    family: AbstractFamily,
    marginal: AbstractMarginal,
    tol: float,
    max_iter: int,
    *,
    make: Callable[..., Any],
    weights: Any = None,
    offset: Any = None,
    trials: Any = None,
    missing: str = "drop",
    contrasts: dict | None = None,
    context: dict[str, Any] | None = None,
    shown: bool | None = None,
    checkpoint: Any = None,
    executor: Executor | None = None,
) -> Any:
    """A generalised model of a source, named; arguments as for ``read_model``.

    executor: does the sums over batches, and the parts of a model with one factor.
    """
    source = source_of(data)
    kind, support = family.family_kind, _support(family)
    more = {"family_kind": kind, "support": support, "trials": trials}
    survey = surveyed(formula, source, weights, offset, context, contrasts, **more)
    refuse(survey, family, marginal)
    facts = {"family": repr(family), "marginal": repr(marginal), "trials": trials}
    own = missing, shown, checkpoint, executor
    with _told_by(family, survey):
        passed = passes_over(survey, source, *own, pushed=False, **facts)
    check_generalised(passed.design)
    _refuse_exact(passed)
    programs.spare()
    with _folder(checkpoint) as folder:
        began = time.perf_counter()
        parts, factors, R = _dealt(passed, source, family, folder, shown)
        dealt = time.perf_counter()
        how = marginal, passed.left, SAFETY * tol, max_iter, shown
        if len(factors) > 1:
            covs = tuple(f.covariance for f in factors)
            beside = [_counts(passed, f) for f in factors[1:]]
            found = crossed_search.searched(parts, covs, beside, *how)
            end, modes, visits = found.end, found.u, found.visits
        else:
            end, u, visits = _searched(parts, *how, executor)
            modes = (u.values,)
        end = searching.ended(end, _scales(parts, factors))
        names = passed.design.x_names
        said = _looked(parts, factors, R, names, (end.at.psi, modes))
        passed.seconds["parts"] = dealt - began
        passed.seconds["fit"] = time.perf_counter() - dealt
    found = end, modes, visits, said
    return _named(passed, parts.shape, (factors, R), marginal, found, make)


def _looked(
    parts: Parts,
    factors: Sequence[Factor],
    R: np.ndarray,
    names: Sequence[str],
    at: tuple[np.ndarray, Sequence[np.ndarray]],
) -> tuple[Separation | None, ResponseSize]:
    """What the warnings need to know of the rows; at: psi and u."""
    psi, modes = at
    p = len(parts.shape.ways.X)
    own = tuple(f.covariance for f in factors)
    theta = psi[p : len(psi) - parts.shape.family.n_phi]
    lams = map(np.asarray, double_precision(covariance_lambdas)(theta, own))
    b = [lam @ u for lam, u in zip(lams, modes, strict=True)]

    def visit() -> Iterator[LevelBlock]:
        for k in range(parts.count):
            yield from ahead(parts.blocks(k))

    end = separating.EndOfSearch(psi[:p], b)
    return separating.looked_for(
        visit, end, parts.shape.family, names, R, parts.shape.with_weights
    )


def refuse(survey: Any, family: AbstractFamily, marginal: AbstractMarginal) -> None:
    """Raise ``ModelError`` for models whose rows have to be in memory."""
    if len(survey.groupings) > 1:
        crossed_search.refuse_crossed(tuple(survey.groupings), marginal)
    if family.family_kind not in ("numeric", "binomial") or len(family.predictors) > 1:
        raise ModelError(
            f"family {family.name!r} needs a table in memory: data in batches take "
            "families with one linear predictor"
        )
    if marginal.nodes == 0:
        raise ModelError(
            "jg.AGQ('auto') needs a table in memory; data in batches take "
            "method='laplace' or a number of nodes, jg.AGQ(7)"
        )


def _refuse_exact(passed: Passed) -> None:
    """Raise ``ModelError`` where the response is among the predictors."""
    survey = passed.maker.survey
    trials = survey.trials is not None or len(survey.read.left.atoms) == 2
    if survey.has_offset or trials:
        return
    size = np.hypot(survey.response.mean, survey.response.sd)
    found = reduced(passed.sums, survey.counted)
    refuse_exact(found, float(size) / passed.frame.s)


@contextmanager
def _told_by(family: AbstractFamily, survey: Any) -> Iterator[None]:
    """The family's own words on a response that is constant."""
    try:
        yield
    except ModelError as error:
        if error.status == _status.CONSTANT and survey.trials is None:
            family.check(np.full(2, survey.response.only), None)
        raise


def _support(family: AbstractFamily) -> Callable[[np.ndarray, Any], None]:
    """The family's check of a batch, which may well be constant."""
    return partial(_checked, family)


def _checked(family: AbstractFamily, y: np.ndarray, trials: Any) -> None:
    try:
        family.check(y, trials)
    except ModelError as error:
        if error.status != _status.CONSTANT:
            raise


@contextmanager
def _folder(checkpoint: Any) -> Iterator[Path]:
    """Where the parts lie: beside a checkpoint, or for as long as the fit takes."""
    if checkpoint is None:
        with tempfile.TemporaryDirectory(prefix="jaxglmm-") as name:
            yield Path(name)
        return
    folder = Path(os.fspath(checkpoint)) / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _dealt(
    passed: Passed,
    source: BatchSource,
    family: AbstractFamily,
    folder: Path,
    shown: bool | None,
) -> tuple[Parts, tuple[Factor, ...], np.ndarray]:
    """The rows in parts, factors without rows, largest first, and R, X = X~ R."""
    survey, sums, frame, maker = (
        passed.maker.survey,
        passed.sums,
        passed.frame,
        passed.maker,
    )
    n = survey.counted
    found = reduced(sums, n)
    absent = AbsentRows(n)
    turns = turned(sums, frame, n)
    order = np.argsort([-f.n_levels for f in sums.factors], kind="stable").tolist()
    own = [factor_of_sums(sums, frame, turns, k, absent) for k in order]
    factors = tuple(factor for factor, _ in own)
    names = [factor.name for factor in factors]
    assert passed.summing.coordinates is not None
    columns = SummedColumns(maker, passed.summing.coordinates, names)
    ways = _ways(columns, found.C / np.sqrt(n), [root for _, root in own])
    factor = factors[0]
    read = survey.read
    shape = PartShape(
        family,
        factor.covariance,
        ways,
        factor.n_levels,
        survey.weights is not None,
        survey.trials is not None or len(read.left.atoms) == 2,
        survey.offset is not None or bool(read.offsets),
        tuple(f.n_levels for f in factors[1:]),
    )
    if shape.beside:
        crossed_search.announced(shape.sides)
    parts = Parts(folder, shape, sums.counts[order[0]])
    left, mark = passed.left, {"parts": parts.count, "columns": repr(ways)}
    if left is None or left.read("parts", mark) is None:
        _deal(parts, columns, names, passed, source, shown)
        if left is not None:
            left.write("parts", {"rows": n}, {}, mark)
    return parts, factors, found.C / np.sqrt(n) @ frame.R


def _deal(
    parts: Parts,
    columns: SummedColumns,
    names: Sequence[str],
    passed: Passed,
    source: BatchSource,
    shown: bool | None,
) -> None:
    """A pass that writes the parts; names: of the factors."""
    maker, survey = passed.maker, passed.maker.survey
    lost, done = survey.lost.copy(), 0
    writer = parts.writer()
    try:
        with progress.bar(survey.n, shown, "row", "dealing rows to parts") as bar:
            for batch in ahead(source.tables(survey.columns)):
                with told(batch.where):
                    rows = maker.rows(as_table(batch.table))
                    first, *beside = (rows.codes[name] for name in names)
                    writer.add(rows, first, columns.of(rows), beside)
                done += batch.table.num_rows
                bar.update(batch.table.num_rows)
    finally:
        writer.close()
    survey.lost = lost
    if done != survey.n:
        raise DataError(
            f"{source.description} had {survey.n} rows when its levels were read, and "
            f"{done} now: the data change while they are read"
        )


def _ways(
    columns: SummedColumns, C: np.ndarray, own: Sequence[np.ndarray]
) -> ColumnWays:
    """How internal columns are made of those that were summed; own: a factor's."""

    def inverse(at: Sequence[int], root: np.ndarray) -> np.ndarray:
        out = np.zeros((columns.size, len(at)))
        out[list(at)] = np.linalg.solve(root, np.eye(len(root)))
        return out

    first, *others = map(inverse, columns.z_at, own)
    X = inverse(columns.x_at, C)
    return ColumnWays.of(X, first, columns.constant, others)


def _counts(passed: Passed, factor: Factor) -> np.ndarray:
    """Rows of each level."""
    names = [f.name for f in passed.sums.factors]
    return passed.sums.counts[names.index(factor.name)]


def _scales(parts: Parts, factors: Sequence[Factor] = ()) -> np.ndarray:
    family, p = parts.shape.family, len(parts.shape.ways.X)
    own = tuple(f.covariance for f in factors) or (parts.shape.own,)
    return searching.scales_of(own, p, family.n_phi)


def _searched(
    parts: Parts,
    marginal: AbstractMarginal,
    left: Any,
    tol: float,
    max_iter: int,
    shown: bool | None,
    executor: Executor | None,
) -> tuple[SearchEnd, AllModes, int]:
    """The maximum, u of all levels there, and how often all rows were visited."""
    shape, scales = parts.shape, _scales(parts)
    u = AllModes(np.zeros((len(shape.ways.Z), shape.n_levels)))
    psi, visits = None, 0
    if left is not None:
        known = left.read("search")
        if known is not None:
            psi = known[1]["psi"]
    if psi is None:
        full = int(np.flatnonzero(parts.rows)[0])
        psi = searching.started(marginal, _largest(parts.blocks(full)), max_iter)
        if parts.count > 1:
            psi = _of_sample(parts, full, marginal, psi, u, scales)

    def every(bar: Any) -> Iterator[LevelBlock]:
        for k in range(parts.count):
            for block in ahead(parts.blocks(k)):
                yield block
                bar.update(block.rows)

    def evaluate(x: np.ndarray) -> SearchPoint:
        nonlocal visits
        visits += 1
        total = int(parts.rows.sum())
        with progress.bar(total, shown, "row", f"likelihood, pass {visits}") as bar:
            if executor is None:
                found = searching.evaluated(marginal, x, every(bar), u)
            else:
                own = executor, marginal, x, parts, u
                found = searching.evaluated_there(*own, bar.update)
        if left is not None:
            left.write("search", {"value": found.value}, {"psi": x})
        return found

    end = searching.minimised(evaluate, psi, scales, tol, max_iter)
    return end, u, visits


def _of_sample(
    parts: Parts,
    k: int,
    marginal: AbstractMarginal,
    psi: np.ndarray,
    u: AllModes,
    scales: np.ndarray,
) -> np.ndarray:
    """Where the likelihood of part k is largest; psi if that is nowhere."""

    def evaluate(x: np.ndarray) -> SearchPoint:
        return searching.evaluated(marginal, x, ahead(parts.blocks(k)), u)

    end = searching.minimised(evaluate, psi, scales, GENTLE, SAMPLE_STEPS)
    return end.at.psi if end.status == _status.CONVERGED else psi


def _largest(blocks: Iterator[LevelBlock]) -> LevelBlock:
    """The one with the most rows."""
    return max(blocks, key=lambda block: block.rows)


def _named(
    passed: Passed,
    shape: PartShape,
    coordinates: tuple[tuple[Factor, ...], np.ndarray],
    marginal: AbstractMarginal,
    found: tuple[Any, ...],
    make: Callable[..., Any],
) -> Any:
    """The fit with its names."""
    (factors, R), (end, modes, visits, said) = coordinates, found
    design, n = passed.design, passed.maker.survey.counted
    absent, p = AbsentRows(n), len(shape.ways.X)
    base = GeneralisedProblem(
        NoRows((), (), tuple(f.n_levels for f in factors)),
        AbsentRows(p, n),  # type: ignore[arg-type]
        absent,  # type: ignore[arg-type]
        absent,  # type: ignore[arg-type]
        absent,  # type: ignore[arg-type]
        absent,  # type: ignore[arg-type]
        shape.family,
        tuple(f.covariance for f in factors),
    )
    engine = StreamedEngine.of(factors, R, base, marginal, end.at, modes)
    engine.separation, engine.response = said
    _, theta, _ = base.split(end.at.psi)
    lams = lambdas(base, theta)
    fitted = GeneralisedFitted(
        end.at.psi,
        tuple(u[:, None, :] for u in modes),
        tuple((x @ u)[:, None, :] for x, u in zip(lams, modes, strict=True)),
        np.zeros(0),
        end.at.value,
        end.gain,
        end.steps,
        end.status,
    )
    system = "blocks of levels, in files"
    method, memory = passed.plan.method, passed.plan.memory
    if shape.beside:
        system += ", and a dense Schur complement of the other factors"
        method = f"Arrow batches, then {crossed_search.words(shape.sides)}"
        memory = crossed_search.memory(shape.sides) + (memory or 0.0)
    passes = 2 + passed.summing.passes + visits
    plan = replace(passed.plan, passes=passes, method=method, memory=memory)
    model = StreamedGeneralisedModel(design, engine, plan, passed.seconds)
    facts = {
        "system": system,
        "seconds": dict(passed.seconds),
        "evaluations": end.steps,
        "decrement": end.gain,
    }
    own = design, estimates(engine, design, fitted), shape.family, marginal
    fit = make(*own, engine, facts).with_model(model)
    fit.keep(fitted)
    diagnostics.warn(fit)
    return fit
