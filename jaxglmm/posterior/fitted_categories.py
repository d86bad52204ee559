"""A fitted Bayesian model of categories, ordered or not."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.fitting.categories import OfCategories
from jaxglmm.posterior import predictive as _predictive
from jaxglmm.posterior.fitted_posterior import FittedPosterior

if TYPE_CHECKING:
    import pandas as pd


class FittedCategories(OfCategories, FittedPosterior):
    """A posterior of categories, as a record; arguments as of ``FittedPosterior``.

    ``design.y`` has the categories' codes 0, 1, ..., ``levels`` their labels. Ordered
    ones are P(Y <= j) = F(theta_j - x'beta - z'b), unordered ones have a predictor for
    all but the first.
    """

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """mean, sd and central 95 per cent interval of the thresholds theta_j.

        Where rows have thresholds of their own, of these at covariates of zero.

        Raises:
            NotApplicableError: the categories have no order.
        """
        import pandas as pd

        draws = self.threshold_draws
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        table = {"mean": draws.mean(axis=0), "sd": draws.std(axis=0, ddof=1)}
        names = list(self.family.threshold_names)  # type: ignore[attr-defined]
        return pd.DataFrame(table | {"lower": low, "upper": high}, index=names)

    @property
    def threshold_draws(self) -> np.ndarray:
        """(S, K - 1) draws of the thresholds.

        Raises:
            NotApplicableError: the categories have no order.
        """
        family = self.family
        if not self.is_ordered:
            raise NotApplicableError(
                "thresholds lie between ordered categories; these have no order: a "
                "coefficient is of a category against the first"
            )
        if not self.design.parts:
            phi = family.phi_of(self.posterior.draws.dispersion)
            return family.theta(phi.T)  # type: ignore[attr-defined]
        draws = dict(
            zip(self.posterior.names, self.posterior.draws.beta.T, strict=True)
        )
        names = family.threshold_predictors  # type: ignore[attr-defined]
        made_of = np.stack([draws[f"{name}~(Intercept)"] for name in names], axis=1)
        return made_of @ family.T.T  # type: ignore[attr-defined]

    @property
    def dispersion(self) -> float:
        """1: categories have the spread that their probabilities say."""
        return 1.0

    # Rows -------------------------------------------------------------------------

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Posterior means of rows, (n,).

        Of ordered categories of the mean of their numbers 1, ..., K; of others of the
        probability of the category that was observed.
        """
        return self._row_means(random=True)

    @property
    def population_means(self) -> np.ndarray:
        """The same with random effects of zero, (n,)."""
        return self._row_means(random=False)

    def _row_means(self, random: bool) -> np.ndarray:
        own = self.design, self.family, self.posterior
        P = _predictive.fitted_probabilities(*own, random=random)
        if self.is_ordered:
            return P @ np.arange(1.0, P.shape[1] + 1)
        return P[np.arange(len(P)), self.design.y.astype(int)]

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals at the posterior means, (n,).

        Args:
            type: those of a fit by maximum likelihood: "deviance", "quantile",
                "response"; of ordered categories also "pearson", "scaled", "score",
                "surrogate".
            seed: of the randomisation.
        """
        return self.at_means.resid(type, seed)

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """(n, nobs) labels of categories from the posterior predictive distribution.

        Args:
            n: number of data sets, each from one draw of the parameters.
            seed: of numpy's generator.
            re: None draws new random effects, "conditional" keeps the draw's own.
        """
        _simulate.draws_new_effects(re)
        return self.levels[self.drawn(n, seed, re).astype(int)]
