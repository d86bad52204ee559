"""One model fitted, from its design to a named fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from jaxglmm._errors import ModelError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import convergence as diagnose
from jaxglmm.fitting import large_crossed
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.kinds import Kinds, kind_of, record
from jaxglmm.formula import check_generalised, check_linear, check_quadrature
from jaxglmm.formula.design import Design
from jaxglmm.runtime.memory import programs

if TYPE_CHECKING:  # generalised models are imported where they are asked for
    from jaxglmm.integrate.base import AbstractMarginal
    from jaxglmm.model.families import AbstractFamily

L = TypeVar("L", bound=FittedModel)


def fit_design(
    design: Design,
    estimator: Maximise,
    tol: float = 1e-8,
    max_iter: int = 200,
    compute_satterthwaite: bool = True,
    started: float | None = None,
    *,
    make: Callable[..., L] = FittedModel,
) -> L:
    """The steps after the formula for a linear mixed model: check, build, fit, name.

    make: the class of what is made.
    """
    began = time.perf_counter() if started is None else started
    if not design.terms:
        raise ModelError(
            "the model has no random effects. Add a term such as (1 | group), or fit a "
            "linear model by jg.glmm(formula, data, family='gaussian')"
        )
    check_linear(design)
    programs.spare()
    designed = time.perf_counter()
    engine = large_crossed.build(design, estimator)
    stages = {"design": designed - began, "cross-products": time.perf_counter()}
    stages["cross-products"] -= designed
    return fit_engine(
        design, engine, tol, max_iter, compute_satterthwaite, stages, make=make
    )


def fit_engine(
    design: Design,
    engine: _engine.Engine,
    tol: float,
    max_iter: int,
    compute_satterthwaite: bool,
    stages: dict[str, float],
    *,
    make: Callable[..., L],
) -> L:
    """The steps after the cross-products: fit and name.

    stages: seconds of the steps before.
    """
    built = time.perf_counter()
    fitted, criterion = engine.fit(tol, max_iter)
    done = time.perf_counter()
    diagnostics = {
        "system": type(engine.moments.system).__name__,
        "seconds": {**stages, "fit": done - built},
        "evaluations": int(fitted.steps),
        "decrement": float(fitted.decrement),
        "tol": tol,
        "max_iter": max_iter,
    }
    if isinstance(engine, large_crossed.LargeEngine):
        diagnostics |= engine.facts
        compute_satterthwaite = False  # of hundreds of thousands of rows it is n - p
    fit = make(
        design,
        _engine.estimates(engine, design, fitted, criterion),
        engine,
        diagnostics,
        compute_satterthwaite=compute_satterthwaite,
    )
    moments = engine.moments
    tops = (moments.fixed.R, *(factor.T for factor in moments.factors))
    far = any(map(diagnose.may_be_far, tops))
    diagnose.warn(design, fit.estimates, far=far)
    return fit


def fit_correlated(
    design: Design,
    estimator: Maximise,
    tol: float = 1e-8,
    max_iter: int = 200,
    started: float | None = None,
    kinds: Kinds = record,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    zero: bool = False,
    **options: Any,
) -> Any:
    """The same for a linear model with a residual structure.

    fixed: name -> value of parameters that are held there; start: of others, where the
    search begins; options: ddf and vcov, as ``FittedCorrelated`` takes them.
    """
    from jaxglmm.fitting import blocks, held, residual_coordinates
    from jaxglmm.fitting.residual_checks import check, check_silent

    began = time.perf_counter() if started is None else started
    if fixed is not None or start is not None:
        kinds_of = held.of_design(design) | residual_coordinates.kinds(design)
        design = replace(design, fixed=held.checked("fixed", fixed, kinds_of))
        start = held.checked("start", start, kinds_of)
    check(design)
    designed = time.perf_counter()
    engine = blocks.BlockEngine(design, estimator.reml)
    check_silent(engine)  # makes the problem, whose seconds are counted apart
    built = time.perf_counter()
    fitted, criterion = engine.fit(tol, max_iter, start)
    diagnostics = {
        "system": f"{len(engine.problem.stacks)} stacks of blocks",
        "seconds": {
            "design": designed - began,
            "cross-products": built - designed,
            "fit": time.perf_counter() - built,
        },
        "evaluations": int(fitted.steps),
        "decrement": float(fitted.decrement),
        "tol": tol,
        "max_iter": max_iter,
    }
    part = design.residual is not None and design.residual.part is not None
    fit = kinds("dispersed" if part else "correlated")(
        design,
        blocks.estimates(engine, design, fitted, criterion),
        engine,
        diagnostics,
        **options,
    )
    found = fit.estimates
    diagnose.warn(design, replace(found, singular=False) if zero else found)
    return fit


def fit_generalised(
    design: Design,
    family: AbstractFamily,
    marginal: AbstractMarginal,
    tol: float = 1e-8,
    max_iter: int = 200,
    started: float | None = None,
    kinds: Kinds = record,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
) -> Any:
    """The same for a generalised model; a Gaussian one is a linear model.

    kinds: classes of what is made, by name; fixed, start: as for ``fit_correlated``.
    """
    from jaxglmm.fitting import diagnostics as found_out
    from jaxglmm.fitting import generalised as _generalised
    from jaxglmm.fitting import ordinal as _ordinal
    from jaxglmm.fitting.large_generalised import LargeGeneralisedEngine
    from jaxglmm.fitting.restricted import engine_of
    from jaxglmm.integrate.restricted import NO_EFFECTS

    began = time.perf_counter() if started is None else started
    design, family = _ordinal.settled(design, family)
    family.check(design.y, design.trials, design.rows)
    if _is_linear(design, family):
        linear = kinds("linear")
        return fit_design(
            design, Maximise(False), tol, max_iter, False, began, make=linear
        )
    check_generalised(design)
    if marginal.reml and (fixed or start):
        raise ModelError(
            "fixed= and start= of a generalised model are by maximum likelihood: leave "
            "them, or reml=True, out"
        )
    if fixed is not None or start is not None:
        from jaxglmm.fitting import held_generalised

        values = held_generalised.checked("fixed", fixed, design, family)
        start = held_generalised.checked("start", start, design, family)
        design = replace(design, fixed=values)
    if not design.terms:
        if marginal.reml:
            raise ModelError(NO_EFFECTS)
        marginal, design = _generalised.without_effects(marginal, design, family)
    if marginal.nodes != 1:
        check_quadrature(design, marginal.nodes)
    programs.spare()
    designed = time.perf_counter()
    engine = engine_of(design, family, marginal)
    refusal = marginal.refusal(engine.base)
    if refusal is not None:
        raise ModelError(refusal)
    built = time.perf_counter()
    fitted = (
        engine.fit_from(design, start, tol, max_iter)
        if start
        else engine.fit(tol, max_iter)
    )
    done = time.perf_counter()
    diagnostics = {
        "system": type(engine.data.rows).__name__,
        "seconds": {
            "design": designed - began,
            "rows": built - designed,
            "fit": done - built,
        },
        "evaluations": int(fitted.steps),
        "decrement": float(fitted.decrement),
        "tol": tol,
        "max_iter": max_iter,
    }
    if isinstance(engine, LargeGeneralisedEngine):
        diagnostics |= engine.facts
    fit = kinds(kind_of(family.name, bool(design.parts)))(
        design,
        _generalised.estimates(engine, design, fitted),
        family,
        engine.marginal,
        engine,
        diagnostics,
    )
    fit.keep(fitted)
    found_out.warn(fit)
    return fit


def _is_linear(design: Design, family: AbstractFamily) -> bool:
    """Whether it is a linear mixed model, whose likelihood is exact."""
    return family.is_linear_model and bool(design.terms)
