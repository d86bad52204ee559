"""Responses summed within groups before they are ranked, as DHARMa recalculates them.

Sums of a level are what overdispersion between levels shows in, where single rows, each
well inside its own draws, do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, NotApplicableError


@dataclass(frozen=True)
class SummedGroups:
    """code: (n,) the group of each row; name, levels: (G,) labels; used: (n,) rows."""

    name: str
    code: np.ndarray
    levels: np.ndarray
    used: np.ndarray

    @staticmethod
    def read(
        by: Any, variables: Mapping[str, np.ndarray], used: np.ndarray
    ) -> SummedGroups:
        """Of a variable of the model, or labels (n,); rows without one are left out.

        Raises:
            NotApplicableError: no such variable.
            DataError: no array of a label a row, or one group alone.
        """
        import pandas as pd

        n = len(used)
        if isinstance(by, str):
            if by not in variables:
                raise NotApplicableError(
                    f"by={by!r} is no variable of the model; there are "
                    f"{', '.join(variables) or 'none'}. Labels, one a row, work too"
                )
            name, labels = by, np.asarray(variables[by])
        else:
            try:
                labels = np.asarray(by)
            except ValueError as error:
                raise DataError(f"by= is no array, a label a row ({error})") from error
            if labels.shape != (n,):
                raise DataError(f"by= has shape {labels.shape}; there are {n} rows")
            name = str(getattr(by, "name", None) or "group")
        code, levels = pd.factorize(labels, sort=True)
        used = used & (code >= 0)
        if len(np.unique(code[used])) < 2:
            raise DataError(f"by={name!r} has one group; at least two are needed")
        return SummedGroups(name, code, np.asarray(levels), used)

    def sums(self, Y: np.ndarray) -> np.ndarray:
        """(..., G) sums of rows (..., n) that the fit used."""
        rows = np.atleast_2d(Y)[:, self.used]
        code, G = self.code[self.used], len(self.levels)
        out = np.stack([np.bincount(code, row, G) for row in rows])
        return out.reshape(*np.shape(Y)[:-1], G)

    @property
    def kept(self) -> np.ndarray:
        """(G,) groups of which the fit used a row."""
        return np.bincount(self.code[self.used], minlength=len(self.levels)) > 0

    def constant(self, values: np.ndarray) -> np.ndarray | None:
        """(G,) of a variable that is the same in all rows of a group; else None."""
        values = np.asarray(values)
        known = np.flatnonzero(self.code >= 0)
        first = np.zeros(len(self.levels), int)
        first[self.code[known[::-1]]] = known[::-1]
        own = values[first]
        same = own[self.code[known]] == values[known]
        return own if np.all(same) else None
