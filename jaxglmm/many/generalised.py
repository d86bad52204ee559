"""Many generalised linear mixed models with one grouping factor: lanes to table rows.

Rows are sorted by level and laid out (height, levels, lanes), see ``rows_lanes``.
``SharedRows`` fits responses of one design; missing values and weights of their own
make the weights differ from lane to lane and nothing else. Data sets with designs of
their own are in ``ragged_generalised``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from scipy.linalg import block_diag

from jaxglmm import _status
from jaxglmm._errors import DataError, JaxGLMMWarning, ModelError
from jaxglmm.estimate import generalised_lanes as generalised
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting import ordinal, ordinal_notes, separation
from jaxglmm.fitting.generalised import inverse_hessian
from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.many.collection import ModelSource, status_of
from jaxglmm.many.columns import AGAIN, ALONE, MISSING, KeptColumns
from jaxglmm.many.linear import (
    USABLE,
    _columns,
    columns,
    is_free,
    lambdas,
    packed,
    unusable,
)
from jaxglmm.many.located import Categories, Reading
from jaxglmm.many.located import guesses as of_thresholds
from jaxglmm.many.pieces import OnHost, placed
from jaxglmm.many.responses import Responses
from jaxglmm.many.values import LEAST_VALUES, apart, tabulated
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import Factor, join
from jaxglmm.structure.fixed import orthonormal

CELLS = 12_000  # padded rows x lanes in one chunk on a CPU
LANES = 8, 256
MOST_FIXED = 8
MOST_RANDOM = 3


def suits(source: ModelSource, located: bool = False) -> bool:
    """Whether the unrolled programs can take the model.

    located: thresholds too, whose location is an intercept that X does not have.
    """
    design, marginal = source.design, source.model
    q = sum(len(t.names) for t in design.terms)
    one = len({t.factor for t in design.terms}) == 1
    small = q <= MOST_RANDOM and design.p <= MOST_FIXED
    plain = isinstance(marginal, AbstractMarginal) and marginal.suits_lanes()
    plain = plain and (located or source.family.family_kind != "ordinal")
    return one and small and plain and is_free(design)


def generalised_columns(design: Design, family: AbstractFamily) -> KeptColumns:
    """What is kept of each fit."""
    plain = columns(design)
    names = tuple(family.phi_names) if family.n_phi else ()
    return replace(plain, dispersion=names, errors=family.family_kind == "ordinal")


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


class SharedRows(OnHost):
    """One design, responses as columns; weights, offsets and trials perhaps theirs."""

    surer_alone = False

    @double_precision
    def __init__(self, source: ModelSource, own_weights: bool, devices: Devices):
        assert source.responses is not None
        design = source.design
        self.source, self.design, self.own_weights = source, design, own_weights
        self.devices = devices
        self.responses: Responses = source.responses
        located = ordinal.has_location(source.family)
        self.family: AbstractFamily = ordinal.core(source.family)
        self.columns = generalised_columns(design, source.family)
        (self.factor,) = join(assemble.columns(design))
        self.predictors = assemble.predictors(design)
        whole, self.X = _orthonormal(fixed_parts(design, located))
        self.R_inverse = whole[int(located) :]
        k = len(whole) + self.factor.covariance.m + self.family.n_phi
        row = -whole[:1] if located else None
        self.reading = Reading(source.family, row, k)
        self.layout = RowsByLevel.of(self.factor.codes, self.factor.n_levels)
        K = self.predictors.K
        cells = self.layout.h * self.layout.J * K
        self.chunk = devices.chunk(cells, CELLS, LANES)
        self.lanes = devices.block(self.chunk, 6 * cells)
        self.unit = devices.unit(self.chunk)
        self.program = generalised.RowsFit(
            self.family,
            source.model,
            self.factor.covariance,
            self.predictors,
            self.factor.predictors if K > 1 else None,
        )
        self.room = LEAST_VALUES

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

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for responses ``which`` (L,), at most ``steps`` steps."""
        Y = self.responses.take(which)
        source, family = self.source, self.family
        weights = _columns(source.weights, which, Y.shape)
        trials = None
        if source.trials is not None:
            trials = _columns(source.trials, which, Y.shape)
        lost = np.isnan(Y)
        for values in (weights, trials):
            if values is not None:
                lost = lost | np.isnan(values)
        several = self.predictors.K > 1  # whose offsets are those of the design
        own = None if several else source.offset
        offset = _columns(own, which, Y.shape, 0.0)
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
        here = {k: v for k, v in self.shared.items() if k not in there}
        report = _fit(self, here, there, place(guess), phi, steps)
        status = np.where(status == 0, report.status, status)
        if self.own_weights:
            n = used.sum(axis=0)
            levels = np.zeros((self.factor.n_levels, len(which)), bool)
            np.logical_or.at(levels, self.factor.codes, used)
            few = (n <= self.design.p) | (levels.sum(axis=0) < 2)
            status[few & (status != _status.BAD_VALUES)] = _status.TOO_FEW
        status[waiting & (status != _status.BAD_VALUES)] = MISSING
        beta = report.psi[: len(self.X.T)].T @ self.R_inverse.T

        def rows_of(i: int) -> tuple[Design, np.ndarray, np.ndarray]:
            at = np.flatnonzero(used[:, i])
            eta = self.design.X @ beta[i] + offset[:, i]
            z = self.factor.values
            effects = report.b[:, : self.factor.n_levels, i]
            for k, effect in enumerate(effects):
                eta = eta + (1.0 if z is None else z[:, k]) * effect[self.factor.codes]
            design = self.source.design_of(int(which[i])) if some[i] else self.design
            return design, eta[at] if some[i] else eta, at

        return table(
            self.design,
            self.columns,
            self.factor,
            self.reading,
            report,
            status,
            beta,
            self.R_inverse[None],
            self.factor.T_inverse,
            rows_of,
            Y,
            seen,
        )


def _fit(
    engine: Any, here: dict, there: dict, guess: np.ndarray, phi: np.ndarray, steps: int
) -> generalised.Report:
    """Run the program; arrays by name, those that lanes share and those they do not."""
    source = engine.source
    given = here | there
    weights, trials = np.asarray(given["weights"]), np.asarray(given["trials"])
    if source.family.has_separable_term:
        parts = apart(there["y"], weights, engine.room)
        engine.room = max(engine.room, *map(len, parts.values()))
        there = there | parts
    base = tabulated(source.family, there["y"], trials, weights)
    if base is not None:
        there = there | {"base": base}
    stop = np.float64(_engine.SAFETY * source.tol)
    shared = {k: v for k, v in here.items() if v is not None}
    found = engine.devices.run(
        engine.program,
        (shared, stop, np.int64(steps)),
        (there, guess, phi),
        engine.chunk,
        apart=True,
    )
    return jax.tree.map(np.asarray, found)


def categories(
    family: AbstractFamily, Y: np.ndarray, used: np.ndarray
) -> Categories | None:
    """Which categories the responses have; None where they have none."""
    if family.family_kind not in ("ordinal", "nominal"):
        return None
    return Categories.of(Y, used, family.categories)  # type: ignore[attr-defined]


def of_categories(family: AbstractFamily, seen: Categories) -> np.ndarray:
    """(L,) zero, or why responses of such categories cannot be fitted."""
    status = np.where(seen.several, 0, _status.CONSTANT)
    if not by_gaps(family):  # a fit of its own leaves empty categories out
        status[seen.empty & seen.several] = ALONE
    status[~seen.count.any(axis=0)] = _status.TOO_FEW
    return status


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


def by_gaps(family: AbstractFamily) -> bool:
    """Whether an empty category is a gap of nothing between two thresholds."""
    structure = getattr(family, "thresholds", None)
    return structure == "flexible" and len(family.predictors) == 1


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


def table(
    design: Design,
    columns: KeptColumns,
    factor: Factor,
    reading: Reading,
    report: generalised.Report,
    status: np.ndarray,
    beta: np.ndarray,
    back: np.ndarray,
    T_inverse: np.ndarray,
    rows_of: Any,
    Y: np.ndarray,
    seen: Categories | None = None,
) -> np.ndarray:
    """Rows of the table, in the user's coordinates."""
    from scipy.special import erfc

    family = reading.core
    p, m = back.shape[-1], factor.covariance.m
    theta, phi = report.psi[p : p + m], report.psi[p + m :]
    status = np.where(status == _status.MAX_STEPS, AGAIN, status)
    lost = (_status.STALLED, _status.NOT_FINITE)
    status = np.where(np.isin(status, lost), ALONE, status)  # which starts anew
    usable = np.isin(status, USABLE)
    lam, singular = lambdas(factor, theta, T_inverse)
    sd = np.concatenate(
        [
            np.sqrt(np.sum(lam[:, a:b, a:b] ** 2, axis=-1))
            for _, a, b in sorted(factor.spans)
        ],
        axis=1,
    )
    se = report.se.T.copy()
    scales = np.array(factor.covariance.is_scale)
    pinned = np.concatenate(
        [
            np.zeros((p, len(status)), bool),
            scales[:, None] & (np.abs(theta) < _engine.SINGULAR),
            family.at_end(phi),
        ]
    )
    for i in np.flatnonzero((report.unsure == 1) & usable):
        H = report.hessian[:, :, i]
        V = inverse_hessian(H, pinned[:, i], p)[:p, :p]
        own = back[i % len(back)]
        se[i] = np.sqrt(np.einsum("ij,jk,ik->i", own, V, own))
    with np.errstate(invalid="ignore", divide="ignore"):
        p_values = erfc(np.abs(beta / se) / np.sqrt(2))
    dispersion = reading.natural(report.psi)
    errors = np.zeros((len(status), 0))
    if columns.errors:
        errors = reading.errors(report.psi, report.hessian, pinned, report.unsure)
    if seen is not None and columns.errors and by_gaps(family):
        dispersion = seen.thresholds(dispersion)
        errors = np.where(np.isfinite(dispersion), errors, np.nan)
    out = columns.table(
        len(status),
        coefficients=beta,
        se=se,
        df=np.full(beta.shape, np.inf),
        p_values=p_values,
        sd=sd,
        theta=packed(design, factor, lam),
        dispersion=dispersion,
        dispersion_se=errors,
        log_likelihood=-report.criterion / 2,
        decrement=report.decrement,
        steps=report.steps,
        singular=singular,
        separated=separated(family, report.far, usable, beta, rows_of, Y),
        status=status,
    )
    out[~usable, :-1] = np.nan
    return out


def separated(
    family: AbstractFamily,
    far: np.ndarray,
    usable: np.ndarray,
    beta: np.ndarray,
    rows_of: Any,
    Y: np.ndarray,
) -> np.ndarray:
    """(L,) whether coefficients have run off; few lanes need a closer look."""
    out = np.zeros(len(far))
    edge = family.link.end
    if edge is None or not family.discrete or len(family.predictors) > 1:
        return out
    for i in np.flatnonzero(usable & (far > edge)):
        design, eta, rows = rows_of(i)
        y = Y[rows, i]
        try:
            if family.family_kind == "ordinal":
                out[i] = ordinal_notes.any_runs_off(design.X, y)
            else:
                out[i] = separation.any_found(design, family, beta[i], eta, y)
        except (ValueError, np.linalg.LinAlgError):
            continue
    return out
