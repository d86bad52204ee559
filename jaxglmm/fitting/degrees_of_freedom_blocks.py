"""Degrees of freedom of the fixed effects where residuals are correlated.

Everything from the exact Hessian of the criterion in the covariance parameters, as in
SAS's PROC MIXED and in the R package mmrm: Satterthwaite's method, and that of Kenward
and Roger (1997), with second derivatives of V in mmrm's parameters or without
("linear", which no choice of parameters changes: SAS's DDFM=KENWARDROGER(FIRSTORDER)).
Between and within: Schluchter and Elashoff (1990).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.degrees_of_freedom import FLAT, KenwardRoger, Satterthwaite
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact_blocks
from jaxglmm.runtime.host import on_host

STILL = 1e-12  # share of the largest information below which there is none


def parameter_covariance(fit: Any) -> np.ndarray:
    """(m, m) of internal theta: 2 H^-1; flat directions count as known."""
    d, engine = fit.curvature, fit.engine
    H, fisher = np.asarray(d.hessian), np.asarray(d.fisher)
    found = engine.chart_at(engine.theta(fit.estimates))
    if found is None:
        return covariance_of(H, fisher)
    chart, f = found  # what is held is known, and the rest moves along it
    J = chart.slopes(f)
    bend = chart.bend(f, np.asarray(d.score))
    return J @ covariance_of(J.T @ H @ J + bend, J.T @ fisher @ J) @ J.T


def covariance_of(H: np.ndarray, fisher: np.ndarray) -> np.ndarray:
    """The same from the Hessian and Fisher's information."""
    if not np.isfinite(H).all():
        return np.full_like(H, np.nan)
    out, size = np.zeros_like(H), np.diagonal(fisher)
    # standard deviations at zero, and correlations at an end, move nothing
    some = np.flatnonzero(size > STILL * size.max(initial=0.0))
    if not len(some):
        return out
    unit = np.sqrt(size[some])
    values, vectors = np.linalg.eigh(H[np.ix_(some, some)] / np.outer(unit, unit))
    keep = values > FLAT * np.abs(values).max()
    half = vectors[:, keep] / np.sqrt(values[keep]) / unit[:, None]
    out[np.ix_(some, some)] = 2 * half @ half.T
    return out


def satterthwaite(fit: Any) -> Satterthwaite:
    """Covariance of theta, and how that of beta moves with it."""
    vcov = np.asarray(fit.estimates.vcov)
    back = _back(fit)
    moved = back @ np.asarray(fit.curvature.F) @ back.T
    return Satterthwaite(parameter_covariance(fit), vcov, np.moveaxis(moved, 0, 2))


def joint_covariance(fit: Any) -> np.ndarray:
    """(p, p) of the fixed effects by the joint curvature in them and theta.

    The inverse of the joint information has Q^-1 and what beta moves by as theta does.
    """
    moved = _back(fit) @ np.asarray(fit.curvature.f).T
    A = parameter_covariance(fit)
    return np.asarray(fit.estimates.vcov) + moved @ A @ moved.T


def _back(fit: Any) -> np.ndarray:
    """(p, r) B with Cov(beta) = B B': s R^-1 L'^-1, nothing for what is held."""
    fixed, free = fit.engine.fixed, ~fit.engine.held
    LQ = np.asarray(fit.curvature.at.LQ)
    out = np.zeros((len(free), int(free.sum())))
    out[free] = fixed.scale * np.linalg.solve(LQ, fixed.R_inverse.T).T
    return out


def kenward_roger(fit: Any, linear: bool) -> KenwardRoger:
    """Phi_A = Phi + 2 Phi {sum W_ab (Q_ab - P_a Phi P_b - R_ab / 4)} Phi."""
    if not fit.reml:
        raise NotApplicableError(
            "Kenward and Roger's method is defined for REML fits; this one is by "
            "maximum likelihood. Fit with reml=True, or use ddf='satterthwaite'"
        )
    W = parameter_covariance(fit)
    F = np.asarray(fit.curvature.F)  # -P_a in the coordinates of L
    inner = _weighted(fit, W, linear) - np.einsum("ab,aij,bjk->ik", W, F, F)
    back = _back(fit)
    U = 2 * back @ inner @ back.T
    vcov = np.asarray(fit.estimates.vcov)
    adjusted = vcov + (U + U.T) / 2
    return KenwardRoger(vcov, adjusted, -back @ F @ back.T, W)


def _weighted(fit: Any, W: np.ndarray, linear: bool) -> np.ndarray:
    """L^-1 {sum W_ab (Q_ab - R_ab / 4)} L'^-1, (p, p).

    Q_ab = X'P dV_a P dV_b P X and R_ab = X'P d2V_ab P X: the sums over a and b come
    before those over rows.
    """
    engine, d = fit.engine, fit.curvature
    problem, theta = engine.problem, engine.theta(fit.estimates)
    p = problem.p
    total = np.zeros((p, p))
    with on_host():
        for stack, part in zip(problem.stacks, d.at.parts, strict=True):
            _, dV = problem.tables(theta, stack)
            P = np.asarray(part.P)
            WdV = np.tensordot(W, dV, axes=1)
            Y = np.zeros_like(P)
            for one, other in zip(dV, WdV, strict=True):
                Y += one[stack.template] @ P @ other[stack.template]
            if not linear:
                Y -= np.asarray(problem.second(theta, stack, W))[stack.template] / 4
            PX = np.asarray(part.PR[..., :p])
            total += np.einsum("ntc,ntd->cd", PX, Y[stack.pattern] @ PX, optimize=True)
        half = np.asarray(exact_blocks.spd.forward(d.at.LQ, total))
        return np.asarray(exact_blocks.spd.forward(d.at.LQ, half.T))


def between_within(design: Design) -> np.ndarray:
    """(p,): subjects, or rows less subjects, less the coefficients of that kind."""
    term = design.residual
    assert term is not None
    here = design.counted
    X, codes = design.X[here], np.unique(term.codes[here], return_inverse=True)[1]
    first = np.zeros((codes.max() + 1, X.shape[1]))
    first[codes] = X
    within = (np.abs(X - first[codes]) > 1e-12 * np.abs(X).max(axis=0)).any(axis=0)
    constant = (X[:1] == X).all(axis=0)
    intercept = int(constant.any())
    between = float(len(first) - (~within).sum() - (1 - intercept) * 0)
    inside = float(len(X) - len(first) - within.sum())
    return np.where(within | constant, inside, between)
