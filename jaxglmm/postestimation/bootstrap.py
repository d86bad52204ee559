"""Parametric bootstrap: thousands of responses drawn from a fit, and fitted.

Linear models with one grouping factor draw what a fit reads of a response and not its
rows (``many.bootstrap_responses``); their fits are lanes of one program. Responses of
generalised models are fitted one after the other by the warm program of the fit, or as
``fit_many`` does where they are worth a program of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate import refine
from jaxglmm.estimate import response_lanes as lanes
from jaxglmm.fitting import components, separation
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting import simulate as _simulate
from jaxglmm.many import bootstrap_responses as draws
from jaxglmm.many import correlations
from jaxglmm.many.general import lambdas
from jaxglmm.many.record import FittedModels
from jaxglmm.model import assemble, covariances
from jaxglmm.numerics import spd
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.executors import executor
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.progress import bar
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure.padding import bucket

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.generalised import GeneralisedEngine
    from jaxglmm.fitting.linear import Engine
    from jaxglmm.formula.design import Design


def bootstrap(
    fit: Any, n: int = 1000, seed: Any = 0, progress: bool = False
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
    progress = _arguments.flag("progress", progress)
    if fit.design.residual is not None:
        return _correlated(fit, n, _arguments.seed(seed), progress)
    if fit.is_linear:
        return _linear(fit, n, _arguments.seed(seed), progress)
    sequence = _arguments.sequence(seed)
    fit = fit.unfolded("bootstrap()", keep=True)
    if n * fit.design.n >= WORTH_LANES and not fit.design.fixed:
        found = _in_lanes(fit, n, sequence, progress)
        if found is not None:
            return found
    return _one_by_one(fit, n, sequence, progress)


def number_of_datasets(n) -> int:
    """Of a bootstrap; refuses what is no whole number from 1 on, and too many."""
    most = _arguments.DATASETS
    return _arguments.whole("n", n, 1, most, error=NotApplicableError)


def _batches(
    n: int, at_once: int, seed: np.random.SeedSequence
) -> Iterator[tuple[int, int, np.random.SeedSequence]]:
    """First data set, number of them, and random numbers of each call."""
    starts = range(0, n, at_once)
    for start, own in zip(starts, seed.spawn(len(starts)), strict=True):
        yield start, min(at_once, n - start), own


def _fits(
    fit: FittedModel, theta: np.ndarray, status: np.ndarray, **more: Any
) -> FittedModels:
    """Many fits in the user's coordinates, from internal theta (D, m).

    more: coefficients, sigma (D,; NaN where there is none), ...
    """
    terms, theta, singular = lambdas(fit.design, fit.engine, theta)
    scale = more["sigma"] if fit.is_linear else np.ones(len(theta))
    found = covariances.standard_deviations(fit.design.terms, terms)
    sd = [x * scale[:, None] for x in found]
    return FittedModels(
        coefficient_names=tuple(fit.design.x_names),
        sd=np.concatenate([np.zeros((len(theta), 0)), *sd], axis=1),
        sd_names=covariances.sd_names(fit.design.terms),
        theta=theta,
        status=status,
        converged=status == _status.CONVERGED,
        singular=singular,
        original=_original(fit),
        terms=correlations.terms_of(fit.design.terms),
        **more,
    )


def _original(fit: FittedModel) -> dict[str, float]:
    """Name -> value in the fit that the data were drawn from."""
    pars = components.parameters(fit.design, fit.estimates, fit.is_linear)
    named = fit.dispersions
    keys = (*fit.design.x_names, *(p.label for p in pars), *named)
    values = [*fit.coefficients, *(p.value for p in pars), *named.values()]
    return {key: float(x) for key, x in zip(keys, values, strict=True)}


def _correlated(fit: Any, n: int, seed: int, progress: bool) -> FittedModels:
    """Of a linear model with correlated residuals, one after the other."""
    from jaxglmm.fitting.residual_parameters import parameters

    engine, design = fit.engine, fit.design
    start = engine.theta(fit.estimates)
    shift = 0.0 if design.offset is None else design.offset
    found = []
    with bar(n, progress, "fit", "bootstrap") as shown:
        for y in fit.drawn(n, seed, None) - shift:
            own = engine.for_response(y[engine.keep])
            fitted, criterion = own.fit(theta=start)
            again = replace(design, y=y + shift)
            found.append(fit.like(again, own.estimates(again, fitted, criterion), own))
            shown.update(1)
    each = [parameters(one) for one in found]
    estimates = [one.estimates for one in found]
    sd = [
        np.concatenate([np.zeros(0), *(r.sd for r in one.varcorr.values())])
        for one in found
    ]
    status = np.array([e.status for e in estimates])
    return FittedModels(
        coefficients=np.stack([e.beta for e in estimates]),
        coefficient_names=tuple(design.x_names),
        sd=np.stack(sd),
        sd_names=covariances.sd_names(design.terms),
        sigma=np.array([e.sigma for e in estimates]),
        theta=np.stack([e.theta for e in estimates]),
        log_likelihood=np.array([-e.criterion / 2 for e in estimates]),
        status=status,
        converged=status == _status.CONVERGED,
        singular=np.array([e.singular for e in estimates]),
        original=_original(fit) | {x.label: x.value for x in parameters(fit)},
        dispersion=np.array([[x.value for x in pars] for pars in each]),
        dispersion_names=tuple(x.label for x in each[0]),
        terms=correlations.terms_of(design.terms),
    )


# Linear models ------------------------------------------------------------------------

THREADS = 2  # halves of a large bootstrap run side by side
WORTH_THREADS = 2000
FEW = 400  # data sets that are fitted at once, each in NumPy where that is quicker
STEPS = 60  # evaluations for all; what is not done then is fitted alone
TOLERANCE = 1e-10
MEMORY = 200_000_000  # bytes of simulated rows at once, where rows are needed


@double_precision
def _linear(fit: FittedModel, n: int, seed: int, progress: bool) -> FittedModels:
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
    m = engine.moments
    ml, reml = assemble.constants(m)
    return _fits(
        fit,
        joined.theta,
        joined.status,
        coefficients=m.fixed.beta(joined.beta),
        sigma=np.sqrt(joined.sigma2) * m.fixed.scale,
        log_likelihood=-(joined.criterion + (reml if fit.reml else ml)) / 2,
    )


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
    if _free_of_rows(engine):
        calls = -(-n // at_once)
        m = engine.moments
        s = draws.sampler(engine.problem, m.n)
        (lam,) = _engine.lambdas(engine.problem, theta)
        beta = m.fixed.R @ (fit.estimates.beta - m.fixed.beta0) / m.fixed.scale
        rng = np.random.default_rng(_arguments.sequence(seed))
        for _ in range(calls):
            yield draws.draw(rng, at_once, s, lam, beta, fit.sigma / m.fixed.scale)
        return
    for _, _, own in _batches(n, at_once, _arguments.sequence(seed)):
        Y = _simulate.simulate(fit.design, fit.estimates, at_once, own, True)
        yield _cross_products(engine, fit, Y)


def _cross_products(
    engine: Engine, fit: FittedModel, Y: np.ndarray
) -> lanes.ResponseProducts:
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
    return lanes.ResponseProducts(Zy, jnp.asarray(Xy), jnp.asarray(yy))


def _fit_lanes(
    engine: Engine, responses: lanes.ResponseProducts, theta: np.ndarray, chunk: int
) -> lanes.ResponseFits:
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
    """theta with standard deviations off zero, where a fit would never leave it."""
    return np.where(engine.scales, 0.3, theta)


# Generalised models -------------------------------------------------------------------

GENERALISED_TOLERANCE, GENERALISED_STEPS = 1e-8, 200
RESPONSES = 50_000_000  # bytes of simulated responses at once
WORTH_LANES = 500_000  # rows times data sets that pay for a program of their own


@dataclass
class RefitsFound:
    """What many fits found, in internal coordinates.

    psi: (D, k); criterion, status, steps: (D,); separated: (D,) bool
    """

    psi: np.ndarray
    criterion: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    separated: np.ndarray

    @staticmethod
    def empty(D: int, k: int) -> RefitsFound:
        """Room for D fits."""
        return RefitsFound(
            np.full((D, k), np.nan),
            np.full(D, np.nan),
            np.full(D, _status.NOT_FINITE),
            np.zeros(D, int),
            np.zeros(D, bool),
        )


def fit_responses(
    engine: GeneralisedEngine,
    design: Design,
    Y: np.ndarray,
    out: RefitsFound,
    start: int,
) -> Iterator[int]:
    """Fit the rows of Y (d, n) into rows ``start``, ... of ``out``; yields each."""
    family = engine.base.family
    for i, y in enumerate(Y, start):
        fitted = engine.for_response(y, design.trials).fit(
            GENERALISED_TOLERANCE, GENERALISED_STEPS
        )
        out.psi[i], out.criterion[i] = fitted.psi, fitted.criterion
        out.status[i], out.steps[i] = fitted.status, fitted.steps
        if separation.possible(family, fitted.eta):
            beta = engine.R_inverse @ fitted.psi[: engine.base.p]
            eta = engine.data.back(fitted.eta)
            out.separated[i] = bool(separation.find(design, family, beta, eta, y))
        yield i


def _drawn(
    fit: FittedGeneralised, n: int, seed: np.random.SeedSequence
) -> Iterator[tuple[int, np.ndarray]]:
    """First data set and responses (d, n), as many at once as memory has room for."""
    at_once = max(1, RESPONSES // (8 * fit.design.n))
    for start, size, own in _batches(n, at_once, seed):
        yield start, fit.drawn(size, own, None)


def _one_by_one(
    fit: FittedGeneralised, n: int, seed: np.random.SeedSequence, progress: bool
) -> FittedModels:
    """By the warm program of the fit."""
    engine = fit.engine
    out = RefitsFound.empty(n, len(fit.internal()[0]))
    with bar(n, progress, "fit", "bootstrap") as shown:
        for start, Y in _drawn(fit, n, seed):
            for _ in fit_responses(engine, fit.design, Y, out, start):
                shown.update()
    p, m = engine.base.p, engine.base.m
    beta, theta, _ = np.split(out.psi, [p, p + m], axis=1)
    phi = engine.location.phi(out.psi)
    return _fits(
        fit,
        theta,
        out.status,
        coefficients=beta @ engine.R_inverse.T,
        sigma=np.full(n, np.nan),
        log_likelihood=-out.criterion / 2,
        steps=out.steps,
        dispersion=fit.family.natural(phi.T).T if phi.shape[1] else None,
        dispersion_names=tuple(fit.dispersions),
        separated=out.separated,
    )


def _in_lanes(
    fit: FittedGeneralised, n: int, seed, progress: bool
) -> FittedModels | None:
    """The same by one program for all, as ``fit_many``; None where none takes it."""
    from jaxglmm.many import generalised
    from jaxglmm.many import plan as engines
    from jaxglmm.many import scheduler as run
    from jaxglmm.many.collection import ModelSource
    from jaxglmm.many.responses import Responses

    design = fit.design
    given = (design.weights, design.offset, design.trials)
    how = fit.marginal, fit.family, GENERALISED_TOLERANCE
    source = ModelSource(design, None, None, *given, *how)
    if not design.terms or not generalised.suits(source):
        return None
    tables, columns = [], generalised.generalised_columns(design, fit.family)
    with bar(n, progress, "fit", "bootstrap") as shown:
        for _, Y in _drawn(fit, n, seed):
            drawn = replace(source, responses=Responses(Y.T, design.n))
            plan = engines.plan(drawn, "all")
            table, saved = engines.table(plan, drawn, {}, None, None)
            run.run(table, plan, shown, saved)
            tables.append(table)
    original = _original(fit)
    found = FittedModels.from_table(np.concatenate(tables), columns, original=original)
    return replace(found, se=None, df=None, p_values=None, df_sigma=None)
