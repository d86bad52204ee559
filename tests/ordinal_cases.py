"""Ordinal models with R's answers (package ordinal): data and reference values."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import jaxglmm as jg

HERE = Path(__file__).parent
LEVELS = {
    ("wine_rating", "rating"): ["1", "2", "3", "4", "5"],
    ("sim_ord", "y"): ["1", "2", "3", "4", "5"],
    ("sim_ordcross", "y"): ["low", "mid", "high", "top"],
}


@cache
def _read(name: str) -> pd.DataFrame:
    data = pd.read_csv(HERE / "data" / f"{name}.csv.gz")
    for (where, column), levels in LEVELS.items():
        if where == name:
            text = data[column].astype(str)
            data[column] = pd.Categorical(text, levels, ordered=True)
    for column in ("judge", "bottle"):
        if column in data:
            data[column] = data[column].astype(str)
    return data


def data(name: str) -> pd.DataFrame:
    return _read(name).copy()


@cache
def reference(name: str) -> dict:
    return json.loads((HERE / "reference" / f"{name}.json").read_text())


def fitted(name: str, **options):
    """The model of a reference, fitted."""
    r = reference(name)
    family = jg.Cumulative(r["link"], r.get("threshold", "flexible"))
    if "AGQ" in r["method"]:
        options["method"] = jg.AGQ(int(r["method"].split()[1]))
    return jg.glmm(r["formula"], data(r["dataset"]), family=family, **options)


def values(found) -> np.ndarray:
    return np.array([*found.values()] if isinstance(found, dict) else found, float)
