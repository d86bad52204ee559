"""What the passes have found so far, in a folder, so that a killed run goes on.

Two files of plain arrays, no pickle: the survey when its pass is over, the sums of the
cross-products every so often with the number of rows that are in them. Each is written
beside its name and renamed, so that what is there is whole. Both are marked with the
model and with the files' sizes and times: sums of other data are refused, not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.formula.labels import Growing
from jaxglmm.formula.survey import NumberFacts, Survey
from jaxglmm.structure.row_sums import RowSums

EVERY = 20.0  # seconds between two
SHARE = 20.0  # and times what writing the last one took
TEXT = "text:"  # before the name of an array that stands for Python's strings


class Checkpoint:
    """A folder in which passes leave what they found."""

    def __init__(self, folder: Any, facts: Mapping[str, Any]):
        self.folder = Path(os.fspath(folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.facts = json.loads(json.dumps(facts, default=str))
        self._last, self._wait = time.monotonic(), EVERY

    def read(self, name: str, more: Mapping[str, Any] | None = None) -> Any:
        """(numbers, arrays) of a file that this model left; None where there is none.

        more: what else has to be the same; a file that differs in this is passed over.

        Raises:
            DataError: it is of another model, or of other data.
        """
        path = self.folder / f"{name}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {key: found[key] for key in found.files}
            told = json.loads(str(arrays.pop("about")))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} is no checkpoint that can be read ({error}): remove it"
            ) from error
        if told["facts"] != self.facts:
            differ = [k for k in self.facts if told["facts"].get(k) != self.facts[k]]
            raise DataError(
                f"the checkpoint in {str(self.folder)!r} is of another model or of "
                f"other data ({', '.join(differ)} differ): choose another folder, or "
                "remove it"
            )
        if told["more"] != _digest(more):
            return None
        restored = {k.removeprefix(TEXT): _restored(k, v) for k, v in arrays.items()}
        return told["numbers"], restored

    def write(
        self,
        name: str,
        numbers: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Leave a file under its name when it is whole."""
        about = {"facts": self.facts, "more": _digest(more), "numbers": numbers}
        packed = {"about": np.array(json.dumps(about))}
        packed |= dict(_packed(key, value) for key, value in arrays.items())
        part = self.folder / f"{name}.{os.getpid()}.part"
        started = time.monotonic()
        try:
            with part.open("wb") as file:
                np.savez(file, **packed)  # type: ignore[arg-type]
            part.replace(self.folder / f"{name}.npz")
        except OSError as error:
            raise DataError(
                f"the checkpoint {name}.npz cannot be written to {self.folder} "
                f"({error}); what is there is whole, and the same call goes on from it"
            ) from error
        finally:
            part.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._wait = max(EVERY, SHARE * (self._last - started))

    @property
    def is_due(self) -> bool:
        """Whether the last file is old enough for the next."""
        return time.monotonic() - self._last > self._wait


def _digest(facts: Mapping[str, Any] | None) -> str:
    text = json.dumps(facts or {}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if value.dtype.kind != "O":
        return key, value
    return TEXT + key, np.array(json.dumps(value.tolist()))


def _restored(key: str, value: np.ndarray) -> np.ndarray:
    if not key.startswith(TEXT):
        return value
    items = json.loads(str(value))
    out = np.empty(len(items), object)
    out[:] = items
    return out


# The survey --------------------------------------------------------------------------

PLAIN = ("n", "complete", "counted", "log_weights", "has_offset", "lost")


def keep_survey(checkpoint: Checkpoint, survey: Survey) -> None:
    """Write what a whole survey found, where files can say it."""
    numbers: dict[str, Any] = {name: getattr(survey, name) for name in PLAIN}
    numbers["response"] = asdict(survey.response)
    numbers["numbers"] = [[*k, asdict(v)] for k, v in survey.numbers.items()]
    numbers["suffixes"] = [[k, list(v)] for k, v in survey.suffixes.items()]
    arrays = {}
    for kind, seen in _labels(survey).items():
        numbers[kind] = list(seen)
        for k, own in enumerate(seen.values()):
            for name, labels in own.kept().items():
                arrays[f"{kind}/{k}/{name}"] = labels
    plain = all(_is_plain(v) for v in arrays.values())
    if plain and not survey.marks:
        checkpoint.write("survey", numbers, arrays)


def resume_survey(checkpoint: Checkpoint, survey: Survey) -> bool:
    """Take over the survey of a run before, if there is one."""
    found = checkpoint.read("survey")
    if found is None:
        return False
    numbers, arrays = found
    for name in PLAIN:
        setattr(survey, name, numbers[name])
    survey.response = NumberFacts(**numbers["response"])
    survey.numbers = {(e, k): NumberFacts(**v) for e, k, v in numbers["numbers"]}
    survey.suffixes = {k: tuple(v) for k, v in numbers["suffixes"]}
    for kind, seen in _labels(survey).items():
        for k, name in enumerate(numbers[kind]):
            start = f"{kind}/{k}/"
            own = {
                key.removeprefix(start): value
                for key, value in arrays.items()
                if key.startswith(start)
            }
            seen[name] = Growing.restored(own)
    return True


def _labels(survey: Survey) -> dict[str, dict[str, Growing]]:
    return {
        "factors": survey.factors,
        "parts": survey.parts,
        "cells": survey.cells,
    }


def _is_plain(labels: np.ndarray) -> bool:
    """Whether JSON gives the same labels back."""
    return labels.dtype.kind != "O" or all(type(v) is str for v in labels.tolist())


# The sums ----------------------------------------------------------------------------


def keep_sums(
    checkpoint: Checkpoint, k: int, sums: RowSums, rows: int, more: Mapping[str, Any]
) -> None:
    """Write the sums of the first rows of the k-th pass."""
    checkpoint.write(f"pass{k}", {"rows": rows}, sums.state(), more)


def resume_sums(
    checkpoint: Checkpoint, k: int, sums: RowSums, more: Mapping[str, Any]
) -> int:
    """Take over the sums of a run before; how many rows are in them."""
    found = checkpoint.read(f"pass{k}", more)
    if found is None:
        return 0
    numbers, arrays = found
    sums.resume(arrays)
    return int(numbers["rows"])
