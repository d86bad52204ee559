"""Standard deviations beside a correlation of few numbers: cs, ar1, toep, ou, ...

Sigma = D R D, Lambda = D L with L L' = R. Of one model L is LAPACK's, and its
derivatives follow from those of R: with A = L^-1 dR L'^-1 and Phi, which takes the
lower triangle and half of the diagonal, dL = L Phi(A) (Smith 1995, Journal of
Computational and Graphical Statistics 4, 134). Of many models at once it is unrolled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._typing import Array, Float
from jaxglmm.model.correlations import (
    AbstractByDistance,
    AbstractCorrelation,
    AbstractKernel,
    Toeplitz,
)
from jaxglmm.model.correlations.base import unit
from jaxglmm.model.covariances import names
from jaxglmm.model.covariances.base import AbstractCovariance, Natural
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp, jvp_rows, put
from jaxglmm.runtime.host import on_host
from jaxglmm.structure.factors import ColumnMaps

END = 1e-6  # of a correlation that counts as at an end of its range
FEW = 3  # columns of a factor that is unrolled in lanes, where LAPACK must not be
JITTER = 1e-11  # on the diagonal of smooth kernels, whose R has eigenvalues of rounding


@dataclass(frozen=True)
class Structured(AbstractCovariance):
    """kind: its word in a formula; one: a single standard deviation for all."""

    kind: str
    correlation: AbstractCorrelation
    one: bool
    has_own: ClassVar[bool] = True

    @property
    def q(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return self.correlation.q

    @property
    def maps(self) -> ColumnMaps:  # type: ignore[override]
        """Columns keep their places, and of one standard deviation their sizes."""
        return ColumnMaps.COMMON if self.one else ColumnMaps.SCALES

    @property
    def is_chain(self) -> bool:  # type: ignore[override]
        """As the correlation is, beside one standard deviation."""
        return self.one and self.correlation.is_chain

    @property
    def n_sd(self) -> int:
        """Number of standard deviations."""
        return 1 if self.one else self.q

    @property
    def sharing(self) -> tuple[int, ...]:
        """As ``base`` has it."""
        return (0,) * self.q if self.one else tuple(range(self.q))

    @property
    def m(self) -> int:
        """Standard deviations, then the correlation's parameters."""
        return self.n_sd + self.correlation.n

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Correlations are on the whole line."""
        line = (-np.inf, np.inf)
        return ((0.0, np.inf),) * self.n_sd + (line,) * self.correlation.n

    def start(self, sd: Sequence[Any]) -> list[Any]:
        """No correlation, or a weak one."""
        return self._from(sd, self.correlation.start())

    def starts(self, sd: Sequence[Any]) -> list[list[Any]]:
        """With other ranges too."""
        own = self.correlation
        return [self._from(sd, x) for x in (own.start(), *own.other_starts())]

    def _from(self, sd: Sequence[Any], natural: list[float]) -> list[Any]:
        z = self.correlation.free(natural)
        own = list(sd)
        if self.one:
            own = [sum(x * x for x in own) / len(own)]
            own = [own[0] ** 0.5]
        return [*own, *(0 * own[0] + float(x) for x in z)]

    # Lambda ---------------------------------------------------------------------------

    def values(self, theta: Sequence[Any]) -> Any:
        """The entries of Lambda; an array where theta are numbers."""
        sd, z = theta[: self.n_sd], theta[self.n_sd :]
        packed = self.correlation.entries(self.correlation.natural(z))
        if jnp.ndim(theta[0]) > 0 or self.q <= FEW:
            return self._unrolled(sd, packed)
        root = self._root(packed)
        return self._scale(jnp.stack(list(sd)), root)

    def _unrolled(self, sd: Sequence[Any], packed: Any) -> list[Any]:
        place = {entry: k for k, entry in enumerate(self.entries)}
        R = [
            [packed[place[max(i, j), min(i, j)]] for j in range(self.q)]
            for i in range(self.q)
        ]
        for i in range(self.q if self.smooth else 0):
            R[i][i] = R[i][i] + JITTER
        L = small.cholesky(R)
        return [sd[0 if self.one else i] * L[i][j] for i, j in self.entries]

    def _whole(self, packed: Array) -> Array:
        """A symmetric matrix."""
        row, column = self.at
        out = put(jnp.zeros((self.q, self.q), packed.dtype), (row, column), packed)
        return put(out, (column, row), packed)

    def _root(self, packed: Array) -> Array:
        """L, packed."""
        return self._factor(packed)[self.at]

    def _factor(self, packed: Array) -> Array:
        R = self._whole(packed)
        return jnp.linalg.cholesky(R + JITTER * np.eye(self.q) if self.smooth else R)

    @property
    def smooth(self) -> bool:
        """Whether R may be singular but for rounding inside its range."""
        return self.kind in ("gau", "mat")

    def _scale(self, sd: Array, packed: Array) -> Array:
        return sd[0] * packed if self.one else sd[self.at[0]] * packed

    def jacobian_matrix(self, theta: Sequence[Array]) -> Float[Array, "e m"]:
        """d values / d theta of one model."""
        sd, z = jnp.stack(list(theta[: self.n_sd])), list(theta[self.n_sd :])
        packed, slopes = self._slopes(z)
        L = self._factor(packed)
        columns = [L[self.at][:, None]]
        if not self.one:
            rows = self.at[0][:, None] == np.arange(self.q)[None]
            columns = [jnp.where(rows, L[self.at][:, None], 0.0)]
        for slope in slopes:
            moved = L @ (_half(self.q) * self._between(L, slope))
            columns.append(self._scale(sd, moved[self.at])[:, None])
        return jnp.concatenate(columns, axis=1)

    def bend_matrix(
        self, theta: Sequence[Array], slopes: Float[Array, " e"]
    ) -> Float[Array, "m m"]:
        """sum_e slopes_e d2 values_e / d theta d theta' of one model.

        With B = L'C, C the slopes times the standard deviations, and P_a = Phi(A_a),

            sum C d2L_ab = sum B P_b P_a + sum Phi(B) (L^-1 d2R_ab L'^-1 - P_b A_a
                           - A_a P_b')
        """
        if self.q <= FEW:
            found = super().bend_matrix(theta, slopes)
            assert found is not None
            return found
        sd, z = jnp.stack(list(theta[: self.n_sd])), list(theta[self.n_sd :])
        packed, first, second = self.correlation.derivatives(z)
        L = self._factor(packed)
        half = _half(self.q)
        C = put(jnp.zeros((self.q, self.q), L.dtype), self.at, slopes)
        A = [self._between(L, slope) for slope in first]
        P = [half * x for x in A]
        n = self.n_sd
        across = jnp.zeros((n, len(z)), L.dtype)
        if z:
            moved = jnp.stack([C * (L @ x) for x in P])
            rows = jnp.sum(moved, axis=2).T
            across = jnp.sum(rows, axis=0)[None] if self.one else rows
        B = L.T @ ((sd[0] if self.one else sd[:, None]) * C)
        half_B = half * B
        right = jnp.linalg.solve(L.T, half_B)
        weight = jnp.linalg.solve(L.T, right.T).T  # L'^-1 Phi(B) L^-1
        weight = (weight + weight.T)[self.at] * np.where(
            self.at[0] == self.at[1], 0.5, 1.0
        )
        square = [[None] * len(z) for _ in z]
        for a in range(len(z)):
            for b in range(a + 1):
                turned = P[b] @ A[a] + A[a] @ P[b].T
                value = jnp.sum(B * (P[b] @ P[a])) - jnp.sum(half_B * turned)
                value = value + weight @ second[a][b]
                square[a][b] = square[b][a] = value
        out = jnp.zeros((n, n), L.dtype)
        if not z:
            return out
        whole = jnp.stack([jnp.stack(row) for row in square])
        top = jnp.concatenate([out, across], axis=1)
        return jnp.concatenate(
            [top, jnp.concatenate([across.T, whole], axis=1)], axis=0
        )

    def _slopes(self, z: list[Array]) -> tuple[Array, list[Array]]:
        """R and d R / d z, packed."""
        slopes, packed = [], None
        for a in range(len(z)):
            packed, slope = jvp_rows(
                lambda *x: self.correlation.entries(self.correlation.natural(x)),
                tuple(z),
                unit(z, a),
            )
            slopes.append(slope)
        assert packed is not None
        return packed, slopes

    def _between(self, L: Array, packed: Array) -> Array:
        """L^-1 X L'^-1 of a packed symmetric X."""
        left = jnp.linalg.solve(L, self._whole(packed))
        return jnp.linalg.solve(L, jnp.swapaxes(left, 0, 1))

    def matrix(self, theta: Float[np.ndarray, "*D m"]) -> Float[np.ndarray, "*D q q"]:
        """Lambda, on the host; NaN where R is not positive definite."""
        theta = np.asarray(theta, float)
        z = list(np.moveaxis(theta[..., self.n_sd :], -1, 0))
        R = self.correlation.matrix(self.correlation.natural(z))
        if self.smooth:
            R = R + JITTER * np.eye(self.q)
        return theta[..., : self.n_sd, None] * roots(R)

    def theta(self, lam: Float[np.ndarray, "*D q q"]) -> Float[np.ndarray, "*D m"]:
        """Standard deviations and z; where nothing is known of z, no correlation."""
        sd, natural = self._read(lam @ np.swapaxes(lam, -1, -2))
        z = self.correlation.free(natural)
        blank = self.correlation.free(self.correlation.start())
        z = [np.where(np.isfinite(x), x, b) for x, b in zip(z, blank, strict=True)]
        return np.concatenate([sd, np.stack(z, axis=-1)], axis=-1)

    def _read(self, cov: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Standard deviations (..., n_sd) and natural parameters of Sigma."""
        each = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        with np.errstate(divide="ignore", invalid="ignore"):
            R = cov / (each[..., :, None] * each[..., None, :])
            if isinstance(self.correlation, AbstractByDistance):
                R = self.correlation.filled(R)
            natural = self.correlation.fitted(np.clip(R, -1.0, 1.0))
        return (each[..., :1] if self.one else each), natural

    def curves(self, theta: np.ndarray, sigma2: float) -> tuple[np.ndarray, np.ndarray]:
        """In variances and natural parameters, as SAS has them."""
        own, n, q = self.correlation, self.n_sd, self.q
        z = [np.float64(x) for x in theta[n:]]
        with on_host():
            natural = own.natural(z)
            R, slope, bend = own.derivatives(natural, natural=True)
        v = np.broadcast_to(sigma2 * np.asarray(theta[:n]) ** 2, (q,))
        size = np.sqrt(np.outer(v, v))
        G, G1 = size * own.whole(R), [size * own.whole(x) for x in slope]
        G2 = [[size * own.whole(x) for x in row] for row in bend]
        first, second = np.zeros((self.m, q, q)), np.zeros((self.m, self.m, q, q))
        first[n:] = G1
        second[n:, n:] = G2
        share = np.array([self._share(v, k) for k in range(n)])
        first[:n], across = share * G, share[:, None] * np.array(G1)[None]
        second[:n, n:], second[n:, :n] = across, np.swapaxes(across, 0, 1)
        if not self.one:
            second[:n, :n] = share[:, None] * share[None] * G
            for k in range(n):
                second[k, k] -= share[k] / v[k] * G
                second[k, k, k, k] = 0.0
        return first, second

    def _share(self, v: np.ndarray, k: int) -> np.ndarray:
        """(q, q) d log |G_ij| / d v_k."""
        if self.one:
            return np.full((self.q, self.q), 1.0 / v[0])
        here = (np.arange(self.q) == k) / (2.0 * v[k])
        return here[:, None] + here[None]

    # Names ----------------------------------------------------------------------------

    def sd_names(self, columns: Sequence[str], label: str) -> list[str]:
        """One for each standard deviation."""
        if self.one:
            return [names.sd(self.kind, label)]
        return super().sd_names(columns, label)

    def correlation_names(
        self, columns: Sequence[str], label: str, by_row: bool = False
    ) -> list[str]:
        """Of rho, range, nu; of several correlations by their steps."""
        return [names.parameter(k, n, label) for k, n in self.parameters(columns)[1]]

    def parameters(
        self, columns: Sequence[str]
    ) -> tuple[list[tuple[str, ...]], list[Natural]]:
        """As ``base`` has them."""
        sds = [(self.kind,)] if self.one else [(c,) for c in columns]
        own: list[Natural] = []
        for name in self.correlation.names:
            word, _, step = name.partition("_")
            if word == "rho":
                own.append((names.COR, (self.kind, step) if step else (self.kind,)))
            else:
                own.append((word, (self.kind,)))
        return sds, own

    def natural(self, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``base`` has them."""
        sd, found = self._read(np.asarray(cov))
        return sd, np.stack(found, axis=-1)

    def elsewhere(self, lam: np.ndarray, at: np.ndarray, first: float) -> np.ndarray:
        """As ``base`` has it; of steps as far as the correlation is known."""
        own = self.correlation
        assert isinstance(own, AbstractByDistance)
        natural = own.free(self._read(lam @ lam.T)[1])
        natural = own.natural(natural)
        there = at if isinstance(own, AbstractKernel) else at - first
        if not isinstance(own, AbstractKernel):
            far = (
                isinstance(own, Toeplitz) and ((there < 0) | (there > self.q - 1)).any()
            )
            if far or (there != np.rint(there)).any():
                raise DataError(
                    f"{self.kind}() knows correlations of whole steps"
                    f"{' between those of the fit' if far else ''}; a new row lies at "
                    f"{at.ravel()[0]:g}. ou(0 + t | g) has one at any distance"
                )
        cross = own.between(natural, there, own.positions)
        R = own.matrix(natural) + (JITTER * np.eye(self.q) if self.smooth else 0.0)
        return np.linalg.solve(R, cross.T).T

    def is_end(self, correlation: float) -> bool:
        """As ``base`` has it."""
        lowest = getattr(self.correlation, "lowest", -1.0)
        return min(1.0 - correlation, correlation - lowest) < END

    def at_end(self, theta: np.ndarray) -> bool:
        """As ``base`` has it."""
        natural = self.correlation.natural([np.float64(x) for x in theta[self.n_sd :]])
        if not self.correlation.names[0].startswith("rho"):
            return self.common(natural) is not None
        return any(self.is_end(float(x)) for x in natural)

    def common(self, natural: Sequence[float]) -> float | None:
        """As ``base`` has it, of the farthest and of the nearest two positions."""
        own = self.correlation
        if not isinstance(own, AbstractKernel) or self.q < 2:
            return None
        near, far = np.asarray(own.at(list(natural), own.distances[[1, -1]]))
        return 1.0 if far > 1 - END else 0.0 if near < END else None

    def from_natural(self, x: np.ndarray) -> np.ndarray:
        """theta (..., m) of standard deviations and natural parameters, NumPy."""
        z = self.correlation.free(list(np.moveaxis(x[..., self.n_sd :], -1, 0)))
        sd = x[..., : self.n_sd]
        return np.concatenate([sd, np.stack(z, axis=-1).astype(float)], axis=-1)

    def natural_jacobian(self, theta: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """d (standard deviations, natural parameters) / d theta, NumPy."""
        out = np.zeros((self.m, self.m))
        n = self.n_sd
        out[:n, :n] = np.diag(1.0 / scale[:n] * np.where(theta[:n] < 0, -1.0, 1.0))
        with on_host():
            for a in range(self.m - n):
                along = tuple(np.eye(self.m - n)[a])
                moved = jvp_rows(
                    lambda *z: tuple(self.correlation.natural(z)),
                    tuple(theta[n:]),
                    along,
                )[1]
                out[n:, n + a] = [float(x) for x in moved]
        return out


def _half(q: int) -> np.ndarray:
    """What Phi multiplies with: the lower triangle, and half of the diagonal."""
    return np.tril(np.ones((q, q))) - 0.5 * np.eye(q)


def roots(R: np.ndarray) -> np.ndarray:
    """Cholesky factors (..., q, q); of matrices that are just singular too."""
    try:
        return np.linalg.cholesky(R)
    except np.linalg.LinAlgError:
        flat = R.reshape(-1, *R.shape[-2:])
        return np.stack([_root_of(x) for x in flat]).reshape(R.shape)


def _root_of(R: np.ndarray) -> np.ndarray:
    if not np.isfinite(R).all():
        return np.full_like(R, np.nan)
    try:
        return np.linalg.cholesky(R)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(R)
        half = vectors * np.sqrt(np.maximum(values, 0.0))
        L = np.linalg.qr(half.T, mode="r").T
        return np.tril(L * np.where(np.diagonal(L) < 0, -1.0, 1.0))
