"""The face of a cumulative link mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_ordinal import FittedOrdinal, FittedOrdinalParts
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.results.about_categories import AboutCategories
from jaxglmm.results.generalised_fit import GeneralisedFit

if TYPE_CHECKING:
    import pandas as pd


class OrdinalFit(AboutCategories, FittedOrdinal, GeneralisedFit):
    """A fitted model of ordered categories; see ``Fit``.

    Example:
        >>> import jaxglmm as jg
        >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
        >>> fit = jg.glmm("y ~ x", data, family=jg.Cumulative())
        >>> fit.thresholds.round(3).to_dict(), fit.coefficients.round(3).tolist()
        ({'1|2': -0.259, '2|3': 1.707}, [1.913])
    """

    @conf_level_too
    def predict(
        self,
        newdata=None,
        re: str = "conditional",
        type: str = "response",
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "zero",
        offset=None,
    ):
        """Predicted probabilities, categories or means, for old rows or new ones.

        Args:
            newdata: data frame, mapping of arrays or list of dicts; default the data of
                the fit.
            re: "conditional" (with the random effects of each row's levels),
                "population" (random effects zero) or "marginal" (the mean over random
                effects).
            type: "probs", the probability of each category; "cum_probs", of each and
                those below it; "class", the most probable category; "mean_class" or
                "response", the mean of the categories' numbers 1, ..., K; "link", the
                linear predictor x'beta + z'b, without thresholds.
            se: also standard errors: by the delta method from the uncertainty of all
                parameters, with that of the random effects.
            interval: "confidence": limits, on the logit scale of a probability.
            level: their coverage.
            new_levels: "zero" predicts levels that were not in the data with a random
                effect of zero and its prior variance; "error" refuses them.
            offset: (n,) offset of new data, where the fit's was given as an array.

        Returns:
            (n,) array, of "probs" a frame with a column a category; with se or interval
            a frame, whose columns of "probs" are pairs such as ("se", category).

        Raises:
            NotApplicableError: a prediction interval, an error of a label.

        Example:
            >>> import jaxglmm as jg
            >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
            >>> fit = jg.clmm("y ~ x", data)
            >>> fit.predict({"x": [0, 1]}, type="probs").round(3).to_numpy().tolist()
            [[0.436, 0.411, 0.153], [0.102, 0.347, 0.551]]
            >>> fit.predict({"x": [0, 1]}, type="class").tolist()
            [1, 3]
        """
        from jaxglmm.postestimation.prediction.ordinal import predict

        asked = Asked(newdata, re, type, se, interval, level, new_levels, offset)
        return predict(self, asked)

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction.ordinal import means

        return means(self, type, re)

    def _predictions(self, *asked) -> pd.DataFrame:
        from jaxglmm.postestimation.prediction.ordinal import predictions

        return predictions(self, *asked)


class OrdinalPartsFit(FittedOrdinalParts, OrdinalFit):
    """A model of ordered categories whose thresholds or scale depend on the row.

    Example:
        >>> import jaxglmm as jg
        >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2, 1, 2], "x": [0, 1] * 5,
        ...         "z": [0, 0, 1, 1, 1, 1, 0, 0, 1, 0]}
        >>> fit = jg.clm("y ~ x", data, nominal="~ z")
        >>> fit.thresholds.shape, list(fit.fixef["cond"])
        ((2, 2), ['x'])
    """
