"""Known covariances between the levels of a factor: kinship, phylogeny, adjacency.

b ~ N(0, sd^2 K) is b = L u, K = L L', u independent with one standard deviation: a
term ``(1 | id)`` becomes one whose columns are L's and which has a single level. All
levels of K take part, those without a row too, so that they are predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.design import Design, KnownLevels, RandomTerm
from jaxglmm.formula.groups import GroupCoding
from jaxglmm.formula.levels import match
from jaxglmm.formula.notices import listed

SYMMETRIC = 1e-8  # largest difference from its transpose, of the largest entry
NEGATIVE = 1e-8  # an eigenvalue below minus this times the largest is no rounding
MOST = 4000  # levels of a dense matrix
SINGULAR = 1e-7  # a pivot of a Cholesky factor below this times the largest is rounding
AT_ONCE = 128  # columns of an inverse


class KnownPrecision:
    """A known precision (inverse covariance) between levels, as ``known=`` takes it.

    It may be sparse and large: of more than 4,000 levels those with rows take part, at
    most 4,000, with the covariance that all others leave between them.

    Args:
        matrix: (J, J) frame labelled by level, or an array (dense or sparse).
        levels: (J,) labels, where the matrix has none.
    """

    def __init__(self, matrix: Any, levels: Any = None):
        self.matrix, self.levels = matrix, levels


def with_known(design: Design, known: Mapping[str, Any]) -> Design:
    """The design with the covariances of ``known``, by grouping factor.

    Raises:
        ModelError: no such factor, several columns a level, a matrix that is none.
        DataError: levels of the data that the matrix lacks.
    """
    if not isinstance(known, Mapping):
        raise ModelError(
            "known= is a dict, from a grouping factor to its covariance: known={'id': "
            "K}, K a frame labelled by level"
        )
    factors = [term.factor for term in design.terms]
    for name in known:
        if name not in factors:
            there = ", ".join(map(repr, dict.fromkeys(factors))) or "none"
            raise ModelError(
                f"known={{{name!r}: ...}}: no random term groups by it; there are "
                f"{there}"
            )
    recipe, terms = design.recipe, []
    found: dict[str, KnownLevels] = {}
    for term in design.terms:
        if term.factor not in known:
            terms.append(term)
            continue
        own = found.get(term.factor)
        if own is None:
            own = found[term.factor] = read(term.factor, known[term.factor], term)
        terms.append(_known_term(term, own, _labels_to(own, term), design))
    if recipe is not None and hasattr(recipe, "knowing"):
        recipe = recipe.knowing(found)
    return replace(design, terms=tuple(terms), recipe=recipe)


def _labels_to(own: KnownLevels, term: RandomTerm) -> np.ndarray:
    """(n,) the place of each row's level among K's."""
    places = match(own.labels, np.asarray(term.levels))
    missing = np.flatnonzero(places < 0)
    if len(missing):
        absent = [str(term.levels[i]) for i in missing[:50]]
        raise DataError(
            f"known={{{term.factor!r}: ...}} lacks {len(missing)} of the "
            f"{term.n_levels} levels in the data: {listed(absent)}. Its rows and "
            "columns are labelled by level; leave these rows out, or add them to it"
        )
    return places[term.codes]


def _known_term(
    term: RandomTerm, own: KnownLevels, codes: np.ndarray, design: Design | None
) -> RandomTerm:
    if len(term.names) != 1:
        raise ModelError(
            f"({' + '.join(term.names)} | {term.factor}) has {len(term.names)} columns "
            "and a known covariance between levels, which is for one: write (1 | "
            f"{term.factor}) + (0 + x | {term.factor})"
        )
    seen = codes >= 0
    Z = np.where(seen[:, None], own.root[codes], 0.0) * term.values
    if design is not None:
        _refuse_residual(term, own, codes, design)
    return replace(
        term,
        factor=term.label,
        names=tuple(map(str, own.labels)),
        codes=np.where(seen, 0, -1).astype(np.int32),
        values=Z,
        levels=np.array([term.names[0]], dtype=object),
        covariance=f"known({term.names[0]})",
        known=own,
    )


def known_rows(term: RandomTerm, own: KnownLevels) -> RandomTerm:
    """The term of new rows, whose codes are those of K's levels."""
    return _known_term(term, own, term.codes, None)


def _refuse_residual(
    term: RandomTerm, own: KnownLevels, codes: np.ndarray, design: Design
) -> None:
    """One row a level and levels that are alike and unrelated: the residual itself."""
    used, count = np.unique(codes, return_counts=True)
    if count.max() > 1 or design.trials is not None:
        return
    root = own.root[used]
    first, size = root @ root[0], float(root[0] @ root[0])
    if not np.allclose(first[1:], 0.0, atol=1e-10 * size):
        return  # as nearly always, without the whole product
    K = root @ root.T
    if np.allclose(K, K[0, 0] * np.eye(len(K)), atol=1e-10 * abs(K[0, 0])):
        raise ModelError(
            f"known={{{term.factor!r}: ...}} says that levels are unrelated, and each "
            "has one row: their variance cannot be told from the residual one. Leave "
            "the term out"
        )


def read(name: str, given: Any, term: RandomTerm | None = None) -> KnownLevels:
    """The levels and a root of what is known of them."""
    if isinstance(given, KnownLevels):
        return given
    inverse = isinstance(given, KnownPrecision)
    matrix, labels = (given.matrix, given.levels) if inverse else (given, None)
    if isinstance(matrix, tuple) and len(matrix) == 2:
        matrix, labels = matrix
    matrix, labels = _labelled(name, matrix, labels, term)
    seen = None
    if len(labels) > MOST:
        seen = _with_rows(name, labels, term)
    if inverse and seen is not None:
        return KnownLevels(labels[seen], _root(name, _inverse(name, matrix, seen), ""))
    if seen is not None:
        matrix, labels = _part(matrix, seen), labels[seen]
    K = _checked(name, matrix, labels)
    if inverse:
        root = _root(name, K, "precision")
        pivots = np.abs(np.diagonal(root))
        square = np.allclose(np.triu(root, 1), 0.0)
        if not (square and (pivots > SINGULAR * pivots.max()).all()):
            raise _no_inverse(name)
        K = np.linalg.inv(K)
        K = (K + K.T) / 2
    return KnownLevels(labels, _root(name, K, "covariance"))


def _no_inverse(name: str) -> ModelError:
    return ModelError(
        f"known={{{name!r}: ...}}: the precision is singular, so that no covariance "
        "belongs to it. Add a little to its diagonal; of an intrinsic autoregression "
        "(ICAR), whose rows sum to zero, give the generalised inverse as a covariance: "
        "(np.linalg.pinv(Q), levels)"
    )


def _with_rows(name: str, labels: np.ndarray, term: RandomTerm | None) -> np.ndarray:
    """Places of the levels that have rows, in the order of ``labels``.

    Of many levels these alone take part, since the matrix between them is dense.
    """
    found = np.zeros(0, int)
    if term is not None:
        places = match(labels, np.asarray(term.levels)[np.unique(term.codes)])
        found = np.unique(places[places >= 0])
    if len(found) > MOST or term is None:
        J = len(found) or len(labels)
        raise ModelError(
            f"known={{{name!r}: ...}}: {len(labels):,} levels, of which {J:,} have "
            f"rows; the matrix between these is made dense ({8e-9 * J**2:.1f} GB), and "
            f"at most {MOST:,} are fitted. Fit a part of them, by families or regions "
            "that are unrelated, or every level's group: (1 | sire)"
        )
    return found


def _part(matrix: Any, seen: np.ndarray) -> Any:
    """Rows and columns of a matrix, dense or sparse."""
    if hasattr(matrix, "iloc"):
        return matrix.iloc[seen, seen]
    own = matrix.tocsr() if hasattr(matrix, "tocsr") else np.asarray(matrix)
    return own[seen][:, seen]


def _inverse(name: str, matrix: Any, seen: np.ndarray) -> np.ndarray:
    """The covariance between some levels of a sparse precision, by sparse LU."""
    from scipy import sparse  # slow to import
    from scipy.sparse.linalg import splu

    Q = sparse.csc_array(matrix, dtype=float)
    if not np.isfinite(Q.data).all():
        raise DataError(f"known={{{name!r}: ...}} holds numbers that are not finite")
    if abs(Q - Q.T).max() > SYMMETRIC * abs(Q).max():
        raise DataError(f"known={{{name!r}: ...}} is not symmetric")
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
    try:
        lu = splu(Q, **options, options={"SymmetricMode": True})
    except RuntimeError:
        raise _no_inverse(name) from None
    pivots = lu.U.diagonal()
    if (pivots <= -NEGATIVE * np.abs(pivots).max()).any():
        raise ModelError(
            f"known={{{name!r}: ...}} is no precision: {int((pivots < 0).sum())} of "
            f"its {len(pivots):,} pivots are negative"
        )
    if not (pivots > SINGULAR**2 * pivots.max()).all():
        raise _no_inverse(name)
    K = np.empty((len(seen),) * 2)
    for k in range(0, len(seen), AT_ONCE):
        some = seen[k : k + AT_ONCE]
        unit = np.zeros((len(pivots), len(some)))
        unit[some, np.arange(len(some))] = 1.0
        K[:, k : k + AT_ONCE] = lu.solve(unit)[seen]
    return (K + K.T) / 2


def _labelled(
    name: str, matrix: Any, labels: Any, term: RandomTerm | None
) -> tuple[Any, np.ndarray]:
    """A square matrix, dense or sparse, and its labels."""
    own = getattr(matrix, "index", None)
    if labels is None and own is not None and hasattr(matrix, "columns"):
        labels = np.asarray(own)
        if list(map(str, matrix.columns)) != list(map(str, labels)):
            matrix = matrix.copy()
            matrix.columns = [str(c) for c in matrix.columns]
            order = [str(x) for x in labels]
            if sorted(order) != sorted(matrix.columns):
                raise DataError(
                    f"known={{{name!r}: ...}}: rows and columns have other labels"
                )
            matrix = matrix[order]
    if not hasattr(matrix, "toarray"):
        matrix = _numbers(name, matrix)
    shape = matrix.shape
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ModelError(
            f"known={{{name!r}: ...}} has the shape {shape}; it is a square matrix, "
            "a row and a column for each level"
        )
    if labels is None:
        if term is None or term.n_levels != shape[0]:
            raise ModelError(
                f"known={{{name!r}: ...}} has no labels: give a frame whose index and "
                "columns are the levels, or (matrix, levels)"
            )
        labels = np.asarray(term.levels)
        _same_order(name, term, labels)
    labels = np.asarray(labels)
    if len(labels) != shape[0]:
        raise DataError(
            f"known={{{name!r}: ...}}: {len(labels)} labels for {shape[0]} rows"
        )
    level, times = Counter(labels.tolist()).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"known={{{name!r}: ...}}: level {level!r} stands there {times} times; "
            "keep one row and column of it"
        )
    return matrix, labels


def _same_order(name: str, term: RandomTerm, labels: np.ndarray) -> None:
    """Refuse a matrix without labels where two orders of texts are as likely."""
    texts = all(isinstance(x, str) for x in labels)
    first = np.unique(term.codes[term.codes >= 0], return_index=True)[1]
    if not texts or list(labels) != sorted(labels) or (np.diff(first) > 0).all():
        return
    a, b = labels[:3], labels[np.argsort(first)[:3]]
    raise ModelError(
        f"known={{{name!r}: ...}} has no labels, and its rows may stand in the order "
        f"of the texts ({listed(a)}, ...) or of the data ({listed(b)}, ...): give a "
        "frame whose index and columns are the levels, or (matrix, levels)"
    )


def _numbers(name: str, matrix: Any) -> np.ndarray:
    try:
        return np.asarray(matrix, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"known={{{name!r}: ...}} is not a matrix of numbers: {error}"
        ) from None


def _checked(name: str, matrix: Any, labels: np.ndarray) -> np.ndarray:
    """The matrix as dense, finite and symmetric."""
    K = _numbers(name, matrix.toarray() if hasattr(matrix, "toarray") else matrix)
    if not np.isfinite(K).all():
        raise DataError(f"known={{{name!r}: ...}} holds numbers that are not finite")
    size = np.abs(K).max()
    if np.abs(K - K.T).max() > SYMMETRIC * size:
        i, j = np.unravel_index(np.abs(K - K.T).argmax(), K.shape)
        raise DataError(
            f"known={{{name!r}: ...}} is not symmetric: {K[i, j]:.6g} and {K[j, i]:.6g}"
            f" between {labels[i]} and {labels[j]}"
        )
    return (K + K.T) / 2


def _root(name: str, K: np.ndarray, what: str) -> np.ndarray:
    try:
        return np.linalg.cholesky(K)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(K)
        if values[0] < -NEGATIVE * max(values[-1], 0.0) or values[-1] <= 0:
            raise ModelError(
                f"known={{{name!r}: ...}} is no {what}: its smallest eigenvalue is "
                f"{values[0]:.3g}, the largest {values[-1]:.3g}. Estimated kinship is "
                "made one by adding minus the smallest to its diagonal"
            ) from None
        return vectors * np.sqrt(np.maximum(values, 0.0))


def known_groups(
    groups: dict[str, GroupCoding], found: Mapping[str, KnownLevels]
) -> dict[str, GroupCoding]:
    """Codes of new data are places among K's levels."""
    out = dict(groups)
    for name, own in found.items():
        if name in out and out[name].combinations is None:
            labels = own.labels
            out[name] = replace(out[name], part_levels=(labels,), levels=labels)
    return out
