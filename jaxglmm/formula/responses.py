"""The left side as numbers, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.formula.categories import category_response
from jaxglmm.formula.encode import check_finite
from jaxglmm.formula.notices import listed
from jaxglmm.formula.reading import not_numeric
from jaxglmm.formula.response import (
    BINOMIAL,
    NOMINAL,
    ORDINAL,
    Response,
    binomial_response,
)
from jaxglmm.formula.tables import Column


def response_of(
    kind: tuple[str, Sequence[Any] | None],
    parts: Sequence[Column],
    form: str,
    trials: Column | None,
    weights: np.ndarray | None,
    rows: np.ndarray | None,
    text: bool = False,
) -> Response:
    """The left side as numbers, for the kind of a family and the order of its levels.

    text: whether labels of the numeric kind become codes.
    """
    if kind[0] == BINOMIAL:
        return binomial_response(parts, form, trials=trials, weights=weights, rows=rows)
    if kind[0] in (ORDINAL, NOMINAL):
        named = kind[0] == ORDINAL
        return category_response(parts[0], kind[1], weights, rows, named)
    y, levels = numeric_response(parts[0], text, rows)
    return Response(y, None, weights, levels)


def numeric_response(
    column: Column, allow_nonnumeric: bool, rows=None
) -> tuple[np.ndarray, np.ndarray | None]:
    """y as float64; text only where it is allowed, as codes of its levels."""
    if column.kind == "label":
        codes, levels = column.as_factor()
        if allow_nonnumeric:
            return codes.astype(np.float64), levels
        if len(levels) == 2:
            raise DataError(
                f"response {column.name!r} is not numeric: it is text with two values "
                f"({listed(list(levels))}); did you mean family='binomial'?"
            )
        raise DataError(
            f"response {column.name!r} is not numeric: {not_numeric(column)}. Make it "
            "a number, or use it as a predictor"
        )
    if column.kind == "time":
        raise DataError(f"response {column.name!r} holds dates; make it a number first")
    y = np.asarray(column.values, np.float64)
    check_finite(column.name, (y,), rows)
    return y, None
