"""What the parts of a table of many data sets share: rows that go with every part.

With the anchor a part's design has the columns of the whole, whatever is in it.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.streaming.fleet import in_pandas
from jaxglmm.streaming.sources import BatchSource

CELL = 3  # rows of the anchor for each combination of categories
SPREAD = 64  # other rows of it, evenly from the first batch
MOST_CELLS = 20_000


def survey(
    source: BatchSource, wanted: list[str], by: list[str], formula: str
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list]]:
    """The anchor, first rows, and categories of columns that have an order.

    Rows for each combination of categories, and some of the first batch: enough for a
    design that has all columns of the whole. Grouping factors need none.
    """
    rows = _first(source, [*by, *wanted], wanted)
    sparse = np.unique(np.linspace(0, len(rows) - 1, SPREAD).astype(int))
    anchor = [_usable(rows[wanted]).iloc[:0], _usable(rows[wanted].iloc[sparse])]
    named = _categorical(rows[wanted], formula)
    categories: dict[str, list] = {}
    if named:
        found, categories = _cells(source, wanted, named)
        anchor.append(found)
    return pd.concat(anchor, ignore_index=True), rows[wanted], categories


def _first(source: BatchSource, columns: list[str], wanted: list[str]) -> pd.DataFrame:
    """Rows of the first batch of which one is complete: those that are.

    Raises:
        DataError: there is none.
    """
    seen, absent = 0, dict.fromkeys(wanted, 0)
    for batch in source.tables(columns, 20_000):
        rows = in_pandas(batch)
        usable = _usable(rows[wanted])
        if len(usable):
            return rows.loc[usable.index]
        seen += len(rows)
        for name in wanted:
            absent[name] += int(rows[name].isna().sum())
    if not seen:
        raise DataError(f"{source.description} has no rows")
    said = ", ".join(f"{name} ({n:,})" for name, n in absent.items() if n)
    raise DataError(
        f"{source.description}: no row is complete; missing values: {said or 'none'}"
    )


def _categorical(rows: pd.DataFrame, formula: str) -> list[str]:
    """Columns of text, categories and truths that are no bare grouping factor alone."""
    fixed = _without_groups(formula)
    out = []
    for name in rows.columns:
        inside = name in fixed
        number = pd.api.types.is_numeric_dtype(rows[name].dtype)
        number = number and not pd.api.types.is_bool_dtype(rows[name].dtype)
        coded = f"C({name}" in fixed.replace(" ", "")
        if inside and (coded or not number):
            out.append(name)
    return out


def _without_groups(formula: str) -> str:
    """The formula less what stands right of a bar."""
    import re

    return re.sub(r"\|[^)]*\)", ")", formula)


def _cells(
    source: BatchSource, wanted: list[str], named: list[str]
) -> tuple[pd.DataFrame, dict[str, list]]:
    """A few rows for each combination of categories, in one pass."""
    seen: dict[tuple, int] = {}
    kept, categories = [], {}
    for batch in source.tables(wanted):
        rows = in_pandas(batch)
        for name in named:
            if isinstance(rows[name].dtype, pd.CategoricalDtype):
                own = categories.setdefault(name, [])
                known = set(own)
                own += [c for c in rows[name].cat.categories if c not in known]
        rows = _usable(rows)
        place = rows.groupby(named, observed=True, sort=False).cumcount()
        for _, row in rows[place < CELL].iterrows():
            key = tuple(row[name] for name in named)
            if seen.get(key, 0) < CELL:
                seen[key] = seen.get(key, 0) + 1
                kept.append(row)
        if len(seen) > MOST_CELLS:
            raise DataError(
                f"the columns {', '.join(named)} have more than {MOST_CELLS:,} "
                "combinations: a factor of so many levels belongs right of the bar, "
                "(1 | factor)"
            )
    frame = pd.DataFrame(kept, columns=wanted)
    like = in_pandas(batch)[wanted]
    return frame.astype({n: t for n, t in like.dtypes.items() if n not in named}), (
        categories
    )


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without missing or infinite values."""
    good = rows.notna().all(axis=1).to_numpy()
    for name in rows.columns:
        if pd.api.types.is_float_dtype(rows[name].dtype):
            good = good & np.isfinite(rows[name].to_numpy(float, na_value=np.nan))
    return rows[good]
