"""NumPy arrays, and the small dictionaries that transforms keep, as JSON and back.

What JSON has no word for is a dictionary with one key that starts with ``$``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.formula.levels import text_of
from jaxglmm.formula.scalars import parts, whole


def pack(value: Any) -> Any:
    """Plain lists, dicts, numbers and texts.

    Raises:
        TypeError: for what has no plain form (functions, objects).
    """
    if value is None or isinstance(value, bool | str):
        return value
    special = None if isinstance(value, np.ndarray | list | dict) else parts(value)
    if special is not None:
        return {"$label": special[0], "parts": [pack(v) for v in special[1]]}
    if isinstance(value, np.generic):
        value = value.item()
        return pack(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "mM":
            return {
                "$times": value.astype(np.int64).tolist(),
                "dtype": str(value.dtype),
            }
        if value.dtype.kind == "O":
            return {"$objects": [pack(v) for v in value.tolist()]}
        if value.dtype.kind == "f":
            items = [pack(v) for v in value.ravel().tolist()]
        else:
            items = value.ravel().tolist()
        return {"$array": items, "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, list):
        return [pack(v) for v in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack(v) for v in value]}
    if isinstance(value, dict):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: pack(v) for k, v in value.items()}
        return {"$pairs": [[pack(k), pack(v)] for k, v in value.items()]}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def pack_labels(levels: np.ndarray) -> Any:
    """Levels of a factor, those without a plain form as text.

    These are members of an Enum and objects of the user's; in new data they are matched
    by their texts as well.
    """
    try:
        return pack(levels)
    except TypeError:
        return {"$objects": [label_or_text(v) for v in levels.tolist()]}


def label_or_text(value: Any) -> Any:
    """One label as JSON, its text where it has no plain form."""
    try:
        return pack(value)
    except TypeError:
        return text_of(value)


def unpack(value: Any) -> Any:
    """What ``pack`` packed."""
    if isinstance(value, list):
        return [unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return float(value["$float"])
    if "$array" in value:
        items = [unpack(v) for v in value["$array"]]
        return np.array(items, dtype=value["dtype"]).reshape(value["shape"])
    if "$objects" in value:
        found = np.empty(len(value["$objects"]), object)
        found[:] = [unpack(v) for v in value["$objects"]]
        return found
    if "$label" in value:
        return whole(value["$label"], [unpack(v) for v in value["parts"]])
    if "$times" in value:
        return np.array(value["$times"], np.int64).astype(value["dtype"])
    if "$tuple" in value:
        return tuple(unpack(v) for v in value["$tuple"])
    if "$pairs" in value:
        return {unpack(k): unpack(v) for k, v in value["$pairs"]}
    return {k: unpack(v) for k, v in value.items()}
