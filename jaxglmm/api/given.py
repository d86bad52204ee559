"""What is given to ``lmm`` and ``glmm``, checked, in either of their two forms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import FormulaError, ModelError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.formula import design_from_formula, design_of_components
from jaxglmm.formula.context import outer_context
from jaxglmm.formula.design import Design

if TYPE_CHECKING:  # generalised models are imported where they are asked for
    from jaxglmm.integrate.base import AbstractMarginal
    from jaxglmm.model.families import AbstractFamily

METHODS = {"reml": True, "ml": False}


def priors_need_bayes(bayes: BayesMethod | None, priors: Any) -> None:
    """Refuse priors beside a method that maximises the likelihood."""
    if priors is not None and bayes is None:
        raise ModelError(
            "priors= needs a Bayesian method: method='nested-laplace', 'map', 'vb' or "
            "'nuts'; the others maximise the likelihood alone"
        )


def estimator_of(method: str | Maximise | None, reml: bool) -> Maximise:
    """The estimator of a linear model."""
    if not _arguments.is_flag(reml):
        raise ModelError(
            f"reml={_arguments.shown(reml)} must be True (REML) or False (ML)"
        )
    if method is None:
        return Maximise(bool(reml))
    if isinstance(method, Maximise):
        return method
    if isinstance(method, str) and method.lower() in METHODS:
        return Maximise(METHODS[method.lower()])
    raise ModelError(
        f"method {_arguments.shown(method)} is not one of 'reml', 'ml', jg.REML(), "
        "jg.ML(); for a posterior 'nested-laplace', 'map', 'vb', 'nuts'"
    )


def by_reml(reml: Any, family: Any, bayes: Any, method: Any) -> bool:
    """Whether a model of ``glmm`` is fitted by REML.

    Raises:
        ModelError: a posterior, or the random effects integrated out by quadrature.
    """
    named = _is_reml(method)
    if not _arguments.is_flag(reml):
        raise ModelError(
            f"reml={_arguments.shown(reml)} must be True (REML) or False (ML)"
        )
    if not (named or reml):
        return False
    if bayes is not None:
        raise ModelError("reml=True is no posterior; leave it out, or leave method out")
    if named or family.is_linear_model:
        return True
    plain = integration_of(method)
    if plain.name != "laplace":
        raise ModelError(
            "reml=True of a generalised model is by Laplace's approximation: "
            f"method={_arguments.shown(method)} does not go with it"
        )
    return True


def _is_reml(method: Any) -> bool:
    """Whether a method is "reml" or ``jg.REML()``."""
    if isinstance(method, str):
        return method.lower() == "reml"
    return isinstance(method, Maximise) and method == Maximise(True)


def integration_of(method: Any, reml: bool = False) -> AbstractMarginal:
    """The estimator of a generalised model; reml: fixed effects integrated out too."""
    from jaxglmm.estimate.presets import AGQ, ML, REML, Laplace
    from jaxglmm.integrate.base import AbstractMarginal

    if reml:
        from jaxglmm.integrate.restricted import RestrictedLaplace

        if _is_reml(method):
            return RestrictedLaplace("observed")
        plain = integration_of(method)
        return RestrictedLaplace(plain.hessian, plain.probes)
    named = {"laplace": Laplace, "ml": Laplace, "agq": AGQ}
    if isinstance(method, AbstractMarginal):
        return method
    if isinstance(method, str) and method.lower() in named:
        return named[method.lower()]()
    if callable(method) and method in (Laplace, AGQ):
        return method()
    linear = (isinstance(method, str) and method.lower() == "reml") or (
        isinstance(method, Maximise) or (callable(method) and method in (ML, REML))
    )
    if linear:
        raise ModelError(
            f"method {method!r} is for linear mixed models, jg.lmm; a generalised one "
            "takes 'laplace', 'agq', jg.Laplace() or jg.AGQ(nodes)"
        )
    raise ModelError(
        f"method {_arguments.shown(method)} is not one of 'laplace', 'agq', "
        "jg.Laplace(), jg.AGQ(nodes); for a posterior 'nested-laplace', 'map', 'vb', "
        "'nuts'"
    )


def read_design(
    name: str,
    formula: Any,
    data: Any,
    groups: Any,
    *,
    random_effects: dict | None,
    random_data: dict | None,
    correlated: bool | dict,
    contrasts: dict | None,
    others: dict[str, str] | None = None,
    known: dict | None = None,
    **options: Any,
) -> Design:
    """A design from either form of ``lmm`` or ``glmm``.

    others: right sides of the formulas of other predictors, by name.
    known: covariances between levels, by grouping factor.
    """
    if known is not None:
        if not isinstance(formula, str) or others:
            raise ModelError(
                "known= is for a formula of one linear predictor: (1 | id), known={'id'"
                ": K}"
            )
        from jaxglmm.formula.known import with_known

        given = {"random_effects": random_effects, "random_data": random_data}
        given |= {"correlated": correlated, "contrasts": contrasts} | options
        return with_known(read_design(name, formula, data, groups, **given), known)
    if isinstance(formula, str):
        _only_arrays(name, groups, random_effects, random_data, correlated)
        if data is None:
            raise FormulaError(
                f"a formula needs data: jg.{name}(formula, data), data a frame or a "
                "dict of arrays"
            )
        options |= {"context": _caller(), "contrasts": contrasts}
        if others:
            return design_of_components(formula, data, others, **options)
        return design_from_formula(formula, data, **options)
    from jaxglmm.formula import design_from_arrays

    _not_swapped(name, formula, data)
    if contrasts:
        raise ModelError(
            "contrasts= code the factors of a formula; an array X is coded already"
        )
    _check_correlated(correlated)
    if options.pop("residual", None) is not None:
        raise ModelError(
            "residual= names columns of a table: use the form with a formula, "
            f"jg.{name}('y ~ x', data, residual=...)"
        )
    if random_data and random_effects is None:
        raise ModelError(
            "random_data is given, but no random_effects say where it goes. Name "
            "the terms of each factor: random_effects={'subject': ['1', 'time']}"
        )
    return design_from_arrays(
        formula,
        data,
        groups,
        random_effects=random_effects,
        random_data=random_data,
        correlated=correlated,
        **options,
    )


def known_or_held(
    design: Design,
    residual: Any,
    fixed: dict | None,
    start: dict | None,
    bayes: BayesMethod | None,
    others: bool,
) -> Design:
    """The design with a known residual covariance, and one to hold parameters in."""
    from jaxglmm.formula import known_residual

    asked = "fixed" if fixed is not None else "start" if start is not None else ""
    if asked and bayes is not None:
        raise ModelError(
            f"{asked}= is for maximum likelihood and REML; with a posterior hold a "
            "parameter by its prior: priors=jg.Priors(sigma=jg.Fixed(1.0))"
        )
    if asked and others:
        raise ModelError(
            f"{asked}= beside dispersion= is not offered: hold a residual standard "
            "deviation by residual='varident(f)' and its names"
        )
    if residual is not None and not isinstance(residual, str):
        return known_residual.with_covariance(design, residual)
    if asked and design.residual is None:
        return replace(design, residual=known_residual.independent(design.n))
    return design


def checked_ddf(ddf: Any, satterthwaite: bool = True) -> str:
    """Degrees of freedom of a model with correlated residuals, in lower case."""
    from jaxglmm.fitting.fitted_correlated import DDF

    if ddf is None:
        return "satterthwaite" if satterthwaite else "residual"
    word = ddf.lower().replace(" ", "-") if isinstance(ddf, str) else ddf
    return _arguments.choice("ddf", word, DDF)


def check_numbers(tol: Any, max_iter: Any) -> tuple[float, int]:
    """Both as numbers that the search can take."""
    return _arguments.positive(
        "tol",
        tol,
        _arguments.TOLERANCE,
        "how much of the criterion (-2 log-likelihood) may be left to gain, such as "
        "1e-8",
    ), _arguments.whole(
        "max_iter",
        max_iter,
        1,
        _arguments.ITERATIONS,
        meaning="the most evaluations of the criterion",
    )


def _not_swapped(name: str, y: Any, X: Any) -> None:
    """Refuse what is neither of the two forms, with both of them in the message."""
    forms = (
        f"{name}(formula, data) with a text formula, or {name}(y, X, groups) with "
        "arrays"
    )
    if isinstance(X, str):
        raise FormulaError(f"the formula comes first, then the data: {forms}")
    if y is None or isinstance(y, dict) or _is_single(y):
        shown = _arguments.shown(y)
        raise FormulaError(
            f"the first argument is {shown}; there are two forms: {forms}"
        )
    if X is None:
        raise FormulaError(f"the design X is missing; there are two forms: {forms}")


def _is_single(y: Any) -> bool:
    """Whether it is one thing, or lists that differ in length: no response."""
    try:
        return np.ndim(y) == 0
    except ValueError:
        return True


def _check_correlated(correlated: Any) -> None:
    values = correlated.values() if isinstance(correlated, dict) else [correlated]
    if not all(map(_arguments.is_flag, values)):
        raise ModelError(
            f"correlated={correlated!r} must be True or False, or a dict of these by "
            "grouping factor"
        )


def _only_arrays(
    name: str, groups: Any, random_effects: Any, random_data: Any, correlated: Any
) -> None:
    if correlated is not True:
        raise FormulaError(
            f"correlated belongs to the form {name}(y, X, groups); with a formula "
            "write (x || g) for independent effects"
        )
    given = {
        "groups": groups,
        "random_effects": random_effects,
        "random_data": random_data,
    }
    names = [key for key, value in given.items() if value is not None]
    if names:
        raise FormulaError(
            f"{' and '.join(names)} belong to the form {name}(y, X, groups); with a "
            "formula write the random effects in it: 'y ~ x + (1 + x | g)'"
        )


def _caller() -> dict[str, Any]:
    """Names visible where ``lmm`` was called: users' own functions in formulas."""
    return dict(outer_context())


def reading(family: AbstractFamily) -> dict[str, Any]:
    """How a family wants its left side read."""
    return {"family_kind": family.family_kind, "order": getattr(family, "levels", None)}
