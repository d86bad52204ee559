"""Cumulative models whose thresholds, or scale, depend on the row.

P(Y <= j) = F((theta_j - eta) / exp(zeta)) with linear predictors for eta ("cond", the
location), for each threshold theta_j (partial proportional odds: ``nominal=``; of
structured thresholds for each number that they are made of, theta = T alpha) and for
zeta ("disp", the logarithm of the latent scale: ``dispersion=``). Thresholds that are
not in order have no likelihood.

A row sees the two thresholds at the ends of its category alone: derivatives are taken
in these few variables, and put in the places of the predictors they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _thresholds
from jaxglmm.model.families._base import Derivatives, Phi, Rows, Trials
from jaxglmm.model.families._interval import INTERVALS, Ends, curvature
from jaxglmm.model.families.cumulative import Cumulative
from jaxglmm.model.links import Link
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field

COND, DISP = "cond", "disp"


class CumulativeParts(Cumulative):
    """``Cumulative`` with a linear predictor for every threshold.

    Where a function of the family takes ``mu``, here it takes the predictors (K, n).

    Args:
        link: as for ``Cumulative``.
        levels: the categories in order.
        scaled: whether the latent scale has a predictor.
        thresholds: their structure, as for ``Cumulative``.
    """

    scaled: bool = field(static=True)

    def __init__(
        self,
        link: str | Link | None,
        levels: Sequence[Any],
        scaled: bool = False,
        thresholds: str = "flexible",
    ):
        super().__init__(link, thresholds, levels, located=False)
        self.scaled = scaled

    @property
    def threshold_predictors(self) -> tuple[str, ...]:
        """Names of what has a predictor: thresholds, or what these are made of."""
        assert self.levels is not None
        return _thresholds.parameter_names(self.thresholds, self.levels)

    @property
    def T(self) -> np.ndarray:
        """(L, a) thresholds of what has a predictor."""
        return _thresholds.from_reported(self.thresholds, self.L)

    @property
    def predictors(self) -> tuple[str, ...]:  # type: ignore[override]
        return (COND, *self.threshold_predictors, *[DISP] * self.scaled)

    @property
    def predictor_links(self) -> tuple[Link, ...]:
        return (self.link,) * len(self.predictors)

    @property
    def n_phi(self) -> int:  # type: ignore[override]
        return 0

    @property
    def phi_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ()

    @property
    def core(self) -> CumulativeParts:
        return self

    def dispersion(self, phi: Any) -> dict[str, float]:
        return {}

    def natural(self, phi: Any) -> Any:
        return phi

    def from_natural(self, values: Any) -> Any:
        return values

    def natural_jacobian(self, phi: Any) -> np.ndarray:
        return np.zeros((0, 0))

    # -- the likelihood --------------------------------------------------------------

    def _ends_of(self, y: Rows, v: Array) -> tuple[Ends, Array, Array | float]:
        """Ends less eta over the scale, whether they are in order, 1 / scale."""
        below, above = y > 0, y < self.L
        gap = jnp.where(below & above, v[1] - v[2], 1.0)
        known = gap > 0
        a = jnp.where(above, v[1] - v[0], 0.0)
        b = jnp.where(below, v[2] - v[0], 0.0)
        log_gap = jnp.log(jnp.where(known, gap, 1.0))
        if not self.scaled:
            return Ends(a, b, log_gap, below, above), known, 1.0
        shrink = jnp.exp(-v[3])
        ends = Ends(a * shrink, b * shrink, log_gap - v[3], below, above)
        return ends, known, shrink

    def _of_row(self, y: Rows, v: Array) -> Rows:
        """log probability from (eta, upper, lower, zeta), (V, n)."""
        ends, known, _ = self._ends_of(y, v)
        l = INTERVALS[self.link.name](ends, 0).value
        return jnp.where(known, l, -jnp.inf)

    def _by_ends(self, ends: Ends, l: Rows) -> tuple[Any, Any, Any]:
        """Derivatives of log P in its ends a and b, up to the third.

        With p_k the k-th derivative of F at an end over P, minus that at b.
        """
        ratios = []
        for x, there, sign in (
            (ends.a, ends.above, 1.0),
            (ends.b, ends.below, -1.0),
        ):
            f = jnp.where(there, sign * jnp.exp(self.link.log_slope(x) - l), 0.0)
            one, two = curvature(self.link.name, x)
            ratios.append((f, f * one, f * two))
        (a1, a2, a3), (b1, b2, b3) = ratios
        ab = -a1 * b1
        aab, abb = b1 * (2 * a1 * a1 - a2), a1 * (2 * b1 * b1 - b2)
        first = [a1, b1]
        second = [[a2 - a1 * a1, ab], [ab, b2 - b1 * b1]]
        third = [
            [[a3 - 3 * a1 * a2 + 2 * a1**3, aab], [aab, abb]],
            [[aab, abb], [abb, b3 - 3 * b1 * b2 + 2 * b1**3]],
        ]
        return first, second, third

    def _moves(self, y: Rows, ends: Ends, shrink: Any) -> list[tuple[Array, ...]]:
        """Derivatives of a and of b in the variables, up to the third, (V, ..., n)."""
        V = 3 + self.scaled
        zero, one = jnp.zeros_like(ends.a), jnp.ones_like(ends.a)
        out = []
        for own, x in ((1, ends.a), (2, ends.b)):
            part = {0: -one * shrink, own: one * shrink}
            d1 = [part.get(i, zero) for i in range(3)] + [-x] * self.scaled
            d2 = [[zero] * V for _ in range(V)]
            d3 = [[[zero] * V for _ in range(V)] for _ in range(V)]
            if self.scaled:  # each derivative in zeta takes the sign of a and b
                for i in range(V):
                    d2[i][3] = d2[3][i] = -d1[i]
                    d3[i][3][3] = d3[3][i][3] = d3[3][3][i] = d1[i]
            stack = jnp.stack
            out.append(
                (
                    stack(d1),
                    stack([stack(row) for row in d2]),
                    stack([stack([stack(r) for r in rows]) for rows in d3]),
                )
            )
        return out

    def _own(self, y: Rows, eta: Rows) -> tuple[Array, list[Array]]:
        """The variables of each row (V, n), and where they are among the predictors."""
        y, L, T = y.real, self.L, self.T
        made_of = [eta[1 + a] for a in range(T.shape[1])]
        columns, ends = range(T.shape[1]), []
        places = [jnp.stack([jnp.ones_like(y), *[jnp.zeros_like(y)] * (len(eta) - 1)])]
        for shift in (0, 1):  # the upper end of category y is theta_y
            at = [jnp.where(y == j + shift, 1.0, 0.0) for j in range(L)]
            one = [sum(T[j, a] * at[j] for j in range(L) if T[j, a]) for a in columns]
            ends.append(sum(m * t for m, t in zip(one, made_of, strict=True)))
            row = [jnp.zeros_like(y), *one, *[jnp.zeros_like(y)] * self.scaled]
            places.append(jnp.stack(row))
        variables = [eta[0], *ends]
        if self.scaled:
            variables.append(eta[-1])
            last = [*[jnp.zeros_like(y)] * (len(eta) - 1), jnp.ones_like(y)]
            places.append(jnp.stack(last))
        return jnp.stack(variables), places

    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        return self._of_row(y.real, self._own(y, eta)[0])

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        v, S = self._own(y, eta)
        y = y.real
        ends, known, shrink = self._ends_of(y, v)
        l = INTERVALS[self.link.name](ends, 0).value
        one, two, three = _chained(self._by_ends(ends, l), self._moves(y, ends, shrink))
        l = jnp.where(known, l, -jnp.inf)
        V = range(len(S))
        s = sum(S[i] * one[i] for i in V)
        w = sum(S[i][:, None] * S[j] * -two[i, j] for i in V for j in V)
        w1 = sum(
            S[i][:, None, None] * S[j][:, None] * S[k] * -three[i, j, k]
            for i in V
            for j in V
            for k in V
        )
        return l, s, w, w1  # type: ignore[return-value]

    def expected_block(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        """Sum over the categories of P s s'."""
        total: Any = 0.0
        for k in range(self.categories):
            y = jnp.full_like(eta[0], float(k))
            v, S = self._own(y, eta)
            ends, known, shrink = self._ends_of(y, v)
            l = INTERVALS[self.link.name](ends, 0).value
            first = self._by_ends(ends, l)[0]
            moves = self._moves(y, ends, shrink)
            own: Any = sum(Q * d[0] for Q, d in zip(first, moves, strict=True))
            s: Any = sum(S[i] * own[i] for i in range(len(S)))
            P = jnp.where(known, jnp.exp(l), 0.0)
            total = total + P * s[:, None] * s
        return total

    # -- on the host -----------------------------------------------------------------

    def ends(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        eta = np.asarray(eta, float)
        T = self.T
        theta = np.moveaxis(eta[1 : 1 + T.shape[1]], 0, -1) @ T.T - eta[0][..., None]
        if self.scaled:
            theta = theta * np.exp(-eta[-1])[..., None]
        edge = np.full((*theta.shape[:-1], 1), np.inf)
        return np.concatenate([-edge, theta, edge], axis=-1)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        ends = self.ends(mu, phi)
        at = np.clip(np.floor(y) + 1, 0, self.categories).astype(int)
        at = np.broadcast_to(at, ends.shape[:-1])
        return self._distribution(np.take_along_axis(ends, at[..., None], -1)[..., 0])

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        F = self._distribution(self.ends(mu, phi)[..., 1:-1])
        u = rng.uniform(size=F.shape[:-1])
        return np.sum(u[..., None] > F, axis=-1).astype(np.float64)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        count = np.bincount(np.asarray(y, int), minlength=self.categories) + 0.5
        share = np.cumsum(count)[:-1] / np.sum(count)
        theta = np.asarray(self.link.link(share), float)
        eta = np.zeros((len(self.predictors), len(y)))
        T = self.T
        eta[1 : 1 + T.shape[1]] = np.linalg.lstsq(T, theta, rcond=None)[0][:, None]
        return eta, np.zeros(0)


def _chained(
    outer: tuple[Any, Any, Any], moves: list[tuple[Array, ...]]
) -> tuple[Array, Array, Array]:
    """Derivatives of a function of a and b in variables that move these."""
    Q1, Q2, Q3 = outer
    one = sum(Q * d[0] for Q, d in zip(Q1, moves, strict=True))
    two = sum(Q * d[1] for Q, d in zip(Q1, moves, strict=True))
    three = sum(Q * d[2] for Q, d in zip(Q1, moves, strict=True))
    for p, (p1, p2, _) in enumerate(moves):
        for q, (q1, _, _) in enumerate(moves):
            two = two + Q2[p][q] * (p1[:, None] * q1)
            mixed = (
                p2[:, :, None] * q1
                + p2[:, None] * q1[:, None]
                + p2 * (q1[:, None, None])
            )
            three = three + Q2[p][q] * mixed
            for r, (r1, _, _) in enumerate(moves):
                product = p1[:, None, None] * q1[:, None] * r1
                three = three + Q3[p][q][r] * product
    return one, two, three  # type: ignore[return-value]
