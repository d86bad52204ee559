"""What a model asks of a design beyond being well formed."""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ModelError, RankDeficientWarning
from jaxglmm.formula import structures
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.notices import warn
from jaxglmm.formula.reading import many_texts, not_numeric
from jaxglmm.formula.tables import Columns

SAME = 1e-12  # of a column's length that is left after those before it


def check_linear(design: Design) -> None:
    """Refuse designs whose variances a linear model cannot tell apart.

    With one row a level the random intercept and the residual are the same thing; with
    as many random effects as rows there is nothing left to measure the residual by.

    Raises:
        ModelError: naming the term and the numbers.
    """
    n = design.n_counted
    if design.p >= n:
        raise ModelError(
            f"{design.p} fixed effects and {n} rows leave nothing to estimate the "
            f"residual variance from; drop terms or add data{_texts(design)}"
        )
    for term in design.terms:
        J, q = design.levels_counted(term), len(term.names)
        if n <= J:
            raise ModelError(
                f"grouping factor {term.factor!r} has {J} levels for {n} rows: the "
                "number of levels must be smaller than the number of observations, or "
                "its variance cannot be told from the residual one"
            )
        if J * q >= n and term.structure in structures.ALIKE:
            raise ModelError(
                f"{term.structure}({' + '.join(shortened(term.names))} | {term.factor})"
                f" has {J} x {q} = {J * q} effects for {n} rows, one a row: its "
                "variance cannot be told from the residual one. "
                f"{structures.ALIKE[term.structure]}, or gather more rows per effect"
            )
        if J * q >= n and term.structure in ("us", "diag"):
            raise ModelError(
                f"term ({' + '.join(term.names)} | {term.factor}) has {J} x {q} = "
                f"{J * q} random effects for {n} rows: the number of random effects "
                "must be smaller than the number of observations, or the variances are "
                "not identifiable. Drop a slope, or gather more rows per level"
                f"{_texts(design)}"
            )
        lost = _lost(design, term) if design.has_rows else None
        if lost is not None:
            _warn_of_dependence(term, lost)


def check_generalised(design: Design) -> None:
    """Refuse designs from which a generalised model cannot be estimated.

    One row a level is allowed: an observation-level random effect. Without random
    effects as many coefficients as rows are, too: the saturated model.

    Raises:
        ModelError: as many fixed effects as rows; a predictor that is the response.
    """
    if design.p >= design.n_counted + (not design.terms):
        raise ModelError(
            f"{design.p} fixed effects and {design.n_counted} rows leave nothing to "
            f"estimate the random effects from; drop terms or add data{_texts(design)}"
        )
    if not design.has_rows:
        return
    _refuse_response_as_predictor(design)
    for term in design.terms:
        lost = _lost(design, term)
        if lost is not None:
            _warn_of_dependence(term, lost)


def _texts(design: Design) -> str:
    """What to know of text that may have been meant as numbers, ``. 'x' is text ...``.

    Only of predictors with many values: such a column has a coefficient for each.
    """
    if not isinstance(design.variables, Columns):
        return ""
    groups = getattr(design.recipe, "groups", {}).values()
    parts = {part for coding in groups for part in coding.parts}
    fixed = {name for term in design.fixed_terms for name in term.variables}
    found = [
        not_numeric(column)
        for name, column in design.variables.columns.items()
        if (name in fixed or name not in parts) and many_texts(column)
    ]
    return "".join(f". {text}" for text in found)


def check_quadrature(design: Design, nodes: int) -> None:
    """Refuse designs that adaptive quadrature does not serve, before any work.

    It is a sum over nodes of each level on its own: the levels of one factor are
    independent, those of crossed or nested factors are not.

    Raises:
        ModelError: several grouping factors, too many columns, too many nodes.
    """
    columns: dict[str, int] = {}
    for term in design.terms:
        columns[term.factor] = columns.get(term.factor, 0) + len(term.names)
    if len(columns) > 1:
        raise ModelError(
            f"adaptive quadrature (AGQ) is for one grouping factor; the model has "
            f"{len(columns)}: {', '.join(map(repr, columns))}. Use method='laplace', "
            "or keep one factor"
        )
    for factor, q in columns.items():
        if q > _arguments.SIDES:
            raise ModelError(
                f"adaptive quadrature (AGQ) takes up to {_arguments.SIDES} random "
                f"effects a level; factor {factor!r} has {q}, and {nodes}^{q} nodes "
                "are too many. Use method='laplace', or drop slopes"
            )
        if nodes**q > _arguments.RULE:
            most = int(_arguments.RULE ** (1 / q))
            raise ModelError(
                f"nodes={nodes} in {q} dimensions are {nodes**q} nodes a level of "
                f"{factor!r}, more than {_arguments.RULE}. Use at most nodes={most}; 7 "
                "to 11 are usually enough"
            )


def _refuse_response_as_predictor(design: Design) -> None:
    """A column that is the response, or the proportion of successes.

    A constant one is no predictor: ones are an intercept, and a response of one event
    a row is an ordinary one where trials or exposures differ.
    """
    y = design.y if design.trials is None else design.y / design.trials
    if not len(y) or (y == y[0]).all():
        return
    some = slice(0, 100)  # most columns differ in the first rows already
    for j, name in enumerate(design.x_names):
        column = design.X[:, j]
        if np.array_equal(column[some], y[some]) and np.array_equal(column, y):
            raise ModelError(
                f"predictor {name!r} is the response {design.response!r} itself; take "
                "it out of the fixed effects"
            )


def _warn_of_dependence(term: RandomTerm, lost: int) -> None:
    if not term.values[:, lost].any():
        warn(
            f"term ({' + '.join(term.names)} | {term.factor}): column "
            f"{term.names[lost]!r} is zero in every row, so that its variance is not "
            "determined. Take it out of the term",
            RankDeficientWarning,
        )
        return
    warn(
        f"term ({' + '.join(term.names)} | {term.factor}): column "
        f"{term.names[lost]!r} depends on the columns before it, so that their "
        "variances and correlations are not unique (the likelihood and the "
        "predictions are). Take it out of the term",
        RankDeficientWarning,
    )


def _lost(design: Design, term: RandomTerm) -> int | None:
    """A column of a term that the data do not determine, if any.

    Where all columns share a variance, one that is zero is known from the others.
    """
    if term.structure in structures.SHARED:
        return None
    values = term.values[design.counted]
    if not isinstance(term.predictor, int):  # the same columns, once a predictor
        values = values[:, [k == 0 for k in term.predictor]]
    return _dependent(values)


def shortened(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of columns for a message."""
    return names if len(names) < 5 else (*names[:2], "...", names[-1])


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
