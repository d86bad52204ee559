"""Predictors and new data from the draws of a posterior.

Rows go through in pieces, so that draws times rows never exceed what memory holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxglmm.fitting.simulate import asked, draws_new_effects
from jaxglmm.formula.design import Design, NewRows, RandomTerm
from jaxglmm.model import assemble, covariances
from jaxglmm.model.families import AbstractFamily
from jaxglmm.posterior.draws import Posterior
from jaxglmm.posterior.engine import roots_of, spread

AT_ONCE = 5_000_000  # draws times rows in one piece


class RowsToPredict:
    """Rows to predict: X (n, p), offset (n,), terms with codes (-1: a new level).

    Of several linear predictors offset is (K, n) and ``columns`` how many of X's are
    each one's; what is found of them has K in front.
    """

    def __init__(
        self,
        X: np.ndarray,
        offset: np.ndarray | None,
        terms: Any,
        columns: tuple[int, ...] = (),
    ):
        self.X, self.terms = X, terms
        self.columns = columns if len(columns) > 1 else ()
        K = len(self.columns)
        shape = (K, len(X)) if K else (len(X),)
        self.offset = np.zeros(shape) if offset is None else offset

    def pieces(self, S: int) -> Iterator[slice]:
        """Slices of rows."""
        size = max(1, AT_ONCE // (S * max(1, len(self.columns))))
        for start in range(0, len(self.X), size):
            yield slice(start, min(start + size, len(self.X)))

    def fixed(self, beta: np.ndarray, here: slice) -> np.ndarray:
        """(..., m) X beta + offset for beta (..., p); K in front where there are."""
        X, offset = self.X[here], self.offset[..., here]
        if not self.columns:
            return beta @ X.T + offset
        ends = np.cumsum(self.columns)
        own = [slice(end - p, end) for end, p in zip(ends, self.columns, strict=True)]
        parts = [beta[..., k] @ X[:, k].T for k in own]
        return np.stack([x + o for x, o in zip(parts, offset, strict=True)])

    def add(
        self, total: np.ndarray, term: RandomTerm, values: np.ndarray, i: int = 0
    ) -> None:
        """Add what a term's i-th column adds to the predictor that it belongs to."""
        k = term.predictor
        own = k if isinstance(k, int) else k[i]
        at = total[own] if self.columns else total
        at += values


def own_rows(design: Design) -> RowsToPredict:
    """The rows of a design."""
    return RowsToPredict(design.X, design.offset, design.terms, design.columns)


def rows_of(new: NewRows, design: Design) -> RowsToPredict:
    """New rows of a model that has this design."""
    shape = (len(design.parts), len(new.X)) if design.parts else (len(new.X),)
    offset = np.broadcast_to(np.asarray(new.offset, float), shape)
    return RowsToPredict(new.X, offset, new.terms, design.columns)


def fixed_predictor(
    posterior: Posterior, rows: RowsToPredict, here: slice
) -> np.ndarray:
    """(S, m) X beta + offset."""
    return rows.fixed(posterior.draws.beta, here)


def random_predictor(
    posterior: Posterior,
    rows: RowsToPredict,
    here: slice,
    new: dict[str, np.ndarray],
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """(S, m) Z b; new: label -> (S, q) effects of any level that is new.

    rng: of what effects at places without data have beyond those at others.
    """
    K = (len(rows.columns),) if rows.columns else ()
    total = np.zeros((*K, posterior.n_draws, here.stop - here.start))
    for term in rows.terms:
        b = posterior.by_column(term.label)
        codes, values = term.codes[here], term.values[here]
        for i in range(values.shape[1]):
            own = np.where(codes >= 0, b[:, np.maximum(codes, 0), i], 0.0)
            if (codes < 0).any():
                own = np.where(codes >= 0, own, new[term.label][:, i : i + 1])
            rows.add(total, term, own * values[:, i], i)
        if term.beyond is not None and rng is not None:
            sd = posterior.draws.sd[term.label][:, :1] * np.sqrt(term.beyond[here])
            known = np.where(codes >= 0, sd, 0.0)  # of new levels all of it is new
            rows.add(total, term, known * rng.standard_normal(sd.shape))
    return total


def mean_of(
    family: AbstractFamily, eta: np.ndarray, phi: np.ndarray, type: str = "response"
) -> np.ndarray:
    """What rows are expected to be, by the types of ``predict``.

    Args:
        family: of the fit.
        eta: (S, m) predictors, of several (K, S, m).
        phi: (n_phi, S) or (n_phi,) dispersion parameters.
        type: "response", "link"; of several "conditional", "zprob", "zlink", "disp".
    """
    if type == "link":
        return eta if len(family.predictors) == 1 else eta[0]
    if type == "zlink":
        return eta[1]
    mu = family.parameters(eta)
    if type in ("zprob", "disp"):
        return mu[1 if type == "zprob" else -1]
    find = family.conditional_mean if type == "conditional" else family.mean_of
    return np.asarray(find(mu, phi[..., None]), float)


def probabilities_of(
    family: AbstractFamily, eta: np.ndarray, phi: np.ndarray
) -> np.ndarray:
    """(S, m, categories) from predictors (S, m), of several (K, S, m)."""
    if family.family_kind == "nominal" and len(family.predictors) == 1:
        eta = eta[None]
    across = np.moveaxis(phi, 0, -1)[..., None, :] if len(phi) else np.zeros(0)
    return family.probabilities(eta, across)  # type: ignore[attr-defined]


def new_effects(
    posterior: Posterior, terms: Sequence[RandomTerm], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Label -> (S, q): one level's effects for every draw, from its distribution."""
    out = {}
    for term in terms:
        z = rng.standard_normal((posterior.n_draws, len(term.names), 1))
        out[term.label] = spread(posterior.draws, term, z)[:, :, 0]
    return out


def new_variance(posterior: Posterior, term: RandomTerm, here: slice) -> np.ndarray:
    """(S, m) variance of a term's part of rows with levels that are new."""
    values, draws = term.values[here], posterior.draws
    own = covariances.of(term)
    if not own.pairs:
        return draws.sd[term.label][:, list(own.sharing)] ** 2 @ (values**2).T
    size = max(1, AT_ONCE // (own.q * max(own.q, len(values))))
    parts = [slice(a, a + size) for a in range(0, posterior.n_draws, size)]
    roots = (values @ roots_of(draws, term, part) for part in parts)
    return np.concatenate([np.sum(x**2, axis=2) for x in roots])


def fitted(design: Design, family: AbstractFamily, posterior: Posterior) -> np.ndarray:
    """(n,) posterior means of the rows' means."""
    rows, phi = own_rows(design), family.phi_of(posterior.draws.dispersion)
    out = np.empty(len(rows.X))
    for here in rows.pieces(posterior.n_draws):
        eta = fixed_predictor(posterior, rows, here)
        if design.terms:
            eta = eta + random_predictor(posterior, rows, here, {})
        out[here] = mean_of(family, eta, phi).mean(axis=0)
    return out


def fitted_probabilities(
    design: Design, family: AbstractFamily, posterior: Posterior, random: bool
) -> np.ndarray:
    """(n, categories) posterior means; random: with the random effects."""
    rows, phi = own_rows(design), family.phi_of(posterior.draws.dispersion)
    found = []
    for here in rows.pieces(posterior.n_draws * 8):
        eta = fixed_predictor(posterior, rows, here)
        if design.terms and random:
            eta = eta + random_predictor(posterior, rows, here, {})
        found.append(probabilities_of(family, eta, phi).mean(axis=0))
    return np.concatenate(found)


def population(
    design: Design, family: AbstractFamily, posterior: Posterior, link: bool
) -> np.ndarray:
    """(n,) the same with random effects of zero; link: of the predictors."""
    rows, phi = own_rows(design), family.phi_of(posterior.draws.dispersion)
    out = np.empty(len(rows.X))
    for here in rows.pieces(posterior.n_draws):
        eta = fixed_predictor(posterior, rows, here)
        type = "link" if link else "response"
        out[here] = mean_of(family, eta, phi, type).mean(axis=0)
    return out


def simulate(
    design: Design,
    family: AbstractFamily,
    posterior: Posterior,
    n: int,
    seed,
    re: str | None,
) -> np.ndarray:
    """(n, nobs) data sets, each from one draw; binomial kind: successes."""
    fresh = draws_new_effects(re)
    n, rng = asked(n, seed, design.n)
    rows, S = own_rows(design), posterior.n_draws
    index = rng.integers(0, S, n) if n > S else rng.permutation(S)[:n]
    draws = posterior.draws
    m = assemble.precise(design, family).trials
    trials = 1.0 if m is None else m
    phi = family.phi_of(draws.dispersion)
    out = np.empty((n, len(rows.X)))
    for row, s in zip(out, index, strict=True):
        eta = rows.fixed(draws.beta[s], slice(0, len(rows.X)))
        for term in rows.terms:
            if fresh:
                L = roots_of(draws, term, s)
                b = rng.standard_normal((term.n_levels, len(L))) @ L.T
            else:
                b = posterior.by_column(term.label)[s]
            for i in range(b.shape[1]):
                rows.add(eta, term, term.values[:, i] * b[term.codes, i], i)
        mu = np.asarray(family.parameters(eta), float)
        row[:] = family.simulate(rng, mu, phi[..., s] if len(phi) else phi, trials)
    return out
