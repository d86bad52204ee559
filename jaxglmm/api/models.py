"""The front door: ``lmm``, ``glmm``, ``anova``, ``load``: it knows all layers."""

from __future__ import annotations

import time
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import FormulaError, ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.estimate.methods import BayesMethod, bayes_method
from jaxglmm.fitting.fit_design import fit_design, fit_generalised
from jaxglmm.formula import (
    check_generalised,
    design_from_formula,
)
from jaxglmm.formula.design import Design
from jaxglmm.results import faces
from jaxglmm.results.fit import Fit
from jaxglmm.runtime.memory import programs

if TYPE_CHECKING:  # generalised models are imported where they are asked for
    from jaxglmm.estimate.generalised import LaplaceMarginal
    from jaxglmm.model.families import AbstractFamily

METHODS = {"reml": True, "ml": False}


def lmm(
    formula: Any,
    data: Any = None,
    groups: Any = None,
    *,
    random_effects: dict | None = None,
    random_data: dict | None = None,
    reml: bool = True,
    tol: float = 1e-8,
    max_iter: int = 200,
    compute_satterthwaite: bool = True,
    weights: Any = None,
    offset: Any = None,
    correlated: bool | dict = True,
    method: Any = None,
    missing: str = "drop",
    priors: Any = None,
    conf_level: float = 0.95,
    contrasts: dict | None = None,
    **unknown: Any,
) -> Fit:
    """Fit a linear mixed model.

    Two forms. A formula in lme4's syntax and a table::

        jg.lmm("Reaction ~ Days + (Days | Subject)", frame)

    or arrays, with one entry a grouping factor::

        jg.lmm(y, X, {"subject": ids}, random_effects={"subject": ["1", "time"]},
               random_data={"time": time})

    Args:
        formula: the formula, or the response (n,). It may call functions of the code
            around it, as any Python could: a formula from somebody else is read inside
            ``with jaxglmm.formula.known_functions_only():``. A column with an odd name
            stands in backticks.
        data: a pandas or polars frame, a pyarrow table or a dict of arrays; or the
            design X (n, p), with its column of ones where an intercept is wanted.
        groups: factor -> labels (n,), in the second form.
        random_effects: factor -> terms, "1" and names in ``random_data``; an intercept
            a factor where it is left out.
        random_data: name -> (n,) values of the random slopes.
        reml: restricted maximum likelihood (True) or maximum likelihood.
        tol: stop when less than this is still to gain, in units of the criterion
            (-2 log-likelihood).
        max_iter: most evaluations of the criterion.
        compute_satterthwaite: False for n - p degrees of freedom.
        weights: prior weights, column name or (n,): the residual variance of a row is
            sigma^2 / weight. Rows of weight zero are predicted and have residuals, but
            are no observations: nothing counts them or averages over them. A pandas
            Series, here and below, is matched by its row labels, an array by position.
        offset: known part of the predictor, column name or (n,).
        correlated: in the second form, False (or factor -> False): independent effects.
        method: "reml", "ml", ``jg.REML()`` or ``jg.ML()``; wins over ``reml``. Bayesian
            methods as for ``glmm``: "nested-laplace", "map", "vb", "nuts".
        missing: "drop" rows with missing values (counted, with a warning), or "raise".
        priors: ``jg.Priors(...)``, with a Bayesian method.
        conf_level: coverage of ``fit.conf_int``.
        contrasts: codings of factors that the formula names, as in R: column ->
            "treatment" (default), "sum", "helmert", "poly", "diff", or what
            ``C(f, ...)`` takes.
        unknown: none; other packages' names of arguments raise an ``ArgumentError``
            with the name here.

    Returns:
        A ``Fit``. One that did not converge is returned too, with its status.

    Raises:
        FormulaError, DataError, ModelError: before anything is computed, where the
            formula, the data or the model cannot be used; the message says what to
            change.

    Method: the profiled criterion of Bates, Maechler, Bolker and Walker (2015), by
    Newton's method with average information (Gilmour, Thompson and Cullis 1995) that is
    right at the boundary, where a variance is zero.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> {name: round(value, 3) for name, value in fit.fixef.items()}
    {'(Intercept)': 251.405, 'Days': 10.467}
    """
    if unknown:
        raise unknown_argument("jg.lmm", unknown, signature(lmm).parameters)
    bayes = bayes_method(method)
    estimator = _method(None if bayes else method, reml)
    satterthwaite = _arguments.flag("compute_satterthwaite", compute_satterthwaite)
    _priors_need_bayes(bayes, priors)
    conf_level = _arguments.level(conf_level, "conf_level", ModelError)
    tol, max_iter = _check_numbers(tol, max_iter)
    started = time.perf_counter()
    design = _design(
        "lmm",
        formula,
        data,
        groups,
        random_effects=random_effects,
        random_data=random_data,
        correlated=correlated,
        weights=weights,
        offset=offset,
        missing=missing,
        contrasts=contrasts,
    )
    if bayes is not None:
        from jaxglmm.model.families import family_from

        fit = fit_bayes(design, family_from("gaussian"), bayes, priors, started)
    else:
        fit = fit_design(
            design, estimator, tol, max_iter, satterthwaite, started, make=Fit
        )
    fit.diagnostics["conf_level"] = conf_level
    return fit


def glmm(
    formula: Any,
    data: Any = None,
    groups: Any = None,
    *,
    family: Any = "binomial",
    method: Any = "laplace",
    random_effects: dict | None = None,
    random_data: dict | None = None,
    tol: float = 1e-8,
    max_iter: int = 200,
    weights: Any = None,
    offset: Any = None,
    trials: Any = None,
    correlated: bool | dict = True,
    missing: str = "drop",
    priors: Any = None,
    conf_level: float = 0.95,
    contrasts: dict | None = None,
    **unknown: Any,
) -> Fit:
    """Fit a generalised linear mixed model by maximum likelihood.

    Two forms, as for ``lmm``: a formula and a table, or arrays. The response of a
    binomial model is 0 and 1, ``cbind(successes, failures)``, successes with
    ``trials=``, or proportions with their numbers of trials in ``trials=`` or
    ``weights=``; in the second form also an (n, 2) array of successes and failures.
    Without random effects it is a generalised linear model.

    Args:
        formula: the formula, or the response (n,).
        data: a table, or the design X (n, p).
        groups: factor -> labels (n,), in the second form.
        family: "binomial", "poisson", "nbinom2", "nbinom1", "gamma",
            "inverse_gaussian", "beta", "betabinomial", "student", "gaussian", or an
            object with a link: ``jg.Binomial(link="probit")``.
        method: "laplace" or ``jg.Laplace(...)``; "agq", ``jg.AGQ(nodes)`` or
            ``jg.AGQ("auto")``: adaptive Gauss-Hermite quadrature, one grouping factor.
            Bayesian: "nested-laplace" or ``jg.NestedLaplace(...)``, "map", "vb",
            "nuts".
        random_effects: factor -> terms, in the second form.
        random_data: name -> (n,) values of the random slopes.
        tol: stop when less than this is still to gain, in units of -2 log-likelihood.
        max_iter: most evaluations of the likelihood.
        weights: prior weights, column name or (n,): multiply log densities (of linear
            models: divide the variance). A Series, here and below, goes by row labels.
        offset: known part of the linear predictor, column name or (n,).
        trials: numbers of trials of a binomial response, column name or (n,).
        correlated: in the second form, False (or factor -> False): independent effects.
        missing: "drop" rows with missing values (counted, with a warning), or "raise".
        priors: ``jg.Priors(...)``, with a Bayesian method.
        conf_level: coverage of ``fit.conf_int``.
        contrasts: codings of factors that the formula names, as in R: column ->
            "treatment" (default), "sum", "helmert", "poly", "diff", or what
            ``C(f, ...)`` takes.
        unknown: none; other packages' names of arguments raise an ``ArgumentError``
            with the name here.

    Returns:
        A ``Fit``. One that did not converge is returned too, with its status.

    Raises:
        FormulaError, DataError, ModelError: before anything is computed; the message
            says what to change.

    Method: Laplace's approximation to the marginal likelihood with observed information
    at the mode of the random effects (Kristensen et al. 2016), an analytic score, and
    a Newton method over (beta, theta, phi); standard errors from the exact Hessian.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    >>> round(fit.criterion, 4), round(fit.varcorr["herd"].sd.iloc[0], 4)
    (184.0526, 0.6423)
    """
    from jaxglmm.model.families import family_from

    if unknown:
        raise unknown_argument("jg.glmm", unknown, signature(glmm).parameters)
    known = family_from(family)
    bayes = bayes_method(method)
    estimator = None if bayes else _integration(method)
    _priors_need_bayes(bayes, priors)
    conf_level = _arguments.level(conf_level, "conf_level", ModelError)
    tol, max_iter = _check_numbers(tol, max_iter)
    started = time.perf_counter()
    design = _design(
        "glmm",
        formula,
        data,
        groups,
        random_effects=random_effects,
        random_data=random_data,
        correlated=correlated,
        weights=weights,
        offset=offset,
        missing=missing,
        family_kind=known.family_kind,
        trials=trials,
        contrasts=contrasts,
    )
    if bayes is not None:
        fit = fit_bayes(design, known, bayes, priors, started)
    else:
        assert estimator is not None
        fit = fit_generalised(
            design, known, estimator, tol, max_iter, started, faces.face
        )
    fit.diagnostics["conf_level"] = conf_level
    return fit


def fit_bayes(
    design: Design,
    family: AbstractFamily,
    method: BayesMethod,
    priors: Any = None,
    started: float | None = None,
    stacklevel: int = 3,
) -> Fit:
    """The steps after the formula: check, find the posterior, name."""
    from jaxglmm.posterior.fit import check_response, fit_posterior, warn
    from jaxglmm.results.posterior_fit import PosteriorFit

    began = time.perf_counter() if started is None else started
    check_response(design, family, priors)
    check_generalised(design)
    programs.spare()
    seconds = {"design": time.perf_counter() - began}
    fit = fit_posterior(
        design, family, method, priors, {"seconds": seconds}, make=PosteriorFit
    )
    warn(fit, stacklevel=stacklevel + 1)
    return fit


def _priors_need_bayes(bayes: BayesMethod | None, priors: Any) -> None:
    if priors is not None and bayes is None:
        raise ModelError(
            "priors= needs a Bayesian method: method='nested-laplace', 'map', 'vb' or "
            "'nuts'; the others maximise the likelihood alone"
        )


def _method(method: str | Maximise | None, reml: bool) -> Maximise:
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


def _integration(method: Any) -> LaplaceMarginal:
    from jaxglmm.estimate.generalised import LaplaceMarginal
    from jaxglmm.estimate.presets import AGQ, ML, REML, Laplace

    named = {"laplace": Laplace, "ml": Laplace, "agq": AGQ}
    if isinstance(method, LaplaceMarginal):
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


def _design(
    name: str,
    formula: Any,
    data: Any,
    groups: Any,
    *,
    random_effects: dict | None,
    random_data: dict | None,
    correlated: bool | dict,
    contrasts: dict | None,
    **options: Any,
) -> Design:
    """A design from either form of ``lmm`` or ``glmm``."""
    if isinstance(formula, str):
        _only_arrays(name, groups, random_effects, random_data, correlated)
        if data is None:
            raise FormulaError(
                f"a formula needs data: jg.{name}(formula, data), data a frame or a "
                "dict of arrays"
            )
        return design_from_formula(
            formula, data, context=_caller(), contrasts=contrasts, **options
        )
    from jaxglmm.formula import design_from_arrays

    _not_swapped(name, formula, data)
    if contrasts:
        raise ModelError(
            "contrasts= code the factors of a formula; an array X is coded already"
        )
    _check_correlated(correlated)
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


def _check_numbers(tol: Any, max_iter: Any) -> tuple[float, int]:
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
    import sys

    frame = sys._getframe(3)
    return {**frame.f_globals, **frame.f_locals}


def anova(*fits: Fit, refit: bool = True):
    """Compare fits of the same data by likelihood-ratio tests, smallest model first.

    Args:
        fits: two or more fits.
        refit: fit REML models again by maximum likelihood, as fixed effects differ.

    Returns:
        A text that shows itself, with ``.table``, ``.statistic``, ``.df``,
        ``.p_value``.

    Raises:
        ComparisonError: different data, one fit alone, or REML fits with different
            fixed effects and ``refit=False``.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> one = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    >>> two = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> round(jg.anova(one, two).statistic, 3)
    42.139
    """
    from jaxglmm.postestimation.inference.comparison import compare

    return compare(fits, refit)


def load(path: Any, *, functions: Any = None, trusted: bool = False) -> Any:
    """Read what ``Fit.save`` or ``Fits.save`` wrote.

    A file may come from anybody. Opening it runs nothing, and its formula, which is
    evaluated when predictions for new data are asked for, may use arithmetic, NumPy's
    mathematical functions and the transforms, and no other code.

    Args:
        path: of the file; also of a table that ``fit_many(file=)`` keeps.
        functions: functions of your own that the formula calls, by name, since they are
            not saved: ``{"double": double}``.
        trusted: True lets the formula call whatever it could call where this line
            stands, your functions and all of Python: for files of your own.

    Returns:
        A ``Fit``, or ``Fits``.

    Raises:
        DataError: no such file, or not one of these.

    >>> import jaxglmm as jg, tempfile, os
    >>> fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    >>> path = os.path.join(tempfile.mkdtemp(), "fit.jaxglmm")
    >>> _ = fit.save(path)
    >>> round(jg.load(path).sigma, 4)
    49.5101
    """
    from jaxglmm.fitting.storage import load as one
    from jaxglmm.many import storage as many

    read = many.load if many.is_fits(path) else one
    return read(path, functions, trusted, faces.face)
