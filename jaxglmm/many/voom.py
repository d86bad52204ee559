"""Precision weights of counts for linear models: the trend of variance in the mean.

Law, Chen, Shi and Smyth (2014), Genome Biology 15, R29: log counts per million have a
variance that falls with their mean; the trend is found over all genes, and each
observation is weighted by its inverse at the count that is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import brief
from jaxglmm._errors import DataError
from jaxglmm.formula import design_from_formula
from jaxglmm.formula.parse import parse
from jaxglmm.formula.tables import as_table
from jaxglmm.formula.terms import read_atom
from jaxglmm.many.responses import Responses, check_order
from jaxglmm.numerics.local_regression import lowess

MILLION = 1e6
MEMORY = 4_000_000  # numbers of the responses at once


@brief
@dataclass(frozen=True)
class Voom:
    """Log counts per million with their precision weights, for ``fit_many``.

    log_cpm, weights: (n, D), a column a gene; labels: (D,) their names, or None;
    size: (n,) totals of the samples; mean, root_sd: (D,) mean log2 count and root of
    the residual standard deviation of each gene; trend_mean, trend_root_sd: the curve.
    """

    log_cpm: np.ndarray
    weights: np.ndarray
    labels: np.ndarray | None
    size: np.ndarray
    mean: np.ndarray
    root_sd: np.ndarray
    trend_mean: np.ndarray
    trend_root_sd: np.ndarray


def voom(
    formula: str,
    counts: Any,
    data: Any,
    *,
    span: float = 0.5,
    size: Any = None,
) -> Voom:
    """See ``jg.voom``."""
    span = _arguments.between("span", span, "0.5 for half of the genes")
    table = as_table(data)
    Y = Responses(counts, table.n)
    check_order(counts, table.labels, "counts")
    y = Y.take(np.arange(len(Y)))
    bad = ~np.isfinite(y) | (y < 0)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise DataError(
            f"counts must be numbers from 0 on without missing ones; row {i}, column "
            f"{j} has {y[i, j]:g}"
        )
    X = _fixed_effects(formula, table)
    n, p = X.shape
    if n <= p:
        raise DataError(f"{p} coefficients of {n} samples leave no residuals")
    N = y.sum(axis=1) if size is None else _sizes(size, n)
    if (N <= 0).any():
        raise DataError(f"sample {int(np.argmin(N > 0))} has no counts at all")
    log_cpm = np.log2((y + 0.5) / (N[:, None] + 1) * MILLION)
    Q = np.linalg.qr(X)[0]
    fitted = Q @ (Q.T @ log_cpm)
    sd = np.sqrt(np.sum((log_cpm - fitted) ** 2, axis=0) / (n - p))
    shift = np.mean(np.log2(N + 1)) - np.log2(MILLION)
    mean, root = log_cpm.mean(axis=0) + shift, np.sqrt(sd)
    seen = y.any(axis=0)
    if seen.sum() < 2:
        raise DataError(f"{int(seen.sum())} of {len(seen)} genes have counts")
    x, curve = lowess(mean[seen], root[seen], span)
    x, place = np.unique(x, return_inverse=True)
    curve = np.bincount(place, curve) / np.bincount(place)  # ties: their mean
    expected = fitted + np.log2(N + 1)[:, None] - np.log2(MILLION)
    weights = np.interp(expected, x, curve) ** -4.0
    if not np.isfinite(weights).all():
        raise DataError(
            "the trend of the standard deviations reaches zero: most genes have no "
            "residuals, so that there are no weights"
        )
    return Voom(log_cpm, weights, Y.labels, N, mean, root, x, curve)


def _fixed_effects(formula: str, table: Any) -> np.ndarray:
    """(n, p) X of the formula, its random terms left out."""
    name = read_atom(parse(formula).response).expr
    columns = {c: table.fetch(c) for c in table.names if c != name}
    columns[name] = np.arange(table.n, dtype=float) ** 2
    design = design_from_formula(formula, columns)
    if design.n != table.n:
        raise DataError(
            f"{table.n - design.n} of {table.n} samples have missing values of the "
            "predictors: leave them out of data and counts before"
        )
    return design.X


def _sizes(size: Any, n: int) -> np.ndarray:
    found = np.asarray(size, float)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise DataError(
            f"size has the shape {found.shape}; it is the effective total of each of "
            f"{n} samples"
        )
    return found
