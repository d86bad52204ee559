"""A formula against the names of a table: its terms, and the columns they use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.expressions import variables_of
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.parse import Parsed, RandomPart, expand_dot, parse
from jaxglmm.formula.response import BINOMIAL, read_left
from jaxglmm.formula.tables import Table
from jaxglmm.formula.terms import (
    Atom,
    apart,
    apart_atom,
    read_atom,
    read_terms,
    resolve,
    resolve_atom,
)
from jaxglmm.formula.text import find_name


@dataclass(frozen=True)
class ReadFormula:
    """A formula against the names of a table.

    fixed: the text of its fixed part, whose terms are ``terms``; left: the response;
    parts: the random ones; offsets: those in the formula; known: names of columns.
    """

    parsed: Parsed
    left: Any
    fixed: str
    terms: Any
    parts: tuple[RandomPart, ...]
    offsets: tuple[Atom, ...]
    known: frozenset[str]

    @cached_property
    def atoms(self) -> tuple[Atom, ...]:
        """Of fixed and random terms."""
        return tuple(_atoms(self.terms, self.parts))

    @cached_property
    def every(self) -> tuple[Atom, ...]:
        """Those of the response and of offsets too."""
        return (*self.left.atoms, *self.atoms, *self.offsets)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that they all use, in order of appearance."""
        return tuple(of_atoms(self.every, self.known))

    @cached_property
    def evaluated(self) -> tuple[str, ...]:
        """Columns of the response, of offsets and of expressions."""
        inside = [a for a in (*self.atoms, *self.offsets) if not a.bare]
        return tuple(of_atoms([*self.left.atoms, *self.offsets, *inside], self.known))


def read_formula(
    formula: str, table: Table, family_kind: str, given: tuple, trials: Any = None
) -> ReadFormula:
    """given: weights, offset, trials, and whatever else may be a column's name."""
    words = tuple(v for v in given if isinstance(v, str))
    return _read(formula, tuple(table.names), family_kind, words, trials is not None)


@lru_cache(maxsize=128)
def _read(
    formula: str, names: tuple[str, ...], family_kind: str, words: tuple, trials: bool
) -> ReadFormula:
    """Kept by text and names: a formula that is fitted again is not read again."""
    parsed = parse(formula)
    known = frozenset(names)
    left = read_left(parsed.response, family_kind)
    left = replace(left, atoms=tuple(resolve_atom(a, known) for a in left.atoms))
    if trials:
        refuse_trials(family_kind)
    fixed = _fixed_text(parsed, names, left.atoms, words)
    terms = resolve(read_terms(fixed), known)
    parts = parsed.resolve_random(known)
    offsets = [resolve_atom(read_atom(text), known) for text in parsed.offsets]
    named = frozenset(of_atoms([*_atoms(terms, parts), *offsets], known))
    return ReadFormula(
        parsed,
        left,
        fixed,
        apart(terms, named),
        tuple(_apart(part, named) for part in parts),
        tuple(apart_atom(a, named) for a in offsets),
        known,
    )


def variables_in(formula: str, names: Iterable[str], given: tuple) -> set[str]:
    """The columns that a model uses, found before any is read.

    Args:
        formula: of the model.
        names: of the columns there are.
        given: weights, offset, trials: names among them.
    """
    names = tuple(names)
    table = Table(names, 0, frozenset(names).__contains__)
    read = read_formula(formula, table, BINOMIAL, given)
    groups = {name for part in read.parts for name in part.grouping.parts}
    return {*of_atoms(read.every, read.known), *groups} & read.known


def columns_used(read: ReadFormula, context: Mapping) -> list[str]:
    """Columns of the table that the model uses, in order of appearance."""
    text, known = read.parsed.text, read.known
    for atom in read.every:
        if atom.bare and atom.expr not in known:
            raise FormulaError(_unknown(atom.expr, text, known, context))
    used: dict[str, None] = dict.fromkeys(read.columns)
    for part in read.parts:
        for name in part.grouping.parts:
            if name not in known:
                raise FormulaError(_unknown(name, text, known, context))
            used[name] = None
    return list(used)


def of_atoms(atoms: Iterable[Atom], known: frozenset[str]) -> list[str]:
    """Columns that atoms use, in order of appearance."""
    used: dict[str, None] = {}
    for atom in atoms:
        used |= dict.fromkeys(sorted(variables_of(atom.expr, atom.bare, known)))
    return list(used)


def refuse_trials(family_kind: str) -> None:
    """``trials=`` for a family that has none."""
    if family_kind != BINOMIAL:
        raise DataError(
            "trials= is for family='binomial' and 'betabinomial': other families have "
            "no number of trials"
        )


def _fixed_text(
    parsed: Parsed, names: tuple[str, ...], left: tuple[Atom, ...], words: tuple
) -> str:
    """The fixed part with ``.`` written out: the columns that have no other part."""
    if not parsed.has_dot:
        return parsed.fixed
    known = frozenset(names)
    parts = parsed.resolve_random(known)
    taken = {p for part in parts for p in part.grouping.parts}
    offsets = [resolve_atom(read_atom(text), known) for text in parsed.offsets]
    for atom in (*left, *offsets):
        taken |= variables_of(atom.expr, atom.bare, known)
    taken |= {find_name(v, known) or v for v in words}
    return expand_dot(parsed.fixed, [c for c in names if c not in taken])


def _atoms(terms, parts) -> list[Atom]:
    """Those of the fixed terms, then those of the random ones."""
    fixed = [a for term in terms for a in term.atoms]
    return fixed + [a for part in parts for t in part.terms for a in t.atoms]


def _apart(part: RandomPart, named: frozenset[str]) -> RandomPart:
    terms = apart(part.terms, named)
    return part if terms == part.terms else replace(part, terms=terms)


def pair(atom: Atom) -> tuple[str, bool]:
    """What ``variables_of`` asks of an atom."""
    return atom.expr, atom.bare


def _unknown(name: str, text: str, known: frozenset[str], context: Mapping) -> str:
    message = f"no column {name!r} in the data (formula {text!r})"
    if name in context and np.ndim(context[name]) > 0:
        return message + "; a variable of that name exists: put it into the data"
    return message + nearest(name, sorted(known))
