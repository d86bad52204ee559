"""Random effects by factor: conditional modes and their covariances, with names.

Terms on one factor are joined: their columns stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formula.design import Design, RandomTerm


def by_factor(terms: Sequence[RandomTerm]) -> dict[str, list[int]]:
    """Factor -> positions of its terms, in order of first appearance."""
    positions: dict[str, list[int]] = {}
    for k, term in enumerate(terms):
        positions.setdefault(term.factor, []).append(k)
    return positions


def column_names(terms: Sequence[RandomTerm]) -> list[str]:
    """Names of the joined columns; a name that comes twice gets its term's label."""
    names = [term.mark + name for term in terms for name in term.names]
    labelled = [f"{name}|{term.label}" for term in terms for name in term.names]
    return [
        a if names.count(a) == 1 else b for a, b in zip(names, labelled, strict=True)
    ]


def modes(design: Design, b: Sequence[np.ndarray]) -> dict[str, pd.DataFrame]:
    """Factor -> conditional modes, a (J, q) frame: levels by columns."""
    out = {}
    for factor, positions in by_factor(design.terms).items():
        terms = [design.terms[k] for k in positions]
        known = terms[0].known
        if known is not None:
            index = pd.Index(known.labels, name=factor)
            values = known.shown(b[positions[0]])
            out[factor] = pd.DataFrame(values, index=index, columns=terms[0].levels)
            continue
        values = np.concatenate([b[k] for k in positions], axis=1)
        index = pd.Index(terms[0].levels, name=factor)
        out[factor] = pd.DataFrame(values, index=index, columns=column_names(terms))
    return out


def spreads(
    design: Design, covariances: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Factor -> covariances (J, q, q) of its levels, as ``modes`` has them."""
    own = {t.factor: t.known for t in design.terms if t.known is not None}
    return {k: own[k].spread(D) if k in own else D for k, D in covariances.items()}


def _shown(
    term: RandomTerm, b: np.ndarray
) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """Columns, levels, effects (J, q), as people read them."""
    if term.known is None:
        return term.names, term.levels, b
    return [str(x) for x in term.levels], term.known.labels, term.known.shown(b)


def coefficients(
    design: Design, beta: np.ndarray, b: Sequence[np.ndarray]
) -> dict[str, pd.DataFrame]:
    """Factor -> fixed and random effects added up, a frame of levels by columns.

    As lme4's ``coef``: a column of random effects that is no fixed effect has a mean of
    zero; fixed effects that do not vary stand in every row.
    """
    shown = [_shown(term, x) for term, x in zip(design.terms, b, strict=True)]
    b = [x for _, _, x in shown]
    names = list(design.x_names)
    marked = zip(design.terms, shown, strict=True)
    more = dict.fromkeys(t.mark + name for t, (own, _, _) in marked for name in own)
    names += [name for name in more if name not in names]
    mean = np.concatenate([beta, np.zeros(len(names) - len(beta))])
    out = {}
    for factor, positions in by_factor(design.terms).items():
        levels = shown[positions[0]][1]
        values = np.tile(mean, (len(levels), 1))
        for k in positions:
            term = design.terms[k]
            at = [names.index(term.mark + name) for name in shown[k][0]]
            values[:, at] += b[k]
        index = pd.Index(levels, name=factor)
        out[factor] = pd.DataFrame(values, index=index, columns=names)
    return out


def coefficients_of(
    design: Design, beta: np.ndarray, b: Sequence[np.ndarray], factor: str | None
) -> pd.DataFrame:
    """``coefficients`` of one factor, which need not be named where it is the only one.

    Raises:
        NotApplicableError: no such factor, or several and none named.
    """
    found = coefficients(design, beta, b)
    if factor is None and len(found) == 1:
        return next(iter(found.values()))
    if not _arguments.is_among(factor, found):
        known = ", ".join(map(repr, found)) or "no random effects"
        asked = "" if factor is None else _arguments.shown(factor)
        raise NotApplicableError(
            f"coef_by({asked}): name one of the grouping factors, of which "
            f"there are {known}"
        )
    return found[factor]


def n_levels(design: Design) -> dict[str, int]:
    """Factor -> number of levels with rows that count."""
    return {
        factor: _counted(design, design.terms[positions[0]])
        for factor, positions in by_factor(design.terms).items()
    }


def _counted(design: Design, term: RandomTerm) -> int:
    if term.known is None:
        return design.levels_counted(term)
    return len(term.known.labels)
