"""X, y and weights as scikit-learn gives them: frames, arrays, lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    column_or_1d,
)

from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.reading import is_text, not_numeric
from jaxglmm.formula.tables import read_column

GROUP = "group"


def as_columns(X: np.ndarray) -> dict[str, np.ndarray]:
    """Columns by names that formulas can read."""
    return {f"x{j}": X[:, j] for j in range(X.shape[1])}


def numbers_of(self: Any, y: Any, n: int) -> np.ndarray:
    """A response of numbers (n,)."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = check_array(
        column_or_1d(unmasked(y), warn=True),
        ensure_2d=False,
        dtype=np.float64,
        estimator=self,
    )
    check_consistent_length(y, np.empty(n))
    return y


def weights_of(given: Any, X: np.ndarray) -> np.ndarray | None:
    """Weights of the rows (n,), or none."""
    if given is None:
        return None
    given = unmasked(given)
    return _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)


def text_places(groups: Any, X: Any) -> list[int]:
    """Columns of groups, where X has columns to speak of."""
    return places_of(groups, columns_of(X), X) if np.ndim(X) == 2 else []


def refuse_text(X: Any, groups: list[int]) -> None:
    """Refuse text among the numbers: ``"308"`` is a label, not the number 308."""
    if not hasattr(X, "columns"):
        return
    for j, name in enumerate(X.columns):
        if j in groups:
            continue
        column = read_column(str(name), X.iloc[:, j] if hasattr(X, "iloc") else X[name])
        if is_text(column):
            raise ValueError(
                f"X: {not_numeric(column)}. Name it in groups= if it says which rows "
                "belong together, or encode it as numbers"
            )


def columns_of(X: Any) -> list[Any] | None:
    """Names of the columns of a frame."""
    return list(X.columns) if hasattr(X, "columns") else None


def places_of(wanted: Any, names: list[Any] | None, X: Any) -> list[int]:
    """Positions of columns by name or position."""
    out = []
    for item in wanted if isinstance(wanted, list | tuple) else [wanted]:
        if isinstance(item, str):
            if names is None or item not in names:
                raise ValueError(f"groups: no column {item!r} in X")
            out.append(names.index(item))
        else:
            width = np.shape(X)[1]
            if not -width <= int(item) < width:
                raise ValueError(f"groups: X has {width} columns, none at {item}")
            out.append(int(item) % width)
    return out


def name_of(names: list[Any] | None, j: int) -> Any:
    """What the column is called, in a frame or not."""
    return f"{GROUP} {j}" if names is None else names[j]


def column_of(X: Any, j: int) -> np.ndarray:
    """Values of one column (n,), of a frame or an array."""
    if hasattr(X, "iloc"):
        return np.asarray(X.iloc[:, j])
    if hasattr(X, "columns"):
        return np.asarray(X[X.columns[j]])
    return np.asarray(X)[:, j]


def without(X: Any, columns: list[int]) -> Any:
    """X with these columns gone."""
    if not columns:
        return X
    if hasattr(X, "iloc"):
        return X.iloc[:, [j for j in range(X.shape[1]) if j not in columns]]
    if hasattr(X, "columns"):
        return X[[c for j, c in enumerate(X.columns) if j not in columns]]
    return np.delete(np.asarray(X), columns, axis=1)
