"""Evaluate the worksheet functions of an .xlsx workbook and write their tables into it.

For any spreadsheet on any system, without an add-in: the formulas stay, their tables
stand beside them. openpyxl reads and writes the file; charts, pictures and whatever
else it does not know are not kept, which is why the result is another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxglmm._errors import DataError
from jaxglmm.spreadsheet import formulas
from jaxglmm.spreadsheet.formulas import Call, Named, Reference, Unreadable
from jaxglmm.spreadsheet.sheets import blank, call

PLACES = ("beside", "over", "sheet")
SHEET = "jaxglmm"
MOST_CELLS = 5_000_000


@dataclass(frozen=True)
class EvaluatedFormula:
    """A formula and what it gives: its sheet, its cell (or the range it fills)."""

    sheet: str
    cell: str
    area: str
    formula: str
    result: Any

    @property
    def failed(self) -> bool:
        """Whether the result is a text about what is wrong."""
        return isinstance(self.result, str)


def calculate(
    source: Path, target: Path, place: str = "beside"
) -> list[EvaluatedFormula]:
    """Evaluate every call in ``source`` and write ``target``.

    Args:
        source: .xlsx or .xlsm workbook.
        target: where the result goes.
        place: "beside" the formula where cells are free, else on a sheet of its own;
            "over" it, where a spreadsheet would show the table; or on the "sheet".

    Raises:
        DataError: no workbook, no openpyxl, or no formula in it.
    """
    if place not in PLACES:
        raise DataError(f"place={place!r} must be one of {', '.join(PLACES)}")
    book, values = _load(source, False), _load(source, True)
    found = [_evaluated(*at, values) for at in _calls(book)]
    if not found:
        raise DataError(f"{source} has no formula with {', '.join(formulas.FUNCTIONS)}")
    _write(book, found, place)
    book.save(target)
    return found


def _load(path: Path, data_only: bool) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            "workbooks need openpyxl: pip install 'jaxglmm[excel]'"
        ) from None
    if not path.exists():
        raise DataError(f"there is no file {path}")
    macros = path.suffix.lower() == ".xlsm"
    try:
        return openpyxl.load_workbook(path, data_only=data_only, keep_vba=macros)
    except Exception as error:  # which one depends on what is wrong, and the version
        raise DataError(f"{path} cannot be read as a workbook: {error}") from error


def _calls(book: Any) -> Iterator[tuple[str, str, str, str]]:
    """(sheet, cell, area, formula) of every call."""
    for sheet in book.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                text = getattr(cell.value, "text", cell.value)
                area = getattr(cell.value, "ref", cell.coordinate)
                if formulas.mentions(_formula(text)):
                    yield sheet.title, cell.coordinate, area, _formula(text)


def _formula(text: Any) -> Any:
    """Array formulas come without their equals sign from some programs."""
    if isinstance(text, str) and text.startswith("of:="):
        return text[3:]
    return text


def _evaluated(
    sheet: str, cell: str, area: str, formula: str, values: Any
) -> EvaluatedFormula:
    try:
        asked = formulas.read(formula)
        given = [_value(a, sheet, values) for a in asked.arguments]
        result = _indexed(call(asked.function, given), asked)
    except Unreadable as error:
        result = f"Invalid input: {error}"
    return EvaluatedFormula(sheet, cell, area, formula, result)


def _indexed(result: Any, asked: Call) -> Any:
    if asked.index is None or isinstance(result, str):
        return result
    i, j = asked.index
    try:
        rows = result if i == 0 else [result[_place(i)]]
        return [row if j == 0 else [row[_place(j)]] for row in rows]
    except IndexError:
        return f"Invalid input: INDEX({i}, {j}) is outside the table."


def _place(k: int) -> int:
    if k < 1:
        raise IndexError
    return k - 1


def _value(argument: Any, sheet: str, values: Any) -> Any:
    """An argument with its references looked up."""
    if isinstance(argument, Named):
        argument = _named(argument, values)
    if not isinstance(argument, Reference):
        return argument
    name = sheet if argument.sheet is None else argument.sheet
    by_name = {title.lower(): title for title in values.sheetnames}
    if name.lower() not in by_name:
        raise Unreadable(f"there is no sheet {name!r}")
    page = values[by_name[name.lower()]]
    return _range(page, argument.area.replace("$", ""))


def _named(name: Named, values: Any) -> Reference:
    by_name = {k.lower(): v for k, v in values.defined_names.items()}
    defined = by_name.get(name.name.lower())
    if defined is None:
        raise Unreadable(f"{name.name} is neither a range nor a defined name")
    places = list(defined.destinations)
    if len(places) != 1:
        raise Unreadable(f"the name {name.name} is not one range")
    return Reference(places[0][0], places[0][1])


def _range(page: Any, area: str) -> Any:
    """Values of a range: a list of rows, or the value of a single cell."""
    from openpyxl.utils import range_boundaries

    first, top, last, bottom = range_boundaries(area)
    first, top = first or 1, top or 1
    last = min(last or page.max_column, max(page.max_column, first))
    bottom = min(bottom or page.max_row, max(page.max_row, top))
    if (last - first + 1) * (bottom - top + 1) > MOST_CELLS:
        raise Unreadable(f"{area} has more than {MOST_CELLS} cells")
    rows = page.iter_rows(top, bottom, first, last, values_only=True)
    out = [list(row) for row in rows]
    return out[0][0] if ":" not in area else out


# Where the tables go ------------------------------------------------------------------


def _write(book: Any, found: list[EvaluatedFormula], place: str) -> None:
    apart = []
    for one in found:
        block = _block(one)
        start = _start(book[one.sheet], one, block, place)
        if start is None:
            apart.append(one)
        else:
            _fill(book[one.sheet], *start, block, one, place)
    if apart:
        _own_sheet(book, apart)


def _block(one: EvaluatedFormula) -> list[list[Any]]:
    return [[one.result]] if one.failed else one.result


def _start(
    page: Any, one: EvaluatedFormula, block: Any, place: str
) -> tuple[int, int] | None:
    """Row and column of the first cell; None for the sheet of results."""
    from openpyxl.utils import range_boundaries

    edges: Any = range_boundaries(one.area)
    first, top, last, _ = edges
    if place == "over":
        return top, first
    if place == "sheet":
        return None
    return (top, last + 1) if _free(page, top, last + 1, block) else None


def _free(page: Any, top: int, first: int, block: list[list[Any]]) -> bool:
    """Whether nothing stands where the table would."""
    width = max(len(row) for row in block)
    return all(
        blank(page.cell(top + i, first + j).value)
        for i in range(len(block))
        for j in range(width)
    )


def _fill(
    page: Any, top: int, first: int, block: Any, one: EvaluatedFormula, place: str
) -> None:
    from openpyxl.utils import range_boundaries

    if place == "over":
        left, start, right, end = range_boundaries(one.area)
        for row in page.iter_rows(start, end, left, right):
            for cell in row:  # also what the formula showed before
                cell.value = None
    for i, row in enumerate(block):
        for j, value in enumerate(row):
            _put(page.cell(top + i, first + j), value)


def _put(cell: Any, value: Any) -> None:
    """A value that never becomes a formula."""
    if value is None or value == "":
        cell.value = None
        return
    cell.value = value
    if isinstance(value, str):
        cell.data_type = "s"


def _own_sheet(book: Any, found: list[EvaluatedFormula]) -> None:
    """All tables one below the other, each under the cell that it belongs to."""
    title = SHEET
    while title in book.sheetnames:
        title += "_"
    page = book.create_sheet(title)
    at = 1
    for one in found:
        _put(page.cell(at, 1), f"{one.sheet}!{one.cell}")
        _put(page.cell(at, 2), one.formula)
        block = _block(one)
        for i, row in enumerate(block, at + 1):
            for j, value in enumerate(row, 1):
                _put(page.cell(i, j), value)
        at += len(block) + 2
