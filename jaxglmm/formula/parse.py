"""A formula as parts: response, fixed terms, random terms, offsets.

The language is lme4's, ``y ~ x + offset(o) + (1 + x | g) + (z || h)``. This module cuts
the text at its top-level signs and bars and expands the grouping side; what stands
between (``a*b``, ``poly(x, 2)``, ``0 + x``) is read by formulaic's parser. No data are
seen here, so that the result is remembered by the text alone.

The grouping side: ``a/b`` means ``b:a`` and ``a`` (the fine one first, named as lme4
names it), ``a:b`` the combinations that occur, ``a + b`` one term for each. With two
bars, ``(x || g)``, there is one term a column, as in lme4; the columns of one factor
stay together in one block. ``diag(x | g)`` keeps one term with independent columns.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from jaxglmm._errors import FormulaError
from jaxglmm.formula import structures
from jaxglmm.formula.terms import Atom, Term, read_atom, read_terms, resolve
from jaxglmm.formula.text import (
    call,
    find_name,
    pieces,
    quote,
    quoted,
    scan,
    shown,
    split,
    translate,
    unwrap,
)

_DOT = re.compile(r"(?<![\w.)\]`])\.(?![\w.])")
_AS_FACTOR = ("factor", "C")


@dataclass(frozen=True)
class Grouping:
    """A grouping factor: its name and the columns it combines, the slowest first."""

    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class RandomPart:
    """One random term before the data: label, columns, grouping, covariance."""

    label: str
    terms: tuple[Term, ...]
    grouping: Grouping
    covariance: str
    double: bool = False  # written with two bars


@dataclass(frozen=True)
class Parsed:
    """The parts of a formula; ``fixed`` is text, for ``read_terms``."""

    text: str
    response: str
    fixed: str
    offsets: tuple[str, ...]
    random: tuple[RandomPart, ...]

    def resolve_random(self, columns: Container[str]) -> tuple[RandomPart, ...]:
        """The random terms with the columns that their names mean."""
        return tuple(_resolve_part(part, columns) for part in self.random)

    @property
    def has_dot(self) -> bool:
        return any(_DOT.search(p) for p, inside in pieces(self.fixed) if not inside)


def _resolve_part(part: RandomPart, columns: Container[str]) -> RandomPart:
    terms = resolve(part.terms, columns)
    grouping = _resolve_grouping(part.grouping, columns)
    if terms == part.terms and grouping is part.grouping:
        return part
    return replace(part, terms=terms, grouping=grouping)


def _resolve_grouping(grouping: Grouping, columns: Container[str]) -> Grouping:
    found = tuple(find_name(p, columns) or p for p in grouping.parts)  # type: ignore
    return grouping if found == grouping.parts else replace(grouping, parts=found)


@lru_cache(maxsize=512)
def parse(text: str) -> Parsed:
    """Read a formula.

    Args:
        text: such as ``"y ~ x + (1 + x | g)"``.

    Raises:
        FormulaError: with the piece that cannot be read and how it is written.
    """
    if not isinstance(text, str):
        raise FormulaError(f"the formula must be text, not {type(text).__name__}")
    plain = translate(text)
    sides = [side for _, side in split(plain, "~")]
    if len(sides) != 2 or not sides[0].strip():
        raise FormulaError(
            f"{shown(text)} is not a formula: it needs a response, one '~' and "
            "predictors, as in 'y ~ x + (1 | group)'"
        )
    response, right = sides[0].strip(), sides[1].strip()
    if not right:
        raise FormulaError(
            f"{shown(text)} has nothing after '~'; for a mean alone write '~ 1'"
        )
    if any(mark == "|" for mark, _ in split(right, "|")):
        raise FormulaError(
            f"random effects need parentheses: in {shown(right)} the bar binds weaker "
            "than '+', so everything left of it would vary by group. Write "
            "'y ~ x + (1 | g)'"
        )
    fixed: list[str] = []
    offsets: list[str] = []
    bars: list[tuple[str, str]] = []
    _sort_pieces(right, fixed, offsets, bars)
    return Parsed(
        text=text,
        response=response,
        fixed=" ".join(fixed).removeprefix("+ ") or "1",
        offsets=tuple(offsets),
        random=_label([part for bar in bars for part in _read_bar(*bar)]),
    )


def expand_dot(fixed: str, names: list[str]) -> str:
    """``.`` replaced by the sum of the remaining columns."""
    if not names:
        raise FormulaError("'.' stands for the other columns, but there are none")
    total = " + ".join(quote(name) for name in names)
    return "".join(
        piece if inside else _DOT.sub(lambda _: f"({total})", piece)
        for piece, inside in pieces(fixed)
    )


def _sort_pieces(text, fixed, offsets, bars) -> None:
    """Deal the top-level summands out to fixed terms, offsets and random terms."""
    if text.rstrip()[-1] in "+-":
        raise FormulaError(f"nothing after {text.rstrip()[-1]!r} in {shown(text)}")
    for sign, raw in split(text, "+-"):
        piece = raw.strip()
        if not piece:  # before a leading sign, or between the two of "+ -1"
            continue
        inner = unwrap(piece)
        wrapper, argument = call(piece)
        if inner is not None and _has_bar(inner):
            bars.append(("", inner))
        elif wrapper in structures.WORDS and _has_bar(argument):
            bars.append((wrapper, argument))
        elif wrapper == "offset":
            offsets.append(argument.strip())
        elif inner is not None and _holds_random(inner):
            _sort_pieces(inner, fixed, offsets, bars)
        else:
            if _holds_random(piece):
                raise FormulaError(
                    f"a random term can only be added: write {shown(piece)} with "
                    "'+ (... | g)' on its own"
                )
            fixed.append(f"{sign or '+'} {piece}")
            continue
        if sign == "-":
            raise FormulaError(
                f"{shown(piece)} cannot be subtracted; leave it out instead"
            )


def _read_bar(wrapper: str, text: str) -> Iterator[RandomPart]:
    """The terms that one ``(columns | grouping)`` stands for."""
    text, kind = structures.options(wrapper, text)
    pieces = [piece for _, piece in split(text, "|")]
    double = len(pieces) == 3 and not pieces[1].strip() and "||" in text
    if double:
        del pieces[1]
    if len(pieces) != 2 or not all(piece.strip() for piece in pieces):
        raise FormulaError(
            f"({text}) is not a random term: write (columns | grouping factor), "
            "with one bar, or two for uncorrelated columns"
        )
    if double and wrapper:
        raise FormulaError(f"{wrapper}({text}): use one bar inside {wrapper}()")
    columns, grouping = pieces[0].strip(), pieces[1].strip()
    if _holds_random(columns):
        raise FormulaError(f"({text}): a random term inside another one")
    if kind:
        columns = structures.columns(kind, columns)
    terms = read_terms(columns)
    if not terms:
        raise FormulaError(f"({text}) has no columns; write (1 | {grouping})")
    blocks = [(term,) for term in terms] if double else [terms]
    # lme4 lists all groupings of (x | a/b) by block: the block runs slowest.
    for block in blocks:
        for group in _groupings(grouping):
            yield RandomPart("", block, group, kind or "us", double)


@lru_cache(maxsize=512)
def _groupings(text: str) -> tuple[Grouping, ...]:
    """``a/b`` to ``b:a`` and ``a``; ``a + b`` to both; ``a:b`` as it is."""
    inner = unwrap(text.strip())
    if inner is not None:
        return _groupings(inner)
    summands = [piece for _, piece in split(text, "+")]
    if len(summands) > 1:
        return tuple(g for piece in summands for g in _groupings(piece))
    if any(mark for mark, _ in split(text, "*-^")):
        raise FormulaError(
            f"grouping {shown(text)}: only names, ':', '/' and '+' are understood "
            "there. For a*b write three terms: (1 | a) + (1 | b) + (1 | a:b)"
        )
    found: list[Grouping] = []
    for _, piece in split(text, "/"):
        parts = tuple(_column(p) for _, p in split(unwrap(piece.strip()) or piece, ":"))
        name = ":".join(parts)
        if found:
            outer = found[0]
            label = f"({outer.name})" if len(outer.parts) > 1 else outer.name
            name, parts = f"{name}:{label}", parts + outer.parts
        found.insert(0, Grouping(name, parts))
    return tuple(found)


def _column(text: str) -> str:
    """The column that a grouping atom names; ``factor(g)`` is ``g``."""
    text = text.strip()
    head, argument = call(text)
    atom = _bare(argument) if head in _AS_FACTOR else _bare(text)
    if atom is None:
        raise FormulaError(
            f"grouping factor {text!r} must be the name of a column (`quoted` where it "
            "has blanks); compute it as a column first"
        )
    return atom.expr


def _bare(text: str) -> Atom | None:
    """A column's name and nothing else."""
    try:
        atom = read_atom(text)
    except FormulaError:
        return None
    return atom if atom.bare else None


def _told_apart(parts: list[RandomPart]) -> list[RandomPart]:
    """``(1 | a:b)`` and ``(1 | `a:b`)`` group by different things."""
    by_name: dict[str, set[tuple[str, ...]]] = {}
    for part in parts:
        by_name.setdefault(part.grouping.name, set()).add(part.grouping.parts)
    return [
        replace(part, grouping=replace(part.grouping, name=_written(part.grouping)))
        if len(by_name[part.grouping.name]) > 1
        else part
        for part in parts
    ]


def _written(grouping: Grouping) -> str:
    """The name of a grouping with what is odd in it in backticks."""
    return ":".join(p if p.isidentifier() else quoted(p) for p in grouping.parts)


def _label(parts: list[RandomPart]) -> tuple[RandomPart, ...]:
    """Unique labels: ``g``, then ``g.1``, ``g.2``."""
    parts = _told_apart(parts)
    if len(set(parts)) < len(parts):
        twice = next(part for part in parts if parts.count(part) > 1)
        columns = " + ".join(t.name for t in twice.terms).replace("(Intercept)", "1")
        raise FormulaError(
            f"the random term ({columns} | {twice.grouping.name}) appears twice"
        )
    names = {part.grouping.name for part in parts}
    taken: set[str] = set()
    labelled = []
    for part in parts:
        name = label = part.grouping.name
        count = 0
        while label in taken or (count and label in names):
            count += 1
            label = f"{name}.{count}"
        taken.add(label)
        labelled.append(replace(part, label=label))
    return tuple(labelled)


def _has_bar(text: str) -> bool:
    return any(mark == "|" for mark, _ in split(text, "|"))


def _holds_random(text: str) -> bool:
    """Whether some bracket that is not a function's holds a bar of its own."""
    opened: list[bool] = []
    before = ""
    for _, char, _ in scan(text):
        if char == "(":
            opened.append(not (before.isalnum() or before in ("_", ".")))
        elif char in "[{":
            opened.append(False)
        elif char in ")]}" and opened:
            opened.pop()
        elif char == "|" and opened and opened[-1]:
            return True
        if not char.isspace():
            before = char
    return False
