"""The warnings of ``statsmodels.tools.sm_exceptions`` that mixed models give."""

from jaxglmm._errors import ConvergenceWarning as ConvergenceWarning
from jaxglmm._errors import SingularFitWarning as SingularMatrixWarning

__all__ = ["ConvergenceWarning", "SingularMatrixWarning"]
