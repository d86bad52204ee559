"""The face of a multinomial logit mixed model."""

from __future__ import annotations

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_multinomial import FittedMultinomial
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.results.about_categories import AboutCategories
from jaxglmm.results.generalised_fit import GeneralisedFit


class MultinomialFit(AboutCategories, FittedMultinomial, GeneralisedFit):
    """A fitted model of unordered categories; see ``Fit``.

    A category's log odds against the first have a linear predictor of their own; random
    effects of a level are correlated across categories.

    Example:
        >>> import jaxglmm as jg
        >>> data = {"y": ["a", "b", "c", "a", "c", "b", "a", "c"],
        ...         "x": [0, 1, 1, 1, 0, 0, 1, 1]}
        >>> fit = jg.glmm("y ~ x", data, family="multinomial")
        >>> list(fit.fixef["c"]), fit.predict({"x": [0]}, type="probs").round(3).shape
        (['(Intercept)', 'x'], (1, 3))
    """

    @conf_level_too
    def predict(
        self,
        newdata=None,
        re: str = "conditional",
        type: str = "probs",
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "zero",
        offset=None,
    ):
        """Predicted probabilities, categories or log odds, for old rows or new ones.

        Args:
            newdata: data frame, mapping of arrays or list of dicts; default the data of
                the fit.
            re: "conditional" (with the random effects of each row's levels) or
                "population" (random effects zero).
            type: "probs" or "response", the probability of each category; "class", the
                most probable one; "link", log odds against the first category.
            se: also standard errors of probabilities (``re="population"``).
            interval: "confidence": limits, on the logit scale of a probability.
            level: their coverage.
            new_levels: "zero" predicts levels that were not in the data with a random
                effect of zero; "error" refuses them.
            offset: (n,) offset of new data, where the fit's was given as an array.

        Returns:
            A frame with a column a category; with se or interval its columns are pairs
            such as ("se", category); of "class" (n,) labels.
        """
        from jaxglmm.postestimation.prediction.ordinal import predict_nominal

        asked = Asked(newdata, re, type, se, interval, level, new_levels, offset)
        return predict_nominal(self, asked)

    def _means(self, type: str, re: str):
        raise NotApplicableError(
            "tables of means are for responses with one mean; categories without an "
            "order have fit.predict(newdata, re='population', type='probs', se=True)"
        )

    def _predictions(self, newdata, by, level, type, re, *_):
        return self._means(type, re)

    def profile(self, which=None):
        """Refused: variances of several categories are not profiled."""
        raise NotApplicableError(
            "profiles are of models whose effects are of one predictor; a multinomial "
            "model has fit.confint() and fit.confint(method='bootstrap')"
        )
