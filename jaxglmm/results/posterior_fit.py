"""The fit of a Bayesian mixed model: a posterior behind the questions of ``Fit``.

Point estimates are posterior means, standard errors posterior standard deviations,
intervals quantiles; predictions, slopes and contrasts are made of the draws. What
belongs to maximum likelihood alone (p-values, profiles, analyses of variance,
likelihood-ratio tests) is refused with what to ask instead, and ``aic`` and ``bic`` are
NaN.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._brief import cut
from jaxglmm._errors import NotApplicableError, UnboundedLikelihoodError
from jaxglmm.estimate.generalised import LaplaceMarginal
from jaxglmm.estimate.methods import MAP, NUTS, VB, BayesMethod, NestedLaplace
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import pack
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.distributions import Priors
from jaxglmm.posterior.draws import Posterior
from jaxglmm.posterior.run import Outcome
from jaxglmm.postestimation.prediction import posterior as _predictive
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.report import posterior as _summary
from jaxglmm.results.generalised_fit import GeneralisedFit

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.posterior.certificate import Certificate
    from jaxglmm.posterior.engine import PosteriorEngine
    from jaxglmm.structure.rows_of_design import RowData

PARAMETERS = ("coefficients", "all")  # of which intervals are asked for


class PosteriorFit(GeneralisedFit):
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

    def __init__(
        self,
        design: Design,
        family: AbstractFamily,
        priors: Priors | None,
        bayes: BayesMethod,
        posterior: Posterior,
        estimates: Estimates,
        engine: PosteriorEngine | None = None,
        diagnostics: dict | None = None,
    ):
        marginal = LaplaceMarginal("observed", posterior.facts.get("nodes", 1))
        super().__init__(design, estimates, family, marginal, None, diagnostics)
        self.given_priors, self.bayes, self._posterior = priors, bayes, posterior
        self._density = engine

    # What was fitted --------------------------------------------------------------

    @property
    def density(self) -> PosteriorEngine:
        """The posterior density, to evaluate again; rebuilt where it was dropped."""
        if self._density is None:
            from jaxglmm.posterior.engine import build

            self._density = build(self.design, self.family, self.given_priors)
        return self._density

    @property
    def priors(self):
        """Every parameter's prior, given or by default; it prints itself."""
        return self.density.resolved

    @property
    def method(self) -> str:
        """How the posterior was found, in words."""
        return self.posterior.method

    @property
    def posterior(self) -> Posterior:
        """Draws with names, moments, and how far to trust them."""
        return self._posterior

    @property
    def khat(self) -> float | None:
        """Pareto k-hat of the importance weights; below 0.7 is good."""
        return self.posterior.khat

    @cached_property
    def certificate(self) -> Certificate:
        """How far the approximation can be trusted, with numbers and advice."""
        from jaxglmm.posterior.certificate import of_posterior

        return of_posterior(self)

    # Numbers ----------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual standard deviation (Gaussian), else 1."""
        return float(self.posterior.moments.dispersion.get("sigma", 1.0))

    @property
    def dispersion(self) -> float:
        """Posterior mean of the dispersion parameter; 1 where there is none."""
        values = list(self.posterior.moments.dispersion.values())
        return float(values[0]) if values else 1.0

    @cached_property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Factor -> posterior means of the random effects, levels by columns."""
        return super().ranef

    @cached_property
    def ranef_sd(self) -> dict[str, pd.DataFrame]:
        """Factor -> posterior standard deviations of the random effects."""
        from jaxglmm.fitting.random_effects import modes

        spread = self.posterior.moments.effects_sd
        return modes(self.design, [spread[t.label] for t in self.design.terms])

    @cached_property
    def ranef_cov(self) -> dict[str, np.ndarray]:
        """Factor -> posterior covariances of its effects, (J, q, q)."""
        out: dict[str, list[np.ndarray]] = {}
        for term in self.design.terms:
            out.setdefault(term.factor, []).append(self.posterior.effects(term.label))
        joined = {k: np.concatenate(v, axis=2) for k, v in out.items()}
        return {
            k: np.einsum("sji,sjk->jik", b - b.mean(0), b - b.mean(0)) / (len(b) - 1)
            for k, b in joined.items()
        }

    @property
    def z_values(self) -> None:
        """None: a posterior has intervals and probabilities, not tests."""
        return None

    @property
    def p_values(self) -> None:
        """None: see ``posterior.frame()`` for the probability of any statement."""
        return None

    @property
    def conf_int(self) -> np.ndarray:
        """(p, 2) central intervals of the coefficients at ``conf_level``."""
        return self.confint(self.conf_level).to_numpy()

    def coefficient_table(self, ddf: str | None = None) -> pd.DataFrame:
        """Posterior mean, sd and 95 per cent interval of every coefficient."""
        table = self.posterior.summary().loc[list(self.design.x_names)]
        names = {"mean": "estimate", "sd": "std_error"}
        return table.rename(columns=names)[["estimate", "std_error", "lower", "upper"]]

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
        table = self.posterior.summary(level)[["lower", "upper"]]
        return table if which == "all" else table.loc[list(self.design.x_names)]

    # How good it is ---------------------------------------------------------------

    has_likelihood = False

    @property
    def log_likelihood(self) -> float:
        """Posterior mean of the log-likelihood, random effects integrated out.

        NaN where the method does not find it. Not the maximum that ``anova`` compares.
        """
        return super().log_likelihood

    @property
    def criterion(self) -> float:
        """-2 times ``log_likelihood``."""
        return super().criterion

    @property
    def aic(self) -> float:
        """NaN: defined for maximum likelihood. See ``log_evidence`` and ``loo``."""
        return np.nan

    @property
    def bic(self) -> float:
        """NaN: defined for maximum likelihood. See ``log_evidence`` and ``loo``."""
        return np.nan

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit: what a posterior has."""
        return _summary.glance(self)

    def in_words(self) -> str:
        """The evidence, or its lower bound."""
        p = self.posterior
        if p.log_evidence is not None:
            return f"log marginal likelihood {p.log_evidence:.3f}"
        return "" if p.elbo is None else f"evidence lower bound {p.elbo:.3f}"

    @property
    def log_evidence(self) -> float | None:
        """Log marginal likelihood of the data, parameters integrated out."""
        return self.posterior.log_evidence

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        return _summary.notes(self)

    @property
    def status(self) -> str:
        """How the search for the mode ended."""
        e = self.estimates
        return _status.message(e.status, steps=e.n_iter, decrement=e.decrement)

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

    # Rows -------------------------------------------------------------------------

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Posterior means of the rows' means, (n,)."""
        return _predictive.fitted(self)

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
            type: "response", or "link" for the linear predictor.
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
        _predict.check(
            re=re, type=type, se=se, interval=interval, new_levels=new_levels
        )
        return _predictive.predict(
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
            seed=seed,
        )

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """(n, nobs) data sets from the posterior predictive distribution.

        Args:
            n: number of data sets, each from one draw of the parameters.
            seed: of numpy's generator.
            re: None draws new random effects, "conditional" keeps the draw's own.
        """
        return super().simulate(n, seed, re)

    def _simulate(self, n: int, seed, re: str | None) -> np.ndarray:
        return _predictive.simulate(self, n, seed, re)

    # Asking it --------------------------------------------------------------------

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

    def refit(self, y, **options: Any) -> PosteriorFit:
        """The same model, priors and method for another response."""
        from dataclasses import replace

        from jaxglmm.postestimation.generalised_bootstrap import response_again

        kind = self.family.family_kind
        response, trials = response_again(self.design, kind, y)
        self.family.check(response, trials, self.design.rows)
        design = replace(self.design, y=response, trials=trials)
        return fit_posterior(design, self.family, self.bayes, self.given_priors)

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

    def anova(self, type: int = 3, ddf: str | None = None):
        """Refused: F-tests are for maximum likelihood."""
        raise NotApplicableError(
            "an analysis of variance tests terms by maximum likelihood; of a posterior "
            "ask contrasts() or test(L) for its differences, or compare with the fit "
            "that leaves a term out by log_evidence or fit.loo()"
        )

    def _means(self, type: str, re: str):
        from jaxglmm.postestimation.prediction import means
        from jaxglmm.postestimation.prediction.posterior_means import PosteriorMeans

        means.check(type, re)
        return PosteriorMeans(self, type, re)

    def profile(self, which=None, **options: Any):
        """Refused: the posterior's own marginals are in ``posterior``."""
        raise NotApplicableError(
            "a posterior has no profile likelihood; its marginals are in "
            "fit.posterior.frame(), or profile the fit by maximum likelihood"
        )

    def bootstrap(self, n: int = 1000, seed=0, **options: Any):
        """Refused: uncertainty is in the draws."""
        raise NotApplicableError(
            "a posterior needs no bootstrap: its draws are in fit.posterior; "
            "fit.simulate(n) draws new data from it"
        )

    def compare(self, *others: Any, refit: bool | None = None):
        """Refused: models are compared by evidence or by ``loo``."""
        raise NotApplicableError(
            "likelihood-ratio tests compare fits by maximum likelihood; compare "
            "posteriors by log_evidence, by fit.loo(), or by arviz.compare of "
            "fit.to_arviz()"
        )

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

    # Keeping it -------------------------------------------------------------------

    def save(self, path) -> None:
        """Write the fit and its draws to a file that ``jaxglmm.load`` reads."""
        from jaxglmm.fitting import storage as store
        from jaxglmm.posterior.storage import with_arrays

        store.save(with_arrays(self), path)

    def model_facts(self) -> dict[str, Any]:
        """Family, link, method and priors by name."""
        from jaxglmm.posterior.storage import facts

        return super().model_facts() | {"bayes": facts(self)}

    def kept_estimates(self) -> Estimates:
        """The estimates; their covariance is in them."""
        return self.estimates

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return state | {
            "given_priors": self.given_priors,
            "bayes": self.bayes,
            "_posterior": self.posterior,
            "_density": None,
        }


def fit_posterior(
    design: Design,
    family: AbstractFamily,
    method: BayesMethod,
    priors: Priors | None,
    diagnostics: dict | None = None,
    data: RowData | None = None,
) -> PosteriorFit:
    """Build, run, name; data: rows of the design where they are built already."""
    from jaxglmm.posterior import draws as _posterior
    from jaxglmm.posterior import engine as posterior_engine
    from jaxglmm.posterior import run as posterior_run

    engine = posterior_engine.build(design, family, priors, data)
    out = posterior_run.run(engine, method)
    words = describe(method, out)
    found = _posterior.posterior(engine, out, words)
    facts = {} if diagnostics is None else diagnostics
    facts.setdefault("seconds", {}).update(out.seconds)
    facts["system"] = type(engine.data.rows).__name__
    return PosteriorFit(
        design,
        family,
        priors,
        method,
        found,
        estimates(design, found, out),
        engine,
        facts,
    )


def check_response(
    design: Design, family: AbstractFamily, priors: Priors | None
) -> None:
    """Refuse a response that the family cannot have produced.

    One whose likelihood has no maximum, such as successes alone, is what proper priors
    are for.
    """
    from jaxglmm.model.priors.build import resolve

    try:
        family.check(design.y, design.trials, design.rows)
    except UnboundedLikelihoodError:
        sds = [prior.sd for prior in resolve(design, family, priors).coefficients]
        if not np.isfinite(sds).all():
            raise


def describe(method: BayesMethod, out: Outcome) -> str:
    """A method in words."""
    inside = "Laplace"
    if out.marginal is not None and out.marginal.nodes > 1:
        inside = f"{out.marginal.nodes}-node quadrature"
    if isinstance(method, NestedLaplace):
        return f"importance sampling of the marginal posterior ({inside})"
    if isinstance(method, MAP):
        return f"mode of the marginal posterior ({inside}), Gaussian with skewness"
    if isinstance(method, NUTS):
        if out.marginal is None:
            return "NUTS on the joint density"
        return f"NUTS on the marginal posterior ({inside})"
    assert isinstance(method, VB)
    if method.family == "mean-field":
        return "mean-field variational Bayes"
    if method.family == "stochastic":
        return "stochastic variational Bayes"
    nested = ", nested" if out.facts.get("nested") else ""
    return f"Gaussian variational Bayes{nested}"


def estimates(design: Design, found: Posterior, out: Outcome) -> Estimates:
    """Posterior means where other fits have estimates."""
    m = found.moments
    lam = []
    for term in design.terms:
        sd = m.sd[term.label]
        R = m.corr.get(term.label, np.eye(len(sd)))
        lam.append(np.linalg.cholesky(np.outer(sd, sd) * R + 0.0))
    b = tuple(
        m.effects.get(t.label, np.full((t.n_levels, len(t.names)), np.nan))
        for t in design.terms
    )
    phi = np.array([math.log(v) for v in m.dispersion.values()])
    log_lik = np.nan if out.log_lik is None else float(np.mean(out.log_lik))
    facts = out.facts
    return Estimates(
        beta=m.beta,
        vcov=m.beta_cov,
        sigma=1.0,
        lam=tuple(lam),
        theta=pack(design, lam),
        b=b,
        criterion=-2 * log_lik,
        reml=False,
        converged=out.status == _status.CONVERGED,
        singular=False,
        status=out.status,
        n_iter=int(facts.get("steps", 0)),
        decrement=float(facts.get("decrement", np.nan)),
        phi=phi,
    )
