"""Saving many fits without pickle: a zip file of JSON and plain arrays.

The arrays of a ``Fits`` as they are, and with ``data=True`` what makes the single fits:
the design, the responses, the split into data sets and the model. The pieces are packed
as those of a single fit are (``fitting.storage``).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting.archive import Format
from jaxglmm.fitting.kinds import Kinds
from jaxglmm.fitting.packing import pack, unpack
from jaxglmm.formula.recipes import with_functions
from jaxglmm.many import file as fits_file
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.posteriors import FittedPosteriors
from jaxglmm.many.ragged import SplitTable
from jaxglmm.many.record import FittedModels
from jaxglmm.many.responses import Responses

# large arrays: the fastest compression
FITS = Format("jaxglmm fits", 1, "fits.json", "fits.save", 1)
POSTERIORS = Format("jaxglmm posteriors", 1, "fits.json", "Posteriors.save", 1)

F = TypeVar("F", bound=FittedModels)
P = TypeVar("P", bound=FittedPosteriors)


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
        "fields": _packed(fits, arrays, "source"),
        "source": _pack_source(fits.source, arrays) if data else None,
    }
    FITS.write(path, tree, arrays)


def save_posteriors(posteriors: FittedPosteriors, path: Any, draws: bool) -> None:
    """Write to ``path``; without the draws where they are not wanted."""
    if not _arguments.flag("draws", draws):
        posteriors = replace(posteriors, draws=None)
    arrays: dict[str, np.ndarray] = {}
    tree = {"fields": _packed(posteriors, arrays, "make")}
    POSTERIORS.write(path, tree, arrays)


def _packed(record: Any, arrays: dict[str, np.ndarray], but: str) -> dict[str, Any]:
    """The fields of a record except one."""
    return {
        f.name: pack(_plain(getattr(record, f.name)), arrays, f.name)
        for f in fields(record)
        if f.name != but
    }


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
            return FITS.entry in archive.namelist()
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
    tree, arrays = FITS.read(path)
    if tree.get("format") == POSTERIORS.name:
        return _posteriors(tree, arrays, path, kinds("posteriors"))
    FITS.check(tree, path)
    given = _unpacked(tree, arrays)
    source = None if tree["source"] is None else _source(tree["source"], arrays)
    if source is not None:
        design = with_functions(source.design, functions, trusted)
        source = replace(source, design=design)
    return kinds("many")(**given, source=source)


def load_posteriors(path: Any, make: Callable[..., P]) -> P:
    """Read what ``save_posteriors`` wrote; make: the class of what is made.

    Raises:
        DataError: no such file, or another kind of file.
    """
    path = _arguments.file(path)
    return _posteriors(*POSTERIORS.read(path), path, make)


def _posteriors(tree: dict, arrays: dict, path: Any, make: Callable[..., P]) -> P:
    """Without what makes the single fits, which is not in a file."""
    POSTERIORS.check(tree, path)
    return make(**_unpacked(tree, arrays))


def _unpacked(tree: dict, arrays: dict) -> dict[str, Any]:
    return {k: unpack(v, arrays) for k, v in tree["fields"].items()}


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


def _pack_source(source: ModelSource, arrays: dict) -> dict:
    def part(value: Any, where: str) -> Any:
        if isinstance(value, Responses):
            taken = value.take(np.arange(len(value)))
            return {"responses": pack(taken, arrays, where)}
        return {"value": pack(value, arrays, where)}

    out = {
        name: part(getattr(source, name), name)
        for name in ("design", "responses", "weights", "offset", "trials", "tol")
    }
    split = source.split
    out["split"] = {
        "value": None if split is None else pack(split.parts(), arrays, "split")
    }
    out["satterthwaite"] = {"value": source.satterthwaite}
    out["model"] = {"value": _pack_model(source)}
    return out


def _pack_model(source: ModelSource) -> dict:
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
        "options": asdict_static(family),
        "integration": source.model.facts,
    }


def _source(saved: dict, arrays: dict) -> ModelSource:
    def whole(part: dict) -> Any:
        if "responses" in part:
            values = unpack(part["responses"], arrays)
            return Responses(values, len(values))
        return unpack(part["value"], arrays)

    given = {k: whole(v) for k, v in saved.items() if k != "model"}
    if given["split"] is not None:
        given["split"] = SplitTable.from_parts(given["split"])
    model = saved["model"]["value"]
    if "reml" in model:
        return ModelSource(**given, model=Maximise(model["reml"]))
    from jaxglmm.fitting.fitted_generalised import family_of
    from jaxglmm.integrate.marginals import from_facts

    return ModelSource(
        **given,
        model=from_facts(model["integration"]),
        family=family_of(model),
    )
