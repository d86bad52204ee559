"""Saving a fit without pickle: one zip file of JSON and plain arrays.

``fit.json`` is a tree of JSON values in which an array stands as ``{"array": key}`` and
lies in the file as ``key.npy``; text arrays are JSON lists. What cannot be written is
refused by name, and a file can only make the records listed in ``RECORDS``: opening one
that somebody sent runs none of its content. Its formula is evaluated at a prediction,
with the known functions of ``jaxglmm.formula.functions`` and no others.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import DataError
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.kinds import Kinds, record
from jaxglmm.formula import jsonable
from jaxglmm.formula.design import Design, FixedTerm, RandomTerm
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.recipes import recipe_from_dict, with_functions
from jaxglmm.formula.tables import Column, Columns

FORMAT, VERSION = "jaxglmm fit", 1
RECORDS = {
    cls.__name__: cls
    for cls in (Column, Design, Estimates, FixedTerm, NullSpace, RandomTerm)
}


def save(fit: FittedModel, path) -> None:
    """Write a fit to ``path``."""
    target = path if hasattr(path, "write") else _arguments.new_file(path)
    arrays: dict[str, np.ndarray] = {}
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "design": _pack(fit.design, arrays, "design"),
        "estimates": _pack(fit.kept_estimates(), arrays, "estimates"),
        "diagnostics": _pack(_plain(fit.kept_diagnostics()), arrays, "diagnostics"),
        "ddf": fit.ddf,
        "model": fit.model_facts(),
    }
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fit.json", json.dumps(tree))
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            file.writestr(f"{key}.npy", buffer.getvalue())


def load(
    path,
    functions: Mapping[str, Any] | None = None,
    trusted: bool = False,
    kinds: Kinds = record,
) -> Any:
    """Read a fit that ``save`` wrote.

    Args:
        path: of the file.
        functions: the user's own functions that its formula calls, by name.
        trusted: whether the formula may use all of Python at a prediction.
        kinds: classes of what is made, by name.
    """
    path = _arguments.file(path)
    trusted = _arguments.flag("trusted", trusted)
    try:
        with zipfile.ZipFile(path) as file:
            tree = json.loads(file.read("fit.json"))
            arrays = {
                name.removesuffix(".npy"): np.load(
                    io.BytesIO(file.read(name)), allow_pickle=False
                )
                for name in file.namelist()
                if name.endswith(".npy")
            }
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"{str(path)!r} is not a file that fit.save wrote") from error
    _check_version(tree, path)
    design = with_functions(_unpack(tree["design"], arrays), functions, trusted)
    estimates = _unpack(tree["estimates"], arrays)
    diagnostics = _unpack(tree["diagnostics"], arrays)
    facts = tree.get("model") or {}
    kind = "linear"
    if facts:
        kind = "posterior" if "bayes" in facts else "generalised"
    return kinds(kind).restored(design, estimates, diagnostics, tree["ddf"], facts)


def _check_version(tree, path) -> None:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise DataError(f"{str(path)!r} is not a file that fit.save wrote")
    if tree["version"] > VERSION:
        raise DataError(
            f"{str(path)!r} was written by a newer jaxglmm (format {tree['version']}, "
            f"this one reads up to {VERSION}): upgrade jaxglmm to read it"
        )


def _plain(values: Mapping) -> dict:
    """The diagnostics that can be written; the others are left out."""
    out = {}
    for key, value in values.items():
        try:
            json.dumps(_pack(value, {}, key))
        except (DataError, TypeError):
            continue
        out[key] = value
    return out


def _pack(value, arrays: dict, where: str):
    """A JSON value; arrays go to ``arrays``."""
    if value is None or isinstance(value, str | bool | int | float):
        return (
            value
            if type(value) in (str, bool, int, float, type(None))
            else _base(value)
        )
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        return _pack(value.item(), arrays, where)
    if dataclasses.is_dataclass(value) and type(value).__name__ in RECORDS:
        return _pack_record(value, arrays, where)
    if isinstance(value, Columns):
        return {"kind": "columns", "value": _pack(value.columns, arrays, where)}
    if isinstance(value, list):
        return [_pack(v, arrays, where) for v in value]
    if isinstance(value, tuple | frozenset | set):
        items = sorted(value) if isinstance(value, frozenset | set) else value
        kind = "tuple" if isinstance(value, tuple) else "set"
        return {"kind": kind, "items": [_pack(v, arrays, where) for v in items]}
    if isinstance(value, Mapping):
        pairs = [
            [_pack(k, arrays, where), _pack(v, arrays, f"{where}.{k}")]
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
            fields[f.name] = _pack(item, arrays, f"{where}.{f.name}")
    return {"kind": "record", "name": type(value).__name__, "fields": fields}


def _pack_recipe(recipe, arrays: dict, where: str):
    """The recipe's own dictionary; None where there is none (no new data then)."""
    if recipe is None:
        return None
    return {"kind": "recipe", "value": _pack(recipe.to_dict(), arrays, where)}


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
        return _pack(value, arrays, where)
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


def _unpack(tree, arrays: Mapping[str, np.ndarray]):
    """The value that ``_pack`` wrote."""
    if isinstance(tree, list):
        return [_unpack(v, arrays) for v in tree]
    if not isinstance(tree, dict):
        return tree
    return UNPACK[tree["kind"]](tree, lambda value: _unpack(value, arrays), arrays)


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
