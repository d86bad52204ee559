"""What a fit is: a design and what was estimated for it, with its numbers by name.

The record below all that can be asked. Questions (``postestimation``, ``plots``,
``export``) take one and say nothing of how it is shown; ``results`` has the faces.
``FittedModel`` is a linear mixed model; other kinds say what differs
(``FittedGeneralised``, ``posterior.fitted_posterior``).

Building one costs nothing: a warm fit takes a fraction of a millisecond, a data frame
takes more, so every table is made when it is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from jaxglmm.fitting import components as _components
from jaxglmm.fitting import convergence as _diagnose
from jaxglmm.fitting import predictor as _predictor
from jaxglmm.fitting import random_effects as _effects
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.fitting.estimates import Estimates, Unread
from jaxglmm.fitting.fixed_effects import FixedEffects
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import Design, formula_of

if TYPE_CHECKING:
    import pandas as pd

F = TypeVar("F", bound="FittedModel")
T = TypeVar("T")


def once(question: Callable[[F], T]) -> Callable[[F], T]:
    """The same function of a fit, whose answer is kept on the fit.

    Left behind when the fit is copied or pickled, as its cached properties are.
    """

    @wraps(question)
    def asked(fit: F) -> T:
        if question not in fit.answers:
            fit.answers[question] = question(fit)
        return fit.answers[question]

    return asked


class FittedModel(FixedEffects):
    """A fitted linear mixed model, as a record; arguments are ``FixedEffects``'s."""

    has_likelihood: ClassVar[bool] = True  # a maximum of it, to compare with others

    @cached_property
    def answers(self) -> dict[Callable[[Any], Any], Any]:
        """What functions of this fit have found; see ``once``."""
        return {}

    @property
    def root(self) -> np.ndarray | None:
        """(p, p) with the inner products of X, where its rows are not in memory."""
        return None

    def working(self) -> tuple[Any, np.ndarray]:
        """The Gaussian problem in internal coordinates, and theta (m,)."""
        return self.engine.problem, self.engine.theta(self.estimates)

    # Another of its kind -------------------------------------------------------------

    def like(
        self,
        design: Design,
        estimates: Estimates | Unread,
        engine: object = None,
        diagnostics: dict | None = None,
    ) -> Self:
        """Another fit of this kind, of the same family and options."""
        plain = self._ddf == "residual"
        out = type(self)(
            design, estimates, engine, diagnostics, compute_satterthwaite=not plain
        )
        out._robust = self._robust
        return out

    def with_design(self, design: Design) -> Self:
        """The same estimates for other rows."""
        out = copy.copy(self)  # by __getstate__: nothing that was computed from rows
        out.design = design
        return out

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        exact = saved.ddf == "satterthwaite"
        own = saved.design, saved.estimates, None, saved.diagnostics
        return cls(*own, compute_satterthwaite=exact)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: self.__dict__[name] for name in ("design", "diagnostics", "_ddf")}
        own = {"_estimates": self.kept_estimates(), "_robust": self._robust}
        return kept | own | {"_engine": None}

    def kept_estimates(self) -> Estimates:
        """The estimates as a file keeps them."""
        return self.estimates

    def kept_diagnostics(self) -> dict[str, Any]:
        """The diagnostics as a file keeps them."""
        return self.diagnostics

    def unfolded(self, what: str, keep: bool = False) -> Self:
        """The same estimates for the rows that draws are made for: here the same."""
        return self

    def model_facts(self) -> dict[str, Any] | None:
        """Family and method as a file keeps them; None for a linear model."""
        return None

    # What was fitted -----------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula, or one that says the same where arrays were given."""
        return self.design.formula or formula_of(self.design)

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
        """Number of rows used; those of weight zero are not."""
        return self.design.n_counted

    @property
    def ngroups(self) -> dict[str, int]:
        """Factor -> number of levels with rows that were used."""
        return _effects.n_levels(self.design)

    @property
    def n_obs(self) -> int:
        """``nobs``."""
        return self.nobs

    @property
    def n_groups(self) -> dict[str, int]:
        """``ngroups``."""
        return self.ngroups

    # Random effects ------------------------------------------------------------------

    @cached_property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Factor -> conditional modes, a frame of levels by columns."""
        return _effects.modes(self.design, self.estimates.b)

    @property
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """``ranef``."""
        return self.ranef

    def coef_by(self, factor: str | None = None):
        """Coefficients of every level: fixed and random effects together.

        What lme4 calls ``coef``; here ``fit.coef`` is the array of fixed effects.

        Args:
            factor: a grouping factor; may be left out where there is only one.

        Returns:
            A frame of levels by coefficients. A random slope without a fixed effect
            varies around zero; fixed effects that do not vary stand in every row.

        Raises:
            NotApplicableError: no such factor, or several and none named.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.coef_by("Subject").loc["308"].round(2).tolist()
            [253.66, 19.67]
        """
        beta, b = self.estimates.beta, self.estimates.b
        return _effects.coefficients_of(self.design, beta, b, factor)

    @cached_property
    def ranef_cov(self) -> dict[str, np.ndarray]:
        """Factor -> conditional covariances given the parameters, (J, q, q)."""
        from jaxglmm.fitting.conditional_variance import conditional_covariance

        factors = _effects.by_factor(self.design.terms)
        found = dict(zip(factors, conditional_covariance(self), strict=True))
        return _effects.spreads(self.design, found)

    @cached_property
    def varcorr(self) -> _components.VarCorr:
        """Term label -> its sd, corr and cov; the residual sd in ``varcorr.sigma``."""
        return _components.varcorr(self.design, self.estimates, self.is_linear)

    @cached_property
    def var_components(self) -> tuple[_components.VarianceComponent, ...]:
        """Every variance as a record (group, name, variance, std_dev, corr)."""
        return _components.flat(self.design, self.estimates, self.is_linear)

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
    def dispersions(self) -> dict[str, float]:
        """The family's dispersion parameters by name; a linear model has none."""
        return {}

    @property
    def theta(self) -> np.ndarray:
        """Free entries of the relative factors, (m,), in lme4's order."""
        return np.asarray(self.estimates.theta)

    # Rows ----------------------------------------------------------------------------

    @cached_property
    def fixed_part(self) -> np.ndarray:
        """X beta + offset, (n,)."""
        d = self.design
        return _predictor.fixed_part(d.X, self.estimates.beta, d.offset)

    @cached_property
    def linear_predictor(self) -> np.ndarray:
        """X beta + Z b + offset, (n,)."""
        return self.fixed_part + _predictor.random_part(
            self.design.terms, self.estimates.b
        )

    @property
    def fitted_values(self) -> np.ndarray:
        """Conditional means, (n,)."""
        return self.linear_predictor

    @property
    def population_predictor(self) -> np.ndarray:
        """Linear predictors with random effects of zero, (n,)."""
        return self.fixed_part

    @property
    def population_means(self) -> np.ndarray:
        """Means with random effects of zero, (n,)."""
        return self.fixed_part

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
        from jaxglmm.fitting.linear_residuals import of_type

        return of_type(type, self.residuals, self.design.weights, self.sigma)

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """New responses from the fitted model, (n, nobs).

        Args:
            n: number of data sets.
            seed: seed of numpy's generator.
            re: None draws new random effects, "conditional" keeps the modes.
        """
        return self.drawn(n, seed, re)

    def drawn(self, n: int, seed, re: str | None) -> np.ndarray:
        """``simulate`` without a word about weights."""
        new = _simulate.draws_new_effects(re)
        return _simulate.simulate(self.design, self.estimates, n, seed, new)

    # How good it is ------------------------------------------------------------------

    def in_words(self) -> str:
        """How good the fit is, for one line."""
        return f"log-likelihood {self.log_likelihood:.4f}"

    @property
    def criterion(self) -> float:
        """-2 log-likelihood (restricted under REML), with all constants."""
        return float(self._estimates.criterion)

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

    @property
    def separation(self) -> Any:
        """None: coefficients of a linear model are finite."""
        return None

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        notes = [n.text for n in _diagnose.notes(self.design, self.estimates)]
        return (*notes, *_diagnose.monte_carlo(self.design, self.diagnostics))
