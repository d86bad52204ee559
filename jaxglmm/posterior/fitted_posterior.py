"""A fitted Bayesian model: a posterior behind the numbers of a fitted model.

Point estimates are posterior means, standard errors posterior standard deviations,
intervals quantiles. What belongs to maximum likelihood alone is None or NaN.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.fitting import predictor as _predictor
from jaxglmm.fitting import residuals as _residuals
from jaxglmm.fitting.estimates import Estimates, Unread
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.fitting.kinds import kind_of, record
from jaxglmm.fitting.random_effects import modes
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import Design
from jaxglmm.integrate.marginals import integrator
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.distributions import Priors
from jaxglmm.posterior import notes as _notes
from jaxglmm.posterior import predictive as _predictive
from jaxglmm.posterior import storage as _storage
from jaxglmm.posterior.draws import Posterior

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.posterior.engine import PosteriorEngine


class FittedPosterior(FittedGeneralised):
    """A Bayesian mixed model, as a record; ``PosteriorFit`` says its arguments."""

    has_likelihood: ClassVar[bool] = False

    def __init__(
        self,
        design: Design,
        family: AbstractFamily,
        priors: Priors | None,
        bayes: BayesMethod,
        posterior: Posterior,
        estimates: Estimates | Unread,
        engine: PosteriorEngine | None = None,
        diagnostics: dict | None = None,
    ):
        marginal = integrator(nodes=posterior.facts.get("nodes", 1))
        super().__init__(design, estimates, family, marginal, None, diagnostics)
        self.given_priors, self.bayes, self._posterior = priors, bayes, posterior
        self._density = engine

    # Another of its kind ----------------------------------------------------------

    def like(
        self,
        design: Design,
        estimates: Estimates | Unread,
        engine: Any = None,
        diagnostics: dict | None = None,
    ) -> Self:
        """The same posterior for another design."""
        own = self.family, self.given_priors, self.bayes, self.posterior
        return type(self)(design, *own, estimates, engine, diagnostics)

    def vcov_kinds(self) -> tuple[str, ...]:
        """None: a posterior has no estimator whose errors could be."""
        return ()

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        diagnostics, design = dict(saved.diagnostics), saved.design
        arrays = diagnostics.pop(_storage.KEY, None)
        found = _storage.restored(saved.facts["bayes"], arrays, design)
        kind = kind_of(saved.facts["family"], bool(design.parts))
        family = record(kind).restored(saved.without("bayes")).family
        return cls(design, family, *found, saved.estimates, None, diagnostics)

    def model_facts(self) -> dict[str, Any]:
        """Family, link, method and priors by name."""
        own = _storage.facts(self.bayes, self.given_priors, self.posterior)
        return self.at_means.model_facts() | {"bayes": own}

    @property
    def at_means(self) -> FittedGeneralised:
        """The record of a fit whose estimates are the posterior means."""
        kind = kind_of(self._family.name, bool(self.design.parts))
        own = self._family, self.marginal, None, {}
        return record(kind)(self.design, self.estimates, *own)

    def kept_estimates(self) -> Estimates:
        """The estimates; their covariance is in them."""
        return self.estimates

    def kept_diagnostics(self) -> dict[str, Any]:
        """The diagnostics with the draws, as a file keeps them."""
        return self.diagnostics | {_storage.KEY: _storage.arrays(self.posterior)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "given_priors": self.given_priors,
            "bayes": self.bayes,
            "_posterior": self.posterior,
            "_density": None,
        }

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
        spread = self.posterior.moments.effects_sd
        out = modes(self.design, [spread[t.label] for t in self.design.terms])
        for term in self.design.terms:
            if term.known is not None:  # the columns' are not those of the levels
                sd = self.posterior.effects(term.label).std(axis=0, ddof=1)
                frame = out[term.factor]
                out[term.factor] = frame.__class__(sd, frame.index, frame.columns)
        return out

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
        return self.limits(self.conf_level).to_numpy()

    def limits(self, level: float, which: str = "coefficients") -> pd.DataFrame:
        """lower and upper of central intervals, of "coefficients" or "all"."""
        table = self.posterior.summary(level)[["lower", "upper"]]
        return table if which == "all" else table.loc[list(self.design.x_names)]

    def coefficient_table(self, ddf: str | None = None) -> pd.DataFrame:
        """Posterior mean, sd and 95 per cent interval of every coefficient."""
        table = self.posterior.summary().loc[list(self.design.x_names)]
        names = {"mean": "estimate", "sd": "std_error"}
        return table.rename(columns=names)[["estimate", "std_error", "lower", "upper"]]

    # How good it is ---------------------------------------------------------------

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

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        return _notes.notes(self.design, self.estimates, self.posterior, self.bayes)

    @property
    def status(self) -> str:
        """How the search for the mode ended."""
        e = self.estimates
        return _status.message(e.status, steps=e.n_iter, decrement=e.decrement)

    # Rows -------------------------------------------------------------------------

    @cached_property
    def linear_predictors(self) -> np.ndarray:
        """X beta + Z b + offset at the posterior means, (K, n)."""
        d, e = self.design, self.estimates
        fixed = _predictor.fixed_parts(d.X, e.beta, d.offset, d.columns)
        return fixed + _predictor.random_parts(d.terms, e.b, len(d.columns))

    @property
    def linear_predictor(self) -> np.ndarray:
        """The same of the mean, (n,)."""
        return self.linear_predictors[0]

    @property
    def fixed_part(self) -> np.ndarray:
        """X beta + offset of the mean at the posterior mean, (n,)."""
        d = self.design
        return _predictor.fixed_parts(d.X, self.estimates.beta, d.offset, d.columns)[0]

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals at the posterior means, (n,).

        Args:
            type: "deviance", "pearson", "response", "working", "scaled" or "quantile";
                of a model with zi= or dispersion= not "working".
            seed: of the randomisation of quantile residuals.
        """
        if not self.design.parts:
            return super().resid(type, seed)
        if type == "response":
            binomial = self.family.family_kind == "binomial"
            size = self.design.trials if binomial else None
            return self.design.y / (1.0 if size is None else size) - self.fitted_values
        own = self.design, self.family, self.estimates.phi, self.linear_predictors
        return _residuals.of_components(*own, type, seed)

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Posterior means of the rows' means, (n,)."""
        return _predictive.fitted(self.design, self.family, self.posterior)

    @property
    def population_means(self) -> np.ndarray:
        """The same with random effects of zero, (n,)."""
        own = self.design, self.family, self.posterior
        return _predictive.population(*own, link=False)

    @property
    def population_predictor(self) -> np.ndarray:
        """Posterior means of linear predictors with random effects of zero, (n,)."""
        own = self.design, self.family, self.posterior
        return _predictive.population(*own, link=True)

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """(n, nobs) data sets from the posterior predictive distribution.

        Args:
            n: number of data sets, each from one draw of the parameters.
            seed: of numpy's generator.
            re: None draws new random effects, "conditional" keeps the draw's own.
        """
        return super().simulate(n, seed, re)

    def drawn(self, n: int, seed, re: str | None) -> np.ndarray:
        """``simulate`` without its warning."""
        return _predictive.simulate(
            self.design, self.family, self.posterior, n, seed, re
        )
