"""A formula's text to terms, by patsy's grammar.

``~ + - * / : **`` and parentheses are the formula's; whatever else stands between
them is one piece of Python, a *factor*. So ``x > 0``, ``x % 2`` and ``f.map({"a": 1})``
are factors. A factor is known, and shown, by its text with blanks as patsy sets them.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from dataclasses import dataclass, field
from functools import lru_cache
from keyword import iskeyword

from jaxglmm._errors import FormulaError

Term = tuple[str, ...]  # texts of its factors, in order; the intercept is ()

BINARY = {"~": 0, "+": 1, "-": 1, "*": 2, "/": 2, ":": 3, "**": 4}
UNARY = ("+", "-")
END = {*BINARY, ")"}
SPACED = {*"+-*/%&^|<>", "==", "!=", "<=", ">=", "<<", ">>", "**", "//"}
BACKTICKS = re.compile(r"`([^`]*)`")
SKIPPED = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.COMMENT)
OBJECTS = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
MOST_TERMS = 100_000


@dataclass(frozen=True)
class Sides:
    """Terms of the left and of the right side; ``left`` is None without a "~"."""

    left: tuple[Term, ...] | None
    right: tuple[Term, ...]
    text: str


@dataclass
class _Sum:
    """Terms, and what has been said about the intercept."""

    terms: list[Term] = field(default_factory=list)
    intercept: bool = False
    removed: bool = False
    number: int | None = None  # where it is one number and nothing else


@lru_cache(maxsize=512)
def parse(text: str) -> Sides:
    """Read a formula.

    Args:
        text: such as ``"y ~ x * C(f)"``; one side alone is the right one.

    Raises:
        FormulaError: with the piece that cannot be read.
    """
    if not isinstance(text, str):
        raise FormulaError(f"the formula must be text, not {type(text).__name__}")
    reader = _Reader(text)
    halves = reader.halves()
    if len(halves) > 2:
        raise FormulaError(f"{text!r} has more than one '~'")
    left = None
    if len(halves) == 2 and halves[0]:
        found = reader.whole(halves[0])
        left = _unique([()] * found.intercept + found.terms)
    found = reader.whole(halves[-1])
    constant = found.intercept or not found.removed
    return Sides(left, _unique([()] * constant + found.terms), text)


def _unique(terms: list[Term]) -> tuple[Term, ...]:
    seen: dict[frozenset[str], Term] = {}
    for term in terms:
        seen.setdefault(frozenset(term), term)
    return tuple(seen.values())


def variables(text: str) -> frozenset[str]:
    """Names that the factors of a formula mention, functions included."""
    sides = parse(text)
    terms = (*(sides.left or ()), *sides.right)
    return frozenset(n for term in terms for f in term for n in names_in(f))


@lru_cache(maxsize=1024)
def names_in(factor: str) -> frozenset[str]:
    """Names in one factor, ``Q("a b")`` and backticks included."""
    code, aliases = plain_code(factor)
    found = {factor, *aliases.values()}
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return frozenset(found)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Q":
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return frozenset(n for n in found if isinstance(n, str))


def plain_code(factor: str) -> tuple[str, dict[str, str]]:
    """Python text, and names that stand for columns in backticks."""
    aliases: dict[str, str] = {}

    def alias(found: re.Match) -> str:
        name = f"_column_{len(aliases)}_"
        aliases[name] = found.group(1)
        return name

    return BACKTICKS.sub(alias, factor), aliases


class _Reader:
    """Precedence climbing over Python's tokens; those of factors are gathered."""

    def __init__(self, text: str):
        self.text = text
        code, self.aliases = plain_code(re.sub(r"[\r\n]+", " ", text).strip())
        self.pieces = self._pieces(code)
        self.at = 0
        self.here: list[tuple[str, bool]] = []

    def _pieces(self, code: str) -> list[tuple[str, bool]]:
        """(text, is an operator or a bracket) of each operator and factor."""
        out: list[tuple[str, bool]] = []
        gathered: list[tokenize.TokenInfo] = []
        depth = 0
        for token in self._tokens(code):
            text = token.string
            if depth == 0 and (text in END or (text == "(" and not gathered)):
                if gathered:
                    out.append((self._shown(gathered), False))
                    gathered = []
                out.append((text, True))
                continue
            if text in ("(", "[", "{"):
                depth += 1
            elif text in (")", "]", "}"):
                depth -= 1
                if depth < 0:
                    raise FormulaError(f"unbalanced {text!r} in {self.text!r}")
            gathered.append(token)
        if gathered:
            out.append((self._shown(gathered), False))
        return out

    def _tokens(self, code: str) -> list[tokenize.TokenInfo]:
        try:
            found = list(tokenize.generate_tokens(io.StringIO(code).readline))
        except (tokenize.TokenError, SyntaxError):
            raise FormulaError(
                f"{self.text!r} cannot be read: a bracket or a quote is not closed"
            ) from None
        for token in found:
            if token.type == tokenize.ERRORTOKEN and token.string.strip():
                raise FormulaError(
                    f"cannot read {token.string!r} in {self.text!r}; a column with "
                    'such a name is written Q("name")'
                )
            if token.type == tokenize.COMMENT:
                raise FormulaError(f"'#' in {self.text!r} begins a comment")
        return [t for t in found if t.type not in SKIPPED and t.string.strip()]

    def _shown(self, tokens: list[tokenize.TokenInfo]) -> str:
        text = spaced(tokens)
        if text in self.aliases:
            return self.aliases[text]
        for alias, name in self.aliases.items():
            text = text.replace(alias, f"`{name}`")
        return text

    # the grammar ----------------------------------------------------------------------

    def halves(self) -> list[list[tuple[str, bool]]]:
        """The pieces on the sides of the tilde."""
        out: list[list[tuple[str, bool]]] = [[]]
        depth = 0
        for text, operator in self.pieces:
            depth += operator * ((text == "(") - (text == ")"))
            if operator and text == "~":
                if depth:
                    raise FormulaError(f"'~' inside brackets in {self.text!r}")
                out.append([])
            else:
                out[-1].append((text, operator))
        return out

    def whole(self, pieces: list[tuple[str, bool]]) -> _Sum:
        """One side of the formula."""
        self.here, self.at = pieces, 0
        if not pieces:
            raise FormulaError(f"nothing to read after '~' in {self.text!r}")
        found = self._sum(1)
        if self.at < len(pieces):
            raise FormulaError(
                f"{pieces[self.at][0]!r} is not expected there in {self.text!r}"
            )
        if found.number is not None and found.number > 1:
            raise self._number(found.number)
        return found

    def _next(self) -> tuple[str, bool]:
        if self.at >= len(self.here):
            raise FormulaError(f"{self.text!r} ends where a term is expected")
        self.at += 1
        return self.here[self.at - 1]

    def _sum(self, least: int) -> _Sum:
        left = self._one()
        while self.at < len(self.here):
            operator, is_operator = self.here[self.at]
            if not is_operator or BINARY.get(operator, -1) < least:
                break
            self.at += 1
            right = self._sum(BINARY[operator] + 1)
            left = self._joined(operator, left, right)
        return left

    def _one(self) -> _Sum:
        text, operator = self._next()
        if operator and text in UNARY:
            inner = self._sum(BINARY[text] + 1)
            return inner if text == "+" else self._minus(_Sum(), inner, alone=True)
        if operator and text == "(":
            inner = self._sum(1)
            if self.at >= len(self.here) or self.here[self.at][0] != ")":
                raise FormulaError(f"a bracket is not closed in {self.text!r}")
            self.at += 1
            return inner
        if operator:
            raise FormulaError(f"nothing before {text!r} in {self.text!r}")
        if text == "0":
            return _Sum(removed=True, number=0)
        if text == "1":
            return _Sum(intercept=True, number=1)
        if re.fullmatch(r"[\d.][\w.]*", text):
            if not text.isdigit():
                raise self._number(text)
            return _Sum(number=int(text))
        self._check(text)
        return _Sum([(text,)])

    def _check(self, factor: str) -> None:
        code, _ = plain_code(factor)
        if iskeyword(factor) and factor not in ("True", "False", "None"):
            raise FormulaError(
                f"{factor!r} is a word of Python's own; a column with this name is "
                f'written Q("{factor}")'
            )
        if factor in self.aliases.values():
            return
        try:
            ast.parse(code, mode="eval")
        except SyntaxError:
            raise FormulaError(
                f"cannot read the expression {factor!r} in {self.text!r}; arithmetic "
                "stands in I(...)"
            ) from None

    def _joined(self, operator: str, left: _Sum, right: _Sum) -> _Sum:
        if operator == "+":
            return self._plus(left, right)
        if operator == "-":
            return self._minus(left, right)
        if operator == "**":
            return self._power(left, right)
        for side in (left, right):
            if side.number is not None and side.number > 1:
                raise self._number(side.number)
            if side.intercept:
                raise FormulaError(
                    f"1 cannot stand beside {operator!r} in {self.text!r}: an "
                    "intercept has no interactions"
                )
        if operator == "*":
            both = _products(left.terms, right.terms)
            return _Sum(left.terms + right.terms + both)
        if operator == "/":
            whole = _merged(left.terms)
            return _Sum(left.terms + [_merged([whole, term]) for term in right.terms])
        return _Sum(_products(left.terms, right.terms))

    def _plus(self, left: _Sum, right: _Sum) -> _Sum:
        for side in (left, right):
            if side.number is not None and side.number > 1:
                raise self._number(side.number)
        terms = left.terms + right.terms
        if right.number == 0:
            return _Sum(terms, False, True)
        if right.intercept:
            return _Sum(terms, True, False)
        return _Sum(terms, left.intercept, left.removed)

    def _minus(self, left: _Sum, right: _Sum, alone: bool = False) -> _Sum:
        if right.number == 0:
            return _Sum(left.terms, True, False)
        if right.number is not None and right.number > 1:
            raise self._number(right.number)
        if alone and right.number is None:
            raise FormulaError(
                f"a term cannot be subtracted from nothing in {self.text!r}; "
                "the negative of a variable is I(-x)"
            )
        gone = {frozenset(term) for term in right.terms}
        terms = [term for term in left.terms if frozenset(term) not in gone]
        if right.intercept:
            return _Sum(terms, False, True)
        return _Sum(terms, left.intercept, left.removed)

    def _power(self, left: _Sum, right: _Sum) -> _Sum:
        if right.number is None or right.number < 1:
            raise FormulaError(
                f"'**' takes a whole number from 1 on in {self.text!r}; "
                "a variable to a power is I(x**2)"
            )
        if left.number is not None and left.number > 1:
            raise self._number(left.number)
        if left.intercept:
            raise FormulaError(f"1 cannot be raised to a power in {self.text!r}")
        terms = list(left.terms)
        last = terms
        for _ in range(1, min(right.number, len(left.terms))):
            last = _products(last, left.terms)
            if len(last) > MOST_TERMS:
                raise FormulaError(f"{self.text!r} has more than {MOST_TERMS} terms")
            terms = terms + last
        return _Sum(terms)

    def _number(self, number) -> FormulaError:
        return FormulaError(
            f"{number} in {self.text!r} is no term: there are 0 and 1, without and "
            f"with an intercept; arithmetic stands in I(...), as in I({number} * x)"
        )


def _merged(terms: list[Term]) -> Term:
    return tuple(dict.fromkeys(f for term in terms for f in term))


def _products(left: list[Term], right: list[Term]) -> list[Term]:
    found = [_merged([a, b]) for a, b in itertools.product(left, right)]
    return list(_unique(found))


def spaced(tokens: list[tokenize.TokenInfo]) -> str:
    """Tokens as text with blanks around operators and after commas, as patsy's."""
    text: list[str] = []
    brackets: list[str] = []
    blank = after_object = opening = False  # of the token before
    word = False
    for token in tokens:
        kind, now = token.type, token.string
        if kind in OBJECTS:
            text += [" "] * (blank or word) + [now]
            blank, word, after_object, opening = False, True, True, False
            continue
        if now in ("(", "[", "{"):
            brackets.append(now)
        elif brackets and now in (")", "]", "}"):
            brackets.pop()
        before = now in SPACED or now in ("!", "~")
        behind = now in SPACED or now in (",", ":")
        if now == ":" and brackets and brackets[-1] == "[":
            behind = False
        if now in ("*", "**") and opening:
            before = behind = False
        if now == "=" and not brackets:
            before = behind = True
        if now in ("+", "-") and not after_object:
            before = behind = False
        text += [" "] * (blank or before) + [now]
        blank, word = behind, False
        after_object = now in (")", "]", "}")
        opening = now in ("(", "[", "{", ",")
    return "".join(text)
