"""Fit: names come back.

Holds a ``Design`` (names and arrays) and the ``Estimates`` (arrays); every method hands
over to a small module that does the work, when it is asked for. Building one costs
nothing: a warm fit takes a fraction of a millisecond, a data frame takes more.

The file is long because the list of what a fit can be asked is long; no method has more
than a few lines, and none computes.
"""

from __future__ import annotations

import copy as _copy
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import Design
from jaxglmm.results import coefficients as _coefficients
from jaxglmm.results import components as _components
from jaxglmm.results import diagnose as _diagnose
from jaxglmm.results import effects as _effects
from jaxglmm.results import explained as _explained
from jaxglmm.results import frames as _frames
from jaxglmm.results import hypotheses as _hypotheses
from jaxglmm.results import intervals as _intervals
from jaxglmm.results import marginal as _marginal
from jaxglmm.results import means as _means
from jaxglmm.results import predict as _predict
from jaxglmm.results import predictor as _predictor
from jaxglmm.results import simulate as _simulate
from jaxglmm.results import store as _store
from jaxglmm.results import summary as _summary
from jaxglmm.results import view as _view
from jaxglmm.results.estimates import Estimates
from jaxglmm.results.plotting import PlotAccessor

if TYPE_CHECKING:
    import pandas as pd

DDF = ("satterthwaite", "kenward-roger", "residual")


class Fit:
    """A fitted linear mixed model.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        engine: whatever computes for this design again (refit, profile, Satterthwaite);
            rebuilt from the design when it is first needed.
        diagnostics: facts about the computation (seconds, steps, system, ...).
        compute_satterthwaite: False for n - p degrees of freedom, which cost nothing.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
        >>> fit.varcorr["Subject"].sd.round(2).tolist(), round(fit.sigma, 2)
        ([24.74, 5.92], 25.59)
        >>> fit.confint().round(2).loc["Days"].tolist()
        [7.21, 13.73]
        >>> fit.predict({"Days": [10]}, re="population").round(1).tolist()
        [356.1]
    """

    def __init__(
        self,
        design: Design,
        estimates: Estimates | Callable[[], Estimates],
        engine: object = None,
        diagnostics: dict | None = None,
        *,
        compute_satterthwaite: bool = True,
    ):
        self.design = design
        self._estimates = estimates
        self.diagnostics = {} if diagnostics is None else diagnostics
        self._engine = engine
        self._ddf = "satterthwaite" if compute_satterthwaite else "residual"

    @property
    def estimates(self) -> Estimates:
        """What the fit found, in the user's coordinates."""
        if not isinstance(self._estimates, Estimates):
            self._estimates = self._estimates()
        return self._estimates

    # What was fitted -----------------------------------------------------------------

    @property
    def engine(self):
        """The engine that computes for this design, rebuilt where it was dropped."""
        if self._engine is None:
            from jaxglmm.results.engine import rebuild

            self._engine = rebuild(self.design, self.reml)
        return self._engine

    @property
    def formula(self) -> str:
        """The formula, or one that says the same where arrays were given."""
        return self.design.formula or _formula(self.design)

    @property
    def reml(self) -> bool:
        """Whether the criterion is the restricted likelihood."""
        return bool(self.estimates.reml)

    @property
    def family_name(self) -> str:
        """Name of the response's family."""
        return "gaussian"

    @property
    def link_name(self) -> str:
        """Name of the link."""
        return "identity"

    @property
    def method(self) -> str:
        """How the random effects were integrated out; empty where that is exact."""
        return ""

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.design.n

    @property
    def ngroups(self) -> dict[str, int]:
        """Factor -> number of levels."""
        return _effects.n_levels(self.design)

    @property
    def n_obs(self) -> int:
        """``nobs``."""
        return self.nobs

    @property
    def n_groups(self) -> dict[str, int]:
        """``ngroups``."""
        return self.ngroups

    @property
    def params(self) -> _view.Params:
        """The main numbers as one frozen record."""
        return _view.params(self)

    # Fixed effects -------------------------------------------------------------------

    @property
    def coefficients(self) -> np.ndarray:
        """Fixed effects, (p,)."""
        return np.asarray(self.estimates.beta)

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Names of the fixed effects."""
        return tuple(self.design.x_names)

    @property
    def fixef(self) -> dict[str, float]:
        """Name -> fixed effect."""
        return dict(zip(self.design.x_names, self.coefficients.tolist(), strict=True))

    @cached_property
    def se(self) -> np.ndarray:
        """Standard errors of the fixed effects, (p,)."""
        return _coefficients.standard_errors(self.coefficient_covariance())

    @cached_property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, (p, p)."""
        import pandas as pd

        names = list(self.design.x_names)
        return pd.DataFrame(self.coefficient_covariance(), index=names, columns=names)

    @property
    def coef(self) -> np.ndarray:
        """``coefficients``."""
        return self.coefficients

    @property
    def standard_errors(self) -> np.ndarray:
        """``se``."""
        return self.se

    @property
    def z_values(self) -> None:
        """None: a Gaussian model has t values, a generalised one z values."""
        return None

    @property
    def conf_int(self) -> np.ndarray:
        """Wald limits of the fixed effects at ``conf_level``, (p, 2)."""
        level = self.conf_level
        return _intervals.wald(self.coefficients, self.se, self.df_satterthwaite, level)

    @property
    def conf_level(self) -> float:
        """Coverage of ``conf_int``: 0.95, or what the fit was asked for."""
        return self.diagnostics.get("conf_level", 0.95)

    @property
    def t_values(self) -> np.ndarray:
        """Estimates over their standard errors, (p,)."""
        return self.coefficients / self.se

    @cached_property
    def df_satterthwaite(self) -> np.ndarray:
        """Degrees of freedom of the t-tests, (p,): Satterthwaite's, or n - p."""
        return self._degrees_of_freedom(self._ddf)

    @cached_property
    def p_values(self) -> np.ndarray:
        """Two-sided p-values of the t-tests, (p,)."""
        return _coefficients.t_p_values(self.t_values, self.df_satterthwaite)

    def coefficient_table(self, ddf: str | None = None) -> pd.DataFrame:
        """Estimate, standard error, df, t and p, one row a fixed effect."""
        ddf = self._check_ddf(ddf)
        se = _coefficients.standard_errors(self.coefficient_covariance(ddf))
        df = self._degrees_of_freedom(ddf)
        return _coefficients.table(self.design.x_names, self.coefficients, se, df)

    def coefficient_covariance(self, ddf: str | None = None) -> np.ndarray:
        """(p, p) covariance of the fixed effects; adjusted for "kenward-roger"."""
        if self._check_ddf(ddf) == "kenward-roger":
            return self._kenward_roger[0]
        return self.estimates.vcov

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        if ddf == "residual":
            return np.full(self.design.p, float(self.design.n - self.design.p))
        if ddf == "kenward-roger":
            return self._kenward_roger[1]
        return self._satterthwaite

    @cached_property
    def _satterthwaite(self) -> np.ndarray:
        from jaxglmm.results import inference

        return np.asarray(inference.satterthwaite(self))

    @cached_property
    def _kenward_roger(self) -> tuple[np.ndarray, np.ndarray]:
        from jaxglmm.results import inference

        return inference.kenward_roger(self)

    @property
    def denominator_df(self) -> np.ndarray:
        """Degrees of freedom of Wald tests and intervals, (p,); infinite for z."""
        return self._degrees_of_freedom(self._ddf)

    @property
    def ddf(self) -> str:
        """How degrees of freedom are counted: "satterthwaite" or "residual"."""
        return self._ddf

    def _check_ddf(self, ddf: str | None) -> str:
        ddf = self._ddf if ddf is None else ddf
        if ddf not in DDF:
            raise NotApplicableError(f"ddf={ddf!r} is not one of {', '.join(DDF)}")
        return ddf

    # Random effects ------------------------------------------------------------------

    @cached_property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Factor -> conditional modes, a frame of levels by columns."""
        return _effects.modes(self.design, self.estimates.b)

    @property
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """``ranef``."""
        return self.ranef

    @cached_property
    def ranef_cov(self) -> dict[str, np.ndarray]:
        """Factor -> conditional covariances given the parameters, (J, q, q)."""
        from jaxglmm.results.covariance import conditional_covariance

        factors = _effects.by_factor(self.design.terms)
        return dict(zip(factors, conditional_covariance(self), strict=True))

    @cached_property
    def varcorr(self) -> _components.VarCorr:
        """Term label -> its sd, corr and cov; the residual sd in ``varcorr.sigma``."""
        return _components.varcorr(self.design, self.estimates)

    @cached_property
    def var_components(self) -> tuple[_components.VarianceComponent, ...]:
        """Every variance as a record (group, name, variance, std_dev, corr)."""
        return _components.flat(self.design, self.estimates)

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of a row of weight one)."""
        return float(self.estimates.sigma)

    @property
    def residual_std(self) -> float:
        """``sigma``."""
        return self.sigma

    @property
    def residual_variance(self) -> float:
        """sigma squared."""
        return self.sigma**2

    @property
    def dispersion(self) -> float:
        """Scale of the family's variance; sigma squared in a Gaussian model."""
        return self.sigma**2

    @property
    def theta(self) -> np.ndarray:
        """Free entries of the relative factors, (m,), in lme4's order."""
        return np.asarray(self.estimates.theta)

    @cached_property
    def icc(self) -> _explained.ICC:
        """Factor -> intraclass correlation; ``.adjusted``, ``.unadjusted``.

        Called, ``icc(adjusted=True, by=None)``, it gives one of its numbers.
        """
        part = _explained.shares(self.design, self.estimates)
        return _explained.intraclass(self.design, self.estimates, part)

    def r2(self) -> _explained.R2:
        """Nakagawa's R squared: ``.marginal`` and ``.conditional``."""
        return _explained.r_squared(_explained.shares(self.design, self.estimates))

    # How good it is ------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """-2 log-likelihood (restricted under REML), with all constants."""
        return float(self.estimates.criterion)

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood (restricted under REML), with all constants."""
        return -self.criterion / 2

    @property
    def deviance(self) -> float:
        """``criterion``: -2 log-likelihood (restricted under REML)."""
        return self.criterion

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, thetas, and the residual sd."""
        return self.design.p + len(self.estimates.theta) + 1

    @property
    def df_resid(self) -> int:
        """n minus the number of parameters."""
        return self.nobs - self.npar

    @property
    def aic(self) -> float:
        """Akaike's criterion (of the restricted likelihood under REML)."""
        return self.criterion + 2 * self.npar

    @property
    def bic(self) -> float:
        """Schwarz's criterion, with n the number of rows."""
        return self.criterion + float(np.log(self.nobs)) * self.npar

    @property
    def converged(self) -> bool:
        """Whether the optimiser met its test of convergence."""
        return bool(self.estimates.converged)

    @property
    def is_singular(self) -> bool:
        """Whether a variance is zero or a correlation plus or minus one."""
        return bool(self.estimates.singular)

    @property
    def n_iter(self) -> int:
        """Steps of the optimiser."""
        return int(self.estimates.n_iter)

    @property
    def timing(self):
        """Seconds by stage, where they were taken."""
        return self.diagnostics.get("seconds")

    @property
    def backend_name(self) -> str:
        """Where it was computed."""
        return self.diagnostics.get("backend", "cpu")

    @property
    def status(self) -> str:
        """How the optimiser ended, in words."""
        return _diagnose.status_text(self.estimates)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        return tuple(n.text for n in _diagnose.notes(self.design, self.estimates))

    @cached_property
    def certificate(self):
        """How far the likelihood can be trusted, with numbers and advice.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> jg.glmm(formula, cbpp).certificate.verdict
            'trust'
        """
        from jaxglmm.results.posterior.certificate import of_maximum

        return of_maximum(self)

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

    # Rows ----------------------------------------------------------------------------

    @cached_property
    def linear_predictor(self) -> np.ndarray:
        """X beta + Z b + offset, (n,)."""
        return self.fixed_part + _predictor.random_part(
            self.design.terms, self.estimates.b
        )

    @cached_property
    def fixed_part(self) -> np.ndarray:
        """X beta + offset, (n,)."""
        d = self.design
        return _predictor.fixed_part(d.X, self.estimates.beta, d.offset)

    @property
    def fitted_values(self) -> np.ndarray:
        """Conditional means, (n,)."""
        return self.linear_predictor

    @cached_property
    def residuals(self) -> np.ndarray:
        """Response minus fitted values, (n,)."""
        return self.design.y - self.fitted_values

    def resid(self, type: str = "response") -> np.ndarray:
        """Residuals, (n,).

        Args:
            type: "response" (y - fitted), "pearson" (times the root of the weight) or
                "scaled" (Pearson over sigma: sd about one).
        """
        if type == "response":
            return self.residuals
        if type in ("pearson", "scaled"):
            w = self.design.weights
            pearson = self.residuals if w is None else np.sqrt(w) * self.residuals
            return pearson if type == "pearson" else pearson / self.sigma
        raise NotApplicableError(
            f"resid(type={type!r}): a linear mixed model has 'response', 'pearson' and "
            "'scaled' residuals"
        )

    # Asking it -----------------------------------------------------------------------

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
                "population" (random effects zero) or "marginal" (a level at random).
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
        _predict.check(re=re, type=type, interval=interval, new_levels=new_levels)
        return _predict.predict(
            self, newdata, re, se, interval, level, new_levels, offset
        )

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """New responses from the fitted model, (n, nobs).

        Args:
            n: number of data sets.
            seed: seed of numpy's generator.
            re: None draws new random effects, "conditional" keeps the modes.
        """
        new = _simulate.draws_new_effects(re)
        return _simulate.simulate(self.design, self.estimates, n, seed, new)

    def simulated_residuals(self, n: int = 250, seed=0, re: str | None = None):
        """Where each response lies among draws from the fit: uniform if all is well.

        Ranks as numbers between 0 and 1, ties broken at random (Dunn and Smyth 1996),
        with tests in which the draws judge the data: ``.uniformity``, ``.dispersion``,
        ``.outliers``, ``.by(group)``, ``.tests()``.

        Args:
            n: draws.
            seed: of the random numbers; equal seeds give equal residuals.
            re: None draws new random effects, and so looks at these too; "conditional"
                keeps the modes, and looks at the rows alone.

        Example:
            >>> import jaxglmm as jg
            >>> ticks = jg.datasets.load("grouseticks")
            >>> fit = jg.glmm("TICKS ~ YEAR + (1 | BROOD)", ticks, family="poisson")
            >>> residuals = fit.simulated_residuals(100, re="conditional")
            >>> residuals.scaled.shape, residuals.by("YEAR").index.tolist()
            ((403,), ['95', '96', '97'])
        """
        from jaxglmm.results.simulated import simulated_residuals

        return simulated_residuals(self, n, seed, re)

    def check(self, n: int = 250, seed=0, re: str | None = None):
        """Simulated residuals tested, and what else should be known, on a page.

        A p-value below 0.01 gets a verdict; several tests are made, and large data
        show deviations that do not matter: look at ``plot.simulated_residuals()`` too.

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
        from jaxglmm.results.checks import check

        return check(self, n, seed, re)

    def refit(self, y) -> Fit:
        """The same model for another response, (n,)."""
        from jaxglmm.results.bootstrap import refit

        return refit(self, y)

    def bootstrap(self, n: int = 1000, seed=0, **options):
        """Parametric bootstrap: n data sets simulated and fitted; a ``Fits``."""
        from jaxglmm.results.bootstrap import bootstrap

        return bootstrap(self, n, seed, **options)

    def profile(self, which=None, **options):
        """Profile likelihood of the parameters: ``.intervals(level)``, ``.zeta``."""
        from jaxglmm.results.profile import profile

        return profile(self, which, **options)

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

    def test(self, L, rhs=0.0, ddf: str | None = None) -> _hypotheses.WaldTest:
        """F-test (t-test for one row) of L beta = rhs.

        Args:
            L: (k, p) matrix or (p,) row; or a coefficient's name, a dict name ->
            weight,
                or a list of these.
            rhs: (k,) or a number.
            ddf: "satterthwaite", "kenward-roger" or "residual"; default as fitted.
        """
        return _hypotheses.test(self, L, rhs, self._check_ddf(ddf))

    def anova(self, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
        """F-tests of the terms: sum_sq, mean_sq, num_df, den_df, F, p.

        Args:
            type: 1 (in order), 2 (respecting marginality) or 3 (each after all others).
            ddf: "satterthwaite", "kenward-roger" or "residual"; default as fitted.
        """
        from jaxglmm.results.inference import anova_table

        return anova_table(self, type, self._check_ddf(ddf))

    def compare(self, *others: Fit, refit: bool | None = None):
        """Likelihood-ratio test against other fits of the same data.

        Args:
            *others: fits, any order.
            refit: REML fits again by ML: always, never, or (None) where their fixed
                effects differ.
        """
        from jaxglmm.results.inference import compare

        return compare((self, *others), refit=refit)

    def predictions(
        self,
        newdata=None,
        by=None,
        level: float = 0.95,
        *,
        type: str = "response",
        re: str = "population",
        offset=None,
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

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> table = jg.glmm(formula, cbpp).predictions(by="period", re="marginal")
            >>> table["estimate"].round(3).tolist()
            [0.216, 0.097, 0.086, 0.057]
        """
        means = self._means(type, re)
        return _marginal.predictions(means, newdata, by, level, offset)

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
        means = self._means(type, re)
        return _marginal.slopes(means, variable, newdata, by, level, offset)

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
                numeric variables at their means; "observed" over the rows of the data.
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

    def _variance_parameters(self):
        """Standard deviations and correlations, and their standard errors or None."""
        return _components.parameters(self.design, self.estimates), None

    # Showing it ----------------------------------------------------------------------

    def summary(self, ddf: str | None = None) -> _summary.Summary:
        """The fit on a page.

        Args:
            ddf: degrees of freedom of the t-tests: "satterthwaite", "kenward-roger" or
                "residual"; default as fitted.

        Returns:
            A string that shows itself and carries ``.coefficients``, ``.varcorr``, ...
        """
        return _summary.summarise(self, self._check_ddf(ddf))

    def tidy(
        self,
        effects="fixed",
        conf_int: bool = False,
        conf_level: float = 0.95,
        conf_method: str = "wald",
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """One row an estimate, with the columns of R's broom.mixed.

        Args:
            effects: "fixed", "ran_pars", "ran_vals", "all", or several of them.
            conf_int: also conf_low and conf_high.
            conf_level: their coverage.
            conf_method: "wald" (none for "ran_pars"), "profile" or "bootstrap".
            exponentiate: exp of the fixed effects and their limits: odds ratios
                (logit), ratios of means (log), hazard ratios (cloglog). Standard errors
                by the delta method; statistic and p-value stay the coefficient's.

        Raises:
            NotApplicableError: ``exponentiate`` with a link for which exp of a
                coefficient has no meaning.
        """
        return _frames.tidy(
            self, effects, conf_int, conf_level, conf_method, exponentiate
        )

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit."""
        return _frames.glance(self)

    def augment(self) -> pd.DataFrame:
        """The data with fitted values, residuals and X beta."""
        return _frames.augment(self)

    @property
    def plot(self) -> PlotAccessor:
        """Figures: ``.residuals()``, ``.qq()``, ``.ranef()``, ``.profile()``, ..."""
        return PlotAccessor(self)

    def __repr__(self) -> str:
        how = "REML" if self.reml else "ML"
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<Fit {self.formula} | {self.nobs} rows, {how} criterion "
            f"{self.criterion:.2f}{flags}>"
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # Keeping it ----------------------------------------------------------------------

    def save(self, path) -> None:
        """Write the fit to a file that ``load`` reads; no pickle in it."""
        _store.save(self, path)

    @staticmethod
    def load(path) -> Fit:
        """Read a fit that ``save`` wrote."""
        return _store.load(path)

    def kept_estimates(self) -> Estimates:
        """The estimates as a file keeps them."""
        return self.estimates

    def model_facts(self) -> dict | None:
        """Family and method as a file keeps them; None for a linear model."""
        return None

    def copy(self) -> Fit:
        """A copy that shares nothing that can be changed."""
        return _copy.deepcopy(self)

    def __getstate__(self) -> dict:
        kept = {name: self.__dict__[name] for name in ("design", "diagnostics", "_ddf")}
        return kept | {"_estimates": self.estimates, "_engine": None}


def _formula(design: Design) -> str:
    """A formula for a design that was made from arrays."""
    fixed = " + ".join("1" if n == "(Intercept)" else n for n in design.x_names) or "0"
    random = []
    for term in design.terms:
        has_intercept = "(Intercept)" in term.names
        names = ["1" if n == "(Intercept)" else n for n in term.names]
        columns = " + ".join(names if has_intercept else ["0", *names])
        bar = "||" if term.covariance == "diag" and len(names) > 1 else "|"
        random.append(f"({columns} {bar} {term.factor})")
    return f"{design.response} ~ {' + '.join([fixed, *random])}"
