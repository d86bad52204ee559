"""Programs made beforehand, where many processes will fit the same kinds of models."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd

from jaxglmm import datasets
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.api.models import glmm, lmm
from jaxglmm.runtime import cache, hosted, progress, store

SICK = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
USUAL = (  # formula, data set, family: what courses and papers begin with
    ("Reaction ~ Days + (1 | Subject)", "sleepstudy", "gaussian"),
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy", "gaussian"),
    ("Reaction ~ Days + (Days || Subject)", "sleepstudy", "gaussian"),
    ("Yield ~ 1 + (1 | Batch)", "Dyestuff", "gaussian"),
    ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", "gaussian"),
    ("strength ~ 1 + (1 | batch / cask)", "Pastes", "gaussian"),
    ("distance ~ age * Sex + (age | Subject)", "Orthodont", "gaussian"),
    (SICK, "cbpp", "binomial"),
    ("incidence ~ period + offset(np.log(size)) + (1 | herd)", "cbpp", "poisson"),
    ("incidence ~ period + offset(np.log(size)) + (1 | herd)", "cbpp", "nbinom2"),
)


def warm(*models: Any, progress: bool | None = None) -> pd.DataFrame:
    """Make the programs of models on disk, so that later processes only read them.

    A program belongs to the shape of a model: numbers of levels, of columns, and in a
    generalised one of rows. Give the models that will be fitted; without any, the
    usual ones of the data sets of this package. Fits, standard errors, tests, refits
    and bootstraps of 1,000 (linear models) are made ready; what is there is only read.

    Args:
        *models: tuples of formula, data and, unless it is gaussian, family.
        progress: show a bar (None: where somebody is looking, and it takes a while).

    Returns:
        One row a model: ``formula``, ``family``, the programs ``made`` and those
        ``there`` already, and ``seconds``.

    Raises:
        ArgumentError: a model is no such tuple.
        NotApplicableError: programs are not kept on disk, or cannot be.

    Example:
        >>> import jaxglmm as jg
        >>> sleep = jg.datasets.load("sleepstudy")
        >>> jg.warm(("Reaction ~ Days + (1 | Subject)", sleep))  # doctest: +SKIP
    """
    chosen = [_model(given) for given in models or USUAL]
    if cache.program_folder() is None or not cache.keeps():
        raise NotApplicableError(
            "compiled programs are not kept on disk here: JAXGLMM_CACHE=off or "
            "jg.disable_compilation_cache() says so, the folder cannot be written, or "
            "JAX's own cache is on (jg.enable_compilation_cache() uses both)"
        )
    rows = []
    with _bar(len(chosen), progress) as bar:
        for formula, data, family in chosen:
            rows.append(_warmed(formula, data, family))
            bar.update(1)
    return pd.DataFrame(rows)


def _bar(total: int, shown: bool | None) -> Any:
    return progress.bar(total, shown, "model", "compiling")


def _model(given: Any) -> tuple[str, Any, Any]:
    """Formula, data and family of what was given."""
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise ArgumentError(
            "each model is a tuple (formula, data) or (formula, data, family), not "
            f"{type(given).__name__}"
        )
    formula, data, family = (*given, "gaussian")[:3]
    return formula, datasets.load(data) if isinstance(data, str) else data, family


def _warmed(formula: str, data: Any, family: Any) -> dict[str, Any]:
    """One model: everything that has a program is called once."""
    start, made, there = time.perf_counter(), store.written(), store.read
    with hosted.always_compiled():
        if family == "gaussian":
            fit = lmm(formula, data)
            str(fit.summary(ddf="kenward-roger"))
            fit.bootstrap(progress=False)
        else:
            fit = glmm(formula, data, family=family)
        str(fit.summary())
    return {
        "formula": formula,
        "family": family if isinstance(family, str) else type(family).__name__,
        "made": store.written() - made,
        "there": store.read - there,
        "seconds": time.perf_counter() - start,
    }
