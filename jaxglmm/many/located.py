"""From what lanes find to the parameters that people read, of many fits at once.

An ordinal model's thresholds have their location in the intercept of an X of the
lanes' own (``fitting.ordinal``). A category that a data set does not have is one of
probability zero: between others its two thresholds are one, and beyond all others they
are infinite; the lanes see the lowest category as the first and the highest as the
last, and a gap as good as zero between the thresholds of an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.fitting import ordinal
from jaxglmm.fitting.generalised import inverse_hessian
from jaxglmm.many.columns import ALONE
from jaxglmm.model.families import AbstractFamily, _thresholds


@dataclass(frozen=True)
class Reading:
    """How the dispersion parameters of many fits are read.

    family: the user's; row: (l, p) the location of thresholds from beta of the lanes,
    or None; k: parameters of the lanes.
    """

    family: AbstractFamily
    row: np.ndarray | None
    k: int

    @property
    def core(self) -> AbstractFamily:
        """The family that the lanes see."""
        return ordinal.core(self.family)

    @property
    def location(self) -> ordinal.Location:
        """The dispersion parameters of the user from psi."""
        return ordinal.Location(self.row, self.k, self.core.n_phi)

    def phi(self, psi: np.ndarray) -> np.ndarray:
        """(L, r) dispersion parameters of the user from (k, L)."""
        return self.location.phi(psi.T)

    def natural(self, psi: np.ndarray) -> np.ndarray:
        """(L, r) what is reported of them."""
        return np.asarray(self.family.natural(self.phi(psi).T)).T

    def errors(
        self, psi: np.ndarray, hessian: np.ndarray, pinned: np.ndarray, unsure: Any
    ) -> np.ndarray:
        """(L, r) standard errors of what is reported.

        Args:
            psi: (k, L).
            hessian: (k, k, L) of -2 log-likelihood.
            pinned: (k, L) parameters that are taken as known.
            unsure: (L,) where the Hessian is nearly singular.
        """
        phi, k = self.phi(psi), len(psi)
        if not phi.shape[1]:
            return phi
        J = self.family.natural_jacobian(phi) @ self.location.jacobian
        H = np.moveaxis(hessian, -1, 0).copy()
        held = pinned.T[:, :, None] | pinned.T[:, None, :]
        H = np.where(held, np.eye(k), H)
        bad = ~np.isfinite(H).all(axis=(1, 2)) | (np.asarray(unsure) == 1)
        V = 2 * np.linalg.inv(np.where(bad[:, None, None], np.eye(k), H))
        V = np.where(held, 0.0, V)
        for i in np.flatnonzero(bad):
            V[i] = inverse_hessian(hessian[:, :, i], pinned[:, i], k - len(phi.T))
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.einsum("lri,lij,lrj->lr", J, V, J, optimize=True))


@dataclass(frozen=True)
class Categories:
    """Which categories each of L data sets has, (K, L), and its responses in lanes."""

    count: np.ndarray

    @staticmethod
    def of(y: np.ndarray, used: np.ndarray, K: int) -> Categories:
        """y, used: (n, L), codes and which of them count."""
        rows = [np.sum(used & (y == k), axis=0) for k in range(K)]
        return Categories(np.stack(rows))

    @property
    def lowest(self) -> np.ndarray:
        """(L,) the lowest category that there is."""
        return np.argmax(self.count > 0, axis=0)

    @property
    def highest(self) -> np.ndarray:
        """(L,) the highest."""
        return len(self.count) - 1 - np.argmax(self.count[::-1] > 0, axis=0)

    @property
    def several(self) -> np.ndarray:
        """(L,) whether there are two or more."""
        return np.sum(self.count > 0, axis=0) > 1

    @property
    def empty(self) -> np.ndarray:
        """(L,) whether one of all is missing."""
        return (self.count == 0).any(axis=0)

    def for_lanes(self, y: np.ndarray, lane: Any = slice(None)) -> np.ndarray:
        """Codes (..., L) whose lowest is 0 and whose highest is K - 1.

        lane: whose each of y is, where it is not the last axis.
        """
        lowest, highest = self.lowest[lane], self.highest[lane]
        out = np.where(y == lowest, 0.0, y)
        return np.where(y == highest, float(len(self.count) - 1), out)

    @property
    def in_lanes(self) -> Categories:
        """The counts of ``for_lanes``."""
        count, L = self.count.copy(), np.arange(self.count.shape[1])
        for at, to in ((self.lowest, 0), (self.highest, len(count) - 1)):
            held = count[at, L]
            count[at, L] = 0
            count[to, L] = held
        return Categories(count)

    def thresholds(self, found: np.ndarray) -> np.ndarray:
        """(L, K - 1) thresholds, infinite beyond the categories that there are."""
        j = np.arange(found.shape[1])
        low = np.where(j < self.lowest[:, None], -np.inf, found)
        return np.where(j >= self.highest[:, None], np.inf, low)


def guesses(
    family: Any, y: np.ndarray, count: np.ndarray, lane: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """``family.start`` of (n, L) codes at once: eta (n, L) and phi (r, L).

    count: (K, L) rows of each category; the gap of an empty one is as good as zero.
    lane: (n,) whose each of y (n,) is.
    """
    more = count + 0.5
    share = np.cumsum(more, axis=0) / np.sum(more, axis=0)
    theta = np.asarray(family.link.link(share[:-1]), float)
    middle = share - more / (2 * np.sum(more, axis=0))
    score = np.asarray(family.link.link(middle), float)
    c, spacing = _thresholds.fitted_to(family.thresholds, theta)
    if family.thresholds == "flexible":
        nothing = np.float64(family.phi_range[0])
        spacing = np.where(count[1:-1] > 0, spacing, nothing)
    at = np.clip(y, 0, len(count) - 1).astype(int)
    if lane is not None:
        return score[at, lane] - np.broadcast_to(c, score.shape[1:])[lane], spacing
    return np.take_along_axis(score, at, axis=0) - c, spacing


def of_categories(family: AbstractFamily, seen: Categories) -> np.ndarray:
    """(L,) zero, or why responses of such categories cannot be fitted."""
    status = np.where(seen.several, 0, _status.CONSTANT)
    if not by_gaps(family):  # a fit of its own leaves empty categories out
        status[seen.empty & seen.several] = ALONE
    status[~seen.count.any(axis=0)] = _status.TOO_FEW
    return status


def by_gaps(family: AbstractFamily) -> bool:
    """Whether an empty category is a gap of nothing between two thresholds."""
    structure = getattr(family, "thresholds", None)
    return structure == "flexible" and len(family.predictors) == 1
