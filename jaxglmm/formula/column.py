"""One variable of a table, of one of four kinds.

A column is a ``number``, a ``truth``, a ``time`` or a ``label``; labels become codes
and levels at once, since nothing downstream wants the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.formula.levels import compress, factorize


@dataclass(frozen=True)
class Column:
    """One variable.

    kind: "number", "truth", "time": ``values`` (n,) is set; "label": ``codes`` and
    ``levels`` are. ``exact`` (n,) holds the values in a type of their own where
    ``values`` are floats only because some rows are missing, or because they are
    fractions: identifiers of 64 bits have no exact float. order: "stated" where the
    data say that the levels are in order, "given" where they merely come in one.
    """

    name: str
    kind: str
    values: np.ndarray | None = None
    codes: np.ndarray | None = None
    levels: np.ndarray | None = None
    exact: np.ndarray | None = None
    order: str | None = None

    def __len__(self) -> int:
        return len(self.values if self.codes is None else self.codes)  # type: ignore

    @property
    def missing(self) -> np.ndarray | None:
        """(n,) mask, or None where no value is missing."""
        if self.codes is not None:
            mask = self.codes < 0
        elif self.kind == "time":
            mask = np.isnat(self.values)  # type: ignore[arg-type]
        elif self.values.dtype.kind == "f":  # type: ignore
            with np.errstate(invalid="ignore", over="ignore"):
                if np.isfinite(self.values.sum()):  # type: ignore[union-attr]
                    return None
            mask = np.isnan(self.values)  # type: ignore[arg-type]
        else:
            return None
        return mask if mask.any() else None

    def take(self, rows: np.ndarray | None) -> Column:
        """The column at ``rows`` (all of it if None)."""
        if rows is None:
            return self
        if self.codes is not None:
            return replace(self, codes=self.codes[rows])
        taken = replace(self, values=self.values[rows])  # type: ignore[index]
        if self.exact is None:
            return taken
        exact = self.exact[rows]
        if exact.dtype.kind in "iub" and taken.missing is None:
            return replace(taken, values=exact, exact=None)
        return replace(taken, exact=exact)

    def owned(self) -> Column:
        """The column with values of its own, safe from later changes to the data."""
        if self.values is None:
            return self
        exact = None if self.exact is None else self.exact.copy()
        return replace(self, values=self.values.copy(), exact=exact)

    def as_factor(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes and the levels that occur."""
        if self.codes is not None:
            codes, used = compress(self.codes, len(self.levels))  # type: ignore
            return codes, self.levels[used]  # type: ignore[index]
        if self.exact is None:
            return factorize(self.values)
        known = ~np.isnan(self.values)  # type: ignore[arg-type]
        if known.all():
            return factorize(self.exact)
        codes = np.full(len(known), -1, np.int32)
        codes[known], levels = factorize(self.exact[known])
        return codes, levels

    def labels(self) -> np.ndarray:
        """(n,) values as a plain array; labels spelled out, None where missing."""
        if self.codes is None:
            return self.values  # type: ignore[return-value]
        if (self.codes < 0).any():
            return np.append(self.levels.astype(object), [None])[self.codes]  # type: ignore
        return self.levels[self.codes]  # type: ignore[index]

    def as_series(self) -> pd.Series:
        """As a data frame holds it; integers beside missing values stay exact."""
        if self.codes is not None:
            levels = pd.Index(self.levels)
            return pd.Series(pd.Categorical.from_codes(self.codes, categories=levels))
        if self.exact is None:
            return pd.Series(self.values, copy=False)
        missing = np.isnan(self.values)  # type: ignore[arg-type]
        if self.exact.dtype.kind == "b":
            return pd.Series(pd.arrays.BooleanArray(self.exact, missing))
        if self.exact.dtype.kind in "iu":
            return pd.Series(pd.arrays.IntegerArray(self.exact, missing))
        found = self.exact.copy()
        found[missing] = None
        return pd.Series(found)

    def as_doubles(self) -> pd.Series:
        """For arithmetic: numbers in double precision, as in R, so none wraps round."""
        if self.kind == "number":
            return pd.Series(np.asarray(self.values, np.float64), copy=False)
        return self.as_series()


class Columns(Mapping[str, np.ndarray]):
    """Columns by name; looking one up gives the plain array."""

    def __init__(self, columns: Mapping[str, Column]):
        self.columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name].labels()

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"Columns({', '.join(self.columns)})"
