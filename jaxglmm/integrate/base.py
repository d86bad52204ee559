"""How the random effects are integrated out: one interface over psi.

A marginal is -2 log-likelihood as a function of psi = (beta, theta, phi), with its
score and a positive stand-in for its curvature. All of them are centred by the mode of
the random effects, so all begin with Laplace's point (``laplace_derivatives``); what
goes beyond that approximation improves its value and score there (``improve``, and
``improve_lanes`` for many models at once). The search, the exact Hessian (forward mode
over the score), posterior modes, samplers and profiles take any of them.

A new one is a file with a class and its row in ``marginals.REGISTRY``.
"""

from __future__ import annotations

import abc
from dataclasses import fields
from typing import Any, ClassVar

from jaxglmm._typing import Array, Bool, Float, Scalar
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate import laplace_derivatives_lanes as _lanes
from jaxglmm.integrate.laplace_derivatives import Hessian, Point, Terms
from jaxglmm.integrate.rows_lanes import LaneRows
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module, field, tree_at

AT_MODE = 1e-8  # decrement of u up to which it is taken for the mode beyond Laplace


class AbstractMarginal(Module):
    """One way to integrate the random effects out; static, so programs know it.

    Class attributes:
        name: its word in files.
        beyond: whether it improves on Laplace's approximation.
        hessian: information of the rows in log|M|, "observed" or "expected".
        nodes: a dimension; 0 for as many as are needed.
        reml: whether a fit integrates the fixed effects out as well.
        probes: random vectors of large crossed factors, 0 for a dense matrix, None by
            the number of their levels.
    """

    name: ClassVar[str]
    beyond: ClassVar[bool] = True
    hessian: ClassVar[Hessian] = "observed"
    nodes: ClassVar[int] = 1
    reml: ClassVar[bool] = False
    probes: ClassVar[int | None] = 0

    @property
    @abc.abstractmethod
    def words(self) -> str:
        """What a summary calls it."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a file says of it; ``marginals.from_facts`` reads it."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"name": self.name, **options}

    def refusal(self, problem: GeneralisedProblem) -> str | None:
        """Why it cannot be used for a model; None where it can."""
        return None

    def suits_lanes(self) -> bool:
        """Whether ``improve_lanes`` is there."""
        return not self.beyond

    # What is its own ----------------------------------------------------------------

    def improve(
        self,
        problem: GeneralisedProblem,
        terms: Terms,
        psi: Float[Array, " k"],
        at: Point,
        u: Effects,
        rule: Array | None = None,
    ) -> Point:
        """The point with this marginal's value and score, u the mode.

        problem: folded; at: Laplace's point at (psi, u).
        """
        return at

    def improve_lanes(
        self,
        d: LaneRows,
        split: _lanes.Split,
        psi: Float[Array, "k L"],
        at: _lanes.LanePoint,
        u: Float[Array, "q J L"],
    ) -> tuple[Float[Array, " L"], Float[Array, "k L"]]:
        """Values and scores of lanes, u the modes."""
        raise NotImplementedError(f"{self.name} has no lanes")

    # What all do alike --------------------------------------------------------------

    def terms(self, problem: GeneralisedProblem) -> Terms:
        """The function of the rows that ``at`` takes."""
        return _point.terms_of(problem, self.hessian)

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
        """Everything at (psi, u) of a folded problem, without the constant.

        Beyond Laplace the point counts next to the mode alone, unless ``always``. rule:
        which of ``quadrature.rules``, in place of ``nodes``.
        """
        found = _point.evaluate(problem, terms, psi, u, exact, self.hessian)
        if not self.beyond:
            return found
        assert terms is not None

        def better() -> tuple[Scalar, Array]:
            new = self.improve(problem, terms, psi, found, u, rule)
            return new.value, new.score

        if always:
            value, score = better()
        else:
            near = found.nu < AT_MODE
            value, score = lax.cond(near, better, lambda: (found.value, found.score))
        return tree_at(lambda x: (x.value, x.score), found, (value, score))

    def at_lanes(
        self,
        d: LaneRows,
        split: _lanes.Split,
        psi: Float[Array, "k L"],
        u: Float[Array, "q J L"],
        exact: Bool[Array, " L"],
        always: bool = False,
        curved: bool = True,
    ) -> _lanes.LanePoint:
        """``at`` of many models, lanes last; curved: with the curvature."""
        found = _lanes.evaluate(d, split, psi, u, exact, self.hessian, curved)
        if not self.beyond:
            return found

        def better() -> tuple[Array, Array]:
            return self.improve_lanes(d, split, psi, found, u)

        if always:
            value, score = better()
        else:
            near = found.nu < AT_MODE
            plain = found.value, found.score
            value, score = lax.cond(jnp.any(near), better, lambda: plain)
            value = jnp.where(near, value, found.value)
            score = jnp.where(near, score, found.score)
        return tree_at(lambda x: (x.value, x.score), found, (value, score))

    def over(self, problem: Any) -> Any:
        """What it needs of a problem's rows, found once: what the rest takes."""
        return problem

    def mode(self, problem: Any, psi: Array, u: Effects) -> Effects:
        """The mode of u given psi, found from u."""
        beta, theta, phi = problem.split(psi)
        return _laplace.find_mode(problem, beta, problem.lambdas(theta), phi, u).u

    def nearer(self, problem: Any, psi: Array, u: Effects) -> Effects:
        """One Newton step from u to its mode: it carries the mode's derivative."""
        beta, theta, phi = problem.split(psi)
        return _laplace.newton_step(problem, beta, problem.lambdas(theta), phi, u)

    def derivatives(
        self, problem: GeneralisedProblem, psi: Array, u: Effects
    ) -> _laplace.Evaluation:
        """Value, score, curvature and the mode, found from u."""
        if not u:
            return _fixed_only.derivatives(problem, psi)
        mode = self.mode(problem, psi, u)
        folded = problem.folded()
        at = self.at(folded, self.terms(folded), psi, mode, always=True)
        value = at.value + _point.constant(folded)
        return _laplace.Evaluation(value, at.score, at.curvature, at.scale, mode, at.nu)

    def score(self, problem: Any, psi: Array, u: Effects) -> Float[Array, " k"]:
        """The score where the mode u is known."""
        if not u:
            return _fixed_only.derivatives(problem, psi).score
        folded = problem.folded()
        return self.at(folded, self.terms(folded), psi, u, always=True).score

    def value(self, problem: GeneralisedProblem, psi: Array, u: Effects) -> Scalar:
        """-2 log-likelihood."""
        if not u:
            beta, _, phi = problem.split(psi)
            return _fixed_only.value_at(problem, beta, phi)
        return self.derivatives(problem, psi, u).value


class Laplace(AbstractMarginal):
    """Laplace's approximation; hessian: information of the rows in log|M|."""

    name: ClassVar[str] = "laplace"
    beyond: ClassVar[bool] = False

    hessian: Hessian = field(static=True, default="observed")  # pyright: ignore[reportIncompatibleVariableOverride]
    probes: int | None = field(static=True, default=None)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        """As a preset is typed."""
        given = [f"hessian={self.hessian!r}"] if self.hessian != "observed" else []
        if self.probes is not None:
            given.append(f"probes={self.probes}")
        return f"jg.Laplace({', '.join(given)})"

    @property
    def words(self) -> str:
        """What a summary calls it."""
        note = " with expected information" if self.hessian == "expected" else ""
        return f"Laplace approximation{note}"
