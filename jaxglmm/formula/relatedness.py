"""Covariances between relatives, for ``known=``: pedigrees and phylogenies.

Numerator relationships by the tabular method (Henderson 1976); of a tree the lengths
that two tips share, the covariance of Brownian motion along it (Felsenstein 1985).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError
from jaxglmm.formula.notices import listed
from jaxglmm.formula.text import shown


def pedigree(
    animal: Iterable[Any], sire: Iterable[Any], dam: Iterable[Any]
) -> pd.DataFrame:
    """The numerator relationship matrix of a pedigree, labelled by animal.

    Args:
        animal: (J,) names, each once, in any order.
        sire: (J,) names of fathers; missing (None, NaN, "", 0) where unknown. Parents
            without a row of their own are founders.
        dam: (J,) names of mothers.

    Returns:
        (J, J) frame: 1 plus the coefficient of inbreeding on the diagonal.

    Raises:
        DataError: an animal twice, or one among its own ancestors.

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
    order = _parents_first(of)
    place = {name: i for i, name in enumerate(order)}
    A = np.zeros((len(order),) * 2)
    for i, name in enumerate(order):
        known = [place[p] for p in of[name] if p is not None]
        for k in known:
            A[i, :i] += 0.5 * A[k, :i]
        A[:i, i] = A[i, :i]
        A[i, i] = 1.0 + (0.5 * A[known[0], known[1]] if len(known) == 2 else 0.0)
    labels = [*names, *dict.fromkeys(founders)]
    at = [place[name] for name in labels]
    return pd.DataFrame(A[np.ix_(at, at)], index=labels, columns=labels)


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
