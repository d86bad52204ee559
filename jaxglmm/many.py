"""The front door to many models at once: ``fit_many``."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.formula import check_linear, design_from_formula
from jaxglmm.formula.parse import parse
from jaxglmm.formula.tables import as_table
from jaxglmm.model import assemble
from jaxglmm.results import fits_run
from jaxglmm.results.fits import Fits
from jaxglmm.results.fits_columns import PENDING
from jaxglmm.results.fits_linear import Settings, SharedLinear, WeightedLinear
from jaxglmm.results.fits_responses import Responses


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
    rng = np.random.default_rng(0)
    columns = {c: table.fetch(c) for c in table.names}
    columns[name] = rng.normal(size=table.n)
    design = design_from_formula(formula, columns, weights=weights, offset=offset)
    check_linear(design)
    Y = Responses(responses, table.n, design.rows)
    moments = assemble.moments(design)
    settings = Settings(method != "ml", tol)
    engine = SharedLinear(design, moments, Y, design.offset, settings)
    missing = WeightedLinear(
        design, moments, Y, design.offset, design.weights, settings
    )
    tab = np.full((len(Y), engine.columns.width), np.nan)
    tab[:, -1] = PENDING

    class Bar:
        def update(self, n):
            pass

    def alone(i):
        raise

    fits_run.run(tab, engine, missing, alone, Bar())
    return Fits.from_table(tab, engine.columns, Y.labels)
