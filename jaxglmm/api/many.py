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
    DataError,
    FormulaError,
    ModelError,
    NotApplicableError,
)
from jaxglmm._hints import unknown_argument
from jaxglmm.api.components import composed, right_sides, spelt
from jaxglmm.api.given import (
    check_numbers,
    estimator_of,
    integration_of,
    no_categories,
)
from jaxglmm.estimate.methods import bayes_method
from jaxglmm.fitting.residual_checks import check as check_residuals
from jaxglmm.formula import (
    caller_context,
    check_generalised,
    check_linear,
    check_quadrature,
    design_from_formula,
    design_of_components,
    notices,
)
from jaxglmm.formula.design import Design
from jaxglmm.formula.given import in_table
from jaxglmm.formula.parse import parse
from jaxglmm.formula.residual import read_residual
from jaxglmm.formula.tables import Table, as_table
from jaxglmm.formula.terms import read_atom
from jaxglmm.many import plan as fits_engines
from jaxglmm.many import scheduler as fits_run
from jaxglmm.many.checks import finite
from jaxglmm.many.collection import PerResponse, Source
from jaxglmm.many.posteriors import fit_posteriors
from jaxglmm.many.responses import Responses, check_order
from jaxglmm.model.families import family_from
from jaxglmm.postestimation.collection import tables as fits_tables
from jaxglmm.results.fits import Fits
from jaxglmm.results.posteriors import Posteriors
from jaxglmm.runtime.memory import programs
from jaxglmm.runtime.progress import bar as progress_bar

NOISE = 0x6A61786C  # seed of a response that is never fitted


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
    **unknown: Any,
) -> Fits | Posteriors:
    """Fit one formula to many responses, or to many data sets.

    Three forms. Many responses of one design (genes, voxels, simulations)::

        jg.fit_many("expr ~ dose + (1 | donor)", samples, responses=Y)   # Y (n, D)

    one long table cut into data sets, or a list of tables::

        jg.fit_many("y ~ x + (x | subject)", table, by="experiment")
        jg.fit_many("y ~ x + (x | subject)", [first, second, third])

    Args:
        formula: in lme4's syntax. With ``responses`` its left side is a name for them.
        data: as for ``lmm``; or a list of such tables.
        responses: (n, D) array, memory map, sparse matrix or frame: one row a row of
            ``data``, one column a response. A missing value is a row less for that
            response alone.
        by: column or columns of ``data`` that say which data set a row belongs to.
            Factors and transformations are coded once, over all rows.
        family: as for ``glmm``; "gaussian" makes linear mixed models.
        method: "reml" (default) or "ml" for linear models, "laplace" (default) or "agq"
            for others; or the presets' objects. Posteriors: "map", "vb",
            "nested-laplace" or their objects, one data set after the other.
        weights: prior weights: column name, (n,), or (n, D) with ``responses``.
        offset: known part of the predictor, likewise.
        trials: of binomial responses: column name, number, (n,) or (n, D).
        devices: "all", "cpu", "gpu", or JAX devices to share the data sets among.
        progress: show a bar; None: where it takes more than a moment.
        tol: stop when less than this is still to gain, in units of the criterion.
        satterthwaite: degrees of freedom of linear models; False for n - p.
        file: a path where the table of results is kept while it grows. A run that was
            interrupted goes on from there when it is called again.
        priors: of a Bayesian method, ``jg.Priors(...)``.
        residual: covariance of the residuals of linear models, as for ``lmm``.
        zi: formula of the probability of added zeros, as for ``glmm``; ``responses``.
        dispersion: formula of the dispersion, likewise.
        unknown: none; see ``lmm``.

    Returns:
        A ``Fits``, or ``Posteriors`` by a Bayesian method. A data set that cannot be
        fitted has a status and NaN, and the others are what they would be without it.

    Raises:
        FormulaError, DataError, ModelError: where the formula or the data as a whole
            cannot be used; never for one data set.

    Method: that of ``lmm`` and ``glmm``, all data sets in one compiled program; levels
    with the same design enter by their number and two moments of their responses.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> Y = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep).simulate(50, seed=1).T
    >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
    >>> fits.coefficients.shape, fits.converged.sum().item()
    ((50, 2), 50)
    """
    parts = _parts(formula, zi, dispersion, family, unknown)
    started = time.perf_counter()
    tol, _ = check_numbers(tol, 1)
    satterthwaite = _arguments.flag("satterthwaite", satterthwaite)
    progress = None if progress is None else _arguments.flag("progress", progress)
    file = None if file is None else _arguments.new_file(file, "file")
    known, model, bayes = _model(family, method, priors, parts)
    _may_have_parts(parts, known, responses, bayes, weights)
    context = caller_context(), _of_linear(residual, bayes or known), parts
    given = known, weights, offset, trials, context
    source, labels = _source(formula, data, responses, by, given)
    known = composed(source.design, known)[1] if parts else known
    source = replace(
        source, model=model, family=known, tol=tol, satterthwaite=satterthwaite
    )
    if bayes is not None:
        return _posteriors(source, known, bayes, priors, labels, progress, file)
    if known is not None and model.nodes != 1:
        check_quadrature(source.design, model.nodes)
    programs.spare()
    return _run(source, labels, formula, devices, progress, file, started)


def _parts(
    formula: Any, zi: Any, dispersion: Any, family: Any, unknown: dict[str, Any]
) -> dict[str, str]:
    """Right sides of the other predictors; refuses arguments that are not known."""
    zi, dispersion, nominal = spelt(unknown, zi, dispersion)
    if nominal is not None:
        unknown["nominal"] = nominal
    if unknown:
        raise unknown_argument("jg.fit_many", unknown, signature(fit_many).parameters)
    if zi is None and dispersion is None:
        return {}
    return right_sides(formula, zi, dispersion, family_from(family))


def _may_have_parts(
    parts: dict[str, str], family: Any, responses: Any, bayes: Any, weights: Any
) -> None:
    """Refuse what is not fitted in lanes of several linear predictors."""
    if not parts:
        return
    if bayes is not None:
        raise NotApplicableError(
            "zi= and dispersion= go with maximum likelihood in fit_many: leave method= "
            "out, or give 'laplace' or 'agq'"
        )
    if responses is None:
        raise NotApplicableError(
            "zi= and dispersion= go with responses=Y in fit_many; for data sets of "
            "their own rows call jg.glmm for each"
        )
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


def _source(
    formula: Any, data: Any, responses: Any, by: Any, given: tuple
) -> tuple[Source, np.ndarray | None]:
    """The data sets and their labels, in whichever form they come."""
    if not isinstance(formula, str):
        raise FormulaError(
            "fit_many takes a formula as a text, such as 'y ~ x + (x | g)', not "
            f"{_arguments.shown(formula)}"
        )
    if responses is None:
        return _of_tables(formula, data, by, *given)
    if by is not None:
        raise DataError(
            "responses= and by= are two ways to say what the data sets are: one "
            "design with many responses, or many data sets in one table"
        )
    return _of_responses(formula, data, responses, *given)


def _model(
    family: Any, method: Any, priors: Any, parts: dict[str, str]
) -> tuple[Any, Any, Any]:
    """The family (None for a linear model), the estimator, the Bayesian method."""
    bayes = bayes_method(method)
    known = family_from(family)
    no_categories(known, "batches", "fit one after the other, by jg.glmm")
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
    source: Source,
    labels: np.ndarray | None,
    formula: str,
    devices: Any,
    progress: bool | None,
    file: Any,
    started: float,
) -> Fits:
    plan = fits_engines.plan(source, devices)
    facts = {
        "title": f"{len(plan):,} {plan.title}",
        "formula": formula,
        "family": "gaussian" if source.family is None else source.family.name,
    }
    table, close = fits_engines.table(plan, source, facts, labels, file)
    with progress_bar(len(plan), progress, " fits") as bar:
        fits_run.run(table, plan, bar, close)
    facts |= {
        "devices": plan.devices,
        "seconds": time.perf_counter() - started,
    }
    fits = Fits.from_table(table, plan.columns, labels, source=source, facts=facts)
    if not fits.converged.all():
        text = "; ".join(fits_tables.counts(fits))
        notices.warn(f"{text}. See .status", ConvergenceWarning)
    return fits


# Many responses ----------------------------------------------------------------------


def _of_responses(
    formula: str, data: Any, responses: Any, family, weights, offset, trials, context
) -> tuple[Source, np.ndarray | None]:
    table = as_table(data)
    left = parse(formula).response
    name = read_atom(left).expr
    if not read_atom(left).bare:
        raise FormulaError(
            f"the left side of the formula stands for the responses, so it is a name "
            f"such as y, not {left!r}. Transform the responses before"
            + (", and pass trials=" if "(" in left and family is not None else "")
        )
    columns = {c: table.fetch(c) for c in table.names if c != name}
    # never fitted: something that varies, so that the design can be built
    columns[name] = np.random.default_rng(NOISE).normal(size=table.n)
    shared, own = {}, {}
    for label, given in (("weights", weights), ("offset", offset)):
        if given is not None and not isinstance(given, str) and _dimensions(given) == 2:
            own[label] = given
        else:
            shared[label] = given
    context, residual, others = context
    if others:
        design = design_of_components(
            formula, columns, others, context=context, **shared
        )
    else:
        design = design_from_formula(
            formula, columns, context=context, residual=residual, **shared
        )
    _check(design, family)
    rows = design.rows
    for label, given in (("responses", responses), *own.items()):
        check_order(given, table.labels, label)
    Y = Responses(responses, table.n, rows)
    per = {label: Responses(values, table.n, rows) for label, values in own.items()}
    for label, values in per.items():
        if len(values) != len(Y):
            raise DataError(
                f"{label} has {len(values)} columns for {len(Y)} responses: one each"
            )
    return Source(
        design,
        Y,
        None,
        per.get("weights", design.weights),
        per.get("offset", design.offset),
        _trials(trials, table, rows, len(Y), family),
        None,
    ), Y.labels


def _dimensions(given: Any) -> int:
    """Of an array or nested lists; 1 where the lists differ in length."""
    try:
        return np.ndim(given)
    except ValueError:
        return 1


def _check(design: Design, family: Any) -> None:
    if design.residual is not None:
        return check_residuals(design)
    _has_random_effects(design)
    if family is None:
        check_linear(design)
    else:
        check_generalised(design)
    return None


def _has_random_effects(design: Design) -> None:
    if not design.terms:
        raise ModelError(
            "the model has no random effects. Add a term such as (1 | group)"
        )


def _trials(trials: Any, table: Table, rows, D: int, family) -> PerResponse:
    """Trials of the rows that are used: (n,) or one column a response."""
    if trials is None:
        return None
    if family is None or family.family_kind != "binomial":
        raise DataError(
            "trials= is for family='binomial' and 'betabinomial': other families have "
            "no number of trials"
        )
    if _dimensions(trials) == 2:
        check_order(trials, table.labels, "trials")
        found = Responses(trials, table.n, rows)
        if len(found) != D:
            raise DataError(
                f"trials has {len(found)} columns for {D} responses: one for each"
            )
        return found
    named = isinstance(trials, str)
    column = table.column(trials) if named else trials
    column = in_table("trials", column, table)
    assert column is not None
    values = np.asarray(column.values, np.float64)
    if not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise DataError(f"trials must be finite numbers; row {i} has {values[i]}")
    return values if rows is None else values[rows]


# Many data sets ----------------------------------------------------------------------


def _of_tables(
    formula: str, data: Any, by, family, weights, offset, trials, context
) -> tuple[Source, np.ndarray | None]:
    if isinstance(data, list | tuple):
        if by is not None:
            raise DataError("by= cuts one table; data is a list of tables already")
        for label, given in (("weights", weights), ("offset", offset)):
            if given is not None and not isinstance(given, str):
                raise DataError(
                    f"{label} must be the name of a column where data is a list of "
                    "tables"
                )
        columns, codes, D = _stacked(data)
        labels = None
    elif by is not None:
        table = as_table(data)
        columns = {c: table.fetch(c) for c in table.names}
        codes, labels = _datasets(table, by)
        D = len(labels)
        weights, offset, trials = (
            given if isinstance(given, str) else in_table(label, given, table)
            for label, given in (
                *(("weights", weights), ("offset", offset)),
                ("trials", trials),
            )
        )
    else:
        raise DataError(
            "fit_many needs to know what the data sets are: responses=Y (n, D), "
            "by='column', or data as a list of tables"
        )
    options = {} if family is None else {"family_kind": family.family_kind}
    columns, codes, infinite, (weights, offset, trials) = finite(
        formula, columns, codes, D, (weights, offset, trials)
    )
    if trials is not None:
        options["trials"] = trials
    context, residual, _ = context
    if residual is not None:
        options["residual"] = replace(read_residual(residual), parted=True)
    design = design_from_formula(
        formula, columns, weights=weights, offset=offset, context=context, **options
    )
    if design.residual is None:
        _has_random_effects(design)
    if design.rows is not None:
        codes = codes[design.rows]
    split = fits_engines.split(design, codes, D)
    return Source(
        design,
        None,
        split,
        design.weights,
        design.offset,
        design.trials,
        None,
        infinite=infinite,
    ), labels


def _datasets(table: Table, by: str | list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the data set of each row, -1 where it is missing; (D,) labels."""
    names = _arguments.names("by", by, meaning="a column's name")
    if not names:
        raise DataError("by= is empty: name the column that says whose row it is")
    codes, levels = table.column(names[0]).as_factor()
    labels = levels
    for name in names[1:]:
        more, others = table.column(name).as_factor()
        wide = codes.astype(np.int64)  # the number of pairs may be beyond 32 bits
        joint = np.where((codes < 0) | (more < 0), -1, wide * len(others) + more)
        used, codes = np.unique(joint, return_inverse=True)
        if len(used) and used[0] < 0:
            used, codes = used[1:], codes - 1
        pairs = [(labels[k // len(others)], others[k % len(others)]) for k in used]
        labels = np.empty(len(pairs), object)
        labels[:] = [(*a, b) if isinstance(a, tuple) else (a, b) for a, b in pairs]
    return codes, labels


def _stacked(tables: list | tuple) -> tuple[dict, np.ndarray, int]:
    """Columns of all tables, one below the other, and whose row each is."""
    if not tables:
        raise DataError("data is an empty list: there is nothing to fit")
    import pandas as pd

    read = [as_table(t) for t in tables]
    names = [c for c in read[0].names if all(c in t.names for t in read)]
    if not names:
        raise DataError("the tables have no column in common")
    columns = {}
    for name in names:
        parts = [pd.Series(t.column(name).as_series()) for t in read]
        if any(isinstance(p.dtype, pd.CategoricalDtype) for p in parts):
            parts = [pd.Series(np.asarray(p, object)) for p in parts]
        columns[name] = pd.concat(parts, ignore_index=True)
    sizes = [t.n for t in read]
    return columns, np.repeat(np.arange(len(read)), sizes), len(read)
