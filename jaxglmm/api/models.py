"""The front door: ``lmm``, ``glmm``, ``anova``, ``load``: it knows all layers."""

from __future__ import annotations

import time
from inspect import signature
from typing import TYPE_CHECKING, Any

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.api.components import (
    composed,
    dispersed,
    dispersion_of,
    formulas,
    gaussian,
    is_held_linear,
    no_residual,
    right_sides,
    spelt,
)
from jaxglmm.api.given import (
    by_reml,
    check_numbers,
    checked_ddf,
    estimator_of,
    integration_of,
    known_or_held,
    priors_need_bayes,
    read_design,
    reading,
)
from jaxglmm.api.streamed import (
    in_batches,
    is_source,
    streamed,
    streamed_generalised,
)
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.estimate.methods import BayesMethod, bayes_method
from jaxglmm.fitting.fit_design import (
    fit_correlated,
    fit_design,
    fit_generalised,
)
from jaxglmm.formula import check_generalised
from jaxglmm.formula.design import Design
from jaxglmm.results import faces
from jaxglmm.results.fit import Fit
from jaxglmm.runtime.memory import programs

if TYPE_CHECKING:  # generalised models are imported where they are asked for
    from jaxglmm.model.families import AbstractFamily


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
    residual: Any = None,
    ddf: str | None = None,
    known: dict | None = None,
    dispersion: Any = None,
    fixed: dict | None = None,
    start: dict | None = None,
    checkpoint: Any = None,
    executor: Any = None,
    **unknown: Any,
) -> Fit:
    """Fit a linear mixed model.

    Two forms, a formula in lme4's syntax and a table, or arrays::

        jg.lmm("Reaction ~ Days + (Days | Subject)", frame)
        jg.lmm(y, X, {"g": g}, random_effects={"g": ["1", "t"]}, random_data={"t": t})

    Args:
        formula: or the response (n,). It may call functions of the code around it: one
            of somebody else is read ``with jaxglmm.formula.known_functions_only():``.
        data: a pandas or polars frame, a pyarrow table or a dict of arrays; or X (n,
            p), with its column of ones where an intercept is wanted. Read in batches:
            "rows/*.parquet", a pyarrow dataset, a DuckDB relation, a lazy frame.
        groups: factor -> labels (n,), in the second form.
        random_effects: factor -> "1" and names in ``random_data``; without it "1".
        random_data: name -> (n,) values of the random slopes.
        reml: restricted maximum likelihood (True) or maximum likelihood.
        tol: stop when less than this is still to gain of -2 log-likelihood.
        max_iter: most evaluations of the criterion.
        compute_satterthwaite: False for n - p degrees of freedom.
        weights: column name or (n,): a row's residual variance is sigma^2 / weight; of
            zero: predicted alone. A Series, here and below, goes by row labels.
        offset: known part of the predictor, column name or (n,).
        correlated: in the second form, False (or factor -> False): independent effects.
        method: "reml", "ml", ``jg.REML()``, ``jg.ML()``, or a Bayesian one of ``glmm``.
        missing: "drop" rows with missing values (counted, with a warning), or "raise".
        priors: ``jg.Priors(...)``, with a Bayesian method.
        conf_level: coverage of ``fit.conf_int``.
        contrasts: factor of the formula -> "treatment" (default), "sum", "helmert",
            "poly", "diff", or what ``C(f, ...)`` takes.
        residual: covariance of the residuals: one of ``mmrm``'s, "ar1(time | g)";
            standard deviations "varident(f)", "varpower(x)", "varexp(x)" by levels,
            |x|^d, exp(d x); joined by "+". Or V (n, n) itself, sparse or a list of
            blocks, times sigma^2.
        ddf: with ``residual`` or ``dispersion``, degrees of freedom as for ``mmrm``.
        known: factor of a ``(1 | id)`` -> covariance of its levels, up to a variance: a
            labelled frame (``jg.pedigree``, ``jg.phylogeny``), (matrix, levels), a
            SciPy matrix, ``jg.KnownPrecision``.
        dispersion: formula of the log residual sd, ``"~ x"``; with random effects in it
            by ``reml=False`` alone. ``"~ 0"``: random effects say all the covariance.
        fixed: name in tables (``"sigma"``, ``"sd_(Intercept)|g"``) -> value it is held
            at: no degree of freedom, no standard error.
        start: name -> value of parameters from which the search begins.
        checkpoint: of files in batches, a folder from which a killed run goes on.
        executor: of files in batches, what makes the sums, as in ``fit_many``.
        unknown: none; other packages' names raise an ``ArgumentError`` with ours.

    Returns:
        A ``Fit``. One that did not converge is returned too, with its status.

    Raises:
        FormulaError, DataError, ModelError: before anything is computed, where formula,
            data or model cannot be used; the message says what to change.

    Method: the profiled criterion of Bates et al. (2015), by Newton's method with the
    average information of Gilmour et al. (1995), right where a variance is zero too.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> {name: round(value, 3) for name, value in fit.fixef.items()}
    {'(Intercept)': 251.405, 'Days': 10.467}
    """
    if unknown:
        raise unknown_argument("jg.lmm", unknown, signature(lmm).parameters)
    read = _read(locals())
    how = {"method": method, "reml": reml, "priors": priors, "conf_level": conf_level}
    how |= {"tol": tol, "max_iter": max_iter, "satterthwaite": compute_satterthwaite}
    how |= {"residual": residual, "dispersion": dispersion, "ddf": ddf}
    how |= {"batches": {"checkpoint": checkpoint, "executor": executor}}
    return _linear((formula, data, groups), read, fixed, start, **how)


def _read(given: dict[str, Any]) -> dict[str, Any]:
    """What ``read_design`` takes, of all that a door was given."""
    names = ("random_effects", "random_data", "correlated", "contrasts", "missing")
    return {name: given[name] for name in (*names, "weights", "offset", "known")}


def _linear(
    given: tuple[Any, Any, Any],
    read: dict[str, Any],
    fixed: dict | None,
    start: dict | None,
    *,
    method: Any,
    reml: bool,
    priors: Any,
    conf_level: float,
    tol: float,
    max_iter: int,
    satterthwaite: bool,
    residual: Any,
    dispersion: Any,
    ddf: str | None,
    batches: dict[str, Any],
) -> Fit:
    """The steps of ``lmm``; given: formula, data, groups; read: for ``read_design``."""
    bayes = bayes_method(method)
    others = dispersion_of(given[0], dispersion, bayes, residual)
    estimator = estimator_of(None if bayes else method, reml)
    satterthwaite = _arguments.flag("compute_satterthwaite", satterthwaite)
    priors_need_bayes(bayes, priors)
    conf_level = _arguments.level(conf_level, "conf_level", ModelError)
    tol, max_iter = check_numbers(tol, max_iter)
    if isinstance(given[0], str) and is_source(given[1]):
        only = {"residual": residual, "dispersion": dispersion, "method": bayes}
        only |= {"fixed": fixed, "start": start, "ddf": ddf}
        read = read | batches
        fit = streamed(given, read, only, estimator, tol, max_iter, satterthwaite)
        fit.diagnostics["conf_level"] = conf_level
        return fit
    in_batches(batches)
    started = time.perf_counter()
    if isinstance(residual, str):
        read = read | {"residual": residual}
    design = read_design("lmm", *given, **read, others=formulas(others))
    design = known_or_held(design, residual, fixed, start, bayes, bool(others))
    if others:
        how = checked_ddf(ddf, satterthwaite)
        fit = dispersed(design, estimator, tol, max_iter, started, how)
    elif design.residual is not None:
        if bayes is not None:
            raise ModelError(
                f"residual={residual!r} needs maximum likelihood or REML; posteriors "
                "have independent residuals"
            )
        own = {"ddf": checked_ddf(ddf, satterthwaite), "kinds": faces.face}
        own |= {"fixed": fixed, "start": start}
        fit = fit_correlated(design, estimator, tol, max_iter, started, **own)
    elif bayes is not None:
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
    zi: Any = None,
    dispersion: Any = None,
    known: Any = None,
    reml: bool = False,
    fixed: dict | None = None,
    start: dict | None = None,
    checkpoint: Any = None,
    executor: Any = None,
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
        data: a table, X (n, p), or, with one grouping factor, a source as for ``lmm``.
        groups: factor -> labels (n,), in the second form.
        family: "binomial", "poisson", "nbinom2", "nbinom1", "gamma",
            "inverse_gaussian", "beta", "betabinomial", "student", "gaussian", or an
            object with a link: ``jg.Binomial(link="probit")``.
        method: "laplace" or ``jg.Laplace(...)``; "agq", ``jg.AGQ(nodes)`` or
            ``jg.AGQ("auto")``: adaptive Gauss-Hermite quadrature, one grouping factor.
            Bayesian: "nested-laplace" or ``jg.NestedLaplace(...)``, "map", "vb",
            "nuts".
        random_effects: as for ``lmm``.
        random_data: as for ``lmm``.
        tol: as for ``lmm``.
        max_iter: as for ``lmm``.
        weights: prior weights, column name or (n,): multiply log densities (of linear
            models: divide the variance). A Series, here and below, goes by row labels.
        offset: known part of the linear predictor, column name or (n,).
        trials: numbers of trials of a binomial response, column name or (n,).
        correlated: as for ``lmm``.
        missing: as for ``lmm``.
        priors: ``jg.Priors(...)``, with a Bayesian method.
        conf_level: coverage of ``fit.conf_int``.
        contrasts: as for ``lmm``.
        zi: right side of the formula of the logit of the probability of a zero that is
            not the family's, ``"~ x + (1 | g)"``; ``"~ ."`` has the terms of the mean.
            With a truncated family, or one of positive values, a hurdle.
        dispersion: formula of the log dispersion (Gaussian: sd); also ``dispformula``.
        known: as for ``lmm``.
        reml: fixed effects integrated out too, by Laplace; also ``method="reml"``.
        fixed: as for ``lmm``, ``{"phi": 2.0}`` too.
        start: as for ``lmm``.
        checkpoint: as for ``lmm``.
        executor: as for ``lmm``.
        unknown: none; other packages' names raise an ``ArgumentError`` with ours.

    Returns:
        A ``Fit``. One that did not converge is returned too, with its status.

    Raises:
        FormulaError, DataError, ModelError: with what to change, at once.

    Method: Laplace's approximation to the marginal likelihood with observed information
    at the mode of the random effects (Kristensen et al. 2016), an analytic score, and
    a Newton method over (beta, theta, phi); standard errors from the exact Hessian.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    >>> round(fit.criterion, 4), round(fit.varcorr["herd"].sd.iloc[0], 4)
    (184.0526, 0.6423)
    """
    zi, dispersion, nominal = spelt(unknown, zi, dispersion)
    if unknown:
        raise unknown_argument("jg.glmm", unknown, signature(glmm).parameters)
    read = {"random_effects": random_effects, "random_data": random_data}
    read |= {"correlated": correlated, "contrasts": contrasts, "missing": missing}
    read |= {"weights": weights, "offset": offset, "trials": trials, "known": known}
    how = {"method": method, "reml": reml, "priors": priors, "conf_level": conf_level}
    how |= {"tol": tol, "max_iter": max_iter, "family": family}
    how |= {"batches": {"checkpoint": checkpoint, "executor": executor}}
    others, held = (zi, dispersion, nominal), (fixed, start)
    return _generalised((formula, data, groups), read, others, held, **how)


def _generalised(
    given: tuple[Any, Any, Any],
    read: dict[str, Any],
    parts: tuple[Any, Any, Any],
    held: tuple[Any, Any],
    *,
    family: Any,
    method: Any,
    reml: bool,
    priors: Any,
    conf_level: float,
    tol: float,
    max_iter: int,
    batches: dict[str, Any],
) -> Fit:
    """The steps of ``glmm``; parts: zi, dispersion, nominal; held: fixed, start."""
    from jaxglmm.model.families import family_from

    likelihood = family_from(family)
    zi, dispersion, nominal = parts
    others = right_sides(given[0], zi, dispersion, likelihood, nominal)
    bayes = bayes_method(method)
    restricted = by_reml(reml, likelihood, bayes, method)
    linear = (restricted and likelihood.is_linear_model) or no_residual(others, bayes)
    estimator = None if bayes or linear else integration_of(method, restricted)
    priors_need_bayes(bayes, priors)
    conf_level = _arguments.level(conf_level, "conf_level", ModelError)
    tol, max_iter = check_numbers(tol, max_iter)
    if isinstance(given[0], str) and is_source(given[1]):
        only = {"zi": zi, "dispersion": dispersion, "nominal": nominal}
        only |= {"method": bayes, "fixed": held[0], "start": held[1]}
        read, how = read | batches, (tol, max_iter)
        if likelihood.is_linear_model:
            own = Maximise(restricted), *how, False
            fit = streamed(given, read, only, *own)
        else:
            own = estimator or integration_of("laplace"), *how
            fit = streamed_generalised(given, read, only, likelihood, *own)
        fit.diagnostics["conf_level"] = conf_level
        return fit
    in_batches(batches)
    started = time.perf_counter()
    read = read | {"others": formulas(others)} | reading(likelihood)
    design = read_design("glmm", *given, **read)
    if others and not linear:
        design, likelihood = composed(design, likelihood)
    asked = None if all(x is None for x in held) else (*held, bayes)
    if linear or (asked and (bayes or is_held_linear(design, likelihood))):
        rest = (restricted, tol, max_iter, started, asked)
        fit = gaussian(design, others, likelihood, *rest)
    elif bayes is not None:
        fit = fit_bayes(design, likelihood, bayes, priors, started)
    else:
        assert estimator is not None
        rest = (tol, max_iter, started, faces.face, *held)
        fit = fit_generalised(design, likelihood, estimator, *rest)
    fit.diagnostics["conf_level"] = conf_level
    return fit


def fit_bayes(
    design: Design,
    family: AbstractFamily,
    method: BayesMethod,
    priors: Any = None,
    started: float | None = None,
) -> Fit:
    """The steps after the formula: check, find the posterior, name."""
    from jaxglmm.fitting.kinds import posterior_kind
    from jaxglmm.fitting.ordinal import settled
    from jaxglmm.posterior.fit import check_response, fit_posterior, warn

    began = time.perf_counter() if started is None else started
    design, family = settled(design, family)
    check_response(design, family, priors)
    check_generalised(design)
    programs.spare()
    seconds = {"design": time.perf_counter() - began}
    make = faces.face(posterior_kind(family.name))
    facts = {"seconds": seconds}
    fit = fit_posterior(design, family, method, priors, facts, make=make)
    warn(fit)
    return fit


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
