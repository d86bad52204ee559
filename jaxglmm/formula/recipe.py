"""How a design was made from a formula, remembered: the same columns from new data.

A recipe holds what training taught (levels, contrasts, the state of ``scale`` or
``poly``) and no data, apart from the columns of the fit that ``sum_coded`` needs; these
do not travel through JSON and can be handed back to ``from_dict``.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._brief import brief
from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula import jsonable
from jaxglmm.formula.coding import plan
from jaxglmm.formula.contrasts import Coding, sum_to_zero
from jaxglmm.formula.design import KnownLevels, NewRows, RandomTerm
from jaxglmm.formula.encode import Encoder, build
from jaxglmm.formula.expressions import context_used, variables_of
from jaxglmm.formula.given import beside
from jaxglmm.formula.groups import GroupCoding, from_numbers
from jaxglmm.formula.known import known_groups, known_rows
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.parse import RandomPart, parse
from jaxglmm.formula.structures import placed
from jaxglmm.formula.tables import Columns, Table, as_table, read_column
from jaxglmm.formula.terms import (
    Atom,
    Term,
    apart,
    apart_atom,
    read_atom,
    read_terms,
    resolve,
    resolve_atom,
)

VERSION = 1


@brief
@dataclass(frozen=True)
class FormulaRecipe:
    """The recipe of ``design_from_formula``.

    formula: as given. fixed: its fixed part, ``.`` written out.
    columns: names in the data that predictors and ``offset()`` use.
    kept: positions of the columns of X that were not dropped.
    offset_name: the column given as ``offset=``; offset_array: it was an array, and new
    data must bring one as well.
    """

    formula: str
    fixed: str
    columns: tuple[str, ...]
    encoder: Encoder
    groups: dict[str, GroupCoding]
    kept: tuple[int, ...]
    offsets: tuple[str, ...] = ()
    offset_name: str | None = None
    offset_array: bool = False
    training: Columns | None = field(default=None, repr=False)
    known: Mapping[str, KnownLevels] = field(default_factory=dict, repr=False)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """Terms of the fixed part."""
        return apart(resolve(read_terms(self.fixed), self.columns), self.columns)

    @cached_property
    def random(self) -> tuple[RandomPart, ...]:
        """Random terms."""
        known = {*self.columns, *(p for g in self.groups.values() for p in g.parts)}
        return tuple(
            replace(part, terms=apart(part.terms, self.columns))
            for part in parse(self.formula).resolve_random(known)
        )

    def new_rows(
        self,
        data,
        *,
        new_levels: str = "zero",
        random: bool = True,
        offset=None,
    ) -> NewRows:
        """The design of new rows.

        Args:
            data: a table with the predictors; the response is not needed.
            new_levels: ``"zero"`` gives levels of a grouping factor that the fit did
                not see (and missing labels) the code -1, ``"error"`` refuses them.
            random: False leaves the random terms and the columns they need out.
            offset: (m,) array or column name instead of the ``offset=`` of the fit.

        Raises:
            DataError: for a missing column, or a level of a fixed factor that was not
                in the data of the fit. A missing value makes its row of X NaN.
        """
        if new_levels not in ("zero", "error"):
            raise DataError(f"new_levels must be 'zero' or 'error', not {new_levels!r}")
        table = as_table(data)
        parts = self.random if random else ()
        names = self._names(parts)
        groups = [name for part in parts for name in part.grouping.parts]
        _require(names, table, groups)
        columns = {name: table.column(name) for name in names}
        n = table.n
        total = self._offset(columns, table, offset)
        atoms = [a for t in self.terms for a in t.atoms]
        atoms += [a for part in parts for t in part.terms for a in t.atoms]
        values = self.encoder.apply(atoms, columns, n)
        codings = self.encoder.codings
        full = build(self._plan(self.terms), codings, values, n)[1]
        X = full[:, list(self.kept)]
        terms = []
        for part in parts:
            coding = self.groups[part.grouping.name]
            codes, kind, at = coding.codes(columns, new_levels), part.covariance, None
            encoder = self.encoder
            found = placed(part, encoder.is_factor, values, encoder.state)
            if found is not None:
                columns_of, Z = found.names, found.values
                kind, at = found.covariance, found.at
            else:
                columns_of, Z, _ = build(self._plan(part.terms), codings, values, n)
            name, levels = part.grouping.name, coding.levels
            term = RandomTerm(
                part.label, name, columns_of, codes, Z, levels, kind, at=at
            )
            known = self.known.get(name)
            terms.append(term if known is None else known_rows(term, known))
        whole = None if X.shape == full.shape else full
        return NewRows(X, total, tuple(terms), table.index, whole)

    def sum_coded(self) -> np.ndarray:
        """X (n, p_all) of the fit with sum-to-zero contrasts for every factor.

        Terms and columns are those of X before dependent columns were dropped.
        """
        if self.training is None:
            raise FormulaError(
                "this recipe was read without the data of the fit; pass "
                "variables=design.variables to from_dict"
            )
        columns = self.training.columns
        n = len(next(iter(columns.values())))
        atoms = [a for t in self.terms for a in t.atoms]
        values = self.encoder.apply(atoms, columns, n)
        codings = {
            expr: sum_to_zero(c) if isinstance(c, Coding) else c
            for expr, c in self.encoder.codings.items()
        }
        return build(self._plan(self.terms), codings, values, n)[1]

    def both_codings(self) -> tuple[np.ndarray, np.ndarray]:
        """X with sum-to-zero contrasts and X, (n, p_all), of rows that are made up.

        Levels and numbers are drawn, some rows for each column: what takes one coding
        to the other is the same for any rows that span all columns.
        """
        rng = np.random.default_rng(0)
        codings = self.encoder.codings
        atoms = dict.fromkeys(a.expr for t in self.terms for a in t.atoms)
        factors = [c for c in map(codings.get, atoms) if isinstance(c, Coding)]
        n = 64 * (len(self.kept) + 1 + sum(len(c.levels) for c in factors))
        values: dict[str, Any] = {}
        for expr in atoms:
            c = codings[expr]
            if isinstance(c, Coding):
                values[expr] = rng.integers(0, len(c.levels), n).astype(np.int32)
            else:
                values[expr] = tuple(rng.normal(size=(len(c), n)))
        sums = {
            expr: sum_to_zero(c) if isinstance(c, Coding) else c
            for expr, c in codings.items()
        }
        plans = self._plan(self.terms)
        return build(plans, sums, values, n)[1], build(plans, codings, values, n)[1]

    def codes_made_of(self, name: str) -> list[np.ndarray]:
        """Codes (n,) of every factor among the predictors made of this variable alone.

        Of the data of the fit; none where they were not kept.
        """
        if self.training is None:
            return []
        known = frozenset(self.columns)
        atoms = [
            atom
            for atom in dict.fromkeys(a for t in self.terms for a in t.atoms)
            if self.encoder.is_factor(atom.expr)
            and variables_of(atom.expr, atom.bare, known) == {name}
        ]
        columns = self.training.columns
        n = len(next(iter(columns.values())))
        values = self.encoder.apply(atoms, columns, n)
        return [np.asarray(values[atom.expr]) for atom in atoms]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and texts, for JSON.

        The caller's functions cannot be written; their names are, and ``from_dict``
        takes them back through ``context``.
        """
        return {
            "kind": "formula",
            "version": VERSION,
            "formula": self.formula,
            "fixed": self.fixed,
            "columns": list(self.columns),
            "codings": {
                expr: (
                    {
                        "levels": jsonable.pack_labels(c.levels),
                        "reduced": jsonable.pack(c.reduced),
                        "names": list(c.reduced_names),
                    }
                    if isinstance(c, Coding)
                    else list(c)
                )
                for expr, c in self.encoder.codings.items()
            },
            "state": jsonable.pack(self.encoder.state),
            "context": _plain_context(self.encoder.context),
            "groups": {name: pack_group(g) for name, g in self.groups.items()},
            "kept": list(self.kept),
            "offsets": list(self.offsets),
            "offset_name": self.offset_name,
            "offset_array": self.offset_array,
            "known": {
                name: {
                    "labels": jsonable.pack_labels(k.labels),
                    "root": jsonable.pack(k.root),
                }
                for name, k in self.known.items()
            },
        }

    @classmethod
    def from_dict(
        cls,
        saved: Mapping[str, Any],
        *,
        context: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        trusted: bool = False,
    ) -> FormulaRecipe:
        """The recipe that ``to_dict`` wrote.

        Args:
            saved: the dictionary.
            context: functions that the formula uses.
            variables: columns of the fit (``design.variables``), for ``sum_coded``.
            trusted: whether its formula may use more than these and the known ones.
        """
        codings = {
            expr: (
                Coding(
                    jsonable.unpack(c["levels"]),
                    jsonable.unpack(c["reduced"]),
                    tuple(c["names"]),
                )
                if isinstance(c, Mapping)
                else tuple(c)
            )
            for expr, c in saved["codings"].items()
        }
        known = {**jsonable.unpack(saved["context"]), **(context or {})}
        return cls(
            formula=saved["formula"],
            fixed=saved["fixed"],
            columns=tuple(saved["columns"]),
            encoder=Encoder(codings, jsonable.unpack(saved["state"]), known, trusted),
            groups={name: unpack_group(g) for name, g in saved["groups"].items()},
            kept=tuple(saved["kept"]),
            offsets=tuple(saved["offsets"]),
            offset_name=saved["offset_name"],
            offset_array=saved["offset_array"],
            training=read_columns(variables),
            known={
                name: KnownLevels(
                    np.asarray(jsonable.unpack(k["labels"])),
                    np.asarray(jsonable.unpack(k["root"])),
                )
                for name, k in saved.get("known", {}).items()
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        """Functions that pickle refuses (lambdas, local ones) stay behind."""
        state = dict(self.__dict__)
        context = {k: v for k, v in self.encoder.context.items() if _pickles(v)}
        state["encoder"] = replace(self.encoder, context=context)
        return state

    def using(self, functions: Mapping[str, Any], trusted: bool) -> FormulaRecipe:
        """The same recipe, whose formula may call these functions.

        Args:
            functions: by name; with ``trusted`` those of them that the formula uses.
            trusted: whether it may use more than these and the known ones.
        """
        if trusted:
            atoms = [a for t in self.terms for a in t.atoms] + self._offset_atoms
            atoms += [a for part in self.random for t in part.terms for a in t.atoms]
            texts = [a.expr for a in atoms if not a.bare]
            functions = context_used(texts, self.columns, functions)
        context = {**self.encoder.context, **functions}
        encoder = replace(self.encoder, context=context, trusted=trusted)
        return replace(self, encoder=encoder)

    def knowing(self, known: Mapping[str, KnownLevels]) -> FormulaRecipe:
        """The same where covariances between levels of these factors are known."""
        groups = known_groups(self.groups, known)
        return replace(self, groups=groups, known=dict(known))

    def _plan(self, terms):
        return plan(terms, self.encoder.is_factor)

    def _names(self, parts: tuple[RandomPart, ...]) -> list[str]:
        """Columns that new data must have."""
        atoms = [a for t in self.terms for a in t.atoms]
        atoms += [a for part in parts for t in part.terms for a in t.atoms]
        atoms += self._offset_atoms
        known = frozenset(self.columns)
        used = {n for a in atoms for n in variables_of(a.expr, a.bare, known)}
        used |= {name for part in parts for name in part.grouping.parts}
        return sorted(used)

    @property
    def offset_variables(self) -> frozenset[str]:
        """Columns that the ``offset()`` terms use."""
        known = frozenset(self.columns)
        atoms = self._offset_atoms
        return frozenset(n for a in atoms for n in variables_of(a.expr, a.bare, known))

    @property
    def _offset_atoms(self) -> list[Atom]:
        found = [resolve_atom(read_atom(text), self.columns) for text in self.offsets]
        return [apart_atom(atom, self.columns) for atom in found]

    def _offset(self, columns, table: Table, given) -> np.ndarray:
        n = table.n
        if given is None and self.offset_array:
            raise DataError(
                "the offset of the fit was an array, so new data need one as well: "
                "pass offset=, or give the offset as a column when fitting"
            )
        if given is None:
            given = self.offset_name
        total = np.zeros(n)
        if isinstance(given, str):
            _require([given], table)
            given = table.column(given)
        if given is not None:
            total += numbers("offset", given, n, table.labels)
        values = self.encoder.apply(self._offset_atoms, columns, n)
        for atom in self._offset_atoms:
            total += values[atom.expr][0]
        return total


def read_columns(variables: Mapping[str, Any] | None) -> Columns | None:
    """Columns from plain arrays by name."""
    if variables is None or isinstance(variables, Columns):
        return variables
    return Columns({k: read_column(k, v) for k, v in variables.items()})


def pack_group(group: GroupCoding) -> dict[str, Any]:
    """A grouping factor for JSON."""
    return {
        "parts": list(group.parts),
        "part_levels": [jsonable.pack_labels(v) for v in group.part_levels],
        "combinations": jsonable.pack(group.combinations),
        "levels": jsonable.pack_labels(group.levels)
        if group.combinations is not None
        else None,
        "name": group.name,
    }


def unpack_group(saved: Mapping[str, Any]) -> GroupCoding:
    """The grouping factor that ``pack_group`` packed."""
    part_levels = tuple(jsonable.unpack(v) for v in saved["part_levels"])
    levels = saved["levels"]
    combinations = jsonable.unpack(saved["combinations"])
    if combinations is not None and combinations.ndim == 1:
        combinations = from_numbers(combinations, part_levels)
    return GroupCoding(
        saved["name"],
        tuple(saved["parts"]),
        part_levels,
        combinations,
        part_levels[0] if levels is None else jsonable.unpack(levels),
    )


def numbers(name: str, given, n: int, labels=None) -> np.ndarray:
    """A numeric column (n,) as float64, with the name of the argument in errors."""
    column = beside(name, given, n, labels)
    assert column is not None
    return np.asarray(column.values, np.float64)


def _require(names, table: Table, groups: Iterable[str] = ()) -> None:
    absent = [name for name in names if name not in table.names]
    if absent:
        others = [name for name in table.names if name not in names]
        text = (
            f"new data lack the column{'s' * (len(absent) > 1)} "
            f"{', '.join(map(repr, absent))}{nearest(absent[0], others)}"
        )
        if set(absent) <= set(groups):
            text += (
                ". Predictions that need no groups are those of the population: "
                "re='population'"
            )
        raise DataError(text)


def _plain_context(context: Mapping[str, Any]):
    plain = {}
    for name, value in context.items():
        try:
            plain[name] = jsonable.pack(value)
        except TypeError:
            continue
    return jsonable.pack({}) | plain


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
