"""What a fit can be asked about which model: terms less, criteria, other starts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from jaxglmm.results import faces
from jaxglmm.results.comparing import Comparing
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.choice.criteria import ConditionalAIC
    from jaxglmm.postestimation.choice.cross_validation import CrossValidation
    from jaxglmm.postestimation.choice.starts import Starts
    from jaxglmm.postestimation.choice.stepping import Steps


class Choosing(Comparing):
    """An estimated model that is compared with smaller ones; see ``Fit``."""

    @of_likelihood
    def drop1(self, test: str | None = None, ddf: str | None = None) -> pd.DataFrame:
        """Each fixed term that no other contains, left out and tested.

        As lmerTest's ``drop1`` (F-tests of linear models) and lme4's (likelihood
        ratios): REML fits are fitted again by maximum likelihood for the latter.

        Args:
            test: "F" (default of linear models), "chisq" (likelihood ratios; default of
                generalised ones) or "none" (AIC alone).
            ddf: of F-tests: "satterthwaite", "kenward-roger", "residual"; default as
                fitted.

        Returns:
            One row a term: sum_sq, mean_sq, num_df, den_df, statistic, p_value of
            F-tests; else df, aic, statistic, p_value, with a row ``<none>``.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Orthodont")
            >>> fit = jg.lmm("distance ~ age * Sex + (1 | Subject)", data)
            >>> fit.drop1()[["den_df", "statistic"]].round(2).to_dict("index")
            {'age:Sex': {'den_df': 79.0, 'statistic': 6.3}}
        """
        from jaxglmm.postestimation.choice.dropping import drop1

        return drop1(self, test, ddf)

    @of_likelihood
    def ranova(self, reduce_terms: bool = True) -> pd.DataFrame:
        """Each random term left out, or each column of one, tested.

        As lmerTest's ``ranova``, by the fit's own criterion, for generalised models
        too: of ``(Days | Subject)`` the slope goes and ``(1 | Subject)`` stays. Without
        any random effect the model is one of independent residuals.

        Args:
            reduce_terms: False leaves terms out as wholes.

        Returns:
            npar, log_likelihood, aic, statistic, df, p_value (by the chi-squared
            distribution, as lmerTest prints it; conservative, since variances are at
            the end of their range) and p_boundary, by the mixture that holds then.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.ranova()["statistic"].round(3).to_dict()
            {'<none>': nan, 'Days in (Days | Subject)': 42.837}
        """
        from jaxglmm.postestimation.choice.dropping import ranova

        return ranova(self, reduce_terms)

    @of_likelihood
    def step(
        self,
        alpha_random: float = 0.1,
        alpha_fixed: float = 0.05,
        *,
        reduce_random: bool = True,
        reduce_fixed: bool = True,
        keep: Collection[str] = (),
        ddf: str | None = None,
    ) -> Steps:
        """Backward elimination: random terms by ``ranova``, then fixed by ``drop1``.

        As lmerTest's ``step``. What is left looks better than it is: its tests and
        intervals know nothing of the search.

        Args:
            alpha_random: a random term with a larger p-value goes, the largest first.
            alpha_fixed: the same of fixed terms.
            reduce_random: False keeps all random terms.
            reduce_fixed: False keeps all fixed terms.
            keep: names of fixed terms that stay.
            ddf: degrees of freedom of the F-tests.

        Returns:
            A text that shows itself, with ``.model`` (the fit that is left), and tables
            ``.random`` and ``.fixed`` (``eliminated``: the step in which a term went).

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Pastes")
            >>> fit = jg.lmm("strength ~ 1 + (1 | batch) + (1 | sample)", data)
            >>> fit.step().model.formula
            'strength ~ 1 + (1 | sample)'
        """
        from jaxglmm.postestimation.choice.stepping import step

        levels = (alpha_random, alpha_fixed, reduce_random, reduce_fixed)
        return step(self, *levels, keep, ddf, faces.face)

    @property
    def aicc(self) -> float:
        """AIC with the correction for few rows, 2 k (k + 1) / (n - k - 1) more."""
        from jaxglmm.postestimation.choice.criteria import aicc

        return aicc(self)

    @of_likelihood
    def conditional_aic(self) -> ConditionalAIC:
        """AIC for new rows of the same levels: of linear mixed models.

        Greven and Kneib's (2010), as R's cAIC4 has it: the log-likelihood of the rows
        given the modes, and for the number of parameters the sum over rows of how far
        each fitted value follows its response, variance parameters estimated anew, and
        one for the residual variance. That sum is that of refits to the last digits;
        cAIC4 1.0 differs by some hundredths (31.30 in the example).

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.conditional_aic()
            <Conditional AIC 1711.52: log-likelihood -824.51, 31.25 degrees of freedom>
        """
        from jaxglmm.postestimation.choice.criteria import conditional_aic

        return conditional_aic(self)

    @of_likelihood
    def cross_validate(self, by: Any = None, k: Any = None, seed: Any = 0):
        """Folds left out, the model fitted to the rest, the fold predicted.

        Args:
            by: whose levels stay together, and are left out together: a grouping
                factor, a variable of the model, or labels, one a row. None: rows one by
                one, predicted by levels that the rest knows.
            k: number of folds, or "all": each level by itself. None: ten, or as many
                as there are levels where they are fewer.
            seed: of the dealing of levels to folds.

        Returns:
            ``CrossValidation``: ``.elpd`` (sum of the log predictive densities of rows
            that were left out; larger is better) with ``.elpd_se``, ``.rmse``,
            ``.mae``, frames ``.rows`` and ``.folds``.

        Raises:
            NotApplicableError: more folds than levels; models that it is not for.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> round(fit.cross_validate(by="Subject", k="all").rmse, 1)
            49.6
        """
        from jaxglmm.postestimation.choice.cross_validation import cross_validate

        found: CrossValidation = cross_validate(self, by, k, seed)
        return found

    @of_likelihood
    def multistart(self, n: int = 10, seed: Any = 0) -> Starts:
        """Whether other starts end at the same maximum.

        What R's ``allFit`` is asked for: random standard deviations and correlations
        are where the search begins.

        Args:
            n: number of other starts.
            seed: of them.

        Returns:
            ``Starts``: ``.agree``, ``.better`` (how far the best is below the fit's
            criterion), ``.table``.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> jg.lmm("Reaction ~ Days + (Days | Subject)", data).multistart(5)
            <5 of 5 other starts end at the fit's maximum>
        """
        from jaxglmm.postestimation.choice.starts import multistart

        return multistart(self, n, seed)
