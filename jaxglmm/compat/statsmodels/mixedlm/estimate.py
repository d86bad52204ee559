"""``MixedLM.fit``: which way to fit, and the results around what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.compat.statsmodels.mixedlm import boundary
from jaxglmm.compat.statsmodels.mixedlm import by_scipy as scipys
from jaxglmm.compat.statsmodels.mixedlm import fit as fits
from jaxglmm.compat.statsmodels.mixedlm.coordinates import (
    Elements,
    column_sizes,
    elements_from,
    from_zero,
    roots_from,
)
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.state import FitState, HeldFixed, ModelState
from jaxglmm.formula.notices import warn as warn_user

TOLERANCE, STEPS = 1e-8, 200
OPTIONS = ("maxiter", "tol", "disp", "gtol", "ftol", "eps", "maxcor", "maxls")
COVARIANCES = ("nonrobust", "cluster")
Fit = TypeVar("Fit", bound=FitState)


@dataclass(frozen=True)
class FitRequest:
    """The arguments of ``MixedLM.fit``, see there."""

    start_params: Any = None
    reml: bool = True
    em_steps: int = 0
    do_cg: bool = True
    fe_pen: Any = None
    cov_pen: Any = None
    free: MixedLMParams | None = None
    full_output: bool = False
    method: Any = None
    fix: Mapping[str, float] = field(default_factory=dict)
    cov_type: str = "nonrobust"
    options: dict[str, Any] = field(default_factory=dict)

    def checked(self, model: ModelState) -> FitRequest:
        """The same with names of methods in a list, and options that mean something."""
        options, cov_type, methods = self.options, self.cov_type, _methods(self.method)
        if cov_type not in COVARIANCES:
            options, cov_type = {**options, "cov_type": cov_type}, COVARIANCES[0]
        options = known_options(options)
        if self.em_steps < 0:
            raise ValueError(f"em_steps={self.em_steps} must not be negative")
        _check_free(model, self.free, self.fix, self.em_steps)
        return replace(
            self,
            reml=bool(self.reml),
            method=methods,
            options=options,
            cov_type=cov_type,
        )

    @property
    def tol(self) -> float:
        """Of -2 log-likelihood."""
        return float(self.options.get("tol", TOLERANCE))

    @property
    def steps(self) -> int:
        """Most steps of Newton's method; maxiter= is of SciPy's where one is named."""
        return STEPS if self.method else int(self.options.get("maxiter", STEPS))


def estimate(
    model: ModelState, request: FitRequest, make: Callable[..., Fit] = FitState
) -> Fit:
    """Fit as ``MixedLM.fit`` says; ``make`` is the class of the results."""
    asked = request.checked(model)
    free = asked.free
    model.reml, model.fe_pen, model.cov_pen = asked.reml, asked.fe_pen, asked.cov_pen
    model._freepat = free
    start = _start(model, asked.start_params)
    ev, fixed = _evaluator(model, free, start)
    record: Any = None
    if asked.fe_pen is not None or asked.cov_pen is not None:
        if asked.method or asked.fix or fixed is not None:
            raise NotApplicableError(
                "a penalised fit takes neither method=, fix= nor held fixed effects"
            )
        found = _penalised(ev, start, asked)
    elif fixed is None and _plain(model, asked):
        diagonal = free is not None and model.k_re > 1
        design = model._design(True) if diagonal else ev.design
        found = fits.by_engine(ev, design, asked.reml, asked.tol, asked.steps)
    else:
        found, record = _step_by_step(model, ev, start, asked)
    results = _results(model, ev, fixed, found, asked, make)
    results.mle_retvals = _retvals(results, found, record, asked.do_cg)
    if asked.full_output:
        results.hist = [{**results.mle_retvals, "allvecs": found.history}]
    if asked.options.get("disp"):
        print(results.mle_retvals["message"])
    if asked.do_cg:
        boundary.warn(results, found)
    return results


# Reading the arguments ----------------------------------------------------------------


def _methods(method: Any) -> list[str]:
    if method is None:
        return []
    names = [method] if isinstance(method, str) else list(method)
    for name in names:
        if not isinstance(name, str) or name.lower() not in scipys.SCIPY:
            raise ValueError(
                f"method {name} not available for MixedLM; there are None (Newton's "
                f"method), {', '.join(scipys.SCIPY)}"
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


def _check_free(model: ModelState, free, fix, em_steps: int) -> None:
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


def _start(model: ModelState, given: Any) -> MixedLMParams:
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


def _evaluator(model: ModelState, free, start) -> tuple[Evaluator, HeldFixed | None]:
    """The model's evaluator, or one where held fixed effects are part of an offset."""
    if free is None or (np.asarray(free.fe_params) != 0).all():
        return model._evaluator, None
    at = np.where(np.asarray(free.fe_params) != 0, np.nan, start.fe_params)
    return model.apart(at), HeldFixed(at)


def _plain(model: ModelState, asked: FitRequest) -> bool:
    """Whether the engine of ``jg.lmm`` does it as it is."""
    free = asked.free
    if asked.start_params is not None or asked.em_steps or not asked.do_cg:
        return False
    if asked.fix or asked.method or not model._layout().plain:
        return False
    if free is None:
        return True
    mask = np.asarray(free.cov_re) != 0
    diagonal = np.array_equal(mask, np.eye(model.k_re)) and model.k_re > 1
    return diagonal and bool((np.asarray(free.vcomp) != 0).all())


def _step_by_step(
    model: ModelState, ev: Evaluator, start: MixedLMParams, asked: FitRequest
):
    """EM, SciPy, Newton: whichever of them were asked for."""
    free, reml, history, record = asked.free, asked.reml, [], None
    if asked.start_params is None and free is None:
        start = _scaled(ev, start)
    if asked.em_steps:
        cov_re, vcomp, values = fits.em(
            ev, start.cov_re, start.vcomp, reml, asked.em_steps
        )
        start = MixedLMParams.from_components(start.fe_params, cov_re, vcomp=vcomp)
        history.append({"em": values})
    if not asked.do_cg:
        at = (start.cov_re, start.vcomp)
        return fits.CovarianceFound(*at, _status.MAX_STEPS, 0, np.nan, history), None
    pins, order = _pins(model, ev, asked.fix)
    if model.use_sqrt or pins:
        if free is None:
            start = from_zero(ev, start, asked.em_steps > 0)
        coordinates = roots_from(start, free, pins, order)
    else:
        coordinates = elements_from(start, free)
    if asked.method:
        if pins:
            raise NotApplicableError(
                "fix= is by Newton's method alone: leave out method="
            )
        x, path, record = scipys.minimise(
            ev, coordinates, reml, asked.method, asked.options, asked.full_output
        )
        history += path
        coordinates.move(x)
        if free is None and isinstance(coordinates, Elements):
            # nothing is held, so roots do as well, and a variance may end at zero
            at = MixedLMParams.from_components(
                start.fe_params, coordinates.cov_re, vcomp=coordinates.vcomp
            )
            coordinates = roots_from(from_zero(ev, at, True), None)
    found = fits.held(ev, coordinates, reml, asked.tol, asked.steps)
    return replace(found, history=history + found.history), record


def _scaled(ev: Evaluator, start: MixedLMParams) -> MixedLMParams:
    """A start that does not depend on the units of Z."""
    size = np.maximum(column_sizes(ev), 1e-8)
    out = start.copy()
    out.cov_re = np.diag(1 / size[: ev.k_re] ** 2)
    out.vcomp = 1 / size[ev.k_re :] ** 2
    return out


def _pins(model: ModelState, ev: Evaluator, fix) -> tuple[dict, list[int] | None]:
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


def _penalised(
    ev: Evaluator, start: MixedLMParams, asked: FitRequest
) -> fits.CovarianceFound:
    for pen in (asked.fe_pen, asked.cov_pen):
        if pen is not None and not (hasattr(pen, "func") and hasattr(pen, "deriv")):
            raise TypeError(
                f"a penalty needs the methods func and deriv; {type(pen).__name__} "
                "has not"
            )
    free = asked.free
    first = from_zero(ev, _scaled(ev, start), False) if free is None else start
    warm = fits.held(ev, roots_from(first, free), asked.reml, asked.tol, STEPS)
    beta = ev.gls(ev.ground(warm.cov_re, warm.vcomp)[1])
    begin = MixedLMParams.from_components(beta, warm.cov_re, vcomp=warm.vcomp)
    if free is None:
        begin = from_zero(ev, begin, True)
    return scipys.penalised(
        ev,
        begin,
        roots_from(begin, free),
        asked.reml,
        asked.fe_pen,
        asked.cov_pen,
        max(asked.steps, 200),
    )


# What was found -----------------------------------------------------------------------


def _results(
    model, ev, fixed, found, asked: FitRequest, make: Callable[..., Fit]
) -> Fit:
    fix, reml = asked.fix, asked.reml
    _, K, _ = ev.ground(found.cov_re, found.vcomp)
    beta = ev.gls(K) if found.beta is None else found.beta
    scale = ev.scale(K, beta, reml) if found.scale is None or not fix else found.scale
    whole = beta if fixed is None else fixed.fill(beta)
    params = MixedLMParams.from_components(whole, found.cov_re, vcomp=found.vcomp)
    return make(
        model,
        params.get_packed(use_sqrt=False, has_fe=True),
        params_object=params,
        scale=scale,
        reml=reml,
        converged=found.converged,
        freepat=asked.free,
        held=tuple(fix),
        evaluator=ev,
        fixed=fixed,
        fit=found.fit,
        cov_type=asked.cov_type,
        pinned=bool(fix),
    )


def _retvals(results, found, record, do_cg: bool) -> dict[str, Any]:
    """What statsmodels keeps as ``mle_retvals``."""
    if not do_cg:
        message = "not optimised: the results are those at the start"
    else:
        message = found.message
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
