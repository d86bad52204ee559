"""Variational Bayes by stochastic gradients, for any family with a log density.

q is one Gaussian over the parameters' coordinates x and the random effects u,

    x = x_0 + W (d + T z) ;   u_g = m_g + A_g z + C_g e_g ;   z, e_g standard normal

with T and C_g lower triangular: random effects move with the parameters and are
independent of one another given them. W is a fixed frame (the inverse root of the
marginal posterior's Hessian at its mode x_0), in which all steps are of one size. The
gradient of the bound is that of log p(y, u, x) at a few draws (reparameterised, in
antithetic pairs; Kingma & Welling 2014, Titsias & Lazaro-Gredilla 2014); optax's Adam
follows it at falling rates, and each stage ends in the average of its second half
(Polyak & Juditsky 1992). No expectation has a closed form here, and none is needed.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.density.posterior import PosteriorModel, log_joint
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module

LOG_2PI_E = LOG_2PI + 1
NARROW = 0.7  # sd of spherical effects at the start


class Whitening(Module):
    """x_0 and W: where steps of size one are right."""

    origin: Float[Array, " k"]
    W: Float[Array, "k k"]


class Guide(Module):
    """q: d, T, and m, A, C a factor; T and C hold logarithms on their diagonals."""

    d: Float[Array, " k"]
    T: Float[Array, "k k"]
    m: tuple[Float[Array, "q J"], ...]
    A: tuple[Float[Array, "q k J"], ...]
    C: tuple[Float[Array, "q q J"], ...]


def frame_of(x: Float[Array, " k"], H: Float[Array, "k k"]) -> Whitening:
    """The frame of a mode and its Hessian."""
    root = jnp.linalg.cholesky(H)
    eye = jnp.eye(len(x), dtype=x.dtype)
    return Whitening(x, jax.scipy.linalg.solve_triangular(root, eye, lower=True).T)


def begin(x: Float[Array, " k"], u: Effects) -> Guide:
    """A first q around a mode (x, u)."""
    k = len(x)
    log_sd = jnp.log(NARROW)
    return Guide(
        jnp.zeros(k),
        jnp.zeros((k, k)),
        tuple(v[:, 0] for v in u),
        tuple(jnp.zeros((v.shape[0], k, v.shape[2])) for v in u),
        tuple(
            jnp.broadcast_to(
                log_sd * jnp.eye(v.shape[0])[:, :, None],
                (v.shape[0], v.shape[0], v.shape[2]),
            )
            for v in u
        ),
    )


def _lower(raw: Array) -> Array:
    """A lower triangle whose diagonal is stored by its logarithm; batch axes last."""
    i = jnp.arange(len(raw))
    below = (i[:, None] > i).reshape(len(raw), len(raw), *[1] * (raw.ndim - 2))
    return jnp.where(below, raw, 0.0).at[i, i].set(jnp.exp(raw[i, i]))


def draw(
    guide: Guide,
    frame: Whitening,
    z: Float[Array, " k"],
    e: tuple[Float[Array, "q J"], ...],
) -> tuple[Float[Array, " k"], Effects]:
    """x and u of one draw of the standard normals."""
    x = frame.origin + frame.W @ (guide.d + _lower(guide.T) @ z)
    u = tuple(
        m + jnp.tensordot(z, A, axes=(0, 1)) + jnp.sum(_lower(C) * f, axis=1)
        for m, A, C, f in zip(guide.m, guide.A, guide.C, e, strict=True)
    )
    return x, tuple(v[:, None] for v in u)


def entropy(guide: Guide, frame: Whitening) -> Scalar:
    """-E log q."""
    k = len(guide.d)
    i = jnp.arange(k)
    total = k * LOG_2PI_E / 2 + jnp.sum(guide.T[i, i])
    total = total + jnp.linalg.slogdet(frame.W)[1]
    for C in guide.C:
        j = jnp.arange(len(C))
        total = total + jnp.sum(C[j, j]) + C[j, j].size * LOG_2PI_E / 2
    return total


def elbo(
    posterior: PosteriorModel,
    frame: Whitening,
    guide: Guide,
    z: Float[Array, "S k"],
    e: tuple[Float[Array, "S q J"], ...],
) -> Scalar:
    """The evidence lower bound, estimated at given draws; differentiable."""

    def one(z: Array, e: tuple[Array, ...]) -> Scalar:
        return log_joint(posterior, *draw(guide, frame, z, e))

    return jnp.mean(jax.vmap(one)(z, e)) + entropy(guide, frame)


def _normals(key: Array, guide: Guide, S: int) -> tuple[Array, tuple[Array, ...]]:
    first, *keys = jax.random.split(key, 1 + len(guide.m))
    z = jax.random.normal(first, (S, len(guide.d)))
    e = tuple(
        jax.random.normal(one, (S, *m.shape))
        for one, m in zip(keys, guide.m, strict=True)
    )
    return z, e


@partial(jit, static_argnames=("pairs", "steps"))
def climb(
    posterior: PosteriorModel,
    frame: Whitening,
    guide: Guide,
    rate: Scalar,
    key: Array,
    pairs: int,
    steps: int,
) -> Guide:
    """One stage of Adam at one rate; the average of its second half."""
    posterior = posterior.folded()
    optimiser = optax.adam(rate)

    def loss(guide: Guide, key: Array) -> Scalar:
        z, e = _normals(key, guide, pairs)
        z, e = jax.tree.map(lambda a: jnp.concatenate([a, -a]), (z, e))
        return -elbo(posterior, frame, guide, z, e)

    def step(carry: tuple, t: Array) -> tuple[tuple, None]:
        guide, state, mean = carry
        slope = jax.grad(loss)(guide, jax.random.fold_in(key, t))
        # a draw outside the link's domain teaches nothing
        finite = jnp.isfinite(optax.global_norm(slope))
        slope = jax.tree.map(lambda a: jnp.where(finite, a, 0.0), slope)
        change, state = optimiser.update(slope, state, guide)
        guide = optax.apply_updates(guide, change)
        late = jnp.maximum(t - steps // 2, 0)
        mean = jax.tree.map(lambda m, a: m + (a - m) / (1 + late), mean, guide)
        return (guide, state, mean), None

    begun = guide, optimiser.init(guide), guide
    (_, _, mean), _ = lax.scan(step, begun, jnp.arange(steps))
    return mean


@partial(jit, static_argnames=("S", "chunk"))
def draws(
    posterior: PosteriorModel,
    frame: Whitening,
    guide: Guide,
    key: Array,
    S: int,
    chunk: int,
) -> tuple[Array, Effects, Array, Scalar]:
    """x (S, k), u (S, q, 1, J) a factor, log p(y, u, x) (S,), and q's entropy."""
    posterior = posterior.folded()

    def some(key: Array) -> tuple[Array, Effects, Array]:
        z, e = _normals(key, guide, chunk)
        x, u = jax.vmap(lambda z, e: draw(guide, frame, z, e))(z, e)
        return x, u, jax.vmap(lambda x, u: log_joint(posterior, x, u))(x, u)

    found = lax.map(some, jax.random.split(key, -(-S // chunk)))
    x, u, log_p = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:S], found)
    return x, u, log_p, entropy(guide, frame)
