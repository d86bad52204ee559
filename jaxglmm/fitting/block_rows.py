"""Where the rows of a residual structure are, and how many parameters it has."""

from __future__ import annotations

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.formula.residual import BY_VISIT
from jaxglmm.model.marginal_problem import BlockEffect, Stack
from jaxglmm.model.residuals import Correlation, Pairs, correlation
from jaxglmm.model.residuals.correlations import Distance
from jaxglmm.structure.patterns import Arrangement, BlockRows


def precisions(design: Design) -> np.ndarray | None:
    """(n,) weights with what is known of the residual variances; None where alike."""
    term, w = design.residual, design.weights
    if term is None or term.offset is None:
        return w
    known = np.exp(-2 * term.offset)
    return known if w is None else w * known


def turn_of(design: Design) -> np.ndarray:
    """(k, k) from internal residual parameters to the user's, of a dispersion formula.

    Inside its columns are orthogonal and of mean square one, whatever their units.
    """
    term = design.residual
    assert term is not None
    here = design.counted
    n, k = term.scales[here].shape
    if not k:
        return np.zeros((0, 0))
    if term.strata is None:
        D = term.scales[here]
    else:
        code, D = term.strata
        size = term.strata_size
        if not isinstance(here, slice):
            size = np.bincount(code[here], minlength=len(D))
        D = D * np.sqrt(size)[:, None]
    return np.linalg.inv(np.linalg.qr(D, mode="r")) * np.sqrt(n)


def n_columns(design: Design) -> int:
    """Parameters of the standard deviations a group."""
    term = design.residual
    assert term is not None
    return n_scales(design) + term.scales.shape[1]


def n_scales(design: Design) -> int:
    """Levels of the standard deviation a group: one, one a visit; none of a formula."""
    term = design.residual
    assert term is not None
    if term.part is not None:
        return 0
    return len(term.visits) if term.structure in BY_VISIT else 1


def correlation_of(design: Design) -> Correlation | None:
    """The correlation that the design's residual structure names."""
    term = design.residual
    assert term is not None
    return correlation(term.structure, len(term.visits), term.nugget)


def block_rows(design: Design) -> BlockRows:
    """Blocks: subjects, joined where a random effect spans several."""
    term = design.residual
    assert term is not None
    n = design.n
    parts = [t.codes for t in design.terms]
    if term.structure:
        parts.append(term.codes)
    block = _joined(parts, n) if parts else np.arange(n)
    independent = not term.structure
    return BlockRows(
        block,
        term.codes if term.structure else block,
        np.zeros(n, int) if independent else term.position,
        np.zeros((n, 1)) if independent else term.times,
        term.group_codes,
        len(term.group_levels),
        scales_of(design),
        tuple((t.values, t.codes) for t in design.terms),
        term.known,
    )


def scales_of(design: Design) -> np.ndarray:
    """(n, s) what the log standard deviation of a row depends on, levels first."""
    term = design.residual
    assert term is not None
    own = (
        np.eye(len(term.visits))[term.position]
        if term.structure in BY_VISIT
        else np.ones((design.n, n_scales(design)))
    )
    return np.concatenate([own, term.scales], axis=1)


def _joined(parts: list[np.ndarray], n: int) -> np.ndarray:
    """The finest blocks that hold whole levels of every factor."""
    if len(parts) == 1:
        return parts[0]
    from scipy import sparse  # slow to import
    from scipy.sparse import csgraph

    rows = np.arange(n)
    columns, at = [], n
    for codes in parts:
        columns.append(codes + at)
        at += int(codes.max()) + 1
    edges = sparse.coo_matrix(
        (np.ones(n * len(parts)), (np.tile(rows, len(parts)), np.concatenate(columns))),
        shape=(at, at),
    )
    return csgraph.connected_components(edges, directed=False)[1][:n]


def stack_of(a: Arrangement, blocks: np.ndarray, pattern: np.ndarray) -> Stack:
    """The blocks of an arrangement with their rows put in."""
    return Stack(
        a.scales,
        Pairs(a.position, a.lag, a.within),
        a.group,
        tuple(BlockEffect(z, same) for z, same in a.effects),
        a.mask,
        a.template,
        a.count.astype(float),
        blocks,
        pattern,
    )


def distance_start(arrangements: tuple[Arrangement, ...], c: Distance) -> float:
    """The t for which rows at a middling distance have a correlation of a half."""
    lags = np.concatenate([a.lag[a.lag > 0].ravel() for a in arrangements])
    z = np.log(2) / np.median(lags) ** c.power
    return float(-np.log(np.expm1(z))) if z < 500 else float(-z)
