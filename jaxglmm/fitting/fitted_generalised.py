"""A fitted generalised linear mixed model: what differs from a linear one.

Tests are asymptotic (z and chi-squared), means pass through the inverse link, and the
residual variance is the family's.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.fitting import diagnostics as _looked
from jaxglmm.fitting import frequencies as _frequencies
from jaxglmm.fitting import residuals as _residuals
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.fitting.convergence import monte_carlo
from jaxglmm.fitting.estimates import Estimates, Unread
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.marginals import from_facts
from jaxglmm.model.families import FAMILIES, AbstractFamily
from jaxglmm.model.links import LINKS

if TYPE_CHECKING:
    from jaxglmm.fitting.generalised import GeneralisedEngine, Internal
    from jaxglmm.fitting.separation import Separation

DDF = ("asymptotic",)


def family_class(name: str) -> type[AbstractFamily] | None:
    """jaxglmm's own class of this name."""
    made = [make() for make in FAMILIES.values()]
    return {family.name: type(family) for family in made}.get(name)


def asdict_static(module: AbstractFamily) -> dict[str, Any]:
    """The options of a family, its link aside, by name."""
    return {f.name: getattr(module, f.name) for f in fields(module) if f.name != "link"}


def family_of(facts: dict[str, Any]) -> AbstractFamily:
    """The family that ``model_facts`` names.

    Raises:
        DataError: one that is not known here.
    """
    made = family_class(facts["family"])
    if made is None:
        raise DataError(f"the file names a family {facts['family']!r} that is unknown")
    return made(facts["link"], **facts.get("options", {}))


class FittedGeneralised(FittedModel):
    """A fitted generalised linear mixed model, as a record.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        family: of the response.
        marginal: how the random effects were integrated out.
        engine: whatever computes for this design again; rebuilt when it is needed.
        diagnostics: facts about the computation.
    """

    is_linear: ClassVar[bool] = False

    def __init__(
        self,
        design: Design,
        estimates: Estimates | Unread,
        family: AbstractFamily,
        marginal: AbstractMarginal,
        engine: GeneralisedEngine | None = None,
        diagnostics: dict | None = None,
    ):
        super().__init__(
            design, estimates, engine, diagnostics, compute_satterthwaite=False
        )
        self._family, self.marginal = family, marginal
        self.fitted: GeneralisedFitted | None = None
        self._ddf = "asymptotic"

    @property
    def family(self) -> AbstractFamily:
        """That of the response."""
        own = self._family
        known = type(own).at is AbstractFamily.at
        return own if known else own.at(self.estimates.phi)

    @family.setter
    def family(self, family: AbstractFamily) -> None:
        self._family = family

    def keep(self, fitted: GeneralisedFitted) -> None:
        """Remember the fit in internal coordinates (left behind when pickled)."""
        self.fitted = fitted

    def _forget(self) -> None:
        super()._forget()
        self.fitted = None  # as large as the engine's levels

    def _rebuilt(self) -> GeneralisedEngine:
        from jaxglmm.fitting.restricted import engine_of

        return engine_of(self.design, self._family, self.marginal)

    def internal(self) -> Internal:
        """psi (k,) and the mode u in the engine's coordinates."""
        engine = self.engine  # first: what it leaves behind goes
        if self.fitted is not None:
            return self.fitted.psi, self.fitted.u
        return engine.recovered(self.estimates)

    def working(self) -> tuple[Any, np.ndarray]:
        """The Gaussian model next to the mode, and theta (m,)."""
        return self.engine.working(*self.internal())

    # Another of its kind -------------------------------------------------------------

    def like(
        self,
        design: Design,
        estimates: Estimates | Unread,
        engine: Any = None,
        diagnostics: dict | None = None,
    ) -> Self:
        """Another fit of this kind, of the same family and method."""
        family, marginal = self._family, self.marginal
        return type(self)(design, estimates, family, marginal, engine, diagnostics)

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        marginal = from_facts(saved.facts["integration"])
        own = saved.design, saved.estimates, family_of(saved.facts), marginal
        return cls(*own, None, saved.diagnostics)

    def unfolded(self, what: str, keep: bool = False) -> Self:
        """The same estimates for the rows that draws are made for.

        Rows that stand for several, by weights of counts, as often as that; where the
        weights count nothing a warning says so, and there are none.

        Args:
            what: the method that draws, for the warning.
            keep: leave such weights where they are, for draws that are fitted again.
        """
        design = _frequencies.drawn_for(self.design, self.family, what, keep)
        return self if design is self.design else self.with_design(design)

    def kept_estimates(self) -> Estimates:
        """The estimates with the covariance of beta filled in."""
        return replace(self.estimates, vcov=self._model_covariance())

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
            "integration": self.marginal.facts,
        }

    def __getstate__(self) -> dict[str, Any]:
        own = {"_family": self._family, "marginal": self.marginal, "fitted": None}
        return super().__getstate__() | own

    # What was fitted -----------------------------------------------------------------

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
        return self.marginal.words if self.design.terms else ""

    # Fixed effects -------------------------------------------------------------------

    def coefficient_covariance(self, ddf: str | None = None) -> np.ndarray:
        """(p, p) covariance of beta, from the exact joint Hessian with theta and phi.

        Unlike a covariance given theta it has the uncertainty of the variance
        parameters in it, as lme4's (``use.hessian``) and glmmTMB's have.
        """
        self.checked_ddf(ddf)
        return self._given_covariance

    @cached_property
    def _given_covariance(self) -> np.ndarray:
        if self._robust is None:
            return self._model_covariance()
        return self.engine.beta_covariance(self.parameter_root)

    def _model_covariance(self) -> np.ndarray:
        vcov = self.estimates.vcov
        return self.engine.beta_covariance(self._model_root) if vcov is None else vcov

    @cached_property
    def _model_root(self) -> np.ndarray:
        return self.engine.parameter_root(*self.internal())

    @cached_property
    def parameter_root(self) -> np.ndarray:
        """(k, r) root of ``parameter_covariance``."""
        root = self._model_root
        if self._robust is None:
            return root
        from jaxglmm.fitting.empirical import root_by_scores

        return root_by_scores(self, root, *self._robust)

    def vcov_kinds(self) -> tuple[str, ...]:
        """Those without an adjustment of the residuals, which is a linear model's.

        None by REML: beta is no maximum of the likelihood there.
        """
        return () if self.marginal.reml else ("CR0", "CR1")

    @cached_property
    def parameter_covariance(self) -> np.ndarray:
        """(k, k) of the internal (beta, theta, phi)."""
        return self.parameter_root @ self.parameter_root.T

    @property
    def z_values(self) -> np.ndarray | None:
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
    def satterthwaite_parts(self) -> None:
        """None: tests are asymptotic."""
        return None

    @property
    def kenward_roger_parts(self) -> None:
        """None: tests are asymptotic."""
        return None

    @cached_property
    def p_values(self) -> np.ndarray | None:
        """Two-sided p-values of the z-tests, (p,)."""
        return self.coefficient_table()["p_value"].to_numpy()

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        return np.full(self.design.p, np.inf)

    def checked_ddf(self, ddf: str | None) -> str:
        """How tests are made, "asymptotic"; refuses degrees of freedom."""
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
    def dispersions(self) -> dict[str, float]:
        """Natural values of the family's dispersion parameters by name."""
        return self.family.dispersion(self.estimates.phi)

    @property
    def dispersion(self) -> float:
        """Natural value of the family's first dispersion parameter; 1 without one."""
        return next(iter(self.dispersions.values()), 1.0)

    @property
    def npar(self) -> int:
        """Fixed effects, thetas, dispersion parameters; what is held is none."""
        e = self.estimates
        return self.design.p + len(e.theta) + len(e.phi) - len(self.design.fixed)

    # Rows ----------------------------------------------------------------------------

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Conditional means, (n,); for the binomial kind, probabilities."""
        return np.asarray(self.family.mean(self.linear_predictor), float)

    @property
    def population_means(self) -> np.ndarray:
        """Means with random effects of zero, (n,)."""
        return np.asarray(self.family.mean(self.fixed_part), float)

    @cached_property
    def residuals(self) -> np.ndarray:
        """Response (binomial kind: proportion) minus fitted values, (n,)."""
        return self.resid("response")

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals given the modes, (n,).

        Args:
            type: "deviance", "pearson", "response", "working" (on the scale of the
                linear predictor), "scaled" (Pearson) or "quantile" (randomised where
                the response is discrete: standard normal if the model holds; Dunn and
                Smyth 1996).
            seed: of the randomisation.
        """
        eta, phi = self.linear_predictor, self.estimates.phi
        mu = np.asarray(self.family.parameters(eta))
        return _residuals.resid(self.design, self.family, phi, eta, mu, type, seed)

    @cached_property
    def deviance(self) -> float:
        """Conditional deviance at the modes, as lme4's ``deviance``.

        Not -2 log-likelihood, which is ``criterion``.
        """
        return float(np.sum(self.resid("deviance") ** 2))

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
        return self.drawn(n, seed, re)

    def drawn(self, n: int, seed, re: str | None) -> np.ndarray:
        """``simulate`` without its warning."""
        new = _simulate.draws_new_effects(re)
        return _simulate.simulate_family(
            self.design, self.estimates, self.family, n, seed, new
        )

    # What to know --------------------------------------------------------------------

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known about this fit."""
        notes = tuple(note.text for note in _looked.notes(self))
        return (*notes, *monte_carlo(self.design, self.diagnostics))

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
        return _looked.separated(self)
