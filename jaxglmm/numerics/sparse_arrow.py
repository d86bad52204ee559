"""Crossed factors whose coupling is sparse and whose Schur complement is large."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.numerics.dense_schur import FilledFactor
from jaxglmm.numerics.probed_schur import ProbedFactor
from jaxglmm.numerics.sparse_schur import AbstractSparse
from jaxglmm.numerics.system import AbstractFactor, Lambdas
from jaxglmm.runtime.trees import field


class SparseArrow(AbstractSparse):
    """A: (q, q, J) of factor 1; N: (J q, m) sparse; A22: (m, m) sparse.

    The other fields are told of by ``AbstractSparse``.
    """

    A: np.ndarray
    N: Any
    A22: Any
    sides: tuple[tuple[int, int], ...] = field(static=True)
    probes: int = field(static=True)
    keeps: bool = field(static=True, default=False)

    def with_probes(self, probes: int, keeps: bool = False) -> SparseArrow:
        """The same by another number of probes."""
        return SparseArrow(self.A, self.N, self.A22, self.sides, probes, keeps)

    def factor(self, lam: Lambdas) -> AbstractFactor:
        """Of M, in full or by probes."""
        if self.probes:
            return ProbedFactor(self, lam)
        return FilledFactor(self, lam)
