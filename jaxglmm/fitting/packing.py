"""Values as JSON and plain arrays, and back, without pickle.

A tree of JSON values in which an array stands as ``{"array": key}`` and is kept beside
it; text arrays are JSON lists. What cannot be written is refused by name, and a tree
can only make the records listed in ``RECORDS``: reading one that somebody sent runs
none of its content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula import jsonable
from jaxglmm.formula.design import (
    Design,
    FixedTerm,
    KnownLevels,
    RandomTerm,
    ResidualTerm,
)
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.recipes import recipe_from_dict
from jaxglmm.formula.tables import Column, Columns

RECORDS = {
    cls.__name__: cls
    for cls in (
        Column,
        Design,
        Estimates,
        FixedTerm,
        KnownLevels,
        NullSpace,
        RandomTerm,
        ResidualTerm,
    )
}


def pack(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """A JSON value; arrays go to ``arrays``."""
    if value is None or isinstance(value, str | bool | int | float):
        return (
            value
            if type(value) in (str, bool, int, float, type(None))
            else _base(value)
        )
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        return pack(value.item(), arrays, where)
    if dataclasses.is_dataclass(value) and type(value).__name__ in RECORDS:
        return _pack_record(value, arrays, where)
    if isinstance(value, Columns):
        return {"kind": "columns", "value": pack(value.columns, arrays, where)}
    if isinstance(value, list):
        return [pack(v, arrays, where) for v in value]
    if isinstance(value, tuple | frozenset | set):
        items = sorted(value) if isinstance(value, frozenset | set) else value
        kind = "tuple" if isinstance(value, tuple) else "set"
        return {"kind": kind, "items": [pack(v, arrays, where) for v in items]}
    if isinstance(value, Mapping):
        pairs = [
            [pack(k, arrays, where), pack(v, arrays, f"{where}.{k}")]
            for k, v in value.items()
        ]
        return {"kind": "dict", "items": pairs}
    return _pack_array(value, arrays, where)


def _base(value):
    """A subclass of a JSON type (numpy's float64 is one) as that type."""
    kinds = (bool, int, float, str)
    return next(kind(value) for kind in kinds if isinstance(value, kind))


def _pack_record(value, arrays: dict, where: str) -> dict:
    fields = {}
    for f in dataclasses.fields(value):
        item = getattr(value, f.name)
        if f.name == "recipe":
            fields[f.name] = _pack_recipe(item, arrays, f"{where}.recipe")
        else:
            fields[f.name] = pack(item, arrays, f"{where}.{f.name}")
    return {"kind": "record", "name": type(value).__name__, "fields": fields}


def _pack_recipe(recipe, arrays: dict, where: str):
    """The recipe's own dictionary; None where there is none (no new data then)."""
    if recipe is None:
        return None
    return {"kind": "recipe", "value": pack(recipe.to_dict(), arrays, where)}


def _pack_array(value, arrays: dict, where: str) -> dict:
    if isinstance(value, pd.RangeIndex):
        span = [value.start, value.stop, value.step]
        name = _pack_label(value.name, arrays, where)
        return {"kind": "range", "span": span, "name": name}
    if isinstance(value, pd.CategoricalDtype):
        return _categories(value, arrays, where)
    if isinstance(value, pd.Series | pd.Index | pd.Categorical):
        return _pack_pandas(value, arrays, where)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {type(value).__name__} cannot be saved") from error
    if array.dtype == object or array.dtype.kind == "U":
        if array.ndim == 0:
            raise DataError(f"{where}: {type(value).__name__} cannot be saved")
        items = [_pack_label(v, arrays, where) for v in array.tolist()]
        return {"kind": "objects", "items": items, "text": array.dtype.kind == "U"}
    key = f"a{len(arrays)}"
    arrays[key] = array
    return {"kind": "array", "key": key}


def _pack_label(value, arrays: dict, where: str):
    """An element of an array of objects: a label, of whatever kind."""
    plain = value is None or isinstance(value, str | bool | int | float)
    if plain or isinstance(value, list | Mapping):
        return pack(value, arrays, where)
    return {"kind": "label", "value": jsonable.label_or_text(value)}


def _categories(dtype: pd.CategoricalDtype, arrays: dict, where: str) -> dict:
    categories = _pack_array(dtype.categories.to_numpy(), arrays, where)
    return {"kind": "categories", "values": categories, "ordered": bool(dtype.ordered)}


def _pack_pandas(value, arrays: dict, where: str) -> dict:
    """Series and categoricals as their values; an index keeps its name."""
    if isinstance(value, pd.MultiIndex):
        names = [_pack_label(name, arrays, where) for name in value.names]
        items = [_pack_label(v, arrays, where) for v in value.to_list()]
        return {"kind": "multiindex", "items": items, "names": names}
    if isinstance(value.dtype, pd.CategoricalDtype) and not isinstance(value, pd.Index):
        cat = value.cat if isinstance(value, pd.Series) else value
        codes = _pack_array(np.asarray(cat.codes), arrays, where)
        dtype = _categories(value.dtype, arrays, where)
        return {"kind": "categorical", "codes": codes, "dtype": dtype}
    values = _pack_array(value.to_numpy(), arrays, where)
    if isinstance(value, pd.Index):
        name = _pack_label(value.name, arrays, where)
        return {"kind": "index", "values": values, "name": name}
    return values


def unpack(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that ``pack`` wrote."""
    if isinstance(tree, list):
        return [unpack(v, arrays) for v in tree]
    if not isinstance(tree, dict):
        return tree
    return UNPACK[tree["kind"]](tree, lambda value: unpack(value, arrays), arrays)


def _unpack_record(tree, unpack, arrays):
    fields = {
        name: unpack(value)
        for name, value in tree["fields"].items()
        if name != "recipe"
    }
    recipe = tree["fields"].get("recipe")
    if recipe is not None:
        saved = unpack(recipe["value"])
        fields["recipe"] = recipe_from_dict(saved, variables=fields.get("variables"))
    record = RECORDS[tree["name"]]
    known = {f.name for f in dataclasses.fields(record)}
    return record(**{name: v for name, v in fields.items() if name in known})


def _unpack_objects(tree, unpack, arrays):
    items = [unpack(v) for v in tree["items"]]
    if tree["text"]:
        return np.array(items, dtype=str)
    out = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):  # tuples stay one label each
        out[i] = item
    return out


def _unpack_categorical(tree, unpack, arrays):
    return pd.Categorical.from_codes(unpack(tree["codes"]), dtype=unpack(tree["dtype"]))


UNPACK = {
    "record": _unpack_record,
    "objects": _unpack_objects,
    "categorical": _unpack_categorical,
    "columns": lambda t, unpack, arrays: Columns(unpack(t["value"])),
    "array": lambda t, unpack, arrays: arrays[t["key"]],
    "label": lambda t, unpack, arrays: jsonable.unpack(t["value"]),
    "tuple": lambda t, unpack, arrays: tuple(unpack(v) for v in t["items"]),
    "set": lambda t, unpack, arrays: frozenset(unpack(v) for v in t["items"]),
    "dict": lambda t, unpack, arrays: {unpack(k): unpack(v) for k, v in t["items"]},
    "range": lambda t, unpack, arrays: pd.RangeIndex(
        *t["span"], name=unpack(t["name"])
    ),
    "index": lambda t, unpack, arrays: pd.Index(
        unpack(t["values"]), name=unpack(t["name"]), tupleize_cols=False
    ),
    "multiindex": lambda t, unpack, arrays: pd.MultiIndex.from_tuples(
        unpack(t["items"]), names=unpack(t["names"])
    ),
    "categories": lambda t, unpack, arrays: pd.CategoricalDtype(
        unpack(t["values"]), ordered=t["ordered"]
    ),
}
