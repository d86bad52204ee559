"""Coordinates of a covariance that hold what is to be held.

``Roots`` are entries of the root of the covariance and roots of the components, where
variances cannot go wrong; ``Elements`` are the covariance's own. Both say where they
are as relative covariances, with the Jacobian there.
"""

from __future__ import annotations

import numpy as np

from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams, root

NEAR_ZERO = 1e-3  # relative standard deviation that may as well be zero


class Roots:
    """Entries of the root L and of the components' roots, some of them held.

    free_L (k, k), free_w (c,): what may move; pins: component -> variance, and "re" ->
    variance of the first random effect, in internal units of y squared, held whatever
    the residual variance; order: L is the root of cov_re[order][:, order].
    """

    def __init__(
        self, L, w, free_L, free_w, pins: dict | None = None, order: list | None = None
    ):
        self.L, self.w = np.array(L, float), np.array(w, float)
        self.pins = pins or {}
        k = len(self.L)
        self.order = list(range(k)) if order is None else list(order)
        self._place = [self.order.index(i) for i in range(k)]
        held = {p for p in self.pins if p != "re"}
        self.entries = [
            (i, j)
            for i in range(k)
            for j in range(i + 1)
            if free_L[i, j] and not ("re" in self.pins and (i, j) == (0, 0))
        ]
        self.components = [c for c in range(len(self.w)) if free_w[c] and c not in held]

    def start(self) -> np.ndarray:
        """The free entries."""
        entries = [self.L[i, j] for i, j in self.entries]
        return np.array(entries + [self.w[c] for c in self.components])

    def move(self, x: np.ndarray) -> None:
        """Start from x."""
        self.L, self.w = self.unpack(x, 0.0)

    def unpack(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
        """L and w at x and log residual variance s."""
        L, w = self.L.copy(), self.w.copy()
        for value, (i, j) in zip(x, self.entries, strict=False):
            L[i, j] = value
        w[self.components] = x[len(self.entries) :]
        for pin, variance in self.pins.items():
            size = np.sqrt(variance) * np.exp(-s / 2)
            if pin == "re":
                L[0, 0] = size
            else:
                w[pin] = size
        return L, w

    def point(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Relative covariances."""
        L, w = self.unpack(x, s)
        back = np.ix_(self._place, self._place)
        return (L @ L.T)[back], w**2

    def jacobian(self, x: np.ndarray, s: float) -> np.ndarray:
        """(m, k + 1): the triangle and components by x and by s."""
        L, w = self.unpack(x, s)
        place, k = self._place, len(L)
        triangle = [(place[i], place[j]) for i in range(k) for j in range(i + 1)]
        columns = [self._column(triangle, L, a, b, w) for a, b in self.entries]
        for c in self.components:
            column = np.zeros(len(triangle) + len(w))
            column[len(triangle) + c] = 2 * w[c]
            columns.append(column)
        last = np.zeros(len(triangle) + len(w))
        for pin in self.pins:
            if pin == "re":
                last -= L[0, 0] / 2 * self._column(triangle, L, 0, 0, w)
            else:
                last[len(triangle) + pin] -= w[pin] ** 2
        return np.stack([*columns, last], axis=1)

    @staticmethod
    def _column(triangle, L, a: int, b: int, w) -> np.ndarray:
        """Change of the triangle as L[a, b] rises."""
        out = [(i == a) * L[j, b] + (j == a) * L[i, b] for i, j in triangle]
        return np.array([*out, *np.zeros(len(w))])

    def curvature(self, G: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Second derivatives of the covariances, their positive part (see exact)."""
        size = len(self.entries) + len(self.components)
        out = np.zeros((size, size))
        if len(G):
            values, vectors = np.linalg.eigh(G[np.ix_(self.order, self.order)])
            half = (vectors * np.maximum(values, 0)) @ vectors.T
            for a, (i, j) in enumerate(self.entries):
                for b, (h, l) in enumerate(self.entries):
                    if j == l:
                        out[a, b] = 2 * half[i, h]
        for a, c in enumerate(self.components, len(self.entries)):
            out[a, a] = 2 * max(g[c], 0.0)
        return out

    def near_zero(self, x: np.ndarray, sizes: np.ndarray) -> bool:
        """Whether something that may move is next to zero."""
        return bool(self._zeros(x, sizes))

    def _zeros(self, x: np.ndarray, sizes: np.ndarray) -> list[int]:
        """Positions in x of diagonals and components next to zero."""
        k = len(self.L)
        size = {
            a: sizes[self.order[i]] for a, (i, j) in enumerate(self.entries) if i == j
        }
        for a, c in enumerate(self.components, len(self.entries)):
            size[a] = sizes[k + c]
        return [a for a, own in size.items() if abs(x[a]) * own < NEAR_ZERO]

    def rise(self, x: np.ndarray, G: np.ndarray, g: np.ndarray, sizes: np.ndarray):
        """Share of a step -> x, along the zero whose variance lowers d most by rising.

        G, g: derivatives of d by the covariances and the components. None where no
        variance at zero wants to rise.
        """
        k, best, found = len(self.L), 0.0, None
        for a in self._zeros(x, sizes):
            if a >= len(self.entries):
                c = self.components[a - len(self.entries)]
                slope = g[c] / sizes[k + c] ** 2
                places, direction = [a], np.array([1 / sizes[k + c]])
            else:
                slope, places, direction = self._column_slope(x, a, G, sizes)
            if slope < best - 1e-9:
                best, found = slope, (places, direction)
        if found is None:
            return None
        places, direction = found

        def moved(share: float) -> np.ndarray:
            out = x.copy()
            out[places] = np.sqrt(share) * direction
            return out

        return moved

    def _column_slope(self, x: np.ndarray, a: int, G: np.ndarray, sizes: np.ndarray):
        """The steepest fall of d as a column of L that is zero becomes something."""
        j = self.entries[a][1]
        places = [b for b, (_, l) in enumerate(self.entries) if l == j]
        column = self.unpack(x, 0.0)[0][:, j]
        of = sizes[[self.order[i] for i in range(len(self.L))]]
        if np.abs(column * of).max() >= NEAR_ZERO:  # then the gradient does not vanish
            return 0.0, [], np.zeros(0)
        rows = [self.entries[b][0] for b in places]
        scale = 1 / of[rows]
        G = G[np.ix_(self.order, self.order)][np.ix_(rows, rows)]
        values, vectors = np.linalg.eigh(G * np.outer(scale, scale))
        direction = vectors[:, 0] * scale
        if direction[rows.index(j)] < 0:
            direction = -direction
        return float(values[0]), places, direction

    def zeroed(self, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """x with diagonals next to zero at zero; sizes: of the columns of Z."""
        out = x.copy()
        out[self._zeros(x, sizes)] = 0.0
        return out


class Elements:
    """Elements of the covariance itself (``use_sqrt=False``), some of them held."""

    def __init__(self, cov_re, vcomp, free_re, free_vc):
        self.cov_re, self.vcomp = np.array(cov_re, float), np.array(vcomp, float)
        k = len(self.cov_re)
        self.triangle = [(i, j) for i in range(k) for j in range(i + 1)]
        self.entries = [(i, j) for i, j in self.triangle if free_re[i, j]]
        self.components = [c for c in range(len(self.vcomp)) if free_vc[c]]

    def start(self) -> np.ndarray:
        """The free elements."""
        entries = [self.cov_re[i, j] for i, j in self.entries]
        return np.array(entries + [self.vcomp[c] for c in self.components])

    def move(self, x: np.ndarray) -> None:
        """Start from x."""
        found = self.point(x, 0.0)
        if found is not None:
            self.cov_re, self.vcomp = found

    def point(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Relative covariances; None where they are not positive semidefinite."""
        cov_re, vcomp = self.cov_re.copy(), self.vcomp.copy()
        for value, (i, j) in zip(x, self.entries, strict=False):
            cov_re[i, j] = cov_re[j, i] = value
        vcomp[self.components] = x[len(self.entries) :]
        if (vcomp < 0).any():
            return None
        if len(cov_re) and np.linalg.eigvalsh(cov_re)[0] < 0:
            return None
        return cov_re, vcomp

    def jacobian(self, x: np.ndarray, s: float) -> np.ndarray:
        """(m, k + 1): elements by x, and by s (not at all)."""
        places = [self.triangle.index(e) for e in self.entries]
        places += [len(self.triangle) + c for c in self.components]
        out = np.zeros((len(self.triangle) + len(self.vcomp), len(places) + 1))
        out[places, np.arange(len(places))] = 1.0
        return out

    def curvature(self, G: np.ndarray, g: np.ndarray) -> np.ndarray:
        """None: the covariances are linear in their elements."""
        size = len(self.entries) + len(self.components)
        return np.zeros((size, size))

    def near_zero(self, x: np.ndarray, sizes: np.ndarray) -> bool:
        """False: at zero the derivative over the variance itself does not vanish."""
        return False

    def zeroed(self, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """x with components next to zero at zero."""
        out = x.copy()
        for a, c in enumerate(self.components, len(self.entries)):
            if np.sqrt(abs(x[a])) * sizes[len(self.cov_re) + c] < NEAR_ZERO:
                out[a] = 0.0
        return out


Coordinates = Roots | Elements


def column_sizes(ev: Evaluator) -> np.ndarray:
    """(k_re + k_vc,) root mean squares of the columns of Z."""
    out = np.ones(ev.k_re + ev.k_vc)
    for term, owner in zip(ev.design.terms, ev.where.owner, strict=True):
        size = np.sqrt(np.mean(term.values**2, axis=0))
        if owner < 0:
            out[: ev.k_re] = size
        else:
            out[ev.k_re + owner] = max(size[0], 1e-300)
    return out


def roots_from(
    params: MixedLMParams,
    free: MixedLMParams | None,
    pins: dict | None = None,
    order: list[int] | None = None,
) -> Roots:
    """Root coordinates at ``params``; zeros of ``free`` are held."""
    covariance, (free_L, free_w) = params.cov_re, _masks(params, free)
    if order is not None:
        covariance = covariance[np.ix_(order, order)]
        free_L = free_L[np.ix_(order, order)]
    half = root(covariance)
    return Roots(half, np.sqrt(params.vcomp), free_L, free_w, pins, order)


def elements_from(params: MixedLMParams, free: MixedLMParams | None) -> Elements:
    """The same for elements of the covariance."""
    return Elements(params.cov_re, params.vcomp, *_masks(params, free))


def _masks(params: MixedLMParams, free: MixedLMParams | None):
    """What may move of the covariance and of the components."""
    if free is None:
        return np.ones((params.k_re, params.k_re)), np.ones(params.k_vc)
    return np.asarray(free.cov_re), np.asarray(free.vcomp)


def from_zero(ev: Evaluator, start: MixedLMParams, found: bool) -> MixedLMParams:
    """The start with variances of zero moved off it, for they would stay there."""
    size = np.maximum(column_sizes(ev), 1e-8)
    least = (1e-3 if found else 0.1) / size
    out = start.copy()
    out.vcomp = np.maximum(out.vcomp, least[ev.k_re :] ** 2)
    L = root(out.cov_re)
    low = np.diagonal(L) < least[: ev.k_re]
    if low.any():
        L[np.flatnonzero(low), np.flatnonzero(low)] = least[: ev.k_re][low]
        out.cov_re = L @ L.T
    return out
