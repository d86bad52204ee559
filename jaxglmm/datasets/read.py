"""From a file of the package to a data frame whose factors have their levels in order.

A CSV file does not say that ``308`` is a name and not a number, nor that the placebo is
the reference level; ``schema.json`` does: a list of levels for a factor, else a type.
"""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxglmm._errors import DataError

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent


def names() -> list[str]:
    """The data sets that ``load`` knows."""
    return sorted(_schema(HERE))


def load(name: str) -> pd.DataFrame:
    """One of the data sets as a fresh pandas frame, factors as ordered categories.

    The first category of a factor is the reference level of treatment contrasts, as in
    R. Missing values are NaN.

    Args:
        name: one of ``names()``.

    Example:
        >>> import jaxglmm as jg
        >>> jg.datasets.load("sleepstudy").shape
        (180, 3)
    """
    if name not in _schema(HERE):
        near = difflib.get_close_matches(name, names(), n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        known = ", ".join(names())
        raise DataError(f"No data set is called {name!r}.{hint} There are: {known}.")
    return read(HERE, name)


def read(folder: Path, name: str) -> pd.DataFrame:
    """The data set ``name`` of a folder with a ``schema.json``."""
    import pandas as pd

    columns = _schema(folder)[name]["columns"]
    frame = pd.read_csv(
        folder / f"{name}.csv.gz",
        dtype={c: _dtype(kind) for c, kind in columns.items()},
        keep_default_na=False,
        na_values={c: [""] for c, kind in columns.items() if kind == "numeric"},
    )
    for column, kind in columns.items():
        if isinstance(kind, list):
            frame[column] = pd.Categorical(frame[column], categories=kind)
    return frame


def _dtype(kind: str | list[str]) -> str:
    return {"numeric": "float64", "integer": "int64"}.get(str(kind), "str")


@functools.cache
def _schema(folder: Path) -> dict:
    return json.loads((folder / "schema.json").read_text(encoding="utf-8"))
