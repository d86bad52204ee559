"""Engine of linear models whose rows come in blocks of correlated residuals.

As ``fitting.linear`` for cross-products: a design to arrays, these fitted, and back to
the user's units. It runs on the host: blocks with the same rows are replaced by few
(``structure.patterns``), so that the size of the data is soon forgotten.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.base import Fitted
from jaxglmm.estimate.held import Chart, HeldCoordinates
from jaxglmm.estimate.maximise_blocks import MaximiseBlocks
from jaxglmm.fitting import held
from jaxglmm.fitting import residual_coordinates as coordinates
from jaxglmm.fitting.block_cells import Cells, cells_of, strata_of
from jaxglmm.fitting.block_rows import (
    block_rows,
    correlation_of,
    n_columns,
    n_scales,
    precisions,
    stack_of,
    turn_of,
)
from jaxglmm.fitting.block_start import rivals, start_of
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import SAFETY, SINGULAR, STEPS, TOLERANCE, judged
from jaxglmm.fitting.residual_coordinates import at_ends
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact_blocks
from jaxglmm.model import covariances
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.host import any_at_end, host_lambdas, host_theta
from jaxglmm.model.marginal_problem import MarginalProblem, Stack
from jaxglmm.model.residuals import Correlation
from jaxglmm.runtime.host import on_host
from jaxglmm.structure.fixed import Basis, FixedBasis, orthonormal, residual
from jaxglmm.structure.patterns import Arrangement, BlockRows, arrange, fewest
from jaxglmm.structure.strata import Strata

LEFT = 1e-2  # of the criterion, where a correlation runs to the end of its range
PLAIN = 20_000  # numbers in the blocks up to which fewer are not looked for


class BlockEngine:
    """One design, arranged; ``y`` (n,) its response, offset taken off."""

    def __init__(self, design: Design, reml: bool, y: np.ndarray | None = None):
        self.design, self.reml = design, reml
        here = design.counted
        self.keep = np.arange(design.n)[here]
        w = precisions(design)
        self.weights = None if w is None else w[here]
        self._all = isinstance(here, slice)
        self.held, _ = held.coefficients(design)
        self._y = y

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """Those that count, without a copy where all do."""
        return rows if self._all else rows[self.keep]

    @cached_property
    def root(self) -> np.ndarray:
        """(n,) roots of the weights."""
        w = self.weights
        return np.ones(len(self.keep)) if w is None else np.sqrt(w)

    @cached_property
    def y(self) -> np.ndarray:
        """(n,) response of the rows that count, offset taken off."""
        if self._y is not None:
            return self._y
        d = self.design
        return self.kept(d.y if d.offset is None else d.y - d.offset)

    @cached_property
    def _basis(self) -> tuple[np.ndarray, Basis]:
        X = self.kept(self.design.X)
        X = X[:, ~self.held] if self.held.any() else X
        return orthonormal(X, self.weights)

    @cached_property
    def _response(self) -> tuple[np.ndarray, FixedBasis]:
        R, basis = self._basis
        y, _ = held.without_held(self.design, self.y, self.kept(self.design.X))
        least = self.design.fixed.get("sigma", 0.0)
        y, coefficients, scale = residual(y, basis, self.weights, least)
        if len(self.is_level) and not self.is_level.any():
            # none of the parameters takes the unit of y up
            y, scale = y * scale, 1.0
        return y, FixedBasis(R, coefficients, scale)

    @property
    def fixed(self) -> FixedBasis:
        """From the internal coordinates of beta to the user's."""
        return self._response[1]

    @cached_property
    def rows(self) -> np.ndarray:
        """(n, p + 1) [X y] in internal coordinates, times the roots of the weights."""
        X = self._basis[1].whole
        both = np.concatenate([X, self._response[0][:, None]], axis=1)
        return both if self.weights is None else both * self.root[:, None]

    @cached_property
    def block_rows(self) -> BlockRows:
        """Where the rows are; weights are of the residuals, so effects take them."""
        rows = block_rows(self.design).take(self.keep)
        root = self.root[:, None]
        effects = tuple((z * root, c) for z, c in rows.effects)
        if self.turn is not None:
            rows = replace(rows, scales=rows.scales @ self.turn)
        return replace(rows, effects=effects)

    @cached_property
    def turn(self) -> np.ndarray | None:
        """See ``turn_of``; None where parameters are the user's."""
        term = self.design.residual
        return None if term is None or term.part is None else turn_of(self.design)

    def user_phi(self, own: np.ndarray) -> np.ndarray:
        """Residual parameters in the user's units from internal ones."""
        own = own if self.turn is None else self.turn @ own
        return own + np.log(self.fixed.scale) * self.is_level

    @cached_property
    def arrangements(self) -> tuple[Arrangement, ...]:
        """The blocks before X and y are put in."""
        return arrange(self.block_rows)

    @cached_property
    def correlation(self) -> Correlation | None:
        """The structure's correlation."""
        return correlation_of(self.design)

    @property
    def start(self) -> np.ndarray:
        """(m,) theta to start from."""
        return start_of(self)

    @property
    def constants(self) -> tuple[float, float]:
        """What the internal criteria lack, ML and REML."""
        log_scale2 = 2 * float(np.log(self.fixed.scale))
        weights = 0.0 if self.weights is None else float(np.log(self.weights).sum())
        n, p = len(self.keep), int((~self.held).sum())
        ml = n * log_scale2 - weights
        return ml, (n - p) * log_scale2 - weights + self.fixed.log_det

    @property
    def shared(self) -> MarginalProblem:
        """The problem with every block of its own, whatever the response."""
        return self._problem(fewer=False)

    @cached_property
    def strata(self) -> Strata | None:
        """Rows by their variances, where few of these are worth while."""
        few = len(self.keep) * (1 + int((~self.held).sum())) <= PLAIN
        return None if few else strata_of(self)

    @cached_property
    def cells(self) -> Cells | None:
        """Sums by them."""
        return None if self.strata is None else cells_of(self)

    @cached_property
    def problem(self) -> MarginalProblem:
        """All that a fit reads."""
        if self.cells is None:
            return self.by_rows
        return self._of(self.cells.stacks)

    @cached_property
    def by_rows(self) -> MarginalProblem:
        """The same with the templates and patterns of the arrangements."""
        return self._problem(fewer=True)

    def _problem(self, fewer: bool) -> MarginalProblem:
        stacks = []
        for a in self.arrangements:
            blocks, pattern = a.padded(self.rows), a.pattern
            if fewer and blocks.size > PLAIN and len(a.mask) < len(blocks):
                blocks, pattern = fewest(blocks, pattern, a.mask)
            stacks.append(stack_of(a, blocks, pattern))
        return self._of(tuple(stacks))

    def _of(self, stacks: tuple[Stack, ...]) -> MarginalProblem:
        terms = tuple(covariances.of(t) for t in self.design.terms)
        ml, reml = self.constants
        return MarginalProblem(
            stacks,
            np.float64(len(self.keep)),
            start_of(self),
            np.float64(ml),
            np.float64(reml),
            self.correlation,
            terms,
            not self._is_silent,
        )

    @property
    def _is_silent(self) -> bool:
        term = self.design.residual
        return term is not None and term.is_silent

    # Fitting -------------------------------------------------------------------------

    def fit(
        self,
        tol: float = TOLERANCE,
        max_steps: int = STEPS,
        start: held.Given | None = None,
        theta: np.ndarray | None = None,
    ) -> tuple[Fitted, float]:
        """Fit; arrays as NumPy, and the criterion with its constants.

        An end of a range may be one of several maxima: a correlation that goes to one
        is a random intercept. Then other starts are tried, and the best end is kept.

        start: values of parameters by name to start from; theta: the whole of it.
        """
        estimator, step = MaximiseBlocks(self.reml), (SAFETY * tol, max_steps)
        if start and not self.design.fixed:
            theta = self._placed(self.problem.start, start)

        def found(theta: np.ndarray | None) -> Fitted:
            with on_host():
                if not self.design.fixed:
                    return estimator.fit(self.problem, theta, *step)
                first = self.problem.start if theta is None else theta
                pieces = self.pieces(first, start or {})
                return estimator.held(self.problem, pieces, *step)

        fitted = found(theta)
        if fitted.status != _status.CONVERGED or self.is_singular(fitted):
            for other_start in rivals(self):
                other = found(other_start)
                gains = other.criterion < fitted.criterion - tol
                if gains or not np.isfinite(fitted.criterion):
                    fitted = other
        constant = self.problem.constant_reml if self.reml else self.problem.constant
        return fitted, float(fitted.criterion) + float(constant)

    def pieces(self, theta: np.ndarray, given: held.Given) -> HeldCoordinates:
        """What is held and what moves, from internal theta and values by name."""
        return coordinates.of_engine(self, theta, given)

    def _placed(self, theta: np.ndarray, given: held.Given) -> np.ndarray:
        pieces = self.pieces(theta, given)
        return pieces.chart.theta(pieces.start)

    def chart_at(self, theta: np.ndarray) -> tuple[Chart, np.ndarray] | None:
        """Coordinates of what is not held, and where theta is; None: theta itself."""
        if not self.design.fixed:
            return None
        pieces = self.pieces(theta, {})
        return pieces.chart, pieces.start

    def derivatives(self, theta: np.ndarray, reml: bool | None = None):
        """Value, score, Hessian at internal theta."""
        with on_host():
            return exact_blocks.derivatives(
                self.problem, theta, self.reml if reml is None else reml
            )

    def criterion_at(self, theta: np.ndarray) -> float:
        """With all constants."""
        constant = self.problem.constant_reml if self.reml else self.problem.constant
        return float(self.derivatives(theta).value) + float(constant)

    def with_method(self, reml: bool) -> BlockEngine:
        """The same rows by the other criterion."""
        return self._like(reml, self.y)

    def for_response(self, y: np.ndarray) -> BlockEngine:
        """The same rows with another response, offset taken off."""
        return self._like(self.reml, y)

    def _like(self, reml: bool, y: np.ndarray) -> BlockEngine:
        out = BlockEngine(self.design, reml, y)
        known = ("_basis", "block_rows", "arrangements", "correlation", "turn")
        for name in (*known, "is_level", "strata"):
            if name in self.__dict__:
                out.__dict__[name] = self.__dict__[name]
        return out

    # Units ---------------------------------------------------------------------------

    def theta(self, estimates: Estimates) -> np.ndarray:
        """(m,) internal theta of estimates in the user's units."""
        own = estimates.phi - np.log(self.fixed.scale) * self.is_level
        own = own if self.turn is None else np.linalg.solve(self.turn, own)
        absolute = [x * (estimates.sigma / self.fixed.scale) for x in estimates.lam]
        terms = tuple(covariances.of(t) for t in self.design.terms)
        rest = host_theta(absolute, terms) if terms else np.zeros(0)
        return np.concatenate([own, rest])

    def is_singular(self, fitted: Fitted) -> bool:
        """Whether a standard deviation is next to zero, or a correlation at an end."""
        theta = np.asarray(fitted.theta)
        rest, terms = theta[self.problem.n_residual :], self.problem.covariances
        own = at_ends(self.design, theta[: self.problem.n_residual])
        zeros = [held.has_zero(t, self.design.fixed) for t in self.design.terms]
        each = [c.m for c in self.problem.covariances]
        asked = np.repeat(np.array(zeros, bool), each)
        free = self.scales[self.problem.n_residual :] & ~asked
        near = bool((np.abs(rest[free]) < SINGULAR).any())
        return near or bool(own) or (bool(terms) and any_at_end(rest, terms))

    def estimates(self, design: Design, fitted: Fitted, criterion: float) -> Estimates:
        """Back to the user's coordinates."""
        return estimates(self, design, fitted, criterion)

    @cached_property
    def is_level(self) -> np.ndarray:
        """(residual parameters,) how they rise with the log of the unit of y."""
        term, own = self.design.residual, self.correlation
        assert term is not None
        each = np.zeros(n_columns(self.design) + (0 if own is None else own.k))
        if term.part is None:
            each[: n_scales(self.design)] = 1.0
        elif len(each):
            D = term.scales if term.strata is None else term.strata[1]
            found = np.linalg.lstsq(D, np.ones(len(D)), rcond=None)
            if np.allclose(D @ found[0], 1.0, rtol=0, atol=1e-9):
                each = found[0]
        return np.tile(each, len(term.group_levels))

    @cached_property
    def scales(self) -> np.ndarray:
        """(m,) which thetas are standard deviations of random effects."""
        terms = tuple(covariances.of(t) for t in self.design.terms)
        own = np.zeros(self.problem.n_residual, bool)
        return np.concatenate([own, base.is_scale(terms)])


def estimates(
    engine: BlockEngine, design: Design, fitted: Fitted, criterion: float
) -> Estimates:
    """Back to the user's coordinates; phi: the residual parameters."""
    fixed, terms = engine.fixed, engine.problem.covariances
    phi, sigma, lam = user_parameters(engine, design, np.asarray(fitted.theta))
    status = judged(fitted, criterion)
    ends = at_ends(design, phi)
    slow = status in (_status.MAX_STEPS, _status.STALLED)
    if ends and slow and fitted.decrement < LEFT:
        status = _status.CONVERGED  # what is left lies beyond the end of a range
    free, (_, beta) = ~engine.held, held.coefficients(design)
    beta[free] = fixed.beta(np.asarray(fitted.beta))
    vcov = np.zeros((len(beta), len(beta)))
    vcov[np.ix_(free, free)] = fixed.vcov(np.asarray(fitted.LQ), fixed.scale)
    return Estimates(
        beta=beta,
        vcov=vcov,
        sigma=sigma,
        lam=lam,
        theta=host_theta(lam, terms) if terms else np.zeros(0),
        b=_modes(engine, fitted),
        criterion=criterion,
        reml=engine.reml,
        converged=status == _status.CONVERGED,
        share=1.0,
        singular=engine.is_singular(fitted),
        status=status,
        n_iter=int(fitted.steps),
        decrement=float(fitted.decrement),
        phi=phi,
    )


def user_parameters(
    engine: BlockEngine, design: Design, theta: np.ndarray
) -> tuple[np.ndarray, float, tuple[np.ndarray, ...]]:
    """Residual parameters, sigma and Lambda of each term, from internal theta."""
    r, term = engine.problem.n_residual, design.residual
    assert term is not None
    phi = engine.user_phi(theta[:r])
    sigma = 1.0 if term.part is not None else float(np.exp(phi[0]))
    absolute = host_lambdas(theta[r:], engine.problem.covariances)
    return (
        phi,
        sigma,
        tuple(_positive(engine.fixed.scale / sigma * x) for x in absolute),
    )


def _positive(lam: np.ndarray) -> np.ndarray:
    """The triangle with a diagonal that is not negative."""
    return lam * np.where(np.diagonal(lam) < 0, -1.0, 1.0)


def _modes(engine: BlockEngine, fitted: Fitted) -> tuple[np.ndarray, ...]:
    """b = Sigma Z'V^-1(y - X beta) of every term, in the user's units."""
    problem, design = engine.problem, engine.design
    if not design.terms:
        return ()
    if engine.cells is not None:
        (sd,) = np.asarray(fitted.theta[problem.n_residual :])
        scales = np.asarray(fitted.theta[: problem.n_residual])
        b = engine.cells.modes(scales, sd, np.asarray(fitted.beta))
        return (engine.fixed.scale * b[:, None],)
    r = weighted_residuals(engine, np.asarray(fitted.theta), np.asarray(fitted.beta))
    lams = host_lambdas(
        np.asarray(fitted.theta[problem.n_residual :]), problem.covariances
    )
    out = []
    for term, lam in zip(design.terms, lams, strict=True):
        total = np.zeros((term.n_levels, len(term.names)))
        np.add.at(total, term.codes[engine.keep], term.values[engine.keep] * r[:, None])
        out.append(engine.fixed.scale * total @ (lam @ lam.T))
    return tuple(out)


def weighted_residuals(
    engine: BlockEngine, theta: np.ndarray, beta: np.ndarray
) -> np.ndarray:
    """V^-1(y - X beta) of the rows that count, all in internal units."""
    residuals = engine.rows[:, -1] - engine.rows[:, :-1] @ beta
    return engine.root * solved(engine, theta, residuals[:, None])[:, 0]


def solved(engine: BlockEngine, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """V^-1 rows, (n, c), V of internal theta."""
    out, problem = np.empty_like(rows), engine.by_rows
    with on_host():
        for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
            P, _ = exact_blocks.precision(stack, problem.tables(theta, stack)[0])
            solution = P[a.pattern] @ a.padded(rows)
            out[a.at] = solution[a.block, a.slot]
    return out
