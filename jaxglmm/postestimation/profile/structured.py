"""How the parameters of a structure are held: each is a coordinate of its own.

A standard deviation, a correlation or a range of few numbers needs no turned columns
(``constraint.Covariances``). Of a linear model the coordinates are these natural
parameters; of a generalised one theta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.fitting.components import VarianceParameter, parameters
from jaxglmm.model.covariances.base import AbstractCovariance, SideBySide
from jaxglmm.postestimation.profile.constraint import (
    AWAY,
    ENTRY,
    SD,
    SMALL,
    Parameter,
    Turned,
)
from jaxglmm.postestimation.profile.root_search import FISHER, LOG, PLAIN
from jaxglmm.structure.factors import Factor

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.formula.design import Design

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


@dataclass(frozen=True)
class StructuredCovariances:
    """Those of one fit; see ``constraint.Covariances``.

    found: theta of the fit; natural: whether coordinates are natural parameters.
    """

    fit: FittedModel
    factors: Sequence[Factor]
    found: np.ndarray
    sigma: float
    natural: bool

    @property
    def design(self) -> Design:
        """Of the fit."""
        return self.fit.design

    @property
    def m(self) -> int:
        """Number of coordinates."""
        return len(self.found)

    def start(self) -> np.ndarray:
        """(1, m) the estimates, no standard deviation a stationary zero."""
        out = self.found.copy()
        for place in blocks(self.factors).values():
            own, part = place.covariance, self.found[place.own]
            if self.natural and own.has_own:
                sd, natural = own.natural(_square(own.matrix(part)))
                out[place.own] = np.concatenate([np.maximum(sd, SMALL), natural])
            else:
                small = np.array(own.is_scale) & (np.abs(part) < SMALL)
                out[place.own] = np.where(small, AWAY, part)
        return out[None]

    def held(self) -> Iterator[tuple[Parameter, Turned]]:
        """Standard deviations, then what is beside them, term by term."""
        start = self.start()
        for term, place in sorted(blocks(self.factors).items()):
            factor, own = self.factors[place.factor], place.covariance
            T = np.diagonal(factor.T)[place.columns]
            n = len(set(own.sharing))
            for k, x in enumerate(_pieces(self.fit, place, term)):
                is_sd = x.kind == "sd"
                # of several correlations of one structure the first alone: the others
                # are no coordinates of theta
                if not self.natural and not is_sd and x.kind == "cor" and k > n:
                    continue
                unit = float(T[k if n > 1 else 0]) if is_sd else 1.0
                step = _step(x, factor.n_levels, 0.05 * self.sigma / unit)
                low, high = (np.array([end]) for end in _limits(x, own))
                value, scale = np.array([float(x.value)]), SCALES.get(x.kind, LOG)
                yield (
                    Parameter(x.label, value, np.array([step]), low, high, scale),
                    Turned(
                        SD if is_sd else ENTRY,
                        place.factor,
                        np.eye(factor.q)[None],
                        (place.at + k,),
                        np.array([unit]),
                        start,
                        None if is_sd or self.natural else _to_theta(own, k - n),
                    ),
                )

    def at(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Lambda and d Sigma (m, q, q) of every factor, x natural parameters (m,)."""
        lam = [np.zeros((f.q, f.q)) for f in self.factors]
        changes = [np.zeros((self.m, f.q, f.q)) for f in self.factors]
        for place in blocks(self.factors).values():
            own, here = place.covariance, place.columns
            theta = own.from_natural(x[place.own]) if own.has_own else x[place.own]
            lam[place.factor][here, here] = own.matrix(theta)
            slopes = _slopes(own, theta, x[place.own])
            changes[place.factor][place.own, here, here] = slopes
        return lam, changes


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


def _to_theta(own: AbstractCovariance, k: int) -> Callable[[np.ndarray], np.ndarray]:
    """From values of the k-th parameter beside the sds to its theta."""

    def z(value: float) -> float:
        natural = own.correlation.start()  # type: ignore[attr-defined]
        natural[k] = value
        return float(own.correlation.free(natural)[k])  # type: ignore[attr-defined]

    return np.vectorize(z, otypes=[float])
