"""A file of rows and columns as a frame: CSV, Parquet, Excel workbooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxglmm._errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TEXT = (".csv", ".tsv", ".txt", ".tab")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")


def read_table(path: str, sheet: str | None = None, sep: str | None = None) -> Any:
    """Read a table; ``-`` is CSV from standard input.

    Args:
        path: a file; its ending says what it is.
        sheet: name or number (from 1) of a sheet of a workbook; default the first.
        sep: what separates the columns of a text file; default comma, tab for .tsv.

    Raises:
        DataError: an ending that is not known, a file that cannot be read, or a package
            that is missing, with what to do.
    """
    kind = _kind(path)
    if sheet is not None and kind != "excel":
        raise DataError("--sheet belongs to Excel workbooks (.xlsx)")
    if sep is not None and kind != "text":
        raise DataError("--sep belongs to text files (.csv, .tsv)")
    if path != "-" and not Path(path).exists():
        raise DataError(f"there is no file {path}")
    if kind == "text":
        frame = _text(path, sep)
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


def _text(path: str, sep: str | None) -> pd.DataFrame:
    import pandas as pd

    tabs = path != "-" and any(e in (".tsv", ".tab") for e in Path(path).suffixes)
    source: Any = sys.stdin if path == "-" else path
    try:
        return pd.read_csv(source, sep=sep or ("\t" if tabs else ","))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as a table: {e}") from e


def _parquet(path: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            "reading Parquet needs pyarrow: pip install 'jaxglmm[parquet]'"
        ) from None
    import pyarrow as pa

    try:
        return parquet.read_table(path).to_pandas()
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
    which: Any = 0
    if sheet is not None:
        which = int(sheet) - 1 if sheet.isdigit() else sheet
    try:
        return pd.read_excel(path, sheet_name=which, engine="openpyxl")
    except (ValueError, KeyError, IndexError) as e:
        raise DataError(f"{path}: {e}") from e
    except Exception as e:  # what a file that is no workbook raises differs by version
        raise DataError(f"{path} cannot be read as a workbook: {e}") from e
