"""The surface of a formula's text: quoted names, strings, brackets, words.

A name in backticks may hold anything: blanks, line ends, quotes, brackets, and a
backtick written twice. What stands in backticks or in quotes is never looked into; what
is cut, translated or searched goes through ``pieces``, ``scan`` and ``split``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from jaxglmm._errors import FormulaError

MOST_BRACKETS = 60  # inside one another
MOST_CHARACTERS = 2_000_000
QUOTED = re.compile(
    r"""`(?:[^`]|``)*`|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL
)
# Marks that look like one of the language's own.
LOOKALIKES = dict(
    zip("−–—×∙·∶∼˜～＋－＊／：（）｜∣´＝", "---***:~~~+-*/:()||`=", strict=True)
) | dict.fromkeys("‘’“”", "'")
_R_FACTOR = re.compile(r"(?<![\w.])as\.factor(?=\s*\()")
_R_QUOTE = re.compile(r"(?<![\w.])Q\(\s*\Z")


def quote(name: str) -> str:
    """A column name as it is written in a formula."""
    return name if name.isidentifier() and name.isascii() else quoted(name)


def quoted(name: str) -> str:
    """A name in backticks, those inside it doubled."""
    return "`" + name.replace("`", "``") + "`"


def unquoted(text: str) -> str:
    """The name that ``quoted`` wrote."""
    return text[1:-1].replace("``", "`")


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text in order, what is quoted (with its quotes) apart from the rest."""
    start = 0
    for found in QUOTED.finditer(text):
        if found.start() > start:
            yield text[start : found.start()], False
        yield found.group(), True
        start = found.end()
    if start < len(text):
        yield text[start:], False


def scan(text: str) -> Iterator[tuple[int, str, int]]:
    """Position, character and bracket depth of what is outside quotes."""
    depth, at = 0, 0
    for piece, inside in pieces(text):
        if not inside:
            for i, char in enumerate(piece, at):
                if char in ")]}":
                    depth -= 1
                yield i, char, depth
                if char in "([{":
                    depth += 1
        at += len(piece)


def split(text: str, marks: str) -> Iterator[tuple[str, str]]:
    """Cut at top-level ``marks``; each piece with the mark before it."""
    start, mark = 0, ""
    for i, char, depth in scan(text):
        if depth == 0 and char in marks:
            yield mark, text[start:i]
            start, mark = i + 1, char
    yield mark, text[start:]


def unwrap(text: str) -> str | None:
    """What is inside, if one pair of parentheses wraps the whole text."""
    if not (text.startswith("(") and text.endswith(")")):
        return None
    closes = [i for i, char, depth in scan(text) if char == ")" and depth == 0]
    return text[1:-1].strip() if closes == [len(text) - 1] else None


def call(text: str) -> tuple[str, str]:
    """``f(argument)`` as (f, argument), else two empty texts."""
    head, bracket, _ = text.partition("(")
    inner = unwrap(text[len(head) :]) if bracket else None
    if inner is None or not re.fullmatch(r"[\w.]+\s*", head):
        return "", ""
    return head.rstrip(), inner


def translate(text: str) -> str:
    """The text checked, with one spelling for what has one meaning.

    Blanks of all kinds are blanks; R's ``^`` is a power (Python's own acts on bits, and
    binds weaker than +), ``as.factor()`` is ``factor()``; patsy's ``Q("a b")`` is a
    name in backticks.

    Raises:
        FormulaError: for quotes or brackets that are not closed, and for characters
            that mean nothing here, with those they look like.
    """
    if len(text) > MOST_CHARACTERS:
        raise FormulaError(
            f"the formula has {len(text):,} characters; at most {MOST_CHARACTERS:,} "
            "are read"
        )
    found = [[p, inside] for p, inside in pieces(text)]
    for i, (piece, inside) in enumerate(found):
        if not inside:
            found[i][0] = _plain(piece, text)
    for i in range(1, len(found) - 1):
        before, (name, inside), after = found[i - 1][0], found[i], found[i + 1][0]
        if not inside or name[0] == "`" or found[i - 1][1] or found[i + 1][1]:
            continue
        if _R_QUOTE.search(before) and after.lstrip().startswith(")"):
            found[i - 1][0] = _R_QUOTE.sub("", before)
            found[i + 1][0] = after.lstrip()[1:]
            found[i][0] = quoted(re.sub(r"\\(.)", r"\1", name[1:-1]))
    out = "".join(piece for piece, _ in found).strip()
    _check_brackets(out)
    return out


def _plain(piece: str, text: str) -> str:
    """A piece outside quotes."""
    for char in piece:
        if char in "`'\"":
            what = "backtick" if char == "`" else "quote"
            raise FormulaError(f"a {what} is not closed in {shown(text)}")
        if char.isascii() and (char.isprintable() or char.isspace()):
            continue
        if char in LOOKALIKES:
            raise FormulaError(
                f"{char!r} (U+{ord(char):04X}) in {shown(text)} is not the sign "
                f"{LOOKALIKES[char]!r}, which it looks like: type {LOOKALIKES[char]!r}"
            )
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn"):
            raise FormulaError(
                f"the formula {shown(text)} holds the invisible character "
                f"U+{ord(char):04X}; delete it (in a column's name: write the name in "
                "backticks)"
            )
    piece = re.sub(r"\s", " ", piece).replace("^", "**")
    return _R_FACTOR.sub("factor", piece)


def _check_brackets(text: str) -> None:
    opened: list[str] = []
    for _, char, _ in scan(text):
        if char in "([{":
            opened.append(char)
            if len(opened) > MOST_BRACKETS:
                raise FormulaError(
                    f"brackets stand more than {MOST_BRACKETS} deep inside one another "
                    f"in {shown(text)}"
                )
        elif char in ")]}" and (not opened or opened.pop() + char not in "()[]{}"):
            raise FormulaError(f"unbalanced {char!r} in {shown(text)}")
    if opened:
        raise FormulaError(f"a bracket is not closed in {shown(text)}")


def shown(text: str, most: int = 300) -> str:
    """A text for messages: escaped, and its middle left out where it is long."""
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return repr(text)


def is_word(char: str) -> bool:
    """Whether a character can continue a name, combining accents among them."""
    return char.isalnum() or char == "_" or f"a{char}".isidentifier()


def word_end(text: str, start: int, dots: bool = True) -> int:
    """Where the word that begins at ``start`` ends; dots belong to it, as in R."""
    i = start
    while i < len(text) and (is_word(text[i]) or (dots and text[i] == ".")):
        i += 1
    return i


def find_name(name: str, names: Iterable[str]) -> str | None:
    """The column that a name means, None where there is none.

    A column of exactly this name, else the only one that Unicode counts as the same
    letters (NFKC): a micro sign for a Greek mu, an accent apart from its letter.

    Raises:
        FormulaError: where two columns are the same letters.
    """
    if name in names:  # type: ignore[operator]
        return name
    wanted = unicodedata.normalize("NFKC", name)
    plain = name.isascii()
    same = [
        n
        for n in names
        if not (plain and n.isascii()) and unicodedata.normalize("NFKC", n) == wanted
    ]
    if len(same) > 1:
        shown = ", ".join(ascii(n) for n in same)
        raise FormulaError(
            f"the name {name!r} could be each of the columns {shown}: the same letters "
            "in different characters. Rename them"
        )
    return same[0] if same else None
