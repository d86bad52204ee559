"""Ways to fit: the engine of ``jg.lmm``, and a Newton method for everything held fixed.

The common case is ``estimate.maximise``, compiled whole. What it does not know
(parameters held at a value, components of several columns with one variance, a start of
one's own) is fitted here by the same steps with the loop on the host: score and average
information over the elements of the covariance, by the chain rule in coordinates that
hold what is to be held. EM steps (monotone, after Liu and Rubin's ECME 1994) stand
beside it.

The criterion is not ``integrate.exact``'s: the residual variance is a coordinate, since
a variance that is held at a value is a ratio that changes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.compat.statsmodels.mixedlm.coordinates import Coordinates, column_sizes
from jaxglmm.compat.statsmodels.mixedlm.evaluate import LOG_2PI, Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.estimate import information
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.formula.design import Design
from jaxglmm.numerics.newton import minimise_on_host
from jaxglmm.results.fit import Fit
from jaxglmm.runtime.precision import double_precision

INDIFFERENT = 1e-8  # of the criterion, relative to its size


@dataclass(frozen=True)
class CovarianceFound:
    """Relative covariances and how they were found.

    fit: the ``jg.Fit`` where the engine of ``jg.lmm`` made it; beta: fixed effects that
    are not those of generalised least squares (a penalised fit).
    """

    cov_re: np.ndarray
    vcomp: np.ndarray
    status: int
    steps: int
    decrement: float
    history: list = field(default_factory=list)
    fit: Fit | None = None
    beta: np.ndarray | None = None
    scale: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the optimiser met its test."""
        return self.status == _status.CONVERGED

    @property
    def message(self) -> str:
        """How the search ended."""
        return _status.message(self.status, steps=self.steps, decrement=self.decrement)


@double_precision
def by_engine(
    ev: Evaluator, design: Design, reml: bool, tol: float, max_steps: int
) -> CovarianceFound:
    """The fit of ``jg.lmm``; ``design`` may have independent random effects."""
    if design is ev.design:
        engine = ev.engine.with_method(reml)
    else:
        engine = _engine.build(design, Maximise(reml))
    fitted, criterion = engine.fit(tol, max_steps)
    found = _engine.estimates(engine, design, fitted, criterion)
    cov_re, vcomp = np.zeros((ev.k_re, ev.k_re)), np.zeros(ev.k_vc)
    for lam, owner in zip(found.lam, ev.where.owner, strict=True):
        if owner < 0:
            cov_re = lam @ lam.T
        else:
            vcomp[owner] = lam[0, 0] ** 2
    numbers = {"evaluations": found.n_iter, "decrement": found.decrement, "tol": tol}
    fit = Fit(design, found, engine, {**numbers, "max_iter": max_steps})
    return CovarianceFound(
        cov_re, vcomp, found.status, found.n_iter, found.decrement, [], fit
    )


# Newton's method on the host ---------------------------------------------------------


@dataclass(frozen=True)
class LocalDerivatives:
    """The criterion and its derivatives over the elements of the covariance.

    natural, tv (m,): gradient, and the part of it that is quadratic in the residuals;
    info (m, m); r2, s2: sum of squares and residual variance.
    """

    value: float
    natural: np.ndarray
    tv: np.ndarray
    info: np.ndarray
    r2: float
    s2: float


def _local(
    ev: Evaluator, coordinates: Coordinates, x: np.ndarray, reml: bool
) -> LocalDerivatives | None:
    """At x, whose last entry is log residual variance; None off the space."""
    here = coordinates.point(x[:-1], x[-1])
    if here is None:
        return None
    at, p = ev.slopes(*here), ev.p
    N = ev.n - p if reml else ev.n
    C = at.K[:p, :p]
    v = np.append(-np.linalg.solve(C, at.K[:p, p]), 1.0)
    r2, s2 = v @ at.K @ v, np.exp(x[-1])
    value = at.log_det + N * (LOG_2PI + x[-1]) + r2 / s2
    tv = np.einsum("i,aij,j->a", v, at.P, v) / s2
    natural = at.trace - tv
    if reml and p:
        value += np.linalg.slogdet(C)[1]
        inverse = np.linalg.inv(C)
        natural = natural - np.einsum("ij,aji->a", inverse, at.P[:, :p, :p])
    return LocalDerivatives(value, natural, tv, at.info / s2, r2, s2)


def _criterion(ev: Evaluator, coordinates: Coordinates, reml: bool):
    """x -> (d, gradient, curvature, scale); the last of x is log residual variance."""
    N = ev.n - ev.p if reml else ev.n
    triangle = ev.triangle

    def evaluate(x: np.ndarray):
        at = _local(ev, coordinates, x, reml)
        if at is None:
            return None
        J = coordinates.jacobian(x[:-1], x[-1])
        gradient = J.T @ at.natural
        gradient[-1] += N - at.r2 / at.s2
        H = J.T @ at.info @ J
        cross = J.T @ at.tv
        H[-1] += cross
        H[:, -1] += cross
        H[-1, -1] += at.r2 / at.s2
        D = 1 + np.diagonal(H)
        G = _as_matrix(at.natural, ev.k_re, triangle)
        H[:-1, :-1] += coordinates.curvature(G, at.natural[len(triangle) :])
        return at.value, gradient, H, D

    return evaluate


def _as_matrix(natural: np.ndarray, k: int, triangle) -> np.ndarray:
    """G (k, k) with d = tr(G dcov) from the derivatives by the triangle."""
    G = np.zeros((k, k))
    for g, (i, j) in zip(natural, triangle, strict=False):
        G[i, j] = G[j, i] = g if i == j else g / 2
    return G


def _off_zero(ev: Evaluator, coordinates: Coordinates, x: np.ndarray, reml: bool):
    """x with variances off zero where the criterion falls as they rise; None if none.

    Over a root the derivative vanishes at zero, whatever it is over the variance: an
    optimiser that has stepped on zero stays there.
    """
    sizes = column_sizes(ev)
    if not coordinates.near_zero(x[:-1], sizes):
        return None
    at = _local(ev, coordinates, x, reml)
    if at is None:
        return None
    G = _as_matrix(at.natural, ev.k_re, ev.triangle)
    rise = coordinates.rise(x[:-1], G, at.natural[len(ev.triangle) :], sizes)
    if rise is None:
        return None
    share = 1.0
    for _ in range(40):
        trial = np.append(rise(share), x[-1])
        there = _local(ev, coordinates, trial, reml)
        if there is not None and there.value < at.value - 1e-10:
            return trial
        share *= 0.5
    return None


def held(
    ev: Evaluator, coordinates: Coordinates, reml: bool, tol: float, max_steps: int
) -> CovarianceFound:
    """Maximise over the coordinates that are free, from where they stand."""
    evaluate = _criterion(ev, coordinates, reml)
    x = coordinates.start()
    s = _log_scale(ev, coordinates.point(x, 0.0), reml)
    if getattr(coordinates, "pins", None):  # a pinned variance depends on it
        for _ in range(5):
            s = _log_scale(ev, coordinates.point(x, s), reml)
    history: list = []

    def keep(point: np.ndarray, value: float) -> None:
        history.append((point.copy(), -(value + ev.constant(reml)) / 2))

    x = np.append(x, s)
    steps = 0
    for _ in range(2 + len(x)):  # each round takes one more variance off zero
        found = minimise_on_host(evaluate, x, 1e-2 * tol, max_steps, keep)
        x, value, steps = found.x, found.value, steps + found.steps
        lifted = None if steps >= max_steps else _off_zero(ev, coordinates, x, reml)
        if lifted is None:
            break
        x = lifted
    near = np.append(coordinates.zeroed(x[:-1], column_sizes(ev)), x[-1])
    if not np.array_equal(near, x):
        there = evaluate(near)
        if there is not None and there[0] <= value + INDIFFERENT * max(1, abs(value)):
            x = near
    point = coordinates.point(x[:-1], x[-1])
    assert point is not None
    unit = ev.engine.moments.fixed.scale**2
    cov_re, vcomp = point
    scale = float(np.exp(x[-1])) * unit
    return CovarianceFound(
        cov_re, vcomp, found.status, steps, found.decrement, history, scale=scale
    )


def _log_scale(ev: Evaluator, point, reml: bool) -> float:
    if point is None:
        raise ModelError("the start of cov_re is not positive semidefinite")
    _, K, _ = ev.ground(*point)
    unit = ev.engine.moments.fixed.scale**2
    return float(np.log(ev.scale(K, ev.gls(K), reml) / unit))


# EM -----------------------------------------------------------------------------------


@double_precision
def em(
    ev: Evaluator, cov_re: np.ndarray, vcomp: np.ndarray, reml: bool, steps: int
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """ECME steps: covariances by EM, beta and the residual variance by maximising.

    Each step raises the (restricted) likelihood: with S_f the covariance of factor f
    and J its levels, S_f <- sum over levels of (b b' + Cov(b | y)) / J. Returns the
    covariances and the log-likelihood before the first and after each step.
    """
    params = MixedLMParams.from_components(cov_re=cov_re, vcomp=vcomp)
    values = [ev.loglike(params, reml, True)]
    m = ev.engine.moments
    for _ in range(steps):
        _, K, effects = ev.ground(cov_re, vcomp)
        p = ev.p
        C = K[:p, :p]
        v = np.append(-np.linalg.solve(C, K[:p, p]), 1.0)
        N = ev.n - p if reml else ev.n
        s2 = float(v @ K @ v) / N
        around = information.conditional(ev.engine.problem, ev.theta(cov_re, vcomp))
        inverse = np.linalg.inv(C)
        total, levels = np.zeros_like(vcomp), np.zeros_like(vcomp)
        for factor, b, D, k in zip(m.factors, effects, around.D, around.K, strict=True):
            J = factor.n_levels
            mode = np.einsum("icg,c->ig", b[..., :J], v)
            S = mode @ mode.T / s2 + np.asarray(D)[..., :J].sum(-1)
            if reml and p:
                x = np.asarray(k)[..., :J]
                S = S + np.einsum("icg,cd,jdg->ij", x, inverse, x)
            S = factor.T_inverse @ S @ factor.T_inverse.T
            for term, a, z in factor.spans:
                owner = ev.where.owner[term]
                if owner < 0:
                    cov_re = S[a:z, a:z] / J
                else:
                    total[owner] += S[a, a]
                    levels[owner] += J
        vcomp = np.where(levels > 0, total / np.maximum(levels, 1), vcomp)
        params = MixedLMParams.from_components(cov_re=cov_re, vcomp=vcomp)
        values.append(ev.loglike(params, reml, True))
    return cov_re, vcomp, values
