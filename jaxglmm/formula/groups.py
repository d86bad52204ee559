"""Grouping factors: columns to int32 codes with labels.

A factor of several columns, ``batch:cask``, has the combinations that occur as its
levels, sorted by the first column, then the second; their labels are ``"A:a"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.column import Column
from jaxglmm.formula.levels import factorize, match, text_of
from jaxglmm.formula.notices import listed
from jaxglmm.formula.parse import Grouping

RADIX = 2**62  # a product of numbers of levels that int64 holds with room


@dataclass(frozen=True)
class GroupCoding:
    """A grouping factor as it was in the data of the fit.

    parts: names of its columns. part_levels: levels of each. combinations: (J, k) codes
    of the parts in each combination that occurs, in order; None for a single column.
    """

    name: str
    parts: tuple[str, ...]
    part_levels: tuple[np.ndarray, ...]
    combinations: np.ndarray | None
    levels: np.ndarray

    @classmethod
    def of_cells(
        cls,
        name: str,
        parts: tuple[str, ...],
        part_levels: tuple[np.ndarray, ...],
        table: np.ndarray,
    ) -> GroupCoding:
        """A factor of several columns from its sorted combinations, (J, k) codes."""
        levels = _joined(table, part_levels)
        return cls(name, parts, part_levels, table, levels)

    def codes(self, columns: Mapping[str, Column], unseen: str = "zero") -> np.ndarray:
        """Codes of new data, -1 for a missing label or a level that was not there.

        Raises:
            DataError: for such levels where ``unseen="error"``.
        """
        places = []
        for part, levels in zip(self.parts, self.part_levels, strict=True):
            codes, labels = columns[part].as_factor()
            places.append(np.append(match(levels, labels), np.int32(-1)).take(codes))
        if self.combinations is None:
            found = places[0]
        else:
            sizes = [len(levels) for levels in self.part_levels]
            found = find(self.combinations, places, sizes)
        known = found >= 0
        if unseen == "error" and not known.all():
            rows = np.flatnonzero(~known)
            labels = [
                ":".join(text_of(columns[p].labels()[i]) for p in self.parts)
                for i in rows[:50]
            ]
            strange = listed(list(dict.fromkeys(labels)))
            raise DataError(
                f"new data: {self.name!r} has levels {strange} that were not in the "
                "data of the fit; new_levels='zero' predicts for them at the "
                "population level"
            )
        return found.astype(np.int32)


def from_numbers(
    numbers: np.ndarray, part_levels: tuple[np.ndarray, ...]
) -> np.ndarray:
    """(J, k) codes of the parts from mixed-radix numbers, as older files hold them."""
    found = np.empty((len(numbers), len(part_levels)), np.int32)
    rest = numbers
    for j in reversed(range(len(part_levels))):
        rest, found[:, j] = np.divmod(rest, len(part_levels[j]))
    return found


def learn_groups(
    grouping: Grouping, columns: Mapping[str, Column]
) -> tuple[GroupCoding, np.ndarray]:
    """The factor and the codes (n,) int32 of its rows."""
    coded = [columns[part].as_factor() for part in grouping.parts]
    part_levels = tuple(levels for _, levels in coded)
    codes, levels = coded[0]
    combinations = None
    if len(coded) > 1:
        codes, combinations = combine([c for c, _ in coded], [*map(len, part_levels)])
        levels = _joined(combinations, part_levels)
    coding = GroupCoding(
        grouping.name, grouping.parts, part_levels, combinations, levels
    )
    return coding, codes


def refuse_one_level(coding: GroupCoding) -> None:
    """Raise ``ModelError`` where there is one level only."""
    if len(coding.levels) < 2:
        raise ModelError(
            f"grouping factor {coding.name!r} has only {len(coding.levels)} level "
            f"({listed(list(coding.levels))}); random effects need at least 2 (in "
            "practice 5 or more)"
        )


def combine(
    codes: Sequence[np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of combinations that occur, sorted by the first part, then the second.

    Args:
        codes: (n,) codes of each part, none missing.
        sizes: their numbers of levels, whose product may be beyond 64 bits.

    Returns:
        (n,) int32 codes, and (J, k) int32 codes of the parts in each combination.
    """
    total, bound = codes[0].astype(np.int64), sizes[0]
    for more, size in zip(codes[1:], sizes[1:], strict=True):
        if bound * size > RADIX:
            total, seen = factorize(total)
            total, bound = total.astype(np.int64), len(seen)
        total, bound = total * size + more, bound * size
    found, numbers = factorize(total)
    row = np.empty(len(numbers), np.intp)
    row[found] = np.arange(len(found))
    return found, np.stack([c[row] for c in codes], axis=1).astype(np.int32)


def find(
    table: np.ndarray, places: Sequence[np.ndarray], sizes: Sequence[int]
) -> np.ndarray:
    """(n,) row of the sorted ``table`` that each combination is, -1 where none is."""
    known = np.logical_and.reduce([p >= 0 for p in places])
    ours, theirs = table[:, 0].astype(np.int64), places[0].astype(np.int64)
    bound = sizes[0]
    for j in range(1, len(places)):
        if bound * sizes[j] > RADIX:
            seen = np.unique(ours)
            theirs, there = _position(seen, theirs)
            known &= there
            ours, bound = np.searchsorted(seen, ours), len(seen)
        ours = ours * sizes[j] + table[:, j]
        theirs = theirs * sizes[j] + places[j]
        bound *= sizes[j]
    at, there = _position(ours, theirs)
    return np.where(known & there, at, -1)


def _position(seen: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each number stands in the sorted ones, and whether it does."""
    at = np.searchsorted(seen, numbers)
    at[at == len(seen)] = 0
    return at, seen[at] == numbers


def _joined(combinations: np.ndarray, part_levels) -> np.ndarray:
    """Labels of combinations, ``"A:a"``."""
    texts = []
    for j, levels in enumerate(part_levels):
        names = [text_of(level) for level in levels]
        texts.append([names[i] for i in combinations[:, j].tolist()])
    return np.array([":".join(t) for t in zip(*texts, strict=True)], object)
