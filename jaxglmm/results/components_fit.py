"""The face of a model of several linear predictors: zero inflation, dispersion."""

from __future__ import annotations

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_components import FittedComponents
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.results.generalised_fit import GeneralisedFit

_NO_SHARE = (
    "a model of several linear predictors has no {}: the variance of a row given its "
    "predictors differs from row to row with zeros and dispersion. varcorr has the "
    "variances, component by component"
)


class ComponentsFit(FittedComponents, GeneralisedFit):
    """A fitted model with a model of its zeros or of its dispersion; see ``Fit``.

    Its components are "cond", the mean before zeros are added, "zi", the logit of the
    probability of an added zero, and "disp", the logarithm of the dispersion.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("Salamanders")
        >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson",
        ...               zi="~ mined")
        >>> {name: round(value, 3) for name, value in fit.fixef["zi"].items()}
        {'(Intercept)': 1.139, 'mined[T.no]': -1.736}
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
        trials=None,
    ):
        """Predictions for the data of the fit or for new data.

        Args:
            newdata: data frame, mapping of arrays or list of dicts; default the data of
                the fit.
            re: "conditional" (with the random effects of each row's levels),
                "population" (random effects zero) or "marginal" (the mean over random
                effects, which needs no grouping factors in new data).
            type: "response" (the mean, added zeros counted in), "conditional" (the mean
                without them), "zprob" and "zlink" (the probability of an added zero and
                its logit), "link" (the linear predictor of the mean), "disp" (the
                dispersion parameter); as in glmmTMB.
            se: also standard errors, by the delta method.
            interval: "confidence", or "prediction" for a new observation (quantiles of
                simulated ones, the uncertainty of the linear predictors drawn too).
            level: coverage of the interval.
            new_levels: "zero" predicts levels that were not in the data with a random
                effect of zero and its prior variance; "error" refuses them.
            offset: (n,) offset of the mean of new data, where the fit's was an array.
            trials: numbers of trials, of families of successes out of trials.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.

        Raises:
            NotApplicableError: a type of a component that the model has not.
            DataError: missing columns, unseen levels of a fixed factor, bad trials.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Salamanders")
            >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson",
            ...               zi="~ mined")
            >>> new = {"mined": ["yes", "no"]}
            >>> fit.predict(new, re="population", type="zprob").round(3).tolist()
            [0.758, 0.355]
        """
        from jaxglmm.postestimation.prediction.components import predict

        asked = Asked(
            newdata, re, type, se, interval, level, new_levels, offset, trials
        )
        return predict(self, asked)

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction.component_means import ComponentMeans

        return ComponentMeans(self, type, re)

    @property
    def icc(self):
        """None of these models: their rows have no one variance on one scale.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError(_NO_SHARE.format("intraclass correlation"))

    def r2(self, method: str | None = None, mean: float | None = None):
        """None of these models, for the same reason as ``icc``.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError(_NO_SHARE.format("Nakagawa's R squared"))
