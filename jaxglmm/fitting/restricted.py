"""Engine of a generalised model by REML: Laplace's approximation over beta too.

Begins with the fit by maximum likelihood, and goes on with beta as one more grouping
factor (``integrate.restricted``). What it finds is told as any other fit is: psi with
beta in front, u the mode of the random effects.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import generalised as laplace
from jaxglmm.estimate import hessian as exact
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.estimate.mode_tangents import mode_tangents
from jaxglmm.fitting import large_generalised
from jaxglmm.fitting.generalised import (
    GeneralisedEngine,
    Modes,
    build,
    inverse_root,
    problem_of,
)
from jaxglmm.fitting.linear import SAFETY
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.integrate.base import AbstractMarginal, Laplace
from jaxglmm.integrate.restricted import WIDTH, Diffuse
from jaxglmm.integrate.working_model import beta_information
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.runtime import hosted, placement
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.rows_of_design import RowData, build_rows

NAME = "~beta"  # of the factor whose one level has the coefficients
LEAST = 0.1  # standard deviation to start from; at zero the score is zero


class RestrictedEngine(GeneralisedEngine):
    """A design and response whose beta is integrated out.

    wide: rows and problem with beta as effects, the last factor.
    """

    wide: tuple[RowData, Any]

    @classmethod
    def around(cls, engine: GeneralisedEngine, design: Design) -> RestrictedEngine:
        """The engine by REML of a design, from the one by maximum likelihood."""
        data = engine.data
        X = data.back(np.asarray(data.X)).T
        names = tuple(f"x{j}" for j in range(design.p))
        beta = RandomTerm(
            NAME,
            NAME,
            names,
            np.zeros(design.n, np.int32),
            np.ascontiguousarray(X),
            np.array([NAME]),
            "known",
        )
        whole = replace(design, X=np.zeros((design.n, 0)), terms=(*design.terms, beta))
        rows = build_rows(whole.X, assemble.columns(whole))
        own = tuple(f.covariance for f in rows.factors)
        problem = problem_of(whole, engine.base.family, rows, own)
        base = placement.beside(problem, engine.base)
        out = cls(data, engine.base, engine.marginal, engine.eta, engine.phi)
        out.wide = rows, base
        return out

    @property
    def inner(self) -> Diffuse:
        """The marginal of the problem with beta as effects."""
        return Diffuse(self.marginal.hessian)

    @cached_property
    def constant(self) -> float:
        """What the criterion of the wide problem lacks, in the user's coordinates."""
        p = self.base.p
        width = 2 * np.log(WIDTH * np.abs(self._back[0, 0]))
        log_det = 2 * np.linalg.slogdet(self.R)[1]
        return float(log_det - p * (LOG_2PI + width))

    @cached_property
    def _back(self) -> np.ndarray:
        """(p, p) beta of the internal X from effects of the wide problem."""
        return self.wide[0].factors[-1].T_inverse

    @property
    def _by_likelihood(self) -> GeneralisedEngine:
        marginal = Laplace(self.marginal.hessian)
        return GeneralisedEngine(self.data, self.base, marginal, self.eta, self.phi)

    def searched_from(
        self, psi: np.ndarray, u: Modes, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """As of any engine; beta in psi is where its mode is looked for."""
        return self._narrowed(
            self._restricted(*self._widened(psi, u, LEAST), tol, max_steps)
        )

    def _free(self, tol: float, max_steps: int) -> GeneralisedFitted:
        found = self._by_likelihood._free(tol, max_steps)
        if not np.isfinite(found.psi).all():
            return found
        psi, u = self._widened(found.psi, found.u, LEAST)
        out = self._restricted(psi, u, tol, max_steps)
        if out.status != _status.CONVERGED:  # from larger effects once more
            psi, u = self._widened(found.psi, found.u, 1.0)
            other = self._restricted(psi, u, tol, max_steps)
            if other.status == _status.CONVERGED or not np.isfinite(out.criterion):
                out = other
        return self._narrowed(out)

    def _restricted(
        self, psi: np.ndarray, u: Modes, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        base, numbers = self.wide[1], np.array([SAFETY * tol, max_steps])
        flat, eta = laplace.refit_numbers(self.inner, base, psi, u, numbers)
        return laplace.unpack(laplace.shapes(base), np.asarray(flat), np.asarray(eta))

    def _widened(
        self, psi: np.ndarray, u: Modes, least: float = 0.0
    ) -> tuple[np.ndarray, Modes]:
        """psi and u of the wide problem; sds of at least ``least``."""
        beta, theta, phi = (np.asarray(x) for x in self.base.split(psi))
        small = self.scales & (np.abs(theta) < least)
        theta = np.where(small, least, theta)
        effects = np.linalg.solve(self._back, beta)[:, None, None] / WIDTH
        wide = np.concatenate([theta, [WIDTH], phi])
        modes = (*(np.asarray(x) for x in u), effects)
        return wide, tuple(map(_of_size, modes, self.wide[1].rows.sizes))

    def _narrowed(self, found: GeneralisedFitted) -> GeneralisedFitted:
        """With beta in psi; rows in the order of this engine's."""
        _, theta, phi = (np.asarray(x) for x in self.wide[1].split(found.psi))
        beta = self._back @ np.asarray(found.b[-1])[:, 0, 0]
        psi = np.concatenate([beta, theta[:-1], phi])
        eta = self.data.place(self.wide[0].back(np.asarray(found.eta)))
        criterion = np.float64(found.criterion + self.constant)
        return tree_at(
            lambda f: (f.psi, f.u, f.b, f.eta, f.criterion),
            found,
            (psi, found.u[:-1], found.b[:-1], eta, criterion),
        )

    @double_precision
    @hosted.one_fit
    def fit_from(
        self, design: Design, start: Any, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """Fit; there is one start."""
        return self._free(tol, max_steps)

    @double_precision
    def for_response(
        self, y: np.ndarray, trials: np.ndarray | None = None
    ) -> RestrictedEngine:
        """The same design with another response (n,)."""
        plain = super().for_response(y, trials)
        out = RestrictedEngine(
            self.data, plain.base, self.marginal, plain.eta, plain.phi
        )
        rows, base = self.wide
        placed = placement.beside(rows.place(y, base.family.padding), base)
        out.wide = rows, tree_at(lambda p: p.y, base, placed)
        return out

    @double_precision
    def parameter_root(self, psi: np.ndarray, u: Modes) -> np.ndarray:
        """(k, r) root of the covariance of (beta, theta, phi).

        That of (theta, phi) from the exact Hessian of the restricted criterion; beta's
        is its information at them, and what it moves with them (as glmmTMB's).
        """
        base, p = self.wide[1], self.base.p
        wide, modes = self._widened(psi, u)
        held = self.pinned(psi)[p:]
        free = np.r_[: base.m - 1, base.m : len(wide)]  # all but the width
        H = np.asarray(exact.hessian(self.inner, base, wide, modes))
        root = inverse_root(H[np.ix_(free, free)], held)
        moved = mode_tangents(base, wide, modes)[-1]
        slopes = self._back @ np.asarray(moved)[free, :, 0, 0].T
        information = np.asarray(beta_information(*self.working(psi, u)))
        spread = inverse_root(2 * information, np.zeros(p, bool), p)
        below = np.zeros((len(root), spread.shape[1]))
        return np.block([[spread, slopes @ root], [below, root]])


@double_precision
def engine_of(
    design: Design, family: AbstractFamily, marginal: AbstractMarginal
) -> GeneralisedEngine:
    """The engine of a design, by the criterion that ``marginal`` stands for."""
    probes = large_generalised.probes_for(design, marginal)
    if probes:
        large = large_generalised.build(design, family, marginal, probes)
        if large is not None:
            return large
    plain = build(design, family, marginal)
    if not marginal.reml or marginal.refusal(plain.base) is not None:
        return plain
    return RestrictedEngine.around(plain, design)


def _of_size(u: np.ndarray, size: int) -> np.ndarray:
    """(q, 1, J) with as many levels as are laid out; those that pad have no effect."""
    more = max(0, size - u.shape[-1])
    return np.pad(u, ((0, 0), (0, 0), (0, more)))[..., :size]
