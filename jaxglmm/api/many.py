"""The front door to many models at once: ``fit_many``."""

from __future__ import annotations

import time
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import (
    ConvergenceWarning,
    ModelError,
    NotApplicableError,
)
from jaxglmm._hints import unknown_argument
from jaxglmm.api.annotated import annotated
from jaxglmm.api.components import composed, right_sides, spelt
from jaxglmm.api.given import (
    check_numbers,
    estimator_of,
    integration_of,
)
from jaxglmm.api.sources import source_of
from jaxglmm.api.streamed import is_source
from jaxglmm.estimate.methods import bayes_method
from jaxglmm.formula import (
    caller_context,
    check_quadrature,
    notices,
)
from jaxglmm.many import plan as fits_engines
from jaxglmm.many import scheduler as fits_run
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.posteriors import fit_posteriors
from jaxglmm.model.families import family_from
from jaxglmm.postestimation.collection import tables as fits_tables
from jaxglmm.results.fits import Fits
from jaxglmm.results.posteriors import Posteriors
from jaxglmm.runtime import executors
from jaxglmm.runtime.memory import programs
from jaxglmm.runtime.progress import bar as progress_bar


def fit_many(
    formula: str,
    data: Any,
    *,
    responses: Any = None,
    by: str | list[str] | None = None,
    family: Any = "gaussian",
    method: Any = None,
    weights: Any = None,
    offset: Any = None,
    trials: Any = None,
    devices: Any = "all",
    progress: bool | None = None,
    tol: float = 1e-8,
    satterthwaite: bool = True,
    file: Any = None,
    priors: Any = None,
    residual: str | None = None,
    zi: Any = None,
    dispersion: Any = None,
    known: dict[str, Any] | None = None,
    layer: str | None = None,
    mask: Any = None,
    executor: Any = None,
    **unknown: Any,
) -> Fits | Posteriors:
    """Fit one formula to many responses, or to many data sets.

    Many responses of one design (genes, voxels, simulations), one long table cut into
    data sets, a list of tables, or the columns of an AnnData, whose table is ``obs``::

        jg.fit_many("expr ~ dose + (1 | donor)", samples, responses=Y)   # Y (n, D)
        jg.fit_many("y ~ x + (x | subject)", table, by="experiment")
        jg.fit_many("y ~ x + (x | subject)", [first, second, third])
        jg.fit_many("y ~ dose + (1 | donor)", adata, layer="counts", offset="log_size")

    Args:
        formula: in lme4's syntax. With ``responses`` its left side is a name for them.
        data: as for ``lmm``; a list of such tables; an AnnData. With ``by`` also what
            is read in batches; frames of Dask, Ray and Spark stay with these engines.
        responses: (n, D) array, memory map, sparse matrix or frame, one column each, or
            images, NIfTI or CIFTI. A missing value is a row less for that response.
        by: columns of ``data`` that say which data set a row belongs to; factors and
            transformations are coded over all rows.
        family: as for ``glmm``; "gaussian" makes linear mixed models.
        method: "reml" (default) or "ml" for linear models, "laplace" (default) or "agq"
            for others; or the presets' objects. Posteriors: "map", "vb",
            "nested-laplace" or their objects, one data set after the other.
        weights: prior weights: column name, (n,), or (n, D) with ``responses``.
        offset: part of the predictor, likewise; "log_size" of an AnnData: its totals'.
        trials: of binomial responses: column name, number, (n,) or (n, D).
        devices: "all", "cpu", "gpu", or JAX devices to share the data sets among.
        progress: show a bar; None: where it takes more than a moment.
        tol: stop when less than this is still to gain, in units of the criterion.
        satterthwaite: degrees of freedom of linear models; False for n - p.
        file: where the table is kept while it grows, and an interrupted run goes on;
            of data in batches a folder, a Parquet file a part.
        priors: of a Bayesian method (one model after the other), ``jg.Priors(...)``.
        residual: covariance of the residuals of linear models, as for ``lmm``.
        zi: formula of the probability of added zeros, as for ``glmm``.
        dispersion: likewise of the dispersion; ``nominal`` too, as for ``clmm``.
        known: covariances between levels, as for ``lmm``; ``responses``.
        layer: of an AnnData, the layer with the responses; None for X.
        mask: of images, voxels to fit, or n of what each has; None for what varies.
        executor: a ``concurrent.futures.Executor`` or Dask client, where chunks run.
        unknown: ``nominal``, ``ziformula``, ``dispformula``; no others, see ``lmm``.

    Returns:
        ``Fits``, or ``Posteriors``. What cannot be fitted has a status and NaN.

    Raises:
        FormulaError, DataError, ModelError: for all, never for one data set alone.

    Method: of ``lmm`` and ``glmm``, in one program; levels of one design by moments.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> Y = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep).simulate(50, seed=1).T
    >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
    >>> fits.coefficients.shape, fits.converged.sum().item()
    ((50, 2), 50)
    """
    asked = {**locals(), "unknown": dict(unknown)}
    parts = _parts(formula, zi, dispersion, family, unknown)
    started = time.perf_counter()
    own, progress = _checked(tol, satterthwaite), _watched(progress)
    kind, model, bayes = _model(family, method, priors, parts)
    if by is not None and responses is None and is_source(data):
        return _of_source(asked, (kind, model, bayes, parts), own, progress)
    file = None if file is None else _arguments.new_file(file, "file")
    read = annotated(data, layer, responses, by, offset, mask)
    _may_have_parts(parts, kind, bayes, weights, known, read.responses)
    context = caller_context(), _of_linear(residual, bayes or kind), parts, known
    given = kind, weights, read.offset, trials, context
    source, labels = source_of(formula, read.data, read.responses, by, given)
    labels, kind = read.named(labels), _complete(source, kind, parts)
    source = replace(source, model=model, family=kind, **own)
    if bayes is not None:
        return _posteriors(source, kind, bayes, priors, labels, progress, file)
    return _run(source, labels, formula, (devices, executor), progress, file, started)


HERE = ("formula", "data", "by", "file", "executor", "progress")
APART = (*HERE, "responses", "priors", "known", "layer", "mask", "unknown")


def _of_source(asked, models, own, progress) -> Fits:
    """Of data sets in a table that is read in batches."""
    from jaxglmm.api.fleet import SET, fit_fleet

    kind, model, bayes, parts = models
    for name in ("known", "layer", "mask"):
        if asked[name] is not None or bayes is not None:
            what = "posteriors" if bayes is not None else f"{name}="
            raise NotApplicableError(
                f"{what} of many data sets need a table in memory: read it, or its "
                "data sets by turns, and pass the frame"
            )
    said = {k: v for k, v in asked.items() if k not in APART} | asked["unknown"] | own
    _may_have_parts(parts, kind, bayes, said["weights"], None, None)
    context = caller_context(), _of_linear(said["residual"], kind), parts, None
    read = kind, said["weights"], said["offset"], said["trials"], context

    def make(table: Any) -> ModelSource:
        source, _ = source_of(asked["formula"], table, None, SET, read)
        return replace(source, model=model, family=_complete(source, kind, parts))

    given = {name: asked[name] for name in HERE} | {"parts": parts}
    given |= {
        "executor": executors.given(asked["executor"]),
        "progress": progress,
    }
    return fit_fleet(
        fit_many,
        make,
        lambda source: fits_engines.plan(source, said["devices"]).columns,
        given,
        said,
    )


def _checked(tol: Any, satterthwaite: Any) -> dict[str, Any]:
    """What a source keeps of the arguments."""
    return {
        "tol": check_numbers(tol, 1)[0],
        "satterthwaite": _arguments.flag("satterthwaite", satterthwaite),
    }


def _watched(progress: Any) -> bool | None:
    """Whether a bar is shown."""
    return None if progress is None else _arguments.flag("progress", progress)


def _complete(source: ModelSource, family: Any, parts: dict[str, str]) -> Any:
    """The family with its categories and its other predictors."""
    if family is not None and family.family_kind in ("ordinal", "nominal"):
        return source.family
    return composed(source.design, family)[1] if parts else family


def _parts(
    formula: Any, zi: Any, dispersion: Any, family: Any, unknown: dict[str, Any]
) -> dict[str, str]:
    """Right sides of the other predictors; refuses arguments that are not known."""
    zi, dispersion, nominal = spelt(unknown, zi, dispersion)
    if unknown:
        raise unknown_argument("jg.fit_many", unknown, signature(fit_many).parameters)
    if zi is None and dispersion is None and nominal is None:
        return {}
    return right_sides(formula, zi, dispersion, family_from(family), nominal)


def _may_have_parts(parts, family, bayes, weights, known, responses) -> None:
    """Refuse what is not fitted in lanes of several predictors, or with known=."""
    if known is not None and (responses is None or parts or bayes is not None):
        raise NotApplicableError(
            "known= goes with responses=Y, one linear predictor and maximum likelihood "
            "in fit_many; call jg.lmm or jg.glmm for each data set"
        )
    if not parts:
        return
    if weights is not None and family.is_linear_model:
        raise NotApplicableError(
            "weights= of a Gaussian model with dispersion= are not fitted in lanes: "
            "call jg.glmm for each response, or model them by dispersion="
        )


def _of_linear(residual: str | None, other: Any) -> str | None:
    """A residual structure, refused beside a family or a posterior."""
    if residual is not None and other is not None:
        raise ModelError("residual= belongs to linear models by reml or ml")
    return residual


def _model(
    family: Any, method: Any, priors: Any, parts: dict[str, str]
) -> tuple[Any, Any, Any]:
    """The family (None for a linear model), the estimator, the Bayesian method."""
    bayes = bayes_method(method)
    known = family_from(family)
    if bayes is not None:
        return known, bayes, bayes
    if priors is not None:
        raise ModelError(
            "priors= needs a Bayesian method: 'nested-laplace', 'map' or 'vb'"
        )
    if known.is_linear_model and not parts:
        return None, estimator_of(method, True), None
    return known, integration_of("laplace" if method is None else method), None


def _posteriors(source, family, method, priors, labels, progress, file) -> Posteriors:
    if file is not None:
        raise ModelError("file= keeps tables of estimates; posteriors have none")
    given = source.responses
    D = len(source.split.starts) - 1 if given is None else len(given)
    programs.spare()
    with progress_bar(D, progress, " fits") as bar:
        found = fit_posteriors(source, family, method, priors, labels, D, bar)
    return Posteriors.showing(found)


def _run(
    source: ModelSource,
    labels: np.ndarray | None,
    formula: str,
    where: tuple[Any, Any],
    progress: bool | None,
    file: Any,
    started: float,
) -> Fits:
    devices, executor = where[0], executors.given(where[1])
    if source.family is not None and source.model.nodes != 1:
        check_quadrature(source.design, source.model.nodes)
    programs.spare()
    plan = fits_engines.plan(source, devices)
    facts = {
        "title": f"{len(plan):,} {plan.title}",
        "formula": formula,
        "family": "gaussian" if source.family is None else source.family.name,
    }
    family, known = source.family, source.design.response_levels
    if family is not None and known is not None and plan.columns.errors:
        facts |= {"levels": [str(x) for x in known], "thresholds": family.thresholds}
    table, close = fits_engines.table(plan, source, facts, labels, file)
    with progress_bar(len(plan), progress, " fits") as bar:
        fits_run.run(table, plan, bar, close, executor)
    facts |= {
        "devices": plan.devices,
        "seconds": time.perf_counter() - started,
    }
    fits = Fits.from_table(table, plan.columns, labels, source=source, facts=facts)
    if not fits.converged.all():
        text = "; ".join(fits_tables.counts(fits))
        notices.warn(f"{text}. See .status", ConvergenceWarning)
    return fits
