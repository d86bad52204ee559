"""Predictors and new data from the draws of a posterior.

Rows go through in pieces, so that draws times rows never exceed what memory holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.simulate import asked, draws_new_effects
from jaxglmm.formula.design import Design, NewRows, RandomTerm
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.posterior.draws import Posterior

AT_ONCE = 5_000_000  # draws times rows in one piece


class RowsToPredict:
    """Rows to predict: X (n, p), offset (n,), terms with codes (-1: a new level)."""

    def __init__(self, X: np.ndarray, offset: np.ndarray | None, terms: Any):
        self.X, self.terms = X, terms
        self.offset = np.zeros(len(X)) if offset is None else offset

    def pieces(self, S: int) -> Iterator[slice]:
        """Slices of rows."""
        size = max(1, AT_ONCE // S)
        for start in range(0, len(self.X), size):
            yield slice(start, min(start + size, len(self.X)))


def of_one_predictor(rows: Design | NewRows) -> None:
    """Refuse rows of several linear predictors."""
    if rows.parts:
        raise NotApplicableError(
            "what a posterior says of rows is for models of one linear predictor. Of "
            "zero inflation and dispersion models it has the draws, their tables and "
            "intervals; predictions come from the fit by maximum likelihood, without "
            "method="
        )


def own_rows(design: Design) -> RowsToPredict:
    """The rows of a design."""
    of_one_predictor(design)
    return RowsToPredict(design.X, design.offset, design.terms)


def fixed_predictor(
    posterior: Posterior, rows: RowsToPredict, here: slice
) -> np.ndarray:
    """(S, m) X beta + offset."""
    return posterior.draws.beta @ rows.X[here].T + rows.offset[here]


def random_predictor(
    posterior: Posterior, rows: RowsToPredict, here: slice, new: dict[str, np.ndarray]
) -> np.ndarray:
    """(S, m) Z b; new: label -> (S, q) effects of any level that is new."""
    total = np.zeros((posterior.n_draws, here.stop - here.start))
    for term in rows.terms:
        b = posterior.effects(term.label)
        codes, values = term.codes[here], term.values[here]
        for i in range(values.shape[1]):
            own = np.where(codes >= 0, b[:, np.maximum(codes, 0), i], 0.0)
            if (codes < 0).any():
                own = np.where(codes >= 0, own, new[term.label][:, i : i + 1])
            total += own * values[:, i]
    return total


def new_effects(
    posterior: Posterior, terms: Sequence[RandomTerm], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Label -> (S, q): one level's effects for every draw, from its distribution."""
    out = {}
    for term in terms:
        L = factors(posterior, term)
        z = rng.standard_normal((len(L), L.shape[1]))
        out[term.label] = np.einsum("sij,sj->si", L, z)
    return out


def factors(posterior: Posterior, term: RandomTerm) -> np.ndarray:
    """(S, q, q) Cholesky factors of the term's covariance."""
    draws = posterior.draws
    sd = draws.sd[term.label]
    if term.label not in draws.corr:
        return sd[:, :, None] * np.eye(sd.shape[1])
    return sd[:, :, None] * np.linalg.cholesky(draws.corr[term.label])


def fitted(design: Design, family: AbstractFamily, posterior: Posterior) -> np.ndarray:
    """(n,) posterior means of the rows' means."""
    rows = own_rows(design)
    out = np.empty(len(rows.X))
    for here in rows.pieces(posterior.n_draws):
        eta = fixed_predictor(posterior, rows, here)
        if design.terms:
            eta = eta + random_predictor(posterior, rows, here, {})
        out[here] = np.asarray(family.mean(eta), float).mean(axis=0)
    return out


def population(
    design: Design, family: AbstractFamily, posterior: Posterior, link: bool
) -> np.ndarray:
    """(n,) the same with random effects of zero; link: of the predictors."""
    rows = own_rows(design)
    out = np.empty(len(rows.X))
    for here in rows.pieces(posterior.n_draws):
        eta = fixed_predictor(posterior, rows, here)
        out[here] = (eta if link else np.asarray(family.mean(eta), float)).mean(axis=0)
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
        eta = rows.X @ draws.beta[s] + rows.offset
        for term in rows.terms:
            if fresh:
                L = factors(posterior, term)[s]
                b = rng.standard_normal((term.n_levels, len(L))) @ L.T
            else:
                b = posterior.effects(term.label)[s]
            eta = eta + np.einsum("iq,iq->i", term.values, b[term.codes])
        mu = np.asarray(family.mean(eta), float)
        row[:] = family.simulate(rng, mu, phi[..., s] if len(phi) else phi, trials)
    return out
