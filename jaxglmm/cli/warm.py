"""Make compiled programs beforehand, for containers and classrooms.

Without a table the usual models of the package's data sets; what is there is kept.
"""

from __future__ import annotations

import argparse

from jaxglmm._errors import NotApplicableError
from jaxglmm.cli.fit import read
from jaxglmm.cli.progress import step

EXAMPLE = """examples:
  jaxglmm warm
  jaxglmm warm herds.csv "cbind(sick, well) ~ period + (1 | herd)" --family binomial
  JAXGLMM_CACHE=/opt/programs jaxglmm warm     # in a Dockerfile, with ENV of the same
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm warm``."""
    parser.add_argument("data", nargs="?", help="CSV, TSV, Parquet or .xlsx file")
    parser.add_argument("formula", nargs="?", help="such as 'y ~ x + (1 | g)'")
    parser.add_argument("--family", default="gaussian", help="default gaussian")
    parser.add_argument("--sheet", help="of a workbook: name, or number from 1")
    parser.add_argument("--sep", help="between columns of a text file")
    parser.add_argument("--decimal", help="decimal mark of a text file, '.' or ','")
    parser.add_argument("--encoding", help="of a text file (default UTF-8)")


def run(args: argparse.Namespace) -> int:
    """Model by model, and what there is in the end."""
    from jaxglmm.api.warm import USUAL, warm
    from jaxglmm.runtime import cache

    if (args.data is None) != (args.formula is None):
        raise NotApplicableError("a table needs a formula, and a formula a table")
    models = USUAL
    if args.data is not None:
        models = ((args.formula, read(args), args.family),)
    made = there = 0
    for model in models:
        named = f"{model[1]}: " if isinstance(model[1], str) else ""
        with step(f"{named}{model[0]}, {model[2]}"):
            found = warm(model, progress=False)
        made += int(found["made"].sum())
        there += int(found["there"].sum())
    folder = cache.program_folder()
    files, size = cache.cache_size(folder) if folder else (0, 0)
    print(f"{made} programs made, {there} were there")
    print(f"{folder}: {files} files, {size / 1e6:.1f} MB")
    return 0
