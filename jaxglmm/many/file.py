"""A table of fits in a file, written chunk by chunk, and taken up again.

The file is a header (JSON, what was fitted) and then the table, one row of doubles a
data set, whose last column is the status: ``PENDING`` until the row is written. So a
file says of itself what is left to do. A row is written before its status.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.many.columns import PENDING, KeptColumns

MAGIC = b"jaxglmm fits 1\n"
HEADER = 1 << 16  # bytes, at least; a multiple of it where names need more
SAMPLED = 16  # responses that the fingerprint looks at


class TableFile:
    """The table of a run, in a file.

    Args:
        path: the file; made where it is not there.
        facts: what is fitted, as JSON; another run's file is refused.
        columns, D: shape of the table.

    Raises:
        DataError: the file is no table of fits, or one of another run.
    """

    def __init__(self, path: Any, facts: dict, columns: KeptColumns, D: int):
        self.path = Path(path)
        shape = (D, columns.width)
        header = _header({**facts, "shape": shape, "columns": as_json(columns)})
        if self.path.exists() and self.path.stat().st_size > 0:
            found, offset = read_header(self.path)
            differs = [k for k, v in _plain(facts).items() if found.get(k) != v]
            if tuple(found["shape"]) != shape or differs:
                what = ", ".join(differs) or "the number of data sets"
                raise DataError(
                    f"{str(path)!r} holds another run: {what} differ. Choose another "
                    "file, or remove it to start again"
                )
            self.table = np.memmap(self.path, np.float64, "r+", offset, shape)
            return
        size = len(header) + 8 * D * columns.width
        with self.path.open("wb") as file:
            file.truncate(size)
            file.write(header)
        self.table = np.memmap(self.path, np.float64, "r+", len(header), shape)
        self.table[:, -1] = PENDING

    def flush(self) -> None:
        """To the disk."""
        self.table.flush()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _header(facts: dict) -> bytes:
    text = MAGIC + json.dumps(facts).encode() + b"\n"
    size = -(-len(text) // HEADER) * HEADER
    return text + b" " * (size - len(text))


def read_header(path: Path) -> tuple[dict, int]:
    """What the header says, and where the table begins.

    Raises:
        DataError: not a table of fits.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DataError(f"{str(path)!r} is not a file of fits")
        line = file.readline()
    offset = -(-(len(MAGIC) + len(line)) // HEADER) * HEADER
    return json.loads(line), offset


def as_json(columns: KeptColumns) -> dict:
    """The names of a table."""
    return {
        "coefficients": list(columns.coefficients),
        "sd": list(columns.sd),
        "theta": columns.theta,
        "dispersion": list(columns.dispersion),
        "terms": [list(term) for term in columns.terms],
        "errors": columns.errors,
    }


def from_json(saved: dict) -> KeptColumns:
    """The inverse of ``as_json``."""
    return KeptColumns(
        tuple(saved["coefficients"]),
        tuple(saved["sd"]),
        saved["theta"],
        tuple(saved["dispersion"]),
        tuple((t, tuple(names), cov) for t, names, cov in saved.get("terms", ())),
        saved.get("errors", False),
    )


def fingerprint(*arrays: Any) -> str:
    """A hash of arrays, to tell runs apart."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        if array is None:
            found.update(b"none")
            continue
        array = np.ascontiguousarray(array)
        found.update(str((array.shape, array.dtype.str)).encode())
        found.update(array.tobytes())
    return found.hexdigest()


def sampled(D: int) -> np.ndarray:
    """Data sets that a fingerprint looks at."""
    return np.unique(np.linspace(0, D - 1, SAMPLED).astype(int))
