"""Many responses whose rows are independent after a rotation: one program.

The criterion has one parameter, and at some places of it all that depends on the design
is known beforehand (``structure.rotated_design``): a matrix product gives the values of
all responses there. The search starts from the lowest, so that it finds the better of
two minima, and few steps are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.estimate import linear_lanes as lanes
from jaxglmm.integrate import exact_rotated as crit
from jaxglmm.numerics import newton_lanes as search
from jaxglmm.runtime.arrays import jnp
from jaxglmm.structure import shared_design as shared
from jaxglmm.structure.rotated_design import RotatedDesign

HALF = np.pi / 2
LARGEST = 1e8  # theta where the residual variance is zero
STEEP = 0.1  # of the average information: curvature that Newton's step may use


@dataclass(frozen=True)
class RotatedFit:
    """Program: Y (n, L) -> (``ResponseFacts``, ``LinearReport``)."""

    reml: bool

    def __call__(self, common: Any, Y: Array) -> Any:
        """common: (design, back, tol, max_steps)."""
        d, back, tol, max_steps = common
        E, facts = shared.residuals(d.X.T, None, Y)
        n, p = len(Y), len(d.X)
        N = n - p if self.reml else n
        EE = E * E

        def at(x: Array) -> crit.RotatedMarginal:
            return crit.marginal(d, E, EE, x[0], N, self.reml)

        def derivatives(x: Array) -> search.Evaluated:
            here = at(x)
            profiled = here.info - here.tv**2 / N
            expected = profiled + jnp.maximum(here.bend, 0)
            exact = here.curvature - here.tv**2 / N
            H = jnp.where(exact > STEEP * expected, exact, expected)
            return here.value, here.score[None], H[None, None], 1 + profiled[None]

        first = start(d, crit.at_places(d, E, EE, N, self.reml))
        found = search.minimise(derivatives, first[None], tol, max_steps)
        value = lambda x: at(x).value  # noqa: E731
        x = lanes.pinned(value, folded(found.x), True)
        x = HALF - lanes.pinned(lambda z: value(HALF - z), HALF - x, True)
        here = at(x)
        H = [[here.curvature, here.tv], [here.tv, N + 0.0 * here.tv]]
        inferred = lanes.satterthwaite(
            H, [here.K], here.LQ, here.sigma2, back, [here.score]
        )
        theta = jnp.minimum(jnp.tan(x), LARGEST)
        sigma2 = here.sigma2 / (1 + theta[0] ** 2)
        values = theta, here.beta, sigma2, here.value
        return facts, lanes.reported(found, *values, inferred, tol)


def folded(x: Array) -> Array:
    """x between 0 and pi / 2 with the same sin^2 x."""
    return jnp.arcsin(jnp.abs(jnp.sin(x)))


def start(d: RotatedDesign, values: Float[Array, "G L"]) -> Float[Array, " L"]:
    """x from the lowest value and its two neighbours, by a parabola in log t."""
    G, tiny = len(d.t), 1e-300
    best = jnp.clip(jnp.argmin(values, axis=0), 1, G - 2)[None]
    low, mid, high = (
        jnp.take_along_axis(values, best + k, axis=0)[0] for k in (-1, 0, 1)
    )
    bend = jnp.maximum(low - 2 * mid + high, tiny)
    shift = jnp.clip(0.5 * (low - high) / bend, -1.0, 1.0)
    ratio = jnp.log(d.t[1] / d.t[0])
    out = jnp.sqrt(d.t[best[0]]) * jnp.exp(0.5 * ratio * shift)
    return jnp.arctan(jnp.where(jnp.isfinite(out), out, 1.0))
