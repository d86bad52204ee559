"""Groups of rows that a question names: levels of a factor, labels, or single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.fitting.model_frame import frame, labels
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.design import Design


def labels_of(design: Design, by: Any) -> tuple[str | None, np.ndarray, int]:
    """Name, codes (n,) and number of the groups.

    Args:
        design: of the fit.
        by: None for single rows; a grouping factor, a variable of the model, or labels,
            one a row.

    Raises:
        NotApplicableError: no such variable; DataError: labels that do not fit.
    """
    found = groups_of(design, by)
    return found[0], found[1], len(found[2])


def groups_of(design: Design, by: Any) -> tuple[str | None, np.ndarray, np.ndarray]:
    """Name, codes (n,) and labels of the groups; see ``labels_of``."""
    if by is None:
        return None, np.arange(design.n), np.asarray(labels(design))
    if isinstance(by, str):
        return by, *_named(design, by)
    try:
        values = np.asarray(by_labels("by", by, labels(design)))
    except ValueError as error:
        raise DataError("by= takes a name, or one label a row") from error
    if values.shape != (design.n,):
        raise DataError(
            f"by= has the shape {values.shape}, and the fit {design.n} rows: give the "
            "name of a variable, or one label a row"
        )
    name = getattr(by, "name", None)
    return "labels" if name is None else str(name), *_factorised(pd.Series(values))


def _named(design: Design, name: str) -> tuple[np.ndarray, np.ndarray]:
    for term in design.terms:
        if term.factor == name and term.known is None:
            return np.asarray(term.codes), np.asarray(term.levels)
    residual = design.residual
    if residual is not None and residual.subject == name:
        return np.asarray(residual.codes), np.asarray(residual.levels)
    table = frame(design)
    if name not in table.columns:
        known = dict.fromkeys([*(t.factor for t in design.terms), *table.columns])
        raise NotApplicableError(
            f"{name!r} is none of the model's variables ({', '.join(map(str, known))})."
            " Give the column itself, one label a row"
        )
    return _factorised(table[name])


def _factorised(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    codes, levels = pd.factorize(values)
    if (codes < 0).any():
        raise DataError("by= has missing labels: each row needs one")
    return codes, np.asarray(levels)
