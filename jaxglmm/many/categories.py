"""Responses that are categories: columns of labels as codes that all columns share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError, JaxGLMMWarning, ModelError
from jaxglmm._pandas import pd
from jaxglmm.formula.categories import coded, key
from jaxglmm.formula.design import Design
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.tables import as_table, read_column
from jaxglmm.many.responses import Responses
from jaxglmm.model.families import AbstractFamily, Cumulative, Multinomial

BLOCK = 10_000_000  # values that are looked at at once


class CategoryResponses(Responses):
    """An (n, D) matrix of labels, read as codes 0, 1, ... of ``levels``.

    What is no category is infinite, which spoils its own data set and no other.
    """

    def __init__(
        self,
        values: Any,
        n: int,
        rows: np.ndarray | None,
        known: np.ndarray,
        codes: np.ndarray,
        levels: np.ndarray,
    ):
        super().__init__(values, n, rows)
        self.known, self.codes, self.levels = known, codes, levels

    def take(self, which: np.ndarray) -> np.ndarray:
        """Columns ``which`` as codes (n, L); NaN where missing."""
        block = super().take(which)
        at = np.minimum(np.searchsorted(self.known, block), len(self.known) - 1)
        found = np.where(self.known[at] == block, self.codes[at], np.inf)
        return np.where(np.isnan(block), np.nan, found)


def category_responses(
    values: Any, n: int, rows: np.ndarray | None, family: AbstractFamily
) -> CategoryResponses:
    """Responses of an ordinal or multinomial family; see ``Responses``.

    Raises:
        DataError: labels without an order, columns with other categories, fractions;
            as of one response.
    """
    read, labels, names = _labelled(values)
    plain = Responses(read, n, rows)
    known = _distinct(plain)
    column = labels if labels is not None else read_column("responses", known)
    place, levels = _coded(column, family)
    if labels is not None:
        place = place[known.astype(int)]
    if np.sum(np.isin(np.arange(len(levels)), place)) < 2:
        raise ModelError(
            f"the responses have one category only, {listed(list(levels)[:1])}: there "
            "is nothing to fit",
            status=_status.CONSTANT,
        )
    out = CategoryResponses(read, n, rows, known, place, levels)
    out.labels = plain.labels if names is None else names
    return out


def _coded(column: Any, family: AbstractFamily) -> tuple[np.ndarray, np.ndarray]:
    """(u,) the code of each distinct value, infinite for none; levels."""
    order = getattr(family, "levels", None)
    if order is None and column.kind == "number":
        values = np.asarray(column.values, float)
        whole = np.isfinite(values) & (values == np.round(values))
        if whole.any():
            out = np.full(len(values), np.inf)
            chosen = read_column(column.name, values[whole].astype(np.int64))
            out[whole], levels = coded(chosen, None, None, True)
            return out, levels
    if order is None:
        found, levels = coded(column, None, None, family.family_kind == "ordinal")
        return found.astype(float), levels
    codes, labels = column.as_factor()
    named = {key(x): k for k, x in enumerate(order)}
    there = np.array([named.get(key(x), np.inf) for x in labels], float)
    if not np.isfinite(there).any():
        coded(column, order, None, True)  # which says what is wrong
    levels = np.empty(len(order), object)
    levels[:] = list(order)
    if all(isinstance(x, int | float) for x in order):
        levels = np.array(list(order))
    return there[codes], levels


def _labelled(values: Any) -> tuple[Any, Any, np.ndarray | None]:
    """Numbers as they are; labels as an (n, D) matrix of places in a column of labels.

    The third: names of the columns.
    """
    frame = hasattr(values, "iloc") or isinstance(values, dict)
    if frame or hasattr(values, "columns"):
        if getattr(values, "ndim", 2) == 1:
            values = values.to_frame()
        table = as_table(values)
        columns = [table.column(name) for name in table.names]
        if columns and all(c.kind == "label" for c in columns):
            return _of_columns(columns, np.asarray(table.names))
        if any(c.kind == "label" for c in columns):
            raise DataError(
                "some of the responses are numbers and others text: they are to have "
                "the same categories"
            )
        return values, None, None
    array = values if isinstance(values, np.ndarray) else None
    if array is None and isinstance(values, list | tuple):
        try:
            array = np.asarray(values)
        except ValueError:
            return values, None, None  # refused where it is read
    if array is None or array.dtype.kind not in "OUSb" or array.ndim != 2:
        return values, None, None
    if array.dtype.kind == "b":
        return array.astype(float), None, None
    flat = array.ravel()
    if all(isinstance(x, int | float | np.number) for x in flat):
        return array.astype(float), None, None
    column = read_column("responses", pd.Series(flat, dtype=object))
    if column.kind != "label":
        return array.astype(float), None, None
    return _matrix(column.codes.reshape(array.shape), column)  # type: ignore[union-attr]


def _of_columns(columns: list, names: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """Labels of a frame: of one order, or of all that occur."""
    stated = [c for c in columns if c.order is not None]
    for c in stated:
        if list(c.levels) != list(stated[0].levels):
            raise DataError(
                f"responses {stated[0].name!r} and {c.name!r} have other categories, "
                f"or these in another order: {listed(list(stated[0].levels))} and "
                f"{listed(list(c.levels))}. Give all columns the same, or state them "
                "by levels= of the family"
            )
    levels = list(stated[0].levels) if stated else []
    for c in columns:
        levels += [x for x in c.levels if x not in levels]
    place = {x: k for k, x in enumerate(levels)}
    out = np.empty((len(columns[0]), len(columns)))
    for j, c in enumerate(columns):
        own = np.array([*(place[x] for x in c.levels), -1], float)
        out[:, j] = own[c.codes]
    labels = np.empty(len(levels), object)
    labels[:] = levels
    one = replace(
        stated[0] if stated else columns[0],
        name="responses",
        codes=np.arange(len(levels)),
        levels=labels,
    )
    return *_matrix(out, one)[:2], names


def _matrix(codes: np.ndarray, column: Any) -> tuple[Any, Any, None]:
    """Codes with NaN where a label is missing; the column with each label once."""
    levels = column.levels
    once = replace(column, codes=np.arange(len(levels)), levels=levels)
    return np.where(codes < 0, np.nan, codes.astype(float)), once, None


def _distinct(responses: Responses) -> np.ndarray:
    """Sorted distinct values that are there."""
    D, n = len(responses), max(1, responses.n)
    step = max(1, BLOCK // n)
    found = [np.zeros(0)]
    for start in range(0, D, step):
        block = responses.take(np.arange(start, min(start + step, D)))
        found.append(np.unique(block[~np.isnan(block)]))
    out = np.unique(np.concatenate(found))
    if not len(out):
        raise DataError("the responses are missing everywhere")
    return out


def of_levels(
    design: Design, family: AbstractFamily, levels: np.ndarray
) -> tuple[Design, AbstractFamily]:
    """A design and a family whose categories are known, all that there are."""
    design = replace(design, response_levels=levels)
    if isinstance(family, Multinomial):
        return design, Multinomial(family.link, tuple(levels))
    if isinstance(family, Cumulative):
        return design, family.of_levels(tuple(levels))
    return design, family


def without_empty(design: Design, family: AbstractFamily, i: int) -> Design:
    """The design of data set i without the categories that it does not have.

    Raises:
        ModelError: only one is left; DataError: of unordered ones the first is gone.
    """
    levels = design.response_levels
    if levels is None or family is None or not hasattr(family, "categories"):
        return design
    y = design.y
    if not np.isfinite(y).all():
        raise DataError(
            f"data set {i} has values that are no category of {listed(list(levels))}"
        )
    used = np.ones(len(y), bool) if design.weights is None else design.weights > 0
    there = np.bincount(y[used].astype(int), minlength=len(levels)) > 0
    if there.all():
        return design
    empty = listed(list(np.asarray(levels)[~there]))
    if there.sum() < 2:
        raise ModelError(
            f"data set {i} has one category only: there is nothing to fit",
            status=_status.CONSTANT,
        )
    if not there[y.astype(int)].all():
        raise DataError(f"data set {i}: the rows of {empty} all have weight zero")
    if isinstance(family, Multinomial) and not there[0]:
        raise DataError(
            f"data set {i} has no row of {levels[0]!r}, the category that the others "
            "are compared with: name another one first in jg.Multinomial(levels=[...])"
        )
    warn(f"data set {i} has no row of {empty}, which is left out", JaxGLMMWarning)
    place = np.cumsum(there) - 1
    kept = np.asarray(levels)[there]
    return replace(design, y=place[y.astype(int)].astype(float), response_levels=kept)
