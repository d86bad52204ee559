"""A file of rows and columns as a frame: CSV, Parquet, Excel workbooks."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxglmm._errors import DataError, JaxGLMMWarning

if TYPE_CHECKING:
    import pandas as pd

TEXT = (".csv", ".tsv", ".txt", ".tab")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")


def read_table(
    path: str,
    sheet: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Any:
    """Read a table; ``-`` is CSV from standard input.

    Args:
        path: a file; its ending says what it is.
        sheet: name or number (from 1) of a sheet of a workbook; default the first.
        sep: what separates the columns of a text file; default comma, tab for .tsv,
            and what the header shows where it has no comma.
        decimal: decimal mark of a text file; default a point, or a comma where columns
            are separated otherwise and all numbers of a column have one.
        encoding: of a text file; default UTF-8.

    Raises:
        DataError: an ending that is not known, a file that cannot be read, or a package
            that is missing, with what to do.
    """
    if "~" in path and not Path(path).exists():
        raise DataError(
            f"{path!r} is a formula, and the file comes first: jaxglmm fit data.csv "
            "'y ~ x + (1 | g)'"
        )
    kind = _kind(path)
    if sheet is not None and kind != "excel":
        raise DataError("--sheet belongs to Excel workbooks (.xlsx)")
    for option, value in (("sep", sep), ("decimal", decimal), ("encoding", encoding)):
        if value is not None and kind != "text":
            raise DataError(f"--{option} belongs to text files (.csv, .tsv)")
    if path != "-" and not Path(path).exists():
        raise DataError(f"there is no file {path}")
    if kind == "text":
        frame = _text(path, sep, decimal, encoding)
    elif kind == "parquet":
        frame = _parquet(path)
    else:
        frame = _excel(path, sheet)
    if not len(frame):
        raise DataError(f"{path} has no rows")
    return frame


def _kind(path: str) -> str:
    endings = [e.lower() for e in Path(path).suffixes]
    if endings and endings[-1] in PACKED:
        endings = endings[:-1]
    last = endings[-1] if endings else ""
    if path == "-" or last in TEXT:
        return "text"
    if last in PARQUET:
        return "parquet"
    if last in EXCEL:
        return "excel"
    known = ", ".join((*TEXT[:2], PARQUET[0], EXCEL[0]))
    raise DataError(f"{path}: the ending {last!r} is none of {known}")


def _text(
    path: str, sep: str | None, decimal: str | None, encoding: str | None
) -> pd.DataFrame:
    import pandas as pd

    tabs = any(e in (".tsv", ".tab") for e in Path(path).suffixes)
    source: Any = io.StringIO(sys.stdin.read()) if path == "-" else path

    def read(sep: str, **options: Any) -> pd.DataFrame:
        if path == "-":
            source.seek(0)
        return pd.read_csv(source, sep=sep, encoding=encoding or "utf-8", **options)

    try:
        shown = sep or _separator("\t" if tabs else ",", read)
        frame = read(shown, decimal=decimal or ".")
        commas = decimal is None and shown != "," and _decimal_commas(frame)
        if commas:
            frame = read(shown, decimal=",")
        for name in _large_integers(frame):
            frame[name] = _exact(frame[name], name, shown, read)
    except LookupError:
        raise DataError(f"--encoding {encoding}: there is no such encoding") from None
    except UnicodeDecodeError as e:
        raise DataError(
            f"{path} is not {encoding or 'UTF-8'} text (byte {e.start}); say what it "
            "is, such as --encoding latin-1 or --encoding utf-16"
        ) from e
    except (ValueError, TypeError) as e:  # pandas' errors of parsing are ValueErrors
        reason = " ".join(str(e).split())
        raise DataError(f"{path} cannot be read as a table: {reason}") from e
    _say_what_was_guessed(path, shown if sep is None else None, tabs, commas)
    return frame


def _separator(usual: str, read: Callable[..., pd.DataFrame]) -> str:
    """The usual one; another where the header would be one column without it."""
    header = [str(c) for c in read(usual, nrows=0).columns]
    if len(header) > 1 or not header:
        return usual
    counts = {s: header[0].count(s) for s in (";", "\t", ",", "|") if s != usual}
    best = max(counts, key=lambda s: counts[s])
    return best if counts[best] else usual


def _large_integers(frame: pd.DataFrame) -> list[Any]:
    """Columns read as doubles for a missing value, whose numbers may have lost digits.

    Identifiers of 64 bits are such.
    """
    found = []
    for name in frame.select_dtypes("float64").columns:
        values = frame[name].to_numpy()
        gap = values != values
        if gap.any() and (abs(values) >= 2.0**53).any():
            found.append(name)
    return found


def _exact(
    column: pd.Series, name: Any, sep: str, read: Callable[..., pd.DataFrame]
) -> pd.Series:
    """The column once more, as integers; as it is where some are no integers."""
    import numpy as np

    for kind in ("Int64", "UInt64"):
        try:
            with np.errstate(invalid="ignore"):
                found = read(sep, usecols=[name], dtype={name: kind})[name]
        except (ValueError, TypeError, OverflowError):
            continue
        floats = found.to_numpy("float64", na_value=np.nan)
        if np.allclose(floats, column, rtol=1e-12, atol=0, equal_nan=True):
            return found
    return column


def _decimal_commas(frame: pd.DataFrame) -> bool:
    """Whether a column is text because its numbers have decimal commas."""
    for name in frame.columns:
        values = frame[name].dropna()
        if len(values) and all(isinstance(v, str) for v in values):
            text = values.str.strip()
            whole = text.str.fullmatch(r"[-+]?\d*,?\d+(?:[eE][-+]?\d+)?")
            if whole.all() and text.str.contains(",").any():
                return True
    return False


def _say_what_was_guessed(path: str, sep: str | None, tabs: bool, commas: bool) -> None:
    """A note where the file was not read as its ending says."""
    guessed = []
    if sep is not None and sep != ("\t" if tabs else ","):
        guessed.append(f"columns as separated by {sep!r} (--sep says otherwise)")
    if commas:
        guessed.append("commas as decimal marks (--decimal . says otherwise)")
    if guessed:
        warnings.warn(
            f"{path}: read {', '.join(guessed)}", JaxGLMMWarning, stacklevel=2
        )


def _parquet(path: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            "reading Parquet needs pyarrow: pip install 'jaxglmm[parquet]'"
        ) from None
    import pyarrow as pa

    try:
        # integers beside a missing value as objects: doubles would lose digits
        return parquet.read_table(path).to_pandas(integer_object_nulls=True)
    except pa.ArrowException as e:
        raise DataError(f"{path} cannot be read as Parquet: {e}") from e


def _excel(path: str, sheet: str | None) -> pd.DataFrame:
    import pandas as pd

    try:
        import openpyxl  # noqa: F401 - what pandas reads workbooks with
    except ImportError:
        raise DataError(
            "reading workbooks needs openpyxl: pip install 'jaxglmm[excel]'"
        ) from None
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            which = _sheet(path, sheet, [str(n) for n in book.sheet_names])
            frame = pd.read_excel(book, sheet_name=which)
    except DataError:
        raise
    except Exception as e:  # what a file that is no workbook raises differs by version
        raise DataError(f"{path} cannot be read as a workbook: {e}") from e
    _check_computed(path, which, frame)
    return frame


def _sheet(path: str, wanted: str | None, names: list[str]) -> str:
    """The name of a sheet by name or number."""
    if wanted is None:
        return names[0]
    if wanted in names:
        return wanted
    if wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return names[int(wanted) - 1]
    known = ", ".join(repr(n) for n in names)
    raise DataError(f"--sheet {wanted}: {path} has no such sheet; there are {known}")


def _check_computed(path: str, sheet: str, frame: pd.DataFrame) -> None:
    """Refuse formulas whose values are not in the file: they would look missing."""
    empty = frame.isna().to_numpy()
    if not empty.any():
        return
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True)
    try:
        for row in book[sheet].iter_rows():
            for cell in row:
                if cell.data_type != "f" or cell.column is None or cell.row is None:
                    continue
                j, i = int(cell.column) - 1, int(cell.row) - 2
                inside = j < frame.shape[1] and 0 <= i < len(frame)
                if inside and empty[i, j]:
                    raise DataError(
                        f"{path}: cell {cell.coordinate} holds a formula without its "
                        "value; open the workbook in a spreadsheet and save it"
                    )
    finally:
        book.close()
