"""Linear models with correlated residuals in lanes: what one search leaves, as a row.

A lane is a problem by blocks of its own. Where a search did not converge in its steps,
or ended at the end of a range, a fit of its own says what there is: it tries other
starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array
from jaxglmm.estimate.maximise_blocks import MaximiseBlocks
from jaxglmm.fitting import blocks
from jaxglmm.fitting.coefficients import t_p_values
from jaxglmm.fitting.degrees_of_freedom import Satterthwaite
from jaxglmm.fitting.degrees_of_freedom_blocks import covariance_of
from jaxglmm.fitting.linear import SINGULAR
from jaxglmm.fitting.residual_parameters import parameters_of
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact_blocks
from jaxglmm.many.columns import ALONE, KeptColumns
from jaxglmm.model import covariances
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.host import any_at_end, host_lambdas, host_theta
from jaxglmm.model.marginal_problem import MarginalProblem


def residual_names(design: Design) -> tuple[str, ...]:
    """Of the parameters of the residual structure."""
    engine = blocks.BlockEngine(design, True)
    phi = np.zeros(engine.problem.n_residual)
    return tuple(x.label for x in parameters_of(design, phi, engine.problem.m))


def searched(
    estimator: MaximiseBlocks, problem: MarginalProblem, start: Array, tol, steps
) -> Any:
    """One lane: the fit; the Hessian, Fisher's information and F at its end."""
    fitted = estimator.fit(problem, start, tol, steps)
    d = exact_blocks.derivatives(problem, fitted.theta, estimator.reml)
    return fitted, d.hessian, d.fisher, d.F


def row(
    engine: blocks.BlockEngine, found: Any, columns: KeptColumns, satterthwaite: bool
) -> np.ndarray:
    """A row of the table from what ``searched`` found."""
    fitted, hessian, fisher, F = found
    fixed, design = engine.fixed, engine.design
    criterion = float(fitted.criterion) + engine.constants[int(engine.reml)]
    beta = fixed.beta(fitted.beta)
    vcov = fixed.vcov(fitted.LQ, fixed.scale)
    se = np.sqrt(np.diagonal(vcov))
    terms = tuple(covariances.of(t) for t in design.terms)
    n_residual = len(engine.is_level)
    phi = fitted.theta[:n_residual] + np.log(fixed.scale) * engine.is_level
    df = np.full(design.p, float(len(engine.keep) - design.p))
    if satterthwaite:
        A = covariance_of(hessian, fisher)
        back = fixed.scale * np.linalg.solve(fitted.LQ, fixed.R_inverse.T).T
        moved = np.moveaxis(back @ F @ back.T, 0, 2)
        df = Satterthwaite(A, vcov, moved).of_coefficients()
    sigma = float(np.exp(phi[0]))
    lam = host_lambdas(fitted.theta[n_residual:], terms)
    relative = [fixed.scale / sigma * np.abs(x) for x in lam]
    values = [x.value for x in parameters_of(design, phi, len(fitted.theta))]
    rest = fitted.theta[n_residual:]
    near = (np.abs(rest[np.array(base.is_scale(terms), bool)]) < SINGULAR).any()
    singular = bool(near) or bool(blocks.at_ends(design, phi))
    singular = singular or (bool(terms) and any_at_end(rest, terms))
    sure = fitted.status == _status.CONVERGED and not singular
    return columns.table(
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
        singular=np.float64(singular),
        separated=np.float64(False),
        status=np.float64(fitted.status if sure else ALONE),
    )[0]
