"""A design given as matrices (exog, exog_vc, ident) on the structured systems.

The columns of ``exog_vc`` are sorted into grouping factors where their pattern allows
it (``jaxglmm.structure.matrix_terms``); what is fitted there goes back to columns here.
Coefficients are those of ``exog`` with each column divided by its root mean square: a
diagonal change of units, which leaves a mean field what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm.estimate.mean_field import Scales
from jaxglmm.model.covariances.diagonal import Diagonal
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects
from jaxglmm.structure import matrix_terms as patterns
from jaxglmm.structure.padding import bucket
from jaxglmm.structure.rows import AbstractRows
from jaxglmm.structure.rows_of_design import RowData, build_rows


@dataclass(frozen=True)
class BayesArrays:
    """Arrays of a model: X (n, p), Z (n, q) sparse, ident (q,) in 0 .. K-1, rows (n,).

    vcp_p: (K,), fe_p: (p,) prior standard deviations; phi: (n_phi,), fixed.
    """

    y: np.ndarray
    X: np.ndarray
    Z: Any
    ident: np.ndarray
    trials: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    family: AbstractFamily
    phi: np.ndarray
    fe_p: np.ndarray
    vcp_p: np.ndarray


class DesignLayout:
    """The problem of some data, and columns of exog_vc as effects of it.

    rows: index arrays; place: (n,) values to the problem's rows; columns: of each
    factor and component, the column of exog_vc at each level; T: (q,) a factor, the
    problem's effects over the user's.
    """

    def __init__(self, data: BayesArrays):
        self.data = data
        self.size = np.sqrt(np.mean(data.X**2, axis=0))
        self.size[self.size == 0] = 1.0
        parts = patterns.parts_of(data.Z, data.ident)
        if parts is None or len(parts[0].columns) == 0:
            self._from_entries(data)
        else:
            self._from_factors(data, parts)

    def _from_factors(self, data: BayesArrays, parts: list[patterns.Part]) -> None:
        terms = patterns.as_columns(parts, Diagonal(1))
        built = build_rows(np.zeros((len(data.y), 0)), terms)
        self.built = built
        self.rows: AbstractRows = built.rows
        self.covariances = tuple(f.covariance for f in built.factors)
        self.columns = [
            [parts[term].columns for term, _, _ in f.spans] for f in built.factors
        ]
        self.blocks = [
            tuple(parts[term].block for term, _, _ in f.spans) for f in built.factors
        ]
        self.T = [np.diag(f.T).copy() for f in built.factors]

    def _from_entries(self, data: BayesArrays) -> None:
        columns, blocks = [], []
        for k in range(len(data.vcp_p)):
            own = np.flatnonzero(data.ident == k)
            # the mode of several factors is sought jointly, so there are two at least
            halves = [own] if len(data.vcp_p) > 1 else np.array_split(own, 2)
            columns += [[half] for half in halves]
            blocks += [(k,)] * len(halves)
        n, size = len(data.y), bucket(len(data.y))
        rows = patterns.pattern_rows(data.Z.tocsc(), [c[0] for c in columns], size)
        p = np.zeros((0, size))
        self.built = RowData(rows, p, (), np.zeros((0, 0)), np.arange(n), n, size)
        self.rows = rows
        self.covariances = (Diagonal(1),) * len(columns)
        self.columns, self.blocks = columns, blocks
        self.T = [np.ones(1) for _ in columns]

    @cached_property
    def problem(self) -> GeneralisedProblem:
        """The problem on the device (call it in double precision)."""
        d, place = self.data, self.built.place
        X = np.stack([place(x) for x in (d.X / self.size).T])
        return jax.device_put(
            GeneralisedProblem(
                self.rows,
                X,
                place(d.y, d.family.padding),
                place(d.trials, 1.0),
                place(d.weights),
                place(d.offset),
                d.family,
                self.covariances,
            )
        )

    @cached_property
    def scales(self) -> Scales:
        """Which log standard deviation each effect has, with its prior."""
        count = np.bincount(self.data.ident, minlength=len(self.data.vcp_p))
        real = []
        for columns, J in zip(self.columns, self.rows.sizes, strict=True):
            here = np.zeros((len(columns), 1, J))
            for i, own in enumerate(columns):
                here[i, 0, : len(own)] = 1.0
            real.append(here)
        T, real, count, sd = jax.device_put(
            (tuple(self.T), tuple(real), count.astype(float), self.data.vcp_p)
        )
        return Scales(tuple(self.blocks), T, real, count, sd)

    @property
    def precision(self) -> np.ndarray:
        """(p,) prior precisions of the coefficients of the scaled columns."""
        return 1 / (self.data.fe_p * self.size) ** 2

    # between columns of exog_vc and effects -----------------------------------------

    def effects(self, vc: np.ndarray, power: int = 1) -> Effects:
        """(q,) values of the columns as effects; power 2 for variances."""
        out = []
        for columns, T, J in zip(self.columns, self.T, self.rows.sizes, strict=True):
            x = np.zeros((len(columns), 1, J))
            for i, own in enumerate(columns):
                x[i, 0, : len(own)] = vc[own] * T[i] ** power
            out.append(jnp.asarray(x))
        return tuple(out)

    def by_column(self, effects: Effects, power: int = 1) -> np.ndarray:
        """The inverse of ``effects``: (..., q) from (q, ..., J) a factor."""
        leading = np.shape(effects[0])[1:-1]
        out = np.zeros((*leading, self.data.Z.shape[1]))
        for columns, T, x in zip(self.columns, self.T, effects, strict=True):
            for i, own in enumerate(columns):
                out[..., own] = np.asarray(x[i])[..., : len(own)] / T[i] ** power
        return out[0] if leading == (1,) else out
