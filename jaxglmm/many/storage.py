"""Saving many fits without pickle: a zip file of JSON and plain arrays.

The arrays of a ``Fits`` as they are, and with ``data=True`` what makes the single fits:
the design, the responses, the split into data sets and the model. The pieces are packed
as those of a single fit are (``fitting.storage``).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import storage as store
from jaxglmm.fitting.kinds import Kinds
from jaxglmm.formula.recipes import with_functions
from jaxglmm.many import file as fits_file
from jaxglmm.many import posteriors_storage
from jaxglmm.many.archive import read, write
from jaxglmm.many.collection import Source
from jaxglmm.many.ragged import Split
from jaxglmm.many.record import FittedModels
from jaxglmm.many.responses import Responses

FORMAT, VERSION = "jaxglmm fits", 1
LEFT_OUT = ("source",)

F = TypeVar("F", bound=FittedModels)


def save(fits: FittedModels, path: Any, data: bool) -> None:
    """Write to ``path``."""
    data = _arguments.flag("data", data)
    if data and fits.source is None:
        raise NotApplicableError(
            "save(data=True): these fits have no data (they were drawn, or came from a "
            "file without)"
        )
    arrays: dict[str, np.ndarray] = {}
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "fields": {
            f.name: store._pack(_plain(getattr(fits, f.name)), arrays, f.name)
            for f in fields(fits)
            if f.name not in LEFT_OUT
        },
        "source": _pack_source(fits.source, arrays) if data else None,
    }
    write(path, tree, arrays)


def _plain(value: Any) -> Any:
    """Memory maps and views as arrays of their own."""
    return np.array(value) if isinstance(value, np.memmap) else value


def is_fits(path: Any) -> bool:
    """Whether a file is one of many fits, or the table of a run with ``file=``."""
    path = _arguments.file(path)
    with path.open("rb") as file:
        if file.read(len(fits_file.MAGIC)) == fits_file.MAGIC:
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "fits.json" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def load(
    path: Any,
    functions: Mapping[str, Any] | None,
    trusted: bool,
    kinds: Kinds,
) -> Any:
    """Read what ``save`` wrote, or the table of a run with ``file=``.

    Args:
        path: of the file.
        functions: the user's own functions that its formula calls, by name.
        trusted: whether the formula may use all of Python at a prediction.
        kinds: classes of what is made, by name.
    """
    path = _arguments.file(path)
    trusted = _arguments.flag("trusted", trusted)
    with path.open("rb") as file:
        is_table = file.read(len(fits_file.MAGIC)) == fits_file.MAGIC
    if is_table:
        return _table(path, kinds("many"))
    tree, arrays = read(path)
    if tree.get("format") == posteriors_storage.POSTERIORS:
        return posteriors_storage.unpacked(tree, arrays, kinds("posteriors"))
    if tree.get("format") != FORMAT:
        raise DataError(f"{str(path)!r} is not a file that fits.save wrote")
    if tree["version"] > VERSION:
        raise DataError(
            f"{str(path)!r} was written by a newer jaxglmm (format {tree['version']}, "
            f"this one reads up to {VERSION}): upgrade jaxglmm to read it"
        )
    given = {k: store._unpack(v, arrays) for k, v in tree["fields"].items()}
    source = None if tree["source"] is None else _source(tree["source"], arrays)
    if source is not None:
        design = with_functions(source.design, functions, trusted)
        source = replace(source, design=design)
    return kinds("many")(**given, source=source)


def _table(path: Path, make: type[F]) -> F:
    """The table of a run, finished or not, where it lies."""
    header, offset = fits_file.read_header(path)
    table = np.memmap(path, np.float64, "r", offset, tuple(header["shape"]))
    facts = {k: v for k, v in header.items() if k in ("title", "formula", "family")}
    labels = header.get("labels")
    return make.from_table(
        table,
        fits_file.from_json(header["columns"]),
        None if labels is None else np.asarray(labels, object),
        facts=facts,
    )


def _pack_source(source: Source, arrays: dict) -> dict:
    def pack(value: Any, where: str) -> Any:
        if isinstance(value, Responses):
            taken = value.take(np.arange(len(value)))
            return {"responses": store._pack(taken, arrays, where)}
        return {"value": store._pack(value, arrays, where)}

    out = {
        name: pack(getattr(source, name), name)
        for name in ("design", "responses", "weights", "offset", "trials", "tol")
    }
    split = source.split
    out["split"] = {
        "value": None if split is None else store._pack(split.parts(), arrays, "split")
    }
    out["satterthwaite"] = {"value": source.satterthwaite}
    out["model"] = {"value": _pack_model(source)}
    return out


def _pack_model(source: Source) -> dict:
    if source.family is None:
        return {"reml": source.model.reml}
    from jaxglmm.fitting.fitted_generalised import asdict_static, family_class

    family = source.family
    if family_class(family.name) is not type(family):
        raise NotApplicableError(
            f"save(data=True): family {family.name!r} is not one of jaxglmm's own"
        )
    return {
        "family": family.name,
        "link": family.link.name,
        "integration": asdict_static(source.model),
    }


def _source(saved: dict, arrays: dict) -> Source:
    def unpack(part: dict) -> Any:
        if "responses" in part:
            values = store._unpack(part["responses"], arrays)
            return Responses(values, len(values))
        return store._unpack(part["value"], arrays)

    given = {k: unpack(v) for k, v in saved.items() if k != "model"}
    if given["split"] is not None:
        given["split"] = Split.from_parts(given["split"])
    model = saved["model"]["value"]
    if "reml" in model:
        return Source(**given, model=Maximise(model["reml"]))
    from jaxglmm.estimate.generalised import LaplaceMarginal
    from jaxglmm.fitting.fitted_generalised import family_of

    return Source(
        **given,
        model=LaplaceMarginal(**model["integration"]),
        family=family_of(model),
    )
