"""The face of a linear model with correlated residuals."""

from __future__ import annotations

from jaxglmm._brief import cut
from jaxglmm.fitting.fitted_correlated import FittedCorrelated
from jaxglmm.results.fit import Fit


class CorrelatedFit(FittedCorrelated, Fit):
    """A fitted linear model whose residuals are correlated or differ in variance.

    Everything that ``Fit`` says holds here too. ``residual_covariance`` has standard
    deviations and correlations of the visits, ``residual_parameters`` the parameters
    with their errors.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        engine: whatever computes for this design again; rebuilt when it is needed.
        diagnostics: facts about the computation.
        compute_satterthwaite: False for n - p degrees of freedom.
        ddf: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within"
            or "residual".
        vcov: "asymptotic", or an empirical covariance of the coefficients.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days", data, residual="ar1(Days | Subject)")
        >>> fit.residual_parameters["estimate"].round(3).to_dict()
        {'sigma': 48.436, 'rho|Residual': 0.786}
    """

    def __repr__(self) -> str:
        how = "REML" if self.reml else "ML"
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<CorrelatedFit {cut(self.formula, 90)} | {self.nobs} rows, {how} "
            f"criterion {self.criterion:.2f}{flags}>"
        )
