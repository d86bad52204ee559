"""Leave-one-out by Pareto-smoothed importance sampling: rows, or whole groups.

Of rows given the random effects this is what ``az.loo`` does; where a random effect has
few rows its k-hats are bad, because leaving the row out moves the effect. Whole groups
need no such thing: log p(y_g | parameters) with the group's effects integrated out is
known at every draw, and leaving a group out moves the parameters little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.integrate.marginals import integrator
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.posterior.predictive import own_rows
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import filter_jit

AT_ONCE = 5_000_000
BAD = 0.7


@dataclass(frozen=True)
class Loo:
    """elpd: expected log predictive density; se; p: effective number of parameters.

    pointwise, khat: one a unit, a row or a group; rows of weight zero are none.
    """

    by: str
    elpd: float
    se: float
    p: float
    pointwise: np.ndarray
    khat: np.ndarray

    def __str__(self) -> str:
        bad = int(np.sum(self.khat > BAD))
        text = (
            f"Leave one {'row' if self.by == 'row' else self.by} out: "
            f"elpd {self.elpd:.2f} (se {self.se:.2f}), p {self.p:.2f}, "
            f"{len(self.khat)} units, largest k-hat {self.khat.max():.2f}"
        )
        if bad:
            text += f"\n{bad} k-hats above {BAD}: the estimate cannot be relied on"
            if self.by == "row":
                text += "; leave out whole groups instead, by='<factor>'"
        return text

    def __repr__(self) -> str:
        return str(self)


def loo(fit: FittedPosterior, by: str) -> Loo:
    """PSIS-LOO of rows or groups."""
    check_by(fit, by)
    if by == "row":
        logs = row_log_likelihood(fit, np.arange(fit.posterior.n_draws))
        logs = logs[:, fit.design.counted]
    else:
        logs = group_log_likelihood(fit, by)[:, _with_rows(fit, by)]
    units = logs.shape[1]
    pointwise, khat = np.empty(units), np.empty(units)
    for i in range(units):
        smoothed = pareto.smooth(-logs[:, i])
        khat[i] = smoothed.khat
        top = logs[:, i].max()
        terms = smoothed.weights * np.exp(logs[:, i] - top)
        pointwise[i] = top + np.log(terms.sum())
    top = logs.max(axis=0)
    lpd = top + np.log(np.exp(logs - top).mean(axis=0))
    elpd = float(pointwise.sum())
    se = float(np.sqrt(units * pointwise.var()))
    return Loo(by, elpd, se, float(lpd.sum() - elpd), pointwise, khat)


def check_by(fit: FittedPosterior, by: str, name: str = "by") -> None:
    """Refuse units that are neither rows nor the levels of a factor."""
    factors = {term.factor for term in fit.design.terms}
    if not _arguments.is_among(by, {"row", *factors}):
        raise NotApplicableError(
            f"{name}={_arguments.shown(by)} is not 'row' or a grouping factor of the "
            f"model ({', '.join(sorted(factors))})"
        )


def _with_rows(fit: FittedPosterior, by: str) -> np.ndarray:
    """Positions of the levels that have rows that count."""
    term = next(term for term in fit.design.terms if term.factor == by)
    return np.unique(term.codes[fit.design.counted])


def predictors(fit: FittedPosterior, draws: np.ndarray) -> np.ndarray:
    """(m, n) linear predictors of the draws at positions (m,), of several (K, m, n)."""
    rows = own_rows(fit.design)
    eta = rows.fixed(fit.posterior.draws.beta[draws], slice(0, len(rows.X)))
    for term in rows.terms:
        b = fit.posterior.by_column(term.label)[draws]
        for i in range(b.shape[2]):
            rows.add(eta, term, b[:, term.codes, i] * term.values[:, i], i)
    return eta


def dispersion(fit: FittedPosterior) -> np.ndarray:
    """(S, n_phi) dispersion parameters on the family's scales."""
    named = fit.posterior.draws.dispersion
    if not named:
        return np.zeros((fit.posterior.n_draws, 0))
    return fit.family.phi_of(named).T


def blocks(draws: np.ndarray, n: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Draws in pieces of one size, so many that n rows of each fit into memory.

    The last piece is filled up with draws of the first; the slice says where the
    others belong.
    """
    size = min(len(draws), max(1, AT_ONCE // max(n, 1)))
    for start in range(0, len(draws), size):
        here = draws[start : start + size]
        fill = draws[: size - len(here)]
        yield slice(start, start + len(here)), np.concatenate([here, fill])


def row_log_likelihood(fit: FittedPosterior, draws: np.ndarray) -> np.ndarray:
    """(draws, n) log p(y_i | parameters, random effects), with prior weights."""
    d = assemble.precise(fit.design, fit.family)
    out = np.empty((len(draws), d.n))
    phi = dispersion(fit)
    for where, here in blocks(draws, d.n):
        eta = predictors(fit, here)
        logs = _log_densities(fit.family, d.y, eta, phi[here], d.trials)
        out[where] = logs[: where.stop - where.start]
    if d.weights is not None:
        here = d.weights > 0  # of others the density may be -inf
        out = np.multiply(out, d.weights, where=here, out=np.zeros_like(out))
    return out


@double_precision
def _log_densities(
    family: AbstractFamily,
    y: np.ndarray,
    eta: np.ndarray,
    phi: np.ndarray,
    trials: np.ndarray | None,
) -> np.ndarray:
    """(m, n) for predictors (m, n), dispersions (m, r)."""
    return np.asarray(_evaluate(family, y, eta, phi, 1.0 if trials is None else trials))


@filter_jit
def _evaluate(family: AbstractFamily, y: Any, eta: Any, phi: Any, trials: Any) -> Any:
    own = 0 if len(family.predictors) == 1 else 1  # the axis of the draws
    each = jax.vmap(lambda e, f: family.log_density(y, e, f, trials), (own, 0))
    return each(eta, phi)


def group_log_likelihood(fit: FittedPosterior, by: str) -> np.ndarray:
    """(S, J) log p(y_g | parameters), the group's random effects integrated out."""
    from jaxglmm.integrate import curve_lanes as lanes
    from jaxglmm.posterior.evaluate import evaluate
    from jaxglmm.posterior.mode import find_mode

    engine = fit.density
    factors = {term.factor for term in fit.design.terms}
    if len(factors) > 1 or not lanes.suits(engine.posterior.problem):
        raise NotApplicableError(
            "groups are left out where there is one grouping factor with at most "
            "three columns: with others their random effects hang together. Use "
            "by='row'"
        )

    @double_precision
    def run() -> np.ndarray:
        _, mode = find_mode(engine, fit.bayes)
        # what each level adds is known of rows, not of cross-products
        marginal = integrator(nodes=fit.posterior.facts.get("nodes", 1))
        x = fit.posterior.draws.x
        found = evaluate(engine, marginal, mode, x, 0, steps=2, keep=False)
        return found.levels[:, : engine.factors[0].n_levels]

    return run()
