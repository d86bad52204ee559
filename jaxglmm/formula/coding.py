"""Which factors of a term need contrasts and which indicators: structural full rank.

A factor spans the constant and its contrasts, so the term ``a:b`` spans 1, a, b and a:b
(contrasts each). Each term contributes what earlier terms do not span yet; then pieces
are merged by the rule ``anything:contrasts + anything = anything:indicators``. The
columns are those of patsy and formulaic (R's, wherever margins are present).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache

from jaxglmm.formula.terms import Term

# One factor of a product: its text, and whether it is reduced to contrasts.
Part = tuple[str, bool]
Product = tuple[Part, ...]


def plan(
    terms: Sequence[Term], is_factor: Callable[[str], bool]
) -> tuple[tuple[Product, ...], ...]:
    """For each term the products of columns that it contributes."""
    factors = frozenset(
        a.expr for term in terms for a in term.atoms if is_factor(a.expr)
    )
    return _plan(tuple(terms), factors)


@lru_cache(maxsize=512)
def _plan(
    terms: tuple[Term, ...], factors: frozenset[str]
) -> tuple[tuple[Product, ...], ...]:
    spanned: set[frozenset[Part]] = set()
    planned = []
    for term in terms:
        choices = [
            ((a.expr, True), None) if a.expr in factors else ((a.expr, False),)
            for a in term.atoms
        ]
        wanted = [
            tuple(part for part in product if part is not None)
            for product in itertools.product(*choices)
        ]
        new = [product for product in wanted if frozenset(product) not in spanned]
        spanned.update(map(frozenset, new))
        planned.append(tuple(_merge(new, factors)))
    return tuple(planned)


def _merge(products: list[Product], factors: frozenset[str]) -> list[Product]:
    """Apply the merging rule until nothing changes."""
    merged: list[Product] = []
    for product in sorted(products, key=len):
        for other in merged:
            extra = set(product) - set(other)
            if len(product) != len(other) + 1 or len(extra) != 1:
                continue
            expr, reduced = extra.pop()
            if reduced and expr in factors:
                full = tuple((e, False) if e == expr else (e, r) for e, r in product)
                rest = [m for m in merged if m != other]
                merged = _merge([*rest, full], factors)
                break
        else:
            merged.append(product)
    return merged
