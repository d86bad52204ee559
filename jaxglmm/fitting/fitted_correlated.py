"""What a fit with correlated residuals is: a linear model's record with more numbers.

Degrees of freedom are those of the R package mmrm and of SAS: Satterthwaite's from the
exact Hessian of the criterion, Kenward and Roger's from the same.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jaxglmm import _arguments
from jaxglmm.fitting import components as _components
from jaxglmm.fitting import random_effects as _effects
from jaxglmm.fitting import residual_parameters as _parameters
from jaxglmm.fitting.blocks import BlockEngine
from jaxglmm.fitting.clusters import clusters_of
from jaxglmm.fitting.components import VarCorr
from jaxglmm.fitting.degrees_of_freedom import KenwardRoger, Satterthwaite
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.fixed_effects import Robust
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import Design, NewRows
from jaxglmm.formula.residual import BY_VISIT

if TYPE_CHECKING:
    import pandas as pd

DDF = (
    "satterthwaite",
    "kenward-roger",
    "kenward-roger-linear",
    "between-within",
    "residual",
)
VCOV = ("asymptotic", "empirical", "empirical-jackknife", "empirical-bias-reduced")


class FittedCorrelated(FittedModel):
    """A fitted linear model whose residuals are correlated or differ in variance."""

    def __init__(
        self,
        design: Design,
        estimates: Any,
        engine: object = None,
        diagnostics: dict | None = None,
        *,
        compute_satterthwaite: bool = True,
        ddf: str | None = None,
        vcov: str = "asymptotic",
    ):
        super().__init__(
            design,
            estimates,
            engine,
            diagnostics,
            compute_satterthwaite=compute_satterthwaite,
        )
        if ddf is not None:
            self._ddf = ddf
        if vcov != "asymptotic":
            self._robust = Robust(vcov, clusters_of(design))

    # Another of its kind -------------------------------------------------------------

    def _rebuilt(self) -> BlockEngine:
        return BlockEngine(self.design, bool(self.estimates.reml))

    def like(
        self,
        design: Design,
        estimates: Any,
        engine: object = None,
        diagnostics: dict | None = None,
    ) -> Self:
        """Another fit of this kind, with the same options."""
        return type(self)(
            design,
            estimates,
            engine,
            diagnostics,
            ddf=self._ddf,
            vcov=self.vcov_type,
        )

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        own = saved.design, saved.estimates, None, saved.diagnostics
        return cls(*own, ddf=saved.ddf, vcov=saved.facts["residual"])

    def model_facts(self) -> dict[str, Any] | None:
        """How the covariance of the fixed effects was asked for."""
        return {"residual": self.vcov_type}

    @property
    def formula(self) -> str:
        """The formula with the residual covariance, as ``jg.mmrm`` reads it."""
        text = self._term.text
        return f"{super().formula} + {text}" if text else super().formula

    # Numbers -------------------------------------------------------------------------

    @cached_property
    def varcorr(self) -> VarCorr:
        """Of the random effects; sigma is None where it differs by visit."""
        one = self._term.structure not in BY_VISIT and len(self._term.group_levels) == 1
        return _components.varcorr(self.design, self.estimates, one)

    @cached_property
    def var_components(self) -> tuple[_components.VarianceComponent, ...]:
        """Every variance; those of the residuals by visit where they differ."""
        effects = _components.flat(self.design, self.estimates, residual=False)
        own = [
            _components.VarianceComponent("Residual", each.label, v * v, v)
            for each in _parameters.parameters(self)
            if each.kind == "sd"
            for v in (each.value,)
        ]
        return (*effects, *own)

    @cached_property
    def ranef_cov(self) -> dict[str, np.ndarray]:
        """Factor -> conditional covariances given the parameters, (J, q, q)."""
        from jaxglmm.fitting.conditional_variance_blocks import covariances

        found = {name: D for name, (D, _) in covariances(self).items()}
        return _effects.spreads(self.design, found)

    def prediction_variance(self, new: NewRows) -> np.ndarray:
        """Variance of x'beta + z'b around its prediction, (n_new,), given theta."""
        from jaxglmm.fitting.conditional_variance_blocks import prediction_variance

        return prediction_variance(self, new)

    def noise(self, newdata: Any = None) -> np.ndarray | float:
        """Variance of the residuals of the fit's rows, or of new ones of weight one."""
        return _parameters.row_variances(self, newdata)

    @property
    def npar(self) -> int:
        """Number of parameters that are not held: effects, thetas, the residuals'."""
        every = self.design.p + len(self.estimates.theta) + len(self.estimates.phi)
        return every - len(self.design.fixed)

    @property
    def dispersions(self) -> dict[str, float]:
        """Name -> parameter of the residual structure."""
        return {x.label: x.value for x in _parameters.parameters(self)}

    @property
    def dispersion_names(self) -> tuple[str, ...]:
        """Names of the parameters of the residual structure."""
        return tuple(self.dispersions)

    @property
    def structure(self) -> str:
        """Name of the residual structure, ``us``, ``ar1``, ...; "" for independent."""
        return self._term.structure

    @property
    def _term(self) -> Any:
        return self.design.residual

    @cached_property
    def residual_covariance(self) -> VarCorr:
        """Standard deviations, correlations and covariances of the visits, by group.

        A mapping from the label of the group ("Residual" where there is one) to a
        record with the frames ``sd``, ``corr`` and ``cov``, at weight one. Empty where
        rows have no common visits.
        """
        return _parameters.covariance_of_visits(self)

    @cached_property
    def residual_parameters(self) -> pd.DataFrame:
        """The parameters of the residual structure: estimate, std_error, lower, upper.

        Standard errors by the delta method from the exact Hessian; 95 per cent limits
        on the logarithm's scale (standard deviations) or Fisher's (correlations).
        """
        return _parameters.table(self, 0.95)

    def resid(self, type: str = "response") -> np.ndarray:
        """Residuals, (n,).

        Args:
            type: "response" (y - fitted), "pearson" (over the row's standard
                deviation), "scaled" (the same), or "normalized": also free of their
                correlation, by the inverse of its Cholesky factor within each subject,
                in the order of its rows (nlme's normalized residuals).
        """
        return _parameters.residuals_of(self, type)

    def drawn(self, n: int, seed: Any, re: str | None) -> np.ndarray:
        """New responses with correlated residuals, (n, nobs)."""
        return _parameters.drawn(self, n, seed, re)

    # Degrees of freedom --------------------------------------------------------------

    def checked_ddf(self, ddf: str | None) -> str:
        """How degrees of freedom are to be counted; as fitted where None."""
        ddf = self._ddf if ddf is None else ddf
        if isinstance(ddf, str):
            ddf = ddf.lower()
        return self._fitting_ddf(_arguments.choice("ddf", ddf, DDF))

    def coefficient_covariance(self, ddf: str | None = None) -> np.ndarray:
        """(p, p) of the fixed effects; adjusted for Kenward and Roger's methods."""
        ddf = self.checked_ddf(ddf)
        if ddf.startswith("kenward-roger"):
            return self.kenward_roger_of(ddf).adjusted
        return self._given_covariance

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        if ddf == "between-within":
            return self.between_within
        if ddf == "kenward-roger-linear":
            return self.kenward_roger_of(ddf).of_coefficients()
        return super()._degrees_of_freedom(ddf)

    @cached_property
    def curvature(self) -> Any:
        """Derivatives of the criterion at the estimates, in internal coordinates."""
        return self.engine.derivatives(self.engine.theta(self.estimates))

    @cached_property
    def satterthwaite_parts(self) -> Satterthwaite:
        """What Satterthwaite's degrees of freedom are made of."""
        if self._robust is not None:
            return self.empirical_parts
        from jaxglmm.fitting.degrees_of_freedom_blocks import satterthwaite

        return satterthwaite(self)

    @cached_property
    def kenward_roger_parts(self) -> KenwardRoger:
        """Kenward and Roger's covariance, second derivatives of V included."""
        return self.kenward_roger_of("kenward-roger")

    def kenward_roger_of(self, ddf: str) -> KenwardRoger:
        """The same, or without second derivatives ("kenward-roger-linear")."""
        from jaxglmm.fitting.degrees_of_freedom_blocks import kenward_roger

        kept = self.__dict__.setdefault("_kenward_roger", {})
        if ddf not in kept:
            kept[ddf] = kenward_roger(self, linear=ddf.endswith("linear"))
        return kept[ddf]

    def plain_df(self, ddf: str, L: np.ndarray) -> float:
        """Of several coefficients the least of theirs, as in mmrm."""
        if ddf == "between-within":
            return float(self.between_within[(L != 0).any(axis=0)].min())
        return super().plain_df(ddf, L)

    @cached_property
    def between_within(self) -> np.ndarray:
        """(p,) degrees of freedom by whether a coefficient varies within subjects."""
        from jaxglmm.fitting.degrees_of_freedom_blocks import between_within

        return between_within(self.design)
