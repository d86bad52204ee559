"""``lmm`` and ``glmm`` of data that are read in batches: what they take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jaxglmm._errors import ModelError
from jaxglmm.api.given import _caller
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.results import faces
from jaxglmm.results.fit import Fit
from jaxglmm.runtime import executors

if TYPE_CHECKING:  # generalised models are imported where they are asked for
    from jaxglmm.integrate.base import AbstractMarginal
    from jaxglmm.model.families import AbstractFamily

ENGINES = ("pyarrow", "duckdb", "polars", "ibis", "dask", "ray", "pyspark")
TAKEN = ("weights", "offset", "missing", "contrasts", "checkpoint", "executor")


def is_source(data: Any) -> bool:
    """Whether data are read in batches, asked without importing what reads them."""
    package = type(data).__module__.partition(".")[0].lstrip("_")
    paths = isinstance(data, str | os.PathLike | list | tuple)
    if not paths and package not in (*ENGINES, "jaxglmm"):
        return False
    from jaxglmm.streaming import sources

    return sources.is_source(data)


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
    taken = _taken(
        read, {**only, "groups": groups}, TAKEN, "REML or maximum likelihood"
    )
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


def _taken(
    read: dict[str, Any], only: dict[str, Any], names: tuple[str, ...], by: str
) -> dict[str, Any]:
    """What data in batches take; all else is refused where it is given."""
    plain = {"correlated": True}
    others = {k: v for k, v in read.items() if k not in names}
    for name, value in {**only, **others}.items():
        if value is not None and value != plain.get(name):
            raise ModelError(
                f"{name}= is for a table in memory; data in batches take a formula "
                f"with {', '.join(names)}, by {by}"
            )
    taken = {name: read[name] for name in names}
    return taken | {"executor": executors.given(taken["executor"])}


def in_batches(given: dict[str, Any]) -> None:
    """Refuses for a table in memory what is for data in batches alone."""
    for name, value in given.items():
        if value is not None:
            raise ModelError(f"{name}= is for files that are read in batches")


def streamed_generalised(
    given: tuple[Any, Any, Any],
    read: dict[str, Any],
    only: dict[str, Any],
    family: AbstractFamily,
    estimator: AbstractMarginal,
    tol: float,
    max_iter: int,
) -> Fit:
    """The same of ``glmm``.

    Raises:
        ModelError: something is given that needs a table in memory.
    """
    from jaxglmm.streaming.generalised import fit_generalised_streamed

    formula, data, groups = given
    names = (*TAKEN, "trials")
    how = "Laplace's approximation or a number of quadrature nodes"
    taken = _taken(read, {**only, "groups": groups}, names, how)
    own = formula, data, family, estimator, tol, max_iter
    make = faces.face("streamed generalised")
    return fit_generalised_streamed(*own, make=make, context=_caller(), **taken)
