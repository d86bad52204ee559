"""Parametric bootstrap of a linear model: thousands of simulated responses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate import refine
from jaxglmm.estimate import response_lanes as lanes
from jaxglmm.fitting import components
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.many import bootstrap_responses as draws
from jaxglmm.many import correlations
from jaxglmm.many.record import FittedModels
from jaxglmm.model import assemble
from jaxglmm.numerics import spd
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.executors import executor
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.progress import bar
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure.padding import bucket

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.linear import Engine

THREADS = 2  # halves of a large bootstrap run side by side
WORTH_THREADS = 2000
FEW = 400  # data sets that are fitted at once, each in NumPy where that is quicker
STEPS = 60  # evaluations for all; what is not done then is fitted alone
TOLERANCE = 1e-10
MEMORY = 200_000_000  # bytes of simulated rows at once, where rows are needed


@double_precision
def bootstrap(
    fit: FittedModel, n: int = 1000, seed: int = 0, progress: bool = False
) -> FittedModels:
    """Parametric bootstrap: n responses drawn from the fit, and fitted.

    Args:
        fit: the model to draw from.
        n: data sets.
        seed: of the random numbers; equal seeds give equal results.
        progress: show a bar.

    Returns:
        A ``Fits`` with the estimates of every data set.
    """
    n = number_of_datasets(n)
    seed = _arguments.seed(seed)
    progress = _arguments.flag("progress", progress)
    engine = fit.engine
    theta = engine.theta(fit.estimates)
    few = n <= FEW and 8 * n * engine.moments.n <= MEMORY
    chunk = lanes.chunk_size(engine.problem)
    # a few are not rounded up to a common shape: they may need no program at all
    chunk = -(-n // -(-n // chunk)) if few else min(chunk, bucket(n))
    workers = THREADS if _unrolled(engine) and n >= WORTH_THREADS else 1
    at_once = (
        -(-n // chunk) * chunk if few else _at_once(engine, -(-n // workers), chunk)
    )
    responses = _responses(engine, fit, theta, n, seed, at_once)
    work = partial(_fit_lanes, engine, theta=theta, chunk=chunk)
    found = []
    # several at once only where no LAPACK call is batched (see ``numerics.wide``);
    # else one by one, so that simulated rows are not all held together
    with executor(workers) as pool, bar(n, progress, "fit", "bootstrap") as shown:
        for k, out in enumerate(pool.map(work, responses)):
            size = min(at_once, n - k * at_once)
            found.append(jax.tree.map(lambda x, s=size: np.asarray(x)[:s], out))
            shown.update(size)
    joined = jax.tree.map(lambda *x: np.concatenate(x), *found)
    return _fits(fit, engine, joined)


def number_of_datasets(n) -> int:
    """Of a bootstrap; refuses what is no whole number from 1 on, and too many."""
    most = _arguments.DATASETS
    return _arguments.whole("n", n, 1, most, error=NotApplicableError)


def _at_once(engine: Engine, n: int, chunk: int) -> int:
    """Data sets in one call: a multiple of the chunk, few shapes."""
    if _free_of_rows(engine):
        most = 20_000
    else:
        most = max(chunk, MEMORY // (8 * engine.moments.n))
    wanted = min(bucket(n), most)
    return -(-wanted // chunk) * chunk


def _free_of_rows(engine: Engine) -> bool:
    return isinstance(engine.problem.system, Blocks | Wide)


def _unrolled(engine: Engine) -> bool:
    """Whether a fit is straight-line code: small blocks, few fixed effects."""
    problem = engine.problem
    small = problem.sides[0] <= 2 and problem.p <= spd.SMALL
    return isinstance(problem.system, Blocks) and small


def _responses(
    engine: Engine, fit: FittedModel, theta, n: int, seed: int, at_once: int
):
    """Cross-products of simulated responses, ``at_once`` at a time."""
    calls = -(-n // at_once)
    if _free_of_rows(engine):
        m = engine.moments
        s = draws.sampler(engine.problem, m.n)
        (lam,) = _engine.lambdas(engine.problem, theta)
        beta = m.fixed.R @ (fit.estimates.beta - m.fixed.beta0) / m.fixed.scale
        rng = np.random.default_rng(_arguments.sequence(seed))
        for _ in range(calls):
            yield draws.draw(rng, at_once, s, lam, beta, fit.sigma / m.fixed.scale)
        return
    for own in _arguments.sequence(seed).spawn(calls):
        Y = _simulate.simulate(fit.design, fit.estimates, at_once, own, True)
        yield _cross_products(engine, fit, Y)


def _cross_products(engine: Engine, fit: FittedModel, Y: np.ndarray) -> lanes.Responses:
    """Z'y, X'y and y'y of the rows of Y (D, n), in internal coordinates."""
    m = engine.moments
    offset = 0.0 if fit.design.offset is None else fit.design.offset
    rows = (Y - offset - fit.design.X @ m.fixed.beta0).T / m.fixed.scale
    if m.keep is not None:
        rows = rows[m.keep]
    weighted = rows if m.weights is None else rows * m.weights[:, None]
    Zy = tuple(
        jnp.asarray(np.swapaxes(cross.times(f, weighted, size), 0, 1))
        for f, size in zip(m.factors, m.sizes, strict=True)
    )
    Xy = weighted.T @ m.basis.whole
    yy = np.einsum("nd,nd->d", rows, weighted)
    return lanes.Responses(Zy, jnp.asarray(Xy), jnp.asarray(yy))


def _fit_lanes(
    engine: Engine, responses: lanes.Responses, theta: np.ndarray, chunk: int
) -> lanes.Lanes:
    """Fit all lanes; those that are not done go on alone, from the default start."""
    start = np.where(np.abs(theta) < 0.05, _nudged(engine, theta), theta)
    out = lanes.fit_lanes(
        engine.estimator,
        engine.problem,
        responses,
        start,
        np.float64(TOLERANCE),
        chunk,
        np.int64(STEPS),
    )
    out = jax.tree.map(np.array, out)
    for i in np.flatnonzero(out.status == _status.MAX_STEPS):
        own = jax.tree.map(lambda x, i=i: x[i], responses)
        problem = engine.problem.with_response(own.Zy, own.Xy, own.yy)
        fitted = refine.fit(engine.moments, problem, engine.estimator, TOLERANCE, 500)
        for name in ("theta", "beta", "sigma2", "criterion", "status", "steps"):
            getattr(out, name)[i] = np.asarray(getattr(fitted, name))
    return out


def _nudged(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """theta with diagonals away from zero, where a fit would never leave it."""
    diagonal = [i == j for pattern in engine.problem.patterns for i, j in pattern]
    return np.where(np.array(diagonal), 0.3, theta)


def _fits(fit: FittedModel, engine: Engine, out: lanes.Lanes) -> FittedModels:
    """Lanes in the user's coordinates."""
    m = engine.moments
    sigma = np.sqrt(out.sigma2) * m.fixed.scale
    internal = _engine.many_lambdas(engine, out.theta)
    rotated = [f.T_inverse @ lam for f, lam in zip(m.factors, internal, strict=True)]
    terms = _engine.per_term_square(m.factors, rotated)
    sd = np.concatenate(
        [np.sqrt(np.sum(x**2, axis=-1)) * sigma[:, None] for x in terms], axis=1
    )
    ml, reml = assemble.constants(m)
    criterion = out.criterion + (reml if fit.reml else ml)
    smallest = np.min(
        [np.abs(np.diagonal(x, axis1=1, axis2=2)).min(axis=1) for x in internal], axis=0
    )
    names = [f"sd_{name}|{t.label}" for t in fit.design.terms for name in t.names]
    return FittedModels(
        coefficients=m.fixed.beta(out.beta),
        coefficient_names=tuple(fit.design.x_names),
        sd=sd,
        sd_names=tuple(names),
        sigma=sigma,
        theta=_engine.pack_many(fit.design, terms),
        log_likelihood=-criterion / 2,
        status=out.status,
        converged=out.status == _status.CONVERGED,
        singular=smallest < _engine.SINGULAR,
        original=_original(fit),
        terms=correlations.terms_of(fit.design.terms),
    )


def _original(fit: FittedModel) -> dict[str, float]:
    """Name -> value in the fit that the data were drawn from."""
    beta = zip(fit.design.x_names, fit.coefficients, strict=True)
    rest = {p.label: p.value for p in components.parameters(fit.design, fit.estimates)}
    return {name: float(x) for name, x in (dict(beta) | rest).items()}
