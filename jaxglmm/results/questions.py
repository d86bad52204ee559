"""What a fit can be asked: means, draws, tests and intervals.

No method has more than a few lines, and none computes: each hands over to the module
that does, which is imported when it is needed if it is heavy.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.postestimation.inference import intervals as _intervals
from jaxglmm.postestimation.prediction import marginal_effects as _marginal
from jaxglmm.postestimation.prediction import means as _means
from jaxglmm.postestimation.prediction import partial as _partial
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.results import faces
from jaxglmm.results.drawing import Drawing
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.checking.variance_explained import ICC, R2
    from jaxglmm.postestimation.inference.hypotheses import WaldTest
    from jaxglmm.postestimation.report.params import LinearParams


class Questions(Drawing):
    """An estimated model that can be asked; see ``Fit``."""

    # What it is ----------------------------------------------------------------------

    @property
    def params(self) -> LinearParams:
        """The main numbers as one frozen record."""
        from jaxglmm.postestimation.report.params import params

        return params(self)

    @cached_property
    def icc(self) -> ICC:
        """Factor -> intraclass correlation; ``.adjusted``, ``.unadjusted``.

        Called, ``icc(adjusted=True, by=None)``, it gives one of its numbers.
        """
        from jaxglmm.postestimation.checking.variance_explained import icc

        return icc(self)

    def r2(self) -> R2:
        """Nakagawa's R squared: ``.marginal`` and ``.conditional``."""
        from jaxglmm.postestimation.checking.variance_explained import r2

        return r2(self)

    @property
    def posterior(self):
        """Draws and moments of a Bayesian fit; refused where there is none."""
        raise NotApplicableError(
            "this fit maximised a likelihood and has no posterior; fit with "
            "method='nested-laplace', 'map', 'vb' or 'nuts'"
        )

    @property
    def khat(self) -> float | None:
        """None: importance weights belong to Bayesian fits."""
        return None

    def to_arviz(self, **options):
        """Refused: ArviZ holds posteriors."""
        return self.posterior

    # Asking it -----------------------------------------------------------------------

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
        """Predicted means for the data of the fit or for new data.

        Args:
            newdata: data frame or mapping of arrays; default the data of the fit.
            re: "conditional" (with the random effects of each row's levels),
                "population" (random effects zero), "marginal" (a level at random), or
                random terms whose effects count, the others zero: "(1 | g)".
            type: "response" or "link"; the same in a linear model.
            se: also standard errors of the mean.
            interval: "confidence" for the mean, "prediction" for a new observation.
            level: coverage of the interval.
            new_levels: "zero" predicts levels that were not in the data with a random
                effect of zero and its prior variance; "error" refuses them.
            offset: (n,) offset of new data, where the fit's was given as an array.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.
        """
        _predict.check(
            re=re, type=type, se=se, interval=interval, new_levels=new_levels
        )
        some = _predict.is_partial(re)
        return (_partial if some else _predict).predict(
            self, newdata, re, se, interval, level, new_levels, offset
        )

    def simulated_residuals(self, n: int = 250, seed=0, re: str | None = None, by=None):
        """Where each response lies among draws from the fit: uniform if all is well.

        Ranks as numbers between 0 and 1, ties broken at random (Dunn and Smyth 1996),
        with tests in which the draws judge the data: ``.uniformity``, ``.dispersion``,
        ``.outliers``, ``.by(group)``, ``.tests()``. With weights of counts, which are
        frequencies, there is one residual for each response that a row stands for.

        Args:
            n: draws.
            seed: of the random numbers; equal seeds give equal residuals.
            re: None draws new random effects, and so looks at these too; "conditional"
                keeps the modes, and looks at the rows alone.
            by: a variable of the model, a grouping factor or labels (nobs,): responses
                are summed within its groups, and a residual is a group's.

        Example:
            >>> import jaxglmm as jg
            >>> ticks = jg.datasets.load("grouseticks")
            >>> fit = jg.glmm("TICKS ~ YEAR + (1 | BROOD)", ticks, family="poisson")
            >>> residuals = fit.simulated_residuals(100, re="conditional")
            >>> residuals.scaled.shape, residuals.by("YEAR").index.tolist()
            ((403,), ['95', '96', '97'])
        """
        from jaxglmm.postestimation.checking.simulated_residuals import (
            simulated_residuals,
        )

        return simulated_residuals(self, n, seed, re, by)

    def check(self, n: int = 250, seed=0, re: str | None = None):
        """Simulated residuals tested, and what else should be known, on a page.

        A p-value below 0.01 gets a verdict; several tests are made, and large data
        show deviations that do not matter: look at ``plot.simulated_residuals()`` too.
        Counts also have their share of zeros and Pearson's statistic looked at; rows
        that stand for several (weights of counts) are looked at as often as that.

        Args:
            n: draws.
            seed: of the random numbers.
            re: as for ``simulated_residuals``.

        Returns:
            A string that shows itself, with ``.table``, ``.ok`` and ``.residuals``.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Salamanders")
            >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson")
            >>> checks = fit.check(100)
            >>> checks.ok, checks.table.loc["Pearson", "verdict"][:14]
            (False, 'overdispersion')
        """
        from jaxglmm.postestimation.checking.checks import check

        return check(self, n, seed, re)

    def refit(self, y) -> Self:
        """The same model for another response, (n,)."""
        from jaxglmm.fitting.refit import refit

        return refit(self, y)

    @of_likelihood
    def bootstrap(self, n: int = 1000, seed=0, **options):
        """Parametric bootstrap: n data sets simulated and fitted; a ``Fits``."""
        from jaxglmm.postestimation.bootstrap import bootstrap

        return faces.face("many").showing(bootstrap(self, n, seed, **options))

    @of_likelihood
    def profile(self, which=None, **options):
        """Profile likelihood of the parameters: ``.intervals(level)``, ``.zeta``."""
        from jaxglmm.postestimation.profile.profile import profile

        return profile(self, which, **options)

    @conf_level_too
    def confint(
        self,
        level: float = 0.95,
        method: str = "wald",
        *,
        n: int = 1000,
        seed=0,
        kind: str = "percentile",
    ) -> pd.DataFrame:
        """Confidence intervals, a frame of lower and upper.

        Args:
            level: coverage.
            method: "wald" (fixed effects, t quantiles), "profile" or "bootstrap" (all
                parameters).
            n: data sets of the bootstrap.
            seed: its seed.
            kind: "percentile" or "basic" bootstrap intervals.
        """
        return _intervals.confint(self, level, method, n, seed, kind)

    def test(self, L, rhs=0.0, ddf: str | None = None) -> WaldTest:
        """F-test (t-test for one row) of L beta = rhs.

        Args:
            L: (k, p) matrix or (p,) row; or a coefficient's name, a dict from names
                to weights, or a list of these.
            rhs: (k,) or a number.
            ddf: "satterthwaite", "kenward-roger" or "residual"; default as fitted.
        """
        from jaxglmm.postestimation.inference.hypotheses import test

        return test(self, L, rhs, self.checked_ddf(ddf))

    @of_likelihood
    def anova(self, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
        """F-tests of the terms: sum_sq, mean_sq, num_df, den_df, statistic, p_value.

        Args:
            type: 1 (in order), 2 (respecting marginality) or 3 (each after all others).
            ddf: "satterthwaite", "kenward-roger" or "residual"; default as fitted.
        """
        from jaxglmm.postestimation.inference.denominator_df import anova_table

        return anova_table(self, type, self.checked_ddf(ddf))

    @of_likelihood
    def compare(self, *others: FittedModel, refit: bool | None = None):
        """Likelihood-ratio test against other fits of the same data.

        Args:
            *others: fits, any order.
            refit: REML fits again by ML: always, never, or (None) where their fixed
                effects differ.
        """
        from jaxglmm.postestimation.inference.comparison import compare

        return compare((self, *others), refit)

    @conf_level_too
    def predictions(
        self,
        newdata=None,
        by=None,
        level: float = 0.95,
        *,
        type: str = "response",
        re: str = "population",
        offset=None,
        grid: str = "observed",
    ) -> pd.DataFrame:
        """Predictions with standard errors and limits, of rows or averages of rows.

        In a generalised model limits are made on the link scale and transformed.

        Args:
            newdata: rows to predict; default the rows of the data.
            by: variable or variables: the mean prediction of each of their groups.
            level: coverage of conf_low and conf_high.
            type: "response" or "link"; the same in a linear model.
            re: "population" (random effects zero) or "marginal" (the mean over random
                effects; on the link scale, its link); the same in a linear model.
            offset: (n,) offset of new data, where the fit's was given as an array.
            grid: "observed": the rows of the data; "equal": all combinations of the
                factors' levels, numeric variables at their means. ``contrasts`` (whose
                default is "equal") compares the means of the same grid.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> table = jg.glmm(formula, cbpp).predictions(by="period", re="marginal")
            >>> table["estimate"].round(3).tolist()
            [0.216, 0.097, 0.086, 0.057]
        """
        means = self._means(type, re)
        return _marginal.predictions(means, newdata, by, level, offset, grid)

    @conf_level_too
    def slopes(
        self,
        variable: str,
        newdata=None,
        by=None,
        level: float = 0.95,
        *,
        type: str = "response",
        re: str = "population",
        offset=None,
    ) -> pd.DataFrame:
        """Average slope of the prediction in a numeric variable.

        Args:
            variable: which.
            newdata: rows to average over; default the data of the fit.
            by: variable or variables: one average for each of their groups.
            level: coverage of conf_low and conf_high.
            type: "response" or "link"; the same in a linear model.
            re: "population" or "marginal", as for ``predictions``.
            offset: (n,) offset of new data, where the fit's was given as an array.

        Example:
            >>> import jaxglmm as jg
            >>> ticks = jg.datasets.load("grouseticks")
            >>> fit = jg.glmm("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", ticks,
            ...               family="poisson")
            >>> fit.slopes("cHEIGHT", by="YEAR")["estimate"].round(3).tolist()
            [-0.049, -0.194, -0.019]
        """
        from jaxglmm.postestimation.prediction.slopes import slopes

        means = self._means(type, re)
        return slopes(means, variable, newdata, by, level, offset)

    @conf_level_too
    def contrasts(
        self,
        factor: str,
        *,
        grid: str = "equal",
        adjust: str = "none",
        level: float = 0.95,
        type: str = "response",
        re: str = "population",
        ratio: bool = False,
    ) -> pd.DataFrame:
        """Pairwise differences or ratios of a factor's marginal means.

        Args:
            factor: a variable with levels.
            grid: "equal" averages over all combinations of the other factors' levels,
                numeric variables at their means (a number in C() or factor() is a
                factor); "observed" over the rows of the data. ``predictions(by=factor,
                grid=...)`` has the means themselves.
            adjust: of the p-values: "none", "holm", "bonferroni" or "tukey".
            level: coverage of conf_low and conf_high, for one contrast each.
            type: "response" averages and compares means, "link" linear predictors; the
                same in a linear model.
            re: "population" or "marginal", as for ``predictions``.
            ratio: ratios of the means (risk ratios); with ``type="link"`` exp of the
                differences: odds ratios (logit), rate ratios (log), hazard ratios
                (cloglog). Tests and limits are those of the logarithms.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> fit = jg.glmm(formula, cbpp)
            >>> table = fit.contrasts("period", type="link", ratio=True)
            >>> table["contrast"].tolist()[:3], table["estimate"].round(3).tolist()[:3]
            (['1 / 2', '1 / 3', '1 / 4'], [2.698, 3.092, 4.856])
        """
        means = self._means(type, re)
        return _marginal.contrasts(means, factor, grid, adjust, level, ratio)

    def _means(self, type: str, re: str) -> _means.Means:
        """Means of rows with their Jacobians."""
        _means.check(type, re)
        return _means.LinearMeans(self, type)
