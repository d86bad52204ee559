"""Laplace's approximation to the restricted likelihood of a generalised model.

The fixed effects are integrated out beside the random ones, under a flat prior:

    -2 log L_R(theta, phi) = min over (beta, u) of 2 h(beta, u) + log|H| - p log(2 pi),

H the joint information of u and beta. Of a Gaussian response it is REML; glmmTMB's
``REML = TRUE`` and mgcv's ``method = "REML"`` (Wood 2011) are the same criterion.

Beta is at the joint mode. It is one more grouping factor of one level, whose columns
are those of X and whose standard deviation ``WIDTH`` is held: so wide a prior is flat
to 1e-10, and every system, search and exact Hessian of Laplace's approximation serves
as it is.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.integrate.base import Laplace
from jaxglmm.integrate.laplace_derivatives import Hessian, Point, Terms
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field, tree_at

WIDTH = 1e5  # standard deviation of beta, whose columns have mean square one
NO_EFFECTS = (
    "reml=True is for models with random effects or smooths; without them there is no "
    "variance whose estimate it would change. Leave it out"
)


class RestrictedLaplace(Laplace):
    """What a fit is called that found its variance parameters by this criterion.

    Its ``at`` is that of Laplace's approximation at given beta, theta and phi; the
    criterion over (theta, phi) is ``Diffuse``'s, of the problem with beta as effects.
    """

    name: ClassVar[str] = "restricted-laplace"
    reml: ClassVar[bool] = True

    hessian: Hessian = field(static=True, default="observed")  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        """As a preset is typed."""
        return f"{super().__repr__()} with reml=True"

    @property
    def words(self) -> str:
        """What a summary calls it."""
        return f"REML, {super().words}"

    def refusal(self, problem: GeneralisedProblem) -> str | None:
        """For one predictor with random effects and coefficients."""
        if not problem.sides:
            return NO_EFFECTS
        if problem.predictors.K > 1 or problem.family.family_kind == "ordinal":
            return (
                "reml=True is for models of one linear predictor; with zi=, "
                "dispersion= or categories use maximum likelihood (reml=False)"
            )
        if not problem.p:
            return "reml=True integrates fixed effects out, and this model has none"
        return None

    def suits_lanes(self) -> bool:
        """No: lanes maximise the likelihood."""
        return False


class Diffuse(Laplace):
    """Laplace's approximation with the last theta, of the wide prior, held."""

    name: ClassVar[str] = "diffuse"

    hessian: Hessian = field(static=True, default="observed")  # pyright: ignore[reportIncompatibleVariableOverride]

    def at(
        self,
        problem: GeneralisedProblem,
        terms: Terms | None,
        psi: Array,
        u: Effects,
        exact: Any = True,
        always: bool = False,
        rule: Array | None = None,
    ) -> Point:
        """As ``base`` has it, flat along the width."""
        found = super().at(problem, terms, psi, u, exact, always, rule)
        free = np.ones(len(psi))
        free[problem.p + problem.m - 1] = 0.0
        score = jnp.where(free > 0, found.score, 0.0)
        both = np.outer(free, free) > 0
        H = jnp.where(both, found.curvature, 0.0) + np.diag(1 - free)
        size = jnp.where(free > 0, found.scale, 1.0)
        return tree_at(
            lambda x: (x.score, x.curvature, x.scale), found, (score, H, size)
        )
