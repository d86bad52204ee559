"""The fit of a generalised linear mixed model: what differs from a linear one.

Everything that ``Fit`` says holds here too; tests are asymptotic (z and chi-squared),
means pass through the inverse link, and the residual variance is the family's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import cut
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.estimate.generalised import GeneralisedFitted, LaplaceMarginal
from jaxglmm.fitting import components as _components
from jaxglmm.fitting import frequencies as _frequencies
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.model.families import FAMILIES, AbstractFamily
from jaxglmm.model.links import LINKS
from jaxglmm.postestimation.checking import diagnostics as _pathology
from jaxglmm.postestimation.checking import (
    generalised_variance_explained as _explained_generalised,
)
from jaxglmm.postestimation.checking import variance_explained as _explained
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction import residuals as _residuals
from jaxglmm.postestimation.report import frames as _frames
from jaxglmm.postestimation.report import params as _view
from jaxglmm.postestimation.report import summary as _summary
from jaxglmm.results.fit import Fit

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.generalised import GeneralisedEngine
    from jaxglmm.fitting.separation import Separation
    from jaxglmm.results.fits import Fits

DDF = ("asymptotic",)


def family_class(name: str) -> type[AbstractFamily] | None:
    """jaxglmm's own class of this name."""
    return {type(make()).name: type(make()) for make in FAMILIES.values()}.get(name)


def asdict_static(module: LaplaceMarginal | AbstractFamily) -> dict[str, Any]:
    """The options of a method or a family (its link aside), by name."""
    return {f.name: getattr(module, f.name) for f in fields(module) if f.name != "link"}


def from_facts(
    facts: dict[str, Any], design: Design, estimates: Estimates, diagnostics: dict
) -> GeneralisedFit:
    """The fit that ``model_facts`` and the rest of a file describe."""
    made = family_class(facts["family"])
    if made is None:
        raise DataError(f"the file names a family {facts['family']!r} that is unknown")
    family = made(facts["link"], **facts["options"])
    if "bayes" in facts:
        from jaxglmm.posterior.storage import restored

        return restored(facts["bayes"], design, family, estimates, diagnostics)
    marginal = LaplaceMarginal(**facts["integration"])
    return GeneralisedFit(design, estimates, family, marginal, diagnostics=diagnostics)


class GeneralisedFit(Fit):
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

    def __init__(
        self,
        design: Design,
        estimates: Estimates | Callable[[], Estimates],
        family: AbstractFamily,
        marginal: LaplaceMarginal,
        engine: GeneralisedEngine | None = None,
        diagnostics: dict | None = None,
    ):
        super().__init__(
            design, estimates, engine, diagnostics, compute_satterthwaite=False
        )
        self.family, self.marginal = family, marginal
        self._ddf = "asymptotic"

    def keep(self, fitted: GeneralisedFitted) -> None:
        """Remember the fit in internal coordinates (left behind when pickled)."""
        self._fitted = fitted

    # What was fitted -----------------------------------------------------------------

    @property
    def engine(self) -> GeneralisedEngine:
        """The engine that computes for this design, rebuilt where it was dropped."""
        if self._engine is None:
            from jaxglmm.fitting.generalised import build

            self._engine = build(self.design, self.family, self.marginal)
        return self._engine

    @property
    def family_name(self) -> str:
        """Name of the response's family."""
        return self.family.name

    @property
    def link_name(self) -> str:
        """Name of the link."""
        return self.family.link.name

    @property
    def method(self) -> str:
        """How the random effects were integrated out, in words."""
        return _summary.method(self.marginal) if self.design.terms else ""

    @property
    def params(self) -> _view.GeneralisedParams:
        """The main numbers as one frozen record."""
        return _view.generalised_params(self)

    # Fixed effects -------------------------------------------------------------------

    def coefficient_covariance(self, ddf: str | None = None) -> np.ndarray:
        """(p, p) covariance of beta, from the exact joint Hessian with theta and phi.

        Unlike a covariance given theta it has the uncertainty of the variance
        parameters in it, as lme4's (``use.hessian``) and glmmTMB's have.
        """
        self._check_ddf(ddf)
        if self.estimates.vcov is not None:
            return self.estimates.vcov
        return self._beta_covariance

    @cached_property
    def _beta_covariance(self) -> np.ndarray:
        return self.engine.beta_covariance(self._parameter_root)

    @cached_property
    def _parameter_root(self) -> np.ndarray:
        return self.engine.parameter_root(self)

    @cached_property
    def parameter_covariance(self) -> np.ndarray:
        """(k, k) of the internal (beta, theta, phi)."""
        return self._parameter_root @ self._parameter_root.T

    @property
    def z_values(self) -> np.ndarray:
        """Estimates over their standard errors, (p,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.coefficients / self.se

    @property
    def t_values(self) -> None:
        """None: a generalised model has z values."""
        return None

    @property
    def df_satterthwaite(self) -> None:
        """None: tests are asymptotic."""
        return None

    @property
    def conf_int(self) -> np.ndarray:
        """Wald limits of the fixed effects at ``conf_level``, (p, 2)."""
        return self.confint(self.conf_level).to_numpy()

    @cached_property
    def p_values(self) -> np.ndarray:
        """Two-sided p-values of the z-tests, (p,)."""
        return self.coefficient_table()["p_value"].to_numpy()

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        return np.full(self.design.p, np.inf)

    def _check_ddf(self, ddf: str | None) -> str:
        if not _arguments.is_among(ddf, (None, *DDF)):
            raise NotApplicableError(
                f"ddf={_arguments.shown(ddf)}: tests of a generalised model are "
                "asymptotic (z and chi-squared). For small samples use "
                "confint(method='profile') or bootstrap()"
            )
        return "asymptotic"

    # Scale ---------------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        """The family's dispersion parameter as glmmTMB reports it; 1 without one."""
        return float(self.family.sigma(self.estimates.phi))

    @property
    def dispersion_names(self) -> tuple[str, ...]:
        """What the family's dispersion parameters are called."""
        return tuple(self.family.phi_names[: len(self.estimates.phi)])

    @property
    def dispersion(self) -> float:
        """Natural value of the family's dispersion parameter; 1 without one."""
        named = self.family.dispersion(self.estimates.phi)
        return next(iter(named.values()), 1.0)

    @cached_property
    def var_components(self) -> tuple[_components.VarianceComponent, ...]:
        """Every variance as a record (group, name, variance, std_dev, corr)."""
        return _components.flat(self.design, self.estimates, residual=False)

    @cached_property
    def varcorr(self) -> _components.VarCorr:
        """Term label -> its sd, corr and cov, on the scale of the linear predictor."""
        return _components.varcorr(self.design, self.estimates, residual=False)

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, thetas, dispersion parameters."""
        e = self.estimates
        return self.design.p + len(e.theta) + len(e.phi)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        return tuple(note.text for note in _pathology.notes(self))

    @cached_property
    def separation(self) -> Separation | None:
        """Coefficients that the likelihood drives to infinity; None where none are.

        A record with ``coefficients`` (names), ``rows`` (positions of the rows that are
        fitted perfectly), ``cells`` (the levels they share) and ``directions``, (p, r).
        Albert and Anderson (1984).

        Example:
            >>> import jaxglmm as jg, warnings
            >>> data = {"y": [0, 0, 0, 1, 0, 1], "f": ["a", "a", "a", "b", "b", "b"]}
            >>> with warnings.catch_warnings():
            ...     warnings.simplefilter("ignore", jg.SeparationWarning)
            ...     fit = jg.glmm("y ~ f", data)
            >>> fit.separation.cells
            ('f = a',)
        """
        return _pathology.separated(self)

    @cached_property
    def deviance(self) -> float:
        """Conditional deviance at the modes, as lme4's ``deviance``.

        Not -2 log-likelihood, which is ``criterion``.
        """
        return float(np.sum(_residuals.resid(self, "deviance") ** 2))

    # Rows ----------------------------------------------------------------------------

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Conditional means, (n,); for the binomial kind, probabilities."""
        return np.asarray(self.family.mean(self.linear_predictor), float)

    @cached_property
    def residuals(self) -> np.ndarray:
        """Response (binomial kind: proportion) minus fitted values, (n,)."""
        return _residuals.resid(self, "response")

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals given the modes, (n,).

        Args:
            type: "deviance", "pearson", "response", "working" (on the scale of the
                linear predictor), "scaled" (Pearson) or "quantile" (randomised where
                the response is discrete: standard normal if the model holds; Dunn and
                Smyth 1996).
            seed: of the randomisation.
        """
        return _residuals.resid(self, type, seed)

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """New responses from the fitted model, (n, nobs); binomial kind: successes.

        One response for each row: prior weights play no part, and a warning says so.
        ``bootstrap``, ``simulated_residuals``, ``check`` and the tests beside them take
        weights of counts for frequencies: a row of weight w stands for w responses.

        Args:
            n: number of data sets.
            seed: seed of numpy's generator.
            re: None draws new random effects, "conditional" keeps the modes.
        """
        _simulate.draws_new_effects(re)
        if _frequencies.weighted(self.design, self.family):
            _frequencies.warn_single()
        return self._simulate(n, seed, re)

    def _simulate(self, n: int, seed, re: str | None) -> np.ndarray:
        """``simulate`` without its warning."""
        new = _simulate.draws_new_effects(re)
        return _simulate.simulate_family(
            self.design, self.estimates, self.family, n, seed, new
        )

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
        trials=None,
    ):
        """Predicted means for the data of the fit or for new data.

        Means of the binomial kind are probabilities; ``trials`` makes them counts.

        Args:
            newdata: data frame, mapping of arrays or list of dicts; default the data of
                the fit.
            re: "conditional" (with the random effects of each row's levels),
                "population" (random effects zero) or "marginal" (the mean over random
                effects, which needs no grouping factors in new data).
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

        _predict.check(
            re=re, type=type, se=se, interval=interval, new_levels=new_levels
        )
        return predict(
            self,
            newdata,
            re=re,
            type=type,
            se=se,
            interval=interval,
            level=level,
            new_levels=new_levels,
            offset=offset,
            trials=trials,
        )

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction import means
        from jaxglmm.postestimation.prediction.generalised_means import GeneralisedMeans

        means.check(type, re)
        return GeneralisedMeans(self, type, re)

    def _variance_parameters(self):
        from jaxglmm.postestimation.inference.component_errors import (
            variance_parameters,
        )

        return variance_parameters(self)

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

        fit = _frequencies.unfolded_fit(self, "overdispersion()", keep=refit)
        return overdispersion(fit, n, seed, re, refit)

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

        fit = _frequencies.unfolded_fit(self, "zero_inflation()", keep=refit)
        return zero_inflation(fit, n, seed, re, refit)

    def simulated_residuals(self, n: int = 250, seed=0, re: str | None = None):
        """As for a linear model; rows that stand for several, as often as that.

        With weights of counts, which are frequencies, there is one residual for each
        response that a row stands for.
        """
        from jaxglmm.postestimation.checking.simulated_residuals import (
            simulated_residuals,
        )

        fit = _frequencies.unfolded_fit(self, "simulated_residuals()")
        return simulated_residuals(fit, n, seed, re)

    def check(self, n: int = 250, seed=0, re: str | None = None):
        """Simulated residuals tested, and what else should be known, on a page.

        As for a linear model, with the share of zeros and Pearson's statistic of
        counts; rows that stand for several (weights of counts), as often as that.
        """
        from jaxglmm.postestimation.checking.checks import check

        return check(_frequencies.unfolded_fit(self, "check()"), n, seed, re)

    def refit(self, y) -> GeneralisedFit:
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
        from jaxglmm.postestimation.generalised_bootstrap import refit

        return refit(self, y)

    def bootstrap(self, n: int = 1000, seed=0, progress: bool = False) -> Fits:
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
        from jaxglmm.postestimation.generalised_bootstrap import bootstrap

        fit = _frequencies.unfolded_fit(self, "bootstrap()", keep=True)
        return bootstrap(fit, n, seed, progress)

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
        from jaxglmm.postestimation.profile.curves import profile
        from jaxglmm.postestimation.profile.generalised import curves

        return profile(self, which, curves)

    def __repr__(self) -> str:
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<Fit {cut(self.formula, 90)} | {self.family_name} ({self.link_name}), "
            f"{self.nobs} rows, criterion {self.criterion:.2f}{flags}>"
        )

    # Keeping it ----------------------------------------------------------------------

    def kept_estimates(self) -> Estimates:
        """The estimates with the covariance of beta filled in."""
        from dataclasses import replace

        return replace(self.estimates, vcov=self.coefficient_covariance())

    def model_facts(self) -> dict[str, Any]:
        """Family, link and method by name."""
        family = self.family
        if family_class(family.name) is not type(family):
            raise NotApplicableError(
                f"family {family.name!r} is not one of jaxglmm's, so a file cannot "
                "name it; pickle the fit instead"
            )
        if family.link.name not in LINKS:
            raise NotApplicableError(
                f"link {family.link.name!r} is not one of jaxglmm's, so a file cannot "
                "name it; pickle the fit instead"
            )
        return {
            "family": family.name,
            "link": family.link.name,
            "options": asdict_static(family),
            "integration": asdict_static(self.marginal),
        }

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__() | {"_estimates": self.kept_estimates()}
        return state | {"family": self.family, "marginal": self.marginal}
