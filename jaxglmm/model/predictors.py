"""The linear predictors of a generalised model: eta_k = offset_k + X_k beta_k + Z_k b.

A family states how many there are, K (small, a constant of the program), and their
names: the mean, as a rule alone; the logarithm of a dispersion, the logit of a
probability of zero, thresholds. The log density of row i is a function of its K values
eta_i1 .. eta_iK and of phi. A random term belongs to one predictor; terms on one
grouping factor are joined whichever predictor they belong to, with independent effects.

psi = (beta_1 .. beta_K, theta, phi). X is (p, n), the columns of all predictors one
after the other. Where K is 1 what a row has is (n,): its value, s = dl/deta and
w = -d2l/deta2. Else these are (K, n), (K, n) and a symmetric block (K, K, n), and the
derivatives of w, in the predictors, (K, K, K, n). Leverages are K rows of K entries
(n,), 0.0 of predictors without random effects. Then

    X_k'WX_l = X_k' W_kl X_l,    Z_k'WX_l = Z_k' W_kl X_l,    Z_k'WZ_l = Z_k' W_kl Z_l

and nothing else of the algebra knows of K: Laplace's approximation, its score and its
curvature see Z'WZ, Z'WX, X'WX, Z's, X's, and the leverages z_k'Nz_l, a block a row.

Which places are general:

* ``structure.rows``: ``weigh``, ``collect``, ``spread``, ``leverages``; ``of`` there
  says to which predictor a component of a factor belongs;
* here: X b, X'r, X'WX, WX, products of blocks, and blocks that have to be positive;
* ``integrate.laplace``, ``laplace_derivatives``, ``fixed_only``, ``working_model`` and
  ``quadrature``: by these functions alone; ``second_order`` is for one predictor;
* ``estimate.generalised``, ``search``, ``start_generalised``: the same.

Every branch on K is static: one predictor compiles to the program without predictors.
Lanes of many models (``*_lanes``) have the same axes before their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxglmm._typing import Array, Float
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics import spd
from jaxglmm.runtime.arrays import jnp


@dataclass(frozen=True)
class Predictors:
    """Names, and how many columns of X are each one's (None: all, of the only one)."""

    names: tuple[str, ...] = ("mean",)
    columns: tuple[int, ...] | None = None

    @property
    def K(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def of(self) -> tuple[int, ...]:
        """(p,) the predictor of each column of X, of several."""
        assert self.columns is not None
        return tuple(k for k, count in enumerate(self.columns) for _ in range(count))

    def parts(self, X: Array) -> list[Array]:
        """X_k, predictor by predictor."""
        out, start = [], 0
        for count in self.columns or ():
            out.append(X[start : start + count])
            start += count
        return out

    def values(self, X: Array, beta: Float[Array, " p"], rest: Array) -> Array:
        """rest + X beta."""
        if self.K == 1:
            return _add(X, beta, rest)
        start, out = 0, []
        shape = jnp.broadcast_shapes(rest.shape, (self.K, *X.shape[1:]))
        rest = jnp.broadcast_to(rest, shape)
        for k, x in enumerate(self.parts(X)):
            out.append(_add(x, beta[start : start + len(x)], rest[k]))
            start += len(x)
        return jnp.stack(out)

    def total(self, X: Array, r: Array) -> Float[Array, " p"]:
        """X'r."""
        if self.K == 1:
            return total(X, r)
        return jnp.concatenate([total(x, r[k]) for k, x in enumerate(self.parts(X))])

    def gram(self, X: Array, w: Array) -> Float[Array, "p p"]:
        """X'WX."""
        if self.K == 1:
            return gram(X, w)
        own = self.parts(X)
        return jnp.concatenate(
            [
                jnp.concatenate([_cross(x, w[k, m], y) for m, y in enumerate(own)], 1)
                for k, x in enumerate(own)
            ]
        )

    def weighted(self, X: Array, w: Array) -> list[Array]:
        """The columns of WX."""
        if self.K == 1:
            return [w * x for x in X]
        return [w[:, k] * x for x, k in zip(X, self.of, strict=True)]

    def apply(self, w: Array, v: Array) -> Array:
        """W v."""
        return w * v if self.K == 1 else jnp.sum(w * v, axis=1)

    def solve(self, w: Float[Array, "K K n"], v: Float[Array, "K n"]) -> Array:
        """W^-1 v for positive blocks; zero where a row has no weight."""
        some = jnp.any(w != 0, axis=(0, 1))
        safe = jnp.where(some, w, self.alike(jnp.ones_like(v[0])))
        root = small.cholesky(small.rows(safe))
        return jnp.where(some, jnp.stack(small.solve(root, list(v))), 0.0)

    def alike(self, w: Array) -> Array:
        """The weights of rows, the same for all predictors, as blocks."""
        if self.K == 1:
            return w
        one = jnp.eye(self.K, dtype=w.dtype)
        return one.reshape(*one.shape, *(1,) * w.ndim) * w

    def each(self, r: Array) -> Array:
        """The sum over the rows, predictor by predictor."""
        return jnp.sum(r) if self.K == 1 else jnp.sum(r, tuple(range(1, r.ndim)))

    def along_rows(self, x: Array, like: Array) -> Array:
        """One number a predictor in the shape of values of rows."""
        return x if self.K == 1 else x.reshape(-1, *(1,) * (like.ndim - 1))

    def carried(self, w1: Array, lev: Any) -> Array:
        """d log|M| / d eta: what the weights move, times their leverages."""
        return w1 * lev if self.K == 1 else _paired(w1, lev)

    def paired(self, lev: Any, b: Array) -> Array:
        """The trace of the product of two symmetric blocks, row by row."""
        return lev * b if self.K == 1 else _paired(b, lev)

    def moved(self, dl: Array, lev: Any, dw: Array) -> Array:
        """-2 sum dl + tr(N Z'dW Z), what a dispersion parameter moves."""
        if self.K == 1:
            return jnp.sum(-2 * dl + lev * dw)
        return jnp.sum(self.paired(lev, dw)) - 2 * jnp.sum(dl)

    def below(self, w: Array) -> Array:
        """Whether a row's information is not positive semidefinite."""
        return w < 0 if self.K == 1 else ~_positive(w)

    def bounded(self, w: Array, expected: Array | None) -> Array:
        """Information for steps: positive where the rows' own is not.

        Its absolute value, that is with the signs of its eigenvalues left out; of
        several predictors Fisher's where the family says it, and of more than two a
        diagonal above it otherwise: |W| <= diag(sum_l |W_kl|).
        """
        if self.K == 1:
            return jnp.abs(w)
        if expected is None and self.K == 2:
            expected = _absolute(w)
        elif expected is None:
            expected = self.alike(jnp.ones(w.shape[2:], w.dtype))
            expected = expected * jnp.sum(jnp.abs(w), axis=1)[:, None]
        return jnp.where(_positive(w), w, expected)


def _paired(w: Array, lev: small.Matrix) -> Array:
    """sum_ij w_ij lev_ij, w (K, K, ...), without the blocks that are not there."""
    there = [
        w[i, j] * x
        for i, row in enumerate(lev)
        for j, x in enumerate(row)
        if not small.is_zero(x)
    ]
    return sum(there[1:], there[0]) if there else jnp.zeros_like(w[0, 0])


def _positive(w: Float[Array, "K K n"]) -> Array:
    """Whether the blocks are positive semidefinite, by their pivots."""
    root = small.cholesky(small.rows(w))
    pivots = [root[k][k] for k in range(len(w))]
    finite = jnp.all(jnp.stack([jnp.isfinite(pivot) for pivot in pivots]), axis=0)
    nothing = jnp.all(w == 0, axis=(0, 1))  # rows that pad
    return finite | nothing


def _absolute(w: Float[Array, "2 2 n"]) -> Array:
    """(W W)^1/2 = (W W + |det W| I) / (tr W W + 2 |det W|)^1/2 (Cayley, Hamilton)."""
    size = jnp.max(jnp.abs(w), axis=(0, 1))
    unit = w / jnp.where(size > 0, size, 1.0)
    a, b, c = unit[0, 0], unit[0, 1], unit[1, 1]
    det = jnp.abs(a * c - b * b)
    root = jnp.sqrt(a * a + 2 * b * b + c * c + 2 * det)
    part = size / jnp.where(root > 0, root, 1.0)
    off = (a + c) * b * part
    rows = [(a * a + b * b + det) * part, off], [off, (c * c + b * b + det) * part]
    return jnp.stack([jnp.stack(row) for row in rows])


def _add(X: Array, beta: Array, rest: Array) -> Array:
    if len(X) == 0:
        return rest
    if len(X) <= spd.TINY:
        return rest + sum(beta[j] * X[j] for j in range(len(X)))
    return rest + jnp.tensordot(beta, X, axes=1)


def total(X: Array, r: Array) -> Float[Array, " p"]:
    """X'r of one predictor."""
    if len(X) <= spd.TINY:
        return jnp.sum(X * r, axis=tuple(range(1, X.ndim)))
    return X.reshape(len(X), -1) @ r.reshape(-1)


def gram(X: Array, w: Array) -> Float[Array, "p p"]:
    """X'WX of one predictor."""
    p = len(X)
    if p <= spd.SMALL and w.size <= 4096:
        return jnp.sum((w * X)[:, None] * X[None], axis=tuple(range(2, X.ndim + 1)))
    flat = X.reshape(p, w.size)
    return (w.reshape(-1) * flat) @ flat.T


def _cross(X: Array, w: Array, Y: Array) -> Float[Array, "p r"]:
    left = (w * X).reshape(len(X), w.size)
    return left @ Y.reshape(len(Y), w.size).T
