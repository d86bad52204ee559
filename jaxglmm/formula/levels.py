"""Labels to codes and back.

Levels are sorted (a categorical keeps its own order), codes are int32, -1 is missing.
Integers in a short range go through a table of presence, everything else through
pandas' hash tables; only the distinct labels are ever sorted.
"""

from __future__ import annotations

import datetime as dt
import re

import numpy as np

from jaxglmm._pandas import pd

_DIGITS = re.compile(r"(\d+)")


def by_text_alone(texts: list[str]) -> bool:
    """Whether labels are in the order of texts, and not of the numbers in them.

    >>> by_text_alone(["week 10", "week 2"])
    True
    """

    def key(text: str) -> list[tuple[int, str]]:
        pieces = _DIGITS.split(text)
        return [(int(p), "") if p.isdigit() else (0, p) for p in pieces]

    return texts == sorted(texts) != sorted(texts, key=key)


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

    Numbers and their texts are the same label (308, 308.0, "308"), and so are a time
    and its ISO text (a day, midnight, "2020-01-31"): a table read back from a file
    often changes one into the other.
    """
    if len(labels) == 0:
        return np.empty(0, np.int32)
    found = np.full(len(labels), -1, np.int32)
    kinds = {levels.dtype.kind, labels.dtype.kind}
    if kinds != {"b"} and (len(kinds) == 1 or kinds <= set("iuf")):
        found = _index(levels).get_indexer(_index(labels)).astype(np.int32)
    lost = np.flatnonzero(found < 0)
    if len(lost):
        texts = {text_of(level): i for i, level in enumerate(levels)}
        found[lost] = [texts.get(text_of(label), -1) for label in labels[lost]]
        lost = np.flatnonzero(found < 0)
    if len(lost) and len(kinds) == 2 and kinds & {"M", "m"} and kinds & {"O", "U"}:
        found[lost] = _match_times(levels, labels[lost])
    return found


def _index(labels: np.ndarray) -> pd.Index:
    """By equality: intervals may overlap, tuples are one label each."""
    if labels.dtype.kind == "O":
        return pd.Index(labels, dtype=object, tupleize_cols=False)
    return pd.Index(labels)


def _match_times(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Times and texts of times, however the texts are written within ISO 8601."""
    read = _as_spans if "m" in (levels.dtype.kind, labels.dtype.kind) else _as_times
    ours, theirs = pd.Index(read(levels)), pd.Index(read(labels))
    found = np.full(len(labels), -1, np.int32)
    if ours.hasnans or not ours.is_unique:  # texts that are no times, or the same one
        return found
    known = ~theirs.isna()
    found[known] = ours.get_indexer(theirs[known])
    return found


def _as_times(labels: np.ndarray) -> np.ndarray:
    """In UTC, without a zone; NaT for what is no time."""
    if labels.dtype.kind == "M":
        return labels
    texts = [v if isinstance(v, str) else text_of(v) for v in labels]
    times = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    return times.tz_localize(None).to_numpy()


def _as_spans(labels: np.ndarray) -> np.ndarray:
    """Durations; NaT for what is none."""
    if labels.dtype.kind == "m":
        return labels
    return pd.to_timedelta([str(v) for v in labels], errors="coerce").to_numpy()


def text_of(label) -> str:
    """A label as text: whole numbers without a decimal point, times by ISO 8601."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    if isinstance(label, np.datetime64 | dt.date):
        return _time_text(label)
    if isinstance(label, np.timedelta64 | dt.timedelta):
        return str(pd.Timedelta(label)).removesuffix(" 00:00:00")
    return str(label)


def _time_text(label) -> str:
    """``2020-01-31``, and the time of the day where it is not midnight."""
    if isinstance(label, dt.date) and not isinstance(label, dt.datetime):
        return label.isoformat()
    if isinstance(label, np.datetime64):
        text = np.datetime_as_string(label)
    else:
        text = label.isoformat()
    day, mark, time = text.partition("T")
    if "." in time and "+" not in time and "-" not in time:
        time = time.rstrip("0").rstrip(".")
    midnight = not time.strip("0:")
    return day if midnight else f"{day}{mark}{time}"


def _short_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """By presence, where the integers span little more than their number."""
    if values.dtype.kind == "b":
        low, span = values.dtype.type(0), 2
        shifted = values.view(np.uint8)
    else:
        low = values.min()
        span = int(values.max()) - int(low) + 1
        if span > max(2 * len(values), 4096):
            return None
        # in a type that holds the span: 99 - (-100) is no 8-bit integer
        wide = values if values.dtype.itemsize > 2 else values.astype(np.int32)
        shifted = wide if low == 0 else wide - wide.dtype.type(low)
        if shifted.dtype == np.uint64:  # by which not every NumPy takes
            shifted = shifted.astype(np.int64)
    present = np.zeros(span, bool)
    present[shifted] = True
    used = np.flatnonzero(present)
    rank = np.empty(span, np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    return rank.take(shifted), used.astype(values.dtype) + low


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
