"""The warnings of ``statsmodels.tools.sm_exceptions``, as jaxglmm gives them.

Those that a mixed model can give are jaxglmm's: a filter on ``ConvergenceWarning``
sees fits that have not converged and fits on the boundary, as with statsmodels.
``ModelWarning`` is above all of them. Names that no mixed model gives are statsmodels'
own, where it is installed.
"""

from jaxglmm._errors import ConvergenceWarning as ConvergenceWarning
from jaxglmm._errors import DataError
from jaxglmm._errors import JaxGLMMWarning as ModelWarning
from jaxglmm._errors import SingularFitWarning as SingularMatrixWarning
from jaxglmm.compat.statsmodels._theirs import falling_through

MissingDataError = DataError


class ValueWarning(ModelWarning):
    """An argument that was given has no effect."""


class HessianInversionWarning(ModelWarning):
    """No standard errors, because the Hessian has no inverse."""


__all__ = [
    "ConvergenceWarning",
    "HessianInversionWarning",
    "MissingDataError",
    "ModelWarning",
    "SingularMatrixWarning",
    "ValueWarning",
]

__getattr__ = falling_through(__name__, "statsmodels.tools.sm_exceptions")
