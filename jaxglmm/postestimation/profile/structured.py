"""Profiles of models whose random effects have structures of few numbers.

What is held is a coordinate here: a standard deviation, a correlation, a range. Of a
linear model the coordinates are these natural parameters; of a generalised one theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.estimate import information
from jaxglmm.estimate.generalised import zeros
from jaxglmm.fitting.components import VarianceParameter, parameters
from jaxglmm.model import assemble
from jaxglmm.model.covariances.base import AbstractCovariance, SideBySide, is_scale
from jaxglmm.postestimation.profile.curves import FISHER, LOG, PLAIN, Curve
from jaxglmm.postestimation.profile.moments import with_contrast
from jaxglmm.postestimation.profile.subspace import Subspace, maximise_along

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.linear import Engine

SMALL, AWAY = 0.02, 0.1  # a standard deviation below the first starts from the second
SCALES = {"sd": PLAIN, "cor": FISHER}


@dataclass(frozen=True)
class TermPlace:
    """One term's part of a factor: columns from ``start``, coordinates from ``at``."""

    factor: int
    start: int
    at: int
    covariance: AbstractCovariance

    @property
    def columns(self) -> slice:
        """Its columns of the factor."""
        return slice(self.start, self.start + self.covariance.q)

    @property
    def own(self) -> slice:
        """Its coordinates."""
        return slice(self.at, self.at + self.covariance.m)


def blocks(factors) -> dict[int, TermPlace]:
    """Of each term (its number) where it lies."""
    out, at = {}, 0
    for f, factor in enumerate(factors):
        own = factor.covariance
        parts = own.blocks if isinstance(own, SideBySide) else (own,)
        sizes = {b - a for _, a, b in factor.spans}
        if len(parts) != len(factor.spans) or sizes != {c.q for c in parts}:
            parts = tuple(type(own)(b - a) for _, a, b in factor.spans)  # diagonals
        for (term, start, _), part in zip(factor.spans, parts, strict=True):
            out[term] = TermPlace(f, start, at, part)
            at += part.m
    return out


def _pieces(fit, block: TermPlace, term: int) -> list[VarianceParameter]:
    """The term's parameters in the order of its coordinates; none that are not."""
    label = fit.design.terms[term].label
    found = [x for x in parameters(fit.design, fit.estimates) if x.group == label]
    own = block.covariance
    if own.has_own or not own.pairs:
        return found
    return [x for x in found if x.kind == "sd"] if own.q == 1 else []


# Linear models ------------------------------------------------------------------------


class NaturalShape:
    """All natural parameters and log sigma^2 as coordinates of a linear model."""

    def __init__(self, engine: Engine, theta: np.ndarray):
        self.engine, self.theta = engine, np.asarray(theta, float)
        self.sides = engine.problem.sides
        self.blocks = blocks(engine.moments.factors)

    def start(self) -> np.ndarray:
        """All at the optimum, no standard deviation at zero."""
        theta = self.theta
        out = theta.copy()
        for block in self.blocks.values():
            own = block.covariance
            part = theta[block.own]
            if own.has_own:
                sd, natural = own.natural(_square(own.matrix(part)))
                out[block.own] = np.concatenate([np.maximum(sd, SMALL), natural])
            else:
                small = np.array(own.is_scale) & (np.abs(part) < SMALL)
                out[block.own] = np.where(small, AWAY, part)
        return out

    def _theta(self, own: AbstractCovariance, x: np.ndarray) -> np.ndarray:
        return own.from_natural(x) if own.has_own else x

    def evaluate(self, x: np.ndarray, log_sigma2: float):
        """Value, score and information over (coordinates, log sigma^2)."""
        m = len(x)
        lam = [np.zeros((q, q)) for q in self.sides]
        changes = [np.zeros((m, q, q)) for q in self.sides]
        for block in self.blocks.values():
            own, here = block.covariance, block.columns
            theta = self._theta(own, x[block.own])
            lam[block.factor][here, here] = own.matrix(theta)
            changes[block.factor][block.own, here, here] = _slopes(
                own, theta, x[block.own]
            )
        nothing = np.zeros((m + 1, m + 1))
        if not all(np.isfinite(a).all() for a in (*lam, *changes)):
            return np.nan, np.zeros(m + 1), nothing
        found = information.along(
            self.engine.problem,
            tuple(lam),
            np.float64(np.exp(log_sigma2)),
            tuple(changes),
        )
        n = float(self.engine.moments.n)
        ratio = float(found.r2_ratio)
        info = nothing.copy()
        info[:m, :m] = found.info
        info[:m, m] = info[m, :m] = found.tv
        info[m, m] = max(ratio, 0.5 * n)
        score = np.append(np.asarray(found.score), n - ratio)
        return float(found.value), score, info


def _square(lam: np.ndarray) -> np.ndarray:
    return lam @ np.swapaxes(lam, -1, -2)


def _slopes(own: AbstractCovariance, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(m, q, q) d Sigma in the block's coordinates."""
    if own.has_own:
        E = own.curves(theta, 1.0)[0].copy()
        n = len(set(own.sharing))
        E[:n] *= 2.0 * x[:n, None, None]  # by standard deviations, not variances
        return E
    lam = own.matrix(theta)
    E = np.zeros((own.m, own.q, own.q))
    for a, (i, j) in enumerate(own.entries):
        E[a, i] += lam[:, j]
        E[a, :, i] += lam[:, j]
    return E


def _unit(own: AbstractCovariance, T: np.ndarray, k: int) -> float:
    """What divides the standard deviation of coordinate k in internal coordinates."""
    return float(T[k if len(set(own.sharing)) > 1 else 0])


def linear_curves(fit: FittedModel) -> list[Curve]:
    """Standard deviations, what is beside them, sigma, fixed effects; by ML."""
    from jaxglmm.fitting.refit import with_method

    fit = with_method(fit, False) if fit.reml else fit
    shape = NaturalShape(fit.engine, fit.engine.theta(fit.estimates))
    factors, scale = fit.engine.moments.factors, fit.engine.moments.fixed.scale
    log_sigma2 = 2 * np.log(fit.sigma / scale)
    start = np.append(shape.start(), log_sigma2)
    out = []
    for term, block in sorted(blocks(factors).items()):
        T = np.diagonal(factors[block.factor].T)[block.columns]
        J = factors[block.factor].n_levels
        for k, parameter in enumerate(_pieces(fit, block, term)):
            is_sd = parameter.kind == "sd"
            unit = _unit(block.covariance, T, k) / scale if is_sd else 0.0
            held = Held(shape, start, block.at + k, unit)
            step = _step(parameter, J, 0.05 * fit.sigma)
            ends = _limits(parameter, block.covariance)
            out.append(_curve(fit, held, parameter, step, ends))
    sigma = VarianceParameter("sd", "Residual", ("Observation",), fit.sigma)
    held = Held(shape, start, len(start) - 1, 0.0, lambda x: 2 * np.log(x / scale))
    step = fit.sigma / np.sqrt(2 * max(fit.df_resid, 1))
    out.append(_curve(fit, held, sigma, step, (1e-6 * fit.sigma, np.inf)))
    return [*out, *_linear_fixed(fit)]


def _curve(
    fit: FittedModel,
    held: Held,
    parameter: VarianceParameter,
    step: float,
    ends: tuple[float, float],
) -> Curve:
    constant = assemble.constants(fit.engine.moments)[0]
    return Curve(
        parameter.label,
        float(parameter.value),
        float(step),
        ends,
        lambda value: held(value) + constant,
        fit.criterion,
        SCALES.get(parameter.kind, LOG),
    )


class Held:
    """The least deviance where one coordinate is held.

    unit: of a standard deviation, whose coordinate is value * unit / (internal) sigma;
    0 for a coordinate that is ``to`` (value).
    """

    def __init__(
        self,
        shape: NaturalShape,
        start: np.ndarray,
        k: int,
        unit: float,
        to: Callable[[float], float] = float,
    ):
        self.shape, self.k, self.unit, self.to = shape, k, unit, to
        self.known: dict[float, np.ndarray] = {}
        self.first = np.delete(start, k)

    def __call__(self, value: float) -> float:
        near = min(self.known, key=lambda v: abs(v - value), default=None)
        start = self.first if near is None else self.known[near]
        x, best = self._least(start, value)
        if near is not None:
            again = self._least(self.first, value)
            x, best = again if again[1] < best - 1e-8 else (x, best)
        self.known[value] = x
        return best

    def _full(self, free: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
        """All coordinates and their Jacobian in the free ones."""
        slopes = np.insert(np.eye(len(free)), self.k, 0.0, axis=0)
        entry = self.to(value)
        if self.unit:
            entry = value * self.unit * np.exp(-free[-1] / 2)
            slopes[self.k, -1] = -entry / 2
        return np.insert(free, self.k, entry), slopes

    def _at(self, free: np.ndarray, value: float):
        x, slopes = self._full(free, value)
        deviance, score, info = self.shape.evaluate(x[:-1], x[-1])
        return deviance, slopes.T @ score, slopes.T @ info @ slopes

    def _least(self, x: np.ndarray, value: float) -> tuple[np.ndarray, float]:
        """Damped scoring from x."""
        mu = 1e-3
        best, g, H = self._at(x, value)
        for _ in range(200):
            damped = H + mu * np.diag(1e-8 + np.diagonal(H))
            step = np.linalg.lstsq(damped, g, rcond=None)[0]
            if 0 <= g @ step < 1e-9 and mu <= 1e-2:
                break
            trial = self._at(x - step, value)
            if np.isfinite(trial[0]) and not trial[0] > best + 1e-9:
                x, mu = x - step, mu / 10
                best, g, H = trial
            elif mu > 1e10:
                break
            else:
                mu = max(10 * mu, 0.1)
        return x, best


def _linear_fixed(fit: FittedModel) -> list[Curve]:
    se = np.sqrt(np.diagonal(fit.coefficient_covariance()))
    return [
        Curve(
            name,
            float(fit.estimates.beta[j]),
            float(se[j]),
            (-np.inf, np.inf),
            _fixed_deviance(fit, j),
            fit.criterion,
        )
        for j, name in enumerate(fit.design.x_names)
    ]


def _fixed_deviance(fit: FittedModel, j: int) -> Callable[[float], float]:
    """Deviance with beta_j held."""
    m = fit.engine.moments
    constant, row = assemble.constants(m)[0], m.fixed.R_inverse[j]

    def deviance(value: float) -> float:
        held = (value - m.fixed.beta0[j]) / m.fixed.scale
        return with_contrast(fit.engine, row, held) + constant

    return deviance


def _step(parameter: VarianceParameter, J: int, least: float) -> float:
    if parameter.kind == "sd":
        return max(parameter.value, least) / np.sqrt(2 * max(J, 3))
    return 1.0 / np.sqrt(max(J, 4)) if parameter.kind == "cor" else 0.5


def _limits(
    parameter: VarianceParameter, own: AbstractCovariance
) -> tuple[float, float]:
    if parameter.kind != "cor":
        return 0.0, np.inf
    return float(getattr(getattr(own, "correlation", None), "lowest", -1.0)), 1.0


# Generalised models -------------------------------------------------------------------


def generalised_curves(fit: FittedGeneralised) -> list[Curve]:
    """The same; of several correlations of one structure the first alone.

    The others are no coordinates of theta.
    """
    engine, psi = fit.engine, np.asarray(fit.internal()[0])
    p, k = engine.base.p, len(psi)
    search = _Search(fit, psi)
    out = []
    for term, block in sorted(blocks(engine.factors).items()):
        factor, own = engine.factors[block.factor], block.covariance
        T = np.diagonal(factor.T)[block.columns]
        n = len(set(own.sharing))
        for a, parameter in enumerate(_pieces(fit, block, term)):
            if a > n and parameter.kind == "cor":
                continue
            unit = _unit(own, T, a) if parameter.kind == "sd" else 0.0
            deviance = search.coordinate(p + block.at + a, _to_theta(own, a - n, unit))
            step = _step(parameter, factor.n_levels, 0.05 / (unit or 1.0))
            ends, scale = _limits(parameter, own), SCALES.get(parameter.kind, LOG)
            value = float(parameter.value)
            out.append(
                Curve(
                    parameter.label, value, step, ends, deviance, fit.criterion, scale
                )
            )
    for r, name in enumerate(fit.family.phi_names):
        scale, at = fit.family.scales[r], p + engine.base.m + r
        value = float(fit.family.natural(psi[at - r :])[r])
        deviance = search.coordinate(at, lambda x, s=scale: float(s.to(x)))
        out.append(Curve(name, value, 0.5, scale.ends, deviance, fit.criterion, scale))
    se = np.sqrt(np.diagonal(fit.coefficient_covariance()))
    for j, name in enumerate(fit.design.x_names):
        value, deviance = float(fit.coefficients[j]), search.contrast(j, k)
        ends = (-np.inf, np.inf)
        out.append(Curve(name, value, float(se[j]), ends, deviance, fit.criterion))
    return out


class _Search:
    """Maxima of a generalised model on lines through its parameters."""

    def __init__(self, fit: FittedGeneralised, psi: np.ndarray):
        self.fit, self.psi = fit, psi
        base = fit.engine.base
        m = slice(base.p, base.p + base.m)
        small = is_scale(base.covariances) & (np.abs(psi[m]) < SMALL)
        self.free = psi.copy()
        self.free[m] = np.where(small, AWAY, psi[m])

    def coordinate(
        self, at: int, to: Callable[[float], float]
    ) -> Callable[[float], float]:
        """The deviance with psi[at] = to(value)."""
        k = len(self.psi)

        def deviance(value: float) -> float:
            origin, basis = np.zeros(k), np.eye(k)
            origin[at], basis[at, at] = to(value), 0.0
            return self._least(origin, basis, at, self.free)

        return deviance

    def contrast(self, j: int, k: int) -> Callable[[float], float]:
        """The deviance with the j-th coefficient held."""
        row = self.fit.engine.R_inverse[j]
        size, p = np.linalg.norm(row), len(row)
        U = np.linalg.qr(np.column_stack([row, np.eye(p)]))[0]
        U[:, 0] *= np.sign(U[:, 0] @ row)
        free = self.free.copy()
        free[:p] = U.T @ self.psi[:p]

        def deviance(value: float) -> float:
            origin, basis = np.zeros(k), np.eye(k)
            basis[:p, :p] = U
            basis[:, 0] = 0.0
            origin[:p] = value / size * U[:, 0]
            return self._least(origin, basis, 0, free)

        return deviance

    def _least(
        self, origin: np.ndarray, basis: np.ndarray, idle: int, free: np.ndarray
    ) -> float:
        engine = self.fit.engine
        found = maximise_along(
            engine.marginal,
            engine.base,
            Subspace(origin, basis, np.arange(len(origin)) == idle),
            free,
            zeros(engine.base),
            np.float64(1e-10),
            np.int64(300),
        )
        return float(found.value)


def _to_theta(own: AbstractCovariance, k: int, unit: float) -> Callable[[float], float]:
    """From a parameter's value to its theta; k: among those beside the sds."""
    if unit:
        return lambda value: value * unit

    def z(value: float) -> float:
        natural = own.correlation.start()  # type: ignore[attr-defined]
        natural[k] = value
        return float(own.correlation.free(natural)[k])  # type: ignore[attr-defined]

    return z
