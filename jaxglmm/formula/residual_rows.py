"""New rows of a residual structure: which visit, which group, which scales."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.formula.design import ResidualTerm
from jaxglmm.formula.levels import match, text_of
from jaxglmm.formula.notices import listed
from jaxglmm.formula.residual import BY_VISIT, Residual, read_residual
from jaxglmm.formula.tables import as_table


def new_places(
    term: ResidualTerm, newdata: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the groups and positions of the visits, (n,), and scales (n, s).

    Raises:
        DataError: a column is missing, or a level of it was not in the fit.
    """
    table = as_table(newdata)
    residual = read_residual(term.text).resolved(table.names)
    group = np.zeros(table.n, int)
    if residual.group:
        labels = _joined(residual.group, table)
        group = _known(labels, term.group_levels, term.group)
    position = np.zeros(table.n, int)
    if term.structure in BY_VISIT:
        labels = table.column(residual.times[0]).labels()
        position = _known(labels, term.visits, term.time)
    return group, position, _scales(residual, term, table)


def _joined(names: tuple[str, ...], table: Any) -> np.ndarray:
    columns = [table.column(name).labels() for name in names]
    if len(columns) == 1:
        return columns[0]
    texts = [":".join(map(text_of, row)) for row in zip(*columns, strict=True)]
    return np.array(texts, object)


def _known(labels: np.ndarray, levels: np.ndarray, name: str) -> np.ndarray:
    found = match(np.asarray(levels), np.asarray(labels))
    if (found < 0).any():
        strange = listed(list(dict.fromkeys(np.asarray(labels)[found < 0].tolist())))
        raise DataError(
            f"new data: {name!r} has {strange}, of which the fit knows no residual "
            f"variance; it has those of {listed(list(levels))}"
        )
    return found


def _scales(residual: Residual, term: ResidualTerm, table: Any) -> np.ndarray:
    columns: list[np.ndarray] = []
    for kind, name in residual.variances:
        column = table.column(name)
        if kind == "varident":
            head = f"varident({name}): "
            known = [x.removeprefix(head) for x in term.scale_names if head in x]
            texts = np.array([text_of(x) for x in column.labels()], object)
            columns += [(texts == level).astype(float) for level in known]
        else:
            x = np.asarray(column.values, float)
            columns.append(np.log(np.abs(x)) if kind == "varpower" else x)
    return np.stack(columns, axis=1) if columns else np.zeros((table.n, 0))
