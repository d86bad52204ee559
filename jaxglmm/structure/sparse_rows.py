"""Rows of crossed factors that leave too many columns for a dense matrix.

They are visited on the host, in NumPy: Z'WZ is sparse (``SparseArrow``), and what a
row's weight moves of log|M| is found by the probes that find log|M| itself. With
F = Lam_1 M_1^-1 Lam_1' of the first factor and H = I + (H - I) of the Schur complement,

    lev = z_1'F z_1 + r r' + r (H^-1 - I) r',   r = (Z_2 - Z_1 F Z_1'W Z_2) Lam_2 C^-T

row by row, where only the last is by probes: the mean of (r (H^-1 - I) w) (r w).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._typing import Float
from jaxglmm.numerics.probed_schur import ProbedFactor
from jaxglmm.numerics.sparse_schur import blocks_times
from jaxglmm.numerics.system import AbstractSystem
from jaxglmm.runtime import executors
from jaxglmm.runtime.arrays import is_host
from jaxglmm.runtime.trees import field
from jaxglmm.structure.crossproducts import RowCounts
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.rows import AbstractRows
from jaxglmm.structure.sparse_cross import sparse_arrow

PIECE = 8_192  # rows that are looked at together


class SparseRows(AbstractRows):
    """Crossed factors, rows sorted by the first one, none of them padded.

    probes: random vectors of log-determinants and leverages.
    """

    probes: int = field(static=True, kw_only=True)

    @property
    def m(self) -> int:
        """Columns that are left after the first factor."""
        return sum(J * len(z) for J, z in zip(self.sizes[1:], self.z[1:], strict=True))

    @cached_property
    def factors(self) -> list[Factor]:
        """The factors as cross-products take them."""
        out = []
        for k, (codes, z, J) in enumerate(
            zip(self.codes, self.z, self.sizes, strict=True)
        ):
            alone = len(z) == 1 and bool((z == 1.0).all())
            values = None if alone else np.ascontiguousarray(np.asarray(z).T)
            own = np.asarray(codes), values, J, np.eye(len(z))
            out.append(Factor(str(k), *own, None, ()))
        return out

    def weigh(self, w: Float[Any, " n"]) -> AbstractSystem:
        """The system Z'WZ.

        Raises:
            NotApplicableError: in a compiled program.
        """
        if not is_host():
            raise NotApplicableError(too_large(self.m))
        system, _, _ = sparse_arrow(self.factors, RowCounts(np.asarray(w)))
        return system.with_probes(self.probes, keeps=True)

    def leverage(self, factor: Any, selected: Any) -> np.ndarray:
        assert isinstance(factor, ProbedFactor)
        forms = RowForms(self, factor)
        out = forms.known()
        probed, done = factor.probed, 0
        for k, (w, change) in enumerate(probed.kept):
            weights = np.ones(w.shape[1])
            if k:  # the first are V's, whose sum is exact
                weights = probed.mean.weights[done : done + w.shape[1]]
                done += w.shape[1]

            def add(here: slice, products: np.ndarray, by: np.ndarray) -> None:
                out[here] += products @ by

            forms.products(change, w, partial(add, by=weights))
        return out


class RowForms:
    """Rows r of the predictor in the coordinates of H, at one factor of M."""

    def __init__(self, rows: SparseRows, factor: ProbedFactor):
        self.rows, self.factor = rows, factor
        C1_inverse = factor.first[1]
        lam = np.asarray(factor.lam[0])
        # (J, q, q) C_1^-1 Lam_1'; (J, q, q) C^-1 Lam' of the other factors
        self.first = C1_inverse @ lam.T
        self.others = [
            inverse @ np.asarray(x).T
            for inverse, x in zip(factor.parts[2], factor.lam[1:], strict=True)
        ]

    def products(
        self,
        a: np.ndarray,
        b: np.ndarray,
        told: Callable[[slice, np.ndarray], None],
    ) -> None:
        """(r a) (r b) of each pair of columns of a, b (m, K): rows, (rows, K).

        Piece by piece of rows, which stays in the cache; pieces in several threads.
        """
        n = len(self.rows.codes[0])
        left, right = self._effects(a), self._effects(b)

        def piece(start: int) -> None:
            here = slice(start, min(start + PIECE, n))
            told(here, self._at(left, here) * self._at(right, here))

        starts = range(0, n, PIECE)
        if len(starts) == 1:
            piece(0)
            return
        with ThreadPoolExecutor(executors.threads()) as pool:
            list(pool.map(piece, starts))

    def _effects(self, v: np.ndarray) -> list[np.ndarray]:
        """Effects of each factor whose sum over a row's levels is r v, (J q, K)."""
        inner = self.factor.products[0](v)
        out = [-blocks_times(np.swapaxes(self.first, 1, 2), inner)]
        start = 0
        for k, scaled in enumerate(self.others):
            stop = start + scaled.shape[1] * self.rows.sizes[k + 1]
            out.append(blocks_times(np.swapaxes(scaled, 1, 2), v[start:stop]))
            start = stop
        return out

    def _at(self, effects: list[np.ndarray], here: slice) -> np.ndarray:
        """Z b of some rows, (rows, K)."""
        out: Any = 0.0
        for k, b in enumerate(effects):
            codes, z = self.rows.codes[k][here], self.rows.z[k]
            if self.rows.factors[k].values is None:
                out = out + b.take(codes, axis=0)
                continue
            for i in range(len(z)):
                out = out + z[i][here, None] * b[i :: len(z)].take(codes, axis=0)
        return out

    def known(self) -> np.ndarray:
        """z_1'F z_1 + r r', (n,)."""
        left = np.swapaxes(self.first, 1, 2)
        middle = np.eye(self.first.shape[1]) + self.factor.inner
        out = self._quadratic(0, left @ middle @ self.first)
        for k, scaled in enumerate(self.others):
            out += self._quadratic(k + 1, np.swapaxes(scaled, 1, 2) @ scaled)
        return out - 2 * self._between()

    def _quadratic(self, k: int, blocks: np.ndarray) -> np.ndarray:
        """z_k'B_g z_k for blocks (J, q, q)."""
        codes, z = self.rows.codes[k], self.rows.z[k]
        q, out = len(z), np.zeros(len(codes))
        for i in range(q):
            for j in range(q):
                out += z[i] * z[j] * blocks[codes, i, j]
        return out

    def _between(self) -> np.ndarray:
        """Inner products of both parts of r, (n,)."""
        N, rows = self.factor.parts[0], self.rows
        first, z = rows.codes[0].astype(np.int64), rows.z[0]
        q, out, start = len(z), np.zeros(len(first)), 0
        for k, scaled in enumerate(self.others):
            codes, values = rows.codes[k + 1].astype(np.int64), rows.z[k + 1]
            for j in range(len(values)):
                own = sum(scaled[codes, j, i] * values[i] for i in range(len(values)))
                at = start + codes * len(values) + j
                for a in range(q):
                    entry = np.ravel(N[first * q + a, at])
                    left = sum(self.first[first, a, i] * z[i] for i in range(q))
                    out += left * entry * own
            start += len(values) * rows.sizes[k + 1]
        return out


def too_large(m: int) -> str:
    """Why a question has no answer where no matrix of m columns is made."""
    return (
        f"this question needs a dense matrix of the {m:,} random effects that are left "
        "after the largest factor, which is not made of so many. Estimates, standard "
        "errors, random effects, predictions, simulations and the log-likelihood do "
        "without"
    )
