"""New responses from the fitted model, y = X beta + Z b + e, estimates as truth."""

from __future__ import annotations

from functools import partial

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import predictor
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily


def simulate(
    design: Design, estimates: Estimates, n: int, seed, new_effects: bool
) -> np.ndarray:
    """(n, nobs) responses.

    Args:
        design: names and arrays of the model.
        estimates: the parameters to draw from.
        n: number of data sets.
        seed: of numpy's generator; the same seed gives the same numbers.
        new_effects: draw b = sigma Lambda u anew in each; else keep the modes.
    """
    n, rng = asked(n, seed, design.n)
    eta = predictor.fixed_part(design.X, estimates.beta, design.offset)
    if not new_effects:
        eta = eta + predictor.random_part(design.terms, estimates.b)
    out = rng.standard_normal((n, design.n))
    out *= noise(estimates.sigma, design.weights)
    out += eta
    if new_effects:
        for row in out:
            row += predictor.random_part(design.terms, _draw(design, estimates, rng))
    return out


def asked(n, seed, rows: int) -> tuple[int, np.random.Generator]:
    """The number of data sets, and the generator; refuses what is neither."""
    most = _arguments.DATASETS
    n = _arguments.whole("n", n, 1, most, error=NotApplicableError)
    _arguments.cells("n", n, rows)
    return n, np.random.default_rng(_arguments.seed(seed))


def draws_new_effects(re: str | None) -> bool:
    """Whether ``re`` asks for new random effects; refuses a word it does not know."""
    if not _arguments.is_among(re, (None, "marginal", "conditional")):
        raise NotApplicableError(
            f"simulate(re={_arguments.shown(re)}): None draws new random effects, "
            "'conditional' keeps the modes"
        )
    return re != "conditional"


def simulate_family(
    design: Design,
    estimates: Estimates,
    family: AbstractFamily,
    n: int,
    seed,
    new_effects: bool,
) -> np.ndarray:
    """(n, nobs) responses of a generalised model; arguments as for ``simulate``."""
    n, rng = asked(n, seed, design.n)
    d, K, beta = design, len(design.parts), estimates.beta
    if K:
        fixed = predictor.fixed_parts(d.X, beta, d.offset, d.columns)
        random = partial(predictor.random_parts, d.terms, K=K)
    else:
        fixed = predictor.fixed_part(d.X, beta, d.offset)
        random = partial(predictor.random_part, d.terms)
    kept = None if new_effects else random(estimates.b)
    trials = 1.0 if d.trials is None else d.trials
    out = np.empty((n, d.n))
    for row in out:
        moved = random(_draw(d, estimates, rng)) if kept is None else kept
        mean = np.asarray(family.parameters(fixed + moved), float)
        row[:] = family.simulate(rng, mean, estimates.phi, trials)
    return out


def noise(sigma: float, weights: np.ndarray | None):
    """sd of the rows; one of weight zero, which the fit left out, gets that of one."""
    known = weights if weights is None else np.where(weights > 0, weights, 1.0)
    return predictor.residual_sd(sigma, known)


def _draw(design: Design, estimates: Estimates, rng) -> list[np.ndarray]:
    return [
        estimates.sigma * rng.standard_normal((t.n_levels, len(t.names))) @ lam.T
        for t, lam in zip(design.terms, estimates.lam, strict=True)
    ]
