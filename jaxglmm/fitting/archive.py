"""Files of fits: a zip of one JSON tree and plain arrays, without pickle.

In the tree an array stands as ``{"kind": "array", "key": key}`` and lies in the file as
``key.npy`` (``fitting.packing``). A file says what it is and by which version of its
format it was written.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Format:
    """What a file says of itself.

    name, version: written into it; entry: the JSON's name in the zip; writer: what
    wrote it, for messages; level: of compression.
    """

    name: str
    version: int
    entry: str
    writer: str
    level: int | None = None

    def write(self, path: Any, tree: dict[str, Any], arrays: Arrays) -> None:
        """A tree of JSON and the arrays that it names, to one file."""
        target = path if hasattr(path, "write") else _arguments.new_file(path)
        head = {"format": self.name, "version": self.version}
        zipped = zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(target, "w", zipped, compresslevel=self.level) as file:
            file.writestr(self.entry, json.dumps(head | tree))
            for key, array in arrays.items():
                with file.open(f"{key}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(
                        entry, np.asanyarray(array), allow_pickle=False
                    )

    def read(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The tree and the arrays of a file with an entry of this name.

        Raises:
            DataError: something else.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                tree = json.loads(archive.read(self.entry))
                arrays = {
                    name.removesuffix(".npy"): _array(archive, name)
                    for name in archive.namelist()
                    if name.endswith(".npy")
                }
        except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
            raise self._other(path) from error
        if not isinstance(tree, dict):
            raise self._other(path)
        return tree, arrays

    def check(self, tree: Mapping[str, Any], path: Any) -> None:
        """Refuse a tree of another format, or of a newer version.

        Raises:
            DataError: it is one.
        """
        if tree.get("format") != self.name:
            raise self._other(path)
        if tree["version"] > self.version:
            raise DataError(
                f"{str(path)!r} was written by a newer jaxglmm (format "
                f"{tree['version']}, this one reads up to {self.version}): upgrade "
                "jaxglmm to read it"
            )

    def _other(self, path: Any) -> DataError:
        return DataError(f"{str(path)!r} is not a file that {self.writer} wrote")


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)
