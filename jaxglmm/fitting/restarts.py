"""A fit that did not converge is tried again, and what is left to gain is measured.

The search on the device has one start and a stand-in for the Hessian. Where that was
not enough it goes on from where it stopped, with what it had learned forgotten, and
from smaller random effects: these hold most trouble, because modes jump or leave the
domain of the link where they are large. The best end counts. Then the exact Hessian
says whether it is a maximum after all, and else what a Newton step would still gain: a
decrement under heavy damping is small anywhere and says nothing. Where standard
deviations are very large the surface has several maxima, and a fit that converged is
compared with others too.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Float
from jaxglmm.estimate import generalised as laplace
from jaxglmm.estimate import hessian as exact
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.fitting.linear import SAFETY
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.covariances.host import host_lambdas, host_theta
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.trees import tree_at

SHRUNK = (1.0, 0.3, 0.05)  # what is left of the random effects at each new start
AROUND = (0.3, 0.7, 1.5)  # and where sds are large, of a fit that converged
WIDE = 5.0  # sd on the scale of the predictor from which that is worth it
CREEPING = 0.03  # sd of a direction that a search without end may do without
ROUNDING = 1e-13  # a pivot of a covariance that is zero, over its trace
FLATTEST = 1e-12  # eigenvalue of the Hessian, at unit diagonal, that counts as zero


class Searched(Protocol):
    """The engine of a generalised model, as far as a new start needs it."""

    base: GeneralisedProblem
    marginal: AbstractMarginal

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of what the search returns."""
        ...

    def pinned(self, psi: np.ndarray) -> np.ndarray:
        """(k,) which parameters lie on the boundary."""
        ...


def rescued(
    engine: Searched, found: GeneralisedFitted, tol: float, max_steps: int
) -> GeneralisedFitted:
    """The best of several starts, with an honest decrement where none converged."""
    best = _of_less_rank(engine, found, tol, max_steps)
    for share in SHRUNK:
        if best.status == _status.CONVERGED:
            break
        if not np.isfinite(best.psi).all():
            return best
        other = restarted(engine, best, share, tol, max_steps)
        best = other if _better(other, best, tol) else best
    if best.status == _status.CONVERGED or not np.isfinite(best.criterion):
        return best
    return _measured(engine, best, tol)


def steep(engine: Searched, found: GeneralisedFitted) -> bool:
    """Whether random effects are so far apart that Laplace's surface may be rough.

    Then levels are all zeros or all ones, next to flat in their effects, and the
    surface has several maxima (two nested factors of yes-or-no responses: lme4 and
    glmmTMB end at different ones).
    """
    p, m = engine.base.p, engine.base.m
    sd = np.abs(found.psi[p : p + m])
    wide = bool(m) and float(sd.max(initial=0.0)) > WIDE
    return wide and engine.base.family.discrete and not engine.marginal.beyond


def compared(
    engine: Searched, found: GeneralisedFitted, tol: float, max_steps: int
) -> GeneralisedFitted:
    """The best of an end and of those found from smaller and larger random effects."""
    best = found
    for share in AROUND:
        other = restarted(engine, found, share, tol, max_steps)
        good = other.status == _status.CONVERGED and np.isfinite(other.criterion)
        if good and other.criterion < best.criterion - tol:
            best = other
    return best


def _of_less_rank(
    engine: Searched, found: GeneralisedFitted, tol: float, max_steps: int
) -> GeneralisedFitted:
    """From the same place with covariances of less rank, where that is better.

    A covariance that is next to singular, the small direction along none of the
    columns, makes Lambda creep: two of its entries turn about zero, and many steps are
    taken, each shorter than the last. With the direction left out, Lambda has a zero on
    its diagonal, which stays.
    """
    p, own = engine.base.p, engine.base.covariances
    if found.status == _status.CONVERGED or not np.isfinite(found.psi).all():
        return found
    lams = host_lambdas(found.psi[p : p + engine.base.m], own)
    fewer = [_truncated(x) if c.free else x for x, c in zip(lams, own, strict=True)]
    if all(x is y for x, y in zip(lams, fewer, strict=True)):
        return found
    psi = np.array(found.psi)
    psi[p : p + engine.base.m] = host_theta(fewer, own)
    start = tree_at(lambda f: f.psi, found, psi)
    other = restarted(engine, start, 1.0, tol, max_steps)
    return other if _better(other, found, tol) else found


def _truncated(lam: Float[np.ndarray, "q q"]) -> Float[np.ndarray, "q q"]:
    """A root of its covariance without small directions; itself if there are none."""
    from scipy.linalg import lapack  # slow to import

    L, pivot, rank, _ = lapack.dpstrf(lam @ lam.T, tol=CREEPING**2, lower=1)
    q = len(lam)
    if not 0 < rank < q:
        return lam
    rows = np.zeros((q, rank))
    rows[pivot - 1] = np.tril(L)[:, :rank]
    S, out = rows @ rows.T, np.zeros((q, q))
    for j in range(q):
        column = S[j:, j]
        if column[0] > ROUNDING * np.trace(rows @ rows.T):
            out[j:, j] = column / np.sqrt(column[0])
            S = S - np.outer(out[:, j], out[:, j])
    return out


def restarted(
    engine: Searched,
    found: GeneralisedFitted,
    share: float,
    tol: float,
    max_steps: int,
) -> GeneralisedFitted:
    """From an end, with its random effects made smaller or larger; steps in all."""
    p, m = engine.base.p, engine.base.m
    psi = np.array(found.psi)
    psi[p : p + m] *= share
    u = tuple(np.asarray(x) if share == 1.0 else 0 * x for x in found.u)
    numbers = np.array([SAFETY * tol, max_steps])
    flat, eta = laplace.refit_numbers(engine.marginal, engine.base, psi, u, numbers)
    out = laplace.unpack(engine.shapes, np.asarray(flat), np.asarray(eta))
    return tree_at(lambda f: f.steps, out, out.steps + found.steps)


def _better(other: GeneralisedFitted, best: GeneralisedFitted, tol: float) -> bool:
    if not np.isfinite(other.criterion):
        return False
    if not np.isfinite(best.criterion):
        return True
    slack = tol * (other.status == _status.CONVERGED)
    return bool(other.criterion < best.criterion + slack)


def _measured(
    engine: Searched, found: GeneralisedFitted, tol: float
) -> GeneralisedFitted:
    """Converged where a Newton step by the exact Hessian gains less than ``tol``."""
    where = engine.marginal, engine.base, found.psi, found.u
    g, H = np.asarray(exact.slope(*where)), np.asarray(exact.hessian(*where))
    free = ~engine.pinned(found.psi)
    g, H = g[free], H[np.ix_(free, free)]
    if not (np.isfinite(g).all() and np.isfinite(H).all()):
        return found
    unit = np.sqrt(np.maximum(np.abs(np.diagonal(H)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(H / np.outer(unit, unit))
    slope = vectors.T @ (g / unit)
    left = float(np.sum(slope**2 / np.maximum(np.abs(values), FLATTEST)))
    done = left < tol and values.min() > -FLATTEST
    status = np.int64(_status.CONVERGED) if done else found.status
    return tree_at(lambda f: (f.status, f.decrement), found, (status, np.float64(left)))
