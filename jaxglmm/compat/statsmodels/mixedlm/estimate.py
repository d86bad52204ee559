"""``MixedLM.fit``: which way to fit, and the results around what was found."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxglmm import _status
from jaxglmm._errors import (
    ConvergenceWarning,
    DataError,
    ModelError,
    NotApplicableError,
    SingularFitWarning,
)
from jaxglmm.compat.statsmodels.mixedlm import fit as fits
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams, root
from jaxglmm.compat.statsmodels.mixedlm.results import MixedLMResults
from jaxglmm.formula.notices import warn as warn_user

if TYPE_CHECKING:
    from jaxglmm.compat.statsmodels.mixedlm.model import MixedLM

TOLERANCE, STEPS = 1e-8, 200
OPTIONS = ("maxiter", "tol", "disp", "gtol", "ftol", "eps", "maxcor", "maxls")
ZERO = 1e-4  # relative standard deviation, of a column of unit size, that is zero
COVARIANCES = ("nonrobust", "cluster")


class BoundaryWarning(SingularFitWarning, ConvergenceWarning):
    """An optimum at zero variance or perfect correlation.

    statsmodels warns twice of it; filters on either of its categories see this one.
    """


@dataclass(frozen=True)
class Fixed:
    """Fixed effects that are held: at (k_fe,) with NaN where they are free."""

    at: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """(k_fe,) which are estimated."""
        return np.isnan(self.at)

    def fill(self, beta: np.ndarray) -> np.ndarray:
        """All fixed effects from the free ones."""
        out = self.at.copy()
        out[self.free] = beta
        return out


def estimate(
    model: MixedLM,
    *,
    start_params: Any,
    reml: bool,
    em_steps: int,
    do_cg: bool,
    fe_pen: Any,
    cov_pen: Any,
    free: MixedLMParams | None,
    full_output: bool,
    method: Any,
    fix: Mapping[str, float] | None,
    cov_type: str,
    options: dict[str, Any],
) -> MixedLMResults:
    """See ``MixedLM.fit``."""
    methods = _methods(method)
    if cov_type not in COVARIANCES:
        options, cov_type = {**options, "cov_type": cov_type}, COVARIANCES[0]
    options = known_options(options)
    if em_steps < 0:
        raise ValueError(f"em_steps={em_steps} must not be negative")
    _check_free(model, free, fix, em_steps)
    model.reml, model.fe_pen, model.cov_pen = bool(reml), fe_pen, cov_pen
    model._freepat = free
    start = _start(model, start_params)
    ev, fixed = _evaluator(model, free, start)
    tol = float(options.get("tol", TOLERANCE))
    steps = STEPS if methods else int(options.get("maxiter", STEPS))
    record: Any = None
    if fe_pen is not None or cov_pen is not None:
        if methods or fix or fixed is not None:
            raise NotApplicableError(
                "a penalised fit takes neither method=, fix= nor held fixed effects"
            )
        found = _penalised(model, ev, start, free, reml, fe_pen, cov_pen, tol, steps)
    elif _plain(model, start_params, em_steps, do_cg, free, fix, methods, fixed):
        diagonal = free is not None and model.k_re > 1
        design = model._design(True) if diagonal else ev.design
        found = fits.by_engine(ev, design, bool(reml), tol, steps)
    else:
        found, record = _step_by_step(
            model,
            ev,
            start,
            start_params is None,
            bool(reml),
            em_steps,
            do_cg,
            free,
            fix,
            methods,
            options,
            tol,
            steps,
            full_output,
        )
    results = _results(model, ev, fixed, found, bool(reml), free, fix or {}, cov_type)
    results.mle_retvals = _retvals(results, found, record, do_cg)
    results.hist = [{**results.mle_retvals, "allvecs": found.history}]
    if not full_output:
        results.hist = None
    if options.get("disp"):
        print(results.mle_retvals["message"])
    if do_cg:
        warn(results, found)
    return results


# Reading the arguments ----------------------------------------------------------------


def _methods(method: Any) -> list[str]:
    if method is None:
        return []
    names = [method] if isinstance(method, str) else list(method)
    for name in names:
        if not isinstance(name, str) or name.lower() not in fits.SCIPY:
            raise ValueError(
                f"method {name} not available for MixedLM; there are None (Newton's "
                f"method), {', '.join(fits.SCIPY)}"
            )
    return [name.lower() for name in names]


def known_options(options: dict[str, Any], taken: Sequence[str] = ()) -> dict:
    """The options that mean something; others are warned of, as statsmodels does.

    Args:
        options: of ``fit``.
        taken: further names that are understood by the caller.
    """
    unknown = sorted(set(options).difference(OPTIONS, taken))
    if unknown:
        ending = "s" if len(unknown) > 1 else ""
        warn_user(
            f"Argument{ending} {', '.join(unknown)} not used by MixedLM.fit. It takes "
            f"{', '.join(OPTIONS)}; a future version will refuse others.",
            FutureWarning,
        )
    return {k: v for k, v in options.items() if k not in unknown}


def _check_free(model: MixedLM, free, fix, em_steps: int) -> None:
    if free is not None:
        sizes = (len(free.cov_re), len(free.vcomp), len(free.fe_params))
        wanted = (model.k_re, model.k_vc, model.k_fe)
        if sizes[0] != wanted[0] or sizes[1] not in (0, wanted[1]):
            raise ValueError(
                f"free has (k_re, k_vc, k_fe) = {sizes}; the model has {wanted}"
            )
        if len(free.vcomp) != model.k_vc:
            free.vcomp, free.k_vc = np.ones(model.k_vc), model.k_vc
        if not len(free.fe_params):
            free.fe_params, free.k_fe = np.ones(model.k_fe), model.k_fe
        if len(free.fe_params) != model.k_fe:
            raise ValueError(
                f"free has (k_re, k_vc, k_fe) = {sizes}; the model has {wanted}"
            )
    if free is not None and fix:
        raise ValueError("free= and fix= hold parameters in two ways; use one of them")
    if em_steps and (free is not None or fix):
        raise ValueError("EM steps move every parameter; leave out free= and fix=")


def _start(model: MixedLM, given: Any) -> MixedLMParams:
    """Where to start: what was given, else an identity and ones as in statsmodels."""
    k_fe, k_re, k_vc = model.k_fe, model.k_re, model.k_vc
    if given is None:
        return MixedLMParams(k_fe, k_re, k_vc)
    if isinstance(given, MixedLMParams):
        out = given.copy()
        if len(out.fe_params) == 0:
            out.fe_params, out.k_fe = np.zeros(k_fe), k_fe
        if (out.k_fe, out.k_re, out.k_vc) != (k_fe, k_re, k_vc):
            raise ValueError("invalid start_params")
        return out
    try:
        values = np.asarray(given, float)
    except (TypeError, ValueError):
        raise ValueError("invalid start_params") from None
    inner = model.k_re2 + k_vc
    if values.ndim != 1 or len(values) not in (inner, inner + k_fe):
        raise ValueError("invalid start_params")
    has_fe = len(values) == inner + k_fe
    return MixedLMParams.from_packed(values, k_fe, k_re, model.use_sqrt, has_fe)


def _evaluator(model: MixedLM, free, start) -> tuple[Evaluator, Fixed | None]:
    """The model's evaluator, or one where held fixed effects are part of an offset."""
    if free is None or (np.asarray(free.fe_params) != 0).all():
        return model._evaluator, None
    at = np.where(np.asarray(free.fe_params) != 0, np.nan, start.fe_params)
    fixed = Fixed(at)
    known = ~fixed.free
    rest = model.endog - model.exog[:, known] @ at[known]
    design = model._design(response=rest, columns=np.flatnonzero(fixed.free))
    return Evaluator(design, model._layout(), model.k_re, model.k_vc), fixed


def _plain(model, start, em_steps, do_cg, free, fix, methods, fixed) -> bool:
    """Whether the engine of ``jg.lmm`` does it as it is."""
    if start is not None or em_steps or not do_cg or fix or methods or fixed:
        return False
    if not model._layout().plain:
        return False
    if free is None:
        return True
    whole = np.ones((model.k_re, model.k_re))
    mask = np.asarray(free.cov_re) != 0
    ordinary = np.array_equal(mask, np.eye(model.k_re)) or np.array_equal(mask, whole)
    diagonal = not np.array_equal(mask, whole)
    return ordinary and diagonal and bool((np.asarray(free.vcomp) != 0).all())


def _step_by_step(
    model,
    ev,
    start,
    default,
    reml,
    em_steps,
    do_cg,
    free,
    fix,
    methods,
    options,
    tol,
    steps,
    full_output,
):
    """EM, SciPy, Newton: whichever of them were asked for."""
    history: list = []
    if default and free is None:
        start = _scaled(ev, start)
    if em_steps:
        cov_re, vcomp, values = fits.em(ev, start.cov_re, start.vcomp, reml, em_steps)
        start = MixedLMParams.from_components(start.fe_params, cov_re, vcomp=vcomp)
        history.append({"em": values})
    if not do_cg:
        return (
            fits.Found(
                start.cov_re, start.vcomp, _status.MAX_STEPS, 0, np.nan, history
            ),
            None,
        )
    pins, order = _pins(model, ev, fix)
    if model.use_sqrt or pins:
        if free is None:
            start = _from_zero(ev, start, em_steps > 0)
        coordinates = fits.roots_from(start, free, pins, order)
    else:
        coordinates = fits.elements_from(start, free)
    record = None
    if methods:
        if pins:
            raise NotApplicableError(
                "fix= is by Newton's method alone: leave out method="
            )
        x, path, record = fits.by_scipy(
            ev, coordinates, reml, methods, options, full_output
        )
        history += path
        coordinates.move(x)
        if free is None and isinstance(coordinates, fits.Elements):
            # nothing is held, so roots do as well, and a variance may end at zero
            at = MixedLMParams.from_components(
                start.fe_params, coordinates.cov_re, vcomp=coordinates.vcomp
            )
            coordinates = fits.roots_from(_from_zero(ev, at, True), None)
    found = fits.held(ev, coordinates, reml, tol, steps)
    return replace(found, history=history + found.history), record


def _scaled(ev: Evaluator, start: MixedLMParams) -> MixedLMParams:
    """A start that does not depend on the units of Z."""
    size = np.maximum(fits.column_sizes(ev), 1e-8)
    out = start.copy()
    out.cov_re = np.diag(1 / size[: ev.k_re] ** 2)
    out.vcomp = 1 / size[ev.k_re :] ** 2
    return out


def _from_zero(ev: Evaluator, start: MixedLMParams, found: bool) -> MixedLMParams:
    """The start with variances of zero moved off it, for they would stay there."""
    size = np.maximum(fits.column_sizes(ev), 1e-8)
    least = (1e-3 if found else 0.1) / size
    out = start.copy()
    out.vcomp = np.maximum(out.vcomp, least[ev.k_re :] ** 2)
    L = root(out.cov_re)
    low = np.diagonal(L) < least[: ev.k_re]
    if low.any():
        L[np.flatnonzero(low), np.flatnonzero(low)] = least[: ev.k_re][low]
        out.cov_re = L @ L.T
    return out


def _pins(model: MixedLM, ev: Evaluator, fix) -> tuple[dict, list[int] | None]:
    """Variances that are held, in internal units, and the order that makes it so."""
    if not fix:
        return {}, None
    unit = ev.engine.moments.fixed.scale**2
    re = [f"{name} Var" for name in model.data.exog_re_names]
    if model.data.exog_re_names == ["Group Var"]:
        re = ["Group Var"]
    vc = [f"{c.name} Var" for c in model._vc]
    pins, order = {}, None
    for name, value in fix.items():
        if not value >= 0:
            raise ValueError(f"fix: {name!r} = {value} is not a variance")
        if name in vc:
            pins[vc.index(name)] = float(value) / unit
        elif name in re and order is None:
            first = re.index(name)
            order = [first, *(i for i in range(model.k_re) if i != first)]
            pins["re"] = float(value) / unit
        elif name in re:
            raise NotApplicableError(
                "fix holds one of the correlated variances, not two"
            )
        else:
            raise ValueError(f"fix: {name!r} is none of {', '.join([*re, *vc])}")
    return pins, order


def _penalised(model, ev, start, free, reml, fe_pen, cov_pen, tol, steps):
    for pen in (fe_pen, cov_pen):
        if pen is not None and not (hasattr(pen, "func") and hasattr(pen, "deriv")):
            raise TypeError(
                f"a penalty needs the methods func and deriv; {type(pen).__name__} "
                "has not"
            )
    first = _from_zero(ev, _scaled(ev, start), False) if free is None else start
    warm = fits.held(ev, fits.roots_from(first, free), bool(reml), tol, STEPS)
    begin = MixedLMParams.from_components(
        model.get_fe_params(warm.cov_re, warm.vcomp)[0], warm.cov_re, vcomp=warm.vcomp
    )
    if free is None:
        begin = _from_zero(ev, begin, True)
    coordinates = fits.roots_from(begin, free)
    return fits.penalised(
        ev, begin, coordinates, bool(reml), fe_pen, cov_pen, max(steps, 200)
    )


# What was found -----------------------------------------------------------------------


def _results(model, ev, fixed, found, reml, free, fix, cov_type) -> MixedLMResults:
    _, K, _ = ev.ground(found.cov_re, found.vcomp)
    beta = ev.gls(K) if found.beta is None else found.beta
    scale = ev.scale(K, beta, reml) if found.scale is None or not fix else found.scale
    whole = beta if fixed is None else fixed.fill(beta)
    params = MixedLMParams.from_components(whole, found.cov_re, vcomp=found.vcomp)
    return MixedLMResults(
        model,
        params.get_packed(use_sqrt=False, has_fe=True),
        params_object=params,
        scale=scale,
        reml=reml,
        converged=found.converged,
        freepat=free,
        held=tuple(fix),
        evaluator=ev,
        fixed=fixed,
        fit=found.fit,
        cov_type=cov_type,
        pinned=bool(fix),
    )


def _retvals(results, found, record, do_cg: bool) -> dict[str, Any]:
    """What statsmodels keeps as ``mle_retvals``."""
    if not do_cg:
        message = "not optimised: the results are those at the start"
    else:
        message = _status.message(
            found.status, steps=found.steps, decrement=found.decrement
        )
    out = {
        "converged": found.converged,
        "iterations": found.steps,
        "decrement": found.decrement,
        "fopt": -results.llf / results.nobs,
        "message": message,
    }
    if record is not None:
        out["scipy"] = record
    return out


def warn(results: MixedLMResults, found) -> None:
    """One warning a fit, with numbers and a remedy."""
    if not found.converged:
        text = _status.message(
            found.status, steps=found.steps, decrement=found.decrement
        ).replace("max_iter", "maxiter")
        warn_user(f"Not converged: {text}.", ConvergenceWarning)
        return
    facts = singular_facts(results)
    if facts:
        warn_user(
            f"The random effects covariance matrix is singular: {'; '.join(facts)}. "
            "The MLE is on the boundary of the parameter space, since the data do not "
            "support all of the random effects: drop one, hold covariances at zero "
            "with free=, or keep the model as it is: the estimates are the right "
            "optimum.",
            BoundaryWarning,
        )


def singular_facts(results: MixedLMResults) -> list[str]:
    """Zero variances and perfect correlations that were estimated, in words."""
    model, params = results.model, results.params_object
    size = fits.column_sizes(model._evaluator)
    held = _held_names(results)
    facts = []
    names = model.data.exog_re_names
    k = model.k_re
    covariance = params.cov_re * np.outer(size[:k], size[:k])
    sd = np.sqrt(np.diagonal(covariance))
    for i, name in enumerate(names):
        full = name if name.endswith(" Var") and k == 1 else f"{name} Var"
        if sd[i] < ZERO and full not in held:
            facts.append(f"{full} is estimated as 0")
    for i in range(k):
        for j in range(i):
            if min(sd[i], sd[j]) >= ZERO:
                r = covariance[i, j] / (sd[i] * sd[j])
                if abs(r) > 1 - 1e-6:
                    facts.append(
                        f"the correlation of {names[j]} and {names[i]} is estimated as "
                        f"{np.sign(r):+.0f}"
                    )
    if k > 2 and not facts:
        diagonal = np.diagonal(root(covariance))
        if diagonal.min() < ZERO:
            rank = int((diagonal >= ZERO).sum())
            facts.append(f"the {k} by {k} covariance matrix has rank {rank}")
    for c, (component, variance) in enumerate(
        zip(model._vc, params.vcomp, strict=True)
    ):
        full = f"{component.name} Var"
        if np.sqrt(variance) * size[k + c] < ZERO and full not in held:
            facts.append(f"{full} is estimated as 0")
    return facts


def _held_names(results: MixedLMResults) -> set[str]:
    out = set(results.held)
    if results.freepat is not None:
        mask = results.freepat.get_packed(use_sqrt=False, has_fe=True)
        names = results.model.data.param_names
        out |= {n for n, m in zip(names, mask, strict=True) if m == 0}
    return out


# L1 -----------------------------------------------------------------------------------


def regularized(
    model: MixedLM, start_params, method, alpha, ceps, ptol, maxit, fit_kwargs
) -> MixedLMResults:
    """See ``MixedLM.fit_regularized``."""
    if isinstance(method, str) and method.lower() != "l1":
        raise ValueError("Invalid regularization method")
    if not isinstance(method, str):
        method.alpha = alpha
        return model.fit(**{**fit_kwargs, "fe_pen": method})
    weights = np.broadcast_to(np.asarray(alpha, float), (model.k_fe,))
    if (weights < 0).any():
        raise ValueError(f"alpha={alpha!r} must not be negative")
    base = model.fit(**fit_kwargs)
    return _shrunk(model, base, start_params, weights, ceps, ptol, maxit)


def _shrunk(model, base, start_params, weights, ceps, ptol, maxit) -> MixedLMResults:
    ev = model._evaluator
    params = base.params_object
    _, K, _ = ev.ground(params.cov_re, params.vcomp)
    Q, c = _quadratic(ev, K, base.scale)
    beta = np.array(params.fe_params if start_params is None else start_params, float)
    if len(beta) != model.k_fe:
        raise DataError(
            f"start_params of fit_regularized are {model.k_fe} fixed effects, got "
            f"{len(beta)} numbers"
        )
    beta, rounds = descend(Q, c, weights, beta, ptol, maxit)
    beta[np.abs(beta) < ceps] = 0.0
    scale = ev.scale(K, beta, base.reml)
    shrunk = MixedLMParams.from_components(beta, params.cov_re, vcomp=params.vcomp)
    results = MixedLMResults(
        model,
        shrunk.get_packed(use_sqrt=False, has_fe=True),
        params_object=shrunk,
        scale=scale,
        reml=base.reml,
        converged=rounds < maxit,
        freepat=base.freepat,
        held=base.held,
        evaluator=ev,
        zero=beta == 0,
        shrunk=(base.cov_re_array, base.vcomp),
    )
    results.mle_retvals = {
        "converged": rounds < maxit,
        "iterations": rounds,
        "fopt": -results.llf / results.nobs,
        "message": f"coordinate descent, {rounds} rounds",
    }
    if rounds >= maxit:
        warnings.warn(
            f"Coordinate descent stopped after {maxit} rounds; raise maxit.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return results


def _quadratic(ev: Evaluator, K: np.ndarray, scale: float):
    """X'V^-1X and X'V^-1y of the natural covariance, in the user's units."""
    fixed, p = ev.engine.moments.fixed, ev.p
    Q = fixed.R.T @ K[:p, :p] @ fixed.R / scale
    beta = ev.gls(K)
    return Q, Q @ beta


def descend(Q, c, weights, beta, ptol: float, maxit: int) -> tuple[np.ndarray, int]:
    """Minimise b'Qb - 2 c'b + sum weights |b| coordinate by coordinate."""
    beta = np.array(beta, float)
    for rounds in range(1, maxit + 1):
        before = beta.copy()
        for j in range(len(beta)):
            rest = c[j] - Q[j] @ beta + Q[j, j] * beta[j]
            shrunk = max(abs(rest) - weights[j] / 2, 0.0)
            beta[j] = np.sign(rest) * shrunk / Q[j, j]
        if np.abs(beta - before).max(initial=0.0) < ptol:
            return beta, rounds
    return beta, maxit


def path(model: MixedLM, alphas: Any, options: dict[str, Any]) -> pd.DataFrame:
    """Coefficients along weights, the unpenalised fit made once."""
    unknown = set(options) - {"ceps", "ptol", "maxit", "reml"}
    if unknown:
        raise TypeError(f"regularization_path has no argument {sorted(unknown)[0]!r}")
    ceps, ptol = options.get("ceps", 1e-4), options.get("ptol", 1e-6)
    base = model.fit(reml=options.get("reml", True))
    ev = model._evaluator
    _, K, _ = ev.ground(base.params_object.cov_re, base.params_object.vcomp)
    Q, c = _quadratic(ev, K, base.scale)
    beta, rows = base.params_object.fe_params, {}
    for alpha in sorted(np.asarray(alphas, float).tolist()):
        if alpha < 0:
            raise ModelError(f"alpha={alpha} must not be negative")
        weights = np.full(model.k_fe, alpha)
        beta, _ = descend(Q, c, weights, beta, ptol, options.get("maxit", 200))
        rows[alpha] = np.where(np.abs(beta) < ceps, 0.0, beta)
    out = pd.DataFrame(rows, index=model.exog_names).T
    return out.rename_axis("alpha")
