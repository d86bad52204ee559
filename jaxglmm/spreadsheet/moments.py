"""Posterior moments of a table from few draws, where the posterior is nearly Gaussian.

With thousands of rows the marginal posterior is close to the Gaussian at its mode, and
a table wants moments alone. Importance sampling then estimates only the difference of
the two: with draws x_s of the proposal, weights w_s of the posterior and g_s of the
Gaussian, both summing to one,

    E f(x)  ~  E_G f(x) + sum_s (w_s - g_s) f(x_s),

the first term in closed form (a control variate; Owen 2013, Monte Carlo theory,
methods and examples, section 9.10). 64 draws of a scrambled Sobol sequence are then
nearly as good as a thousand of the plain estimate (means to 0.01 of a standard
deviation). How near the two are is their overlap sum_s min(w_s, g_s); where it is less
there are more draws, and where their weights are poor there is no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._precision import double_precision
from jaxglmm.estimate import nested
from jaxglmm.estimate.methods import NestedLaplace
from jaxglmm.formula import check_generalised, design_from_arrays
from jaxglmm.formula.design import Design
from jaxglmm.model.families import FAMILIES
from jaxglmm.model.priors import Priors
from jaxglmm.numerics import pareto
from jaxglmm.results.posterior import engine as _engine
from jaxglmm.results.posterior import run as _run

DRAWS = 64  # at a time
NEAR = {64: 0.95, 128: 0.9}  # overlap from which so many draws are enough
MOST = 512
LEAST = 0.25  # effective share of all draws


@dataclass(frozen=True)
class Moments:
    """Posterior means and standard deviations of a model with one factor.

    beta, beta_sd: (p,); sd: (q,) means of the standard deviations of the random
    effects; phi: (r,) means of the dispersion parameters; levels: of the factor.
    """

    beta: np.ndarray
    beta_sd: np.ndarray
    sd: np.ndarray
    phi: np.ndarray
    rows: int
    levels: int


@double_precision
def moments(model: dict[str, Any], family: str, priors: Priors) -> Moments | None:
    """Moments of a posterior, or None where it is too far from a Gaussian.

    Args:
        model: arguments of ``jg.glmm`` in its array form, one factor, independent
            effects.
        family: name of the family.
        priors: of the parameters.
    """
    known = FAMILIES[family]()
    arguments = dict(model)
    given = [arguments.pop(name) for name in ("formula", "data", "groups")]
    design = design_from_arrays(*given, **arguments, family_kind=known.family_kind)
    if design.p != np.shape(given[1])[1]:
        return None  # dependent columns, which the fit names
    known.check(design.y, design.trials, design.rows)
    check_generalised(design)
    engine = _engine.build(design, known, priors)
    method = NestedLaplace(draws=MOST)
    marginal, mode = _run.find_mode(engine, method)
    if int(mode.status) != _status.CONVERGED:
        return None
    t = nested.standard_t(len(mode.x), MOST, method.seed)
    d = nested.proposals(np.zeros(len(mode.x)), mode.H, t)
    proposal = nested.log_proposal(t, mode.H)
    gauss = -np.einsum("si,ij,sj->s", d, mode.H, d) / 2 - proposal
    target: list[np.ndarray] = []
    for stop in range(DRAWS, MOST + 1, DRAWS):
        x = mode.x + d[stop - DRAWS : stop]
        found = _run.evaluate(engine, marginal, mode, x, method.seed, keep=False)
        target.append(found.log_lik + found.log_prior)
        if stop not in NEAR and stop < MOST:
            continue
        own = pareto.smooth(np.concatenate(target) - proposal[:stop])
        w, g = own.weights, _normalised(gauss[:stop])
        near = np.minimum(w, g).sum() > NEAR.get(stop, 1.0)
        if near or (stop == MOST and own.ess > LEAST * MOST):
            return _corrected(engine, design, mode, d[:stop], w, g)
    return None


def _normalised(logs: np.ndarray) -> np.ndarray:
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _corrected(
    engine: _engine.PosteriorEngine,
    design: Design,
    mode: Any,
    d: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
) -> Moments:
    """The Gaussian's moments and the weighted differences from them."""
    C = np.linalg.inv(mode.H)
    shift = (w - g) @ d
    second = C + ((w - g)[:, None] * d).T @ d
    cov = second - np.outer(shift, shift)
    p, B = design.p, engine.R_inverse
    scales = np.exp(mode.x[p:] + np.diagonal(C)[p:] / 2)
    scales = scales + (w - g) @ np.exp(mode.x[p:] + d[:, p:])
    q = sum(block.size for block in engine.belief.blocks)
    return Moments(
        B @ (mode.x + shift)[:p],
        np.sqrt(np.maximum(np.diagonal(B @ cov[:p, :p] @ B.T), 0.0)),
        scales[:q],
        scales[q:],
        design.n,
        design.terms[0].n_levels,
    )
