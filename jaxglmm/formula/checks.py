"""What a linear model asks of a design beyond being well formed."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ModelError, RankDeficientWarning
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.notices import warn

SAME = 1e-12  # of a column's length that is left after those before it


def check_linear(design: Design) -> None:
    """Refuse designs whose variances a linear model cannot tell apart.

    With one row a level the random intercept and the residual are the same thing; with
    as many random effects as rows there is nothing left to measure the residual by.

    Raises:
        ModelError: naming the term and the numbers.
    """
    n = design.n
    if design.p >= n:
        raise ModelError(
            f"{design.p} fixed effects and {n} rows leave nothing to estimate the "
            "residual variance from; drop terms or add data"
        )
    for term in design.terms:
        J, q = term.n_levels, len(term.names)
        if n <= J:
            raise ModelError(
                f"grouping factor {term.factor!r} has {J} levels for {n} rows: the "
                "number of levels must be smaller than the number of observations, or "
                "its variance cannot be told from the residual one"
            )
        if J * q >= n:
            raise ModelError(
                f"term ({' + '.join(term.names)} | {term.factor}) has {J} x {q} = "
                f"{J * q} random effects for {n} rows: the number of random effects "
                "must be smaller than the number of observations, or the variances are "
                "not identifiable. Drop a slope, or gather more rows per level"
            )
        lost = _dependent(term.values)
        if lost is not None:
            _warn_of_dependence(term, lost)


def check_generalised(design: Design) -> None:
    """Refuse designs from which a generalised model cannot be estimated.

    One row a level is allowed: an observation-level random effect.

    Raises:
        ModelError: more fixed effects than rows.
    """
    if design.p > design.n:
        raise ModelError(
            f"{design.p} fixed effects for {design.n} rows have no unique estimate; "
            "drop terms or add data"
        )
    for term in design.terms:
        lost = _dependent(term.values)
        if lost is not None:
            _warn_of_dependence(term, lost)


def _warn_of_dependence(term: RandomTerm, lost: int) -> None:
    warn(
        f"term ({' + '.join(term.names)} | {term.factor}): column "
        f"{term.names[lost]!r} depends on the columns before it, so that their "
        "variances and correlations are not unique (the likelihood and the "
        "predictions are). Take it out of the term",
        RankDeficientWarning,
    )


def _dependent(Z: np.ndarray) -> int | None:
    """The first column that the ones before it determine, if any."""
    q = Z.shape[1]
    size = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    if q == 1 or not (size > 0).all() or not np.isfinite(size).all():
        return None if (size > 0).all() else int(np.argmin(size))
    gram = (Z.T @ Z) / np.outer(size, size)
    if np.linalg.eigvalsh(gram)[0] > SAME:
        return None
    R = np.linalg.qr(Z / size, mode="r")  # the Gram matrix only raised a suspicion
    small = np.flatnonzero(np.abs(np.diagonal(R)) < SAME)
    return int(small[0]) if len(small) else None
