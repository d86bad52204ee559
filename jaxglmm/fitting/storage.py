"""Saving a fit without pickle: one zip file of JSON and plain arrays.

What is in it, and that opening a file that somebody sent runs none of its content, is
told in ``packing`` and ``archive``. Its formula is evaluated at a prediction, with the
known functions of ``jaxglmm.formula.functions`` and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError
from jaxglmm.fitting.archive import Format
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.kinds import Kinds, kind_of, posterior_kind, record
from jaxglmm.fitting.packing import pack, unpack
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.recipes import with_functions

FIT = Format("jaxglmm fit", 1, "fit.json", "fit.save")


def save(fit: FittedModel, path) -> None:
    """Write a fit to ``path``."""
    arrays: dict[str, np.ndarray] = {}
    tree = {
        "design": pack(fit.design, arrays, "design"),
        "estimates": pack(fit.kept_estimates(), arrays, "estimates"),
        "diagnostics": pack(_plain(fit.kept_diagnostics()), arrays, "diagnostics"),
        "ddf": fit.ddf,
        "model": fit.model_facts(),
        "robust": pack(fit.robust_facts(), arrays, "robust"),
    }
    FIT.write(path, tree, arrays)


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
    tree, arrays = FIT.read(path)
    FIT.check(tree, path)
    design = with_functions(unpack(tree["design"], arrays), functions, trusted)
    estimates = unpack(tree["estimates"], arrays)
    diagnostics = unpack(tree["diagnostics"], arrays)
    facts = tree.get("model") or {}
    kind = "linear"
    if facts:
        family = facts.get("family", "")
        kind = kind_of(family, bool(design.parts))
        kind = posterior_kind(family) if "bayes" in facts else kind
        if design.residual is not None:
            kind = "correlated" if design.residual.part is None else "dispersed"
    saved = Saved(design, estimates, diagnostics, tree["ddf"], facts)
    fit = kinds(kind).restored(saved)
    fit.take_robust(unpack(tree.get("robust"), arrays))
    return fit


def _plain(values: Mapping) -> dict:
    """The diagnostics that can be written; the others are left out."""
    out = {}
    for key, value in values.items():
        try:
            json.dumps(pack(value, {}, key))
        except (DataError, TypeError):
            continue
        out[key] = value
    return out
