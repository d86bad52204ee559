"""The front door to many models at once: ``fit_many``."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError, ModelError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.formula import check_linear, design_from_formula
from jaxglmm.formula.parse import parse
from jaxglmm.formula.tables import as_table
from jaxglmm.model import assemble
from jaxglmm.results.fits import Fits
from jaxglmm.results.fits_linear import SharedLinear
from jaxglmm.results.fits_run import run


def fit_many(
    formula: str,
    data: Any,
    *,
    responses: Any = None,
    method=None,
    tol=1e-8,
    weights=None,
    offset=None,
) -> Fits:
    parsed = parse(formula)
    name = parsed.response
    table = as_table(data)
    Y = np.asarray(responses, float)
    rng = np.random.default_rng(0)
    columns = {c: table.fetch(c) for c in table.names}
    columns[name] = rng.normal(size=table.n)
    design = design_from_formula(formula, columns, weights=weights, offset=offset)
    check_linear(design)
    if design.rows is not None:
        Y = Y[design.rows]
    moments = assemble.moments(design)
    engine = SharedLinear(design, moments, Maximise(method != "ml"), tol)
    return run(engine, Y)
