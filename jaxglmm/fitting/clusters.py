"""Clusters of rows that are independent of each other under a fitted linear model.

Which they are (a grouping factor or a coarser one), and what robust covariances need of
their rows: sums of X'V^-1 X and X'V^-1 e by cluster, or each cluster's V.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._brief import brief
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.fitting import predictor
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.conditional_variance import regression_on_modes
from jaxglmm.fitting.model_frame import frame, labels
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.design import Design
from jaxglmm.integrate import exact_blocks
from jaxglmm.runtime.host import on_host
from jaxglmm.structure.patterns import Arrangement


@brief
@dataclass(frozen=True)
class Clusters:
    """Which cluster each row is in.

    name: of the variable, "" where labels were given without; codes: (n,)
    """

    name: str
    codes: np.ndarray


# Reading them ------------------------------------------------------------------------


def clusters_of(design: Design, cluster: Any = None) -> Clusters:
    """The clusters that the user names, or the coarsest grouping factor.

    Args:
        design: of the fit.
        cluster: None; the name of a grouping factor or of a variable of the model; or
            labels, one a row of the data (a Series is matched by its row labels).

    Raises:
        NotApplicableError: no such name, no factor that contains the others, rows of
            different clusters that share a random effect, or fewer than two clusters.
        DataError: labels that are missing or of another length.
    """
    factors = _factors(design)
    if cluster is None:
        found = _coarsest(factors)
    elif isinstance(cluster, str):
        found = Clusters(cluster, _named(design, factors, cluster))
    else:
        name = getattr(cluster, "name", None)
        found = Clusters("" if name is None else str(name), _given(design, cluster))
    here = design.counted
    codes = found.codes[here]
    for factor, own in factors.items():
        level, inside = _shared(own[here], codes)
        if level >= 0:
            raise NotApplicableError(
                f"cluster={found.name or 'labels'!r}: rows of different clusters share "
                f"random effects of {factor!r} ({inside} clusters have its level "
                f"number {level + 1}), so they are not independent. Give {factor!r} or "
                "a coarser variable"
            )
    count = len(np.unique(codes))
    if count < 2:
        raise NotApplicableError(
            f"cluster={found.name or 'labels'!r} has {count} cluster: a robust "
            "covariance is a mean over clusters, and needs two at the very least"
        )
    return found


def _factors(design: Design) -> dict[str, np.ndarray]:
    """Codes of what makes rows dependent: grouping factors, subjects of residuals."""
    found = {term.factor: term.codes for term in design.terms}
    if design.residual is not None and design.residual.structure:
        found.setdefault(design.residual.subject or "residual", design.residual.codes)
    return found


def _coarsest(factors: dict[str, np.ndarray]) -> Clusters:
    if not factors:
        raise NotApplicableError(
            "The model has no grouping factor, so cluster= must say which rows belong "
            "together: a column of the model's data, or labels, one a row"
        )
    for name, codes in factors.items():
        if all(_shared(own, codes)[0] < 0 for own in factors.values()):
            return Clusters(name, codes)
    raise NotApplicableError(
        f"None of the grouping factors {', '.join(factors)} contains the others, so no "
        "two rows need be independent. Give cluster= that does, a column that is "
        "coarser than all of them"
    )


def _shared(own: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    """A level that lies in several clusters and their number; -1 if there is none."""
    pairs = np.unique(np.stack([own, codes]), axis=1)
    levels, counts = np.unique(pairs[0], return_counts=True)
    several = np.flatnonzero(counts > 1)
    return (
        (int(levels[several[0]]), int(counts[several[0]])) if len(several) else (-1, 0)
    )


def _named(design: Design, factors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name in factors:
        return factors[name]
    table = frame(design)
    if name not in table.columns:
        known = dict.fromkeys([*factors, *map(str, table.columns)])
        raise NotApplicableError(
            f"cluster={name!r} is none of the model's variables ({', '.join(known)}). "
            f"Give the column itself: cluster=data[{name!r}]"
        )
    return _codes(table[name])


def _given(design: Design, values: Any) -> np.ndarray:
    """Codes of labels that come beside the data, whose rows the fit may have cut."""
    rows = labels(design)
    theirs = row_labels(values)
    if isinstance(values, pd.DataFrame):
        raise DataError("cluster is a table: give one column of it, data['school']")
    if theirs is None and not _is_list(values):
        raise DataError(
            f"cluster={_arguments.shown(values)} must be the name of a variable, or "
            f"{design.n} labels, one a row"
        )
    n = len(values)
    if n != design.n and theirs is not None and theirs.is_unique:
        at = theirs.get_indexer(rows)
        if (at >= 0).all():
            return _codes(values.iloc[at])
    kept = design.rows
    if n != design.n and kept is not None and n > int(np.max(kept)):
        return _codes(pd.Series(np.asarray(values)[np.asarray(kept)]))
    if n != design.n:
        raise DataError(
            f"cluster has {n} labels, and the fit {design.n} rows: give one a row of "
            "the data"
        )
    return _codes(pd.Series(np.asarray(by_labels("cluster", values, rows))))


def _is_list(values: Any) -> bool:
    try:
        return np.ndim(values) == 1
    except ValueError:  # lists of several lengths
        return False


def _codes(values: pd.Series) -> np.ndarray:
    try:
        codes, _ = pd.factorize(values)
    except TypeError as error:
        raise DataError(
            "cluster: labels must be numbers or text, one a row, not lists or dicts"
        ) from error
    missing = int((codes < 0).sum())
    if missing:
        raise DataError(
            f"cluster has {missing} missing label{'s' * (missing > 1)}: each row needs "
            "one"
        )
    return codes


# Their rows --------------------------------------------------------------------------


class Rows:
    """Rows of a fit by cluster, X in coordinates in which its Cov(beta) is I.

    half: (p, p) a root of Cov(beta); m: number of clusters
    """

    def __init__(self, fit: Any, clusters: Clusters, half: np.ndarray):
        self.fit, self.half = fit, half
        self.at = np.arange(fit.design.n)[fit.design.counted]
        found, self.code = np.unique(clusters.codes[self.at], return_inverse=True)
        self.m = len(found)
        self.X = fit.design.X[self.at] @ half

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """X'V^-1 e (m, p) and X'V^-1 X (m, p, p) of every cluster."""
        correlated = self.fit.design.residual is not None
        return self._sums_of_blocks() if correlated else self._sums_of_rows()

    def _sums_of_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """V^-1 r is W (r - Z b)/sigma^2, b the modes that r has as a response."""
        fit, p = self.fit, self.X.shape[1]
        w = fit.design.weights
        by = (1.0 if w is None else w[self.at]) / fit.sigma**2
        moved = regression_on_modes(fit)[self.at] @ self.half
        VX = (self.X - moved) * np.reshape(by, (-1, 1))
        order = np.argsort(self.code, kind="stable")
        first = np.searchsorted(self.code[order], np.arange(self.m))
        score = np.add.reduceat(
            (self.X * (by * fit.residuals[self.at])[:, None])[order], first
        )
        own = np.empty((self.m, p, p))
        for j in range(p):  # (n, p) at once
            own[:, j] = np.add.reduceat((VX * self.X[:, j : j + 1])[order], first)
        return score, (own + np.swapaxes(own, 1, 2)) / 2

    def _sums_of_blocks(self) -> tuple[np.ndarray, np.ndarray]:
        p, w = self.X.shape[1], self.fit.design.weights
        score, own = np.zeros((self.m, p)), np.zeros((self.m, p, p))
        rows = np.column_stack([self.X, self._marginal_residuals()])
        if w is not None:  # V_ij / sqrt(w_i w_j)
            rows *= np.sqrt(w[self.at])[:, None]
        for a, P in _precisions(self.fit):
            padded = a.padded(rows)
            VX = P[a.pattern] @ padded[..., :p]
            cluster = np.zeros(len(a.pattern), int)
            cluster[a.block] = self.code[a.at]
            np.add.at(score, cluster, np.einsum("ntc,nt->nc", VX, padded[..., p]))
            np.add.at(own, cluster, np.swapaxes(padded[..., :p], 1, 2) @ VX)
        return score, own

    def _marginal_residuals(self) -> np.ndarray:
        return (self.fit.design.y - self.fit.fixed_part)[self.at]

    def dense(
        self, most: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Clusters of one size at a time: which (k,), V (k, T, T), X (k, T, p), e.

        Raises:
            NotApplicableError: a cluster of more than ``most`` rows.
        """
        size = np.bincount(self.code)
        if size.max() > most:
            raise NotApplicableError(
                f"vcov='CR2' takes a root of each cluster's covariance, and one has "
                f"{size.max():,} rows; more than {most:,} take too long. Use "
                "'empirical-bias-reduced', which needs none, or 'CR1'"
            )
        e = self._marginal_residuals()
        order = np.argsort(self.code, kind="stable")
        first = np.cumsum(size) - size
        covariance = _Covariance(self.fit, self.at)
        for T in np.unique(size):
            alike = np.flatnonzero(size == T)
            step = max(1, 8_000_000 // int(T) ** 2)  # 64 MB of covariances at once
            for begin in range(0, len(alike), step):
                here = alike[begin : begin + step]
                rows = order[first[here][:, None] + np.arange(T)]
                yield here, covariance(rows), self.X[rows], e[rows]


def _precisions(fit: Any) -> Iterator[tuple[Arrangement, np.ndarray]]:
    """V^-1 of every pattern of blocks of a model with correlated residuals."""
    engine = fit.engine
    problem, theta = engine.by_rows, engine.theta(fit.estimates)
    for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
        with on_host():
            P, _ = exact_blocks.precision(stack, problem.tables(theta, stack)[0])
        yield a, np.asarray(P) / engine.fixed.scale**2


class _Covariance:
    """V among the rows of each cluster, (k, T, T) of rows (k, T), counted ones."""

    def __init__(self, fit: Any, at: np.ndarray):
        design = fit.design
        w = None if design.weights is None else design.weights[at]
        self.blocks = None
        if design.residual is not None:
            self.blocks = self._inverted(fit, len(at))
            self.root = np.broadcast_to(1.0 if w is None else np.sqrt(w), (len(at),))
            return
        psi = covariances(fit.estimates)
        self.terms = [(t.take(at), C) for t, C in zip(design.terms, psi, strict=True)]
        sd = predictor.residual_sd(fit.sigma, w)
        self.noise = np.broadcast_to(np.square(sd), (len(at),))

    @staticmethod
    def _inverted(fit: Any, n: int) -> tuple[list[np.ndarray], np.ndarray]:
        stacks, where = [], np.zeros((n, 4), int)  # stack, pattern, block, slot
        for k, (a, P) in enumerate(_precisions(fit)):
            V = np.zeros_like(P)
            for pattern, mask in enumerate(np.asarray(a.mask, bool)):
                inside = np.ix_(mask, mask)
                V[pattern][inside] = np.linalg.inv(P[pattern][inside])
            stacks.append(V)
            where[a.at] = np.stack(
                [np.full(len(a.at), k), a.pattern[a.block], a.block, a.slot], axis=1
            )
        return stacks, where

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        k, T = rows.shape
        V = np.zeros((k, T, T))
        if self.blocks is not None:
            stacks, where = self.blocks
            stack, pattern, block, slot = np.moveaxis(where[rows], -1, 0)
            same = (stack[:, :, None] == stack[:, None]) & (
                block[:, :, None] == block[:, None]
            )
            for number, own in enumerate(stacks):
                i, a, b = np.nonzero(same & (stack == number)[:, :, None])
                V[i, a, b] = own[pattern[i, a], slot[i, a], slot[i, b]]
            root = self.root[rows]
            return V / (root[:, :, None] * root[:, None])
        for term, psi in self.terms:
            codes, z = term.codes[rows], term.values[rows]
            same = codes[:, :, None] == codes[:, None]
            V += same * (z @ psi @ np.swapaxes(z, 1, 2))
        V[:, np.arange(T), np.arange(T)] += self.noise[rows]
        return V
