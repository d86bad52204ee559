"""Many responses of one design: the fit of one, vmapped in chunks that fit the cache.

A chunk stops with its own slowest lane, so chunks are small: all lanes at once would
wait for the slowest of all, and spill out of the cache on every step (3 to 14 times
slower).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxglmm._typing import Array, Float, Int, Scalar
from jaxglmm.estimate.information import Curvature, curvature
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.arrow import Arrow
from jaxglmm.runtime.arrays import is_host, lax
from jaxglmm.runtime.compile import stored
from jaxglmm.runtime.trees import Module

CELLS = 6000  # random effects x lanes in one chunk
# side^3 x lanes of a batched LAPACK call, well below those that jaxlib 0.10 cuts up for
# the threads of XLA's pool: each waits there for its parts, two at once for ever
THREADED = 100_000


class ResponseProducts(Module):
    """Cross-products with D responses: Z'y a factor (D, q, J), X'y (D, p), y'y (D,)."""

    Zy: tuple[Float[Array, "D q J"], ...]
    Xy: Float[Array, "D p"]
    yy: Float[Array, " D"]


class ResponseFits(Module):
    """D fits, in internal coordinates."""

    theta: Float[Array, "D m"]
    beta: Float[Array, "D p"]
    sigma2: Float[Array, " D"]
    criterion: Float[Array, " D"]
    status: Int[Array, " D"]
    steps: Int[Array, " D"]


def chunk_size(problem: Problem) -> int:
    """Lanes at once: what fits the cache, and no LAPACK call that would use threads."""
    cells = sum(b.shape[0] * b.shape[-1] for b in problem.B)
    chunk = int(np.clip(CELLS // cells, 1, 512))
    side = max(problem.p, len(problem.start), *problem.sides)
    if isinstance(problem.system, Arrow):
        side = max(side, problem.system.A22.shape[0])
    return chunk if side <= spd.SMALL else int(np.clip(THREADED // side**3, 1, chunk))


@stored(static=("estimator", "chunk"), fast=False, host=True)
def fit_lanes(
    estimator: Maximise,
    problem: Problem,
    responses: ResponseProducts,
    theta: Float[Array, " m"] | None,
    tol: Scalar,
    chunk: int,
    max_steps: Int[Array, ""],
) -> ResponseFits:
    """Fit D responses (D a multiple of ``chunk``), all from ``theta``.

    None: each from its own start by moments, as a single fit.
    """

    def one(r: ResponseProducts) -> ResponseFits:
        own = problem.with_response(r.Zy, r.Xy, r.yy)
        found = estimator.fit(own, theta, tol, max_steps)
        kept = ResponseFits.__dataclass_fields__
        return ResponseFits(**{name: getattr(found, name) for name in kept})

    return _chunked(one, responses, len(responses.yy), chunk)


def _chunked(
    one: Callable[[ResponseProducts], ResponseFits],
    responses: ResponseProducts,
    D: int,
    chunk: int,
) -> ResponseFits:
    if is_host():
        return lax.map(one, responses)
    if chunk == D:
        return jax.vmap(one)(responses)
    cut = jax.tree.map(lambda x: x.reshape(D // chunk, chunk, *x.shape[1:]), responses)
    lanes = lax.map(jax.vmap(one), cut)
    return jax.tree.map(lambda x: x.reshape(D, *x.shape[2:]), lanes)


@stored(static=("reml",), fast=False, host=True)
def curvatures(
    problem: Problem,
    theta: Float[Array, "D m"],
    sigma2: Float[Array, " D"],
    responses: ResponseProducts,
    reml: bool,
) -> Curvature:
    """Hessians and derivatives of the covariance of beta, one lane after the other."""

    def one(lane: tuple[Array, Array, ResponseProducts]) -> Curvature:
        x, s2, r = lane
        own = problem.with_response(r.Zy, r.Xy, r.yy)
        return curvature(own, x, s2, reml)

    return lax.map(one, (theta, sigma2, responses))
