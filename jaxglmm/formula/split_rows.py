"""Rows of a design taken as new rows for a design of the other rows."""

from __future__ import annotations

import numpy as np

from jaxglmm.formula.design import Design, NewRows, RandomTerm


def as_new(
    design: Design, rows: np.ndarray, known: np.ndarray, part: Design
) -> NewRows:
    """Rows of ``design`` as rows that a fit of ``part``, its rows ``known``, predicts.

    Levels that ``known`` has not are those of new data, with the code -1. A row whose
    mean ``part`` cannot tell, because a column went whose value it needs, is NaN.

    Args:
        design: of all rows, one linear predictor.
        rows: (k,) positions of those to be predicted.
        known: (m,) positions of those that ``part`` has.
        part: the design of these.
    """
    place = {name: j for j, name in enumerate(design.x_names)}
    kept = [place[name] for name in part.x_names]
    lost = [j for j in range(design.p) if j not in kept]
    X = design.X[rows][:, kept]
    if lost:
        weights = np.linalg.lstsq(part.X, design.X[known][:, lost], rcond=None)[0]
        expected, given = X @ weights, design.X[rows][:, lost]
        size = np.abs(given) + np.abs(X) @ np.abs(weights)
        X[(np.abs(given - expected) > 1e-6 * size).any(axis=1)] = np.nan
    offset = np.zeros(len(rows)) if design.offset is None else design.offset[rows]
    terms = tuple(
        _term(one, rows, known, own)
        for one, own in zip(design.terms, part.terms, strict=True)
    )
    return NewRows(X, offset, terms)


def _term(
    term: RandomTerm, rows: np.ndarray, known: np.ndarray, part: RandomTerm
) -> RandomTerm:
    """A term at rows, with the codes that its levels have in ``part``."""
    code = np.full(term.n_levels, -1, np.int32)
    code[term.codes[known]] = part.codes
    found = code[term.codes[rows]]
    values = term.values[rows]
    return RandomTerm(
        part.label, part.factor, part.names, found, values, part.levels, part.covariance
    )
