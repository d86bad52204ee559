"""Compact letters: means that share a letter do not differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def letters_of_groups(
    estimates: np.ndarray, groups: Sequence[np.ndarray], differ: np.ndarray
) -> list[str]:
    """The letters of all means, each group's by itself.

    Args:
        estimates: (n,) means.
        groups: positions of each group's means.
        differ: whether pairs differ, group after group.
    """
    out, start = [""] * len(estimates), 0
    for i in groups:
        end = start + len(i) * (len(i) - 1) // 2
        found = letters_of(estimates[i], differ[start:end])
        start = end
        for place, text in zip(i, found, strict=True):
            out[place] = text
    return out


def letters_of(estimates: np.ndarray, differ: np.ndarray) -> list[str]:
    """A text of letters a mean, by insertion and absorption.

    Args:
        estimates: (k,) means; the smallest have the first letters.
        differ: (k (k - 1) / 2,) whether the pair differs, in the order of pairs.
    """
    k = len(estimates)
    groups = [frozenset(range(k))]
    for (i, j), apart in zip(itertools.combinations(range(k), 2), differ, strict=True):
        if not apart:
            continue
        split = []
        for group in groups:
            both = i in group and j in group
            split += [group - {i}, group - {j}] if both else [group]
        groups = [
            g for g in dict.fromkeys(split) if not any(g < other for other in split)
        ]
    rank = np.argsort(np.argsort(estimates, kind="stable"), kind="stable")
    groups.sort(key=lambda g: sorted(rank[i] for i in g))
    signs = [_letter(n) for n in range(len(groups))]
    return [
        "".join(s for s, g in zip(signs, groups, strict=True) if i in g)
        for i in range(k)
    ]


def _letter(n: int) -> str:
    """a, b, ..., z, a1, b1, ..."""
    return chr(ord("a") + n % 26) + (str(n // 26) if n >= 26 else "")
