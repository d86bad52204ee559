"""The face of a Bayesian mixed model: a posterior behind the questions of ``Fit``.

Predictions, slopes and contrasts are made of the draws. What belongs to maximum
likelihood alone (profiles, analyses of variance, likelihood-ratio tests) is refused
with what to ask instead (``refusals``).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from jaxglmm import _arguments
from jaxglmm._brief import cut
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.postestimation.prediction import posterior as _predictive
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.postestimation.report import posterior as _summary
from jaxglmm.results.generalised_fit import GeneralisedFit

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.posterior.certificate import Certificate

PARAMETERS = ("coefficients", "all")  # of which intervals are asked for


class PosteriorFit(FittedPosterior, GeneralisedFit):
    """A Bayesian mixed model; see ``Fit``, and ``posterior`` for the draws.

    Args:
        design: names and arrays of the model.
        family: of the response.
        priors: as given, None for defaults.
        bayes: the method.
        posterior: what it found.
        estimates: posterior means in the place of estimates.
        engine: the density that was explored; rebuilt when it is needed.
        diagnostics: facts about the computation.

    Example:
        >>> import jaxglmm as jg
        >>> cbpp = jg.datasets.load("cbpp")
        >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> fit = jg.glmm(formula, cbpp, method="nested-laplace")
        >>> fit.khat < 0.7, fit.posterior.n_draws
        (True, 4000)
    """

    @cached_property
    def certificate(self) -> Certificate:
        """How far the approximation can be trusted, with numbers and advice."""
        from jaxglmm.posterior.certificate import of_posterior

        return of_posterior(self)

    @conf_level_too
    def confint(
        self, level: float = 0.95, method: str = "posterior", **options: Any
    ) -> pd.DataFrame:
        """Central posterior intervals.

        Args:
            level: probability inside.
            method: "posterior", quantiles of the draws, all parameters with
                ``parameters="all"``; the other methods of ``Fit`` do not apply.
            options: ``parameters``: "coefficients" (default) or "all".
        """
        which = options.pop("parameters", "coefficients")
        known = _arguments.is_among(method, ("posterior",))
        if options or not (known and _arguments.is_among(which, PARAMETERS)):
            raise NotApplicableError(
                f"confint(method={_arguments.shown(method)}): a posterior has "
                "method='posterior', with parameters='coefficients' or 'all'"
            )
        return self.limits(level, which)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit: what a posterior has."""
        return _summary.glance(self)

    def loo(self, by: str = "row"):
        """Expected log predictive density by Pareto-smoothed leave-one-out.

        Args:
            by: "row" (given the random effects), or the name of the grouping factor:
                whole groups left out, their random effects integrated out.

        Returns:
            A record with ``elpd``, ``se``, ``p``, ``khat`` (one a unit) and a text.
        """
        from jaxglmm.posterior.loo import loo

        return loo(self, by)

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
        seed=0,
    ):
        """Posterior means for the data of the fit or for new data.

        Args:
            newdata: data frame or mapping of arrays; default the data of the fit.
            re: "conditional" (with the effects of each row's levels), "population"
                (random effects zero) or "marginal" (averaged over new levels).
            type: "response", or "link" for the linear predictor; of a model with zi= or
                dispersion= also "conditional", "zprob", "zlink", "disp".
            se: also posterior standard deviations.
            interval: "confidence": quantiles of the mean; "prediction": of a new
                observation.
            level: probability inside the interval.
            new_levels: "zero": a level that was not in the data has an effect drawn
                from its distribution, which has mean zero; "error" refuses it.
            offset: (n,) offset of new data, where the fit's was given as an array.
            trials: numbers of trials for counts of new rows (binomial).
            seed: of simulated observations and new levels.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.
        """
        asked = Asked(
            newdata, re, type, se, interval, level, new_levels, offset, trials
        )
        return _predictive.predict(self, asked, seed)

    @conf_level_too
    def summary(self, ddf: str | None = None, level: float = 0.95):
        """Posterior of every parameter, priors, and how far to trust it."""
        return _summary.summarise(self, level)

    @conf_level_too
    def tidy(
        self,
        effects="fixed",
        conf_int: bool = False,
        level: float = 0.95,
        conf_method: str = "posterior",
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """One row a parameter: posterior mean, sd, interval.

        Args:
            effects: "fixed", "ran_pars", "ran_vals", "all", or several of them.
            conf_int: also conf_low and conf_high.
            level: probability between them (``conf_level`` is read as well).
            conf_method: "posterior".
            exponentiate: exp of the coefficients and their limits.
        """
        if not _arguments.is_among(conf_method, ("posterior",)):
            raise NotApplicableError(
                f"tidy(conf_method={_arguments.shown(conf_method)}): a posterior has "
                "'posterior'"
            )
        return _summary.tidy(self, effects, conf_int, level, exponentiate)

    def refit(self, y, **options: Any) -> Self:
        """The same model, priors and method for another response."""
        from jaxglmm.posterior.fit import refit

        return refit(self, y)

    def test(self, L, rhs=0.0, ddf: str | None = None) -> pd.DataFrame:
        """L beta - rhs from the draws, one row a row of L.

        Args:
            L: as for ``Fit.test``.
            rhs: (k,) or a number.
            ddf: no meaning here; None.

        Returns:
            estimate, std_error, conf_low, conf_high (95 per cent), p_direction: the
            probability that L beta - rhs has the sign of its median.
        """
        from jaxglmm.postestimation.prediction.posterior_means import test

        return test(self, L, rhs)

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction import means
        from jaxglmm.postestimation.prediction.posterior_means import PosteriorMeans

        means.check(type, re)
        return PosteriorMeans(self, type, re)

    def to_arviz(
        self,
        *,
        groups: tuple[str, ...] | None = None,
        log_likelihood: str = "row",
        effects: bool = True,
        draws: int | None = None,
        seed: int = 0,
    ):
        """The posterior as ArviZ's InferenceData (0.x) or DataTree (1.x).

        Args:
            groups: some of "posterior", "posterior_predictive", "log_likelihood",
                "prior", "observed_data", "constant_data", "sample_stats"; all of them
                where None.
            log_likelihood: "row", given the random effects, or the name of a grouping
                factor: of whole groups, random effects integrated out.
            effects: with the random effects.
            draws: draws a chain of log_likelihood and posterior_predictive; all, where
                that is no more than 30 million numbers.
            seed: of the posterior predictive and the prior draws.

        Returns:
            ``arviz.InferenceData`` or ``xarray.DataTree``, see ``export.arviz``.
        """
        from jaxglmm.export.arviz import to_arviz

        return to_arviz(
            self,
            groups=groups,
            log_likelihood=log_likelihood,
            effects=effects,
            draws=draws,
            seed=seed,
        )

    def __repr__(self) -> str:
        khat = "" if self.khat is None else f", k-hat {self.khat:.2f}"
        return (
            f"<Fit {cut(self.formula, 90)} | {self.family_name} ({self.link_name}), "
            f"{self.nobs} rows, {self.method}{khat}>"
        )
