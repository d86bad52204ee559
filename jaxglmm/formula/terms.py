"""The algebra of terms: ``a*b``, ``a/b``, ``(a + b)**2 - a:b`` to products of factors.

Operators bind as in R: ``**`` before ``:`` before ``*``, ``/`` and ``%in%`` before
``+`` and ``-``. ``1`` is the empty product, ``0`` takes it away, and a formula begins
with it. What stands between the operators, a column or an expression such as
``poly(x, 2)``, is not looked into here.

Wilkinson and Rogers (1973), Symbolic description of factorial models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from keyword import iskeyword
from math import comb, prod

from jaxglmm._errors import FormulaError
from jaxglmm.formula.expressions import read_expression
from jaxglmm.formula.text import (
    QUOTED,
    find_name,
    quoted,
    shown,
    split,
    unquoted,
    unwrap,
    word_end,
)

MOST_TERMS = 20_000
_PLAIN = re.compile(r"\s*\w+(?:\s*[+*:]\s*\w+)*\s*\Z", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+")
_LOGIC = "=<>!&|~,%@;?$#\\"


@dataclass(frozen=True)
class Atom:
    """One factor of a term, ``x`` or ``log(x)``; ``bare`` if it names a column."""

    expr: str
    bare: bool


@dataclass(frozen=True)
class Term:
    """A product of atoms; the intercept is the empty product."""

    atoms: tuple[Atom, ...]

    @property
    def name(self) -> str:
        return ":".join(a.expr for a in self.atoms) or "(Intercept)"


# Terms in order, each under the set of its atoms.
Sum = dict[frozenset[Atom], tuple[Atom, ...]]
_ONE: Sum = {frozenset(): ()}


@lru_cache(maxsize=1024)
def read_terms(text: str) -> tuple[Term, ...]:
    """The terms of ``1 + a*x``, low orders first.

    Raises:
        FormulaError: for what cannot be read, with the way to write it.
    """
    plain = _plain_terms(text)
    if plain is None:
        plain = _Reader(text).all_terms()
    return tuple(Term(atoms) for atoms in sorted(plain, key=len))


def _plain_terms(text: str) -> list[tuple[Atom, ...]] | None:
    """The same where names, ``+``, ``*``, ``:`` and the intercept are all there is.

    None for everything else. Most formulas are as plain as that.
    """
    if not _PLAIN.match(text):
        return None
    summands = [piece.split("*") for piece in "".join(text.split()).split("+")]
    found = {} if ["0"] in summands else dict(_ONE)
    if ["0"] in summands and ["1"] in summands:
        return None
    for crossed in summands:
        if crossed in (["0"], ["1"]):
            continue
        if len(crossed) > 6:  # to be counted before it is multiplied out
            return None
        total: Sum = {}
        for n, interaction in enumerate(crossed):
            names = interaction.split(":")
            if not all(name.isidentifier() and not iskeyword(name) for name in names):
                return None
            atoms = tuple(dict.fromkeys(Atom(name, True) for name in names))
            one: Sum = {frozenset(atoms): atoms}
            total = _crossed(total, one, text) if n else one
        for key, atoms in total.items():
            found.setdefault(key, atoms)
    return list(found.values())


def read_atom(text: str) -> Atom:
    """One factor by itself: a column's name, or an expression."""
    text = text.strip()
    whole = QUOTED.fullmatch(text)
    if whole and text[0] == "`":
        return Atom(unquoted(text), True)
    if text and not text[0].isdigit() and word_end(text, 0) == len(text):
        return Atom(text, True)
    return Atom(read_expression(text).text, False)


def resolve_atom(atom: Atom, columns: Container[str]) -> Atom:
    """The column that a bare atom means; ``day.year``, an attribute, is none."""
    if not atom.bare or atom.expr in columns:
        return atom
    found = find_name(atom.expr, columns)  # type: ignore[arg-type]
    if found is not None:
        return Atom(found, True)
    head = atom.expr.partition(".")[0]
    if head != atom.expr and find_name(head, columns) is not None:  # type: ignore
        return Atom(atom.expr, False)
    return atom


def resolve(terms: Iterable[Term], columns: Container[str]) -> tuple[Term, ...]:
    """Terms with the columns that their names mean, see ``resolve_atom``."""
    return tuple(
        _with_atoms(t, [resolve_atom(a, columns) for a in t.atoms]) for t in terms
    )


def _with_atoms(term: Term, atoms: list[Atom]) -> Term:
    """The term itself where its atoms are the same, which they mostly are."""
    same = all(a is b for a, b in zip(atoms, term.atoms, strict=True))
    return term if same else Term(tuple(atoms))


def apart(terms: Iterable[Term], used: Container[str]) -> tuple[Term, ...]:
    """An expression whose text is also the name of a column in use, in parentheses.

    ``log(x) + `log(x)` `` are two things, and need two names.
    """
    return tuple(_with_atoms(t, [apart_atom(a, used) for a in t.atoms]) for t in terms)


def apart_atom(atom: Atom, used: Container[str]) -> Atom:
    """See ``apart``."""
    if atom.bare or atom.expr not in used:
        return atom
    return replace(atom, expr=f"({atom.expr})")


class _Reader:
    """A cursor in the text of a sum of terms."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    def all_terms(self) -> list[tuple[Atom, ...]]:
        self._refuse_logic()
        found = self._sum(dict(_ONE))
        if self.at < len(self.text):
            self._stop()
        return list(found.values())

    # What there is ------------------------------------------------------------------

    def _peek(self) -> str:
        """The next sign, or the first character of something else."""
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        rest = self.text[self.at : self.at + 4]
        return next((s for s in ("**", "%in%") if rest.startswith(s)), rest[:1])

    def _take(self, sign: str) -> None:
        self.at += len(sign)

    def _fail(self, why: str) -> None:
        raise FormulaError(f"cannot read {shown(self.text)}: {why}")

    def _stop(self) -> None:
        rest = self.text[self.at :]
        if rest[:1] in tuple("=<>!&|"):
            self._fail(
                "comparisons and logic are no terms; put them into I(), as in "
                "I(f == 'a')"
            )
        self._fail(f"an operator such as '+' or ':' is missing before {shown(rest)}")

    # Operators, the weakest first -----------------------------------------------------

    def _sum(self, total: Sum) -> Sum:
        first = True
        while True:
            sign, minus = self._peek(), False
            signed = sign in ("+", "-") and bool(sign)
            while sign in ("+", "-") and sign:
                minus ^= sign == "-"
                self._take(sign)
                sign = self._peek()
            if sign in ("", ")"):
                if first or signed:
                    self._fail("something is missing, as after the last sign")
                return total
            if not first and not signed:
                return total  # the caller says what is wrong
            first, zero = False, self._zero()
            summand = _ONE if zero else self._crossing()
            if minus ^ zero:
                total = {k: v for k, v in total.items() if k not in summand}
            else:
                total = total | {k: v for k, v in summand.items() if k not in total}
            self._limit(len(total))

    def _zero(self) -> bool:
        """Whether the next summand is 0."""
        self._peek()
        found = re.match(r"0 *(?=[+\-)]|\Z)", self.text[self.at :])
        self.at += len(found.group()) if found else 0
        return found is not None

    def _crossing(self) -> Sum:
        total = self._chain(self._interaction, "*")
        while (sign := self._peek()) in ("/", "%in%"):
            self._take(sign)
            other = self._interaction()
            outer, inner = (total, other) if sign == "/" else (other, total)
            common = tuple(dict.fromkeys(a for atoms in outer.values() for a in atoms))
            total = outer | {
                k: v
                for k, v in _products([common], inner.values()).items()
                if k not in outer
            }
            while self._peek() == "*":
                self._take("*")
                total = _crossed(total, self._interaction(), self.text)
        return total

    def _interaction(self) -> Sum:
        total = self._power()
        while self._peek() == ":":
            self._take(":")
            other = self._power()
            self._limit(len(total) * len(other))
            total = _products(total.values(), other.values())
        return total

    def _chain(self, operand: Callable[[], Sum], sign: str) -> Sum:
        """``a*b*c``, counted before any of it is made."""
        operands = [operand()]
        while self._peek() == sign:
            self._take(sign)
            operands.append(operand())
        self._limit(prod(len(one) + 1 for one in operands) - 1)
        total = operands[0]
        for one in operands[1:]:
            total = _crossed(total, one, self.text)
        return total

    def _power(self) -> Sum:
        base = self._operand()
        if self._peek() != "**":
            return base
        self._take("**")
        self._peek()
        found = re.match(r"[1-9]\d{0,5}(?![\w.])", self.text[self.at :])
        if not found:
            self._fail("what stands after '**' must be a whole number of at least 1")
        assert found is not None
        self.at += len(found.group())
        if self._peek() == "**":
            self._fail("one power at a time")
        k, single = int(found.group()), all(len(v) == 1 for v in base.values())
        if single:
            n = len(base)
            self._limit(sum(comb(n, i) for i in range(1, min(k, n) + 1)))
        total = base
        for _ in range(k - 1):
            more = _products(total.values(), base.values())
            self._limit(len(more))
            if more.keys() == total.keys():
                break
            total = more
        return total

    def _limit(self, count: int) -> None:
        if count > MOST_TERMS:
            raise FormulaError(
                f"{shown(self.text)} stands for {count:,} terms; at most "
                f"{MOST_TERMS:,} are made. Lower the power, or cross fewer variables"
            )

    # Operands -------------------------------------------------------------------------

    def _operand(self) -> Sum:
        sign, start = self._peek(), self.at
        if sign == "(":
            self._take("(")
            found = self._sum({})
            if self._peek() != ")":
                self._stop()
            self._take(")")
            return found
        if sign == "`":
            name = QUOTED.match(self.text, start)
            assert name is not None  # the text was checked
            self.at = name.end()
            if self._peek() in ("(", "["):
                self._fail(f"{name.group()} is a column, not a function")
            return _single(Atom(unquoted(name.group()), True))
        if sign in ("'", '"') and sign:
            self._fail("text in quotes is no predictor; a column stands in backticks")
        if sign == "{":
            self.at = self._closing(start)
            inner = self.text[start + 1 : self.at - 1]
            return _single(Atom(read_expression(inner).text, False))
        number = _NUMBER.match(self.text, start)
        if number:
            return self._number(number.group(), number.end())
        end = word_end(self.text, start)
        if end == start:
            what = f"{sign!r} stands where a predictor should" if sign else "it ends"
            self._fail(what)
        self.at = end
        return _single(self._named(start))

    def _number(self, number: str, end: int) -> Sum:
        if word_end(self.text, end) > end:
            word = self.text[self.at : word_end(self.text, end)]
            self._fail(f"a name that begins with a digit needs backticks: `{word}`")
        self.at = end
        if number == "1":
            return dict(_ONE)
        self._fail(f"{number} cannot scale a term; write I({number} * ...)")
        return {}

    def _named(self, start: int) -> Atom:
        """A column, or with brackets behind it an expression."""
        end, is_call = self.at, False
        while (sign := self._peek()) and (
            sign in "([" or (is_call and sign == "." and self._attribute())
        ):
            if sign in "([":
                self.at = self._closing(self.at)
            end, is_call = self.at, True
        self.at = end
        text = self.text[start:end]
        if not is_call:
            return Atom(text, True)
        head = text.partition("(")[0].rstrip()
        if "." in head and any(iskeyword(part) for part in head.split(".")):
            self._fail("R functions with a dot in their name do not exist here")
        return Atom(read_expression(text).text, False)

    def _attribute(self) -> bool:
        """Step over ``.name``."""
        end = word_end(self.text, self.at + 1, dots=False)
        if end == self.at + 1:
            return False
        self.at = end
        return True

    def _closing(self, start: int) -> int:
        """Where the bracket that opens at ``start`` has closed."""
        depth, i = 0, start
        while i < len(self.text):
            char = self.text[i]
            if char in "`'\"":
                found = QUOTED.match(self.text, i)
                i = found.end() if found else i + 1
                continue
            depth += (char in "([{") - (char in ")]}")
            i += 1
            if depth == 0:
                return i
        return i

    def _refuse_logic(self) -> None:
        """Comparisons and the like belong into I()."""
        inner = [unwrap(piece.strip()) for _, piece in split(self.text, "+-")]
        whole = [piece.strip() for _, piece in split(self.text, "+")]
        for piece in [*filter(None, inner), *whole]:
            marks = [m for m, _ in split(piece.replace("%in%", ""), _LOGIC) if m]
            if marks and marks[0] in "=<>!&|":
                self._fail(
                    f"comparisons and logic are no terms; write I({piece}), which is "
                    "a factor of True and False"
                )
            if marks:
                self._fail(f"{marks[0]!r} has no meaning between terms")


def _single(atom: Atom) -> Sum:
    return {frozenset((atom,)): (atom,)}


def _products(left: Iterable[tuple], right: Iterable[tuple]) -> Sum:
    """Every term of one times every term of the other."""
    right = list(right)
    found: Sum = {}
    for one in left:
        for two in right:
            both = tuple(dict.fromkeys((*one, *two)))
            found.setdefault(frozenset(both), both)
    return found


def _crossed(left: Sum, right: Sum, text: str) -> Sum:
    """``a*b``: both and their products."""
    count = (len(left) + 1) * (len(right) + 1) - 1
    if count > MOST_TERMS:
        raise FormulaError(
            f"{shown(text)} stands for {count:,} terms; at most {MOST_TERMS:,} are "
            "made. Cross fewer variables"
        )
    found = dict(left)
    for part in (right, _products(left.values(), right.values())):
        for key, atoms in part.items():
            found.setdefault(key, atoms)
    return found


def quoted_again(names: Iterable[str], literal: Iterable[bool]) -> tuple[str, ...]:
    """Names told apart: of several that are equal, a column's own is in backticks.

    Args:
        names: of coefficients, such as ``a:b``.
        literal: whether each is a column's name as it stands.
    """
    found = list(names)
    counts: dict[str, int] = {}
    for name in found:
        counts[name] = counts.get(name, 0) + 1
    if max(counts.values(), default=0) < 2:
        return tuple(found)
    taken = set(found)
    for i, is_literal in enumerate(literal):
        if counts[found[i]] > 1 and is_literal:
            new = quoted(found[i])
            counts[found[i]] -= 1
            while new in taken:
                new += "'"
            taken.add(new)
            found[i] = new
    for i, name in enumerate(found):
        copy = 2
        while name in found[:i]:
            name, copy = f"{found[i]} ({copy})", copy + 1
        found[i] = name
    return tuple(found)
