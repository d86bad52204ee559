"""The extension for LibreOffice Calc: ``=GLMM_POISSON(A1:A6;B1:B6;C1:C6)`` in a cell.

An ``.oxt`` is a zip of the files in ``source``: the add-in itself (Python, which runs
inside LibreOffice and asks ``jaxglmm serve``), its interface compiled from IDL, and
what Calc shows of its functions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from jaxglmm._errors import NotApplicableError

SOURCE = Path(__file__).parent / "source"
FILES = (
    "META-INF/manifest.xml",
    "description.xml",
    "CalcAddIns.xcu",
    "XGlmm.rdb",
    "glmm_addin.py",
)
IDENTIFIER = "org.jaxglmm.calc"  # as in description.xml
STAMP = (1980, 1, 1, 0, 0, 0)  # of every file inside, so that equal sources are equal


def build(target: Path) -> Path:
    """Write the extension to ``target``.

    >>> import tempfile
    >>> path = build(Path(tempfile.mkdtemp()) / "jaxglmm.oxt")
    >>> zipfile.ZipFile(path).namelist()[0]
    'META-INF/manifest.xml'
    """
    from jaxglmm._version import __version__

    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            data = (SOURCE / name).read_bytes()
            if name == "description.xml":
                data = data.replace(b"@VERSION@", __version__.encode())
            archive.writestr(zipfile.ZipInfo(name, STAMP), data)
    return target


def compiled_interface(target: Path) -> Path:
    """Compile ``XGlmm.idl`` to ``target`` by LibreOffice's SDK.

    Raises:
        NotApplicableError: no SDK, with where it comes from.
    """
    program = _program()
    writer = None
    if program is not None:
        writer = shutil.which("unoidl-write", path=str(program.parent / "sdk" / "bin"))
    writer = writer or shutil.which("unoidl-write")
    if writer is None or program is None:
        raise NotApplicableError(
            "unoidl-write is not found: install LibreOffice's SDK (Debian: "
            "libreoffice-dev)"
        )
    types, idl = program / "types.rdb", SOURCE / "XGlmm.idl"
    subprocess.run([writer, types, idl, target], check=True, capture_output=True)
    return target


def install(extension: Path, shared: bool = False) -> str:
    """Add the extension to LibreOffice; what ``unopkg`` says.

    Args:
        extension: the file.
        shared: for all users of this machine, which takes its administrator.

    Raises:
        NotApplicableError: no ``unopkg``, what it complains of, or root without
            ``shared``.
    """
    unopkg = shutil.which("unopkg")
    if unopkg is None:
        program = _program()
        unopkg = None if program is None else shutil.which("unopkg", path=str(program))
    if unopkg is None:
        raise NotApplicableError(
            f"unopkg is not found. In LibreOffice choose Tools > Extensions > Add, and "
            f"take {extension}"
        )
    if not shared and getattr(os, "geteuid", lambda: 1)() == 0:
        raise NotApplicableError(
            "as root, LibreOffice takes extensions for all users only: jaxglmm "
            "libreoffice install --shared. Or install as the user who runs it"
        )
    where = ["--shared"] if shared else []
    said, failed = _run([unopkg, "add", "-s", "-f", *where, str(extension)])
    # registering can end in a traceback of its Python after the files are in place
    if failed and not (shared and IDENTIFIER in _run([unopkg, "list", *where])[0]):
        raise NotApplicableError(f"unopkg: {said}")
    return "" if failed else said


def _run(command: list[str]) -> tuple[str, bool]:
    """What a program says, and whether it failed."""
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip(), done.returncode != 0


def _program() -> Path | None:
    """LibreOffice's program folder."""
    found = shutil.which("soffice") or shutil.which("libreoffice")
    if found is None:
        return None
    return Path(found).resolve().parent
