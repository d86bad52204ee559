"""A response in categories: codes 0, 1, ... and their labels, in order.

Ordered categoricals (pandas, polars' Enum) say their order, numbers and truths have
one, and text has it where it is stated: by the model, or by a categorical's categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError, JaxGLMMWarning, ModelError
from jaxglmm.formula.encode import check_finite
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.response import Response
from jaxglmm.formula.tables import Column

MOST = 100  # categories that numbers are taken for


def category_response(
    column: Column,
    order: Sequence[Any] | None,
    weights: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    ordered: bool = True,
) -> Response:
    """Codes (n,) of a column's categories, and their labels.

    Args:
        column: the left side, missing rows gone.
        order: all categories in order, where the model states them.
        weights: (n,) prior weights; rows of weight zero do not make a category.
        rows: (n,) positions in the user's data, for messages.
        ordered: whether the categories must have an order.

    Raises:
        DataError: text without an order, fractions, values that are no category.
        ModelError: one category only.
    """
    if column.kind == "time":
        raise DataError(
            f"response {column.name!r} holds dates, which are no categories"
        )
    codes, levels = coded(column, order, rows, ordered)
    count = np.bincount(
        codes, None if weights is None else weights > 0, len(levels)
    ).astype(int)
    if np.sum(count > 0) < 2:
        raise ModelError(
            f"response {column.name!r} has one category only, "
            f"{listed(list(levels[count > 0]))}: there is nothing to fit",
            status=_status.CONSTANT,
        )
    empty = count == 0
    if not empty.any():
        return Response(codes.astype(np.float64), None, weights, levels)
    if empty[codes].any():
        raise DataError(
            f"response {column.name!r}: the rows of category "
            f"{listed(list(levels[empty]))} all have weight zero; leave them out"
        )
    several = "categories" if empty.sum() > 1 else "category"
    warn(
        f"response {column.name!r}: no row has the {several} "
        f"{listed(list(levels[empty]))}, of which nothing can be told; it is left out, "
        "and has no predicted probability",
        JaxGLMMWarning,
    )
    place = np.cumsum(~empty) - 1
    return Response(place[codes].astype(np.float64), None, weights, levels[~empty])


def coded(
    column: Column, order: Sequence[Any] | None, rows: np.ndarray | None, ordered: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) and the labels they stand for; arguments of ``category_response``."""
    if order is not None:
        return _by(column, order)
    if column.kind != "label":
        return _numbers(column, rows)
    assert column.codes is not None
    assert column.levels is not None
    codes, levels = column.codes, column.levels
    values = _as_numbers(levels)
    if column.order == "stated" or not ordered:
        return codes, levels
    if values is not None:  # text that is numbers has their order
        place = np.argsort(np.argsort(values))
        return place[codes], levels[np.argsort(values)]
    if column.order is None:
        example = ", ".join(repr(str(x)) for x in levels[:3])
        raise DataError(
            f"response {column.name!r} is text, whose categories have no order. State "
            f"it: jg.Cumulative(levels=[{example}, ...]), or make the column "
            "pd.Categorical(values, categories=[...], ordered=True)"
        )
    warn(
        f"response {column.name!r} is a categorical that is not marked as ordered; its "
        f"categories are taken in the order {listed(list(levels))}. Where that is not "
        "theirs pass jg.Cumulative(levels=[...]); "
        "pd.Categorical(..., ordered=True) says that it is",
        JaxGLMMWarning,
    )
    return codes, levels


def _by(column: Column, order: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """By the order that the model states; 1 and "1" are one label."""
    codes, found = column.as_factor()
    place = {key(x): k for k, x in enumerate(order)}
    at = np.array([place.get(key(x), -1) for x in found], int)
    if (at < 0).any():
        raise DataError(
            f"response {column.name!r} has the values {listed(list(found[at < 0]))}, "
            f"which levels={list(order)} does not name"
        )
    levels = np.empty(len(order), object)
    levels[:] = list(order)
    if all(isinstance(x, int | float) for x in order):
        levels = np.array(list(order))
    return at[codes], levels


def key(x: Any) -> str:
    """A label as text by which it is found: 1, 1.0 and "1" are one."""
    number = isinstance(x, int | float | np.number) and not isinstance(x, bool)
    return f"{float(x):g}" if number else str(x)


def _numbers(column: Column, rows) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(column.values)
    if column.kind == "number":
        check_finite(column.name, (values,), rows)
        broken = np.flatnonzero(values != np.round(values))
        if len(broken):
            i = broken[0]
            raise DataError(
                f"response {column.name!r} has fractions, {values[i]:g} (row "
                f"{int(i if rows is None else rows[i])}); categories are whole "
                "numbers or labels. A measurement belongs to jg.lmm"
            )
    codes, levels = column.as_factor()
    if len(levels) > MOST:
        raise DataError(
            f"response {column.name!r} has {len(levels)} different values, more than "
            f"{MOST} categories: take it for a number, in jg.lmm, or group it"
        )
    if levels.dtype.kind == "f":
        levels = levels.astype(np.int64)
    return codes, levels


def _as_numbers(levels: np.ndarray) -> np.ndarray | None:
    try:
        values = np.array([float(str(x)) for x in levels])
    except ValueError:
        return None
    return values if len(np.unique(values)) == len(values) else None
