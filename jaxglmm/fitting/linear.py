"""Engine: the compiled side of one design, and the way back to the user's coordinates.

Holds the cross-products on the host and on the device; fits them, again for another
response where asked. Nothing in it is needed to read a fit: it is rebuilt from the
design when a saved or pickled fit is asked for more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import refine
from jaxglmm.estimate.base import Fitted
from jaxglmm.estimate.maximise import Maximise, fit_numbers, unpack
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.host import any_at_end, host_lambdas, host_theta
from jaxglmm.model.linear_problem import Problem
from jaxglmm.runtime import levels
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.factors import Factor, to_user, triangular, with_zeros
from jaxglmm.structure.moments_of_design import Moments

if TYPE_CHECKING:
    from jaxglmm.model.generalised_problem import GeneralisedProblem

SINGULAR = 1e-4  # relative standard deviation (of a scaled column) that counts as zero
TOLERANCE = 1e-8
STEPS = 200
NO_RESIDUAL = refine.NO_RESIDUAL
LARGE = 1e3  # effects beside the residual where a sum without digits means no residual
FAR, VAST = 1.0, 4e3  # likewise, where a search did not end, and where it may
ROUNDING = 1e-5  # of the criterion, at VAST
ONE_SIDED = 0.1  # share of the mean square of effects that is their mean's
SAFETY = 1e-2  # the stop is estimated, so it aims below the tolerance asked for


class Engine:
    """One design and response, ready to be fitted.

    moments: cross-products, on the host; base: the problem on the device, of this
    design and perhaps another response; estimator: how it is fitted; search: the
    compiled search where it is known, of responses and settings.
    """

    def __init__(
        self,
        moments: Moments,
        base: Problem,
        estimator: Maximise,
        search: Callable[[np.ndarray], jax.Array] | None = None,
    ):
        self.moments, self.base, self.estimator = moments, base, estimator
        self._search = search or fit_numbers.bound(estimator, base)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.moments!r}>"

    @property
    def reml(self) -> bool:
        """Whether beta is integrated out."""
        return self.estimator.reml

    @property
    def keep(self) -> np.ndarray | None:
        """Which rows of the design count; None where all do."""
        return self.moments.keep

    def is_singular(self, fitted: Fitted) -> bool:
        """Whether a standard deviation is next to zero, or a correlation to one."""
        return is_singular(self, fitted)

    def estimates(self, design: Design, fitted: Fitted, criterion: float) -> Estimates:
        """Back to the user's coordinates."""
        return estimates(self, design, fitted, criterion)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Grouping factors in internal order."""
        return self.moments.factors

    @property
    def R(self) -> np.ndarray:
        """(p, p): X of the user = X~ R."""
        return self.moments.fixed.R

    @property
    def R_inverse(self) -> np.ndarray:
        """(p, p) R^-1."""
        return self.moments.fixed.R_inverse

    def theta(self, estimates: Estimates) -> np.ndarray:
        """(m,) theta of a fit in the engine's coordinates, from its Lambdas."""
        return internal_lambdas(self.factors, estimates.lam)

    @cached_property
    @double_precision
    def problem(self) -> Problem:
        """The problem on the device, of this response."""
        # by NumPy: each operation of JAX outside a jit is compiled on its own
        new = (
            *assemble.right_sides(self.moments),
            *(np.float64(c) for c in assemble.constants(self.moments)),
        )
        return tree_at(
            lambda p: (p.B, p.RR, p.constant, p.constant_reml),
            self.base,
            levels.placed(new, {self.moments.sizes[0]}),
        )

    @cached_property
    def scales(self) -> np.ndarray:
        """(m,) which thetas are standard deviations."""
        return base.is_scale(self.base.covariances)

    @double_precision
    def fit(
        self,
        tol: float = TOLERANCE,
        max_steps: int = STEPS,
        theta: np.ndarray | None = None,
    ) -> tuple[Fitted, float]:
        """Fit; arrays as NumPy, and the criterion with its constants.

        theta: (m,) where to start, in internal coordinates; by moments where None.
        """
        if theta is None:
            theta = np.full(len(self.base.start), np.nan)
        fitted = self._fit(theta, SAFETY * tol, min(max_steps, refine.FIRST_STEPS))
        end = None
        if fitted.status != _status.CONVERGED:
            end = self._without_residual(fitted)
            fitted = fitted if end is None else end
        sure = fitted.status == _status.CONVERGED and not self._has_mean(fitted)
        if end is None and not sure and fitted.sigma2 > NO_RESIDUAL:
            fitted = self._refined(fitted, SAFETY * tol, max_steps)
        if self._has_known_levels and (np.abs(fitted.theta) > LARGE).any():
            theta = np.clip(fitted.theta, -LARGE, LARGE)
            again = self._fit(theta, SAFETY * tol, min(max_steps, refine.FIRST_STEPS))
            fitted = again if again.sigma2 > NO_RESIDUAL else fitted
        ml, reml = assemble.constants(self.moments)
        return fitted, float(fitted.criterion) + (reml if self.reml else ml)

    def _fit(self, theta: np.ndarray, tol: float, max_steps: int) -> Fitted:
        """The compiled search from ``theta`` (m,), NaN for the start by moments."""
        m = self.moments
        numbers = [*(z.ravel() for z in m.Zy), m.Xy, (m.yy, tol, max_steps), theta]
        flat = self._search(np.concatenate(numbers))
        return unpack(self.base, np.asarray(flat))

    @cached_property
    def _has_known_levels(self) -> bool:
        """Whether effects may explain all rows and leave a likelihood with a maximum.

        Effects with a covariance that is known, one level a row: the likelihood is
        flat where the residual variance goes to zero, and a search that goes on loses
        the digits of it.
        """
        known = covariances.KnownBetweenLevels
        return any(isinstance(c, known) for c in self.base.covariances)

    def _without_residual(self, fitted: Fitted) -> Fitted | None:
        """The end of a search on which the residual variance goes to zero, if it does.

        Effects of a structure, one row each, may say all of the covariance. The
        likelihood is flat then along the way to an infinite ratio of standard
        deviations, on which each step adds a third. What is left to gain at ``VAST``
        is less than what a ratio of that size costs of the criterion's digits.
        """
        own = self.base.covariances
        bent = np.repeat([not c.free for c in own], [c.m for c in own]) & self.scales
        most = np.max(np.abs(fitted.theta), initial=0.0, where=bent)
        if not most > FAR:
            return None
        theta = np.where(bent, fitted.theta * (VAST / most), fitted.theta)
        there = self._fit(theta, ROUNDING, refine.FIRST_STEPS)
        good = there.status == _status.CONVERGED
        good = good and there.criterion <= fitted.criterion + ROUNDING
        return there if good and there.sigma2 > NO_RESIDUAL else None

    def _has_mean(self, fitted: Fitted) -> bool:
        """Whether correlated effects lie to one side of zero.

        The fixed effects lack their mean then, and the curvature by which the compiled
        search judges what is left to gain may be far too large.
        """
        for factor, b in zip(self.factors, fitted.b, strict=True):
            if factor.covariance.pairs and factor.n_levels > 1:
                total, square = np.add.reduce(b, axis=2), np.vecdot(b, b)
                if (total * total > ONE_SIDED * factor.n_levels * square).any():
                    return True
        return False

    def _refined(self, fitted: Fitted, tol: float, max_steps: int) -> Fitted:
        """What the compiled search left undone; see ``estimate.refine``."""
        return refine.finished(
            self.moments,
            self.problem,
            fitted,
            self.reml,
            tol,
            max_steps,
            lambda theta: self._fit(theta, tol, 1),
            tol / SAFETY,
        )

    def for_response(self, y: np.ndarray) -> Engine:
        """The same design with another response (n,), offset taken off."""
        moments = self.moments.respond(y)
        out = Engine(moments, self.base, self.estimator, self._search)
        out.__dict__["scales"] = self.scales  # of the design alone, and known
        return out

    def with_method(self, reml: bool) -> Engine:
        """The same problem by the other criterion."""
        return Engine(self.moments, self.base, Maximise(reml))


@double_precision
def build(design: Design, estimator: Maximise, structure: str | None = None) -> Engine:
    """Design to engine: cross-products, and these on the device."""
    return of_moments(assemble.moments(design, structure), estimator)


@double_precision
def of_moments(moments: Moments, estimator: Maximise) -> Engine:
    """The engine of cross-products, wherever they come from."""
    problem = replace(assemble.problem(moments), mesh=levels.mesh())
    base = levels.placed(problem, {moments.sizes[0]})
    return Engine(moments, base, estimator)


def judged(fitted: Fitted, criterion: float) -> int:
    """The status, which cannot be "converged" where numbers are not finite.

    Effects that are larger than the residual by many orders of magnitude, and numbers
    that are lost in the rounding of what is left, are those of a response that fixed
    and random effects reproduce.
    """
    parts = (criterion, float(fitted.sigma2), *fitted.beta.tolist())
    lost = not all(map(math.isfinite, parts))
    most = float(np.max(np.abs(fitted.theta), initial=0.0))
    if not fitted.sigma2 > NO_RESIDUAL and (not lost or not most < LARGE):
        return _status.NO_RESIDUAL
    return _status.NOT_FINITE if lost else int(fitted.status)


def is_singular(engine: Engine, fitted: Fitted) -> bool:
    """Whether a standard deviation, of internal columns, is next to zero."""
    zero = next_to_zero(fitted.theta, engine.scales)
    return bool(zero) or any_at_end(fitted.theta, engine.base.covariances)


def next_to_zero(theta: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(...,) whether a standard deviation in theta (..., m) counts as zero."""
    return (np.abs(theta[..., scales]) < SINGULAR).any(axis=-1)


def lambdas(
    problem: Problem | GeneralisedProblem, theta: np.ndarray
) -> list[np.ndarray]:
    """Internal Lambda (..., q, q) of every factor from theta (..., m), on the host."""
    return host_lambdas(theta, problem.covariances)


def modes(factor: Factor, internal: np.ndarray) -> np.ndarray:
    """(J, q) effects in the user's coordinates of Z, from (q, 1, J) padded."""
    return internal[:, 0, : factor.n_levels].T @ factor.T_inverse.T


def per_term(
    factors: Sequence[Factor], values: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Cut arrays (..., q) a factor into arrays a term, in the order of the terms."""
    out = {}
    for factor, value in zip(factors, values, strict=True):
        for term, start, stop in factor.spans:
            out[term] = value[..., start:stop]
    return tuple(out[term] for term in sorted(out))


def per_term_square(
    factors: Sequence[Factor], values: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """The same for matrices (..., q, q): their diagonal blocks."""
    out = {}
    for factor, value in zip(factors, values, strict=True):
        for term, start, stop in factor.spans:
            out[term] = value[..., start:stop, start:stop]
    return tuple(out[term] for term in sorted(out))


def estimates(
    engine: Engine, design: Design, fitted: Fitted, criterion: float
) -> Estimates:
    """Back to the user's coordinates: beta, Sigma and b of X, Z and y as given."""
    m = engine.moments
    internal = lambdas(engine.base, fitted.theta)
    lam = per_term_square(
        m.factors, [to_user(x, f) for x, f in zip(internal, m.factors, strict=True)]
    )
    b = [
        m.fixed.scale * modes(factor, x)
        for factor, x in zip(m.factors, fitted.b, strict=True)
    ]
    status = judged(fitted, criterion)
    sigma = float(np.sqrt(max(fitted.sigma2, 0.0))) * m.fixed.scale
    if not np.isfinite(fitted.beta).all():  # lost with X'V^-1X: unknown, not infinite
        beta = np.full_like(fitted.beta, np.nan)
        b = [np.full_like(x, np.nan) for x in b]
    else:
        beta = m.fixed.beta(fitted.beta)
    return Estimates(
        beta=beta,
        vcov=m.fixed.vcov(fitted.LQ, sigma),
        sigma=sigma,
        lam=lam,
        theta=pack(design, lam),
        b=per_term(m.factors, b),
        criterion=criterion,
        reml=engine.reml,
        converged=status == _status.CONVERGED,
        share=float(fitted.sigma2),
        singular=is_singular(engine, fitted),
        status=status,
        n_iter=int(fitted.steps),
        decrement=float(fitted.decrement),
    )


def roots(
    factors: Sequence[Factor], internal: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """(..., q, q) a term, Sigma = x x' in the user's coordinates; not triangular."""
    user = [f.T_inverse @ lam for f, lam in zip(factors, internal, strict=True)]
    return per_term_square(factors, user)


def packed(design: Design, terms: Sequence[np.ndarray]) -> np.ndarray:
    """(D, m) theta of terms from any roots (D, q, q) of their covariances."""
    return pack(design, [triangular(x) for x in terms])


def pack(design: Design, lam: Sequence[np.ndarray]) -> np.ndarray:
    """(..., m) theta of the terms' Lambdas (..., q, q) in the user's coordinates."""
    return host_theta(lam, covariances.of_terms(design.terms))


def internal_lambdas(
    factors: Sequence[Factor],
    terms: Sequence[np.ndarray],
) -> np.ndarray:
    """(m,) internal theta from the terms' Lambdas in the user's coordinates.

    Sigma~ = T Sigma T', whose factor T Lambda is triangular because T is upper
    triangular only up to a rotation: an LQ decomposition takes it off.
    """
    out = []
    for factor in factors:
        lam = np.zeros((factor.q, factor.q))
        for term, start, stop in factor.spans:
            lam[start:stop, start:stop] = terms[term]
        L = np.linalg.qr((factor.T @ lam).T, mode="r").T
        L = with_zeros(L, bool((np.diagonal(lam) == 0).any()))
        out.append(factor.covariance.theta(L))
    return np.concatenate(out) if out else np.zeros(0)
