"""The recipe of a design made of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm._brief import brief
from jaxglmm._errors import DataError, FormulaError
from jaxglmm._pandas import pd
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.design import NewRows, RandomTerm
from jaxglmm.formula.groups import GroupCoding
from jaxglmm.formula.matrix import as_matrix
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.recipe import (
    VERSION,
    numbers,
    pack_group,
    read_columns,
    unpack_group,
)
from jaxglmm.formula.tables import Columns, Table, as_table, read_column

INTERCEPT = "(Intercept)"


@brief
@dataclass(frozen=True)
class ArrayRecipe:
    """New rows come in one of two forms.

    - A dict with the arguments of the fit, ``{"X": ..., "groups": {...},
      "random_data": {...}, "offset": ...}``; X has the columns of the fit, in their
      order (a frame: by name). ``random_data`` is needed for slopes that are no columns
      of X, ``groups`` for predictions that use random effects.
    - A table with one column for each name in ``x_names`` (``(Intercept)`` may be left
      out), each slope and each grouping factor.

    parts: (label, names, covariance) of each random term.
    """

    x_names: tuple[str, ...]
    kept: tuple[int, ...]
    parts: tuple[tuple[str, tuple[str, ...], str], ...]
    groups: dict[str, GroupCoding]
    has_offset: bool = False
    training: Columns | None = field(default=None, repr=False)

    def new_rows(
        self, data, *, new_levels: str = "zero", random: bool = True, offset=None
    ) -> NewRows:
        """See ``FormulaRecipe.new_rows``; the class says what ``data`` may be."""
        if new_levels not in ("zero", "error"):
            raise DataError(f"new_levels must be 'zero' or 'error', not {new_levels!r}")
        if isinstance(data, Mapping) and "X" in data and "X" not in self.x_names:
            table, X, given = self._from_arguments(data)
        else:
            table = as_table(data)
            X, given = self._matrix(table), None
        n = len(X)
        given = given if offset is None else offset
        if given is None and self.has_offset:
            raise DataError("the model has an offset; pass offset= for the new rows")
        total = np.zeros(n)
        if given is not None:
            total += numbers("offset", given, n, table.labels)
        terms = tuple(self._term(part, table, X, new_levels) for part in self.parts)
        kept = X[:, list(self.kept)]
        full = None if kept.shape == X.shape else X
        return NewRows(kept, total, terms if random else (), table.index, full)

    def sum_coded(self) -> np.ndarray:
        """X (n, p_all) of the fit: an array has no factors to code anew."""
        if self.training is None:
            raise FormulaError(
                "this recipe was read without the data of the fit; pass "
                "variables=design.variables to from_dict"
            )
        return np.column_stack([self.training[name] for name in self.x_names])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; see ``FormulaRecipe.to_dict``."""
        return {
            "kind": "arrays",
            "version": VERSION,
            "x_names": list(self.x_names),
            "kept": list(self.kept),
            "parts": [[label, list(names), cov] for label, names, cov in self.parts],
            "groups": {name: pack_group(g) for name, g in self.groups.items()},
            "has_offset": self.has_offset,
        }

    @classmethod
    def from_dict(
        cls,
        saved: Mapping[str, Any],
        *,
        context: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        trusted: bool = False,
    ) -> ArrayRecipe:
        """The recipe that ``to_dict`` wrote; it has no formula to evaluate."""
        del context, trusted
        return cls(
            x_names=tuple(saved["x_names"]),
            kept=tuple(saved["kept"]),
            parts=tuple((lab, tuple(names), cov) for lab, names, cov in saved["parts"]),
            groups={name: unpack_group(g) for name, g in saved["groups"].items()},
            has_offset=saved["has_offset"],
            training=read_columns(variables),
        )

    def using(self, functions: Mapping[str, Any], trusted: bool) -> ArrayRecipe:
        """The same recipe: it has no formula that could call anything."""
        del functions, trusted
        return self

    def _from_arguments(self, data: Mapping) -> tuple[Table, np.ndarray, Any]:
        """The dict form as a table of groups and slopes, with X and the offset."""
        strange = [k for k in data if k not in ("X", "groups", "random_data", "offset")]
        if strange:
            raise DataError(
                f"new data: unknown entry {strange[0]!r}; a dict with 'X' may hold "
                "'groups', 'random_data' and 'offset'"
            )
        raw = data["X"]
        X, labels = self._given_matrix(raw), row_labels(raw)
        groups, slopes = data.get("groups"), data.get("random_data")
        if groups is not None and not _named(groups):
            groups = {next(iter(self.groups)): groups}
        columns: dict[str, Any] = {}
        for part in (groups, slopes):
            if part is None:
                continue
            if not isinstance(part, Mapping):
                each = as_table(part)
                part = {name: each.fetch(name) for name in each.names}
            for name, values in part.items():
                what = f"new data: {str(name)!r}"
                columns[str(name)] = by_labels(what, values, labels)
        table = Table(tuple(columns), len(X), columns.__getitem__, labels=labels)
        for name in table.names:
            rows = len(read_column(name, columns[name]))
            if rows != len(X):
                raise DataError(f"new data: {name!r} has {rows} rows, X has {len(X)}")
        return table, X, data.get("offset")

    def _given_matrix(self, raw: Any) -> np.ndarray:
        """X by the names of its columns, by position where they have none."""
        if isinstance(raw, pd.DataFrame) and not any(
            isinstance(name, str) for name in raw.columns
        ):
            columns = as_table(raw)
            raw = [columns.column(name).values for name in columns.names]
            raw = np.stack([np.asarray(c, np.float64) for c in raw], axis=1)
        if _named(raw):
            return self._matrix(as_table(raw))
        X = as_matrix("new data: X", raw)
        if X.shape[1] != len(self.x_names):
            raise DataError(
                f"new data: X has shape {X.shape}, expected {len(self.x_names)} "
                f"columns ({', '.join(self.x_names)})"
            )
        return X

    def _matrix(self, table: Table) -> np.ndarray:
        X = np.empty((table.n, len(self.x_names)))
        for j, name in enumerate(self.x_names):
            if name == INTERCEPT and name not in table.names:
                X[:, j] = 1.0
                continue
            if name not in table.names:
                raise DataError(
                    f"new data lack the column {name!r}{nearest(name, table.names)}"
                )
            X[:, j] = numbers(name, table.column(name), table.n)
        return X

    def _term(self, part, table: Table, X: np.ndarray, new_levels: str) -> RandomTerm:
        label, names, covariance = part
        coding = self.groups[label]
        n = len(X)
        if label not in table.names:
            codes = np.full(n, -1, np.int32)
            if new_levels == "error":
                raise DataError(f"new data lack the grouping factor {label!r}")
        else:
            codes = coding.codes({label: table.column(label)}, new_levels)
        Z = np.empty((n, len(names)))
        for k, name in enumerate(names):
            if name in table.names:
                Z[:, k] = numbers(name, table.column(name), n)
            elif name in self.x_names:
                Z[:, k] = X[:, self.x_names.index(name)]
            elif name == INTERCEPT:
                Z[:, k] = 1.0
            elif (codes < 0).all():
                Z[:, k] = 0.0
            else:
                raise DataError(
                    f"new data lack the slope {name!r}; put it into random_data"
                )
        return RandomTerm(label, label, names, codes, Z, coding.levels, covariance)


def _named(raw: Any) -> bool:
    """Whether columns have names: a frame, a dict, an array of records."""
    records = isinstance(raw, np.ndarray) and bool(raw.dtype.names)
    return records or isinstance(raw, Mapping) or hasattr(raw, "columns")
