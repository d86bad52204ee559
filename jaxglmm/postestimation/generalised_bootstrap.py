"""Parametric bootstrap of a generalised model: thousands of simulated responses.

``fit_responses`` is where the work is done: rows of a matrix of responses to rows of
numbers, one warm compiled fit after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm.fitting import components, separation
from jaxglmm.fitting import linear as _engine
from jaxglmm.many import correlations
from jaxglmm.many.record import FittedModels
from jaxglmm.postestimation.bootstrap import number_of_datasets
from jaxglmm.runtime.progress import bar

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.generalised import GeneralisedEngine
    from jaxglmm.formula.design import Design

TOLERANCE, STEPS = 1e-8, 200
MEMORY = 50_000_000  # bytes of simulated responses at once
WORTH_LANES = 500_000  # rows times data sets that pay for a program of their own


@dataclass
class Found:
    """What many fits found, in internal coordinates.

    psi: (D, k); criterion, status, steps: (D,); separated: (D,) bool
    """

    psi: np.ndarray
    criterion: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    separated: np.ndarray

    @staticmethod
    def empty(D: int, k: int) -> Found:
        """Room for D fits."""
        return Found(
            np.full((D, k), np.nan),
            np.full(D, np.nan),
            np.full(D, _status.NOT_FINITE),
            np.zeros(D, int),
            np.zeros(D, bool),
        )


def fit_responses(
    engine: GeneralisedEngine, design: Design, Y: np.ndarray, out: Found, start: int
) -> Iterator[int]:
    """Fit the rows of Y (d, n) into rows ``start``, ... of ``out``; yields each."""
    family = engine.base.family
    for i, y in enumerate(Y, start):
        fitted = engine.for_response(y, design.trials).fit(TOLERANCE, STEPS)
        out.psi[i], out.criterion[i] = fitted.psi, fitted.criterion
        out.status[i], out.steps[i] = fitted.status, fitted.steps
        if separation.possible(family, fitted.eta):
            beta = engine.R_inverse @ fitted.psi[: engine.base.p]
            eta = engine.data.back(fitted.eta)
            out.separated[i] = bool(separation.find(design, family, beta, eta, y))
        yield i


def bootstrap(
    fit: FittedGeneralised, n: int = 1000, seed=0, progress: bool = False
) -> FittedModels:
    """Parametric bootstrap; see ``GeneralisedFit.bootstrap``."""
    n = number_of_datasets(n)
    seed = _arguments.sequence(seed)
    fit = fit.unfolded("bootstrap()", keep=True, stacklevel=8)
    if n * fit.design.n >= WORTH_LANES and (found := _in_lanes(fit, n, seed, progress)):
        return found
    engine, design = fit.engine, fit.design
    out = Found.empty(n, len(fit.internal()[0]))
    at_once = max(1, MEMORY // (8 * design.n))
    starts = range(0, n, at_once)
    seeds = seed.spawn(len(starts))
    with bar(n, progress, "fit", "bootstrap") as shown:
        for start, own in zip(starts, seeds, strict=True):
            Y = fit.drawn(min(at_once, n - start), own, None)
            for _ in fit_responses(engine, design, Y, out, start):
                shown.update()
    return _fits(fit, engine, out)


def _in_lanes(
    fit: FittedGeneralised, n: int, seed, progress: bool
) -> FittedModels | None:
    """The same by one program for all, as ``fit_many``; None where none takes it."""
    from jaxglmm.many import generalised
    from jaxglmm.many import plan as engines
    from jaxglmm.many import scheduler as run
    from jaxglmm.many.collection import Source
    from jaxglmm.many.responses import Responses

    design = fit.design
    given = (design.weights, design.offset, design.trials)
    source = Source(design, None, None, *given, fit.marginal, fit.family, TOLERANCE)
    if not design.terms or not generalised.suits(source):
        return None
    at_once = max(1, MEMORY // (8 * design.n))
    starts = range(0, n, at_once)
    seeds = seed.spawn(len(starts))
    tables, columns = [], generalised.generalised_columns(design, fit.family)
    with bar(n, progress, "fit", "bootstrap") as shown:
        for start, own in zip(starts, seeds, strict=True):
            Y = fit.drawn(min(at_once, n - start), own, None)
            drawn = replace(source, responses=Responses(Y.T, design.n))
            plan = engines.plan(drawn, "all")
            table, saved = engines.table(plan, drawn, {}, None, None)
            run.run(table, plan, shown, saved)
            tables.append(table)
    original = _original(fit)
    found = FittedModels.from_table(np.concatenate(tables), columns, original=original)
    return replace(found, se=None, df=None, p_values=None, df_sigma=None)


def _fits(
    fit: FittedGeneralised, engine: GeneralisedEngine, found: Found
) -> FittedModels:
    """Internal coordinates to the user's, all data sets at once."""
    p, m = engine.base.p, engine.base.m
    beta, theta, phi = np.split(found.psi, [p, p + m], axis=1)
    internal = _lambdas(engine, theta)
    user = [f.T_inverse @ lam for f, lam in zip(engine.factors, internal, strict=True)]
    terms = _engine.per_term_square(engine.factors, user)
    sd = [np.sqrt(np.sum(x**2, axis=-1)) for x in terms]
    D = len(theta)
    names = tuple(f"sd_{name}|{t.label}" for t in fit.design.terms for name in t.names)
    return FittedModels(
        coefficients=beta @ engine.R_inverse.T,
        coefficient_names=tuple(fit.design.x_names),
        sd=np.concatenate([np.zeros((D, 0)), *sd], axis=1),
        sd_names=names,
        sigma=np.full(D, np.nan),
        theta=_packed(fit.design, terms, D),
        log_likelihood=-found.criterion / 2,
        status=found.status,
        converged=found.status == _status.CONVERGED,
        singular=_singular(engine, theta),
        original=_original(fit),
        terms=correlations.terms_of(fit.design.terms),
        steps=found.steps,
        dispersion=np.exp(phi) if phi.shape[1] else None,
        dispersion_names=fit.dispersion_names,
        separated=found.separated,
    )


def _original(fit: FittedGeneralised) -> dict[str, float]:
    """Name -> value in the fit that the data were drawn from."""
    pars = components.parameters(fit.design, fit.estimates, residual=False)
    rest = [p.value for p in pars] + np.exp(fit.estimates.phi).tolist()
    keys = (*fit.design.x_names, *(p.label for p in pars), *fit.dispersion_names)
    values = [*fit.coefficients, *rest]
    return {key: float(x) for key, x in zip(keys, values, strict=True)}


def _lambdas(engine: GeneralisedEngine, theta: np.ndarray) -> list[np.ndarray]:
    """(D, q, q) a factor."""
    out, start = [], 0
    for pattern, q in zip(engine.base.patterns, engine.base.sides, strict=True):
        lam = np.zeros((len(theta), q, q))
        for a, (i, j) in enumerate(pattern, start):
            lam[:, i, j] = theta[:, a]
        out.append(lam)
        start += len(pattern)
    return out


def _packed(design: Design, terms, D: int) -> np.ndarray:
    """(D, m) theta in lme4's order, diagonals >= 0; NaN where a fit failed."""
    columns = [np.zeros((D, 0))]
    for term, x in zip(design.terms, terms, strict=True):
        q = x.shape[-1]
        bad = ~np.isfinite(x).all(axis=(1, 2))
        L = np.where(bad[:, None, None], 0.0, x)
        if q > 1 and term.covariance == "us":
            L = np.swapaxes(np.linalg.qr(np.swapaxes(L, 1, 2), mode="r"), 1, 2)
        sign = np.where(np.diagonal(L, axis1=1, axis2=2) < 0, -1.0, 1.0)
        L = L * sign[:, None, :]
        L[bad] = np.nan
        last = q if term.covariance == "us" else 0
        pairs = [(i, j) for j in range(q) for i in range(j, max(last, j + 1))]
        columns.append(np.stack([L[:, i, j] for i, j in pairs], axis=1))
    return np.concatenate(columns, axis=1)


def _singular(engine: GeneralisedEngine, theta: np.ndarray) -> np.ndarray:
    """(D,) whether a diagonal of an internal Lambda is next to zero."""
    diagonal = np.abs(theta[:, engine.diagonal])
    return (diagonal < _engine.SINGULAR).any(axis=1)
