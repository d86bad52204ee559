"""The mode of a marginal posterior, and how the random effects are integrated out."""

from __future__ import annotations

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.exact_marginal import Exact
from jaxglmm.integrate.marginals import integrator
from jaxglmm.integrate.quadrature import AdaptiveQuadrature
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.runtime.trees import tree_at

TOLERANCE = 1e-9
STEPS = 300
FEW_TRIALS = 100  # trials a group (counts: events) up to which Laplace is not trusted
WIDE = 2.0  # sd of a group's effects from which 9 nodes are too few
FLAT = 1e-10  # eigenvalue of the scaled Hessian, of the largest, that is none
LEAST_CURVED = 0.01  # what such a direction gets instead
NOWHERE = (
    "the posterior is not finite where the search for its mode ended. Look for "
    "covariates of extreme size and for fixed dispersions that the data contradict, or "
    "give the standard deviations tighter priors: jg.Priors(sd=jg.HalfNormal(1))"
)


def find_mode(
    engine: PosteriorEngine, method: BayesMethod
) -> tuple[AbstractMarginal, _map.Mode]:
    """How u is integrated out, and the mode of the marginal posterior."""
    nodes = method.nodes
    automatic = nodes is None
    if nodes is None:
        nodes = 9 if small_binary_groups(engine) else 1
    marginal = check_nodes(engine, nodes)
    mode = mode_of(engine, marginal)
    if automatic and nodes > 1 and widest(engine, mode) > WIDE:
        marginal = AdaptiveQuadrature(25)
    return marginal, mode


def mode_of(engine: PosteriorEngine, marginal: AbstractMarginal) -> _map.Mode:
    """The mode of the marginal posterior under one integrator."""
    found = _map.find_from_rows(
        marginal,
        engine.posterior,
        engine.eta,
        engine.phi,
        np.float64(TOLERANCE),
        np.int64(STEPS),
    )
    return curved(jax.device_get(found))


def curved(mode: _map.Mode) -> _map.Mode:
    """A mode whose Hessian is positive definite, its eigenvalues made so if need be.

    Where the search ended on a ridge or on a saddle, directions that do not curve up
    get a curvature from the others, so that draws can be made and weighed; the status
    says that this is no mode.

    Raises:
        ModelError: the Hessian is not finite.
    """
    H = np.asarray(mode.H)
    if not np.isfinite(H).all():
        raise ModelError(NOWHERE)
    if not len(H):
        return mode
    size = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-12))
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    least = FLAT * values.max()
    if values.min() > least:
        return mode
    # draws along a direction without curvature would have no end
    values = np.maximum(np.abs(values), max(LEAST_CURVED, least))
    mended = (vectors * values) @ vectors.T * np.outer(size, size)
    status = int(mode.status) or _status.STALLED
    return tree_at(lambda m: (m.H, m.status), mode, (mended, np.asarray(status)))


def check_nodes(engine: PosteriorEngine, nodes: int) -> AbstractMarginal:
    """How u is integrated out by so many nodes; 1: exactly in linear models.

    Quadrature needs one grouping factor with at most three columns.
    """
    problem = engine.posterior.problem
    if nodes > 1 and (len(problem.sides) != 1 or problem.sides[0] > 3):
        raise NotApplicableError(
            f"nodes={nodes}: adaptive quadrature needs one grouping factor with at "
            "most three columns; this model has "
            f"{len(problem.sides)} factors with {problem.sides} columns. Use nodes=1 "
            "(Laplace)"
        )
    linear = problem.sides and problem.family.is_linear_model
    return Exact() if linear and nodes == 1 else integrator(nodes=nodes)


def small_binary_groups(engine: PosteriorEngine) -> bool:
    """Whether Laplace's method is in doubt and quadrature cheap.

    One factor of one column, groups of few trials or few events.
    """
    problem, design = engine.posterior.problem, engine.design
    if problem.sides != (1,):
        return False
    codes, J = design.terms[0].codes, design.terms[0].n_levels
    worth = engine.family.worth(design.y, design.trials)
    if worth is None:
        return False
    return float(np.median(np.bincount(codes, worth, J))) < FEW_TRIALS


def widest(engine: PosteriorEngine, mode: _map.Mode) -> float:
    """Largest standard deviation of a term's effects on the predictor at the mode."""
    parts, _ = engine.split(np.asarray(mode.x))
    sds = [
        np.exp(y[: len(block.sds)])
        for block, y in zip(engine.belief.blocks, parts, strict=True)
    ]
    return float(max((s.max() for s in sds), default=0.0))
