"""log|M| and its derivatives of large crossed factors by fixed random vectors.

For a function f of H and any orthonormal V, with w = (I - VV') r and signs r at random,

    tr(K f(H)) = tr(V'K f(H)V) + E w'K f(H) w

(Hutchinson 1990). V spans the means of every column by factor: along those H is nearly
singular, and without them most of the variance would be theirs. log(H) comes from the
steps of conjugate gradients (``conjugate``), H^-1 w from their end. What is left is the
noise of H - I: its first order has a known expectation, which is taken off, and the
rest is regressed on it, probe by probe. Probes are the same at every Lambda, so that
the criterion is a smooth function, and their spread is its Monte Carlo error.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from jaxglmm.numerics import conjugate
from jaxglmm.numerics.sparse_schur import AbstractSchurFactor, blocks_times

SEED = 20_260_701  # of the probes, the same for every model
PROBED = 1e-7  # residual of solutions for probes: far below their noise
AT_ONCE = 16  # probes, which bounds the memory


class Probed:
    """log_det: of S; sums: of blocks of M^-1, a factor's (q, q).

    spread: the same two, (k + 1,) and (k + 1, q, q), of each probe about the mean,
    scaled so that their squares add up to the Monte Carlo variance; the last are what
    the tolerance of the solutions may make of all. mean: how means over probes are
    taken; kept: pairs of vectors w and H^-1 w - w, (m, K), those of V first, where the
    system ``keeps`` them.
    """

    def __init__(
        self,
        log_det: float,
        sums: list,
        spread: tuple[np.ndarray, list],
        mean: ControlledMean,
        kept: list[tuple[np.ndarray, np.ndarray]],
    ):
        self.log_det, self.sums, self.spread = log_det, sums, spread
        self.mean, self.kept = mean, kept


class ControlledMean:
    """The mean over probes of what is regressed on controls of known expectation.

    controls: (k, c) less their expectation. On few probes nothing is regressed.
    """

    def __init__(self, controls: np.ndarray):
        k, c = controls.shape
        self.design, self.free = np.ones((k, 1)), max(k - 1, 1)
        if k >= 8 * c and np.isfinite(controls).all():
            size = np.abs(controls).max(axis=0)
            scaled = controls / np.where(size > 0, size, 1.0)
            self.design = np.column_stack([self.design, scaled])
            self.free = k - 1 - c
        self.inverse = np.linalg.pinv(self.design, rcond=1e-10)

    @property
    def weights(self) -> np.ndarray:
        """(k,) of the probes."""
        return self.inverse[0]

    def spread(self, y: np.ndarray) -> np.ndarray:
        """(k, r) deviations by probe of the means of y (k, r); see ``Probed``."""
        left = y - self.design @ (self.inverse @ y)
        return left / np.sqrt(len(y) * self.free)


class ProbedFactor(AbstractSchurFactor):
    """M by products alone."""

    def log_det(self) -> float:
        """log |M|, with the probes' noise."""
        return self.first_log_det() + self.probed.log_det

    def selected(self) -> None:
        """Nothing: sums alone are known."""

    def traces(self, selected=None) -> tuple[np.ndarray, ...]:
        return self.sums_to_traces(self.probed.sums)

    @cached_property
    def means(self) -> np.ndarray:
        """V: (m, d) orthonormal, the mean of every column by factor, scaled by C'."""
        columns, start = [], 0
        for (J, q), inverse in zip(self.system.sides, self.parts[2], strict=True):
            ones = np.tile(np.eye(q), (J, 1))
            whole = np.zeros((self.system.m, q))
            C = np.linalg.inv(inverse)
            own = blocks_times(np.swapaxes(C, 1, 2), ones)
            whole[start : start + J * q] = own
            columns.append(whole)
            start += J * q
        return np.linalg.qr(np.concatenate(columns, axis=1))[0]

    @cached_property
    def probed(self) -> Probed:
        """All that the probes tell, once a Lambda."""
        V, m, k = self.means, self.system.m, self.system.probes
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        seen = [self._look(V, kept)]
        rng = np.random.default_rng(SEED)
        for start in range(0, k, AT_ONCE):
            r = rng.integers(0, 2, (m, min(AT_ONCE, k - start))) * 2.0 - 1.0
            r -= V @ (V.T @ r)
            seen.append(self._look(r, kept))
        exact = seen[0].sum(axis=1)
        each = np.concatenate(seen[1:], axis=1)
        c = 1 + len(self.system.sides)
        controlled = ControlledMean((each[-c:] + exact[-c:, None]).T)
        mean = controlled.weights @ each[:-c].T
        spread = controlled.spread(each[:-c].T)
        unsolved = PROBED * (np.sqrt(np.mean(each**2, axis=1)) + np.abs(exact))
        spread = np.vstack([spread, unsolved[: spread.shape[1]]])
        log_det = self.parts[3] + mean[0] + exact[0]
        sums, spreads, at = [], [], 1
        for known in self._known():
            q = len(known)
            here = slice(at, at + q * q)
            total = known + (mean[here] + exact[here]).reshape(q, q)
            sums.append((total + total.T) / 2)
            own = spread[:, here].reshape(-1, q, q)
            spreads.append((own + np.swapaxes(own, 1, 2)) / 2)
            at += q * q
        return Probed(log_det, sums, (spread[:, 0], spreads), controlled, kept)

    def _look(
        self, w: np.ndarray, kept: list[tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """What each vector of w (m, K) tells: log, sums of blocks, then the controls.

        Without what has a known expectation: the first order of log and of the blocks
        of S^-1, the order zero of those of block 1.
        """
        Hw = self.apply(w)
        E = Hw - w
        found = conjugate.solve(self.apply, w, PROBED)
        if self.system.keeps:
            kept.append((w, found.x - w))
        first = np.einsum("ik,ik->k", w, E)
        rows = [found.logs - first]
        rows += self._fine(found.x - w, w)
        own = self.unscaled(w)
        rest = self.unscaled(found.x - w + E)
        noise = self.unscaled(E)
        controls, start = [first], 0
        for J, q in self.system.sides:
            here = slice(start, start + J * q)
            rows += list(_outer(rest[here], own[here], q))
            controls.append(np.einsum("ik,ik->k", noise[here], own[here]))
            start += J * q
        return np.stack([*rows, *controls])

    def _fine(self, change: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
        """Of the blocks of factor 1: C_1^-T N change (C_1^-T N w)'."""
        back = np.swapaxes(self.first[1], 1, 2)
        times = self.products[0]
        a, b = (blocks_times(back, times(x)) for x in (change, w))
        return list(_outer(a, b, back.shape[1]))

    @cached_property
    def inner(self) -> np.ndarray:
        """(J, q, q) the blocks of N N' a level of factor 1."""
        N, q = self.parts[0], self.first[1].shape[1]
        inner = np.empty((N.shape[0] // q, q, q))
        for i in range(q):
            for j in range(q):
                inner[:, i, j] = np.ravel(N[i::q].multiply(N[j::q]).sum(axis=1))
        return inner

    def _known(self) -> list[np.ndarray]:
        """What was left out in expectation: sums of blocks where H is the identity."""
        C1_inverse = self.first[1]
        middle = np.eye(C1_inverse.shape[1]) + self.inner
        fine = np.einsum("gai,gab,gbj->ij", C1_inverse, middle, C1_inverse)
        return [fine, *(np.einsum("gai,gaj->ij", x, x) for x in self.parts[2])]


def _outer(a: np.ndarray, b: np.ndarray, q: int) -> np.ndarray:
    """(q q, K): sum over the levels of a b' of each pair of columns (J q, K)."""
    K = a.shape[1]
    left, right = a.reshape(-1, q, K), b.reshape(-1, q, K)
    return np.einsum("gik,gjk->ijk", left, right).reshape(q * q, K)
