"""Which engine fits which data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.formula.design import Design
from jaxglmm.many import file as fits_file
from jaxglmm.many import linear as fits_linear
from jaxglmm.many.collection import Alone, ModelSource
from jaxglmm.many.columns import PENDING, KeptColumns
from jaxglmm.many.coordinates import coordinates
from jaxglmm.many.level_sums import LevelSums
from jaxglmm.many.linear import (
    CompleteResponses,
    LinearLanes,
    Settings,
    WeightedResponses,
)
from jaxglmm.many.pieces import LanesEngine
from jaxglmm.many.ragged import SplitTable, buckets
from jaxglmm.many.ragged_linear import LongTable
from jaxglmm.many.responses import Responses
from jaxglmm.many.rotated import RotatedResponses, rotated, rotates
from jaxglmm.many.stages import Plan, Stage
from jaxglmm.runtime import hosts
from jaxglmm.runtime.devices import Devices, choose


def plan(source: ModelSource, devices: Any) -> Plan:
    """Engines for the data sets of ``source``."""
    if source.responses is None:
        assert source.split is not None
        cells = float(source.split.starts[-1])
    else:
        cells = float(source.design.n) * len(source.responses)
    chosen = choose(devices, cells)
    if source.family is None:
        return _linear(source, chosen)
    return _generalised(source, chosen)


def _generalised(source: ModelSource, devices: Devices) -> Plan:
    from jaxglmm.many.generalised import GeneralisedLanes, generalised_columns, suits
    from jaxglmm.many.ragged_generalised import LongRows
    from jaxglmm.many.response_rows import ResponseRows

    whole, source = source, settled(source)
    family, design = source.family, source.design
    columns = generalised_columns(design, family)
    alone = Alone(whole, columns)
    missing, threads = None, devices.threads
    if source.responses is None:
        split = source.split
        assert split is not None
        D = len(split.levels)
        everything = np.arange(D)
        if suits(source, located=True):
            sizes = buckets(split.levels)
            stages = tuple(
                Stage(GeneralisedLanes(data, devices), which, threads)
                for J in np.unique(sizes)
                for which in [everything[sizes == J]]
                for data in [LongRows(source, int(J), which)]
            )
        else:
            stages = (Stage(alone, everything, 1),)
    else:
        D = len(source.responses)
        everything = np.arange(D)
        if suits(source, located=True):
            own = isinstance(source.weights, Responses)
            engine = GeneralisedLanes(ResponseRows(source, own, devices), devices)
            stages = (Stage(engine, everything, threads),)
            if not own:
                other = ResponseRows(source, True, devices)
                missing = GeneralisedLanes(other, devices)
        else:
            stages = (Stage(alone, everything, 1),)
    nodes = source.model.nodes
    how = "Laplace's approximation" if nodes == 1 else f"{nodes}-point quadrature"
    return Plan(
        stages,
        missing,
        alone,
        columns,
        D,
        f"generalised linear mixed models ({family.name}, {family.link.name}) fit by "
        f"maximum likelihood, {how}",
        devices.describe(),
    )


def settled(source: ModelSource) -> ModelSource:
    """Of categories: the design without its intercept, or of all predictors."""
    from jaxglmm.fitting import ordinal

    if ordinal.is_settled(source.design, source.family):
        return source
    design, family = ordinal.settled(source.design, source.family)
    return replace(source, design=design, family=family)


def _linear(source: ModelSource, devices: Devices) -> Plan:
    design, reml = source.design, source.model.reml
    settings = Settings(reml, source.tol, source.satterthwaite)
    columns = fits_linear.columns(design)
    alone, missing = Alone(source, columns), None
    if design.residual is not None:
        return _correlated(source, columns, devices)
    if source.responses is None:
        stages = _ragged(source, settings, alone, devices)
        D = len(source.split.levels)  # type: ignore[union-attr]
    else:
        D = len(source.responses)
        engine, missing, threads = _responses(source, settings, alone, devices)
        stages = (Stage(engine, np.arange(D), threads),)
    return Plan(
        stages,
        missing,
        alone,
        columns,
        D,
        f"linear mixed models fit by {'REML' if reml else 'maximum likelihood'}",
        devices.describe(),
    )


def _correlated(source: ModelSource, columns: KeptColumns, devices: Devices) -> Plan:
    """Of linear models with correlated residuals."""
    from jaxglmm.many.block_lanes import residual_names
    from jaxglmm.many.ragged_residuals import WORTH, OwnBlocks
    from jaxglmm.many.residuals import SharedBlocks

    columns = replace(columns, dispersion=residual_names(source.design))
    alone = Alone(source, columns)
    if source.responses is None:
        D = len(source.split.levels)  # type: ignore[union-attr]
        engine: LanesEngine = OwnBlocks(source, columns) if D >= WORTH else alone
    else:
        D = len(source.responses)
        engine = SharedBlocks(source, columns)
    how = "REML" if source.model.reml else "maximum likelihood"
    return Plan(
        (Stage(engine, np.arange(D), 1),),
        None,
        alone,
        columns,
        D,
        f"linear models with correlated residuals fit by {how}",
        devices.describe(),
    )


def _responses(
    source: ModelSource, settings: Settings, alone: Alone, devices: Devices
) -> tuple[LanesEngine, LanesEngine | None, int]:
    """The engine for all responses, and the one for those with missing values."""
    from jaxglmm.many.general import GenericLinear
    from jaxglmm.model import assemble

    design, responses = source.design, source.responses
    assert responses is not None
    own_weights = isinstance(source.weights, Responses)
    own_offset = source.offset if isinstance(source.offset, Responses) else None
    if rotates(design, source.weights, own_offset):
        turned, Q = rotated(design)
        if fits_linear.suits(turned):
            given = (assemble.moments(turned), responses, turned.offset)
            data = RotatedResponses(*given, Q)
            engine = LinearLanes(turned, data, settings, devices)
            return engine, None, devices.threads
    if not fits_linear.suits(design):
        if own_weights:
            return alone, None, 1
        generic = GenericLinear(design, responses, source.offset, settings)
        return generic, None, 1
    moments = assemble.moments(design)
    own = WeightedResponses(moments, responses, source.offset, source.weights)
    weighted = LinearLanes(design, own, settings, devices)
    if own_weights:
        return weighted, None, devices.threads
    whole = CompleteResponses(moments, responses, source.offset, design.n)
    shared = LinearLanes(design, whole, settings, devices)
    return shared, weighted, devices.threads


def _ragged(
    source: ModelSource, settings: Settings, alone: Alone, devices: Devices
) -> tuple[Stage, ...]:
    split = source.split
    assert split is not None
    design = source.design
    everything = np.arange(len(split.levels))
    if not fits_linear.suits(design):
        return (Stage(alone, everything, 1),)
    where = coordinates(design)
    sums = LevelSums(design, where, split, devices.threads)
    sizes = buckets(split.levels)
    return tuple(
        Stage(
            LinearLanes(design, LongTable(where, sums, int(J)), settings, devices),
            everything[sizes == J],
            devices.threads,
        )
        for J in np.unique(sizes)
    )


def split(design: Design, codes: np.ndarray, D: int) -> SplitTable:
    """Rows by data set; rows of weight zero or without a data set are left out."""
    first = design.terms[0] if design.terms else design.residual
    assert first is not None
    used = codes >= 0
    if design.weights is not None:
        used &= design.weights > 0
    rows = None if used.all() else np.flatnonzero(used)
    return SplitTable(codes, D, first.codes, len(first.levels), rows)


def table(
    plan: Plan,
    source: ModelSource,
    facts: dict[str, Any],
    labels: np.ndarray | None,
    file: Any,
) -> tuple[np.ndarray, Callable[[], None]]:
    """The table to fill, and what is called when rows were written."""
    if file is None:
        out = np.full((len(plan), plan.columns.width), np.nan)
        out[:, -1] = PENDING
        left_out(out, source)
        return out, lambda: None
    design = source.design
    arrays = [design.X, design.weights, design.offset, design.trials]
    for term in design.terms:
        arrays += [term.codes, term.values]
    if source.responses is None:
        arrays += [design.y, source.split.starts]  # type: ignore[union-attr]
    else:
        arrays.append(source.responses.take(fits_file.sampled(len(plan))))
    known = facts | {
        "data": fits_file.fingerprint(*arrays),
        "model": repr(source.model),
        "tol": source.tol,
    }
    if labels is not None:
        known["labels"] = [str(x) for x in labels]
    opened = fits_file.TableFile(hosts.own_path(file), known, plan.columns, len(plan))
    left_out(opened.table, source)
    return opened.table, opened.flush


def left_out(table: np.ndarray, source: ModelSource) -> None:
    """Mark the data sets that are not to be fitted."""
    if source.infinite is not None:
        table[source.infinite, -1] = _status.BAD_VALUES
