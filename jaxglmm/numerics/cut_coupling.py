"""The coupling of crossed factors whose first levels are shared among devices.

Each device has the coupling of its own levels; what is a sum over levels is made there
and added up. Seen from outside it is the coupling of all levels, so that nothing else
of ``arrow`` knows of devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxglmm._typing import Array, Float
from jaxglmm.numerics.arrow import Columns, DenseCoupling, PairedCoupling
from jaxglmm.runtime.levels import LEVELS, WHOLE, each, last, number, total
from jaxglmm.runtime.trees import field


class CutPairs(PairedCoupling):
    """Entries and pairs of each device's levels one after the other, equally many.

    Indices are those of the whole.
    """

    mesh: Any = field(static=True, kw_only=True)

    def there(self) -> PairedCoupling:
        """On a device: its own levels, counted from zero."""
        J = self.n_rows // self.mesh.size
        k, E = number(), self.value.shape[-1]
        return PairedCoupling(
            self.row - k * J,
            self.col,
            self.value,
            self.pair_one - k * E,
            self.pair_two - k * E,
            self.pair_target,
            J,
            self.m,
        )

    def _each(self, ask: Callable[..., Any], spec: Any, out: Any, x: Any) -> Any:
        own = jax.tree.map(lambda a: last(a.ndim), self)
        return each(
            lambda coupling, x: ask(coupling.there(), x), self.mesh, (own, spec), out
        )(self, x)

    def times(self, x: Columns) -> Float[Array, "q K J"]:
        return self._each(lambda own, x: own.times(x), WHOLE, last(3), x)

    def transposed(self, v: Float[Array, "q K J"]) -> Columns:
        return self._each(lambda own, v: total(own.transposed(v)), last(3), WHOLE, v)

    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._each(lambda own, F: total(own.sandwich(F)), last(3), WHOLE, F)

    def sandwich_lower(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._each(
            lambda own, F: total(own.sandwich_lower(F)), last(3), WHOLE, F
        )

    def squares(self, member: Float[np.ndarray, "m k"]) -> Float[Array, "q k"]:
        return self._each(lambda own, x: total(own.squares(x)), WHOLE, WHOLE, member)

    def outer(self, P: Float[Array, "m m"]) -> Float[Array, "q q J"]:
        return self._each(lambda own, P: own.outer(P), WHOLE, last(3), P)

    def across(self, P: Float[Array, "m m"]) -> Float[Array, "q E"]:
        return self._each(lambda own, P: own.across(P), WHOLE, last(2), P)

    def outer_of(self, across: Float[Array, "q E"]) -> Float[Array, "q q J"]:
        return self._each(lambda own, X: own.outer_of(X), last(2), last(3), across)


class CutDense(DenseCoupling):
    """N (q, J, m2) of each device's levels; all but this sum is cut by itself."""

    mesh: Any = field(static=True, kw_only=True)

    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        def own(N: Array, F: Array) -> Array:
            return total(DenseCoupling(N).sandwich(F))

        return each(own, self.mesh, (DENSE, last(3)), WHOLE)(self.N, F)


DENSE = PartitionSpec(None, LEVELS)  # of N
