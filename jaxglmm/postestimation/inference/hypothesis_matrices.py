"""The contrasts behind an analysis of variance: one matrix L a term.

Type 1: each term after those before it. Type 2: each after all that do not contain it.
Type 3: each after all others, for effects averaged with equal weights over the levels
of the factors it interacts with, that is, in sum-to-zero contrasts. For linear models
they depend on X alone. "After" is a matter of inner products of columns: those of X for
a linear model, as in lmerTest, and the information of beta for a generalised one, whose
rows have different weights; then the statistics of type 1 add up, as with lme4, and
those of type 2 are differences of Wald's statistics, as with car.
"""

from __future__ import annotations

from numbers import Real

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import Design, FixedTerm

INTERCEPT = "(Intercept)"


def of_terms(
    design: Design, type: int, root: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Term -> L (rows, p).

    Args:
        design: of the fixed effects.
        type: 1, 2 or 3.
        root: (r, p) whose inner products of columns count; default those of X.
    """
    makes = {1: _first, 2: _second, 3: _third}
    if not isinstance(type, Real) or type not in makes:
        name = "another fit" if hasattr(type, "design") else repr(type)
        raise NotApplicableError(
            f"anova(type={name}): there are types 1, 2 and 3, as numbers; fits are "
            "compared by jg.anova(one, two)"
        )
    make = makes[int(type)]
    terms = _terms(design)
    if len(terms) == 1:  # the types agree; the usual rows are those of type 1
        make = _first
    return make(design, terms, design.X if root is None else root)


def _terms(design: Design) -> list[FixedTerm]:
    """The terms with columns, the intercept left out; columns by name without any."""
    if design.fixed_terms:
        return [t for t in design.fixed_terms if t.columns and t.variables]
    return [
        FixedTerm(name, frozenset([name]), (j,))
        for j, name in enumerate(design.x_names)
        if name != INTERCEPT
    ]


def _triangle(X: np.ndarray) -> np.ndarray:
    return np.linalg.qr(X, mode="r")


def _first(
    design: Design, terms: list[FixedTerm], root: np.ndarray
) -> dict[str, np.ndarray]:
    R = _triangle(root)
    R = R / np.diagonal(R)[:, None]
    return {t.name: R[list(t.columns)] for t in terms}


def _second(
    design: Design, terms: list[FixedTerm], root: np.ndarray
) -> dict[str, np.ndarray]:
    R = _triangle(root)  # same inner products, p rows
    if design.null_space is not None:
        return {t.name: _after_others(design, t, terms, R) for t in terms}
    out = {}
    for term in terms:
        above = [j for t in terms if _contains(t, term) for j in t.columns]
        own = list(term.columns)
        if not above:  # after all others: its own coefficients are zero
            out[term.name] = np.eye(design.p)[own]
            continue
        before = [j for j in range(design.p) if j not in own and j not in above]
        order = before + own + above
        rows = _triangle(R[:, order])[len(before) : len(before) + len(own)]
        rows = rows / np.diagonal(rows, len(before))[:, None]
        L = np.zeros((len(own), design.p))
        L[:, order] = rows
        out[term.name] = L
    return out


def _after_others(
    design: Design, term: FixedTerm, terms: list[FixedTerm], root: np.ndarray
) -> np.ndarray:
    """L of a term after all that do not contain it, where columns were dropped.

    Whichever went: what other terms span is theirs, the dropped columns included, so a
    term that they determine has no row left.
    """
    missing = design.null_space
    assert missing is not None
    C = np.zeros((design.p, len(missing.centre)))  # all columns in terms of the kept
    C[:, missing.kept] = np.eye(design.p)
    C[:, missing.lost] = missing.combination()
    own = list(term.full)
    above = {j for t in terms if _contains(t, term) for j in t.full}
    before = [j for j in range(C.shape[1]) if j not in above and j not in own]
    R = _triangle(root)
    unit = np.zeros(design.p)
    if INTERCEPT in design.x_names:  # it is no term: first out of all
        unit = R[:, design.x_names.index(INTERCEPT)]
        unit = unit / np.linalg.norm(unit)
    others = _basis(_scaled(R @ C[:, before], unit))
    if INTERCEPT in design.x_names:
        others = np.column_stack([unit, others])
    rest = _scaled(R @ C[:, own], unit)
    return _basis(rest - others @ (others.T @ rest)).T @ R


def _scaled(columns: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """What is left of columns after the constant, to length one (0 if nothing is)."""
    left = columns - np.outer(unit, unit @ columns)
    size = np.linalg.norm(left, axis=0)
    # what is left of a column after the others is rounding
    real = size > 1e-13 * np.linalg.norm(columns, axis=0)
    return np.where(real, left / np.where(real, size, 1.0), 0.0)


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what columns of length one or less span."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    return u[:, s > 1e-7]


def _contains(big: FixedTerm, small: FixedTerm) -> bool:
    """Whether ``big`` is ``small`` times factors alone (same numeric variables)."""
    extra = big.variables - small.variables
    return small.variables < big.variables and extra <= big.factors


def _third(
    design: Design, terms: list[FixedTerm], root: np.ndarray
) -> dict[str, np.ndarray]:
    if not any(len(t.variables) > 1 for t in terms):  # nothing to average over
        if design.null_space is not None:  # as for type 2: no term contains another
            return {t.name: _after_others(design, t, terms, root) for t in terms}
        return {t.name: np.eye(design.p)[list(t.columns)] for t in terms}
    if design.dropped_columns:
        raise NotApplicableError(
            "type 3 tests need every combination of the factors' levels; the columns "
            f"{', '.join(design.dropped_columns)} were dropped because they depend on "
            "others. Use anova(type=2), or test(L) for a contrast of your own"
        )
    if design.recipe is None:
        return {t.name: np.eye(design.p)[list(t.columns)] for t in terms}
    coded, X = design.sum_coded()
    # thresholds stand for an intercept that X has not
    left_out = coded.shape[1] == X.shape[1] + 1 and INTERCEPT not in design.x_names
    ones = int(left_out and bool((coded[:, 0] == 1.0).all()))
    if ones:
        X = np.concatenate([coded[:, :1], X], axis=1)
    if coded.shape != X.shape:
        raise NotApplicableError(
            f"type 3 tests: the design has {design.p} columns, in sum-to-zero "
            f"contrasts {coded.shape[1]}. Use anova(type=2), or test(L)"
        )
    change = np.linalg.lstsq(coded, X, rcond=None)[0][ones:, ones:]
    return {t.name: _reduced(change[list(t.columns)], list(t.columns)) for t in terms}


def _reduced(L: np.ndarray, own: list[int]) -> np.ndarray:
    """The same hypothesis with the identity in the term's own columns.

    Satterthwaite's degrees of freedom of several rows depend a little on how the rows
    are written; this form is the usual one.
    """
    L = np.linalg.solve(L[:, own], L)
    # rounding would make a hypothesis depend on coefficients that it does not name
    return np.where(np.abs(L) < 1e-12 * np.abs(L).max(), 0.0, L)
