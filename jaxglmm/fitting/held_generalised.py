"""A generalised model some of whose parameters are held, or start where users say.

psi = (beta, theta, phi) is written in coordinates of which some stay: coefficients in
an orthonormal basis of what the held ones leave, covariances as
``estimate.held`` has them, dispersion parameters one by one. The search that knows of
no held parameters goes first, a few steps, since it finds its way from anywhere; from
there Newton's method with the exact Hessian.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.estimate import generalised as laplace
from jaxglmm.estimate import hessian as exact
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.estimate.held import (
    Chart,
    HeldCoordinates,
    HeldPart,
    joined,
    least_or_zero,
)
from jaxglmm.estimate.search_steps import within
from jaxglmm.fitting import held
from jaxglmm.fitting.held import Given
from jaxglmm.fitting.linear import (
    SAFETY,
    SINGULAR,
    internal_lambdas,
    lambdas,
    per_term_square,
)
from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.working_model import mode_at
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.factors import Factor, to_user

FIRST = (20, 3)  # steps of the search that goes first, and where that led nowhere
SMALL, AWAY = 0.02, 0.1  # a standard deviation this small starts away from zero, ...
NEAR_ZERO, INDIFFERENT = 1e-4, 1e-10  # ... and ends there where that costs nothing


class Findable(Protocol):
    """The engine of a generalised model, as far as this needs it."""

    base: GeneralisedProblem
    marginal: AbstractMarginal
    eta: Any
    phi: np.ndarray
    located: bool

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Grouping factors in internal order."""
        ...

    @property
    def R(self) -> np.ndarray:
        """(p, p): X of the user = X~ R."""
        ...

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of what the search returns."""
        ...

    @property
    def scales(self) -> np.ndarray:
        """(m,) which thetas are standard deviations."""
        ...


def kinds(design: Design, family: AbstractFamily) -> dict[str, str]:
    """Name -> kind of all that can be held, as ``held.checked`` has kinds."""
    names = family.phi_names if family.phi_apart and family.n_phi else ()
    own = {} if family.family_kind in ("ordinal", "nominal") else dict.fromkeys(names)
    return held.of_design(design) | dict.fromkeys(own, "dispersion")


def checked(
    what: str, given: Any, design: Design, family: AbstractFamily
) -> dict[str, float]:
    """The values as numbers.

    Raises:
        ModelError: as ``held.checked``; a dispersion outside the family's range.
    """
    values = held.checked(what, given, kinds(design, family))
    names = family.phi_names
    for name in set(values) & set(names) - set(design.x_names):
        k, value = names.index(name), values[name]
        phi = np.zeros(family.n_phi)
        natural = np.array(family.natural(phi), float)
        natural[k] = value
        with np.errstate(all="ignore"):
            phi = np.asarray(family.from_natural(natural), float)
            back = np.asarray(family.natural(_within(family, phi)), float)
        if not (np.isfinite(phi[k]) and abs(back[k] - value) <= 1e-9 * abs(value)):
            raise ModelError(
                f"{what}: {name} = {value:g} is outside what the dispersion parameter "
                f"of family {family.name!r} can be"
                + (f"; {back[k]:g} is the closest" if np.isfinite(back[k]) else "")
            )
    return values


def coordinates(
    engine: Findable, design: Design, psi: np.ndarray, given: Given
) -> HeldCoordinates:
    """What is held and what moves, next to psi; given: values to start from."""
    base, factors, fixed = engine.base, engine.factors, design.fixed
    beta, theta, phi = (np.array(x, float) for x in base.split(psi))
    parts = [_beta_part(engine, design, beta, given)]
    named = [name for t in design.terms for _, name in held.term_names(t)]
    by_term = any(name in fixed or name in given for name in named)
    if by_term:
        internal = lambdas(base, theta)
        users = [to_user(x, f) for x, f in zip(internal, factors, strict=True)]
        lams = per_term_square(factors, users)
        for term, lam in zip(design.terms, lams, strict=True):
            there = held.placed(term, np.asarray(lam), {**given, **fixed})
            parts.append(held.term_piece(term, there, fixed))
    elif len(theta):
        parts.append(HeldPart(theta, np.zeros(len(theta), bool), engine.scales))
    parts.append(_phi_part(base.family, design, phi, given))
    family = base.family

    def finish(found: list[np.ndarray]) -> np.ndarray:
        middle = found[1:-1]
        if by_term:
            square = [np.asarray(x, float) for x in middle]
            if not all(np.isfinite(x).all() for x in square):
                return np.full(len(psi), np.nan)
            middle = [internal_lambdas(factors, square)]
        whole = joined([found[0], *middle, found[-1]])
        return _within(family, whole)

    return HeldCoordinates(tuple(parts), finish)


def _within(family: AbstractFamily, psi: np.ndarray) -> np.ndarray:
    with on_host():
        return np.asarray(within(family, psi), float)


def _beta_part(
    engine: Findable, design: Design, beta: np.ndarray, given: Given
) -> HeldPart:
    """R beta = c + Q g: Q an orthonormal basis of the columns that are not held."""
    R, lead = engine.R, int(engine.located)
    user = np.linalg.solve(R, beta)
    names = [None] * lead + list(design.x_names)
    for k, name in enumerate(names):
        if name is not None:
            user[k] = design.fixed.get(name, given.get(name, user[k]))
    is_held = np.array([name in design.fixed for name in names], bool)
    if not is_held.any():
        there = R @ user
        return HeldPart(there, np.zeros(len(there), bool), np.zeros(len(there), bool))
    c = R[:, is_held] @ user[is_held]
    Q = np.linalg.qr(R[:, ~is_held])[0]
    g = Q.T @ (R @ user - c)
    none = np.zeros(len(g), bool)
    return HeldPart(g, none, none, lambda x: c + Q @ x)


def _phi_part(
    family: AbstractFamily, design: Design, phi: np.ndarray, given: Given
) -> HeldPart:
    none = np.zeros(len(phi), bool)
    own = [name for name in family.phi_names if name not in design.x_names]
    if not any(name in design.fixed or name in given for name in own):
        return HeldPart(phi, none, none)
    natural = np.array(family.natural(phi), float)
    for k, name in enumerate(family.phi_names):
        natural[k] = design.fixed.get(name, given.get(name, natural[k]))
    is_held = np.array([name in design.fixed for name in family.phi_names], bool)
    return HeldPart(np.asarray(family.from_natural(natural), float), is_held, none)


# The search ---------------------------------------------------------------------------


def fitted(
    engine: Findable, design: Design, given: Given, tol: float, max_steps: int
) -> GeneralisedFitted:
    """The maximum where ``design.fixed`` holds; given: values to start from."""
    best: GeneralisedFitted | None = None
    for steps in FIRST:
        found = _searched(engine, min(steps, max_steps), tol)
        if not np.isfinite(found.psi).all():
            continue
        other = _from(engine, design, found, given, tol, max_steps)
        if best is None or not other.criterion >= best.criterion:
            best = other
        if best.status == _status.CONVERGED:
            break
    return found if best is None else best


def started(
    engine: Findable, design: Design, given: Given, tol: float, max_steps: int
) -> GeneralisedFitted | None:
    """The maximum by the usual search from given values; None where it is lost."""
    found = _searched(engine, FIRST[-1], tol)
    if not np.isfinite(found.psi).all():
        return None
    pieces = coordinates(engine, design, np.asarray(found.psi), given)
    psi = pieces.chart.theta(pieces.start)
    numbers = np.array([SAFETY * tol, max_steps])
    zero = tuple(0 * np.asarray(x) for x in found.u)
    begin = engine.marginal, engine.base, psi, zero
    flat, eta = laplace.refit_numbers.patient(*begin, numbers)
    out = laplace.unpack(engine.shapes, np.asarray(flat), np.asarray(eta))
    return out if out.status == _status.CONVERGED else None


def _searched(engine: Findable, steps: int, tol: float) -> GeneralisedFitted:
    numbers = np.array([*engine.phi, SAFETY * tol, steps, 0.0])
    begin = engine.marginal, engine.base, engine.eta
    flat, eta = laplace.fit_numbers.patient(*begin, numbers)
    return laplace.unpack(engine.shapes, np.asarray(flat), np.asarray(eta))


def _from(
    engine: Findable,
    design: Design,
    found: GeneralisedFitted,
    given: Given,
    tol: float,
    max_steps: int,
) -> GeneralisedFitted:
    base, m = engine.base, engine.base.m
    psi = np.array(found.psi, float)
    theta = psi[base.p : base.p + m]
    theta[engine.scales & (np.abs(theta) < SMALL)] = AWAY
    pieces = coordinates(engine, design, psi, given)
    chart, look = pieces.chart, _Look(engine, found.u)

    def evaluate(f: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        at = chart.theta(f)
        value, score = look(at)
        if not np.isfinite(value):
            return np.inf, f, np.eye(len(f))
        return value, *_curved(chart, f, score, look.hessian(at))

    f, left, steps, done = pieces.start, 0.0, 1, True
    if chart.k:
        rest = chart.scales, tol, max_steps
        f, left, steps, done = least_or_zero(evaluate, f, *rest)
    value = look(chart.theta(f))[0]
    near = chart.scales & (np.abs(f) < NEAR_ZERO)
    if near.any():
        pinned = np.where(near, 0.0, f)
        other = look(chart.theta(pinned))[0]
        if other <= value + INDIFFERENT * max(1.0, abs(value)):
            f = pinned
    psi = chart.theta(f)
    value = look(psi)[0]
    b, eta = exact.effects_at(base, psi, look.u)
    status = _status.CONVERGED if done else _status.MAX_STEPS
    status = status if np.isfinite(value) else _status.NOT_FINITE
    new = (psi, look.u, tuple(np.asarray(x) for x in b), np.asarray(eta))
    new += (np.float64(value), np.float64(left), np.int64(steps), np.int64(status))
    where = ("psi", "u", "b", "eta", "criterion", "decrement", "steps", "status")
    return tree_at(lambda x: tuple(getattr(x, name) for name in where), found, new)


class _Look:
    """-2 log-likelihood, its score and Hessian; u: the mode of the last that was."""

    def __init__(self, engine: Findable, u: Any):
        self.engine, self.u = engine, u

    def __call__(self, psi: np.ndarray) -> tuple[float, np.ndarray]:
        if not np.isfinite(psi).all():
            return np.inf, psi
        marginal, base = self.engine.marginal, self.engine.base
        value, score, u = exact.looked.patient(marginal, base, psi, self.u)
        if not np.isfinite(value) and self.u:  # the mode was too far away
            fresh = tuple(np.asarray(x) for x in mode_at(base, psi))
            value, score, u = exact.looked.patient(marginal, base, psi, fresh)
        if np.isfinite(value):
            self.u = tuple(np.asarray(x) for x in u)
        return float(value), np.asarray(score)

    def hessian(self, psi: np.ndarray) -> np.ndarray:
        """(k, k) where the mode is known."""
        marginal, base = self.engine.marginal, self.engine.base
        return np.asarray(exact.hessian.patient(marginal, base, psi, self.u))


def _curved(
    chart: Chart, f: np.ndarray, score: np.ndarray, H: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Score and Hessian in what moves."""
    J = chart.slopes(f)
    return J.T @ score, J.T @ H @ J + chart.bend(f, score)


def root(
    engine: Findable, design: Design, psi: np.ndarray, u: Any, inverse: Any
) -> np.ndarray:
    """(k, r) root of the covariance of psi, of which what is held has none.

    inverse: from a Hessian, what lies on the boundary, and how many coefficients there
    are, to the root of twice the inverse.
    """
    pieces = coordinates(engine, design, psi, {})
    chart, f = pieces.chart, pieces.start
    look = _Look(engine, u)
    _, score = look(psi)
    _, H = _curved(chart, f, score, look.hessian(psi))
    family, base = engine.base.family, engine.base
    end = np.zeros(len(pieces.held), bool)
    n_phi = family.n_phi
    end[len(end) - n_phi :] = family.at_end(np.asarray(base.split(psi)[2]))
    pinned = (chart.scales & (np.abs(f) < SINGULAR)) | end[~pieces.held]
    p = int((~pieces.pieces[0].held).sum())
    return chart.slopes(f) @ inverse(H, pinned, p)


def at_zero(engine: Findable, design: Design, psi: np.ndarray) -> bool:
    """Whether a standard deviation that is not held at zero is there."""
    pieces = coordinates(engine, design, psi, {})
    return bool((pieces.chart.scales & (np.abs(pieces.start) < SINGULAR)).any())
