"""Profiles of models with a residual structure, by ML, one value after the other.

A parameter is held by holding one coordinate of theta: every number of a structure is a
function of a coordinate of its own. Of a covariance without structure this is so of the
first visit's standard deviation, and of the correlation of the first two, where L has a
unit diagonal: so these visits are put first. What is left free is found by Newton's
method with the exact Hessian. A fixed effect is held as an offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm.fitting.block_rows import correlation_of, n_scales
from jaxglmm.fitting.blocks import BlockEngine
from jaxglmm.fitting.components import parameters as of_effects
from jaxglmm.fitting.degrees_of_freedom_blocks import parameter_covariance
from jaxglmm.fitting.refit import with_method
from jaxglmm.fitting.residual_parameters import parameters
from jaxglmm.integrate import exact_blocks
from jaxglmm.model import covariances
from jaxglmm.model.marginal_problem import MarginalProblem
from jaxglmm.postestimation.profile.curves import FISHER, LOG, PLAIN, Curve
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.trees import tree_at

FAR = 17.0  # arcsinh of t, beyond which a natural parameter is at its end
SCALES = {"sd": LOG, "range": LOG, "cor": FISHER, "power": PLAIN}
MOVES, STEPS, SMALL = 60, 1e-9, 1e-8


def curves(fit: Any) -> list[Curve]:
    """Of the residual parameters, those of random effects, and fixed effects."""
    fit = with_method(fit, False) if fit.reml else fit
    engine: BlockEngine = fit.engine
    theta = engine.theta(fit.estimates)
    A = parameter_covariance(fit)
    own = _residual_places(fit, theta) + _effect_places(fit, theta)
    out = []
    for name, kind, value, slope, problem, start, k, to, ends in own:
        se = float(np.sqrt(max(slope @ A @ slope, 0.0))) or 0.1 * abs(value) or 0.1
        scale = SCALES[kind]
        step = {"cor": se / max(1 - value * value, 1e-3), "power": se}.get(
            kind, se / max(abs(value), 1e-300)
        )
        held = HeldCoordinate(problem, start, k, to, float(problem.constant))
        step = float(np.clip(step, 1e-4, 2.0)) if kind != "power" else step
        out.append(Curve(name, value, step, ends, held, fit.criterion, scale))
    return [*out, *_fixed(fit, theta)]


class HeldCoordinate:
    """The least ML deviance where coordinate k is ``to`` (value)."""

    def __init__(
        self,
        problem: MarginalProblem,
        start: np.ndarray,
        k: int | None,
        to: Callable[[float], float],
        constant: float,
    ):
        self.problem, self.k, self.to, self.constant = problem, k, to, constant
        self.first = start if k is None else np.delete(start, k)
        self.known: dict[float, np.ndarray] = {}

    def __call__(self, value: float) -> float:
        entry = self.to(value)
        if not np.isfinite(entry):
            return np.inf
        near = min(self.known, key=lambda v: abs(v - value), default=None)
        start = self.first if near is None else self.known[near]
        x, best = least(self.problem, start, self.k, entry)
        if near is not None and not np.isfinite(best):
            x, best = least(self.problem, self.first, self.k, entry)
        self.known[value] = x
        return best + self.constant


def least(
    problem: MarginalProblem, free: np.ndarray, k: int | None, entry: float
) -> tuple[np.ndarray, float]:
    """The free coordinates at the least ML criterion, and that."""
    rest = np.arange(problem.m) if k is None else np.delete(np.arange(problem.m), k)

    def at(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        theta = x if k is None else np.insert(x, k, entry)
        with on_host(), np.errstate(all="ignore"):
            d = exact_blocks.derivatives(problem, theta, False)
        own = np.ix_(rest, rest)
        return (
            float(d.value),
            np.asarray(d.score)[rest],
            np.asarray(d.hessian)[own],
            np.asarray(d.fisher)[own],
        )

    x = np.asarray(free, float)
    best, g, H, F = at(x)
    mu = 0.0
    for _ in range(MOVES if len(x) else 0):
        size = np.sqrt(np.maximum(np.diagonal(F), 1e-12))
        unit = H / np.outer(size, size)
        if not np.isfinite(unit).all():
            break
        values, vectors = np.linalg.eigh(unit)
        turned = np.maximum(np.abs(values), 1e-4) + mu
        step = vectors @ ((vectors.T @ (g / size)) / turned) / size
        gain = float(g @ step)
        if gain < STEPS and mu < 1.0:
            break
        trial = at(x - step)
        if np.isfinite(trial[0]) and trial[0] <= best + SMALL:
            x, mu = x - step, mu / 10 if mu > 1e-3 else 0.0
            best, g, H, F = trial
        elif mu > 1e8:
            break
        else:
            mu = max(10 * mu, 0.1)
    return x, best


def _residual_places(fit: Any, theta: np.ndarray) -> list[tuple]:
    """Of every residual parameter what ``curves`` needs."""
    engine, design = fit.engine, fit.design
    term, own, s = design.residual, correlation_of(design), n_scales(design)
    found, each = parameters(fit), engine.problem.each
    log_scale = float(np.log(engine.fixed.scale))
    out = []
    T = len(term.visits)
    pairs = [(i, j) for j in range(T) for i in range(j + 1, T)]
    for number, x in enumerate(found):
        group, k = divmod(number, len(found) // engine.problem.n_groups)
        problem, start, kind = engine.problem, theta, x.kind
        if term.structure == "us":
            first = (k,) if k < T else tuple(reversed(pairs[k - T]))
            order = [*first, *(v for v in range(T) if v not in first)]
            problem, start = reordered(engine.problem, theta, order)
            assert own is not None
            at = group * each + (0 if k < T else each - own.k)
            to = _log(log_scale) if k < T else _bounded
            ends = (0.0, np.inf) if k < T else (-1.0, 1.0)
        else:
            at, to, ends = group * each + k, float, (-np.inf, np.inf)
            if kind == "sd":
                to, ends = _log(log_scale), (0.0, np.inf)
            elif own is not None and s <= k < s + own.k:
                at = at + len(term.scale_names)
                to, ends = _natural(own, k - s)
            elif kind == "range":  # the ratio of two standard deviations
                at, to = _scale_place(at, k, s, own), _log(0.0)
                ends = (0.0, np.inf)
            elif term.part is not None:
                problem, start, shift = untied(engine, theta, k)
                to = _shifted(shift)
            else:
                at = _scale_place(at, k, s, own)
        out.append((x.label, kind, x.value, x.slope, problem, start, at, to, ends))
    return out


def _scale_place(at: int, k: int, s: int, own: Any) -> int:
    """Scales beside visits come after the correlation in tables, before it in theta."""
    return at - (0 if own is None or k < s else own.k)


def _log(shift: float) -> Callable[[float], float]:
    return lambda value: float(np.log(value) - shift) if value > 0 else -np.inf


def _bounded(value: float) -> float:
    rest = (1.0 - value) * (1.0 + value)
    return float(value / np.sqrt(rest)) if rest > 0 else np.inf


def _natural(own: Any, k: int) -> tuple[Callable[[float], float], tuple[float, float]]:
    """t of a natural parameter, each a monotone function of its own; its ends."""
    from scipy.optimize import brentq

    def value(u: float) -> float:
        t = np.zeros(own.k)
        t[k] = np.sinh(u)
        with on_host(), np.errstate(all="ignore"):
            return float(np.asarray(own.natural(t)[0])[k])

    low, high = sorted((value(-FAR), value(FAR)))
    low = 0.0 if low < 1e-12 and low > -1e-12 else max(low, -1.0)
    high = np.inf if high > 1e4 else min(high, 1.0) if high <= 1 else high

    def to(v: float) -> float:
        ends = value(-FAR) - v, value(FAR) - v
        if not (np.isfinite(ends).all() and ends[0] * ends[1] < 0):
            return np.nan
        root: Any = brentq(lambda u: value(u) - v, -FAR, FAR, xtol=1e-14)
        return float(np.sinh(root))

    return to, (low, high)


def untied(
    engine: BlockEngine, theta: np.ndarray, k: int
) -> tuple[MarginalProblem, np.ndarray, float]:
    """The same with coefficient k of a residual sd's formula as coordinate k of theta.

    Its other columns have an orthonormal basis of their own, and the coefficient moves
    what they leave of its column: well conditioned whatever the units and origins.
    Third: the coefficient less its coordinate.
    """
    term, problem = engine.design.residual, engine.problem
    assert term is not None
    q = term.scales.shape[1]
    turn = np.eye(q) if engine.turn is None else np.asarray(engine.turn)
    others = np.delete(np.arange(q), k)
    basis = np.eye(q)  # coefficients by coordinate
    if len(others):
        Q, R = np.linalg.qr(term.scales[:, others])
        R_inverse = np.linalg.inv(R)
        basis[np.ix_(others, others)] = R_inverse * np.sqrt(len(Q))
        basis[others, k] = -R_inverse @ (Q.T @ term.scales[:, k])
    between = np.linalg.solve(turn, basis)
    stacks = [
        tree_at(lambda x: x.scales, stack, np.asarray(stack.scales) @ between)
        for stack in problem.stacks
    ]
    start = theta.copy()
    start[:q] = np.linalg.solve(between, theta[:q])
    shift = float(np.log(engine.fixed.scale) * np.broadcast_to(engine.is_level, q)[k])
    return tree_at(lambda x: x.stacks, problem, tuple(stacks)), start, shift


def _shifted(shift: float) -> Callable[[float], float]:
    return lambda value: float(value) - shift


def reordered(
    problem: MarginalProblem, theta: np.ndarray, order: list[int]
) -> tuple[MarginalProblem, np.ndarray]:
    """The same with the visits in another order, and its theta."""
    T, each = len(order), problem.each
    inverse = np.argsort(order)
    stacks = []
    for stack in problem.stacks:
        scales = np.array(stack.scales)
        scales[..., :T] = scales[..., order]
        position = inverse[np.asarray(stack.pairs.position)]
        new = tree_at(lambda x: x.scales, stack, scales)
        stacks.append(tree_at(lambda x: x.pairs.position, new, position))
    start, below = theta.copy(), np.tril_indices(T, -1)
    for g in range(problem.n_groups):
        at = g * each
        L = np.eye(T)
        L[below] = theta[at + each - len(below[0]) : at + each]
        root = np.exp(theta[at : at + T])[:, None] * L
        C = np.linalg.qr(root[order].T, mode="r").T
        C = C * np.where(np.diagonal(C) < 0, -1.0, 1.0)
        scale = np.diagonal(C)
        start[at : at + T] = np.log(scale)
        start[at + each - len(below[0]) : at + each] = (C / scale[:, None])[below]
    return tree_at(lambda x: x.stacks, problem, tuple(stacks)), start


def _effect_places(fit: Any, theta: np.ndarray) -> list[tuple]:
    """Of standard deviations of random effects that are coordinates, and the like."""
    engine, design, out = fit.engine, fit.design, []
    at, scale = engine.problem.n_residual, engine.fixed.scale
    for term in design.terms:
        own = covariances.of(term)
        found = [
            x
            for x in of_effects(design, fit.estimates, residual=False)
            if x.group == term.label
        ]
        n = len(set(own.sharing))
        for k, x in enumerate(found):
            plain = own.has_own or not own.pairs
            if not plain or (k > n and x.kind == "cor"):
                continue
            slope = np.zeros(len(theta))
            slope[at + k] = scale if k < n else 0.1
            to, ends = (lambda v: float(v) / scale), (0.0, np.inf)
            if k >= n:
                to = _structure(own, k - n)
                low = getattr(own.correlation, "lowest", -1.0)  # type: ignore
                ends = (float(low), 1.0) if x.kind == "cor" else (0.0, np.inf)
            start = theta.copy()
            small = np.abs(start[at + k]) < 1e-3
            start[at + k] = 0.1 if small and k < n else start[at + k]
            kind = x.kind if x.kind in SCALES else "range"
            value = float(x.value)
            out.append(
                (x.label, kind, value, slope, engine.problem, start, at + k, to, ends)
            )
        at += own.m
    return out


def _structure(own: Any, k: int) -> Callable[[float], float]:
    def z(value: float) -> float:
        natural = own.correlation.start()
        natural[k] = value
        return float(own.correlation.free(natural)[k])

    return z


def _fixed(fit: Any, theta: np.ndarray) -> list[Curve]:
    """Fixed effects, each held as an offset."""
    design, se = fit.design, np.sqrt(np.diagonal(fit.coefficient_covariance()))
    out = []
    for j, name in enumerate(design.x_names):
        value, deviance = float(fit.estimates.beta[j]), _without(fit, j)
        ends = (-np.inf, np.inf)
        out.append(Curve(name, value, float(se[j]), ends, deviance, fit.criterion))
    return out


def _without(fit: Any, j: int) -> Callable[[float], float]:
    design, y = fit.design, fit.engine.y
    names = tuple(n for i, n in enumerate(design.x_names) if i != j)
    less = replace(design, X=np.delete(design.X, j, axis=1), x_names=names)
    column = design.X[fit.engine.keep, j]

    def deviance(value: float) -> float:
        engine = BlockEngine(less, False, y - value * column)
        _, best = least(engine.problem, engine.theta(fit.estimates), None, 0.0)
        return best + float(engine.problem.constant)

    return deviance
