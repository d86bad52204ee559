"""Build the extension for LibreOffice Calc, and install it.

``jaxglmm libreoffice install`` adds it to your LibreOffice; restart that, and start
``jaxglmm serve``. Then ``=GLMM_POISSON(A1:A6;B1:B6;C1:C6)`` with Ctrl+Shift+Enter shows
the table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm libreoffice``."""
    parser.add_argument("action", choices=("build", "install"))
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="of build: default jaxglmm.oxt"
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="of install: for all users of this machine, as root",
    )


def run(args: argparse.Namespace) -> int:
    """Build, and perhaps install."""
    from jaxglmm.spreadsheet import libreoffice

    if args.action == "build":
        print(libreoffice.build(args.out or Path("jaxglmm.oxt")).resolve())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = args.out or Path(folder) / "jaxglmm.oxt"
        said = libreoffice.install(libreoffice.build(path), args.shared)
    if said:
        print(said)
    print("Installed. Restart LibreOffice, and start the server: jaxglmm serve")
    return 0
