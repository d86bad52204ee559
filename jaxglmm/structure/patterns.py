"""Rows to blocks that share their covariances: what a likelihood by blocks reads.

Blocks with the same rows have the same covariance. Where rows are those of a few visits
all blocks of a group take theirs from one template, and a pattern is the set of visits
that is there; otherwise each distinct arrangement of rows (times, values of Z, scales)
is a template and a pattern of its own. In a pattern only A_t'A_s summed over its blocks
matters, A_t the row [x y] of a visit: blocks that are many are replaced by as few as
have the same sums, which are as many as those are of rank: few, as subjects differ in
few columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm._typing import Float, Int

MOST_VISITS = 60  # positions up to which blocks of all visits are worth while
MOST_NUMBERS = 3e8  # in the matrices of all templates
WORTH = 4  # blocks a pattern from which fewer are looked for
SIZES = np.unique(np.rint(1.3 ** np.arange(60)).astype(int))  # of stacks


@dataclass(frozen=True)
class BlockRows:
    """What is known of the n rows; a block holds whole subjects.

    position: (n,) among the visits; times: (n, d), lags are distances between these
    group: (n,); scales: (n, s); effects: z (n, q) and level (n,) of each random term
    """

    block: Int[np.ndarray, " n"]
    subject: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    times: Float[np.ndarray, "n d"]
    group: Int[np.ndarray, " n"]
    n_groups: int
    scales: Float[np.ndarray, "n s"]
    effects: tuple[tuple[np.ndarray, np.ndarray], ...]
    known: Float[np.ndarray, "n w"] | None = None

    def take(self, keep: np.ndarray) -> BlockRows:
        """Some of the rows."""
        return BlockRows(
            self.block[keep],
            self.subject[keep],
            self.position[keep],
            self.times[keep],
            self.group[keep],
            self.n_groups,
            self.scales[keep],
            tuple((z[keep], level[keep]) for z, level in self.effects),
            None if self.known is None else self.known[keep],
        )


@dataclass(frozen=True)
class Arrangement:
    """One stack before the numbers of X and y are put in.

    at: (n',) rows of the data in it; block, slot: (n',) where each goes
    pattern: (N,) of each block, sorted; and what ``Stack`` has of templates
    """

    at: np.ndarray
    block: np.ndarray
    slot: np.ndarray
    pattern: np.ndarray
    mask: np.ndarray
    template: np.ndarray
    position: np.ndarray
    lag: np.ndarray
    within: np.ndarray | float
    group: np.ndarray
    scales: np.ndarray
    effects: tuple[tuple[np.ndarray, np.ndarray], ...]

    @property
    def count(self) -> np.ndarray:
        """(K,) blocks of each pattern."""
        return np.bincount(self.pattern, minlength=len(self.mask))

    def padded(self, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "N T c"]:
        """The rows of each block in their slots."""
        out = np.zeros((len(self.pattern), self.mask.shape[1], rows.shape[1]))
        out[self.block, self.slot] = rows[self.at]
        return out


def arrange(rows: BlockRows) -> tuple[Arrangement, ...]:
    """Stacks of blocks, by visits or by size."""
    if _by_visits(rows):
        return (_visits(rows),)
    order = np.lexsort((*rows.times.T[::-1], rows.position, rows.subject, rows.block))
    sizes = np.bincount(rows.block)
    slot = np.empty(len(order), int)
    first = np.cumsum(sizes) - sizes
    slot[order] = np.arange(len(order)) - first[rows.block[order]]
    sizes_of_rows = SIZES[np.searchsorted(SIZES, sizes)][rows.block]
    return tuple(
        _own(rows, np.flatnonzero(sizes_of_rows == T), slot, int(T))
        for T in np.unique(sizes_of_rows)
    )


def _by_visits(rows: BlockRows) -> bool:
    """Whether a row's visit and group say all of its covariance with others."""
    T = int(rows.position.max()) + 1
    if rows.effects or rows.known is not None or T > MOST_VISITS:
        return False
    if 3 * np.bincount(rows.block).max() < T:
        return False
    cell = rows.position
    known = np.concatenate([rows.times, rows.scales], axis=1)
    example = np.zeros((T, known.shape[1]))
    example[cell] = known
    return bool((example[cell] == known).all())


def _visits(rows: BlockRows) -> Arrangement:
    T = int(rows.position.max()) + 1
    _, block = np.unique(rows.block, return_inverse=True)
    N = int(block.max()) + 1
    there = np.zeros((N, T), bool)
    there[block, rows.position] = True
    group = np.zeros(N, int)
    group[block] = rows.group
    keys = np.concatenate(
        [
            group[:, None].astype(np.uint16).view(np.uint8).reshape(N, 2),
            np.packbits(there, axis=1),
        ],
        axis=1,
    )
    first, pattern = distinct(keys)
    order = np.argsort(pattern, kind="stable")
    rank = np.empty(N, int)
    rank[order] = np.arange(N)
    times = np.zeros((T, rows.times.shape[1]))
    times[rows.position] = rows.times
    scales = np.zeros((T, rows.scales.shape[1]))
    scales[rows.position] = rows.scales
    G = rows.n_groups
    return Arrangement(
        np.arange(len(rows.block)),
        rank[block],
        rows.position,
        pattern[order],
        there[first].astype(float),
        group[first],
        np.broadcast_to(np.arange(T), (G, T)),
        np.broadcast_to(_distances(times[None]), (G, T, T)),
        1.0,
        np.eye(G),
        np.broadcast_to(scales, (G, *scales.shape)),
        (),
    )


def _own(rows: BlockRows, at: np.ndarray, slot: np.ndarray, T: int) -> Arrangement:
    """A template for every arrangement of rows that occurs."""
    _, block = np.unique(rows.block[at], return_inverse=True)
    slot, N = slot[at], int(block.max()) + 1

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros((N, T, values.shape[1]))
        out[block, slot] = values
        return out

    mask = spread(np.ones((len(at), 1)))
    times = spread(rows.times[at])
    times = (times - times[:, :1]) * mask
    position = spread(rows.position[at, None]).astype(int)
    group = spread(rows.group[at, None])[:, 0].astype(int)[:, 0]
    scales = spread(rows.scales[at])
    effects = []
    for z, level in rows.effects:
        codes = spread(level[at, None] + 1.0)[..., 0]
        same = (codes[:, :, None] == codes[:, None, :]) & (codes[:, :, None] > 0)
        effects.append((spread(z[at]), same.astype(float)))
    subject = spread(rows.subject[at, None] + 1.0)[..., 0]
    within = (subject[:, :, None] == subject[:, None, :]).astype(float)
    several = bool((np.ptp(np.where(subject, subject, subject[:, :1]), axis=1)).any())
    parts = [mask, times, scales, position, *(z for z, _ in effects)]
    parts += [within] if several else []
    parts += [same for _, same in effects]
    lag = None
    if rows.known is not None:
        index = np.broadcast_to(position[:, None, :, 0], (N, T, T))
        lag = np.take_along_axis(spread(rows.known[at]), index, axis=2)
        lag = lag * mask * mask[:, None, :, 0]
        parts.append(lag)
    keys = np.concatenate(
        [group[:, None] * 1.0, *(x.reshape(N, -1) * 1.0 for x in parts)], axis=1
    )
    first, pattern = distinct(np.ascontiguousarray(keys + 0.0).view(np.uint8))
    _refuse_size(len(first), T)
    order = np.argsort(pattern, kind="stable")
    rank = np.empty(N, int)
    rank[order] = np.arange(N)
    return Arrangement(
        at,
        rank[block],
        slot,
        pattern[order],
        mask[first, :, 0],
        np.arange(len(first)),
        position[first, :, 0],
        _distances(times[first]) if lag is None else lag[first],
        within[first] if several else 1.0,
        np.eye(rows.n_groups)[group[first]],
        scales[first],
        tuple((z[first], same[first]) for z, same in effects),
    )


def _refuse_size(K: int, T: int) -> None:
    if K * T * T > MOST_NUMBERS:
        raise ModelError(
            f"the residuals of {T:,} rows are correlated with one another, and {K:,} "
            f"such blocks differ: {K * T * T:.1e} covariances. At most "
            f"{MOST_NUMBERS:.0e} are supported: take a grouping factor with smaller "
            "levels, as in residual='ar1(time | subject)', or round the times"
        )


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each distinct row of bytes, and which each is."""
    raw = np.ascontiguousarray(keys)
    whole = raw.view(np.dtype((np.void, raw.shape[1]))).ravel()
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.ravel()


def _distances(times: Float[np.ndarray, "G T d"]) -> Float[np.ndarray, "G T T"]:
    apart = times[:, :, None] - times[:, None]
    if apart.shape[-1] == 1:
        return np.abs(apart[..., 0])
    return np.sqrt(np.sum(apart * apart, axis=-1))


def fewest(
    blocks: Float[np.ndarray, "N T c"], pattern: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks with the same sums of cross-products in each pattern, and their patterns.

    The sums are a Gram matrix; its pivoted Cholesky factor ends at its rank.
    """
    kept, of = [], []
    for k, here in _runs(pattern):
        mine = blocks[here]
        if len(mine) >= WORTH * max(1, blocks.shape[2] // 2):
            there = mask[k] > 0
            flat = mine[:, there].reshape(len(mine), -1)
            root = root_of(flat.T @ flat)
            if len(root) < len(mine):
                mine = np.zeros((len(root), *blocks.shape[1:]))
                mine[:, there] = root.reshape(len(root), -1, blocks.shape[2])
        kept.append(mine)
        of.append(np.full(len(mine), k))
    return np.concatenate(kept), np.concatenate(of)


def root_of(gram: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "r c"]:
    """As few rows as have these cross-products: a pivoted Cholesky factor's."""
    from scipy.linalg import lapack  # slow to import

    L, pivot, rank, _ = lapack.dpstrf(gram, lower=1)
    root = np.zeros((rank, gram.shape[0]))
    root[:, pivot - 1] = np.tril(L)[:, :rank].T
    return root


def _runs(pattern: np.ndarray) -> Iterator[tuple[int, slice]]:
    starts = np.flatnonzero(np.diff(pattern, prepend=-1))
    ends = np.append(starts[1:], len(pattern))
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(pattern[a]), slice(a, b)
