"""The numbers of a residual structure in the user's terms, and what rows make of them.

One name a number, as everywhere: ``sigma`` or ``sd_VIS1|Residual``, and
``rho|Residual``, ``cor_VIS2.VIS1|Residual``, ``range|Residual``; with groups the label
is ``Residual.PBO``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import predictor
from jaxglmm.fitting.block_rows import (
    block_rows,
    correlation_of,
    n_scales,
    precisions,
)
from jaxglmm.fitting.components import TermCovariance, VarCorr
from jaxglmm.fitting.residual_coordinates import (
    ResidualParameter,
    group_labels,
    parameters_of,
)
from jaxglmm.fitting.simulate import asked, draws_new_effects
from jaxglmm.formula.design import Design
from jaxglmm.formula.levels import text_of
from jaxglmm.formula.residual_rows import new_places
from jaxglmm.formula.tables import as_table
from jaxglmm.model.residuals import Pairs
from jaxglmm.runtime.host import on_host

MOST_VISITS = 60  # up to which there are tables of them


def parameters(fit: Any) -> list[ResidualParameter]:
    """All of them, group by group: standard deviations, correlations, then others."""
    phi = fit.estimates.phi
    return parameters_of(fit.design, phi, len(phi) + len(fit.estimates.theta))


def table(fit: Any, level: float) -> pd.DataFrame:
    """estimate, std_error, lower, upper, one row a parameter."""
    from scipy import special

    from jaxglmm.fitting.degrees_of_freedom_blocks import parameter_covariance

    found = parameters(fit)
    A = parameter_covariance(fit)
    z = special.ndtri((1 + level) / 2)
    rows = {}
    for each in found:
        se = float(np.sqrt(max(each.slope @ A @ each.slope, 0.0))) or np.nan
        se = np.nan if each.label in fit.design.fixed else se
        rows[each.label] = (each.value, se, *_limits(each, z * se))
    columns = ["estimate", "std_error", "lower", "upper"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _limits(each: ResidualParameter, half: float) -> tuple[float, float]:
    x = each.value
    if each.kind in ("sd", "range"):
        factor = np.exp(half / x)
        return x / factor, x * factor
    if each.kind == "cor" and abs(x) < 1:
        middle, half = np.arctanh(x), half / (1 - x * x)
        return float(np.tanh(middle - half)), float(np.tanh(middle + half))
    return x - half, x + half


def covariance_of_visits(fit: Any) -> VarCorr:
    """By group, where rows have visits and nothing else says their variances."""
    term = fit.design.residual
    out: dict[str, TermCovariance] = {}
    T = len(term.visits)
    visits = term.structure and term.known is None
    if visits and T <= MOST_VISITS and not term.scale_names:
        s = n_scales(fit.design)
        each = len(fit.estimates.phi) // len(term.group_levels)
        correlation = correlation_of(fit.design)
        assert correlation is not None
        times = np.zeros((T, term.times.shape[1]))
        times[term.position] = term.times
        apart = times[:, None] - times[None]
        lag = np.sqrt(np.sum(apart * apart, axis=-1))[None]
        names = [text_of(v) for v in term.visits]
        for g, label in enumerate(group_labels(fit.design)):
            own = fit.estimates.phi[g * each : (g + 1) * each]
            with on_host():
                R = correlation.tables(own[s:], Pairs(np.arange(T)[None], lag))[0][0]
            scale = np.exp(own[:s])
            cov = np.asarray(R) * np.outer(scale, scale)
            if s == 1:
                cov = np.asarray(R) * scale[0] ** 2
            sd = np.sqrt(np.diagonal(cov))
            corr = cov / np.outer(sd, sd)
            out[label] = TermCovariance(
                factor=term.subject,
                sd=pd.Series(sd, index=names, name="sd"),
                corr=pd.DataFrame(corr, index=names, columns=names),
                cov=pd.DataFrame(cov, index=names, columns=names),
            )
    return VarCorr(out, None)


def _covariances(fit: Any, with_effects: bool):
    """Of every stack: the arrangement and V (K, T, T) of its patterns, user's units."""
    engine = fit.engine
    problem, theta = engine.by_rows, engine.theta(fit.estimates)
    if not with_effects:
        theta = np.concatenate(
            [theta[: problem.n_residual], np.zeros(len(theta) - problem.n_residual)]
        )
    with on_host():
        for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
            V = np.asarray(problem.tables(theta, stack)[0])[stack.template]
            both = a.mask[:, :, None] * a.mask[:, None, :]
            pad = np.eye(a.mask.shape[1]) * (1 - a.mask)[:, None]
            yield a, engine.fixed.scale**2 * V * both, pad


def residuals_of(fit: Any, type: str) -> np.ndarray:
    """(n,) residuals of a type; rows of weight zero have response residuals alone."""
    kinds = ("response", "pearson", "scaled", "normalized", "normalised")
    if not _arguments.is_among(type, kinds):
        raise NotApplicableError(
            f"resid(type={_arguments.shown(type)}): a model of correlated residuals "
            "has 'response', 'pearson', 'scaled' and 'normalized' residuals"
        )
    residuals = fit.residuals
    if type == "response":
        return residuals
    if fit.design.residual.is_silent:
        raise NotApplicableError(
            f"resid(type={_arguments.shown(type)}): there is no residual in this model "
            "(dispersion='~ 0'), whose effects reproduce every row. "
            "simulated_residuals() compares the rows with draws from the fit"
        )
    engine = fit.engine
    rooted = (residuals[engine.keep] * engine.root)[:, None]
    out = np.full(fit.design.n, np.nan)
    for a, V, pad in _covariances(fit, with_effects=False):
        rows = a.padded(rooted)
        if type.startswith("normal"):
            scaled = _decorrelated(a, V + pad, rows)
        else:
            sd = np.sqrt(np.diagonal(V + pad, axis1=1, axis2=2))
            scaled = rows / sd[a.pattern][..., None]
        out[engine.keep[a.at]] = scaled[a.block, a.slot, 0]
    return out


def _decorrelated(a: Any, V: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """L^-1 of the rows of each block, in the order in which they stand in the data."""
    number = np.full(rows.shape[:2], np.inf)
    number[a.block, a.slot] = a.at
    order = np.argsort(number, axis=1, kind="stable")
    blocks = np.arange(len(rows))[:, None]
    mine = V[a.pattern][blocks[..., None], order[:, :, None], order[:, None, :]]
    out = np.empty_like(rows)
    out[blocks, order] = np.linalg.solve(np.linalg.cholesky(mine), rows[blocks, order])
    return out


def drawn(fit: Any, n: int, seed: Any, re: str | None) -> np.ndarray:
    """(n, nobs) new responses: X beta (+ Z b) + correlated residuals."""
    design, new = fit.design, draws_new_effects(re)
    n, rng = asked(n, seed, design.n)
    eta = predictor.fixed_part(design.X, fit.estimates.beta, design.offset)
    if not new:
        eta = eta + predictor.random_part(design.terms, fit.estimates.b)
    engine = fit.engine
    out = np.tile(eta, (n, 1))
    for a, V, pad in _covariances(fit, with_effects=new):
        L = np.linalg.cholesky(V + pad)[a.pattern]
        rows = engine.keep[a.at]
        for each in out:
            z = rng.standard_normal((*L.shape[:2], 1))
            each[rows] += (L @ z)[a.block, a.slot, 0] / engine.root[a.at]
    return out


def row_variances(fit: Any, newdata: Any = None) -> np.ndarray:
    """(n,) variance of each row's residual, or (n_new,) of new rows, of weight one.

    Raises:
        DataError: new rows lack a column of the structure, or have a visit or a level
            of it that the fit had not.
    """
    design = fit.design
    rows = block_rows(design)
    group, position, scales = rows.group, rows.position, rows.scales
    known = precisions(design)
    if newdata is not None and design.residual.part is not None:
        scales, known = _new_dispersion(design.residual.part, newdata)
        position = group = np.zeros(len(scales), int)
    elif newdata is not None:
        group, position, extra = new_places(design.residual, newdata)
        s = n_scales(design)
        visits = np.eye(s)[position if s > 1 else np.zeros(len(position), int)]
        scales = np.concatenate([visits, extra], axis=1)
    each = len(fit.estimates.phi) // rows.n_groups
    own = fit.estimates.phi.reshape(rows.n_groups, each)[group, : scales.shape[1]]
    variance = np.exp(2 * np.sum(scales * own, axis=1))
    if design.residual.structure == "us":  # U beside the scales
        correlation, k = correlation_of(design), rows.scales.shape[1]
        assert correlation is not None
        pairs = Pairs(np.arange(correlation.size)[None], None)  # type: ignore
        with on_host():
            U = [
                correlation.tables(t, pairs)[0][0]
                for t in fit.estimates.phi.reshape(rows.n_groups, each)[:, k:]
            ]
        variance = variance * np.array(U)[group, position, position]
    if design.residual.is_silent:
        variance = 0.0 * variance
    if newdata is not None and design.residual.part is None:
        return variance
    return variance if known is None else variance / known


def _new_dispersion(part: Design, newdata: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Columns of a dispersion formula and precisions by its offset, of new rows."""
    if part.recipe is None:
        if part.p:
            raise NotApplicableError(
                "the dispersion of new rows: the formula of this fit is not known any "
                "more; predict for the rows of the fit"
            )
        return np.zeros((as_table(newdata).n, 0)), None
    new = part.recipe.new_rows(newdata, random=False)
    known = None if part.offset is None else np.exp(-2 * np.asarray(new.offset))
    return new.X, known
