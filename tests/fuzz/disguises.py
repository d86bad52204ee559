"""The same table in other forms: types of columns, containers, names, missing rows.

``plain`` makes a table in the most harmless form there is, ``disguised`` the same
values as users have them. Numbers are multiples of an eighth, so that half precision
holds them exactly.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

N = 40
LEVELS = {"g": 6, "h": 4, "f": 3}


def plain(seed: int) -> dict[str, np.ndarray]:
    """y, x, p > 0: doubles; k: whole numbers; g, h, f: texts; c: counts; b: 0 or 1."""
    rng = np.random.default_rng(seed)
    code = {name: rng.permutation(np.arange(N) % J) for name, J in LEVELS.items()}
    x = np.round(8 * rng.normal(size=N)) / 8
    k = rng.integers(0, 12, N)
    b = rng.normal(size=6)[code["g"]] + 0.7 * rng.normal(size=4)[code["h"]]
    eta = 0.4 * x + 0.1 * k + b
    y = np.round(64 * (3 + eta + 0.5 * rng.normal(size=N))) / 64
    out = {"y": y, "x": x, "p": np.round(8 * rng.uniform(0.5, 4, N)) / 8 + 0.125}
    out |= {"k": k.astype(float), "c": rng.poisson(np.exp(0.4 * eta)).astype(float)}
    out["b"] = (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float)
    out |= {name: np.array([f"{name}{i}" for i in v]) for name, v in code.items()}
    return out


# Columns ------------------------------------------------------------------------------
# Each takes values (numbers, or texts of a factor) and a mask of missing ones.


def _objects(values, missing):
    out = np.array(list(values), dtype=object)
    out[missing] = None
    return out


def _pandas(dtype):
    def column(values, missing):
        out = pd.Series(list(values), dtype="object")
        out[missing] = None
        return out.astype(dtype)

    return column


def _masked(values, missing):
    filled = np.array(values)
    if filled.dtype.kind == "f":
        filled = np.where(missing, -999.0, filled)
    return np.ma.MaskedArray(filled, missing)


def _floats(dtype):
    def column(values, missing):
        return np.where(missing, np.nan, np.asarray(values, float)).astype(dtype)

    return column


def _integers(dtype):
    def column(values, missing):
        if missing.any():
            return _pandas({"int8": "Int8", "uint8": "UInt8"}.get(dtype, "Int64"))(
                np.asarray(values, int), missing
            )
        return np.asarray(values).astype(dtype)

    return column


def _decimals(values, missing):
    return _objects([Decimal(str(v)) for v in values], missing)


def _categories(ordered, unused):
    def column(values, missing):
        levels = sorted(set(values))
        extra = ["unused"] if unused else []
        texts = [None if m else v for v, m in zip(values, missing, strict=True)]
        return pd.Series(pd.Categorical(texts, [*levels, *extra], ordered=ordered))

    return column


def _arrow(kind):
    def column(values, missing):
        items = [
            None if m else v
            for v, m in zip(np.asarray(values).tolist(), missing, strict=True)
        ]
        out = pa.array(items)
        out = out.dictionary_encode() if kind == "dictionary" else out
        return pd.Series(pd.arrays.ArrowExtensionArray(out))

    return column


def _coded(make):
    """Levels by number, in the order of their texts."""

    def column(values, missing):
        codes = np.searchsorted(sorted(set(values)), values)
        return make(codes, missing)

    return column


def _large(codes, missing):
    out = pd.Series(1_152_921_504_606_846_976 + 100 * codes, dtype="Int64")
    out[missing] = pd.NA
    return out


def _dates(codes, missing):
    first = np.datetime64("2020-01-01")
    return np.where(missing, np.datetime64("NaT"), first + codes.astype("m8[D]"))


def _days(codes, missing):
    first = datetime.date(2020, 1, 1)
    return _objects([first + datetime.timedelta(int(c)) for c in codes], missing)


def _numbers(codes, missing):
    return np.where(missing, np.nan, 10.0 + codes)


REAL = {
    "float64": _floats("f8"),
    "float32": _floats("f4"),
    "float16": _floats("f2"),
    "longdouble": _floats(np.longdouble),
    "objects": _objects,
    "decimals": _decimals,
    "masked": _masked,
    "Float64": _pandas("Float64"),
    "Float32": _pandas("Float32"),
    "arrow": _arrow("plain"),
}
WHOLE = REAL | {
    "int8": _integers("int8"),
    "uint8": _integers("uint8"),
    "int16": _integers("int16"),
    "uint64": _integers("uint64"),
    "Int64": _pandas("Int64"),
    "Int16": _pandas("Int16"),
}
TEXT = {
    "texts": _objects,
    "string": _pandas("string"),
    "arrow string": _arrow("plain"),
    "category": _categories(ordered=False, unused=False),
    "unused levels": _categories(ordered=False, unused=True),
    "ordered": _categories(ordered=True, unused=False),
}
GROUP = TEXT | {
    "dictionary": _arrow("dictionary"),  # whose levels have an order of their own
    "large": _coded(_large),
    "dates": _coded(_dates),
    "days": _coded(_days),
    "numbers": _coded(_numbers),
    "whole": _coded(_integers("int64")),
    "masked whole": _coded(_masked),
}
KINDS = {
    "y": REAL, "x": REAL, "p": REAL, "k": WHOLE, "c": WHOLE,
    "b": WHOLE, "g": GROUP, "h": GROUP, "f": TEXT,
}  # fmt: skip

# Names that formulas have to quote, and one that they need not
NAMES = [
    "{}", "{} 1", "1{}", "{}`", "{}.total", "log({})", "{}\n2", "class", "{} ~ g",
    "µ{}", "{}|{}", "__{}__", "ﬁ{}", "{}\xa0m", "C({})", "{}:{}", "if {}", "'{}'",
    '"{}"',
]  # fmt: skip


# Containers ---------------------------------------------------------------------------


def _frame(index):
    def container(columns):
        frame = pd.DataFrame(
            {k: pd.Series(v).reset_index(drop=True) for k, v in columns.items()}
        )
        frame.index = index(len(frame))
        return frame

    return container


CONTAINERS = {
    "dict": dict,
    "frame": _frame(pd.RangeIndex),
    "labels": _frame(lambda n: pd.Index([f"r{i}" for i in range(n)])),
    "turned": _frame(lambda n: pd.Index(np.arange(n)[::-1])),
    "repeated": _frame(lambda n: pd.Index(np.arange(n) // 2)),
    "polars": lambda columns: pl.from_pandas(_frame(pd.RangeIndex)(columns)),
    "arrow": lambda columns: pa.Table.from_pandas(_frame(pd.RangeIndex)(columns)),
}
PLAIN_ONLY = {"masked", "masked whole", "longdouble", "float16", "decimals", "days"}


@dataclass(frozen=True)
class Disguise:
    """kinds: column -> how it comes; names: column -> its name; missing: (rows,)."""

    kinds: dict[str, str]
    names: dict[str, str]
    container: str
    missing: tuple[tuple[str, int], ...]

    def table(self, columns: dict[str, np.ndarray]):
        """The table in disguise."""
        out = {}
        for name, values in columns.items():
            gone = np.zeros(len(values), bool)
            gone[[row for own, row in self.missing if own == name]] = True
            kind = self.kinds.get(name)
            made = KINDS[name][kind](values, gone) if kind else values
            out[self.names.get(name, name)] = made
        own = "dict" if PLAIN_ONLY & set(self.kinds.values()) else self.container
        return CONTAINERS[own](out)

    def kept(self, used: set[str]) -> np.ndarray:
        """Rows without a missing value in the columns that a model uses."""
        gone = [row for name, row in self.missing if name in used]
        return np.setdiff1d(np.arange(N), gone)

    def quoted(self, formula: str) -> str:
        """The formula with this table's names; ``{x}`` stands for a column."""
        own = {}
        for name in (*KINDS, "w", "o"):
            new = self.names.get(name, name)
            own[name] = new if new == name else "`" + new.replace("`", "``") + "`"
        return formula.format(**own)
