"""Reading formulas of a workbook: one call of a worksheet function and its arguments.

``=GLMM_POISSON(A1:A6,'My data'!B1:B6,C:C,,TRUE,0.1)``: references, inline arrays,
numbers, texts, truth values and blanks; also inside ``INDEX(call, row, column)``. Names
of functions come with the prefixes that spreadsheets give them, and as LibreOffice
Calc's add-in writes them.

openpyxl's Tokenizer does not do for this: it refuses ``$'My data'!A1`` and sees no call
in ``LMM (A1:A9, ...)``, both of which spreadsheets write and read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxglmm.spreadsheet.sheets import FUNCTIONS

PREFIX = re.compile(r"(?:_xlfn\.|_xlws\.|_xludf\.|_xll\.)+", re.IGNORECASE)
ADD_IN = re.compile(
    r"(?:com\.sun\.star\.sheet\.addin\.)?org\.jaxglmm\.calc\.glmm\.", re.I
)
NAME = re.compile(r"[A-Za-z_][\w.]*")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?")
CELL = r"\$?[A-Za-z]{1,3}\$?\d+"
AREA = re.compile(
    rf"{CELL}(?::{CELL})?(?![\w(])|\$?[A-Za-z]{{1,3}}:\$?[A-Za-z]{{1,3}}(?![\w(])"
    r"|\$?\d+:\$?\d+"
)
SHEET = re.compile(r"\$?(?:'((?:[^']|'')+)'|([^\s'!(){},;:\"&=<>+*/^-]+))!")
TEXT = re.compile(r'"((?:[^"]|"")*)"')
CALC = {name.replace("_", ""): name for name in FUNCTIONS}


class Unreadable(ValueError):
    """A formula that holds something else than a call."""


@dataclass(frozen=True)
class Reference:
    """A range: its sheet (None: that of the formula) and its address."""

    sheet: str | None
    area: str


@dataclass(frozen=True)
class Named:
    """A defined name."""

    name: str


@dataclass(frozen=True)
class Call:
    """A call with its arguments; index: row and column of INDEX, from 1 (0: all)."""

    function: str
    arguments: tuple[Any, ...]
    index: tuple[int, int] | None = None


def mentions(formula: Any) -> bool:
    """Whether a text is a formula with one of the functions in it."""
    if not isinstance(formula, str) or not formula.startswith("="):
        return False
    bare = TEXT.sub("", formula)
    return any(
        known(match.group()) and bare[match.end() :].lstrip().startswith("(")
        for match in NAME.finditer(bare)
    )


def known(name: str) -> str | None:
    """The function that a name in a formula means, if any."""
    plain = PREFIX.sub("", name).upper()
    short = ADD_IN.sub("", PREFIX.sub("", name)).upper()
    if plain in FUNCTIONS:
        return plain
    return CALC.get(short.replace("_", "")) if short != plain else None


def read(formula: str) -> Call:
    """The call of a formula.

    Raises:
        Unreadable: what stands in its place, and what would be read.

    >>> read("=LMM(A1:A9,B1:B9,C1:C9)").function
    'LMM'
    >>> read("=_xlfn.GLMM_POISSON($A$1:$A$6,'x y'!B:B,C1:C6,,TRUE)").arguments[1]
    Reference(sheet='x y', area='B:B')
    """
    reader = _Reader(formula.removeprefix("=").removeprefix("{=").strip())
    call = reader.call()
    reader.space()
    if reader.rest:
        raise Unreadable(
            f"{reader.rest!r} after the call: a formula must be one call of "
            f"{', '.join(FUNCTIONS)}, or INDEX(call, row, column)"
        )
    return call


class _Reader:
    """A cursor in the text of a formula."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    @property
    def rest(self) -> str:
        return self.text[self.at :]

    def space(self) -> None:
        while self.rest[:1].isspace():
            self.at += 1

    def match(self, pattern: re.Pattern) -> re.Match | None:
        self.space()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def take(self, mark: str) -> bool:
        self.space()
        if not self.rest.startswith(mark):
            return False
        self.at += len(mark)
        return True

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise Unreadable(f"{mark!r} is missing before {self.rest[:20]!r}")

    def call(self) -> Call:
        name = self.match(NAME)
        if name is None:
            raise Unreadable(f"no function at {self.rest[:20]!r}")
        if name.group().upper() == "INDEX":
            return self._index()
        function = known(name.group())
        if function is None:
            raise Unreadable(
                f"{name.group()} is not read: a formula must be one call of "
                f"{', '.join(FUNCTIONS)}, or INDEX(call, row, column)"
            )
        self.need("(")
        return Call(function, tuple(self._list(self._argument, ")")))

    def _index(self) -> Call:
        self.need("(")
        inner = self.call()
        places = [0, 0]
        for k in range(2):
            if self.take(",") or self.take(";"):
                value = self._argument()
                if not isinstance(value, int | float) or value != int(value):
                    raise Unreadable("INDEX takes whole numbers")
                places[k] = int(value)
        self.need(")")
        return Call(inner.function, inner.arguments, (places[0], places[1]))

    def _list(self, item: Callable[[], Any], end: str) -> list[Any]:
        if self.take(end):
            return []
        out = [item()]
        while not self.take(end):
            if not (self.take(",") or self.take(";")):
                raise Unreadable(f"cannot read {self.rest[:20]!r}")
            out.append(item())
        return out

    def _argument(self) -> Any:
        self.space()
        if self.rest[:1] in (",", ";", ")"):
            return None
        if self.take("{"):
            return self._array()
        sheet = self.match(SHEET)
        if sheet:
            name = (sheet.group(1) or sheet.group(2)).replace("''", "'")
            area = self.match(AREA)
            if area is None:
                raise Unreadable(f"no range after the sheet {name!r}")
            return Reference(name, area.group())
        area = self.match(AREA)
        if area:
            return Reference(None, area.group())
        return self._constant()

    def _constant(self) -> Any:
        text = self.match(TEXT)
        if text:
            return text.group(1).replace('""', '"')
        number = self.match(NUMBER)
        if number:
            return _number(number.group())
        name = self.match(NAME)
        if name is None:
            raise Unreadable(f"cannot read {self.rest[:20]!r}")
        if name.group().upper() in ("TRUE", "FALSE"):
            if self.take("("):
                self.need(")")
            return name.group().upper() == "TRUE"
        self.space()
        if self.rest.startswith("("):
            raise Unreadable(
                f"{name.group()}(...) inside a call is not evaluated: put it into a "
                "cell, and that cell into the call"
            )
        return Named(name.group())

    def _array(self) -> list[list[Any]]:
        """An inline array: columns by commas, rows by semicolons."""
        rows: list[list[Any]] = [[]]
        while True:
            rows[-1].append(self._constant())
            if self.take("}"):
                return rows
            if self.take(";"):
                rows.append([])
            elif not self.take(","):
                raise Unreadable(f"cannot read {self.rest[:20]!r} in an array")


def _number(text: str) -> int | float:
    if text.endswith("%"):
        return float(text[:-1]) / 100
    value = float(text)
    whole = value.is_integer() and not any(c in text for c in ".eE")
    return int(value) if whole else value
