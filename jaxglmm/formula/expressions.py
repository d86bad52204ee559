"""The text of one factor, ``log(x)`` or ``poly(`my col`, 2)``, as Python's syntax tree.

Names are data and never code: whatever stands in backticks, has a dot in it, letters
beyond ASCII or is one of Python's keywords goes into the tree under an alias. What the
names mean is found when the expression is evaluated (``jaxglmm.formula.evaluate``): a
column of the data, else a function that is known, else one of the caller's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from keyword import iskeyword
from typing import Any, NamedTuple

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm._pandas import pd
from jaxglmm.formula.contrasts import Marked
from jaxglmm.formula.tables import Column, read_column
from jaxglmm.formula.text import find_name, pieces, shown, unquoted, word_end

# Keywords of Python's expressions; the others can only be names.
CONSTANTS = frozenset(("True", "False", "None"))
MODULES = ("np", "contr")  # np.log is NumPy's, whatever the columns are
OPERATORS = frozenset(("and", "or", "not", "in", "is", "if", "else", "for", "lambda"))
_TOO_DEEP = (RecursionError, MemoryError)


class Name(NamedTuple):
    """A name in an expression; one in backticks can only be a column's."""

    text: str
    is_quoted: bool = False

    @property
    def head(self) -> str:
        """What stands before the first dot."""
        return self.text if self.is_quoted else self.text.partition(".")[0]


@dataclass(frozen=True)
class Expression:
    """A syntax tree, its names, and its text in one spelling.

    aliases: alias in the tree -> name. names: those that could be columns. called:
    those that stand before a bracket.
    """

    text: str
    tree: ast.expr
    aliases: Mapping[str, Name]
    names: frozenset[Name]
    called: frozenset[Name]

    def name(self, identifier: str) -> Name:
        """What an identifier of the tree stands for."""
        return self.aliases.get(identifier) or Name(identifier)

    def spelled(self, node: ast.AST) -> str:
        """A part of the tree as it is written in a formula."""
        text = ast.unparse(node).replace("\n", " ")
        if not self.aliases:
            return text
        pattern = "|".join(map(re.escape, self.aliases))
        return re.sub(rf"\b(?:{pattern})\b", self._written, text)

    def _written(self, found: re.Match) -> str:
        name = self.aliases[found.group()]
        if not name.is_quoted:
            return name.text
        return "`" + name.text.replace("`", "``") + "`"


@lru_cache(maxsize=1024)
def read_expression(text: str) -> Expression:
    """Parse the text of one factor.

    Raises:
        FormulaError: where it is no expression, or too deep.
    """
    error: Exception | None = None
    for keywords in (
        CONSTANTS | OPERATORS,
        CONSTANTS,
    ):  # log(lambda) is a column's name
        code, aliases = _with_aliases(text, keywords)
        try:
            tree = ast.parse(code.strip(), mode="eval").body
            return _expression(tree, aliases)
        except _TOO_DEEP:
            raise FormulaError(
                f"the expression {shown(text)} is too deep: make it a column first"
            ) from None
        except FormulaError:
            raise
        except (SyntaxError, ValueError) as first:
            error = error or first
    raise FormulaError(
        f"cannot read the expression {shown(text)}"
        + (f": {error.msg}" if isinstance(error, SyntaxError) else "")
    )


def _expression(tree: ast.expr, aliases: dict[str, Name]) -> Expression:
    found = Expression("", tree, aliases, frozenset(), frozenset())
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    functions = {id(f): f for f in calls if isinstance(f, ast.Name)}
    for function in functions.values():
        if found.name(function.id).is_quoted:
            raise FormulaError(
                f"`{found.name(function.id).text}` is a column, not a function"
            )
    loaded = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    return Expression(
        found.spelled(tree),
        tree,
        aliases,
        frozenset(found.name(n.id) for n in loaded if id(n) not in functions),
        frozenset(found.name(f.id) for f in functions.values()),
    )


def _with_aliases(text: str, keywords: frozenset[str]) -> tuple[str, dict[str, Name]]:
    """The text with plain names for those that Python would not read as such."""
    prefix = "name_"
    while prefix in text:
        prefix += "_"
    known: dict[Name, str] = {}
    code: list[str] = []

    def alias(name: Name) -> str:
        return known.setdefault(name, f"{prefix}{len(known)}")

    for piece, inside in pieces(text):
        if inside:
            is_name = piece[0] == "`"
            code.append(f" {alias(Name(unquoted(piece), True))} " if is_name else piece)
        else:
            code.append(_words(piece, keywords, alias))
    return "".join(code), {plain: name for name, plain in known.items()}


def _words(piece: str, keywords: frozenset[str], alias: Callable[[Name], str]) -> str:
    """A piece outside quotes."""
    out: list[str] = []
    i = 0
    while i < len(piece):
        end = word_end(piece, i)
        word, rest = piece[i:end], piece[end:].lstrip()
        if not word:
            out.append(piece[i])
            end = i + 1
        elif (
            word[0] == "."  # an attribute of a call, or a number
            or word[0].isdigit()
            or word in keywords
            or (rest[:1] == "=" and rest[:2] != "==")  # of an argument
            or (word.isascii() and "." not in word and not iskeyword(word))
        ):
            out.append(word)
        else:
            out.append(alias(Name(word)))
        i = end
    return "".join(out)


def column_of(name: Name, columns: Container[str]) -> tuple[str | None, str]:
    """The column that a name begins with, and the attributes that follow.

    ``Sepal.Length`` is a column if there is one, else ``Length`` of ``Sepal``.
    """
    found = find_name(name.text, columns)  # type: ignore[arg-type]
    if found is not None or name.is_quoted or name.head in MODULES:
        return found, ""
    head, rest = name.text, ""
    while "." in head:
        head, _, last = head.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
        found = find_name(head, columns)  # type: ignore[arg-type]
        if found is not None:
            return found, rest
    return None, ""


def variables_of(expr: str, bare: bool, known: Container[str]) -> frozenset[str]:
    """The columns that a factor uses."""
    if bare:
        return frozenset((expr,))
    parsed = read_expression(expr)
    found = {column_of(n, known)[0] for n in parsed.names}
    found |= {column_of(n, known)[0] for n in parsed.called if "." in n.text}
    return frozenset(name for name in found if name is not None)


def others_in(parsed: Expression, columns: Container[str]) -> set[str]:
    """Functions and other names that are no columns, by their first part."""
    found = {n.head for n in parsed.names if column_of(n, columns)[0] is None}
    return found | {
        n.head
        for n in parsed.called
        if "." not in n.text or column_of(n, columns)[0] is None
    }


def context_used(
    exprs: Iterable[str], columns: Container[str], context: Mapping[str, Any]
) -> dict[str, Any]:
    """The caller's variables that the expressions use, and nothing else."""
    from jaxglmm.formula.functions import PLAIN, transforms

    used: dict[str, Any] = {}
    for expr in exprs:
        for name in others_in(read_expression(expr), columns) - set(PLAIN):
            if name in context and name not in transforms():
                used[name] = context[name]
    return used


def spread(expr: str, value: Any, n: int) -> Column | Marked | dict[str, np.ndarray]:
    """A raw value as one column, a marked factor, or several numeric columns.

    Args:
        expr: its text, for messages.
        value: what ``evaluate`` gave.
        n: the number of rows it must have.
    """
    if isinstance(value, Marked):
        return value
    metadata = getattr(value, "__formulaic_metadata__", None)
    names = None
    if metadata is not None:
        names, value = metadata.column_names, value.__wrapped__
    if isinstance(value, dict):
        if not value:
            raise DataError(f"{expr!r} has no columns")
        parts = {str(k): v for k, v in value.items() if not str(k).startswith("__")}
        return {k: _numeric(f"{expr}[{k}]", v, n) for k, v in parts.items()}
    if isinstance(value, pd.DataFrame):
        return {str(k): _numeric(f"{expr}[{k}]", value[k], n) for k in value.columns}
    if isinstance(value, np.ndarray) and value.ndim == 2:
        labels = names or range(value.shape[1])
        return {
            str(k): _numeric(f"{expr}[{k}]", value[:, j], n)
            for j, k in enumerate(labels)
        }
    return _one_column(expr, value, n)


def _one_column(expr: str, value: Any, n: int) -> Column:
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return Column(expr, "number", np.full(n, float(value)))
    if callable(value) and not hasattr(value, "__len__"):
        raise FormulaError(f"{expr!r} is a function, not a variable; give it arguments")
    column = read_column(expr, value)
    if len(column) != n:
        raise DataError(f"{expr!r} gives {len(column)} values for {n} rows")
    return column


def _numeric(name: str, value: Any, n: int) -> np.ndarray:
    column = _one_column(name, value, n)
    if column.values is None or column.kind == "time":
        raise DataError(f"{name!r} is not numeric")
    return np.asarray(column.values, np.float64)
