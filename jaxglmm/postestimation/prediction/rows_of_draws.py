"""Rows that draws of a fit are asked about: their means and new observations."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import predictor
from jaxglmm.fitting.kinds import is_correlated, is_generalised
from jaxglmm.fitting.residual_parameters import row_variances
from jaxglmm.formula.design import NewRows
from jaxglmm.formula.tables import as_table
from jaxglmm.postestimation.prediction import correlated_draws
from jaxglmm.postestimation.prediction.asked import Asked

AT_ONCE = 4_000_000  # numbers in one batch of rows


class RowsOfDraws:
    """Some rows, and what was asked of them; draws: ``JointDraws``."""

    def __init__(
        self,
        draws: Any,
        newdata: Any,
        re: str,
        type: str,
        new_levels: str,
        offset: Any,
        trials: Any = None,
    ):
        fit = draws.fit
        if fit.design.parts or _has_categories(fit):
            raise NotApplicableError(
                "rows are predicted from draws in linear models and generalised ones "
                "of one linear predictor; the draws of the parameters are in .frame, "
                ".beta and .b"
            )
        if _arguments.is_among(re, ("marginal",)):
            raise NotApplicableError(
                "re='marginal' is a new level: give newdata with levels that were not "
                "in the data, and new_levels='sample'"
            )
        _arguments.choice("new_levels", new_levels, ("sample", "zero", "error"))
        strict = "error" if new_levels == "error" else "zero"
        asked = Asked(newdata, re, type, False, None, 0.95, strict, offset, trials)
        self.asked = asked.read(partial=True)
        self.draws, self.fit = draws, fit
        self.new: NewRows = self.asked.rows(fit)
        self.n = len(self.new.X)
        self.sampled = new_levels == "sample"
        self.trials = self._trials()
        self.rng = np.random.default_rng(_arguments.sequence(draws.seed).spawn(1)[0])

    def pieces(self) -> list[slice]:
        """So that few numbers are in memory at once."""
        size = max(1, AT_ONCE // self.draws.n)
        return [slice(a, min(a + size, self.n)) for a in range(0, self.n, size)]

    def mean(self, here: slice, type: str = "response") -> np.ndarray:
        """(draws, rows of a piece) of the mean or the linear predictor."""
        draws, new = self.draws, self.new
        eta = draws.beta @ new.X[here].T + new.offset[here]
        if self.asked.re != "population":
            for k, term in enumerate(new.terms):
                codes, values = term.codes[here], term.values[here]
                known, lost = np.flatnonzero(codes >= 0), np.flatnonzero(codes < 0)
                effects = draws.b[k][:, codes[known]]
                eta[:, known] += np.einsum("iq,niq->ni", values[known], effects)
                if self.sampled and len(lost):
                    drawn = self._unseen(k, here, lost)
                    eta[:, lost] += np.einsum("iq,niq->ni", values[lost], drawn)
                if self.sampled and term.beyond is not None:
                    eta += self._beyond(k, term.beyond[here])
        if type == "link" or self.fit.is_linear:
            return eta
        return np.asarray(self.fit.family.mean(eta), float)

    def observed(self, here: slice, *, together: bool = True) -> np.ndarray:
        """(draws, rows of a piece) new observations.

        together: rows of a draw belong together, so that their residuals are correlated
            as the model has them; else each row counts alone.
        """
        fit, draws = self.fit, self.draws
        if np.isnan(self.trials[here]).any():
            raise NotApplicableError(
                "new observations of a binomial response need the numbers of trials of "
                "the new rows: pass trials= (a number, a column's name or an array); "
                "of='mean' needs none"
            )
        eta = self.mean(here, "link")
        if is_correlated(fit):
            return eta + self._correlated(here, together)
        if not is_generalised(fit):
            weights = fit.design.weights if self.asked.newdata is None else None
            sd: Any = 1.0
            if weights is not None:
                sd = predictor.residual_sd(1.0, np.where(weights > 0, weights, 1.0))
                sd = sd[here]
            noise = self.rng.standard_normal(eta.shape)
            return eta + draws.sigma[:, None] * sd * noise
        out = np.empty_like(eta)
        for k, row in enumerate(eta):
            mu = np.asarray(fit.family.parameters(row), float)
            m = self.trials[here]
            out[k] = fit.family.simulate(self.rng, mu, draws.phi[k], m)
        return out

    def _correlated(self, here: slice, together: bool) -> np.ndarray:
        """(draws, rows of a piece) residuals of a structure, at each draw's."""
        fit, draws, newdata = self.fit, self.draws, self.asked.newdata
        structured = bool(fit.design.residual.structure)
        if together and structured and newdata is not None:
            raise NotApplicableError(
                "observations() of new rows are drawn together, and those of this "
                f"model have correlated residuals ({fit.design.residual.text}), which "
                "are drawn for the rows of the data alone; intervals(newdata) are of "
                "each row by itself"
            )
        out = np.empty((draws.n, here.stop - here.start))
        for k in range(draws.n):
            lam = [x[k] for x in draws.lam]
            own = draws.phi[k], draws.sigma[k], lam
            if together and structured:
                seed = int(
                    np.random.default_rng([k, *_words(draws.seed)]).integers(2**63)
                )
                out[k] = correlated_draws.residuals(fit, *own, seed)[here]
                continue
            there = fit.like(fit.design, correlated_draws.at(fit, *own), fit.engine)
            variance = np.broadcast_to(row_variances(there, newdata), self.n)
            out[k] = np.sqrt(variance[here])
        if together and structured:
            return out
        return out * self.rng.standard_normal(out.shape)

    def _unseen(self, k: int, here: slice, lost: np.ndarray) -> np.ndarray:
        """(draws, rows, q) effects of levels that were not in the data.

        The same level has the same effect in all rows and all pieces.
        """
        draws, lam = self.draws, self.draws.lam[k]
        q = lam.shape[-1]
        levels, place = np.unique(self._labels[k][here][lost], return_inverse=True)
        out = np.empty((draws.n, len(levels), q))
        for j, level in enumerate(levels.tolist()):
            rng = np.random.default_rng([k, level, *_words(draws.seed)])
            z = rng.standard_normal((draws.n, q))
            out[:, j] = draws.sigma[:, None] * np.einsum("nij,nj->ni", lam, z)
        return out[:, place.ravel()]

    @cached_property
    def _labels(self) -> list[np.ndarray]:
        """(n,) a number for the level of each row, term by term."""
        newdata = self.asked.newdata
        table = None if newdata is None else as_table(newdata)
        return [self._numbers(table, term.factor) for term in self.new.terms]

    def _numbers(self, table: Any, factor: str) -> np.ndarray:
        """By the label's text; rows without a label are levels of their own."""
        try:
            columns = [table.column(x).labels() for x in factor.split(":")]
        except (AttributeError, DataError):
            columns = [np.full(self.n, None)]
        text = [
            f"row {i}" if pd.isna(pd.Series(row)).any() else ":".join(map(str, row))
            for i, row in enumerate(zip(*columns, strict=True))
        ]
        names, code = np.unique(np.array(text), return_inverse=True)
        return np.array([crc32(x.encode()) for x in names.tolist()])[code.ravel()]

    def _beyond(self, k: int, share: np.ndarray) -> np.ndarray:
        """(draws, rows): of effects at new places what the others do not say."""
        draws = self.draws
        sd = draws.sigma * np.sqrt(np.sum(draws.lam[k][:, 0] ** 2, axis=-1))
        noise = self.rng.standard_normal((draws.n, len(share)))
        return sd[:, None] * np.sqrt(share) * noise

    def _trials(self) -> np.ndarray:
        """(n,) numbers of trials, ones of a response without."""
        fit, newdata = self.fit, self.asked.newdata
        if not is_generalised(fit) or fit.family.family_kind != "binomial":
            if self.asked.trials is not None:
                raise NotApplicableError(
                    "trials= is for families of successes out of trials"
                )
            return np.ones(self.n)
        m, own = self.asked.numbers_of_trials(self.n), fit.design.trials
        if m is not None:
            return m
        if own is None or (own == 1).all():
            return np.ones(self.n)
        return np.full(self.n, np.nan) if own is None or newdata is not None else own


def _has_categories(fit: Any) -> bool:
    kind = getattr(fit.family, "family_kind", "") if is_generalised(fit) else ""
    return kind in ("ordinal", "nominal")


def _words(seed: Any) -> list[int]:
    """A seed as whole numbers."""
    return _arguments.sequence(seed).generate_state(4).tolist()
