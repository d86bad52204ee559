"""Bases of penalised splines: what a smooth is made of before it meets a model.

Thin plate regression splines (Wood 2003), cubic regression splines by values at knots
(Wood 2017, section 5.3.1), P-splines (Eilers and Marx 1996). A basis is what it learned
from the data, a dict of numbers and arrays, which makes the same columns again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import comb, factorial, gamma, pi
from typing import Any

import numpy as np

from jaxglmm._errors import DataError

State = dict[str, Any]
MOST_POINTS = 2000  # different places a thin plate spline is built from
DENSE = 300  # up to which all eigenvalues are found


def learn(kind: str, x: np.ndarray, k: int, label: str) -> tuple[State, np.ndarray]:
    """What a basis of k columns knows, and its penalty (k, k); x (n, d).

    Raises:
        DataError: fewer different places than columns.
    """
    places = len(np.unique(x, axis=0))
    if places < k:
        raise DataError(
            f"{label}: {places} different values are fewer than the k={k} columns of "
            f"the basis; give k={max(places, 3)} or less, or take a factor"
        )
    return LEARN[kind](x, k)


def columns(state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """(n, k) at x (n, d)."""
    return COLUMNS[state["kind"]](state, x)


# Thin plate regression splines --------------------------------------------------------


def _thin_plate(x: np.ndarray, k: int) -> tuple[State, np.ndarray]:
    shift, size = x.mean(axis=0), x.std(axis=0).mean()
    z = (x - shift) / size
    points = np.unique(z, axis=0)
    if len(points) > MOST_POINTS:
        points = points[np.linspace(0, len(points) - 1, MOST_POINTS).astype(int)]
    d = x.shape[1]
    m = d // 2 + 1 if d > 1 else 2
    E = _kernel(_distances(points, points), m, d)
    value, U = _largest(E, k)
    T = _polynomials(points, m)
    M = T.shape[1]
    if k <= M:
        raise DataError(f"a thin plate spline of {d} variables needs k={M + 1} or more")
    Z = np.linalg.qr(U.T @ T, mode="complete")[0][:, M:]
    S = np.zeros((k, k))
    S[: k - M, : k - M] = Z.T @ (value[:, None] * Z)
    state: State = {
        "kind": "tp",
        "shift": shift,
        "size": float(size),
        "m": m,
        "points": points,
        "weights": U @ Z,
        "scales": np.ones(k),
    }
    X = _thin_plate_columns(state, x)
    scales = np.sqrt(np.mean(X * X, axis=0))
    state["scales"] = scales
    return state, S / scales[:, None] / scales


def _thin_plate_columns(state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    z = (x - state["shift"]) / state["size"]
    m, d = int(state["m"]), x.shape[1]
    E = _kernel(_distances(z, state["points"]), m, d)
    both = np.concatenate([E @ state["weights"], _polynomials(z, m)], axis=1)
    return both / state["scales"]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = a[:, None, :] - b[None]
    return np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))


def _kernel(r: np.ndarray, m: int, d: int) -> np.ndarray:
    """Duchon's eta for penalties of derivatives of order m in d dimensions."""
    if d % 2:
        c = gamma(d / 2 - m) / (2 ** (2 * m) * pi ** (d / 2) * factorial(m - 1))
        return c * r ** (2 * m - d)
    c = (-1) ** (m + 1 + d // 2) / (
        2 ** (2 * m - 1) * pi ** (d / 2) * factorial(m - 1) * factorial(m - d // 2)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(r > 0, np.log(np.where(r > 0, r, 1.0)), 0.0)
    return c * r ** (2 * m - d) * log


def _polynomials(z: np.ndarray, m: int) -> np.ndarray:
    """Monomials of total degree below m."""
    d = z.shape[1]
    powers = [(0,) * d]
    for total in range(1, m):
        powers += _of_degree(d, total)
    out = np.stack([np.prod(z ** np.array(p), axis=1) for p in powers], axis=1)
    assert out.shape[1] == comb(m + d - 1, d)
    return out


def _of_degree(d: int, total: int) -> list[tuple[int, ...]]:
    if d == 1:
        return [(total,)]
    return [
        (first, *rest)
        for first in range(total, -1, -1)
        for rest in _of_degree(d - 1, total - first)
    ]


def _largest(E: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k eigenvalues of largest size, and their vectors with a sign of their own."""
    if len(E) > DENSE:
        from scipy.sparse.linalg import eigsh  # slow to import

        value, U = eigsh(E, k, which="LM", v0=np.ones(len(E)) + np.arange(len(E)))
    else:
        value, U = np.linalg.eigh(E)
    order = np.argsort(-np.abs(value), kind="stable")[:k]
    value, U = value[order], U[:, order]
    return value, U * np.sign(U[np.argmax(np.abs(U), axis=0), np.arange(k)])


# Cubic regression splines -------------------------------------------------------------


def _cubic(x: np.ndarray, k: int) -> tuple[State, np.ndarray]:
    knots = np.quantile(np.unique(x[:, 0]), np.linspace(0, 1, k))
    size = float(knots[-1] - knots[0])
    h = np.diff(knots) / size
    D, B = np.zeros((k - 2, k)), np.zeros((k - 2, k - 2))
    for i in range(k - 2):
        D[i, i : i + 3] = 1 / h[i], -1 / h[i] - 1 / h[i + 1], 1 / h[i + 1]
        B[i, i] = (h[i] + h[i + 1]) / 3
        if i < k - 3:
            B[i, i + 1] = B[i + 1, i] = h[i + 1] / 6
    F = np.zeros((k, k))
    F[1:-1] = np.linalg.solve(B, D)
    state: State = {"kind": "cr", "knots": knots, "size": size, "second": F}
    return state, D.T @ F[1:-1]


def _cubic_columns(state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    knots, F = np.asarray(state["knots"]), np.asarray(state["second"])
    t, at = (x[:, 0] - knots[0]) / state["size"], (knots - knots[0]) / state["size"]
    k = len(at)
    inside = np.clip(t, at[0], at[-1])
    j = np.clip(np.searchsorted(at, inside, side="right") - 1, 0, k - 2)
    h, left, right = at[j + 1] - at[j], at[j + 1] - inside, inside - at[j]
    rows = np.arange(len(t))
    out = np.zeros((len(t), k))
    out[rows, j] = left / h
    out[rows, j + 1] += right / h
    out += ((left**3 / h - h * left) / 6)[:, None] * F[j]
    out += ((right**3 / h - h * right) / 6)[:, None] * F[j + 1]
    # a straight line beyond the ends
    first, last = np.zeros(k), np.zeros(k)
    h0, h1 = at[1] - at[0], at[-1] - at[-2]
    first[:2], last[-2:] = (-1 / h0, 1 / h0), (-1 / h1, 1 / h1)
    first, last = first - h0 / 6 * F[1], last + h1 / 6 * F[-2]
    out += np.minimum(t - at[0], 0.0)[:, None] * first
    return out + np.maximum(t - at[-1], 0.0)[:, None] * last


# P-splines ----------------------------------------------------------------------------


def _p_spline(x: np.ndarray, k: int) -> tuple[State, np.ndarray]:
    low, high = float(x.min()), float(x.max())
    beyond = (high - low) * 0.001
    low, high = low - beyond, high + beyond
    step = (high - low) / (k - 3)
    knots = np.linspace(low - 3 * step, high + 3 * step, k + 4)
    D = np.diff(np.eye(k), n=2, axis=0)
    return {"kind": "ps", "knots": knots}, D.T @ D


def _p_spline_columns(state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    from scipy.interpolate import BSpline  # slow to import

    knots = np.asarray(state["knots"])
    spline = BSpline(knots, np.eye(len(knots) - 4), 3)
    low, high = knots[3], knots[-4]
    t = x[:, 0]
    out = spline(np.clip(t, low, high))
    slope = spline(np.array([low, high]), nu=1)
    out += np.minimum(t - low, 0.0)[:, None] * slope[0]
    return out + np.maximum(t - high, 0.0)[:, None] * slope[1]


LEARN = {"tp": _thin_plate, "cr": _cubic, "ps": _p_spline}
COLUMNS = {"tp": _thin_plate_columns, "cr": _cubic_columns, "ps": _p_spline_columns}
NULL = {"tp": 2, "cr": 2, "ps": 2}  # what a penalty of one variable leaves free


def unpenalised(kind: str, d: int) -> int:
    """How many directions the penalty of d variables leaves free."""
    m = d // 2 + 1 if d > 1 else 2
    return comb(m + d - 1, d) if kind == "tp" else NULL[kind]
