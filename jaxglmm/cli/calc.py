"""Evaluate the worksheet functions of an .xlsx workbook and write their values into it.

Exit codes: 0 all were evaluated, 1 some gave an error text (it is in the workbook, and
on stderr), 2 the workbook cannot be read or has no such formula.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxglmm._errors import NotApplicableError
from jaxglmm.cli.progress import keep_compiled_programs, step

PLACES = ("beside", "over", "sheet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm calc``."""
    parser.add_argument("book", type=Path, help=".xlsx or .xlsm workbook")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: BOOK with _values"
    )
    parser.add_argument(
        "--place",
        choices=PLACES,
        default="beside",
        help="of the tables: beside the formula where there is room (default), over "
        "it, or on a sheet of their own",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and write."""
    from jaxglmm.spreadsheet.workbook import calculate

    out = args.out
    if out is None:
        out = args.book.with_stem(f"{args.book.stem}_values")
    if out.exists() and args.book.exists() and out.samefile(args.book):
        raise NotApplicableError(
            f"{out} is the workbook itself, and what openpyxl does not know would be "
            "lost; write to another file"
        )
    keep_compiled_programs()
    with step(f"evaluating {args.book}"):
        found = calculate(args.book, out, args.place)
    failed = [one for one in found if one.failed]
    for one in failed:
        print(f"{one.sheet}!{one.cell}: {one.result}", file=sys.stderr)
    print(f"{len(found)} formulas, {len(failed)} with an error text: {out}")
    if args.place != "over" and len(found) > len(failed):
        print(
            "The cells of the formulas show #NAME? where the functions are not "
            "installed; --place over writes the tables over them"
        )
    return 1 if failed else 0
