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

from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.estimate.laplace import GeneralisedFitted, LaplaceMarginal
from jaxglmm.formula.design import Design
from jaxglmm.model.families import FAMILIES, AbstractFamily
from jaxglmm.model.links import LINKS
from jaxglmm.results import components as _components
from jaxglmm.results import residuals as _residuals
from jaxglmm.results import simulate as _simulate
from jaxglmm.results import summary as _summary
from jaxglmm.results import view as _view
from jaxglmm.results.estimates import Estimates
from jaxglmm.results.fit import Fit

if TYPE_CHECKING:
    from jaxglmm.results.generalised_engine import GeneralisedEngine

DDF = ("asymptotic",)


def family_class(name: str) -> type[AbstractFamily] | None:
    """jaxglmm's own class of this name."""
    return {type(make()).name: type(make()) for make in FAMILIES.values()}.get(name)


def asdict_static(marginal: LaplaceMarginal) -> dict[str, Any]:
    """The options of a method, by name."""
    return {f.name: getattr(marginal, f.name) for f in fields(marginal)}


def from_facts(
    facts: dict[str, Any], design: Design, estimates: Estimates, diagnostics: dict
) -> GeneralisedFit:
    """The fit that ``model_facts`` and the rest of a file describe."""
    made = family_class(facts["family"])
    if made is None:
        raise DataError(f"the file names a family {facts['family']!r} that is unknown")
    family = made(facts["link"])
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
            from jaxglmm.results.generalised_engine import build

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
        return self.engine.beta_covariance(self.parameter_covariance)

    @cached_property
    def parameter_covariance(self) -> np.ndarray:
        """(k, k) of the internal (beta, theta, phi)."""
        return self.engine.parameter_covariance(self)

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
        """95 per cent Wald limits of the fixed effects, (p, 2)."""
        return self.confint().to_numpy()

    @cached_property
    def p_values(self) -> np.ndarray:
        """Two-sided p-values of the z-tests, (p,)."""
        return self.coefficient_table()["p_value"].to_numpy()

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        return np.full(self.design.p, np.inf)

    def _check_ddf(self, ddf: str | None) -> str:
        if ddf not in (None, *DDF):
            raise NotApplicableError(
                f"ddf={ddf!r}: tests of a generalised model are asymptotic (z and "
                "chi-squared). For small samples use confint(method='profile') or "
                "bootstrap()"
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

        Args:
            n: number of data sets.
            seed: seed of numpy's generator.
            re: None draws new random effects, "conditional" keeps the modes.
        """
        new = _simulate.draws_new_effects(re)
        return _simulate.simulate_family(
            self.design, self.estimates, self.family, n, seed, new
        )

    # Asking it -----------------------------------------------------------------------

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
            [[0.35, 1.08]]
        """
        from jaxglmm.results.profile import profile
        from jaxglmm.results.profile_generalised import curves

        return profile(self, which, curves)

    def __repr__(self) -> str:
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<Fit {self.formula} | {self.family_name} ({self.link_name}), {self.nobs} "
            f"rows, criterion {self.criterion:.2f}{flags}>"
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
            "integration": asdict_static(self.marginal),
        }

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__() | {"_estimates": self.kept_estimates()}
        return state | {"family": self.family, "marginal": self.marginal}
