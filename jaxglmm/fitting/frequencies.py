"""Prior weights of counts are frequencies: a row of weight w stands for w responses.

The likelihood of a discrete family says so: w log f is that of w equal rows. So draws
that are compared with data, or fitted, are draws for all of them; a design with every
row as often as its weight has the same estimates and no weights. Other weights (of
measurements, or broken ones) multiply a log density and belong to no distribution that
could be drawn from: there draws are those of single rows, and a warning says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import PriorWeightsWarning
from jaxglmm.formula import notices
from jaxglmm.model import assemble

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design
    from jaxglmm.model.families import AbstractFamily

MOST_ROWS = 2_000_000  # that a design may unfold to


def weighted(design: Design, family: AbstractFamily) -> bool:
    """Whether there are weights other than those that only say which rows count.

    Those of a linear mixed model are precisions, which draws heed.
    """
    w = design.weights
    if w is None or assemble.precise(design, family) is not design:
        return False
    return bool(np.any((w != 0) & (w != 1)))


def frequencies(design: Design, family: AbstractFamily) -> bool:
    """Whether the weights are numbers of equal responses, not too many to draw."""
    w = design.weights
    if w is None or not family.discrete or not (w == np.rint(w)).all():
        return False
    return float(w.sum()) <= MOST_ROWS


def unfolded(design: Design, family: AbstractFamily) -> Design:
    """The design with every row as often as its weight; itself where that is none."""
    if not weighted(design, family) or not frequencies(design, family):
        return design
    assert design.weights is not None
    times = np.maximum(design.weights, 1).astype(int)
    rows = np.repeat(np.arange(design.n), times)
    used = (design.weights > 0)[rows]

    def taken(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else np.asarray(x)[rows]

    terms = tuple(
        replace(t, codes=t.codes[rows], values=t.values[rows]) for t in design.terms
    )
    variables = {
        name: x[rows] if len(x) == design.n else x
        for name, x in design.variables.items()
    }
    return replace(
        design,
        y=design.y[rows],
        X=design.X[rows],
        terms=terms,
        weights=None if used.all() else used.astype(float),
        offset=taken(design.offset),
        trials=taken(design.trials),
        rows=rows if design.rows is None else design.rows[rows],
        index=None,
        variables=variables,
    )


def drawn_for(
    design: Design,
    family: AbstractFamily,
    what: str,
    keep: bool,
) -> Design:
    """``unfolded``; else, with a warning, the design without its weights.

    what: the method that draws, for the warning; keep: leave such weights where they
    are, for draws that are fitted again.
    """
    if not weighted(design, family):
        return design
    if frequencies(design, family):
        return unfolded(design, family)
    warn(what, family)
    if keep:
        return design
    assert design.weights is not None
    used = design.weights > 0
    return replace(design, weights=None if used.all() else used.astype(float))


def warn_single() -> None:
    """Say that ``simulate`` draws one response a row."""
    notices.warn(
        "simulate() ignores the prior weights: it draws one response for each row. "
        "Repeat rows that stand for several; bootstrap() and check() do so where the "
        "weights are whole numbers and the responses counts",
        PriorWeightsWarning,
    )


def warn(what: str, family: AbstractFamily) -> None:
    """Say that draws know nothing of the weights."""
    why = (
        "weights that are no whole numbers count no responses"
        if family.discrete
        else f"weights of family {family.name!r} multiply its log density, and belong "
        "to no distribution of the response"
    )
    notices.warn(
        f"{what} ignores the prior weights: it draws one response for each row, for "
        f"{why}. Repeat rows that stand for several, or say how variances differ by "
        "another model",
        PriorWeightsWarning,
    )
