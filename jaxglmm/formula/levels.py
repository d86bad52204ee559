"""Labels to codes and back.

Levels are sorted (a categorical keeps its own order), codes are int32, -1 is missing.
Integers in a short range go through a table of presence, everything else through
pandas' hash tables; only the distinct labels are ever sorted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def factorize(values) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) int32 and sorted levels (J,) of labels of one kind.

    Args:
        values: (n,) a NumPy array or pandas array, of any type that can be hashed.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub" and len(values):
        short = _short_range(values)
        if short is not None:
            return short
    if isinstance(values, np.ndarray) and values.dtype.kind in "US":
        values = values.astype(str).astype(object)
    codes, uniques = pd.factorize(values)
    order = _order(uniques)
    labels = np.asarray(uniques)
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    rank[-1] = -1  # the code of a missing label picks this one
    return rank.take(codes), labels[order]


def compress(codes: np.ndarray, n_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes renumbered over the levels that occur, and which these are."""
    present = np.zeros(n_levels + 1, bool)
    present[codes] = True
    used = np.flatnonzero(present[:-1])
    if len(used) == n_levels:
        return codes, used
    rank = np.full(n_levels + 1, -1, np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    return rank.take(codes), used


def match(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where each of ``labels`` stands in ``levels``, -1 where it does not.

    Numbers and their texts are the same label (308, 308.0, "308"): a table read back
    from a file often changes one into the other.
    """
    if len(labels) == 0:
        return np.empty(0, np.int32)
    found = np.full(len(labels), -1, np.int32)
    same_kind = levels.dtype.kind == labels.dtype.kind or {
        levels.dtype.kind,
        labels.dtype.kind,
    } <= set("iuf")
    if same_kind and levels.dtype.kind != "b":
        found = pd.Index(levels).get_indexer(pd.Index(labels)).astype(np.int32)
    lost = np.flatnonzero(found < 0)
    if len(lost):
        texts = {text_of(level): i for i, level in enumerate(levels)}
        found[lost] = [texts.get(text_of(label), -1) for label in labels[lost]]
    return found


def text_of(label) -> str:
    """A label as text; whole numbers without a decimal point."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return str(label)


def _short_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """By presence, where the integers span little more than their number."""
    if values.dtype.kind == "b":
        low, span = 0, 2
        shifted = values.view(np.uint8)
    else:
        low = values.min()
        span = int(values.max()) - int(low) + 1
        if span > max(2 * len(values), 4096):
            return None
        shifted = values if low == 0 else values - low
    present = np.zeros(span, bool)
    present[shifted] = True
    used = np.flatnonzero(present)
    rank = np.empty(span, np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    return rank.take(shifted), (used + int(low)).astype(values.dtype)


def _order(uniques) -> np.ndarray:
    """The sorting permutation; mixed kinds sort by kind, then as text."""
    try:
        if isinstance(uniques, np.ndarray) and uniques.dtype.kind == "O":
            labels = uniques.tolist()
            return np.array(sorted(range(len(labels)), key=labels.__getitem__), np.intp)
        return np.asarray(uniques.argsort())
    except TypeError:
        keys = [(isinstance(u, str), type(u).__name__, str(u)) for u in uniques]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)
