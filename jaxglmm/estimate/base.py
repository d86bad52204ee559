"""What an estimator returns: arrays alone, in internal coordinates."""

from __future__ import annotations

import abc

from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.trees import Module


class Fitted(Module):
    """A fitted linear mixed model.

    theta: (m,); beta: (p,); LQ: (p, p) Cholesky factor of X'V^-1X; sigma2: residual
    variance; b: a (q, 1, J) array a factor, conditional modes; criterion: internal,
    without the problem's constant; score: (m,) its gradient where it was last
    evaluated.
    """

    theta: Float[Array, " m"]
    beta: Float[Array, " p"]
    LQ: Float[Array, "p p"]
    sigma2: Scalar
    b: Effects
    criterion: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


class AbstractEstimator(Module):
    """Finds what is left once an integrator has taken variables out."""

    @abc.abstractmethod
    def fit(self, problem: Problem) -> Fitted:
        """All of it traced: no exception depends on a value, no name is known."""
