"""Posterior moments of a table from few draws, where the posterior is nearly Gaussian.

With thousands of rows the marginal posterior is close to a Gaussian at its mode, a
little wider to one side, and a table wants moments alone. Importance sampling then
estimates only the difference of the two: with draws x_s of the proposal, weights w_s of
the posterior and g_s of the Gaussian G, both summing to one,

    E f(x)  ~  E_G f(x) + sum_s (w_s - g_s) f(x_s).

G is a product of two-piece normals in whitened coordinates, their scales such that G
falls as the posterior does two standard deviations from the mode; its moments are the
first term in closed form (a control variate; Owen 2013, Monte Carlo theory,
methods and examples, section 9.10). 64 draws of a scrambled Sobol sequence are then
nearly as good as a thousand of the plain estimate (means to 0.03 of a standard
deviation). How near the two are is their overlap sum_s min(w_s, g_s); where it is less
there are more draws, and where their weights are poor there is no answer.

Why not the posterior itself: a cell of 5,000 rows takes 0.1 s so and 0.5 s by its
thousand draws, and 64 of those leave standard errors 5 per cent off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from jaxglmm import _status
from jaxglmm.estimate.methods import NestedLaplace
from jaxglmm.estimate.proposal import LEAST as LEAST_SCALE
from jaxglmm.estimate.proposal import MOST as MOST_SCALE
from jaxglmm.estimate.proposal import SplitT
from jaxglmm.formula import check_generalised, design_from_arrays
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.distributions import Priors
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.posterior import engine as _engine
from jaxglmm.posterior.evaluate import evaluate
from jaxglmm.posterior.fit import check_response
from jaxglmm.posterior.mode import find_mode
from jaxglmm.runtime.precision import double_precision

DRAWS = 64  # at a time
NEAR = {64: 0.97, 128: 0.945, 256: 0.87}  # overlap from which so many are enough
MOST = 512
LEAST = 0.25  # effective share of all draws
FAR = 2.0  # sds at which the sides of the posterior are looked at


@dataclass(frozen=True)
class PosteriorMoments:
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
def moments(
    model: dict[str, Any], family: AbstractFamily, priors: Priors
) -> PosteriorMoments | None:
    """Moments of a posterior, or None where it is too far from a Gaussian.

    Args:
        model: arguments of ``jg.glmm`` in its array form, one factor, independent
            effects.
        family: of the response.
        priors: of the parameters.
    """
    arguments = dict(model)
    given = [arguments.pop(name) for name in ("formula", "data", "groups")]
    design = design_from_arrays(*given, **arguments, family_kind=family.family_kind)
    if design.p != np.shape(given[1])[1]:
        return None  # dependent columns, which the fit names
    check_response(design, family, priors)
    check_generalised(design)
    engine = _engine.build(design, family, priors)
    method = NestedLaplace(draws=MOST)
    marginal, mode = find_mode(engine, method)
    if int(mode.status) != _status.CONVERGED:
        return None
    proposal = SplitT.around(mode.x, mode.H)
    looks = _around(mode.x, proposal.L)
    draws = proposal.draws(MOST, method.seed)
    target, base = np.empty(0), None
    for at in range(DRAWS, MOST + 1, DRAWS):
        # the looks are wanted once, and keep the shape of what is compiled
        x = np.concatenate([draws[at - DRAWS : at], looks])
        found = evaluate(engine, marginal, mode, x, method.seed, keep=False)
        values = found.log_lik + found.log_prior
        if base is None:
            fall = -float(mode.value) - values[DRAWS:]
            base = TwoPiece.with_falls(mode.x, proposal.L, fall)
        target = np.concatenate([target, values[:DRAWS]])
        if at not in NEAR and at < MOST:
            continue
        own = pareto.smooth(target - proposal.log_density(draws[:at]))
        w = own.weights
        g = _normalised(base.log_density(draws[:at]) - proposal.log_density(draws[:at]))
        near = np.minimum(w, g).sum() > NEAR.get(at, 1.0)
        if near or (at >= MOST and own.ess > LEAST * MOST):
            return _corrected(engine, design, base, draws[:at], w, g)
    return None


def _around(centre: np.ndarray, L: np.ndarray) -> np.ndarray:
    """(2k, k) points ``FAR`` along every axis, left ones first."""
    steps = FAR * np.linalg.inv(L)
    return np.concatenate([centre - steps, centre + steps])


@dataclass(frozen=True)
class TwoPiece:
    """Normal around a mode with two scales an axis of L, as ``SplitT`` has them."""

    centre: np.ndarray
    L: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def with_falls(cls, centre: np.ndarray, L: np.ndarray, fall: np.ndarray):
        """Of what the log posterior falls by (2k,) at the points ``_around``."""
        fall = np.where(np.isfinite(fall), fall, np.inf)
        scales = FAR / np.sqrt(2 * np.maximum(fall, 1e-3))
        left, right = np.split(np.clip(scales, LEAST_SCALE, MOST_SCALE), 2)
        return cls(centre, L, left, right)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """(S,) at x, up to a constant."""
        z = (x - self.centre) @ self.L
        return -np.sum((z / np.where(z < 0, self.left, self.right)) ** 2, axis=1) / 2

    @property
    def axes(self) -> np.ndarray:
        """(k, k) with x = centre + axes z."""
        return np.linalg.inv(self.L).T

    @property
    def mean(self) -> np.ndarray:
        """(k,) mean of x less the centre."""
        return self.axes @ (np.sqrt(2 / np.pi) * (self.right - self.left))

    @property
    def cov(self) -> np.ndarray:
        """(k, k) covariance of x."""
        skew = (1 - 2 / np.pi) * (self.right - self.left) ** 2
        return (self.axes * (skew + self.left * self.right)) @ self.axes.T

    @property
    def mean_exp(self) -> np.ndarray:
        """(k,) means of exp(x_j)."""
        a, left, right = self.axes, self.left, self.right
        one = left * np.exp((a * left) ** 2 / 2) * ndtr(-a * left)
        two = right * np.exp((a * right) ** 2 / 2) * ndtr(a * right)
        logs = np.log(2 * (one + two) / (left + right))
        return np.exp(self.centre + logs.sum(axis=1))


def _normalised(logs: np.ndarray) -> np.ndarray:
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _corrected(
    engine: _engine.PosteriorEngine,
    design: Design,
    base: TwoPiece,
    x: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
) -> PosteriorMoments:
    """The base's moments and the weighted differences from them."""
    d = x - base.centre
    shift = base.mean + (w - g) @ d
    second = base.cov + np.outer(base.mean, base.mean) + ((w - g)[:, None] * d).T @ d
    cov = second - np.outer(shift, shift)
    p, B = design.p, engine.R_inverse
    scales = (base.mean_exp + (w - g) @ np.exp(x))[p:]
    q = sum(block.size for block in engine.belief.blocks)
    return PosteriorMoments(
        B @ (base.centre + shift)[:p],
        np.sqrt(np.maximum(np.diagonal(B @ cov[:p, :p] @ B.T), 0.0)),
        scales[:q],
        scales[q:],
        design.n,
        design.terms[0].n_levels,
    )
