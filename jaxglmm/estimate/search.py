"""The mode and the parameters of a generalised model, searched together.

One flat loop, one evaluation (``laplace_derivatives``) a step. Where u is not near its
mode the step is an inner one: u moves by a Newton step, psi stays. Where it is, the
value has been corrected for what is left, and the step is judged as in
``numerics.newton``: accepted where the value has not risen, x = (H + mu diag(D))^-1 g,
mu down tenfold or up, and u follows psi by the derivative of the mode. Once psi settles
the two converge together, so that a fit takes little more than one pass over the rows a
step.

Inner steps. With one factor the levels are independent and damped each on its own: by
log(1 + r) / r, r the largest change of eta, which is enough where |dw/deta| <= w
(generalised self-concordance: logit, Poisson, negative binomial, gamma with log link);
elsewhere a level whose deviance rose goes half the way back. Several factors go to the
mode by chord steps: the factor of M of the last evaluation serves until it no longer
gains, which costs passes over the rows but no factorisation.

Where the first trial fails, because its modes leave the domain of the link or overflow,
the random effects start smaller. Steps stay within reach (``shortened``).

Curvature: average information is not the Hessian, so convergence is linear; E is
learned as in ``numerics.newton`` (BFGS). At the end diagonals of Lambda next to zero
are set to zero where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Bool, Count, Float, Int, Scalar
from jaxglmm.estimate.search_steps import (
    SETTLED,
    SearchState,
    accepted,
    begin,
    either,
    ended,
    free,
    is_finite,
    judged_status,
    learned,
    left,
    next_damping,
    not_higher,
    shortened,
    within,
)
from jaxglmm.estimate.start_generalised import damping
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate.laplace_derivatives import Point
from jaxglmm.model.covariances.base import is_scale
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import spd
from jaxglmm.numerics.newton import LIGHT_DAMPING, RUNNING
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.levels import whole
from jaxglmm.runtime.trees import Module, tree_at

ROUGH, ROUGH_LEVEL = 1.0, 0.05  # decrement of u, in all and a level, of an outer step
EXACT = 1e-9  # decrement of u up to which a value is believed
FINEST = 1e-12  # decrement of u that is never waited for
MOST_INNER = 40
MOST_AT_FIRST = 200  # inner steps before the first accepted point
MOST_TRIES = 8  # starts, each with a quarter of the last one's random effects
CHEAP, FINER = 20_000, 1e-6  # rows up to which an evaluation more is made, and for what

Evaluate = Callable[[Array, Effects, Bool[Array, ""]], Point]


class Found(Module):
    """psi, its mode, the value there, what a step would still gain."""

    psi: Float[Array, " k"]
    u: Effects
    value: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


def minimise(
    problem: GeneralisedProblem,
    evaluate: Evaluate,
    start: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
    near: float | None = None,
    enough: Scalar | float = 0.0,
) -> Found:
    """From ``start`` and u.

    near: decrement of u that counts as the mode; enough: the search stops, as if it
    had converged, where all further steps seem to gain less.
    """
    levels = problem.rows.sizes[0] if len(u) == 1 else sum(problem.rows.sizes)
    search = _Search(
        problem,
        _on_all(evaluate, problem),
        tol,
        max_steps,
        near if near is not None else max(ROUGH, ROUGH_LEVEL * levels),
        FINER if len(problem.y) <= CHEAP else 1.0,
        _diagonal(problem),
        _of_effects(problem),
        damped=problem.family.is_self_concordant and len(u) == 1,
        enough=enough,
    )
    init = begin(start, u, (problem.rows.sizes[0],) if len(u) == 1 else ())
    end = lax.while_loop(lambda s: s.status < 0, search, init)
    return Found(end.x, end.u, end.f, end.gain, end.steps, end.status)


@dataclass(frozen=True, eq=False)  # JAX keys loops by their bodies: by identity
class _Search:
    """One evaluation, and what follows from it.

    rough: decrement of u of an outer step; finer: times the tolerance, for an
    evaluation more; diagonal, effects: (k,) which of psi are diagonals of Lambda, which
    its; damped: whether a level's step damped by its length is enough, whatever u.
    """

    problem: GeneralisedProblem
    evaluate: Evaluate
    tol: Scalar | float
    max_steps: Count | int
    rough: float
    finer: float
    diagonal: np.ndarray
    effects: np.ndarray
    damped: bool
    enough: Scalar | float

    def __call__(self, s: SearchState) -> SearchState:
        """The state after the next evaluation."""
        family, damped, rough = self.problem.family, self.damped, self.rough
        at = self.evaluate(s.trial, s.v, s.exact)
        first = s.accepted == 0
        # the value is right to the order of nu, so nu stays below what is to gain
        limit = jnp.clip(0.1 * s.gain, FINEST, rough)
        limit = jnp.where(s.pinning | s.look, min(EXACT, rough), limit)
        finite = is_finite(at)
        arrived = finite & at.valid & (at.nu < limit)
        # M was not positive definite
        again = ~finite & s.exact & (not family.has_canonical_link)
        outside = ~finite & jnp.all(jnp.isfinite(s.level)) & (not damped)
        most = jnp.where(first, MOST_AT_FIRST, MOST_INNER)
        stuck = (~finite & ~again & ~outside) | (s.inner > most)
        judged = arrived & ~stuck
        ok = judged & ~s.pinning & not_higher(s, at)
        moving = judged | stuck  # psi changes: not an inner step
        restart = moving & ~ok & first & (s.tries < MOST_TRIES)

        E = learned(s, at, ok & ~first & (at.nu < 1e-2 * s.gain))
        x, f, g, H, D = accepted(s, at, ok)
        # the mode is a step ahead, which may leave the domain of the link
        ahead = ok & (damped | (at.nu < EXACT))
        kept = either(ahead, at.mode, either(ok, s.v, s.u))
        # the value of a point that was not at its mode may be too low for any other to
        # pass: it is looked at once more before a step is blamed
        doubtful = (s.rough > 1e-3 * s.gain) & (s.rough > EXACT)
        look = moving & ~ok & ~first & ~s.pinning & doubtful & ~s.look
        mu = next_damping(s, ok, moving & ~restart, look)
        step, mu, E = _step(*free(family, x, H, E, D, g), mu, ok)
        gain = jnp.where(moving & ~look, jnp.sum(g * step), s.gain)
        short = shortened(step, x, (self.effects, family.is_unit_free))
        beyond = within(family, x - short * step)
        trial = jnp.where(moving, jnp.where(look, x, beyond), s.trial)

        follow = _point.moved(self.problem, at, trial - s.trial)
        nearer, base, level = _inner(self.problem, s, at, damped)
        nearer = either(again, s.v, nearer)
        v = either(ok, follow, either(moving, kept, nearer))
        level = jnp.where(moving, jnp.inf, level)

        taken = ok & (short == 1.0)
        steps = s.steps + (moving & ~look)
        remaining = left(gain, s.gain)
        failed = moving & ~ok & ~look
        status = judged_status(
            s, taken, failed, first, gain, mu, at.nu, self.tol, self.finer
        )
        status = jnp.where(restart, RUNNING, status)
        out = (steps >= self.max_steps) | (s.evaluations >= MOST_INNER * self.max_steps)
        status = jnp.where((status < 0) & out, _status.MAX_STEPS, status)
        settled = taken & (mu <= LIGHT_DAMPING) & (at.nu < SETTLED)
        last = (remaining < self.tol) & (status == _status.MAX_STEPS)
        rough = (remaining < self.enough) & (status < 0) & ~first
        status = jnp.where(settled & (last | rough), _status.CONVERGED, status)
        now, (trial, v), status, pin = ended(
            s,
            at,
            (ok, judged, moving),
            (x, kept, f),
            (trial, v, gain),
            status,
            self.diagonal,
        )
        gain = jnp.where(s.pinning, s.gain, gain)
        gain = jnp.where(status > _status.CONVERGED, remaining, gain)
        trial = jnp.where(
            restart, jnp.where(self.effects, 0.25 * s.trial, s.trial), trial
        )
        v = jax.tree.map(lambda a: jnp.where(restart, 0.0, a), v)
        return SearchState(
            *now,
            g,
            H,
            D,
            E,
            trial,
            v,
            base,
            level,
            mu,
            gain,
            jnp.where(moving, 0, s.inner + 1),
            finite & (at.nu < limit),
            steps,
            s.accepted + ok,
            s.pinning | pin,
            jnp.where(ok, jnp.where(s.look, 0.0, at.nu), s.rough),
            jnp.where(moving, look, s.look),
            s.tries + restart,
            s.evaluations + 1,
            status,
        )


def _on_all(evaluate: Evaluate, problem: GeneralisedProblem) -> Evaluate:
    """The same, parameters and what is known of them being on all devices."""
    mesh = getattr(problem.rows, "mesh", None)
    if mesh is None:
        return evaluate

    def shared(x: Array, u: Effects, exact: Bool[Array, ""]) -> Point:
        at = evaluate(whole(x, mesh), u, exact)
        own = at.value, at.score, at.curvature, at.scale, at.nu
        return tree_at(
            lambda p: (p.value, p.score, p.curvature, p.scale, p.nu),
            at,
            whole(own, mesh),
        )

    return shared


def _step(
    H: Array, E: Array, D: Array, g: Array, mu: Scalar, ok: Array
) -> tuple[Array, Scalar, Array]:
    """The damped Newton step, with what was learned where that is usable."""
    # D is zero for a parameter that no row depends on
    damped = H + mu * (np.eye(len(g)) * (1e-12 + jnp.abs(D)))
    plain = spd.solve(spd.cholesky(damped), g)
    better = spd.solve(spd.cholesky(damped + E), g)
    usable = jnp.isfinite(jnp.sum(better)) & ok
    step = jnp.where(usable, better, plain)
    E = jnp.where(usable, E, 0.0)
    solved = jnp.isfinite(jnp.sum(step))
    mu = jnp.where(solved, mu, jnp.maximum(10 * mu, 0.1))
    # H, or its rounding, is not positive definite: the diagonal that bounds it is
    bound = jnp.sum(jnp.abs(H), axis=1) + mu * (1e-12 + jnp.abs(D))
    return jnp.where(solved, step, g / bound), mu, E


def _inner(
    problem: GeneralisedProblem, s: SearchState, at: Point, damped: bool
) -> tuple[Effects, Effects, Array]:
    """The next u at the same psi; the u to go back to, and its deviances."""
    if damped:
        (delta,) = at.step
        lam = at.lam[0]
        change = _point.scale((lam,), (delta,))[0]
        rho = damping(problem.rows.largest(change))
        return (s.v[0] + rho * delta,), s.base, s.level
    # a level at its mode goes neither up nor down, but for rounding
    slack = 1e-10 * (1 + jnp.abs(s.level))
    ok = jnp.isfinite(at.level) & (jnp.isinf(s.level) | (at.level <= s.level + slack))
    base = tuple(jnp.where(ok, a, b) for a, b in zip(s.v, s.base, strict=True))
    level = jnp.where(ok, at.level, s.level)
    ahead = tuple(
        jnp.where(ok, a + d, (a + b) / 2)
        for a, d, b in zip(s.v, at.step, s.base, strict=True)
    )
    return ahead, base, level


def _diagonal(problem: GeneralisedProblem) -> np.ndarray:
    inside = is_scale(problem.covariances).tolist()
    n_phi = problem.family.n_phi
    return np.array([False] * problem.p + inside + [False] * n_phi)


def _of_effects(problem: GeneralisedProblem) -> np.ndarray:
    """(k,) which parameters are those of the random effects."""
    inside = np.zeros(problem.p + problem.m + problem.family.n_phi, bool)
    inside[problem.p : problem.p + problem.m] = True
    return inside
