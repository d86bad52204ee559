"""Thresholds of a cumulative model: what they are made of, and their names.

With K categories there are L = K - 1 thresholds, theta = c + A d: a location c and r
positive spacings d, whose logarithms are the parameters. A is known:

    flexible     d are the L - 1 gaps, c the middle threshold
    symmetric    d are the gaps outward from the middle, c the middle
    symmetric2   the same with c = 0
    equidistant  d is the one gap, c the middle

Users see them as the R package ordinal has them: thresholds by name, central ones with
spacings, positive ones, first and spacing; a known matrix B of (c, d).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.numerics.scales import LOG, PLAIN, Scale

STRUCTURES = ("flexible", "symmetric", "symmetric2", "equidistant")
SMALLEST = 1e-3  # gap at the start, where two thresholds of the data are the same


def spacings(structure: str, L: int) -> np.ndarray:
    """A, (L, r)."""
    if structure == "equidistant":
        return (np.arange(L) - (L - 1) / 2)[:, None]
    if structure == "flexible":
        middle = (L - 1) // 2
        A = np.zeros((L, max(L - 1, 0)))
        for j in range(L):
            A[j, middle:j] = 1.0
            A[j, j:middle] = -1.0
        return A
    r = L // 2
    A = np.zeros((L, r))
    for k in range(r):  # the k-th outward from the middle, on both sides
        A[L - r + k, : k + 1] = 1.0
        A[r - 1 - k, : k + 1] = -1.0
    return A


def has_location(structure: str) -> bool:
    """Whether there is a c."""
    return structure != "symmetric2"


def reported(structure: str, L: int) -> np.ndarray:
    """B, (parameters, 1 + r): what users see, of (c, d); without c, (parameters, r)."""
    A = np.column_stack([np.ones(L), spacings(structure, L)])
    if structure == "flexible":
        return A
    if structure == "equidistant":
        return np.array([A[0], [0.0, 1.0]])
    r = L // 2
    if structure == "symmetric2":
        return A[L - r :, 1:]
    # the lower of the two middle ones, then the upper; distances from these
    if L % 2:
        return np.vstack([A[r], A[r + 1 :] - A[r]])
    return np.vstack([A[r - 1], A[r], A[r + 1 :] - A[r]])


def parameter_names(structure: str, labels: Sequence[Any]) -> tuple[str, ...]:
    """Names of what ``reported`` makes."""
    L = len(labels) - 1
    r = L // 2
    if structure == "flexible":
        return names(labels)
    if structure == "equidistant":
        return ("threshold.1", "spacing")
    if structure == "symmetric2":
        return tuple(f"spacing.{k + 1}" for k in range(r))
    if L % 2:
        return ("central", *(f"spacing.{k + 1}" for k in range(r)))
    return ("central.1", "central.2", *(f"spacing.{k + 1}" for k in range(r - 1)))


def scales(structure: str, L: int) -> tuple[Scale, ...]:
    """Of each of what ``reported`` makes: thresholds are any numbers."""
    if structure == "flexible":
        return (PLAIN,) * L
    if structure == "equidistant":
        return (PLAIN, LOG)
    r = L // 2
    if structure == "symmetric2":
        return (LOG,) * r
    return (PLAIN, *(LOG,) * r) if L % 2 else (PLAIN, PLAIN, *(LOG,) * (r - 1))


def rising(structure: str, L: int) -> tuple[tuple[int, ...], ...]:
    """Positions in ``reported`` whose values rise from one to the next."""
    if structure == "flexible":
        return (tuple(range(L)),)
    r = L // 2
    if structure == "symmetric2":
        return (tuple(range(r)),)
    if structure == "equidistant":
        return ()
    return (tuple(range(1, r + 1)),) if L % 2 else ((0, 1), tuple(range(2, r + 1)))


def names(labels: Sequence[Any]) -> tuple[str, ...]:
    """``1|2``, ``2|3``, ... of the categories."""
    return tuple(f"{a}|{b}" for a, b in itertools.pairwise(labels))


def check(structure: str, K: int) -> None:
    """Whether a structure says anything of so many categories."""
    least = {"flexible": 2, "symmetric2": 3}.get(structure, 3)
    if least > K:
        raise ModelError(
            f"thresholds={structure!r} needs at least {least} categories; the response "
            f"has {K}. Use thresholds='flexible'"
        )


def fitted_to(structure: str, theta: np.ndarray) -> tuple[Any, np.ndarray]:
    """c (...) and log d (r, ...) next to given thresholds (L, ...)."""
    L = len(theta)
    A = spacings(structure, L)
    if structure == "flexible":
        gaps = np.diff(theta, axis=0)
        return theta[(L - 1) // 2], np.log(np.maximum(gaps, SMALLEST))
    columns = np.column_stack([np.ones(L), A]) if has_location(structure) else A
    wide = theta.reshape(L, -1)
    found = np.linalg.lstsq(columns, wide, rcond=None)[0]
    found = found.reshape(len(found), *theta.shape[1:])
    c = found[0] if has_location(structure) else np.float64(0.0)
    return c, np.log(np.maximum(found[len(found) - A.shape[1] :], SMALLEST))


def from_reported(structure: str, L: int) -> np.ndarray:
    """(L, parameters) thresholds of what ``reported`` makes."""
    if structure == "flexible":
        return np.eye(L)
    A = spacings(structure, L)
    whole = np.column_stack([np.ones(L), A]) if has_location(structure) else A
    return np.linalg.solve(reported(structure, L).T, whole.T).T


def of_reported(structure: str, L: int, values: np.ndarray) -> np.ndarray:
    """(..., L) thresholds from what ``reported`` makes (..., parameters)."""
    if structure == "flexible":
        return np.asarray(values, float)
    return np.asarray(values, float) @ from_reported(structure, L).T
