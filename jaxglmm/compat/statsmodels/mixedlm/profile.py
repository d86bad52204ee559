"""Profile likelihoods of variances, and parametric bootstraps.

At each value the variance is held and everything else is maximised, from where the
neighbour ended; zero is an ordinary value. The values are asked for, as in statsmodels,
so that there is no root to be searched (``postestimation.profile`` searches limits).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np

from jaxglmm._errors import JaxGLMMWarning
from jaxglmm.compat.statsmodels.mixedlm import fit as fits
from jaxglmm.compat.statsmodels.mixedlm.coordinates import (
    Roots,
    from_zero,
    roots_from,
)
from jaxglmm.compat.statsmodels.mixedlm.estimate import FitRequest, estimate
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.simulate import Distribution
from jaxglmm.compat.statsmodels.mixedlm.state import FitState
from jaxglmm.model import covariances
from jaxglmm.model.covariances.host import host_lambdas

HOLD = ("variance", "ratio")


def profile_re(
    results: FitState,
    re_ix: Any,
    vtype: str,
    num_low: int,
    dist_low: float,
    num_high: int,
    dist_high: float,
    hold: str,
    tol: float,
    max_steps: int,
) -> np.ndarray:
    """See ``MixedLMResults.profile_re``."""
    if vtype not in ("re", "vc"):
        raise ValueError(f"vtype={vtype!r} must be 're' or 'vc'")
    if hold not in HOLD:
        raise ValueError(f"hold={hold!r} must be one of {HOLD}")
    model = results.model
    if vtype == "re":
        index = _effect(model, re_ix)
        middle = float(results.cov_re_array[index, index])
        pin: Any = "re"
        order = [index, *(i for i in range(model.k_re) if i != index)]
    else:
        index = _component(model, re_ix)
        middle, pin, order = float(results.vcomp[index]), index, None
    low, high = middle - dist_low, middle + dist_high
    if low < -1e-12 * max(middle, 1e-300):
        raise ValueError(
            "dist_low is too large and would result in a negative variance. Try a "
            f"smaller value: {middle:.6g} reaches zero."
        )
    left = np.linspace(max(low, 0.0), middle, num_low + 1)
    right = np.linspace(middle, high, num_high + 1)[1:]
    found = {}
    for values in (left[::-1], right):
        found |= _along(results, hold, pin, order, values, tol, max_steps)
    rows = [found[float(v)] for v in np.concatenate([left, right])]
    return np.array(rows)


def _effect(model: Any, re_ix: Any) -> int:
    names = model.data.exog_re_names
    if isinstance(re_ix, str):
        if re_ix not in names:
            raise ValueError(f"re_ix={re_ix!r} is none of {', '.join(names)}")
        return names.index(re_ix)
    if not 0 <= int(re_ix) < model.k_re:
        raise ValueError(f"re_ix={re_ix} is not in 0 .. {model.k_re - 1}")
    return int(re_ix)


def _component(model: Any, re_ix: Any) -> int:
    names = [c.name for c in model._vc]
    if re_ix not in names:
        raise ValueError(f"re_ix={re_ix!r} is none of {', '.join(names) or 'nothing'}")
    return names.index(re_ix)


def _along(results, hold, pin, order, values, tol, max_steps) -> dict:
    """Natural variance -> (variance, log-likelihood), from the first value on."""
    ev, reml = results.evaluator, results.reml
    unit = ev.engine.moments.fixed.scale**2
    params, out = results.evaluated_at, {}
    for value in map(float, values):
        start = from_zero(ev, params, True)  # another value may want what ended at zero
        pins = {pin: value / unit} if hold == "variance" else None
        coordinates = roots_from(start, results.freepat, pins, order)
        if hold == "ratio":
            _hold_ratio(coordinates, pin, value / results.scale)
        found = fits.held(ev, coordinates, reml, tol, max_steps)
        log_det, K, _ = ev.ground(found.cov_re, found.vcomp)
        beta = ev.gls(K)
        # beside a held variance the scale was found; beside a ratio it is profiled
        scale = found.scale if hold == "variance" else None
        llf = ev.value(log_det, K, ev.direction(beta), reml, scale)
        moved = value
        if hold == "ratio":  # as statsmodels does: the scale moves, and it with it
            moved = value / results.scale * ev.scale(K, beta, reml)
        out[value] = (moved, llf)
        params = MixedLMParams.from_components(
            params.fe_params, found.cov_re, vcomp=found.vcomp
        )
    return out


def _hold_ratio(coordinates: Roots, pin: Any, ratio: float) -> None:
    """Take an entry out of what is free."""
    if pin == "re":
        coordinates.L[0, 0] = np.sqrt(ratio)
        coordinates.entries = [e for e in coordinates.entries if e != (0, 0)]
    else:
        coordinates.w[pin] = np.sqrt(ratio)
        coordinates.components = [c for c in coordinates.components if c != pin]


def bootstrap(
    results: FitState, nrep: int, method: Any, disp: Any, rng: Any
) -> np.ndarray:
    """(nrep, k) packed parameters of models fitted to responses drawn from the fit."""
    if nrep < 1:
        raise ValueError(f"nrep={nrep}: at least one data set")
    fit = results.jg_fit
    if fit is not None and method is None:
        seed = rng
        if isinstance(rng, np.random.Generator):
            seed = int(rng.integers(2**31))
        elif rng is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
        found = fit.bootstrap(nrep, seed, progress=bool(disp))
        return _packed(results, found)
    return _one_by_one(results, nrep, method, rng)


def _packed(results: FitState, found: Any) -> np.ndarray:
    """Packed parameters from theta in lme4's order."""
    assert results.jg_fit is not None
    model, where = results.model, results.evaluator.where
    inner = np.zeros((len(found.theta), model.k_re2 + model.k_vc))
    terms = results.jg_fit.design.terms
    lams = host_lambdas(found.theta, covariances.of_terms(terms))
    for L, owner in zip(lams, where.owner, strict=True):
        if owner >= 0:
            inner[:, model.k_re2 + owner] = L[:, 0, 0] ** 2
            continue
        S = L @ L.transpose(0, 2, 1)
        rows, columns = np.tril_indices(L.shape[-1])
        inner[:, : model.k_re2] = S[:, rows, columns]
    return np.concatenate([found.coefficients, inner], axis=1)


def _one_by_one(results: FitState, nrep: int, method: Any, rng: Any) -> np.ndarray:
    """The slow way, for held and tied parameters."""
    model = results.model
    law = Distribution(model, results.params_array, results.scale)
    generator = np.random.default_rng(rng)
    asked = FitRequest(
        start_params=results.params_object if results.freepat else None,
        reml=results.reml,
        free=results.freepat,
        fix=results.fix,
        method=method,
        cov_pen=results.cov_pen,
        fe_pen=results.fe_pen,
    )
    out = []
    for _ in range(nrep):
        again = copy.copy(model)
        again.__dict__.pop("_evaluator", None)
        again.endog = law.rvs(1, generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JaxGLMMWarning)
            out.append(estimate(again, asked).params_array)
    return np.array(out)
