"""Many responses of one design whose levels have a known covariance: rotated once.

y ~ N(X beta, sigma^2 (I + theta^2 R R')), R the rows of the known root. With R R' =
Q S^2 Q' the rows of Q'y are independent, of variances sigma^2 (1 + theta^2 s_i^2): one
random intercept a row, of size s_i, with which the lanes of one grouping factor deal
(Kang et al. 2008, Genetics 178, 1709; Lippert et al. 2011, Nature Methods 8, 833).
Likelihoods, restricted ones too, are the same, for Q is orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.rotated_lanes import RotatedFit
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.many.linear import CompleteResponses
from jaxglmm.many.responses import Responses, marked
from jaxglmm.runtime.devices import Devices
from jaxglmm.structure.moments_of_design import Moments
from jaxglmm.structure.rotated_design import rotated_design

MOST = 8000  # rows of a matrix Q in full
CELLS = 131_072  # rows x lanes in one chunk on a CPU: 1 MB an array
CHUNKS = 8  # in a block: products with Q are of many columns
KEPT = 4000  # rows of a decomposition that is kept: 128 MB
ZERO = 1e-13  # of the largest size, below which an effect is none


def rotates(design: Design, *given: object) -> bool:
    """Whether a rotation makes the rows independent.

    given: weights, and offsets that differ between responses, which it does not take.
    """
    terms = design.terms
    alone = len(terms) == 1 and terms[0].known is not None and design.residual is None
    free = all(x is None for x in given) and design.weights is None
    return alone and free and design.n <= MOST


class RotatedResponses(CompleteResponses):
    """Responses Q'Y of one design with independent rows.

    moments: of the turned design; responses: as given; offset: (n,) turned, or None.
    """

    cells, chunks, apart = CELLS, CHUNKS, True

    def __init__(
        self,
        moments: Moments,
        responses: Responses,
        offset: np.ndarray | None,
        Q: np.ndarray,
    ):
        super().__init__(moments, responses, offset, len(Q))
        self.Q = Q

    def program(self, design: Design, reml: bool) -> RotatedFit:
        """Of rows."""
        return RotatedFit(reml)

    def common(self, devices: Devices) -> tuple:
        """The design, and the way back to the user's X."""
        back = self.where.fixed.R_inverse[..., None]
        return devices.shared((rotated_design(self.where), back))

    def size(self, common: Callable[[], tuple]) -> int:
        """Rows."""
        return len(self.Q)

    def lanes(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Q'Y (n, L), the offset taken off; (L,) statuses."""
        Y = self.responses.take(which)
        status = np.zeros(len(which), int)
        if self.offset is None:
            status[Y.max(axis=0) == Y.min(axis=0)] = _status.CONSTANT
        status = marked(Y, status)
        if status.any():  # nothing that is infinite into the product
            Y = np.where(status != 0, 0.0, Y)
        Y = self.Q.T @ Y
        if self.offset is not None:
            Y = Y - np.asarray(self.offset)[:, None]
        return Y, status


def rotated(design: Design) -> tuple[Design, np.ndarray]:
    """The design with independent rows, and Q."""
    (term,) = design.terms
    Q, sizes = last.of(term.values)
    own = sizes > ZERO * sizes.max(initial=0.0)
    n, k = len(Q), int(own.sum())
    codes = np.full(n, k, np.int32)  # one level has the rows without an effect
    codes[own] = np.arange(k)
    offset = None if design.offset is None else Q.T @ design.offset
    made = RandomTerm(
        term.label,
        term.factor,
        (str(term.levels[0]),),
        codes,
        np.where(own, sizes, 0.0)[:, None],
        np.arange(k + (k < n)),
    )
    turned = replace(
        design, X=Q.T @ design.X, y=Q.T @ design.y, offset=offset, terms=(made,)
    )
    return turned, Q


def decomposed(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q (n, n) orthogonal and sizes (n,) with R R' = Q diag(sizes^2) Q'."""
    n, J = R.shape
    if n <= J:
        values, Q = np.linalg.eigh(R @ R.T)
        return Q, np.sqrt(np.maximum(values, 0.0))
    Q, upper = np.linalg.qr(R, mode="complete")
    U, s, _ = np.linalg.svd(upper[:J])
    Q[:, :J] = Q[:, :J] @ U
    return Q, np.concatenate([s, np.zeros(n - J)])


class LastDecomposition:
    """The last decomposition, for calls with the same levels and other responses.

    It takes some times as long as thousands of fits, and 8 n^2 bytes.
    """

    def __init__(self) -> None:
        self._held: tuple[bytes, tuple[np.ndarray, np.ndarray]] | None = None

    def of(self, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``decomposed(R)``, found again by R's content."""
        key = blake2b(np.ascontiguousarray(R), digest_size=16)
        key.update(repr(R.shape).encode())
        digest, held = key.digest(), self._held
        if held is None or held[0] != digest:
            held = digest, decomposed(R)
            if len(R) <= KEPT:
                self._held = held
        return held[1]


last = LastDecomposition()
