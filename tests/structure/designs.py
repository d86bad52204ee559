"""Random designs of every pattern, small, and in few shapes: compilations are shared.

A layout says which terms sit on which factors. ``rows`` draws its rows; with ``padded``
the levels are fewer than the bucket they are padded to: both variants have one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from doors import Moments, TermColumns, assemble, build, named


@dataclass(frozen=True)
class Layout:
    """Which terms sit on which factors.

    terms: (factor, columns, covariance); factors "a", "b", "c" nest in this order where
    ``nested``, else they cross; structure: what ``build`` is told; system: its answer.
    """

    name: str
    terms: tuple[tuple[str, int, str], ...]
    system: str
    structure: str | None = None
    nested: bool = False

    def __str__(self) -> str:
        return self.name


LAYOUTS = (
    Layout("one", (("a", 1, "us"),), "Blocks"),
    Layout("slopes", (("a", 2, "us"),), "Blocks"),
    Layout("terms", (("a", 2, "us"), ("a", 1, "us"), ("a", 1, "diag")), "Blocks"),
    Layout("wide", (("a", 6, "us"),), "Wide"),
    Layout("wide-diag", (("a", 5, "diag"),), "Wide"),
    Layout("nested", (("a", 2, "us"), ("b", 1, "us")), "Nested", nested=True),
    Layout(
        "nested-3",
        (("a", 1, "us"), ("b", 2, "diag"), ("c", 3, "us")),
        "Nested",
        nested=True,
    ),
    Layout("crossed", (("a", 2, "us"), ("b", 2, "us")), "Arrow"),
    Layout(
        "crossed-sparse", (("a", 2, "us"), ("b", 2, "diag")), "Arrow", "arrow-sparse"
    ),
    Layout(
        "crossed-3",
        (("a", 1, "us"), ("b", 1, "us"), ("c", 1, "us")),
        "Arrow",
        "arrow-sparse",
    ),
    Layout("crossed-wide", (("a", 5, "us"), ("b", 1, "us")), "Arrow"),
    Layout(
        "crossed-wide-sparse",
        (("a", 5, "diag"), ("b", 1, "us"), ("b", 1, "us")),
        "Arrow",
        "arrow-sparse",
    ),
    Layout("nested-as-arrow", (("a", 2, "us"), ("b", 1, "us")), "Arrow", "arrow", True),
)
BY_NAME = {layout.name: layout for layout in LAYOUTS}

N = 96
SIZES = {"a": 18, "b": 10, "c": 8}  # what these are padded to; full without padding
PADDED = {"a": 17, "b": 10, "c": 6}
SINGLE = {"a": 8}, {"a": 6}


@dataclass(frozen=True)
class Rows:
    """What ``structure.moments_of_design`` takes."""

    y: np.ndarray
    X: np.ndarray
    terms: list[TermColumns]
    weights: np.ndarray | None

    def moments(self, structure: str | None) -> Moments:
        return build(self.y, self.X, self.terms, self.weights, structure)


def levels(layout: Layout, padded: bool) -> dict[str, int]:
    names = {factor for factor, _, _ in layout.terms}
    if names == {"a"}:
        return SINGLE[padded]
    if not layout.nested and names == {"a", "b"}:  # the second factor padded as well
        return {"a": 17, "b": 6} if padded else {"a": 18, "b": 8}
    return PADDED if padded else SIZES


def codes(layout: Layout, padded: bool, rng: np.random.Generator) -> dict:
    """Codes of every factor, all levels met."""
    size = levels(layout, padded)
    if not layout.nested:
        return {
            f: rng.permutation(np.arange(N) % J).astype(np.int32)
            for f, J in size.items()
        }
    a = rng.permutation(np.arange(N) % size["a"]).astype(np.int32)
    b = (np.arange(size["a"]) % size["b"]).astype(np.int32)[a]
    c = (np.arange(size["b"]) % size["c"]).astype(np.int32)[b]
    return {"a": a, "b": b, "c": c}


def rows(
    layout: Layout,
    padded: bool = False,
    p: int = 2,
    weighted: bool = False,
    seed: int = 0,
) -> Rows:
    """Rows of a model that generates its own response."""
    rng = np.random.default_rng([seed, p, padded, weighted])
    index, size = codes(layout, padded, rng), levels(layout, padded)
    y = rng.normal(size=N)
    terms, seen = [], set()
    for factor, q, covariance in layout.terms:
        Z = rng.normal(size=(N, q)) + 0.5
        if factor not in seen:
            Z[:, 0] = 1.0
        seen.add(factor)
        b = rng.normal(size=(size[factor], q)) * 0.8
        y = y + np.einsum("nq,nq->n", Z, b[index[factor]])
        own = named(covariance, q)
        terms.append(TermColumns(factor, index[factor], Z, size[factor], own))
    X = rng.normal(size=(N, p)) * 3 + 1
    if p:
        X[:, 0] = 1.0
        y = y + X @ rng.normal(size=p)
    weights = rng.uniform(0.5, 2.0, N) if weighted else None
    return Rows(5 + 2 * y, X, terms, weights)


def on_device(moments: Moments):
    """The problem with JAX arrays, in the precision of the scope."""
    return jax.tree.map(jnp.asarray, assemble.problem(moments))


def thetas(covariances, rng: np.random.Generator, zero_column: int | None = None):
    """Random free entries of Lambda; one column of every factor zero where asked."""
    out = []
    for covariance in covariances:
        width = covariance.q
        for i, j in covariance.entries:
            value = rng.uniform(0.3, 1.5) if i == j else rng.normal() * 0.6
            gone = zero_column is not None and j == zero_column % width
            out.append(0.0 if gone else value * rng.choice([-1, 1]))
    return np.array(out)
