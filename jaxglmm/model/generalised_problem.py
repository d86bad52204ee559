"""GeneralisedProblem: a generalised linear mixed model as rows.

y_i | b ~ family(eta_i, phi), eta = offset + X beta + Z b, b = Lambda u, u ~ N(0, I).
The parameters psi are (beta, theta, phi), packed in this order; phi is unconstrained.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.predictors import Predictors
from jaxglmm.runtime.trees import Module, field
from jaxglmm.structure.rows import AbstractRows


class GeneralisedProblem(Module):
    """Rows of a model, sorted by the largest factor and padded with weight zero.

    X: (p, n), in internal coordinates; y, trials, weights, offset: (n,). Of many rows
    trials and offset may be (1,) where they are the same in all, and weights whether a
    row is one of the data. Of several predictors offset is (K, n), X has the columns of
    all (``model.predictors``).
    """

    rows: AbstractRows
    X: Float[Array, "p n"]
    y: Float[Array, " n"]
    trials: Float[Array, " n"]
    weights: Float[Array, " n"]
    offset: Float[Array, " n"]
    family: AbstractFamily
    covariances: tuple[AbstractCovariance, ...] = field(static=True)
    predictors: Predictors = field(static=True, default=Predictors())

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.X.shape[0]

    @property
    def m(self) -> int:
        """Number of thetas."""
        return base.total(self.covariances)

    @property
    def sides(self) -> tuple[int, ...]:
        """Random effects a level, factor by factor."""
        return self.rows.sides

    def folded(self) -> GeneralisedProblem:
        """The same with arrays of rows in the shape that sums run best over."""
        fold = self.rows.fold
        return GeneralisedProblem(
            self.rows.folded(),
            fold(self.X),
            fold(self.y),
            fold(self.trials),
            fold(self.weights),
            fold(self.offset),
            self.family,
            self.covariances,
            self.predictors,
        )

    def split(self, psi: Float[Array, " k"]) -> tuple[Array, Array, Array]:
        """beta, theta and phi."""
        return psi[: self.p], psi[self.p : self.p + self.m], psi[self.p + self.m :]

    def lambdas(self, theta: Float[Array, " m"]) -> tuple[Float[Array, "q q"], ...]:
        """Relative Cholesky factors from theta."""
        return base.lambdas(theta, self.covariances)
