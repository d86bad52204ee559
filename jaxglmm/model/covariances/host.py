"""All covariances of a problem at once, on the host: theta and matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxglmm._typing import Float
from jaxglmm.model.covariances.base import AbstractCovariance


def host_lambdas(
    theta: Float[np.ndarray, "*D m"], covariances: Sequence[AbstractCovariance]
) -> list[Float[np.ndarray, "*D q q"]]:
    """One Lambda a factor (or a term), on the host."""
    out, at = [], 0
    for c in covariances:
        out.append(c.matrix(theta[..., at : at + c.m]))
        at += c.m
    return out


def host_theta(
    lams: Sequence[Float[np.ndarray, "*D q q"]],
    covariances: Sequence[AbstractCovariance],
) -> Float[np.ndarray, "*D m"]:
    """theta of triangles, one a factor (or a term)."""
    parts = [c.theta(x) for x, c in zip(lams, covariances, strict=True)]
    return np.concatenate(parts, axis=-1) if parts else np.zeros(0)


def host_curves(
    theta: Float[np.ndarray, " m"],
    covariances: Sequence[AbstractCovariance],
    sigma2: float,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    """Of each factor the first and the second derivatives of sigma^2 Sigma."""
    found, at = [], 0
    for c in covariances:
        found.append(c.curves(theta[at : at + c.m], sigma2))
        at += c.m
    return tuple(E for E, _ in found), tuple(bend for _, bend in found)


def any_at_end(
    theta: Float[np.ndarray, " m"], covariances: Sequence[AbstractCovariance]
) -> bool:
    """Whether a correlation of a structure is at an end of its range."""
    at = 0
    for c in covariances:
        if c.at_end(theta[at : at + c.m]):
            return True
        at += c.m
    return False
