"""Labels that are met batch by batch: what levels there are, and a row's code.

``Growing`` gives codes in order of appearance, which stay; at the end its labels are
sorted as those of a table in memory would be. ``Coder`` is the way from labels to the
codes of levels that are known: a table for integers in a short range, a hash table
that is made once for all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.formula.column import Column
from jaxglmm.formula.levels import factorize, match
from jaxglmm.formula.notices import listed

MARKS = 2**27  # of a table of presence: as many bytes at most
TABLE = 4  # entries of a table of integers, over the number of levels


class Growing:
    """Distinct labels of a column in order of appearance.

    given: the order that the data state (a categorical's), None without one.
    """

    def __init__(self) -> None:
        self.labels: np.ndarray | None = None
        self.given: np.ndarray | None = None
        self._present: np.ndarray | None = None  # of integers from ``_low`` on
        self._low = 0
        self._index: pd.Index | None = None

    def __len__(self) -> int:
        noted = 0 if self._present is None else int(np.count_nonzero(self._present))
        return noted + (0 if self.labels is None else len(self.labels))

    def note(self, column: Column) -> None:
        """Take note of the labels of a column, without codes.

        Integers in a range that is not too long are marked in a table of presence.
        """
        values = column.values
        if values is None or values.dtype.kind not in "iu" or column.exact is not None:
            self.add(column)
            return
        low, high = int(values.min()), int(values.max())
        if self._present is not None:
            low = min(low, self._low)
            high = max(high, self._low + len(self._present) - 1)
        if high - low >= MARKS or self.labels is not None:
            self._settle()
            self.add(column)
            return
        if self._present is None or high - low >= len(self._present):
            self._stretch(low, high)
        assert self._present is not None
        self._present[np.subtract(values, self._low, dtype=np.int64)] = True

    def _stretch(self, low: int, high: int) -> None:
        """A table of presence of this range, half as long again on each side."""
        more = min((high - low) // 2, (MARKS - (high - low)) // 2)
        old, before = self._present, self._low
        self._low, top = max(low - more, -(2**62)), high + more + 1
        self._present = np.zeros(top - self._low, bool)
        if old is not None:
            self._present[before - self._low :][: len(old)] = old

    def _settle(self) -> None:
        """Labels that were marked become labels like others."""
        if self._present is not None:
            levels = np.flatnonzero(self._present) + self._low
            self._present = None
            self._places("", levels)

    def add(self, column: Column) -> np.ndarray:
        """Codes (n,) int64 of a column without missing values."""
        self._settle()
        codes, levels = column.as_factor()
        if column.order is not None:
            self._note_order(column.levels)
        return self._places(column.name, levels)[codes]

    def _note_order(self, levels: np.ndarray | None) -> None:
        assert levels is not None
        if self.given is None:
            self.given = levels
            return
        new = levels[match(self.given, levels) < 0]
        if len(new):
            self.given = np.concatenate([self.given, new])

    def _places(self, name: str, levels: np.ndarray) -> np.ndarray:
        """(k,) codes of distinct labels, new ones last."""
        if self.labels is None or self._index is None:
            self.labels, self._index = levels, _index(levels)
            return np.arange(len(levels))
        kinds = {self.labels.dtype.kind, levels.dtype.kind}
        if len(kinds) > 1 and not kinds <= set("iuf"):
            raise DataError(
                f"column {name!r} changes its type: labels such as "
                f"{listed(list(self.labels[:2]))} before, "
                f"{listed(list(levels[:2]))} here"
            )
        found = self._index.get_indexer(_index(levels))
        new = np.flatnonzero(found < 0)
        if len(new):
            found[new] = len(self.labels) + np.arange(len(new))
            self.labels = np.concatenate([self.labels, levels[new]])
            self._index = _index(self.labels)
        return found

    def kept(self) -> dict[str, np.ndarray]:
        """Labels, and their order where one is given, as arrays."""
        self._settle()
        found = {"labels": self.labels, "given": self.given}
        return {name: labels for name, labels in found.items() if labels is not None}

    @classmethod
    def restored(cls, kept: Mapping[str, np.ndarray]) -> Growing:
        """What ``kept`` wrote."""
        out = cls()
        if "labels" in kept:
            out.labels, out._index = kept["labels"], _index(kept["labels"])
        out.given = kept.get("given")
        return out

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels (J,) in their order, and the rank (J,) of each code among them."""
        self._settle()
        assert self.labels is not None
        place = (
            match(self.labels, self.given)
            if self.given is not None
            else np.zeros(0, int)
        )
        order = place[place >= 0]
        if len(order) == len(self.labels):
            rank = np.empty(len(order), np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
            return self.labels[order], rank
        rank, levels = factorize(self.labels)
        return levels, rank


class Coder:
    """Codes of the rows of a batch among levels (J,) that are known."""

    def __init__(self, levels: np.ndarray):
        self.levels = levels

    def codes(self, column: Column) -> np.ndarray:
        """(n,) intp, -1 for a label that is missing or not among the levels."""
        values = column.values
        values = np.zeros(0) if values is None else values
        whole = values.dtype.kind in "iu"
        if self._table is not None and whole and column.exact is None:
            low, table = self._table
            place = np.subtract(values, low, dtype=np.int64)
            if len(place) and place.min() >= 0 and place.max() < len(table):
                return table.take(place)
        codes, labels = column.as_factor()
        return np.append(self._match(labels), -1).take(codes)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray] | None:
        if self.levels.dtype.kind not in "iu" or not len(self.levels):
            return None
        low, high = int(self.levels.min()), int(self.levels.max())
        if high - low + 1 > TABLE * len(self.levels) + 4096 or high >= 2**62:
            return None
        table = np.full(high - low + 1, -1, np.intp)
        table[self.levels.astype(np.int64) - low] = np.arange(len(self.levels))
        return low, table

    def _match(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind == self.levels.dtype.kind:
            found = self._index.get_indexer(_index(labels))
            if (found >= 0).all():
                return found
        return match(self.levels, labels).astype(np.intp)

    @cached_property
    def _index(self) -> pd.Index:
        return _index(self.levels)


def _index(labels: np.ndarray) -> pd.Index:
    if labels.dtype.kind == "O":
        return pd.Index(labels, dtype=object, tupleize_cols=False)
    return pd.Index(labels)
