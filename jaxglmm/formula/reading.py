"""What to say of a column that is text where numbers were meant.

One ``-`` or ``1,234.5`` among numbers makes a whole column text. The message names the
column, how many values it has, and those that do not read as numbers.
"""

from __future__ import annotations

from jaxglmm.formula.column import Column
from jaxglmm.formula.notices import listed

SHOWN = 3
MANY = 10  # values of a text column up to which nobody wonders
FEW = 0.8  # the share that read as numbers from which the others look like mistakes


def is_text(column: Column) -> bool:
    """Labels that are Python strings, all or some."""
    return column.levels is not None and any(
        isinstance(level, str) for level in column.levels
    )


def many_texts(column: Column) -> bool:
    """Text with more values than a factor usually has."""
    return is_text(column) and len(column.levels) > MANY  # type: ignore[arg-type]


def almost_numbers(column: Column) -> bool:
    """Text of which all but a few of many values read as numbers."""
    if not many_texts(column):
        return False
    levels = list(column.levels)  # type: ignore[arg-type]
    numbers = sum(map(reads_as_number, levels))
    return FEW * len(levels) <= numbers < len(levels)


def reads_as_number(level) -> bool:
    """Whether a label is a number, or the text of one."""
    try:
        float(level)
    except (TypeError, ValueError):
        return False
    return True


def not_numeric(column: Column) -> str:
    """``'x' is text with 60 different values, of which '-' is no number``."""
    if column.kind == "time":
        return f"{column.name!r} holds dates or times"
    levels = [] if column.levels is None else list(column.levels)
    if not is_text(column):
        return f"{column.name!r} holds {len(levels)} different labels"
    text = f"{column.name!r} is text with {len(levels)} different value"
    text += "s" * (len(levels) != 1)
    strange = [level for level in levels if not reads_as_number(level)]
    if not strange:
        return f"{text}, all of which read as numbers: convert them"
    if len(strange) == len(levels):
        return f"{text} ({listed(strange, SHOWN)})"
    verb = (
        "does not read as a number" if len(strange) == 1 else "do not read as numbers"
    )
    return f"{text}, of which {listed(strange, SHOWN)} {verb}"
