"""Log-likelihood, score and Hessian of a mixed linear model at given parameters.

All of it from cross-products: at one relative covariance the structured factor gives
log|M|, [X y]'V^-1[X y] and Z'V^-1[X y]; with the response as one more column of X the
matrices of ``estimate.information.components`` are those of second derivatives. With r
= y - X beta, q = r'V^-1r, V_a = dV/da for an element a of cov_re1 or a component, and N
= n (ML) or n - p (REML), the profiled log-likelihood of Lindstrom and Bates (1988) has

    l    = -(log|V| + [log|X'V^-1X|] + N log(2 pi q / N) + N) / 2
    l_a  = -(tr V^-1V_a - [tr C^-1A_a] - N r'V^-1V_aV^-1r / q) / 2
    l_ab = (tr V^-1V_aV^-1V_b + [tr C^-1A_aC^-1A_b - tr C^-1F_ab]
            - N (D_ab / q - B_aB_b / q^2)) / 2

with C = X'V^-1X, A_a = X'V^-1V_aV^-1X, F_ab = X'V^-1V_aV^-1V_bV^-1X and its transpose,
B_a = r'V^-1V_aV^-1r, D_ab = 2 r'V^-1V_aV^-1V_bV^-1r, [] in REML alone. No group is
inverted and no covariance of the random effects either, so singular ones are ordinary
points.

``integrate.exact`` has beta at its best and derivatives over Lambda. Here beta is
anywhere, and elements of the covariance are the parameters, which Lambda's derivatives
say nothing of where it is singular: so the pieces are shared and the sums are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams, root
from jaxglmm.compat.statsmodels.mixedlm.structure import TermLayout
from jaxglmm.estimate import information
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact
from jaxglmm.model import assemble
from jaxglmm.model.covariances.host import host_curves
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import inner_all, scale, scale_transposed
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at


@jax.jit
def _ground(problem: Problem, theta: Float[Array, " m"]):
    """log|M|, [X y]'V^-1[X y], and Lambda Lambda'Z'V^-1[X y] a factor."""
    lam = problem.lambdas(theta)
    factor = problem.system.factor(lam)
    K, T = factor.project(problem.B, problem.RR)
    return factor.log_det(), K, scale(lam, scale_transposed(lam, T))


@jax.jit
def _first(problem: Problem, theta: Float[Array, " m"]):
    """First derivatives over the free elements r of the internal covariances.

    Returns [X y]'V^-1[X y]; log|M|; S (R,), tr V^-1V_r; P (R, p + 1, p + 1), [X
    y]'V^-1V_rV^-1[X y]; info (R, R), r'V^-1V_r P V_s V^-1r, beta at its estimate.
    """
    p = problem.p
    lam = problem.lambdas(theta)
    true = problem.system.factor(lam)
    K, _ = true.project(problem.B, problem.RR)
    at = exact.marginal(problem, exact.kept_from_zero(lam))
    S = at.factor.traces()
    pairs = [jnp.einsum("icg,jdg->ijcd", T, T) for T in at.T]
    traces, P = [], []
    for f, c in enumerate(problem.covariances):
        for i, j in c.entries:
            twice = 1.0 if i == j else 2.0
            traces.append(twice * S[f][i, j])
            cross = pairs[f][i, j]
            P.append(cross if i == j else cross + pairs[f][j, i])
    v = _moved(problem, at.t)
    info = at.factor.gram(v)
    if p > 0:
        half = spd.forward(at.LQ, inner_all(tuple(x[:, :p] for x in at.T), v))
        info = info - half.T @ half
    return K, true.log_det(), jnp.stack(traces), jnp.stack(P), info


def _moved(problem: Problem, t):
    """E_r t for all free elements r of all factors; zero on the other factors."""
    m = problem.m
    out, start = [], 0
    for x, c in zip(t, problem.covariances, strict=True):
        columns = []
        for i, j in c.entries:
            column = jnp.zeros_like(x[:, 0]).at[i].set(x[j, 0])
            columns.append(column if i == j else column.at[j].set(x[i, 0]))
        stop = start + c.m
        v = jnp.stack(columns, axis=1)
        out.append(jnp.pad(v, ((0, 0), (start, m - stop), (0, 0))))
        start = stop
    return tuple(out)


@dataclass(frozen=True)
class Slopes:
    """First derivatives in the profile parameterisation, the triangle row by row.

    K (p + 1, p + 1); log_det; trace (m,); P (m, p + 1, p + 1); info (m, m).
    """

    K: np.ndarray
    log_det: float
    trace: np.ndarray
    P: np.ndarray
    info: np.ndarray


@dataclass(frozen=True)
class Bends:
    """Second derivatives; the last parameter is the residual variance.

    C (p + 1, p + 1) [X y]'V^-1[X y]; P (m + 1, p + 1, p + 1), with its sign: minus the
    derivatives of C are P here; Q (m + 1, m + 1, p + 1, p + 1); trace (m + 1, m + 1).
    """

    C: np.ndarray
    P: np.ndarray
    Q: np.ndarray
    trace: np.ndarray


class Evaluator:
    """One model and its data, ready to be evaluated anywhere.

    Args:
        design: terms of the random effects with unstructured covariance.
        where: which term is what.
        k_re: random effects a group.
        k_vc: variance components.
    """

    def __init__(self, design: Design, where: TermLayout, k_re: int, k_vc: int):
        self.design, self.where = design, where
        self.k_re, self.k_vc = k_re, k_vc
        self.engine = _engine.build(design, Maximise(True))

    @property
    def p(self) -> int:
        """Fixed effects."""
        return self.design.p

    @property
    def n(self) -> int:
        """Rows of positive weight."""
        return self.engine.moments.n

    @property
    def triangle(self) -> list[tuple[int, int]]:
        """The elements of cov_re, row by row."""
        return [(i, j) for i in range(self.k_re) for j in range(i + 1)]

    # There and back -------------------------------------------------------------------

    def theta(self, cov_re: np.ndarray, vcomp: np.ndarray) -> np.ndarray:
        """Internal theta of relative covariances."""
        half = root(cov_re)
        lams = [
            half if k < 0 else np.full((1, 1), np.sqrt(vcomp[k]))
            for k in self.where.owner
        ]
        m = self.engine.moments
        return _engine.internal_lambdas(m.factors, lams)

    @cached_property
    def jacobian(self) -> np.ndarray:
        """(R, m) internal elements by elements of cov_re1 and components."""
        columns = []
        for i, j in self.triangle:
            E = np.zeros((self.k_re, self.k_re))
            E[i, j] = E[j, i] = 1.0
            columns.append(self._spread({-1: E}))
        for k in range(self.k_vc):
            columns.append(self._spread({k: np.ones((1, 1))}))
        return np.stack(columns, axis=1)

    def _spread(self, blocks: dict[int, np.ndarray]) -> np.ndarray:
        """(R,) internal elements of a change of some terms' covariances."""
        out = []
        m = self.engine.moments
        for factor in m.factors:
            total = np.zeros((factor.q, factor.q))
            for term, a, b in factor.spans:
                E = blocks.get(self.where.owner[term])
                if E is not None:
                    T = factor.T[a:b, a:b]
                    total[a:b, a:b] = T @ E @ T.T
            out.append(factor.covariance.theta(total))
        return np.concatenate(out)

    def direction(self, beta: np.ndarray) -> np.ndarray:
        """(p + 1,) v with [X~ y~] v = y - X beta, in internal units."""
        fixed = self.engine.moments.fixed
        return np.append(-fixed.R @ (beta - fixed.beta0) / fixed.scale, 1.0)

    # At a point -----------------------------------------------------------------------

    @double_precision
    def ground(self, cov_re, vcomp):
        """log|M|, K and the effects of [X y], as NumPy."""
        out = _ground(self.engine.problem, self.theta(cov_re, vcomp))
        return jax.tree.map(np.asarray, out)

    def gls(self, K: np.ndarray) -> np.ndarray:
        """(p,) fixed effects by generalised least squares, in the user's units."""
        p = self.p
        return self.engine.moments.fixed.beta(np.linalg.solve(K[:p, :p], K[:p, p]))

    def value(self, log_det, K, v, reml: bool, scale: float | None = None) -> float:
        """The log-likelihood from what ``ground`` found; scale profiled if None."""
        N = self.n - self.p if reml else self.n
        rest = v @ K @ v
        s2 = rest / N
        if scale is not None:
            s2 = scale / self.engine.moments.fixed.scale**2
        d = log_det + N * (LOG_2PI + np.log(s2)) + rest / s2
        if reml:
            d += np.linalg.slogdet(K[: self.p, : self.p])[1]
        return -float(d + self.constant(reml)) / 2

    def constant(self, reml: bool) -> float:
        """What internal units leave out of -2 log-likelihood."""
        return assemble.constants(self.engine.moments)[int(reml)]

    def loglike(self, params: MixedLMParams, reml: bool, profile_fe: bool) -> float:
        """See ``MixedLM.loglike``."""
        log_det, K, _ = self.ground(params.cov_re, params.vcomp)
        beta = self.gls(K) if profile_fe else params.fe_params
        return self.value(log_det, K, self.direction(beta), reml)

    def scale(self, K: np.ndarray, beta: np.ndarray, reml: bool) -> float:
        """Residual variance at given fixed effects, in the user's units."""
        v = self.direction(beta)
        N = self.n - self.p if reml else self.n
        return float(v @ K @ v) / N * self.engine.moments.fixed.scale**2

    def scale_at(self, params: MixedLMParams, reml: bool) -> float:
        """The same at given relative covariances."""
        _, K, _ = self.ground(params.cov_re, params.vcomp)
        return self.scale(K, params.fe_params, reml)

    @double_precision
    def slopes(self, cov_re, vcomp) -> Slopes:
        """First derivatives."""
        K, log_det, S, P, info = (
            np.asarray(x)
            for x in _first(self.engine.problem, self.theta(cov_re, vcomp))
        )
        J = self.jacobian
        return Slopes(
            K, float(log_det), J.T @ S, np.tensordot(J.T, P, 1), J.T @ info @ J
        )

    def score(
        self, params: MixedLMParams, reml: bool, profile_fe: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients over the fixed effects and over (triangle, components)."""
        at = self.slopes(params.cov_re, params.vcomp)
        beta = self.gls(at.K) if profile_fe else params.fe_params
        v = self.direction(beta)
        return self.score_from(at, v, reml)

    def score_from(
        self, at: Slopes, v: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same from what is known at a point."""
        p, N = self.p, (self.n - self.p if reml else self.n)
        q = v @ at.K @ v
        fixed = self.engine.moments.fixed
        fe = N / q * (fixed.R.T @ (at.K[:p] @ v)) / fixed.scale
        out = -at.trace + N / q * np.einsum("i,aij,j->a", v, at.P, v)
        if reml and p:
            inverse = np.linalg.inv(at.K[:p, :p])
            out = out + np.einsum("ij,aji->a", inverse, at.P[:, :p, :p])
        return fe, out / 2

    @cached_property
    def _doubled(self) -> Problem:
        """The problem with the response as a column of X as well."""
        B, RR = (self.engine.problem.B, self.engine.problem.RR)
        B = tuple(np.concatenate([np.asarray(b), np.asarray(b)[:, -1:]], 1) for b in B)
        RR = np.asarray(RR)
        RR = np.block([[RR, RR[:, -1:]], [RR[-1:], RR[-1:, -1:]]])
        return tree_at(
            lambda s: (s.B, s.RR), self.engine.problem, jax.device_put((B, RR))
        )

    @double_precision
    def bends(self, cov_re, vcomp) -> Bends:
        """Second derivatives."""
        theta, doubled = np.asarray(self.theta(cov_re, vcomp)), self._doubled
        slopes = host_curves(theta, doubled.covariances, 1.0)
        found = information.components(doubled, theta, np.float64(1.0), *slopes)
        J = self.jacobian
        J = np.block(
            [[J, np.zeros((len(J), 1))], [np.zeros((1, J.shape[1])), np.ones((1, 1))]]
        )
        P, Q = -np.asarray(found.P), np.asarray(found.Q)
        Q = np.einsum("ra,rsij,sb->abij", J, Q, J)
        return Bends(
            np.asarray(found.C),
            np.tensordot(J.T, P, 1),
            (Q + Q.transpose(1, 0, 2, 3)) / 2,
            J.T @ np.asarray(found.K) @ J,
        )

    def hessian(self, params: MixedLMParams, reml: bool) -> np.ndarray:
        """Second derivatives of the profiled log-likelihood over all packed parameters.

        As in Lindstrom and Bates: those in the fixed effects are at their estimates.
        """
        at = self.bends(params.cov_re, params.vcomp)
        p, m = self.p, len(at.trace) - 1
        v = self.direction(params.fe_params)
        N = self.n - p if reml else self.n
        q = v @ at.C @ v
        P, Q = at.P[:m], at.Q[:m, :m]
        B = np.einsum("i,aij,j->a", v, P, v)
        D = 2 * np.einsum("i,abij,j->ab", v, Q, v)
        inner = at.trace[:m, :m] - N * (D / q - np.outer(B, B) / q**2)
        if reml:
            inner = inner + self._reml_part(at.C, P, Q)
        across = -N / q * self._to_user(P[:, :p] @ v)
        return self._joined(-N / q * at.C[:p, :p], across, inner / 2)

    def natural_hessian(
        self, params: MixedLMParams, scale: float, reml: bool
    ) -> np.ndarray:
        """The same over (fixed effects, cov_re, vcomp, scale), nothing profiled."""
        at = self.bends(params.cov_re, params.vcomp)
        p = self.p
        v = self.direction(params.fe_params)
        s2 = scale / self.engine.moments.fixed.scale**2
        D = 2 * np.einsum("i,abij,j->ab", v, at.Q, v)
        inner = at.trace / s2**2 - D / s2**3
        if reml:
            inner = inner + self._reml_part(at.C, at.P, at.Q) / s2**2
        across = -self._to_user(at.P[:, :p] @ v) / s2**2
        # from internal variances to the user's: their unit is that of y squared
        unit = self.engine.moments.fixed.scale**2
        return self._joined(-at.C[:p, :p] / s2, across / unit, inner / 2 / unit**2)

    def _reml_part(self, C, P, Q) -> np.ndarray:
        """tr C^-1A_aC^-1A_b - tr C^-1F_ab."""
        p = self.p
        inverse = np.linalg.inv(C[:p, :p])
        A = inverse @ P[:, :p, :p]
        first = np.einsum("aij,bji->ab", A, A)
        return first - 2 * np.einsum("ij,abji->ab", inverse, Q[:, :, :p, :p])

    def _to_user(self, rows: np.ndarray) -> np.ndarray:
        """Derivatives over internal fixed effects (..., p) as those over the user's."""
        fixed = self.engine.moments.fixed
        return rows @ fixed.R / fixed.scale

    def _joined(self, fe, across, inner) -> np.ndarray:
        fixed = self.engine.moments.fixed
        fe = fixed.R.T @ fe @ fixed.R / fixed.scale**2
        return np.block([[fe, across.T], [across, inner]])
