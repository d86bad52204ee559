"""Simulation-based checks of many models: does each one's data look like its draws?

The tests of ``simulated_residuals``, model by model, with the draws and the random ties
of a single fit with the same seed: ``fits.check(n, seed)`` says of data set i what
``fits[i].simulated_residuals(n, seed)`` does. Responses of one linear design share
their normal deviates, so that a draw is a sum of a few arrays that are made once; all
that is left for each model is to sort. (A shared seed means that the Monte Carlo error
of the p-values is shared too: another seed shows its size.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm import _status
from jaxglmm._errors import JaxGLMMError, NotApplicableError
from jaxglmm.fitting import frequencies, predictor, simulate
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.model import covariances
from jaxglmm.model.covariances.host import host_lambdas
from jaxglmm.numerics import multiplicity
from jaxglmm.postestimation.checking import simulated_residuals as simulated
from jaxglmm.postestimation.checking.checks import counts_zeros
from jaxglmm.runtime.executors import executor

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

CHECKS = ("uniformity", "dispersion", "outliers", "zeros")
BLOCK = 16  # models that a thread takes at a time


@dataclass(frozen=True)
class _Parameters:
    """What responses are drawn from; b: random effects of zero, which are not used."""

    beta: np.ndarray
    sigma: float
    lam: list[np.ndarray]
    phi: np.ndarray
    b: list[np.ndarray]


def check(fits: FittedModels, n: int, seed: int, re: str | None) -> pd.DataFrame:
    """See ``Fits.check``."""
    simulated.check_draws(n)
    if simulate.draws_new_effects(re) is False:
        raise NotApplicableError(
            "the modes of the random effects are not kept for many models: use "
            "fits[i].check(re='conditional')"
        )
    if fits.source is None:
        raise NotApplicableError(
            "checks compare draws with the data, and the data of these fits are not at "
            "hand (they were drawn, or came from a file saved without data)"
        )
    family = fits.source.family
    if family is not None and family.family_kind in ("ordinal", "nominal"):
        raise NotApplicableError(
            "checks of many models are of numbers: of categories ask each, "
            "fits[i].check()"
        )
    D = len(fits)
    found = np.full((D, len(CHECKS), 3), np.nan)
    good = np.flatnonzero(fits.status == _status.CONVERGED)
    made = _Made(fits, n, seed)

    def work(rows: np.ndarray) -> None:
        for i in rows:
            found[i] = made.tests(int(i))

    blocks = [good[k : k + BLOCK] for k in range(0, len(good), BLOCK)]
    if blocks:
        work(blocks[0])  # what all models share is made, alone
    with executor() as pool:
        list(pool.map(work, blocks[1:]))
    return _table(fits, found)


class _Made:
    """Tests of one model after the other, and what they share."""

    def __init__(self, fits: FittedModels, n: int, seed: int):
        self.fits, self.n, self.seed = fits, n, seed
        self.family = fits.source.family
        self.deviates: _Deviates | None = None
        self.ties: simulated.Ties | None = None

    def tests(self, i: int) -> np.ndarray:
        """(checks, 3) observed, expected, p-value; NaN where one does not apply."""
        out = np.full((len(CHECKS), 3), np.nan)
        fits = self.fits
        at = i if fits.positions is None else int(fits.positions[i])
        try:
            design: Design = fits.source.design_of(at)
        except JaxGLMMError:
            return out
        if self.family is not None:
            design = frequencies.unfolded(design, self.family)
        if (self.n + 1) * design.n > simulated.KEPT:
            residuals = simulated.simulated_residuals(
                fits.one(i), self.n, self.seed, None
            )
        else:
            found = self._parameters(i, design)
            Y = self._draw(design, found)
            used = np.ones(design.n, bool)
            if design.weights is not None:
                used = design.weights > 0
            residuals = simulated.judged(design.y, Y, used, self._ties(design.n))
        zeros = self.family is not None and counts_zeros(self.family, design)
        for k, name in enumerate(CHECKS[: 3 + zeros]):
            test = getattr(residuals, "zero_share" if name == "zeros" else name)
            out[k] = test.statistic, test.expected, test.p_value
        return out

    def _parameters(self, i: int, design: Design) -> _Parameters:
        fits = self.fits
        at = [fits.coefficient_names.index(name) for name in design.x_names]
        lam = host_lambdas(fits.theta[i], covariances.of_terms(design.terms))
        phi = np.zeros(0)
        if fits.dispersion is not None and self.family is not None:
            phi = self.family.from_natural(fits.dispersion[i])
        sigma = float(fits.sigma[i]) if self.family is None else 1.0
        b = [np.zeros((t.n_levels, len(t.names))) for t in design.terms]
        return _Parameters(fits.coefficients[i, at], sigma, lam, phi, b)

    def _draw(self, design: Design, found: _Parameters) -> np.ndarray:
        """(n, nobs) responses, as ``Fit.simulate`` draws them."""
        source = simulated.seeds(self.seed, 1)[1]
        if self.family is not None:
            return simulate.simulate_family(
                design,
                found,  # type: ignore[arg-type]
                self.family,
                self.n,
                source,
                True,
            )
        known = self.deviates
        if known is None or not known.suits(design):
            self.deviates = known = _Deviates.drawn(design, self.n, source)
        return known.responses(design, found)

    def _ties(self, nobs: int) -> simulated.Ties:
        known = self.ties
        if known is None or known.order.shape[1] != nobs:
            rng = np.random.default_rng(simulated.seeds(self.seed, 1)[0])
            self.ties = known = simulated.Ties.drawn(rng, (self.n + 1, nobs))
        return known


@dataclass(frozen=True)
class _Deviates:
    """The normal deviates of ``simulate.simulate``, ready for any parameters.

    E: (n, nobs); W: for each term and free entry (i, j) of Lambda the (n, nobs) by
    which Z b grows with it.
    """

    terms: Sequence[RandomTerm]
    E: np.ndarray
    W: list[dict[tuple[int, int], np.ndarray]]

    @staticmethod
    def drawn(design: Design, n: int, seed: np.random.SeedSequence) -> _Deviates:
        """In the order of a single fit."""
        rng = np.random.default_rng(seed)
        E = rng.standard_normal((n, design.n))
        sizes = [t.n_levels * len(t.names) for t in design.terms]
        ends = np.cumsum([0, *sizes])
        U = rng.standard_normal((n, int(ends[-1])))
        W = []
        for t, start, stop in zip(design.terms, ends[:-1], ends[1:], strict=True):
            q = len(t.names)
            own = U[:, start:stop].reshape(n, t.n_levels, q)
            at = covariances.of(t).entries
            W.append({(i, j): t.values[:, i] * own[:, t.codes, j] for i, j in at})
        return _Deviates(design.terms, E, W)

    def suits(self, design: Design) -> bool:
        """Whether they are those of the design."""
        return design.terms is self.terms

    def responses(self, design: Design, found: _Parameters) -> np.ndarray:
        """(n, nobs) responses."""
        out = self.E * simulate.noise(found.sigma, design.weights)
        for W, lam in zip(self.W, found.lam, strict=True):
            for (i, j), w in W.items():
                if lam[i, j] != 0.0:
                    out += (found.sigma * lam[i, j]) * w
        out += predictor.fixed_part(design.X, found.beta, design.offset)
        return out


def _table(fits: FittedModels, found: np.ndarray) -> pd.DataFrame:
    D = len(fits)
    shown = [k for k in range(len(CHECKS)) if k < 3 or np.isfinite(found[:, k]).any()]
    adjusted = np.stack(
        [multiplicity.adjusted(found[:, k, 2], "fdr_bh") for k in shown], axis=1
    )
    labels = np.arange(D) if fits.labels is None else fits.labels
    return pd.DataFrame(
        {
            "dataset": np.repeat(labels, len(shown)),
            "check": np.tile(np.array(CHECKS)[shown], D),
            "observed": found[:, shown, 0].ravel(),
            "expected": found[:, shown, 1].ravel(),
            "p_value": found[:, shown, 2].ravel(),
            "p_adjusted": adjusted.ravel(),
            "status": np.repeat(_status.names(fits.status), len(shown)),
        }
    )
