"""``lmm`` of data that are read in batches: what it takes, and what it hands on."""

from __future__ import annotations

import os
from typing import Any

from jaxglmm._errors import ModelError
from jaxglmm.api.given import _caller
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.results import faces
from jaxglmm.results.fit import Fit

ENGINES = ("pyarrow", "duckdb", "polars", "ibis", "dask", "ray", "pyspark")
TAKEN = ("weights", "offset", "missing", "contrasts", "checkpoint")


def is_source(data: Any) -> bool:
    """Whether data are read in batches, asked without importing what reads them."""
    package = type(data).__module__.partition(".")[0].lstrip("_")
    paths = isinstance(data, str | os.PathLike | list | tuple)
    if not paths and package not in (*ENGINES, "jaxglmm"):
        return False
    from jaxglmm.streaming import sources

    return sources.is_source(data)


def refuse_source(formula: Any, data: Any) -> None:
    """Raise ``ModelError`` where a generalised model is asked of data in batches."""
    if isinstance(formula, str) and is_source(data):
        raise ModelError(
            "generalised models need a table in memory: read the columns of the "
            "formula, or rows of some of the groups, and pass the frame. Linear mixed "
            "models, jg.lmm, are fitted to files and lazy frames in batches"
        )


def streamed(
    given: tuple[Any, Any, Any],
    read: dict[str, Any],
    only: dict[str, Any],
    estimator: Maximise,
    tol: float,
    max_iter: int,
    satterthwaite: bool,
) -> Fit:
    """The fit; only: arguments of ``lmm`` that are for tables in memory.

    Raises:
        ModelError: one of these is given.
    """
    from jaxglmm.streaming.linear import fit_streamed

    formula, data, groups = given
    plain = {"correlated": True}
    others = {k: v for k, v in read.items() if k not in TAKEN}
    for name, value in {**only, **others, "groups": groups}.items():
        if value is not None and value != plain.get(name):
            raise ModelError(
                f"{name}= is for a table in memory; data in batches take a formula "
                f"with {', '.join(TAKEN)}, by REML or maximum likelihood"
            )
    taken = {name: read[name] for name in TAKEN}
    fit, model = fit_streamed(
        formula,
        data,
        estimator,
        tol,
        max_iter,
        satterthwaite,
        make=faces.face("streamed"),
        context=_caller(),
        **taken,
    )
    return fit.with_model(model)
