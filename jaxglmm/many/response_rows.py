"""Responses of one design as the lanes of generalised models.

Rows are laid out by level once, for all responses; what a response has of its own are
values, and perhaps weights, offsets and trials.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import block_diag

from jaxglmm import _status
from jaxglmm._errors import DataError, JaxGLMMWarning, ModelError
from jaxglmm.fitting import ordinal
from jaxglmm.formula.design import Design
from jaxglmm.many.collection import ModelSource, status_of
from jaxglmm.many.columns import MISSING
from jaxglmm.many.generalised import LaneArrays
from jaxglmm.many.linear import unusable
from jaxglmm.many.located import Categories, of_categories
from jaxglmm.many.located import guesses as of_thresholds
from jaxglmm.many.pieces import OnHost, placed
from jaxglmm.many.responses import Responses, values_of
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import join
from jaxglmm.structure.fixed import orthonormal


def fine(size: int) -> int:
    """Sizes of few values that waste little: exact up to 16."""
    unit = max(1, 2 ** (int(size).bit_length() - 4))
    return -(-int(size) // unit) * unit


@dataclass(frozen=True)
class RowsByLevel:
    """Where rows go in (height, levels).

    order: rows sorted by level; at: their rows and levels; h, J: padded sizes.
    """

    order: np.ndarray
    at: tuple[np.ndarray, np.ndarray]
    h: int
    J: int

    @staticmethod
    def of(codes: np.ndarray, J: int) -> RowsByLevel:
        """By the level of each row."""
        order = np.argsort(codes, kind="stable")
        level = codes[order]
        counts = np.bincount(level, minlength=J)
        first = np.cumsum(counts) - counts
        row = np.arange(len(level)) - first[level]
        return RowsByLevel(order, (row, level), fine(int(counts.max())), fine(J))

    def place(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """(n, l) -> (h, J, l), or (K, n, l) -> (K, h, J, l)."""
        out = np.full((*values.shape[:-2], self.h, self.J, values.shape[-1]), fill)
        out[(..., *self.at, slice(None))] = values[..., self.order, :]
        return out


def fixed_parts(design: Design, located: bool) -> list[np.ndarray]:
    """X of each predictor; located: with an intercept in front."""
    if located:
        return [ordinal.with_ones(design.X)]
    return [part.X for part in design.parts.values()] or [design.X]


def _orthonormal(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """R^-1 and X R^-1, of mean square one, predictor by predictor."""
    inverses, columns = [], []
    for X in parts:
        R, basis = orthonormal(X, None)
        inverses.append(np.linalg.solve(R / np.sqrt(len(X)), np.eye(len(R))))
        columns.append(basis.whole * np.sqrt(len(X)))
    if len(columns) == 1:
        return inverses[0], columns[0]
    return block_diag(*inverses), np.concatenate(columns, axis=1)


class ResponseRows(OnHost):
    """One design, responses as columns; weights, offsets and trials perhaps theirs."""

    numbers = 0

    @double_precision
    def __init__(self, source: ModelSource, own_weights: bool, devices: Devices):
        assert source.responses is not None
        design = source.design
        self.source, self.design, self.own_weights = source, design, own_weights
        self.devices = devices
        self.responses: Responses = source.responses
        self.located = ordinal.has_location(source.family)
        self.family: AbstractFamily = ordinal.core(source.family)
        (self.factor,) = join(assemble.columns(design))
        self.several = bool(design.parts)
        self.whole, self.X = _orthonormal(fixed_parts(design, self.located))
        self.R_inverse = self.whole[int(self.located) :]
        self.layout = RowsByLevel.of(self.factor.codes, self.factor.n_levels)
        self.h, self.J = self.layout.h, self.layout.J

    @placed
    def shared(self) -> dict[str, Any]:
        """Arrays by name that all lanes share; None for those of which each has own."""
        source, Z = self.source, self.factor.values
        offset = source.offset
        host = {
            "weights": self._same(source.weights, 0.0),
            "trials": self._same(source.trials, 1.0),
            "offset": None if offset is None else self._same(offset, 0.0),
            "X": self._fixed(self.X),
            "Z": None if Z is None else self._fixed(Z),
            "n_levels": np.array([float(self.factor.n_levels)]),
            "back": np.ascontiguousarray(self.R_inverse[..., None]),
        }
        put = self.devices.shared
        return {k: None if v is None else put(v) for k, v in host.items()}

    def _fixed(self, columns: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(self.layout.place(columns), -1, 0)
        return np.ascontiguousarray(rows[..., None])

    def _same(self, values: Any, fill: float) -> np.ndarray | None:
        if isinstance(values, Responses):
            return None
        if values is None:
            values = np.ones(self.design.n)
        return self.layout.place(values[..., None], fill)

    def rows(self, which: np.ndarray) -> LaneArrays:
        """Responses ``which`` (L,); those that wait for weights of their own too."""
        Y = self.responses.take(which)
        source, family = self.source, self.family
        weights = values_of(source.weights, which, Y.shape)
        trials = None
        if source.trials is not None:
            trials = values_of(source.trials, which, Y.shape)
        lost = np.isnan(Y)
        for values in (weights, trials):
            if values is not None:
                lost = lost | np.isnan(values)
        own = None if self.several else source.offset  # of several: the design's
        offset = values_of(own, which, Y.shape, 0.0)
        lost = lost | np.isnan(offset)
        infinite = unusable(Y, weights, offset)
        if trials is not None:
            infinite |= np.isinf(trials).any(axis=0)
        some = np.any(lost, axis=0)
        used = (weights > 0) & ~lost
        seen = categories(source.family, Y, used)
        status = check(family, Y, trials, used, seen)
        status[infinite] = _status.BAD_VALUES
        waiting = np.zeros(len(which), bool) if self.own_weights else some
        good = (status == 0) & ~waiting
        fill = family.padding if good.any() else 0.0
        Y = np.where(used & good, Y, family.padding)
        m = None if trials is None else np.where(used & good, trials, 1.0)
        rows = used if self.own_weights else None
        if seen is not None and family.family_kind == "ordinal":
            Y = np.where(used & good, seen.for_lanes(Y), family.padding)
        guess, phi = guesses(family, Y, m, rows, good, seen)
        place = self.layout.place
        there = {"y": place(Y, fill)}
        if self.shared["weights"] is None or self.own_weights:
            there["weights"] = place(np.where(used, weights, 0.0))
        if self.shared["trials"] is None:
            there["trials"] = place(m, 1.0)  # type: ignore[arg-type]
        if self.shared["offset"] is None and own is not None:
            there["offset"] = place(np.where(lost, 0.0, offset))
        if self.own_weights:
            self._few(used, status)
        status[waiting & (status != _status.BAD_VALUES)] = MISSING

        def rows_of(i: int, whole: np.ndarray, effects: np.ndarray) -> tuple:
            at = np.flatnonzero(used[:, i])
            eta = self.design.X @ whole[int(self.located) :] + offset[:, i]
            z = self.factor.values
            for k, effect in enumerate(effects[:, : self.factor.n_levels]):
                eta = eta + (1.0 if z is None else z[:, k]) * effect[self.factor.codes]
            design = self.source.design_of(int(which[i])) if some[i] else self.design
            return design, eta[at] if some[i] else eta, at

        here = {k: v for k, v in self.shared.items() if k not in there}
        start = (place(guess), phi, status)
        back, T_inverse = self.whole[None], self.factor.T_inverse
        return LaneArrays(here, there, *start, back, T_inverse, Y, seen, rows_of)

    def _few(self, used: np.ndarray, status: np.ndarray) -> None:
        """Mark those with no more rows than coefficients, or one level."""
        levels = np.zeros((self.factor.n_levels, used.shape[1]), bool)
        np.logical_or.at(levels, self.factor.codes, used)
        few = (used.sum(axis=0) <= self.design.p) | (levels.sum(axis=0) < 2)
        status[few & (status != _status.BAD_VALUES)] = _status.TOO_FEW


def categories(
    family: AbstractFamily, Y: np.ndarray, used: np.ndarray
) -> Categories | None:
    """Which categories the responses have; None where they have none."""
    if family.family_kind not in ("ordinal", "nominal"):
        return None
    return Categories.of(Y, used, family.categories)  # type: ignore[attr-defined]


def check(
    family: AbstractFamily,
    Y: np.ndarray,
    trials: np.ndarray | None,
    used: np.ndarray,
    seen: Categories | None = None,
) -> np.ndarray:
    """(L,) zero, or why a response cannot be fitted; seen: of categories."""
    L = Y.shape[1]
    status = np.zeros(L, int)
    doubtful = ~used.any(axis=0)
    if seen is not None:
        return of_categories(family, seen)
    status[doubtful] = _status.TOO_FEW
    m = trials
    try:
        family.check(Y[used], None if m is None else m[used])
        same = (Y[:1] == Y).all(axis=0)
        if m is not None:
            same |= (m == Y).all(axis=0)
        elif family.family_kind == "binomial":
            same |= (Y == 1.0).all(axis=0)
        if not used.all():
            same |= ~used.all(axis=0)
        look = np.flatnonzero(same & ~doubtful)
    except (DataError, ModelError):
        look = np.flatnonzero(~doubtful)
    for i in look:
        rows = used[:, i]
        try:
            family.check(Y[rows, i], None if m is None else m[rows, i])
        except (DataError, ModelError) as error:
            status[i] = status_of(error)
    return status


LEAST_ROWS = 2  # that say how much they vary


def guesses(
    family: AbstractFamily,
    Y: np.ndarray,
    trials: np.ndarray | None,
    used: np.ndarray | None,
    good: np.ndarray,
    seen: Categories | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the family would start: eta (n, L) and phi (r, L), of ``good`` lanes."""
    K = len(family.predictors)
    if seen is not None and K == 1 and family.family_kind == "ordinal":
        return of_thresholds(family, Y, seen.in_lanes.count)  # type: ignore[arg-type]
    alone = family.starts_alone and family.link.name == family.default_link
    if alone and K == 1:
        return family.start(Y, trials)[0], np.zeros((0, Y.shape[1]))
    rows = np.ones((1, 1)) if used is None else used
    with np.errstate(all="ignore"):
        n = np.sum(np.broadcast_to(rows, Y.shape), axis=0)
        mean = np.sum(Y * rows, axis=0) / n
        phi = family.start_phi(mean, np.sum(rows * (Y - mean) ** 2, axis=0) / n)
        if phi is not None and family.n_phi and K == 1:
            phi = np.where(np.isfinite(phi) & good, phi, 0.0)
            return np.where(rows > 0, family.start(Y, trials)[0], 0.0), phi
    eta = np.zeros(Y.shape if K == 1 else (K, *Y.shape))
    phi = np.zeros((family.n_phi, Y.shape[1]))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", JaxGLMMWarning)
        for i in np.flatnonzero(good):
            rows = slice(None) if used is None else used[:, i]
            if used is not None and rows.sum() < LEAST_ROWS:
                continue  # nothing to guess from, and nothing to fit
            m = None if trials is None else trials[rows, i]
            eta[..., rows, i], phi[:, i] = family.start(Y[rows, i], m)
    return eta, np.where(np.isfinite(phi), phi, 0.0)
