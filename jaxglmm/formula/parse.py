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
from keyword import iskeyword

from jaxglmm._errors import FormulaError

WRAPPERS = {"us": "us", "diag": "diag"}
# Structures of glmmTMB and of newer lme4, so that the message can say what is missing.
FOREIGN = (
    "ar1",
    "hetar1",
    "cs",
    "homcs",
    "toep",
    "homtoep",
    "homdiag",
    "ou",
    "mat",
    "rr",
)
_DOT = re.compile(r"(?<![\w.)\]`])\.(?![\w.])")
_PLAIN = re.compile(r"\s*\w+(?:\s*[+*:]\s*\w+)*\s*\Z")
_NAME = re.compile(r"[^\W\d][\w.]*\Z|`[^`]+`\Z")
_AS_FACTOR = re.compile(r"(?:as\.factor|factor|C)\s*\(([^()]*)\)\Z")


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


@dataclass(frozen=True)
class Parsed:
    """The parts of a formula; ``fixed`` is text, for ``read_terms``."""

    text: str
    response: str
    fixed: str
    offsets: tuple[str, ...]
    random: tuple[RandomPart, ...]

    def resolve_random(self, columns: Container[str]) -> tuple[RandomPart, ...]:
        """The random terms with their atoms resolved, see ``resolve``."""
        return tuple(
            replace(part, terms=resolve(part.terms, columns)) for part in self.random
        )

    @property
    def has_dot(self) -> bool:
        return _DOT.search(self.fixed) is not None


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
    plain = _translate(re.sub(r"\s", " ", text).strip())
    _check_brackets(plain)
    sides = [side for _, side in split(plain, "~")]
    if len(sides) != 2 or not sides[0].strip():
        raise FormulaError(
            f"{text!r} is not a formula: it needs a response, one '~' and predictors, "
            "as in 'y ~ x + (1 | group)'"
        )
    response, right = sides[0].strip(), sides[1].strip()
    if not right:
        raise FormulaError(
            f"{text!r} has nothing after '~'; for a mean alone write '~ 1'"
        )
    if any(mark == "|" for mark, _ in split(right, "|")):
        raise FormulaError(
            f"random effects need parentheses: in {right!r} the bar binds weaker than "
            "'+', so everything left of it would vary by group. Write 'y ~ x + (1 | g)'"
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


@lru_cache(maxsize=1024)
def read_terms(text: str) -> tuple[Term, ...]:
    """The terms of ``1 + a*x``, low orders first, as formulaic's parser reads them."""
    plain = _plain_terms(text)
    if plain is not None:
        return tuple(Term(tuple(Atom(name, True) for name in t)) for t in plain)
    from formulaic import Formula

    try:
        terms = list(Formula(text))  # type: ignore[abstract]
    except Exception as error:
        hint = ""
        if re.search(r"\w\.\w+\s*\(", text):
            hint = "; R functions with a dot in their name do not exist here"
        raise FormulaError(
            f"cannot read {text!r}: {_first_line(error)}{hint}"
        ) from error
    for term in terms:
        for f in term.factors:
            if f.eval_method.value == "literal" and str(f.expr) != "1":
                raise FormulaError(
                    f"{f.expr} in {text!r} cannot scale a term; write I({f.expr} * ...)"
                )
    return tuple(
        Term(
            tuple(
                Atom(f.expr, f.eval_method.value == "lookup")
                for f in term.factors
                if f.eval_method.value != "literal"
            )
        )
        for term in terms
    )


def _plain_terms(text: str) -> list[tuple[str, ...]] | None:
    """The same where names, ``+``, ``*``, ``:`` and the intercept are all there is.

    None for everything else. Most formulas are as plain as that, and importing
    formulaic takes longer than fitting a small model.
    """
    if not _PLAIN.match(text):
        return None
    pieces = [piece.split("*") for piece in "".join(text.split()).split("+")]
    found: dict[frozenset[str], tuple[str, ...]] = {}
    if ["0"] not in pieces:
        found[frozenset()] = ()
    for crossed in pieces:
        if crossed in (["0"], ["1"]):
            continue
        products: list[tuple[str, ...]] = []
        for interaction in crossed:
            names = tuple(dict.fromkeys(interaction.split(":")))
            if not all(name.isidentifier() and not iskeyword(name) for name in names):
                return None
            both = [tuple(dict.fromkeys((*left, *names))) for left in products]
            products += [names, *both]
        for product in products:
            found.setdefault(frozenset(product), product)
    if ["0"] in pieces and ["1"] in pieces:
        return None
    return sorted(found.values(), key=len)


def resolve(terms: tuple[Term, ...], columns: Container[str]) -> tuple[Term, ...]:
    """Tell ``Sepal.Length``, a column, from ``day.year``, an attribute of one."""
    return tuple(
        Term(
            tuple(
                Atom(a.expr, False)
                if a.bare
                and a.expr not in columns
                and "." in a.expr
                and a.expr.partition(".")[0] in columns
                else a
                for a in term.atoms
            )
        )
        for term in terms
    )


def expand_dot(fixed: str, names: list[str]) -> str:
    """``.`` replaced by the sum of the remaining columns."""
    if not names:
        raise FormulaError("'.' stands for the other columns, but there are none")
    total = " + ".join(quote(name) for name in names)
    return _DOT.sub(f"({total})", fixed)


def quote(name: str) -> str:
    """A column name as it is written in a formula."""
    return name if name.isidentifier() else f"`{name}`"


def _sort_pieces(text, fixed, offsets, bars) -> None:
    """Deal the top-level summands out to fixed terms, offsets and random terms."""
    if text.rstrip()[-1] in "+-":
        raise FormulaError(f"nothing after {text.rstrip()[-1]!r} in {text!r}")
    for sign, raw in split(text, "+-"):
        piece = raw.strip()
        if not piece:  # before a leading sign, or between the two of "+ -1"
            continue
        inner = _unwrap(piece)
        wrapper, argument = call(piece)
        if inner is not None and _has_bar(inner):
            bars.append(("", inner))
        elif wrapper in WRAPPERS and _has_bar(argument):
            bars.append((wrapper, argument))
        elif wrapper in FOREIGN and _has_bar(argument):
            raise FormulaError(
                f"covariance structure {wrapper!r} in {piece!r} is not available; "
                f"there are {', '.join(sorted(WRAPPERS))}"
            )
        elif wrapper == "offset":
            offsets.append(argument.strip())
        elif inner is not None and _holds_random(inner):
            _sort_pieces(inner, fixed, offsets, bars)
        else:
            if _holds_random(piece):
                raise FormulaError(
                    f"a random term can only be added: write {piece!r} with "
                    "'+ (... | g)' on its own"
                )
            fixed.append(f"{sign or '+'} {piece}")
            continue
        if sign == "-":
            raise FormulaError(f"{piece!r} cannot be subtracted; leave it out instead")


def _read_bar(wrapper: str, text: str) -> Iterator[RandomPart]:
    """The terms that one ``(columns | grouping)`` stands for."""
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
    terms = read_terms(columns)
    if not terms:
        raise FormulaError(f"({text}) has no columns; write (1 | {grouping})")
    blocks = [(term,) for term in terms] if double else [terms]
    # lme4 lists all groupings of (x | a/b) by block: the block runs slowest.
    for block in blocks:
        for group in _groupings(grouping):
            yield RandomPart("", block, group, WRAPPERS.get(wrapper, "us"))


@lru_cache(maxsize=512)
def _groupings(text: str) -> tuple[Grouping, ...]:
    """``a/b`` to ``b:a`` and ``a``; ``a + b`` to both; ``a:b`` as it is."""
    inner = _unwrap(text.strip())
    if inner is not None:
        return _groupings(inner)
    summands = [piece for _, piece in split(text, "+")]
    if len(summands) > 1:
        return tuple(g for piece in summands for g in _groupings(piece))
    if any(mark for mark, _ in split(text, "*-^")):
        raise FormulaError(
            f"grouping {text!r}: only names, ':', '/' and '+' are understood there. "
            "For a*b write three terms: (1 | a) + (1 | b) + (1 | a:b)"
        )
    found: list[Grouping] = []
    for _, piece in split(text, "/"):
        parts = tuple(
            _column(p) for _, p in split(_unwrap(piece.strip()) or piece, ":")
        )
        name = ":".join(parts)
        if found:
            outer = found[0]
            shown = f"({outer.name})" if len(outer.parts) > 1 else outer.name
            name, parts = f"{name}:{shown}", parts + outer.parts
        found.insert(0, Grouping(name, parts))
    return tuple(found)


def _column(text: str) -> str:
    """The column that a grouping atom names; ``factor(g)`` is ``g``."""
    text = text.strip()
    wrapped = _AS_FACTOR.match(text)
    if wrapped:
        text = wrapped.group(1).strip()
    if not _NAME.match(text):
        raise FormulaError(
            f"grouping factor {text!r} must be the name of a column (`quoted` where it "
            "has blanks); compute it as a column first"
        )
    return text.strip("`")


def _label(parts: list[RandomPart]) -> tuple[RandomPart, ...]:
    """Unique labels: ``g``, then ``g.1``, ``g.2``."""
    if len(set(parts)) < len(parts):
        twice = next(part for part in parts if parts.count(part) > 1)
        columns = " + ".join(t.name for t in twice.terms).replace("(Intercept)", "1")
        raise FormulaError(
            f"the random term ({columns} | {twice.grouping.name}) appears twice"
        )
    seen: dict[str, int] = {}
    labelled = []
    for part in parts:
        name = part.grouping.name
        count = seen.get(name, 0)
        seen[name] = count + 1
        label = f"{name}.{count}" if count else name
        labelled.append(RandomPart(label, part.terms, part.grouping, part.covariance))
    return tuple(labelled)


def _scan(text: str) -> Iterator[tuple[int, str, int]]:
    """Position, character and bracket depth of what is outside quotes."""
    depth, quoted = 0, ""
    for i, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
            continue
        if char in "`'\"":
            quoted = char
            continue
        if char in ")]}":
            depth -= 1
        yield i, char, depth
        if char in "([{":
            depth += 1


def split(text: str, marks: str) -> Iterator[tuple[str, str]]:
    """Cut at top-level ``marks``; each piece with the mark before it."""
    start, mark = 0, ""
    for i, char, depth in _scan(text):
        if depth == 0 and char in marks:
            yield mark, text[start:i]
            start, mark = i + 1, char
    yield mark, text[start:]


def _check_brackets(text: str) -> None:
    depth = 0
    for _, char, depth in _scan(text):
        if depth < 0:
            raise FormulaError(f"unbalanced {char!r} in {text!r}")
        depth += char in "([{"
    if depth > 0:
        raise FormulaError(f"a bracket is not closed in {text!r}")
    if text.count("`") % 2:
        raise FormulaError(f"a backtick is not closed in {text!r}")


def _unwrap(text: str) -> str | None:
    """What is inside, if one pair of parentheses wraps the whole text."""
    if not (text.startswith("(") and text.endswith(")")):
        return None
    closes = [i for i, char, depth in _scan(text) if char == ")" and depth == 0]
    return text[1:-1].strip() if closes == [len(text) - 1] else None


def call(text: str) -> tuple[str, str]:
    """``f(argument)`` as (f, argument), else two empty texts."""
    head, bracket, _ = text.partition("(")
    inner = _unwrap(text[len(head) :]) if bracket else None
    if inner is None or not re.fullmatch(r"[\w.]+", head):
        return "", ""
    return head, inner


def _has_bar(text: str) -> bool:
    return any(mark == "|" for mark, _ in split(text, "|"))


def _holds_random(text: str) -> bool:
    """Whether some bracket that is not a function's holds a bar of its own."""
    opened: list[bool] = []
    before = ""
    for _, char, _ in _scan(text):
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


def _translate(text: str) -> str:
    """R's and patsy's spellings that have one obvious meaning here."""
    # a power: Python's own ^ acts on bits, and binds weaker than +
    plain = {i for i, char, _ in _scan(text) if char == "^"}
    text = "".join("**" if i in plain else char for i, char in enumerate(text))
    text = re.sub(r"\bas\.factor\s*\(", "factor(", text)
    return re.sub(r"""\bQ\((['"])([^'"`]+)\1\)""", r"`\2`", text)


def _first_line(error: Exception) -> str:
    text = re.sub(r"\x1b?\[[\d;]*m|[⧛⧚]", "", str(error))
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
