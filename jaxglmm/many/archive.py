"""The file of many fits: a zip of JSON and plain arrays, without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError


def write(path: Any, tree: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """A tree of JSON and the arrays that it names, to one file."""
    target = path if hasattr(path, "write") else _arguments.new_file(path)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("fits.json", json.dumps(tree))
        for key, array in arrays.items():
            with file.open(f"{key}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(
                    entry, np.ascontiguousarray(array), allow_pickle=False
                )


def read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What ``write`` wrote.

    Raises:
        DataError: something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tree = json.loads(archive.read("fits.json"))
            arrays = {
                name.removesuffix(".npy"): _read(archive, name)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"{str(path)!r} is not a file that fits.save wrote") from error
    return tree, arrays


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)
