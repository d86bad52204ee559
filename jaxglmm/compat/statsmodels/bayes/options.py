"""What ``fit_map`` and ``fit_vb`` share: options, scaling, records.

"BFGS" is statsmodels' default and means the method of this package, Newton's on the
structure of the design. Any other name is a method of ``scipy.optimize.minimize`` and
runs on the same objective.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm.compat.statsmodels.bayes.covariance import Covariance, Recoded
from jaxglmm.compat.statsmodels.bayes.layout import BayesArrays, DesignLayout
from jaxglmm.compat.statsmodels.bayes.state import BayesState

OWN = "BFGS"  # the name that means our own method
TOLERANCE = 1e-12
STEPS = 500
CONSTANT = 1e-8  # sd of a column of exog below which it is constant, as in statsmodels


@dataclass(frozen=True)
class Options:
    """What ``minim_opts`` says: most steps, largest gradient that counts as zero."""

    max_steps: int = STEPS
    gtol: float = 1e-5
    disp: bool = False

    @classmethod
    def of(cls, minim_opts: dict | None, refuse: bool = True) -> Options:
        """Read; unknown names are refused, unless they are another method's."""
        given = dict(minim_opts or {})
        out = cls(
            int(given.pop("maxiter", STEPS)),
            float(given.pop("gtol", 1e-5)),
            bool(given.pop("disp", False)),
        )
        if given and refuse:
            raise ValueError(
                f"minim_opts {', '.join(map(repr, given))} mean nothing to method "
                "'BFGS' here, which takes 'maxiter', 'gtol', 'disp'; name another "
                "method of scipy.optimize.minimize to pass it its own options"
            )
        return out


def laid_out(
    model: BayesState, scale_fe: bool
) -> tuple[DesignLayout, np.ndarray | None]:
    """The design to fit, and A where its columns were scaled."""
    if not scale_fe:
        return model.layout, None
    data, A = scaled(model._data)
    return DesignLayout(data), A


def scaled(data: BayesArrays) -> tuple[BayesArrays, np.ndarray]:
    """Columns of X centred and of unit sd, and A with beta = A gamma.

    Centring needs a constant column to move into; without one columns are only scaled.
    """
    X = data.X
    mean, sd = X.mean(0), X.std(0)
    moving = sd > CONSTANT
    fixed = np.flatnonzero(~moving & (mean != 0))
    A = np.diag(np.where(moving, 1 / np.where(moving, sd, 1.0), 1.0))
    new = X.copy()
    if len(fixed):
        c = fixed[0]
        new[:, moving] -= mean[moving]
        A[c, moving] -= mean[moving] / (sd[moving] * mean[c])
    new[:, moving] /= sd[moving]
    return replace(data, X=new), A


def generator(rng: Any) -> Any:
    """A generator, from one or from a seed."""
    return rng if hasattr(rng, "normal") else np.random.default_rng(rng)


def recoded(mean: np.ndarray, A: np.ndarray | None) -> np.ndarray:
    """Packed means with the coefficients of the columns as given."""
    if A is None:
        return mean
    out = mean.copy()
    out[: len(A)] = A @ mean[: len(A)]
    return out


def recoded_covariance(inner: Covariance, A: np.ndarray | None) -> Covariance:
    """Their covariance."""
    return inner if A is None else Recoded(inner, A)


def record_of(x, fun, jac, steps, success, message) -> Any:
    """What SciPy's optimisers return."""
    from scipy.optimize import OptimizeResult

    return OptimizeResult(
        x=x, fun=fun, jac=jac, nit=steps, nfev=steps, success=success, message=message
    )
