"""Sampling covariances of the estimates, and of the random effects of a group.

From observed information. Packed parameters are relative to the scale; those of the
natural parameterisation follow by the chain rule natural = relative x scale, with the
uncertainty of the scale in it. A variance that is estimated as zero has no standard
error (NaN); one that was held has none either (zero).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import NotApplicableError
from jaxglmm.compat.statsmodels.mixedlm.params import root
from jaxglmm.compat.statsmodels.mixedlm.state import FitState

MOST = 6000  # random effects of one group whose joint covariance is made


def _states(fit: FitState) -> tuple[np.ndarray, np.ndarray]:
    """(k,) held and (k,) at the boundary, over all packed parameters."""
    model, params, held = fit.model, fit.params_object, fit.is_held
    edge = np.zeros(len(held), bool)
    inner = slice(model.k_fe, model.k_fe + model.k_re2)
    own = ~held[inner]
    if model.k_re and own.any():
        half = np.diagonal(root(params.cov_re))
        size = np.sqrt(np.maximum(np.diagonal(params.cov_re), 1e-300))
        if (half <= 1e-7 * size).any() or (np.diagonal(params.cov_re) == 0).any():
            edge[inner] = own
    edge[model.k_fe + model.k_re2 :] = params.vcomp == 0
    edge &= ~held
    if fit.zero is not None:
        edge[: model.k_fe] = fit.zero
    return held, edge


def packed(fit: FitState) -> np.ndarray:
    """(k, k) covariance of the packed parameters."""
    H = _whole(fit, fit.evaluator.hessian(fit.evaluated_at, fit.reml))
    held, edge = _states(fit)
    out = _inverse(-H, held, edge, fit.k_fe)
    if fit.cov_type == "cluster":
        out[: fit.k_fe, : fit.k_fe] = sandwich(fit)
    return out


def _whole(fit: FitState, H: np.ndarray) -> np.ndarray:
    """A Hessian with rows of zeros for held fixed effects."""
    if fit.fixed is None:
        return H
    free = fit.fixed.free
    keep = np.concatenate([free, np.ones(len(H) - free.sum(), bool)])
    out = np.zeros((len(keep), len(keep)))
    out[np.ix_(keep, keep)] = H
    return out


def _inverse(information, held, edge, k_fe: int) -> np.ndarray:
    """Inverse over what is estimated; zero where held, NaN at the boundary."""
    out = np.zeros_like(information)
    out[edge], out[:, edge] = np.nan, np.nan
    ii = np.flatnonzero(~(held | edge))
    block = information[np.ix_(ii, ii)]
    scale = np.sqrt(np.abs(np.diagonal(block)))
    scale[scale == 0] = 1.0
    try:
        np.linalg.cholesky(block / np.outer(scale, scale))
        inverse = np.linalg.inv(block / np.outer(scale, scale)) / np.outer(scale, scale)
    except np.linalg.LinAlgError:  # no maximum in the variances: the means alone
        fe = ii[ii < k_fe]
        inverse = np.full((len(ii), len(ii)), np.nan)
        inverse[: len(fe), : len(fe)] = np.linalg.inv(information[np.ix_(fe, fe)])
    out[np.ix_(ii, ii)] = inverse
    return out


def natural(fit: FitState) -> np.ndarray:
    """(k + 1, k + 1) covariance of (fixed effects, cov_re, vcomp, scale)."""
    ev, scale = fit.evaluator, fit.scale
    H = ev.natural_hessian(fit.evaluated_at, scale, fit.reml)
    H = _whole(fit, H)
    held, edge = _states(fit)
    k, k_fe = len(held), fit.k_fe
    relative = fit.params_object.get_packed(use_sqrt=False, has_fe=True)
    J = np.eye(k + 1)
    inner = np.arange(k_fe, k)
    J[inner, inner] = scale
    pinned = np.array([n in fit.held for n in fit._names], bool)
    J[inner, k] = np.where(pinned[inner], 0.0, relative[inner])
    held, edge = np.append(held, False), np.append(edge, False)
    middle = _inverse(-(J.T @ H @ J), held, edge, k_fe)
    known = np.where(np.isnan(middle), 0.0, middle)
    out = J @ known @ J.T
    gone = np.isnan(np.diagonal(middle))
    out[gone], out[:, gone] = np.nan, np.nan
    return out


def sandwich(fit: FitState) -> np.ndarray:
    """Cluster-robust covariance of the fixed effects, groups the clusters.

    A^-1 (sum of s s') A^-1 with s = X'V^-1(y - X beta) of a group (Liang and
    Zeger 1986), which is X'W of the conditional residuals.
    """
    model = fit.model
    e = (model.endog - fitted_values(fit, modes(fit))) / fit.scale
    if model.weights is not None:
        e = e * model.weights
    scores = np.zeros((model.n_groups, model.k_fe))
    for j in range(model.k_fe):
        scores[:, j] = np.bincount(model._group, model.exog[:, j] * e, model.n_groups)
    H = _whole(fit, fit.evaluator.hessian(fit.evaluated_at, fit.reml))
    held, edge = _states(fit)
    k_fe = fit.k_fe
    bread = _inverse(-H[:k_fe, :k_fe], held[:k_fe], edge[:k_fe], k_fe)
    return bread @ (scores.T @ scores) @ bread


# Random effects -----------------------------------------------------------------------


def modes(fit: FitState) -> list[np.ndarray]:
    """(J, q) conditional modes of every term of the layout, in the user's units."""
    ev = fit.evaluator
    at = fit.evaluated_at
    _, _, effects = ev.ground(at.cov_re, at.vcomp)
    v = ev.direction(at.fe_params)
    m = ev.engine.moments
    out: dict[int, np.ndarray] = {}
    for factor, columns in zip(m.factors, effects, strict=True):
        internal = np.einsum("icg,c->gi", columns[..., : factor.n_levels], v)
        b = m.fixed.scale * internal @ factor.T_inverse.T
        for term, start, stop in factor.spans:
            out[term] = b[:, start:stop]
    return [out[t] for t in range(len(ev.design.terms))]


def component_modes(fit: FitState, b: list[np.ndarray]) -> list[np.ndarray]:
    """(K,) modes of the columns of every component."""
    where = fit.evaluator.where
    out = []
    for k, component in enumerate(fit.model._vc):
        values = np.zeros(len(component.run))
        for t, (owner, run) in enumerate(zip(where.owner, where.run, strict=True)):
            if owner == k:
                mine = component.run == run
                values[mine] = b[t][component.level[mine], 0]
        out.append(values)
    return out


def fitted_values(fit: FitState, b: list[np.ndarray]) -> np.ndarray:
    """(n,) X beta + Z b."""
    out = fit.model.exog @ fit.params_object.fe_params
    for term, own in zip(fit.evaluator.design.terms, b, strict=True):
        out = out + np.einsum("ij,ij->i", term.values, own[term.codes])
    return out


def by_group(fit: FitState, b: list[np.ndarray]) -> dict[Any, pd.Series]:
    """Label -> modes of the group's random effects, then of its components' columns."""
    model = fit.model
    columns = component_modes(fit, b)
    re = b[0] if model.k_re else np.zeros((model.n_groups, 0))
    names = pd.Index(model.data.exog_re_names)
    out = {}
    for i, label in enumerate(model.group_labels):
        index, values = names, re[i]
        if model._vc:
            extra = [f"{c.name}[{s}]" for c in model._vc for s in c.names(i)]
            index = [*names, *extra]
            own = [
                v[list(c.columns(i))] for c, v in zip(model._vc, columns, strict=True)
            ]
            values = np.concatenate([values, *own])
        out[label] = pd.Series(values, index=index)
    return out


def of_groups(fit: FitState, spread: np.ndarray | None) -> dict:
    """Label -> conditional covariance of all random effects of the group, a frame.

    spread: (k_fe, k_fe) covariance of the fixed effects, whose part is added.
    """
    model = fit.model
    widths = sum(np.diff(c.starts) for c in model._vc) + model.k_re
    if np.max(widths) > MOST:
        raise NotApplicableError(
            f"a group has {int(np.max(widths))} random effects: their joint covariance "
            "is too large to make. jg.lmm(...).ranef_cov has it level by level"
        )
    out = {}
    at = fit.evaluated_at
    re = root(at.cov_re)
    for i, label in enumerate(model.group_labels):
        rows = model._rows[i]
        Z, lam, names = group_design(fit, i, rows, re)
        w = None if model.weights is None else model.weights[rows]
        weighted = Z if w is None else Z * w[:, None]
        half = Z @ lam
        M = half.T @ (half if w is None else half * w[:, None]) + np.eye(len(lam))
        inverse = lam @ np.linalg.solve(M, lam.T)
        cov = fit.scale * inverse
        if spread is not None:
            K = inverse @ (weighted.T @ model.exog[rows])
            cov = cov + K @ spread @ K.T
        out[label] = pd.DataFrame((cov + cov.T) / 2, index=names, columns=names)
    return out


def group_design(fit: FitState, i: int, rows: np.ndarray, re: np.ndarray):
    """Z (n_i, q_i), relative root (q_i, q_i) and names of one group's effects."""
    model, vcomp = fit.model, fit.params_object.vcomp
    parts = [] if model.exog_re is None else [model.exog_re[rows]]
    names = list(model.data.exog_re_names)
    sizes = []
    for component, variance in zip(model._vc, vcomp, strict=True):
        parts.append(component.matrix(i, rows))
        names += [f"{component.name}[{s}]" for s in component.names(i)]
        sizes += [np.sqrt(variance)] * parts[-1].shape[1]
    Z = np.concatenate(parts, axis=1)
    lam = np.zeros((Z.shape[1], Z.shape[1]))
    k = len(re)
    lam[:k, :k] = re
    lam[np.arange(k, len(lam)), np.arange(k, len(lam))] = sizes
    return Z, lam, names
