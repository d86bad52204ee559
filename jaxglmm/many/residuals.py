"""Many responses of one design with correlated residuals, in lanes of one program.

The blocks of rows are the same for all; a response has its own last column in them, its
own start by moments and its own scale.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Float
from jaxglmm.estimate.maximise_blocks import MaximiseBlocks
from jaxglmm.fitting import blocks
from jaxglmm.fitting.coefficients import t_p_values
from jaxglmm.fitting.degrees_of_freedom import Satterthwaite
from jaxglmm.fitting.degrees_of_freedom_blocks import covariance_of
from jaxglmm.fitting.linear import SAFETY, SINGULAR
from jaxglmm.fitting.residual_parameters import parameters_of
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact_blocks
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import KeptColumns
from jaxglmm.many.responses import marked, without_offset
from jaxglmm.model import covariances
from jaxglmm.model.covariances.host import host_lambdas, host_theta
from jaxglmm.model.marginal_problem import MarginalProblem
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.fixed import EXACT

CHUNK = 256  # lanes of one call
MEMORY = 4e7  # numbers in their blocks


def residual_names(design: Design) -> tuple[str, ...]:
    """Of the parameters of the residual structure."""
    engine = blocks.BlockEngine(design, True)
    phi = np.zeros(engine.problem.n_residual)
    return tuple(x.label for x in parameters_of(design, phi, engine.problem.m))


class SharedBlocks:
    """One design, responses as columns without missing rows."""

    surer_alone = False

    @double_precision
    def __init__(self, source: ModelSource, columns: KeptColumns):
        self.source, self.columns = source, columns
        self.base = blocks.BlockEngine(source.design, source.model.reml)
        size = sum(s.rows.size + s.pairs.lag.size for s in self.base.shared.stacks)
        self.lanes = int(np.clip(MEMORY // size, 1, CHUNK))

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for responses ``which`` (L,), at most ``steps`` steps."""
        source, keep = self.source, self.base.keep
        assert source.responses is not None
        Y = without_offset(source.responses, source.offset, which, keep)
        status = self._status(Y)
        good = np.flatnonzero(status == 0)
        out = np.full((len(which), self.columns.width), np.nan)
        out[:, -1] = status
        if len(good):
            engines = [self.base.for_response(Y[:, i]) for i in good]
            out[good] = self._fitted(engines, steps)
        return out

    def _status(self, Y: np.ndarray) -> np.ndarray:
        """Zero for responses that can be fitted."""
        status = np.zeros(Y.shape[1])
        X, root = self.base.rows[:, :-1], self.base.root[:, None]
        with np.errstate(invalid="ignore"):
            rooted = Y * root
            rest = rooted - X @ (X.T @ rooted)
            size = np.sqrt(np.sum(rooted**2, axis=0))
            exact = ~(np.sqrt(np.sum(rest**2, axis=0)) > EXACT * size)
        status[exact] = _status.EXACT
        status[np.ptp(Y, axis=0) == 0] = _status.CONSTANT
        return marked(Y, status)

    def _fitted(self, engines: list[blocks.BlockEngine], steps: int) -> np.ndarray:
        shared = self.base.shared
        lanes = self.lanes
        rows = [
            np.stack([a.padded(e.rows[:, -1:])[..., 0] for e in engines])
            for a in self.base.arrangements
        ]
        starts = np.stack([e.start for e in engines])
        found = []
        for begin in range(0, len(engines), lanes):
            here = np.arange(begin, begin + lanes) % len(engines)  # one shape
            one = _lanes(
                MaximiseBlocks(self.base.reml),
                shared,
                [r[here] for r in rows],
                starts[here],
                np.float64(SAFETY * self.source.tol),
                np.int64(steps),
            )
            found.append(jax.tree.map(np.asarray, one))
        joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(engines)], *found)
        return np.stack(
            [
                self._row(e, jax.tree.map(lambda x, i=i: x[i], joined))
                for i, e in enumerate(engines)
            ]
        )

    def _row(self, engine: blocks.BlockEngine, found: Any) -> np.ndarray:
        fitted, hessian, fisher, F = found
        fixed, design = engine.fixed, engine.design
        constants = engine.constants
        criterion = float(fitted.criterion) + constants[int(engine.reml)]
        beta = fixed.beta(fitted.beta)
        vcov = fixed.vcov(fitted.LQ, fixed.scale)
        se = np.sqrt(np.diagonal(vcov))
        n_residual = self.base.shared.n_residual
        phi = fitted.theta[:n_residual] + np.log(fixed.scale) * engine.is_level
        df = np.full(design.p, float(len(engine.keep) - design.p))
        if self.source.satterthwaite:
            A = covariance_of(hessian, fisher)
            back = fixed.scale * np.linalg.solve(fitted.LQ, fixed.R_inverse.T).T
            moved = np.moveaxis(back @ F @ back.T, 0, 2)
            df = Satterthwaite(A, vcov, moved).of_coefficients()
        terms = tuple(covariances.of(t) for t in design.terms)
        sigma = float(np.exp(phi[0]))
        lam = host_lambdas(fitted.theta[n_residual:], terms)
        relative = [fixed.scale / sigma * np.abs(x) for x in lam]
        values = [x.value for x in parameters_of(design, phi, len(fitted.theta))]
        near = np.abs(fitted.theta[engine.scales]) < SINGULAR
        return self.columns.table(
            1,
            coefficients=beta,
            se=se,
            df=df,
            p_values=t_p_values(beta / se, df),
            sd=np.concatenate(
                [np.zeros(0), *(sigma * np.sqrt(np.sum(x**2, 1)) for x in relative)]
            ),
            theta=host_theta(relative, terms) if terms else np.zeros(0),
            dispersion=np.array(values),
            sigma=np.float64(sigma),
            log_likelihood=np.float64(-criterion / 2),
            decrement=np.float64(fitted.decrement),
            steps=np.float64(fitted.steps),
            singular=np.float64(near.any() or bool(blocks.at_ends(design, phi))),
            separated=np.float64(False),
            status=np.float64(fitted.status),
        )[0]


@partial(jax.jit, static_argnums=0)
def _lanes(
    estimator: MaximiseBlocks,
    problem: MarginalProblem,
    rows: list[Float[Array, "L N T"]],
    starts: Float[Array, "L m"],
    tol: Any,
    steps: Any,
) -> Any:
    """Fit every lane; the Hessian, Fisher's information and F at its end."""

    def one(own: list[Array], start: Array) -> Any:
        mine = tree_at(
            lambda p: [p.stacks[k].rows for k in range(len(own))],
            problem,
            [
                jax.numpy.concatenate([s.rows[..., :-1], y[..., None]], axis=-1)
                for s, y in zip(problem.stacks, own, strict=True)
            ],
        )
        fitted = estimator.fit(mine, start, tol, steps)
        d = exact_blocks.derivatives(mine, fitted.theta, estimator.reml)
        return fitted, d.hessian, d.fisher, d.F

    return jax.vmap(one)(rows, starts)
