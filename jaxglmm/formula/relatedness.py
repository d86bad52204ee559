"""Covariances between relatives, for ``known=``: pedigrees and phylogenies.

Numerator relationships by the tabular method (Henderson 1976); of many animals by
A = T D T', T the flow of genes and D the variances of Mendelian sampling, never the
whole of A (Colleau 2002), and A^-1 by his rules (Quaas 1976). Of a tree the lengths
that two tips share, the covariance of Brownian motion along it (Felsenstein 1985).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import DataError
from jaxglmm.formula.known import KnownPrecision
from jaxglmm.formula.notices import listed
from jaxglmm.formula.text import shown

MOST = 10_000  # animals of a whole matrix of relationships
AT_ONCE = 128  # columns of A


def pedigree(
    animal: Iterable[Any],
    sire: Iterable[Any],
    dam: Iterable[Any],
    keep: Iterable[Any] | None = None,
    inverse: bool = False,
) -> Any:
    """The numerator relationship matrix of a pedigree, labelled by animal.

    Args:
        animal: (J,) names, each once, in any order.
        sire: (J,) names of fathers; missing (None, NaN, "", 0) where unknown. Parents
            without a row of their own are founders.
        dam: (J,) names of mothers.
        keep: names whose relationships are wanted, those with records: all ancestors
            have their say, and the matrix has a row for each of these.
        inverse: the inverse instead, a ``jg.KnownPrecision`` of a SciPy matrix, which
            is sparse: for ``known=`` as it is.

    Returns:
        (J, J) frame: 1 plus the coefficient of inbreeding on the diagonal. Of more than
        10,000 animals ``keep`` or ``inverse`` is to be given.

    Raises:
        DataError: an animal twice, or one among its own ancestors; one of ``keep`` that
            the pedigree lacks; more animals than a whole matrix is made of.

    >>> import jaxglmm as jg
    >>> jg.pedigree(["a", "b", "c"], [None, None, "a"], [None, None, "b"]).loc["c", "a"]
    0.5
    """
    names = [_name(x) for x in animal]
    parents = [(_name(s), _name(d)) for s, d in zip(sire, dam, strict=True)]
    if len(parents) != len(names):
        raise DataError(f"{len(names)} animals and {len(parents)} pairs of parents")
    if None in names:
        raise DataError("an animal has no name")
    if len(set(names)) < len(names):
        twice = [n for n in dict.fromkeys(names) if names.count(n) > 1]
        raise DataError(f"animals that stand there twice: {listed(twice)}")
    of: dict[Any, tuple[Any, Any]] = dict(zip(names, parents, strict=True))
    founders = [p for pair in parents for p in pair if p is not None and p not in of]
    for name in dict.fromkeys(founders):
        of[name] = (None, None)
    labels = [*names, *dict.fromkeys(founders)]
    order = _parents_first(of)
    place = {name: i for i, name in enumerate(order)}
    parent = [tuple(place[p] for p in of[name] if p is not None) for name in order]
    if _arguments.flag("inverse", inverse):
        if keep is not None:
            raise DataError("inverse=True is of the whole pedigree; leave keep= out")
        Q = _Genes(parent).precision()
        at = np.array([place[name] for name in labels])
        return KnownPrecision(Q[at][:, at], np.asarray(pd.Index(labels)))
    if keep is not None:
        kept = list(dict.fromkeys(keep))
        lost = [x for x in kept if x not in place]
        if lost:
            raise DataError(
                f"keep= names {len(lost)} that the pedigree lacks: {listed(lost)}"
            )
        A = _Genes(parent).between(np.array([place[x] for x in kept], int))
        return pd.DataFrame(A, index=kept, columns=kept)
    if len(order) > MOST:
        raise DataError(
            f"{len(order):,} animals have a matrix of {8e-9 * len(order) ** 2:.1f} GB, "
            f"which is made of at most {MOST:,}: pedigree(..., keep=names) has the "
            "relationships of those with records, inverse=True the sparse inverse"
        )
    A = np.zeros((len(order),) * 2)
    for i, known in enumerate(parent):
        for k in known:
            A[i, :i] += 0.5 * A[k, :i]
        A[:i, i] = A[i, :i]
        A[i, i] = 1.0 + (0.5 * A[known[0], known[1]] if len(known) == 2 else 0.0)
    at = [place[name] for name in labels]
    return pd.DataFrame(A[np.ix_(at, at)], index=labels, columns=labels)


class _Genes:
    """A = T D T' of animals of whom parents stand first; T^-1 is sparse.

    parent: of each animal the places of the known ones.
    """

    def __init__(self, parent: list[tuple[int, ...]]):
        from scipy import sparse  # slow to import
        from scipy.sparse.linalg import splu

        J = len(parent)
        rows = np.repeat(np.arange(J), [len(p) for p in parent])
        columns = np.array([k for p in parent for k in p], int)
        halves = np.full(len(rows), -0.5)
        flow = sparse.coo_array((halves, (rows, columns)), shape=(J, J))
        self.inverse = (sparse.eye_array(J) + flow).tocsc()
        options = {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0}
        self._lu = splu(self.inverse, **options)
        self.D = self._sampling(parent)

    def columns(self, places: np.ndarray) -> np.ndarray:
        """(J, k) columns of A."""
        unit = np.zeros((len(self.D), len(places)))
        unit[places, np.arange(len(places))] = 1.0
        return self._lu.solve(self.D[:, None] * self._lu.solve(unit, trans="T"))

    def _sampling(self, parent: list[tuple[int, ...]]) -> np.ndarray:
        """(J,) 1 - (A_ss + A_dd) / 4, generation by generation.

        A_ii = 1 + A_sd / 2 takes the columns of the fathers of a generation; ancestors
        alone enter, whose D is known by then.
        """
        J = len(parent)
        generation = np.zeros(J, int)
        for i, known in enumerate(parent):
            generation[i] = 1 + max((generation[k] for k in known), default=-1)
        own, self.D = np.ones(J), np.ones(J)
        by = np.argsort(generation, kind="stable")
        starts = np.searchsorted(generation[by], np.arange(generation.max() + 2))
        for first, last in itertools.pairwise(starts):
            here = by[first:last]
            for i in here:
                self.D[i] = 1.0 - 0.25 * sum(own[k] for k in parent[i])
            couples = np.array([i for i in here if len(parent[i]) == 2], int)
            sire = np.array([parent[i][0] for i in couples], int)
            dam = np.array([parent[i][1] for i in couples], int)
            fathers, which = np.unique(sire, return_inverse=True)
            for k in range(0, len(fathers), AT_ONCE):
                A = self.columns(fathers[k : k + AT_ONCE])
                mine = (which >= k) & (which < k + AT_ONCE)
                own[couples[mine]] = 1 + A[dam[mine], which[mine] - k] / 2
        return self.D

    def between(self, places: np.ndarray) -> np.ndarray:
        """(k, k) of A."""
        out = np.zeros((len(places),) * 2)
        for k in range(0, len(places), AT_ONCE):
            out[:, k : k + AT_ONCE] = self.columns(places[k : k + AT_ONCE])[places]
        return (out + out.T) / 2

    def precision(self) -> Any:
        """(J, J) A^-1, sparse."""
        from scipy import sparse

        return (self.inverse.T @ sparse.diags_array(1 / self.D) @ self.inverse).tocsr()


def _name(x: Any) -> Any:
    missing = x is None or x == "" or (isinstance(x, float) and np.isnan(x))
    return None if missing or (isinstance(x, int | float) and x == 0) else x


def _parents_first(of: dict[Any, tuple[Any, Any]]) -> list[Any]:
    order: list[Any] = []
    state: dict[Any, int] = {}
    for start in of:
        stack = [start]
        while stack:
            name = stack[-1]
            if state.get(name) == 2:
                stack.pop()
                continue
            state[name] = 1
            waiting = [p for p in of[name] if p is not None and state.get(p) != 2]
            if any(state.get(p) == 1 for p in waiting):
                raise DataError(f"{shown(str(name))} is among its own ancestors")
            if waiting:
                stack += waiting
                continue
            state[name] = 2
            order.append(name)
            stack.pop()
    return order


def phylogeny(newick: str, correlation: bool = False) -> pd.DataFrame:
    """The covariance of the tips of a tree in Newick's format, labelled by tip.

    Args:
        newick: such as ``"((a:1,b:1):2,c:3);"``, with lengths of branches.
        correlation: divide by the depths, so that the diagonal is one.

    Returns:
        (J, J) frame: the length of the path that two tips share from the root.

    Raises:
        DataError: what is no such tree, a branch without a length, a tip twice.

    >>> import jaxglmm as jg
    >>> jg.phylogeny("((a:1,b:1):2,c:3);").loc["a", "b"]
    2.0
    """
    tips, shared = _tree(newick)
    if len(set(tips)) < len(tips):
        raise DataError("phylogeny: a tip stands there twice")
    C = np.zeros((len(tips),) * 2)
    for first, last, length in shared:
        C[first:last, first:last] += length
    if correlation:
        depth = np.sqrt(np.diagonal(C))
        C = C / np.outer(depth, depth)
    return pd.DataFrame(C, index=tips, columns=tips)


def _tree(newick: str) -> tuple[list[str], list[tuple[int, int, float]]]:
    """Tips in order; of each branch first and last + 1 of its tips, its length."""
    text = newick.strip()
    if not text.endswith(";"):
        raise DataError(f"a Newick tree ends in ';', which {shown(text, 60)} does not")
    tips: list[str] = []
    shared: list[tuple[int, int, float]] = []
    opened: list[int] = []
    i, n = 0, len(text) - 1
    first: int | None = None  # of the clade that has just ended
    while i < n:
        char = text[i]
        if char == "(":
            opened.append(len(tips))
            i += 1
            continue
        if char == ",":
            i += 1
            continue
        if char == "[":
            i = text.index("]", i) + 1 if "]" in text[i:] else n
            continue
        if char.isspace():
            i += 1
            continue
        if char == ")":
            if not opened:
                raise DataError("the Newick tree closes a bracket that was not opened")
            first = opened.pop()
            i += 1
        label, i = _label(text, i, n)
        if first is None:
            if not label:
                raise DataError(f"the Newick tree has a tip without a name at {i}")
            first = len(tips)
            tips.append(label)
        length, i = _length(text, i, n, label, bool(opened))
        shared.append((first, len(tips), length))
        first = None
    if opened:
        raise DataError("the Newick tree leaves a bracket open")
    return tips, shared


def _label(text: str, i: int, n: int) -> tuple[str, int]:
    if i < n and text[i] == "'":
        end = text.index("'", i + 1)
        return text[i + 1 : end], end + 1
    start = i
    while i < n and text[i] not in ":,()[;":
        i += 1
    return text[start:i].strip(), i


def _length(text: str, i: int, n: int, label: str, needed: bool) -> tuple[float, int]:
    if i < n and text[i] == "[":
        i = text.index("]", i) + 1
    if i >= n or text[i] != ":":
        if needed:
            raise DataError(
                f"the branch to {shown(label) if label else 'a clade'} has no length; "
                "covariances need them: (a:1,b:1):2"
            )
        return 0.0, i
    start = i + 1
    i = start
    while i < n and text[i] not in ",()[;":
        i += 1
    try:
        return float(text[start:i]), i
    except ValueError:
        raise DataError(f"{text[start:i]!r} is no length of a branch") from None
