"""The parameters of a residual structure: their names, and their coordinates.

Internal coordinates are logarithms of standard deviations and what correlations make of
the whole line; people read standard deviations, correlations, ranges and powers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.estimate.held import HeldCoordinates, HeldPart, joined, of_unstructured
from jaxglmm.fitting import held
from jaxglmm.fitting.block_rows import correlation_of, n_scales, turn_of
from jaxglmm.fitting.held import Given, inverse
from jaxglmm.fitting.linear import SINGULAR
from jaxglmm.formula.design import Design
from jaxglmm.formula.levels import text_of
from jaxglmm.formula.residual import BY_VISIT
from jaxglmm.model.covariances import names as words
from jaxglmm.model.covariances.host import host_lambdas, host_theta
from jaxglmm.model.residuals import Correlation, Pairs
from jaxglmm.model.residuals.correlations import AnyCorrelation
from jaxglmm.runtime.host import on_host


@dataclass(frozen=True)
class ResidualParameter:
    """One number: its label, kind ("sd", "cor", "range" or "power") and value.

    slope: (m,) its derivatives in internal theta.
    """

    label: str
    kind: str
    value: float
    slope: np.ndarray


def group_labels(design: Design) -> list[str]:
    """``Residual``, or one a group."""
    term = design.residual
    assert term is not None
    if len(term.group_levels) == 1:
        return ["Residual"]
    return [f"Residual.{text_of(x)}" for x in term.group_levels]


def parameters_of(design: Design, phi: np.ndarray, m: int) -> list[ResidualParameter]:
    """From the residual part of theta in the user's units, of m thetas in all."""
    term = design.residual
    assert term is not None
    correlation, s = correlation_of(design), n_scales(design)
    by_visit = term.structure in BY_VISIT
    each = len(phi) // len(term.group_levels)
    visits = [text_of(v) for v in term.visits]
    out = []
    for g, label in enumerate(group_labels(design)):
        at = g * each
        own = phi[at : at + each]

        def add(
            name: str, kind: str, value: float, slope: np.ndarray, at: int = at
        ) -> None:
            wide = np.zeros(m)
            wide[at : at + len(slope)] = slope
            out.append(ResidualParameter(name, kind, float(value), wide))

        unit = np.eye(each)
        if term.structure == "us":
            _unstructured(add, correlation, own, s, visits, label)
            continue
        for k in range(s):
            one = "sigma" if label == "Residual" else f"sigma|{label}"
            name = words.sd(visits[k], label) if by_visit else one
            add(name, "sd", np.exp(own[k]), np.exp(own[k]) * unit[k])
        t_at = s + len(term.scale_names)
        if correlation is not None:
            with on_host():
                value, slope, _ = correlation.natural(own[t_at:])
            for k, name in enumerate(_names(term.structure, correlation.names, visits)):
                kind = "range" if name in ("range",) else "cor"
                add(f"{name}|{label}", kind, value[k], slope[k] * unit[t_at + k])
        for k, name in enumerate(term.scale_names, s):
            if term.part is not None:
                add(name, "power", own[k], turn_of(design)[k])
            elif name.startswith("varident"):
                add(
                    f"{name}|{label}", "range", np.exp(own[k]), np.exp(own[k]) * unit[k]
                )
            else:
                add(f"{name}|{label}", "power", own[k], unit[k])
    return out


def _names(structure: str, names: tuple[str, ...], visits: list[str]) -> list[str]:
    """Neighbours by their visits, distances by their number."""
    if structure in ("ad", "adh"):
        return [f"cor_{b}.{a}" for a, b in itertools.pairwise(visits)]
    return [name.replace("lag ", "rho_") for name in names]


def _unstructured(add, correlation, own, s, visits, label) -> None:
    """Standard deviations and correlations of a covariance without structure."""
    T = len(visits)
    pairs = Pairs(np.arange(T)[None], np.zeros((1, T, T)))
    with on_host():
        U, dU = correlation.tables(own[-correlation.k :], pairs)
    U, dU = U[0], dU[:, 0]
    scale = np.exp(own[:T])
    root = np.sqrt(np.diagonal(U))
    sd, each = scale * root, len(own)
    log_slope = np.zeros((T, each))  # of log sd
    log_slope[:, :T] = np.eye(T)
    log_slope[:, s + (each - s - correlation.k) :] = (
        np.diagonal(dU, axis1=1, axis2=2).T / (2 * root**2)[:, None]
    )
    for k in range(T):
        add(words.sd(visits[k], label), "sd", sd[k], sd[k] * log_slope[k])
    relative = np.diagonal(dU, axis1=1, axis2=2) / (2 * root**2)  # (k, T)
    for j in range(T):
        for i in range(j + 1, T):
            r = U[i, j] / (root[i] * root[j])
            slope = np.zeros(each)
            moved = dU[:, i, j] / (root[i] * root[j])
            slope[-correlation.k :] = moved - r * (relative[:, i] + relative[:, j])
            add(words.correlation(visits[i], visits[j], label), "cor", r, slope)


KINDS = {"sd": "positive", "range": "positive", "cor": "cor", "power": "power"}


def kinds(design: Design) -> dict[str, str]:
    """Name -> kind of all of them, as ``held.checked`` has kinds."""
    term, own = design.residual, correlation_of(design)
    assert term is not None
    each = n_scales(design) + len(term.scale_names) + (0 if own is None else own.k)
    phi = np.zeros(each * len(term.group_levels))
    found = parameters_of(design, phi, len(phi))
    return {x.label: KINDS[x.kind] for x in found}


def pieces(
    design: Design, phi: np.ndarray, fixed: Given, given: Given
) -> list[HeldPart]:
    """A piece a group, in the user's units; given: values to start from.

    phi: the coordinates to start from otherwise.
    """
    term, own = design.residual, correlation_of(design)
    assert term is not None
    found = parameters_of(design, phi, len(phi))
    groups = len(term.group_levels)
    each, count = len(phi) // groups, len(found) // groups
    out = []
    for g in range(groups):
        mine = found[g * count : (g + 1) * count]
        x = phi[g * each : (g + 1) * each].copy()
        values = {p.label: fixed.get(p.label, given.get(p.label)) for p in mine}
        named = any(v is not None for v in values.values())
        kept = np.array([p.label in fixed for p in mine], bool)
        if term.structure == "us" and named:
            out.append(_unstructured_piece(design, mine, values, kept, x))
            continue
        places = np.zeros(each, bool)
        s, extra = n_scales(design), len(term.scale_names)
        own_at = range(s + extra, each)
        order = [*range(s), *own_at, *range(s, s + extra)]
        for p, is_held, at in zip(mine, kept, order, strict=True):
            value = values[p.label]
            if value is None:
                continue
            places[at] = is_held
            if p.kind == "power":
                x[at] = value
            elif at < s + extra:
                x[at] = np.log(value)
            else:
                x[at] = _coordinate(own, at - s - extra, value, p.label)
        out.append(HeldPart(x, places, np.zeros(each, bool)))
    return out


def _coordinate(own: Correlation | None, k: int, value: float, label: str) -> float:
    assert own is not None

    def natural(t: float) -> float:
        with on_host():
            return float(own.natural(np.full(own.k, t))[0][k])

    try:
        return inverse(natural, value)
    except ModelError as error:
        raise ModelError(f"{label} = {error}") from None


def _unstructured_piece(
    design: Design, mine, values, held_here, x: np.ndarray
) -> HeldPart:
    """Standard deviations and Fisher's z of the visits, and what is beside them."""
    T = n_scales(design)
    here = [p.value if values[p.label] is None else values[p.label] for p in mine]
    sd = np.array(here[:T])
    z = np.arctanh(np.array(here[T : T + T * (T - 1) // 2]))
    between = x[T : len(x) - len(z)]
    to_root = of_unstructured(T)

    def to(every: np.ndarray) -> np.ndarray:
        L = to_root(every[: T + len(z)])
        scale = np.abs(np.diagonal(L))
        unit = (L / scale[:, None])[np.tril_indices(T, -1)]
        return np.concatenate([np.log(scale), every[T + len(z) :], unit])

    if not np.isfinite(to_root(np.concatenate([sd, z]))).all():
        raise ModelError(
            "no covariance has these correlations of the visits at once; bring them "
            "closer to zero"
        )
    every = np.concatenate([sd, z, between])
    here = np.concatenate([held_here[: T + len(z)], np.zeros(len(between), bool)])
    return HeldPart(every, here, np.zeros(len(every), bool), to)


def at_ends(design: Design, phi: np.ndarray) -> list[str]:
    """Correlations that are estimated at an end of their range, in words."""
    term, own = design.residual, correlation_of(design)
    if term is None or own is None:
        return []
    found = []
    each = len(phi) // len(term.group_levels)
    for g in range(len(term.group_levels)):
        t = phi[(g + 1) * each - own.k : (g + 1) * each]
        if isinstance(own, AnyCorrelation):
            L = np.eye(own.size)
            L[np.tril_indices(own.size, -1)] = t
            sd = np.sqrt(np.sum(L * L, axis=1))
            least = np.linalg.eigvalsh(L @ L.T / np.outer(sd, sd))[0]
            if least < SINGULAR**2:
                found.append("the residual covariance of the visits has not full rank")
            continue
        with on_host():
            value = own.natural(t)[0]
        found += [
            f"the {name} of {term.text} is estimated at an end of its range ({v:.5g})"
            for name, v, x in zip(own.names, value, t, strict=True)
            if abs(x) > own.far
        ]
    return found


def of_engine(engine: Any, theta: np.ndarray, given: Given) -> HeldCoordinates:
    """All parts of internal theta of a block engine, in the order of theta."""
    design, scale, r = engine.design, engine.fixed.scale, engine.problem.n_residual
    covariances, out = engine.problem.covariances, []
    if r:
        phi = theta[:r] + np.log(scale) * engine.is_level
        out += pieces(design, phi, design.fixed, given)
    groups = len(out)
    lams = host_lambdas(theta[r:], covariances)
    for term, lam in zip(design.terms, lams, strict=True):
        there = held.placed(term, scale * lam, {**given, **design.fixed}) / scale
        own = held.in_units(term, design.fixed, scale)
        out.append(held.term_piece(term, there, own))

    def finish(parts: list[np.ndarray]) -> np.ndarray:
        own = joined(parts[:groups]) - np.log(scale) * engine.is_level
        return np.concatenate([own, host_theta(parts[groups:], covariances)])

    return HeldCoordinates(tuple(out), finish)
