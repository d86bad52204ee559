"""What a fit found: its numbers, by name.

Holds a ``Design`` (names and arrays) and the ``Estimates`` (arrays). Building one costs
nothing: a warm fit takes a fraction of a millisecond, a data frame takes more, so every
table is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._hints import Hinted
from jaxglmm.fitting import coefficients as _coefficients
from jaxglmm.fitting import components as _components
from jaxglmm.fitting import convergence as _diagnose
from jaxglmm.fitting import random_effects as _effects
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.postestimation.checking import variance_explained as _explained
from jaxglmm.postestimation.inference import intervals as _intervals
from jaxglmm.postestimation.report import params as _view

if TYPE_CHECKING:
    import pandas as pd

DDF = ("satterthwaite", "kenward-roger", "residual")


class Estimated(Hinted):
    """A design and what was estimated for it; see ``Fit``.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        engine: whatever computes for this design again (refit, profile, Satterthwaite);
            rebuilt from the design when it is first needed.
        diagnostics: facts about the computation (seconds, steps, system, ...).
        compute_satterthwaite: False for n - p degrees of freedom, which cost nothing.
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
            from jaxglmm.fitting.linear import rebuild

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
        """``coefficients``; ``coef_by(factor)`` has those of every level."""
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
            return np.full(self.design.p, float(self.nobs - self.design.p))
        if ddf == "kenward-roger":
            return self._kenward_roger[1]
        return self._satterthwaite

    @cached_property
    def _satterthwaite(self) -> np.ndarray:
        from jaxglmm.postestimation.inference import denominator_df as inference

        return np.asarray(inference.satterthwaite(self))

    @cached_property
    def _kenward_roger(self) -> tuple[np.ndarray, np.ndarray]:
        from jaxglmm.postestimation.inference import denominator_df as inference

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
        if isinstance(ddf, str):  # lmerTest writes "Kenward-Roger"
            ddf = ddf.lower()
        return _arguments.choice("ddf", ddf, DDF)

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
        found = _effects.coefficients(
            self.design, self.estimates.beta, self.estimates.b
        )
        if factor is None and len(found) == 1:
            return next(iter(found.values()))
        if not _arguments.is_among(factor, found):
            known = ", ".join(map(repr, found)) or "no random effects"
            asked = "" if factor is None else _arguments.shown(factor)
            raise NotApplicableError(
                f"coef_by({asked}): name one of the grouping factors, of which "
                f"there are {known}"
            )
        return found[factor]

    @cached_property
    def ranef_cov(self) -> dict[str, np.ndarray]:
        """Factor -> conditional covariances given the parameters, (J, q, q)."""
        from jaxglmm.fitting.conditional_variance import conditional_covariance

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

    has_likelihood = True  # a maximum of it, to compare with others

    def in_words(self) -> str:
        """How good the fit is, for one line."""
        return f"log-likelihood {self.log_likelihood:.4f}"

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
        from jaxglmm.posterior.certificate import of_maximum

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
