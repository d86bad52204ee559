"""Many generalised linear mixed models with one grouping factor, one program.

Start, search and standard errors of L lanes, the lanes last. beta starts from weighted
least squares on the family's guess of each row and a Newton step without random
effects, theta from moments of the working score (``estimate.start_generalised``);
then ``estimate.search_lanes``; then the exact Hessian after one Newton step for the
modes: written out for Laplace (``estimate.hessian_lanes``), by forward mode over the
analytic score for quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Float, Int
from jaxglmm.estimate import hessian_lanes as gh
from jaxglmm.estimate import search_lanes as gs
from jaxglmm.estimate import search_steps
from jaxglmm.estimate.start_generalised import ENOUGH, MOST, STRONGEST, WEAKEST
from jaxglmm.integrate import laplace_derivatives_lanes as pt
from jaxglmm.integrate.base import AT_MODE, AbstractMarginal
from jaxglmm.integrate.laplace_derivatives_lanes import Split
from jaxglmm.integrate.rows_lanes import LaneRows, lanes
from jaxglmm.model.covariances.base import AbstractCovariance, is_scale
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.predictors import Predictors
from jaxglmm.numerics import newton_lanes as search
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import is_host, jnp, lax, linearize
from jaxglmm.runtime.trees import Module

CLOSE_LANES = 1e-2  # decrement of u at a step of several predictors
UNSURE = 1e-7  # a pivot of the Hessian this small leaves standard errors to the host
LAST = 1e-6  # gain up to which a last step is taken, in deviance
SINGULAR = 1e-4  # theta that counts as zero


class Report(Module):
    """L fits in internal coordinates.

    psi: (k, L); b: (q, J, L) modes; se: (p, L) of the rows of ``back``; hessian: (k, k,
    L), of -2 log-likelihood; far: (L,) largest |eta|; unsure: (L,) where se needs care;
    the rest (L,).
    """

    psi: Float[Array, "k L"]
    b: Float[Array, "q J L"]
    se: Float[Array, "p L"]
    criterion: Float[Array, " L"]
    hessian: Float[Array, "k k L"]
    decrement: Float[Array, " L"]
    far: Float[Array, " L"]
    status: Int[Array, " L"]
    steps: Int[Array, " L"]
    unsure: Int[Array, " L"]


@dataclass(frozen=True)
class RowsFit:
    """Program for responses as rows: -> ``Report``."""

    family: AbstractFamily
    marginal: AbstractMarginal
    covariance: AbstractCovariance
    predictors: Predictors = field(default_factory=Predictors)
    of: tuple[int, ...] | None = None

    def __call__(self, common: Any, lanes: Any) -> Report:
        """common: (arrays, tol, max_steps); lanes: (arrays, guess, phi).

        arrays: by name, those of ``LaneRows``, ``n_levels`` and ``back``, each either
        shared or not; without ``values`` and ``many`` or ``tails`` every row is looked
        at, without ``base`` (see ``fit``) it is evaluated.
        """
        here, tol, max_steps = common
        there, guess, phi = lanes
        given = here | there
        d = LaneRows(
            given["X"],
            given.get("Z"),
            given["y"],
            given["trials"],
            given["weights"],
            given.get("offset"),
            self.family,
            given.get("values"),
            given.get("many"),
            given.get("tails"),
            self.predictors,
            self.of,
        )
        n_levels, back = given["n_levels"], given["back"]
        return fit(
            self.marginal,
            d,
            self.covariance,
            guess,
            phi,
            n_levels,
            tol,
            max_steps,
            back,
            given.get("base"),
        )


def fit(
    marginal: AbstractMarginal,
    d: LaneRows,
    covariance: AbstractCovariance,
    guess: Float[Array, "h J L"],
    phi: Float[Array, "r L"],
    n_levels: Float[Array, " l"],
    tol: Array,
    max_steps: Array,
    back: Float[Array, "p p l"],
    base: Float[Array, " L"] | None = None,
) -> Report:
    """Fit L lanes.

    guess, phi: where the family would start; n_levels: without padding; back: rows are
    the contrasts whose standard errors are reported, in internal coordinates; base: the
    part of the log-likelihoods that depends on the responses alone, if known.
    """
    split = Split(d.p, covariance, d.family.n_phi)
    start, u = _start(d, split, guess, phi)

    def evaluate(psi: Array, u: Array, exact: Array) -> pt.LanePoint:
        return marginal.at_lanes(d, split, psi, u, exact)

    several = d.predictors.K > 1
    near = AT_MODE if marginal.beyond else CLOSE_LANES if several else None
    found = gs.minimise(d, split, evaluate, start, u, tol, max_steps, near, n_levels)
    beta, theta, _ = split(found.psi)
    b = small.apply(pt.crit.lambdas(theta, covariance), list(found.u))
    eta = d.predictor(beta, b)
    eta = eta if d.of is None else eta[0]
    far = jnp.max(jnp.where(d.weights > 0, jnp.abs(eta), 0.0), axis=(0, 1))
    slope, H = _hessian(marginal, d, split, found.psi, found.u)
    inverse, unsure = _inverse(split, found.psi, H)
    # one exact Newton step: what is left of the error is its square
    step = jnp.sum(inverse * slope[None], axis=1) / 2
    gain = jnp.sum(step * slope, axis=0)
    done = (found.status == _status.CONVERGED) & (unsure == 0) & (gain < LAST)
    psi = jnp.where(done, search_steps.within(d.family, found.psi - step), found.psi)
    p = d.p
    along = jnp.sum(back[:, :, None] * inverse[:p, :p][None], axis=1)
    se = jnp.sqrt(jnp.sum(along * back, axis=1))
    return Report(
        psi,
        jnp.stack(b),
        se,
        found.value + (pt.constant(d) if base is None else -2 * base),
        H,
        found.decrement,
        far,
        jnp.where(found.status == search.RUNNING, _status.MAX_STEPS, found.status),
        found.steps,
        unsure,
    )


def _inverse(split: Split, psi: Array, H: Array) -> tuple[Array, Array]:
    """2 H^-1 (k, k, L), variances at zero taken as known; (L,) where H is doubtful.

    By elimination at unit diagonal: a pivot next to zero is a flat direction.
    """
    p, m = split.p, split.m
    scales = is_scale((split.covariance,))[:, None]
    free = jnp.concatenate(
        [
            jnp.ones((p, psi.shape[1]), bool),
            ~(scales & (jnp.abs(psi[p : p + m]) < SINGULAR)),
            jnp.ones((split.n_phi, psi.shape[1]), bool),
        ]
    )
    eye = np.eye(len(H))[:, :, None]
    H = jnp.where(free[:, None] & free[None], H, eye)
    unit = jnp.sqrt(jnp.stack([jnp.abs(H[a, a]) for a in range(len(H))]))
    W = jnp.concatenate(
        [H / (unit[:, None] * unit[None]), jnp.broadcast_to(eye, H.shape)], axis=1
    )
    least = jnp.full(psi.shape[1], jnp.inf)
    for j in range(len(H)):
        pivot = W[j, j]
        least = jnp.minimum(least, pivot)
        W = W - (W[:, j] - eye[:, j])[:, None] * (W[j] / pivot)[None]
    V = 2 * W[:, len(H) :] / (unit[:, None] * unit[None])
    V = jnp.where(free[:, None] & free[None], V, 0.0)
    return V, (~(least > UNSURE)).astype(int)


def _hessian(
    marginal: AbstractMarginal, d: LaneRows, split: Split, psi: Array, u: Array
) -> tuple[Float[Array, "k L"], Float[Array, "k k L"]]:
    """Score and exact Hessian."""
    written = split.covariance.free and d.predictors.K == 1 and split.n_phi <= 1
    if marginal.beyond or not written:
        return by_forward_mode(marginal, d, split, psi, u)
    exact = jnp.ones(psi.shape[1], bool)
    mode = _nearer(d, split, psi, u)
    at = pt.evaluate(d, split, psi, mode, exact, marginal.hessian, curved=False)
    return at.score, gh.hessian(d, split, psi, mode, at, marginal.hessian)


def _nearer(d: LaneRows, split: Split, psi: Array, u: Array) -> Array:
    """u after one Newton step to its mode."""
    beta, theta, phi = split(psi)
    Lam = pt.crit.lambdas(theta, split.covariance)
    eta = d.predictor(beta, small.apply(Lam, list(u)))
    r = pt.terms(d, eta, phi, "observed", False)
    C = pt._factor(d.blocks(r.w), Lam)
    t = d.collect(r.s)
    h = [a - b for a, b in zip(list(u), pt._transposed(Lam, t), strict=True)]
    return u - jnp.stack(small.solve(C, h))


def by_forward_mode(
    marginal: AbstractMarginal, d: LaneRows, split: Split, psi: Array, u: Array
) -> tuple[Float[Array, "k L"], Float[Array, "k k L"]]:
    """Score and exact Hessian, by forward mode over the analytic score."""
    exact = jnp.ones(psi.shape[1], bool)

    def score(x: Array) -> Array:
        moved = _nearer(d, split, x, u)
        return marginal.at_lanes(d, split, x, moved, exact, True, curved=False).score

    slope, along = linearize(score, psi)
    unit = jnp.broadcast_to(jnp.eye(len(psi))[:, :, None], (len(psi), *psi.shape))
    H = (
        lax.map(along, unit) if is_host() else jax.vmap(along)(unit)
    )  # nothing here is LAPACK
    return slope, (H + jnp.swapaxes(H, 0, 1)) / 2


def _start(
    d: LaneRows, split: Split, guess: Array, phi: Array
) -> tuple[Float[Array, "k L"], Float[Array, "q J L"]]:
    """psi to start from, and u one damped Newton step on the way to its mode."""
    several = d.predictors.K > 1
    if not d.p:
        beta = jnp.zeros((0, phi.shape[-1]))
        r, w = _scores(d, phi, beta)
        s = r.s
    else:
        found = _without_effects if several else _one_step
        s, w, beta = found(d, guess, phi)
    usable = jnp.isfinite(s) & jnp.isfinite(w)
    usable = jnp.all(usable, axis=(0, 1)) if several else usable
    s, w = jnp.where(usable, s, 0.0), jnp.where(usable, w, 0.0)
    A = d.blocks(w)
    t = d.collect(s)
    theta = _moments(A, t, split.covariance)
    Lam = pt.crit.lambdas(list(theta), split.covariance)
    C = pt._factor(A, Lam)
    u = small.solve(C, pt._transposed(Lam, t))
    rho = gs.damping(gs.reaches(d), small.apply(Lam, u))
    return jnp.concatenate([beta, theta, phi]), rho[None] * jnp.stack(u)


def _scores(d: LaneRows, phi: Array, beta: Array) -> tuple[pt.RowTerms, Array]:
    """The rows without random effects, and weights for a step."""
    eta = d.predictor(list(beta), [])
    r = pt.terms(d, eta, phi, "observed", False)
    return r, pt.step_weights(d, eta, phi, r.w)


def _gram(d: LaneRows, w: Array) -> Array:
    return jnp.stack([jnp.stack(row) for row in d.gram(w)])


def _one_step(d: LaneRows, guess: Array, phi: Array) -> tuple[Array, Array, Array]:
    """Score and weights of rows, and beta (p, L): least squares and a Newton step."""
    used = d.weights > 0
    offset = 0.0 if d.offset is None else d.offset
    target = jnp.where(used, guess - offset, 0.0)
    w = jnp.abs(pt.terms(d, guess, phi, "observed", False).w)
    w = jnp.where(used & jnp.isfinite(w), w, 0.0)
    beta = _least_squares(d, w, target)
    r, w = _scores(d, phi, beta)
    inside = jnp.isfinite(lanes(r.l))

    def plain() -> Array:
        """Outside the link's domain: the constant next to the guesses."""
        flat = jnp.where(used, 1.0, 0.0)
        count = jnp.maximum(lanes(flat * jnp.ones(d.shape)), 1)
        middle = lanes(flat * target) / count
        return _least_squares(d, flat, jnp.where(used, middle, 0.0))

    beta = lax.cond(
        jnp.all(inside), lambda: beta, lambda: jnp.where(inside, beta, plain())
    )
    w = jnp.where(inside & jnp.isfinite(w), w, 0.0)
    right = jnp.stack(d.along(jnp.where(inside, r.s, 0.0)))
    ahead = beta + _solved(_gram(d, w), right)
    moved, size = _scores(d, phi, ahead)
    better = inside & (lanes(moved.l) >= lanes(r.l))
    beta = jnp.where(better, ahead, beta)
    s = jnp.where(better, moved.s, r.s)
    return s, jnp.where(better, size, w), beta


def _without_effects(
    d: LaneRows, guess: Array, phi: Array
) -> tuple[Array, Array, Array]:
    """The same of several predictors, in which one step is not enough.

    From the constants next to the guesses, for a guess of each row's own may say that
    it has no variance.
    """
    model, used = d.predictors, d.weights > 0
    flat = jnp.where(used, 1.0, 0.0) * jnp.ones(d.shape)
    offset = 0.0 if d.offset is None else d.offset
    count = jnp.maximum(lanes(flat), 1)
    target = jnp.where(used, guess - offset, 0.0)
    middle = jnp.sum(target, axis=(1, 2)) / count
    constants = jnp.broadcast_to(middle[:, None, None], target.shape)
    first = _least_squares(d, model.alike(flat), constants)

    def evaluate(beta: Array) -> tuple[Array, Array, Array, Array]:
        r, w = _scores(d, phi, beta)
        H = 2 * _gram(d, w)
        H = H + 1e-9 * (1e-300 + jnp.trace(H)) * jnp.eye(len(H))[:, :, None]
        scale = jnp.stack([H[a, a] for a in range(len(H))])
        return -2 * lanes(r.l), -2 * jnp.stack(d.along(r.s)), H, scale

    found = search.minimise(evaluate, first, ENOUGH, MOST)
    r, w = _scores(d, phi, found.x)
    return r.s, w, found.x


def _least_squares(d: LaneRows, w: Array, target: Array) -> Array:
    right = d.along(d.predictors.apply(w, target))
    return _solved(_gram(d, w), jnp.stack(right))


def _solved(H: Array, right: Array) -> Array:
    """H^-1 right with a trace of ridge; zero where that is nothing."""
    ridge = 1e-9 * (1e-300 + jnp.trace(H))
    found, ok = gs.solve(H + ridge * jnp.eye(len(right))[:, :, None], right)
    return jnp.where(ok, found, 0.0)


def _moments(
    A: small.Matrix, t: list[Array], covariance: AbstractCovariance
) -> Float[Array, "m L"]:
    """theta by moments of the working score, between two standard deviations."""
    q = len(t)
    squares = jnp.stack(
        [jnp.stack([jnp.sum(A[i][j] ** 2, axis=0) for j in range(q)]) for i in range(q)]
    )
    excess = jnp.stack([jnp.sum(t[i] ** 2 - A[i][i], axis=0) for i in range(q)])
    alone = jnp.stack([squares[i, i] for i in range(q)])
    variance = excess / jnp.maximum(alone, 1e-12)
    if q > 1:
        scale = 1 / jnp.sqrt(jnp.maximum(alone, 1e-12))
        unit = squares * scale[:, None] * scale[None] + 1e-6 * np.eye(q)[:, :, None]
        together, ok = gs.solve(unit, excess * scale)
        together = together * scale
        usable = ok & jnp.isfinite(together) & (together > 0)
        variance = jnp.where(usable, together, variance)
    sd = jnp.sqrt(jnp.clip(variance, WEAKEST**2, STRONGEST**2))
    sd = jnp.where(jnp.isfinite(sd), sd, 0.5)
    return jnp.stack(covariance.start(sd))
