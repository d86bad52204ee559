"""The face of a Bayesian model of categories, ordered or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.posterior.fitted_categories import FittedCategories
from jaxglmm.postestimation.prediction import posterior_categories as _predictive
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.results.about_categories import AboutCategories
from jaxglmm.results.posterior_fit import PosteriorFit

if TYPE_CHECKING:
    import pandas as pd


class CategoriesPosterior(AboutCategories, FittedCategories, PosteriorFit):
    """A Bayesian model of ordered or unordered categories; see ``PosteriorFit``.

    Example:
        >>> import jaxglmm as jg
        >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
        >>> fit = jg.clmm("y ~ x", data, method="nested-laplace")
        >>> list(fit.thresholds.index), fit.predict(type="probs").shape
        (['1|2', '2|3'], (8, 3))
    """

    @conf_level_too
    def predict(
        self,
        newdata=None,
        re: str = "conditional",
        type: str | None = None,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "zero",
        offset=None,
        seed=0,
    ):
        """Posterior means of probabilities and what follows from them.

        Args:
            newdata: data frame or mapping of arrays; default the data of the fit.
            re: "conditional" (with the effects of each row's levels), "population"
                (random effects zero) or "marginal" (averaged over new levels; of
                ordered categories).
            type: "probs", the probability of each category; "class", the most probable
                one; "link". Of ordered categories also "cum_probs", of each and those
                below it, and "mean_class" or "response", the mean of their numbers 1,
                ..., K; of others "response" is "probs". Default "response".
            se: also posterior standard deviations.
            interval: "confidence": quantiles.
            level: probability inside the interval.
            new_levels: "zero": a level that was not in the data has an effect drawn
                from its distribution, which has mean zero; "error" refuses it.
            offset: (n,) offset of new data, where the fit's was given as an array.
            seed: of new levels.

        Returns:
            (n,) array, of probabilities a frame with a column a category; with se or
            interval a frame, whose columns of probabilities are pairs such as ("se",
            category).

        Raises:
            NotApplicableError: a prediction interval, the spread of a label.

        Example:
            >>> import jaxglmm as jg
            >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
            >>> fit = jg.clmm("y ~ x", data, method="nested-laplace")
            >>> fit.predict({"x": [0, 1]}, type="class").tolist()
            [1, 3]
        """
        type = "response" if type is None else type
        asked = Asked(newdata, re, type, se, interval, level, new_levels, offset)
        return _predictive.predict(self, asked, seed)

    def _means(self, type: str, re: str):
        return _predictive.means(self, type, re)

    def _predictions(self, *asked) -> pd.DataFrame:
        return _predictive.predictions(self, *asked)
