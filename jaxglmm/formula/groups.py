"""Grouping factors: columns to int32 codes with labels.

A factor of several columns, ``batch:cask``, has the combinations that occur as its
levels, sorted by the first column, then the second; their labels are ``"A:a"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.levels import factorize, match, text_of
from jaxglmm.formula.notices import listed
from jaxglmm.formula.parse import Grouping
from jaxglmm.formula.tables import Column


@dataclass(frozen=True)
class GroupCoding:
    """A grouping factor as it was in the data of the fit.

    parts: names of its columns. part_levels: levels of each. combinations: (J,) sorted
    mixed-radix numbers of the combinations that occur, None for a single column.
    """

    name: str
    parts: tuple[str, ...]
    part_levels: tuple[np.ndarray, ...]
    combinations: np.ndarray | None
    levels: np.ndarray

    def codes(self, columns: Mapping[str, Column], unseen: str = "zero") -> np.ndarray:
        """Codes of new data, -1 for a missing label or a level that was not there.

        Raises:
            DataError: for such levels where ``unseen="error"``.
        """
        total = np.zeros(len(columns[self.parts[0]]), np.int64)
        known = np.ones(len(total), bool)
        for part, levels in zip(self.parts, self.part_levels, strict=True):
            codes, labels = columns[part].as_factor()
            place = np.append(match(levels, labels), np.int32(-1)).take(codes)
            known &= place >= 0
            total = total * len(levels) + place
        if self.combinations is not None:
            at = np.searchsorted(self.combinations, total)
            at[at == len(self.combinations)] = 0
            known &= self.combinations[at] == total
            total = at
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
        return np.where(known, total, -1).astype(np.int32)


def learn_groups(
    grouping: Grouping, columns: Mapping[str, Column]
) -> tuple[GroupCoding, np.ndarray]:
    """The factor and the codes (n,) int32 of its rows.

    Raises:
        ModelError: where there is one level only.
    """
    coded = [columns[part].as_factor() for part in grouping.parts]
    part_levels = tuple(levels for _, levels in coded)
    codes, levels = coded[0]
    combinations = None
    if len(coded) > 1:
        total = codes.astype(np.int64)
        for more, names in coded[1:]:
            total = total * len(names) + more
        codes, combinations = factorize(total)
        levels = _joined(combinations, part_levels)
    if len(levels) < 2:
        raise ModelError(
            f"grouping factor {grouping.name!r} has only {len(levels)} level "
            f"({listed(list(levels))}); random effects need at least 2 (in practice 5 "
            "or more)"
        )
    coding = GroupCoding(
        grouping.name, grouping.parts, part_levels, combinations, levels
    )
    return coding, codes


def _joined(combinations: np.ndarray, part_levels) -> np.ndarray:
    """Labels of combinations, ``"A:a"``."""
    texts = []
    rest = combinations
    for levels in reversed(part_levels):
        names = [text_of(level) for level in levels]
        rest, place = np.divmod(rest, len(levels))
        texts.append([names[i] for i in place.tolist()])
    return np.array([":".join(t) for t in zip(*reversed(texts), strict=True)], object)
