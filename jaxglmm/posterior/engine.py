"""Engine of a Bayesian fit: the design in coordinates where priors are stated.

Random-effects columns are scaled, not rotated, so that the factor of a term's
covariance is T_i sd_i L_ij with the user's standard deviations and correlations. What
methods return goes back to the user's coordinates here, as ``Draws``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._brief import brief
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.fitting.generalised import problem_of
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors import build as assemble_belief
from jaxglmm.model.priors.build import Resolved
from jaxglmm.model.priors.distributions import Fixed, Priors
from jaxglmm.model.priors.mixed_model_prior import MixedBelief
from jaxglmm.runtime import placement
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import ColumnMaps, Factor
from jaxglmm.structure.rows_of_design import RowData, build_rows

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design, RandomTerm


AT_ONCE = 5_000_000  # numbers of the factors of some draws


@brief
@dataclass(frozen=True)
class Draws:
    """Draws in the user's coordinates, (S, ...).

    sd, corr: term's label -> (S, q), (S, q, q); of a structure sd has those that it
    has, and more: label -> (S, r) what is beside them, correlations, range, ...;
    effects: label -> (S, J, q), or None where they would not fit; dispersion: name ->
    (S,), natural values; x: (S, k) the engine's own coordinates.
    """

    x: np.ndarray
    beta: np.ndarray
    sd: dict[str, np.ndarray]
    corr: dict[str, np.ndarray]
    effects: dict[str, np.ndarray] | None
    dispersion: dict[str, np.ndarray]
    more: dict[str, np.ndarray] = field(default_factory=dict)


class PosteriorEngine:
    """A design with its priors, ready for any method.

    data: rows; posterior: the density, on the device; eta, phi: where to start.
    """

    def __init__(
        self,
        design: Design,
        family: AbstractFamily,
        resolved: Resolved,
        data: RowData,
        posterior: PosteriorModel,
        eta: np.ndarray,
        phi: np.ndarray,
    ):
        self.design, self.family, self.resolved = design, family, resolved
        self.data, self.posterior = data, posterior
        self.eta, self.phi = eta, phi
        self.R_inverse = np.linalg.solve(data.R, np.eye(len(data.R)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.data!r}>"

    @property
    def belief(self) -> MixedBelief:
        """The prior in the problem's coordinates."""
        belief = self.posterior.belief
        assert isinstance(belief, MixedBelief)
        return belief

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Grouping factors in internal order."""
        return self.data.factors

    # To the user's coordinates -------------------------------------------------------

    def beta(self, x: np.ndarray) -> np.ndarray:
        """(..., p) coefficients."""
        return x[..., : self.design.p] @ self.R_inverse.T

    def split(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Coordinates of each block (..., size), and of the dispersion (..., n_phi)."""
        out, k = [], self.design.p
        for block in self.belief.blocks:
            out.append(x[..., k : k + block.size])
            k += block.size
        return out, x[..., k:]

    def draws(self, x: np.ndarray, u: tuple[np.ndarray, ...] | None) -> Draws:
        """x: (S, k); u: (S, q, J) a factor, spherical."""
        parts, phi = self.split(x)
        sd, corr, more, lam = {}, {}, {}, {}
        blocks = self.belief.blocks
        for term, block, y in zip(self.design.terms, blocks, parts, strict=True):
            label, n = term.label, len(block.sds)
            sd[label] = np.exp(y[:, :n])
            if block.covariance.has_own:
                more[label] = natural_of(block.covariance, y[:, n:])
                continue
            L = correlation_factors(y[:, n:], n)
            lam[label] = sd[label][:, :, None] * L
            if n > 1 and block.correlations is not None:
                corr[label] = correlations(L)
        beta = self.beta(x)
        dispersion = self._dispersion(phi, beta)
        draws = Draws(x, beta, sd, corr, None, dispersion, more)
        return draws if u is None else replace(draws, effects=self._effects(draws, u))

    def _dispersion(self, phi: np.ndarray, beta: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (S,) natural values, known ones as constants."""
        priors, family = self.resolved.dispersion, self.family
        known = [isinstance(prior, Fixed) for prior in priors]
        full = np.zeros((len(priors), len(phi)))
        full[~np.array(known, bool)] = phi.T
        natural = family.natural(full)
        if self.resolved.level.any():  # thresholds: X is about its means here
            natural = natural + np.outer(family.moved, beta @ self.resolved.level)
        values = dict(zip(family.phi_names, natural, strict=True))
        for name, prior in zip(values, priors, strict=True):
            if isinstance(prior, Fixed):
                values[name] = np.full(len(phi), prior.value)
        return values

    def _effects(
        self, draws: Draws, u: tuple[np.ndarray, ...]
    ) -> dict[str, np.ndarray]:
        """Label -> (S, J, q) from spherical effects."""
        out = {}
        for factor, own in zip(self.factors, u, strict=True):
            for k, start, stop in factor.spans:
                term = self.design.terms[k]
                inside = own[:, start:stop, : factor.n_levels]
                out[term.label] = np.swapaxes(spread(draws, term, inside), 1, 2)
        return {term.label: out[term.label] for term in self.design.terms}


def natural_of(own: AbstractCovariance, y: np.ndarray) -> np.ndarray:
    """(S, r) correlations, ranges, ... of a structure's coordinates (S, r)."""
    if not y.shape[1]:
        return np.zeros(y.shape)
    law = own.correlation  # type: ignore[attr-defined]
    with on_host(), np.errstate(over="ignore"):
        z = np.asarray(law.from_even(y))
    return np.stack(law.natural(list(z.T)), axis=-1)


def roots_of(
    draws: Draws, term: RandomTerm, here: slice | int = slice(None)
) -> np.ndarray:
    """(S, q, q) Cholesky factors of the term's covariance, of the draws ``here``."""
    sd, label = draws.sd[term.label][here], term.label
    if label in draws.corr:
        return sd[..., :, None] * np.linalg.cholesky(draws.corr[label][here])
    own = covariances.of(term)
    if not own.pairs:
        return sd[..., list(own.sharing), None] * np.eye(own.q)
    return own.matrix(
        own.from_natural(np.concatenate([sd, draws.more[label][here]], -1))
    )


def spread(draws: Draws, term: RandomTerm, u: np.ndarray) -> np.ndarray:
    """(S, q, k) effects L u of spherical ones (S, q, k), one factor L a draw."""
    own = covariances.of(term)
    if not own.pairs:
        return draws.sd[term.label][:, list(own.sharing), None] * u
    size = max(1, AT_ONCE // own.q**2)
    parts = [slice(a, a + size) for a in range(0, len(u), size)]
    return np.concatenate([roots_of(draws, term, here) @ u[here] for here in parts])


def correlation_factors(y: np.ndarray, K: int) -> np.ndarray:
    """(S, K, K) Cholesky factors from (S, m) partial correlations; I where m = 0."""
    S = len(y)
    L = np.zeros((S, K, K))
    w, k = np.tanh(y), 0
    if not y.shape[1]:
        L[:, np.arange(K), np.arange(K)] = 1.0
        return L
    for i in range(K):
        left = np.ones(S)
        for j in range(i):
            L[:, i, j] = w[:, k] * np.sqrt(left)
            left = left * (1 - w[:, k] ** 2)
            k += 1
        L[:, i, i] = np.sqrt(left)
    return L


def correlations(L: np.ndarray) -> np.ndarray:
    """(S, K, K) matrices L L' with a diagonal of ones, not of 1 - 1e-16."""
    # products of unit rows pass one by a rounding
    out = np.clip(L @ np.swapaxes(L, 1, 2), -1.0, 1.0)
    out[:, np.arange(L.shape[1]), np.arange(L.shape[1])] = 1.0
    return out


@double_precision
def build(
    design: Design,
    family: AbstractFamily,
    priors: Priors | None,
    data: RowData | None = None,
) -> PosteriorEngine:
    """Design, family and priors to an engine; data: rows built for another response."""
    resolved = assemble_belief.resolve(design, family, priors)
    if data is None:
        # priors are of the user's columns: these may be scaled, and not mixed
        columns = assemble.columns(design, ColumnMaps.SCALES)
        X = assemble.fixed(design)
        if resolved.level.any():
            X = X - resolved.level
        data = build_rows(X, columns)
    own = tuple(f.covariance for f in data.factors)
    belief = assemble_belief.belief(resolved, design, family, data.factors, data.R)
    precise = assemble.precise(design, family)
    counted = precise.counted
    trials = None if precise.trials is None else precise.trials[counted]
    eta, phi = family.start(design.y, precise.trials)
    phi = family.start(design.y[counted], trials)[1]
    problem = problem_of(precise, family, data, own)
    posterior = placement.put(PosteriorModel(problem, belief))
    return PosteriorEngine(
        design, family, resolved, data, posterior, data.place(eta), np.asarray(phi)
    )
