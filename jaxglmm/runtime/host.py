"""What JAX's functions are on the host: NumPy and SciPy, and Python's loops.

Only what differs from NumPy's function of the same name: a matrix that is not positive
definite gives NaN and no exception, loops are Python's and give way where they take too
long.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np


class _Where(threading.local):
    host = False
    deadline = math.inf
    question: tuple[float, Callable[[], bool]] = (math.inf, bool)  # asked at a time


class TooLong(Exception):
    """NumPy takes longer than a program would take to compile."""


_where = _Where()


def is_host() -> bool:
    """Whether this thread runs operations one by one in NumPy."""
    return _where.host


@contextlib.contextmanager
def on_host(
    seconds: float = math.inf,
    sooner: float = math.inf,
    kept: Callable[[], bool] = bool,
) -> Iterator[None]:
    """In here the functions of ``jnp`` and ``lax`` are NumPy's and Python's.

    seconds: after which a loop raises ``TooLong`` rather than go on; sooner: likewise,
    if ``kept()`` is true then.
    """
    now, before = time.thread_time(), (_where.host, _where.deadline, _where.question)
    _where.host, _where.deadline = True, now + seconds
    _where.question = now + sooner, kept
    try:
        with np.errstate(all="ignore"):  # what is not finite says so in the result
            yield
    finally:
        _where.host, _where.deadline, _where.question = before


def go_on() -> None:
    """Raise ``TooLong`` where the time is up."""
    now, (moment, kept) = time.thread_time(), _where.question
    if now > moment:
        _where.question = math.inf, kept  # once
        if kept():
            raise TooLong
    if now > _where.deadline:
        raise TooLong


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), which does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), which does not overflow."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def scipy_special(name: str) -> Callable[..., Any]:
    """A function of ``scipy.special``, imported when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        from scipy import special  # slow to import

        return getattr(special, name)(*args, **kwargs)

    return call


def or_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """NaN where LAPACK gives up, as on the device."""

    def call(A: Any, *args: Any, **_: Any) -> Any:
        try:
            return function(A, *args)
        except np.linalg.LinAlgError:
            return np.full(np.shape(args[0] if args else A), np.nan)

    return call


def cholesky(A: np.ndarray, **_: Any) -> np.ndarray:
    """Of the lower triangle; of complex numbers without conjugation (``jvp``)."""
    if np.iscomplexobj(A):
        return _cholesky_analytic(A)
    try:
        return np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        if A.ndim == 2:
            return np.full(A.shape, np.nan)
        flat = [cholesky(a) for a in A.reshape(-1, *A.shape[-2:])]
        return np.stack(flat).reshape(A.shape)


def _cholesky_analytic(A: np.ndarray) -> np.ndarray:
    L = np.zeros_like(A)
    for j in range(A.shape[-1]):
        left = L[..., j, :j]
        root = np.sqrt(A[..., j, j] - np.sum(left * left, axis=-1))
        L[..., j, j] = root
        below = L[..., j + 1 :, :j] @ left[..., None]
        L[..., j + 1 :, j] = (A[..., j + 1 :, j] - below[..., 0]) / root[..., None]
    return L


def eigh(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``jnp.linalg.eigh``."""
    try:
        return np.linalg.eigh(A)
    except np.linalg.LinAlgError:
        return np.full(A.shape[:-1], np.nan), np.full(A.shape, np.nan)


def while_loop(cond: Any, body: Any, state: Any) -> Any:
    """``lax.while_loop``."""
    while cond(state):
        go_on()
        state = body(state)
    return state


def fori_loop(lower: int, upper: int, body: Any, state: Any) -> Any:
    """``lax.fori_loop``."""
    for i in range(int(lower), int(upper)):
        go_on()
        state = body(i, state)
    return state


def cond(which: Any, yes: Any, no: Any, *operands: Any) -> Any:
    """``lax.cond``."""
    return yes(*operands) if which else no(*operands)


def stacked(parts: list[Any]) -> Any:
    """Results of equal structure as one, stacked leaf by leaf."""
    return jax.tree.map(lambda *x: np.stack(x), *parts)


def scan(body: Any, state: Any, xs: Any, length: int | None = None, **_: Any) -> Any:
    """``lax.scan``."""
    n = len(jax.tree.leaves(xs)[0]) if length is None else length
    out = []
    for i in range(n):
        state, y = body(state, jax.tree.map(lambda x, i=i: x[i], xs))
        out.append(y)
    return state, stacked(out)


def dynamic_slice(x: Any, start: Any, length: int, axis: int = 0) -> Any:
    """``lax.dynamic_slice_in_dim``."""
    index = [slice(None)] * np.ndim(x)
    index[axis] = slice(int(start), int(start) + length)
    return x[tuple(index)]


def map_(function: Any, xs: Any, **_: Any) -> Any:
    """``lax.map``."""
    n = len(jax.tree.leaves(xs)[0])
    before, out = _where.deadline, []
    try:
        for i in range(n):
            if 2 * i >= n:  # what remains takes no longer than what is done
                _where.deadline = math.inf
            out.append(function(jax.tree.map(lambda x, i=i: x[i], xs)))
    finally:
        _where.deadline = before
    return stacked(out)


def one_triangle(L: np.ndarray, B: np.ndarray, lower: bool, trans: int) -> np.ndarray:
    """L^-1 B, or L'^-1 B, of one triangular matrix; NaN where its diagonal has a zero.

    By BLAS: LAPACK's ``trtrs`` wakes all threads for eight columns, and waits for them
    for milliseconds where the processors have other work.
    """
    from scipy.linalg import blas  # slow to import

    if not B.size or not np.diagonal(L).all():
        return np.full(B.shape, np.nan)
    real = L.dtype.kind != "c" and B.dtype.kind != "c"
    solve = blas.dtrsm if real else blas.ztrsm
    # the transposed view has Fortran's order, and is not copied
    X = solve(1.0, L.T, B.reshape(len(B), -1), lower=not lower, trans_a=1 - trans)
    return X.reshape(B.shape)
