"""How the random effects at their mode move with the parameters."""

from __future__ import annotations

from functools import partial

from jaxglmm._typing import Array
from jaxglmm.estimate.hessian import newton_step
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.runtime.arrays import jnp, jvp, lax
from jaxglmm.runtime.compile import stored


@stored(host=True)
def mode_tangents(problem: GeneralisedProblem, psi: Array, u: Effects) -> Effects:
    """db/dpsi at the mode, (k, q, 1, J) a factor: b = Lambda u in internal coordinates.

    psi: (k,); u: the mode there.
    """
    folded = problem.folded()
    return lax.map(partial(_along, folded, psi, u), jnp.eye(len(psi), dtype=psi.dtype))


def _along(
    problem: GeneralisedProblem, psi: Array, u: Effects, direction: Array
) -> Effects:
    terms = _point.terms_of(problem)

    def effects(x: Array) -> Effects:
        moved = newton_step(problem, terms, x, u)
        return scale(problem.lambdas(problem.split(x)[1]), moved)

    return jvp(effects, (psi,), (direction,))[1]
