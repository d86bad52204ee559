"""The same model for more rows or fewer: levels that copy those there are, or a table.

A new level of a factor has the rows of a level of the data, dealt in turn, as simr's
``extend`` has it. Levels of factors inside it are new with it; others are crossed with
it and stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.model_frame import pandas_frame
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.levels import compress

MOST = 1_000_000


def along_factor(design: Design, factor: str, n: int) -> Design:
    """Of n levels of a grouping factor.

    Raises:
        NotApplicableError: no such factor, correlated residuals, or known covariances.
    """
    _refuse(design)
    n = _arguments.whole("n", n, 2, MOST, error=NotApplicableError)
    term = _term_of(design, factor)
    if term is None:
        known = ", ".join(dict.fromkeys(t.factor for t in design.terms)) or "none"
        raise NotApplicableError(
            f"along={_arguments.shown(factor)} is no grouping factor of the model "
            f"(there are: {known}). Rows of other variables are given by data=, a "
            "table with all predictors"
        )
    J = term.n_levels
    order = np.argsort(term.codes, kind="stable")
    starts = np.searchsorted(term.codes[order], np.arange(J + 1))
    level = np.arange(n)
    pieces = [order[starts[k % J] : starts[k % J + 1]] for k in level]
    rows = np.concatenate(pieces)
    sizes = [len(piece) for piece in pieces]
    new, copy = np.repeat(level, sizes), np.repeat(level // J, sizes)
    terms = tuple(_copied(t, term, rows, new, copy) for t in design.terms)
    return _taken(design, rows, terms)


def _term_of(design: Design, factor: Any) -> RandomTerm | None:
    """The first term of a grouping factor; None for what is none."""
    if not isinstance(factor, str):
        return None
    return next((t for t in design.terms if t.factor == factor), None)


def within_levels(design: Design, factor: str, n: int) -> Design:
    """Of n rows in every level of a grouping factor, those there are in turn."""
    _refuse(design)
    n = _arguments.whole("n", n, 1, MOST, error=NotApplicableError)
    term = _term_of(design, factor)
    if term is None:
        raise NotApplicableError(
            f"within={factor!r} is no grouping factor of the model"
        )
    order = np.argsort(term.codes, kind="stable")
    starts = np.searchsorted(term.codes[order], np.arange(term.n_levels + 1))
    own = np.arange(n)
    pieces = [order[a:b][own % (b - a)] for a, b in itertools.pairwise(starts) if b > a]
    rows = np.concatenate(pieces)
    return _taken(design, rows, tuple(_same(t, rows) for t in design.terms))


def to_rows(design: Design, data: Any) -> Design:
    """Of the rows of a table, with predictors and grouping factors."""
    _refuse(design)
    recipe: Any = design.recipe
    if recipe is None:
        raise NotApplicableError("data= needs a model that was made from a formula")
    table = pandas_frame(data)
    new = recipe.new_rows(table)
    terms = []
    for term, fresh in zip(design.terms, new.terms, strict=True):
        parts = recipe.groups[term.factor].parts
        labels = pd.MultiIndex.from_frame(table[list(parts)]).to_flat_index()
        codes, levels = pd.factorize(labels, sort=True)
        names = np.array([":".join(map(str, level)) for level in levels], object)
        terms.append(
            replace(fresh, codes=codes.astype(np.int32), levels=names, label=term.label)
        )
    n = len(new.X)
    weights = design.weights
    if weights is not None:
        if len(np.unique(weights)) > 1:
            raise NotApplicableError(
                "the fit has prior weights, which new rows have not: fit without"
            )
        weights = np.full(n, weights[0])
    trials = None
    if design.trials is not None:
        trials = np.full(n, float(np.median(design.trials)))
        if isinstance(data, Mapping | pd.DataFrame) and "trials" in table.columns:
            trials = table["trials"].to_numpy(float)
    offset = new.offset if np.any(new.offset) or design.offset is not None else None
    return replace(
        design,
        y=np.resize(design.y, n),
        X=new.X,
        terms=tuple(terms),
        weights=weights,
        offset=offset,
        trials=trials,
        rows=None,
        index=None,
        n_missing=0,
        recipe=recipe,
        variables={name: table[name].to_numpy() for name in table.columns},
    )


def _refuse(design: Design) -> None:
    if design.residual is not None or design.parts:
        raise NotApplicableError(
            "extend() is for models of one linear predictor with independent residuals;"
            " power() takes others with the rows they have"
        )
    if any(t.known is not None for t in design.terms):
        raise NotApplicableError(
            "extend(): the covariance between levels is known for those of the data "
            "alone"
        )


def _copied(
    term: RandomTerm,
    along: RandomTerm,
    rows: np.ndarray,
    new: np.ndarray,
    copy: np.ndarray,
) -> RandomTerm:
    """A term of rows that were copied with their level of ``along``."""
    if term.factor == along.factor:
        J = along.n_levels
        labels = [
            str(along.levels[k % J]) + (f"+{k // J}" if k >= J else "")
            for k in range(int(new.max()) + 1)
        ]
        return replace(
            term.take(rows), codes=new.astype(np.int32), levels=np.array(labels, object)
        )
    if not _inside(term.codes, along.codes):
        return _same(term, rows)
    codes = term.codes[rows] + copy * term.n_levels
    used, codes = np.unique(codes, return_inverse=True)
    labels = [
        str(term.levels[u % term.n_levels])
        + (f"+{u // term.n_levels}" if u >= term.n_levels else "")
        for u in used
    ]
    return replace(
        term.take(rows), codes=codes.astype(np.int32), levels=np.array(labels, object)
    )


def _inside(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each level of ``fine`` lies in one of ``coarse``."""
    pairs = np.unique(np.stack([fine, coarse]), axis=1)
    return pairs.shape[1] == len(np.unique(fine))


def _same(term: RandomTerm, rows: np.ndarray) -> RandomTerm:
    codes, used = compress(term.codes[rows], term.n_levels)
    return replace(term.take(rows), codes=codes, levels=term.levels[used])


def _taken(design: Design, rows: np.ndarray, terms: tuple[RandomTerm, ...]) -> Design:
    """The design of rows, some more than once; what names new data went."""

    def taken(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    X = design.X[rows]
    if np.linalg.matrix_rank(X) < design.p:
        raise NotApplicableError(
            "with so few rows some coefficients cannot be told: use a larger n"
        )
    return replace(
        design,
        y=design.y[rows],
        X=X,
        terms=terms,
        weights=taken(design.weights),
        offset=taken(design.offset),
        trials=taken(design.trials),
        rows=None,
        index=None,
        n_missing=0,
        recipe=None,
        variables={},
    )
