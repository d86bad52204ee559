"""The face of a generalised linear mixed model: what is asked of it in other words.

Everything that ``Fit`` says holds here too; tests are asymptotic (z and chi-squared),
means pass through the inverse link, and the residual variance is the family's.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from jaxglmm._brief import cut
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.postestimation.checking import (
    generalised_variance_explained as _explained_generalised,
)
from jaxglmm.postestimation.checking import variance_explained as _explained
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.postestimation.report import frames as _frames
from jaxglmm.postestimation.report import params as _params
from jaxglmm.results import faces
from jaxglmm.results.fit import Fit
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    import pandas as pd


class GeneralisedFit(FittedGeneralised, Fit):
    """A fitted generalised linear mixed model; see ``Fit``.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        family: of the response.
        marginal: how the random effects were integrated out.
        engine: whatever computes for this design again; rebuilt when it is needed.
        diagnostics: facts about the computation.

    Example:
        >>> import jaxglmm as jg
        >>> cbpp = jg.datasets.load("cbpp")
        >>> fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)",
        ...               cbpp, family="binomial")
        >>> fit.z_values.round(2).tolist()
        [-6.02, -3.24, -3.46, -3.7]
    """

    @property
    def params(self) -> _params.GeneralisedParams:
        """The main numbers as one frozen record."""
        return _params.generalised_params(self)

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
        """Predicted means for the data of the fit or for new data.

        Means of the binomial kind are probabilities; ``trials`` makes them counts.

        Args:
            newdata: data frame, mapping of arrays or list of dicts; default the data of
                the fit.
            re: "conditional" (with the random effects of each row's levels),
                "population" (random effects zero), "marginal" (the mean over random
                effects, which needs no grouping factors in new data), or random terms
                whose effects count, the others zero: "(1 | g)".
            type: "response", or "link" for the linear predictor (with
                ``re="marginal"``: the link of the mean).
            se: also standard errors of the mean.
            interval: "confidence" for the mean, made on the link scale and transformed;
                "prediction" for a new observation: quantiles of its distribution, in
                which the uncertainty of the linear predictor is mixed in (dispersion
                and, in conditional ones, variances of random effects count as known;
                prior weights play no part). Of counts they hold at least ``level``.
            level: coverage of the interval.
            new_levels: "zero" predicts levels that were not in the data with a random
                effect of zero and its prior variance; "error" refuses them.
            offset: (n,) offset of new data, where the fit's was given as an array.
            trials: numbers of trials (a number, a column of newdata or (n,)): answers
                are counts of successes. Needed for prediction intervals of new rows
                where the fit had more than one trial a row; those of the fit's own rows
                are proportions without it.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.

        Raises:
            NotApplicableError: a prediction interval on the link scale, trials where
                the family has none, a marginal mean that does not exist (inverse link).
            DataError: missing columns, unseen levels of a fixed factor, bad trials.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> fit = jg.glmm(formula, cbpp)
            >>> new = {"period": ["1", "4"]}
            >>> fit.predict(new, re="population").round(3).tolist()
            [0.198, 0.048]
            >>> fit.predict(new, re="marginal").round(3).tolist()
            [0.216, 0.057]
            >>> fit.predict(new, "marginal", interval="prediction", trials=20).upper
            0    11.0
            1     5.0
            Name: upper, dtype: float64
        """
        from jaxglmm.postestimation.prediction.generalised import predict

        asked = Asked(
            newdata, re, type, se, interval, level, new_levels, offset, trials
        )
        return predict(self, asked)

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction import means
        from jaxglmm.postestimation.prediction.generalised_means import GeneralisedMeans

        means.check(type, re)
        return GeneralisedMeans(self, type, re)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit: as for a linear model, with family, link, ..."""
        return _frames.glance_generalised(self)

    def augment(self) -> pd.DataFrame:
        """The data with fitted means, response residuals and linear predictors.

        ``fixed`` is X beta + offset, ``linear_predictor`` has Z b as well.
        """
        return _frames.augment(self, {"linear_predictor": self.linear_predictor})

    @cached_property
    def icc(self) -> _explained.ICC:
        """Factor -> intraclass correlation on the scale of the linear predictor.

        As in a linear model, with the variance of a row given its predictor for the
        residual variance; ``icc(adjusted=True, by=None, method=None, mean=None)`` gives
        other numbers. A factor with one row a level counts as residual. Methods are
        those of ``r2``.

        Example:
            >>> import jaxglmm as jg
            >>> ticks = jg.datasets.load("grouseticks")
            >>> fit = jg.glmm("TICKS ~ YEAR + (1 | BROOD)", ticks, family="poisson")
            >>> round(fit.icc["BROOD"], 3), round(fit.icc(method="delta"), 3)
            (0.91, 0.904)
        """
        return _explained_generalised.GeneralisedICC(
            self, _explained_generalised.intraclass(self, None, None)
        )

    def r2(self, method: str | None = None, mean: float | None = None):
        """Nakagawa's R squared: ``.marginal`` and ``.conditional``, on the link scale.

        Args:
            method: how the variance of a row given its predictor is found (Nakagawa,
                Johnson and Schielzeth 2017). Binomial kind: "theoretical" (pi^2 / 3 for
                logit, 1, pi^2 / 6) or "observation" (delta method, 1 / (p (1 - p)) for
                logit); log link: "lognormal" (log(1 + Var y / mu^2)), "delta" or
                "trigamma"; other links: "delta". Default: the first of these.
            mean: of the response, at which that variance is found. Default: the null
                model's, exp(b0 + v / 2) with a log link, where b0 is its intercept and
                v the variance of its random effects; it is fitted when needed.

        Raises:
            NotApplicableError: a method that does not suit the family and link, or a
                family without a variance.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> jg.glmm(formula, cbpp).r2()
            R2(marginal=0.0854, conditional=0.1873)
        """
        return _explained_generalised.r_squared(self, method, mean)

    def overdispersion(
        self, n: int = 250, seed=0, re: str | None = None, *, refit: bool = False
    ):
        """Whether the responses vary more than the family says.

        Pearson's chi-squared statistic over its residual degrees of freedom (McCullagh
        and Nelder 1989, 4.5), given the modes: about 1 if the variance is right, less
        where random effects of single rows take the excess. Small means make its
        p-value rough; ``.simulated`` compares with draws from the fit instead.

        Args:
            n: draws; 0 for none.
            seed: of the random numbers.
            re: as for ``simulated_residuals``.
            refit: fit every draw, and compare Pearson's statistics, each at its own
                estimates and modes (a parametric bootstrap; Davison and Hinkley 1997,
                4.4). Models with one grouping factor are fitted in lanes of one
                program.

        Returns:
            A record: ratio, chisq, df, p_value, simulated.

        Raises:
            NotApplicableError: responses of 0 and 1, which cannot be overdispersed.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Salamanders")
            >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson")
            >>> fit.overdispersion(n=0)
            ratio 2.921 (chisq 1872 on 641 df), p < 2e-16
        """
        from jaxglmm.postestimation.checking.checks import overdispersion

        return overdispersion(self, n, seed, re, refit)

    def zero_inflation(
        self, n: int = 250, seed=0, re: str | None = None, *, refit: bool = False
    ):
        """Whether there are more zeros (or fewer) than the fitted model makes.

        Args:
            n: draws from the fit.
            seed: of the random numbers.
            re: as for ``simulated_residuals``.
            refit: fit every draw, and compare the zeros beyond those that each fit
                expects given its modes, as for ``overdispersion``.

        Returns:
            A record: statistic (share of zeros), expected, ratio, p_value.

        Raises:
            NotApplicableError: continuous responses, or responses of 0 and 1.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Salamanders")
            >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson")
            >>> fit.zero_inflation(100).ratio > 1.1
            True
        """
        from jaxglmm.postestimation.checking.checks import zero_inflation

        return zero_inflation(self, n, seed, re, refit)

    def persons_items(self, persons: str | None = None, items: str | None = None):
        """Abilities of persons and difficulties of items, on one axis (Rasch model).

        Of a model of right and wrong answers with crossed random intercepts.

        Args:
            persons: their grouping factor; default that of most levels.
            items: theirs.

        Returns:
            ``PersonsItems``: frames ``persons`` and ``items`` with standard errors
            (conditional), infit and outfit; ``reliability``. ``fit.plot.wright_map()``
            draws it.

        Raises:
            NotApplicableError: no such model, or it does not say which is which.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("VerbAgg")
            >>> fit = jg.glmm("r2 ~ btype + (1 | id) + (1 | item)", data)
            >>> fit.persons_items().items["difficulty"].idxmax()
            'S3DoShout'
        """
        from jaxglmm.postestimation.checking.persons_items import persons_items

        return persons_items(self, persons, items)

    def refit(self, y) -> Self:
        """The same model for another response.

        Args:
            y: (n,) for the rows that the fit used; of the binomial kind the successes
                (as ``simulate`` gives them), or (n, 2) of successes and failures.

        Raises:
            DataError: of another shape, or values that the family cannot produce.

        Example:
            >>> import jaxglmm as jg
            >>> ticks = jg.datasets.load("grouseticks")
            >>> fit = jg.glmm("TICKS ~ YEAR + (1 | BROOD)", ticks, family="poisson")
            >>> again = fit.refit(fit.simulate(seed=1)[0])
            >>> again.converged, fit.refit(fit.design.y).criterion == fit.criterion
            (True, True)
        """
        from jaxglmm.fitting.refit_generalised import refit

        return refit(self, y)

    @of_likelihood
    def bootstrap(self, n: int = 1000, seed=0, progress: bool = False):
        """Parametric bootstrap: n responses drawn from the fit, and fitted.

        Random effects are drawn anew in each (Davison and Hinkley 1997, 3.8.1). A data
        set that cannot be fitted has its status and no numbers, one whose coefficients
        run off is marked in ``separated``; the others go on.

        Args:
            n: data sets.
            seed: of the random numbers; equal seeds give equal results.
            progress: show a bar.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> fits = jg.glmm(formula, cbpp).bootstrap(20)
            >>> fits.coefficients.shape, fits.names[-1]
            ((20, 4), 'sd_(Intercept)|herd')
        """
        from jaxglmm.postestimation.bootstrap import bootstrap

        return faces.face("many").showing(bootstrap(self, n, seed, progress))

    @of_likelihood
    def profile(self, which=None):
        """Profile likelihood of the parameters: ``.intervals(level)``, ``.zeta``.

        Fixed effects, standard deviations and correlations of the random effects, and
        the dispersion, each held at values while the rest is maximised again (Bates,
        Maechler, Bolker and Walker 2015, section 5.1).

        Args:
            which: names as in the table of ``confint(method="profile")``; "theta" for
                all but the fixed effects, "beta" for these; None for all.

        Raises:
            NotApplicableError: a name that is not a parameter.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> profile = jg.glmm(formula, cbpp).profile("sd_(Intercept)|herd")
            >>> profile.intervals().round(2).to_numpy().tolist()
            [[0.35, 1.1]]
        """
        from jaxglmm.postestimation.profile.profile import profile

        return profile(self, which)

    def __repr__(self) -> str:
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<Fit {cut(self.formula, 90)} | {self.family_name} ({self.link_name}), "
            f"{self.nobs} rows, criterion {self.criterion:.2f}{flags}>"
        )
