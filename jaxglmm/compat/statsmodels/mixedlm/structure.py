"""Variance components as codes and values, never as matrices with a column a level.

A component's design in group i is a matrix whose columns carry independent effects of
one variance. Columns of disjoint rows are gathered into *runs*: in a run each row
belongs to one column at most, so that a run is an index and a value a row, which is
what the engines of jaxglmm take. Indicators make one run whatever their number; dense
columns make one each, grouped as the data are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.compat.statsmodels.patsy.levels import shown
from jaxglmm.formula.design import RandomTerm

GROUPS = "groups"  # the factor of the random effects proper


class VCSpec:
    """The variance components of a model, as statsmodels writes them.

    Args:
        names: names[k] is the name of component k.
        colnames: colnames[k][i] are the names of the columns of mats[k][i].
        mats: mats[k][i] is the design (n_i, d_i) of component k in group i, an array or
            a SciPy sparse matrix; groups in sorted order.
    """

    def __init__(self, names, colnames, mats):
        self.names, self.colnames, self.mats = names, colnames, mats


@dataclass(frozen=True)
class Run:
    """Columns of disjoint rows: codes (n,) int32, values (n,), by_group: codes are."""

    codes: np.ndarray
    values: np.ndarray
    n_levels: int
    by_group: bool


@dataclass(frozen=True)
class LevelNames:
    """Name of level k: its label; a record and no closure, for models are pickled."""

    levels: np.ndarray

    def __call__(self, k: int) -> str:
        return shown(self.levels[k])


@dataclass(frozen=True)
class CellNames:
    """Name of combination k of factors and columns, such as ``C(a)[1]:x:b[u]``.

    parts: in the order of the formula a column's name, or a factor's name and levels;
    the last factor's level changes fastest with k. cells: (J, factors) the levels of
    the combinations that occur, where k counts these.
    """

    parts: tuple[str | tuple[str, np.ndarray], ...]
    cells: np.ndarray | None = None

    def __call__(self, k: int) -> str:
        text = []
        if self.cells is not None:
            sizes = [len(part[1]) for part in self.parts if not isinstance(part, str)]
            places, k = self.cells[k].tolist(), 0
            for place, size in zip(places, sizes, strict=True):
                k = k * size + place  # of Python's, which has no largest number
        for part in reversed(self.parts):
            if isinstance(part, str):
                text.append(part)
                continue
            name, levels = part
            k, place = divmod(k, len(levels))
            text.append(f"{name}[{shown(levels[place])}]")
        return ":".join(reversed(text))


@dataclass(frozen=True)
class OwnNames:
    """Name of column k: that of its category ``own[k]``."""

    label: Callable[[int], str]
    own: np.ndarray

    def __call__(self, k: int) -> str:
        return self.label(int(self.own[k]))


@dataclass(frozen=True)
class Component:
    """One variance component.

    runs: see there; starts (G + 1,): the columns of group i are starts[i] to
    starts[i + 1]; run, level (K,): where each column is found (run -1: it is zero in
    all rows); label: name of column k.
    """

    name: str
    runs: tuple[Run, ...]
    starts: np.ndarray
    run: np.ndarray
    level: np.ndarray
    label: Callable[[int], str]

    def columns(self, group: int) -> range:
        """The columns of one group."""
        return range(int(self.starts[group]), int(self.starts[group + 1]))

    def names(self, group: int) -> list[str]:
        """Names of the columns of one group."""
        return [self.label(k) for k in self.columns(group)]

    def matrix(self, group: int, rows: np.ndarray) -> np.ndarray:
        """(n_i, d_i) design of one group."""
        columns = self.columns(group)
        out = np.zeros((len(rows), len(columns)))
        for c, k in enumerate(columns):
            if self.run[k] >= 0:
                run = self.runs[self.run[k]]
                out[:, c] = np.where(
                    run.codes[rows] == self.level[k], run.values[rows], 0
                )
        return out

    def without_rows(self) -> Component:
        """The names alone."""
        return replace(self, runs=())


class LazyVCSpec(VCSpec):
    """A ``VCSpec`` whose matrices are made when somebody looks at them."""

    def __init__(self, components: Sequence[Component], rows: Any, sparse: bool):
        self.names = [c.name for c in components]
        self._components, self._rows, self._sparse = components, rows, sparse

    @cached_property
    def colnames(self) -> list[list[list[str]]]:
        """colnames[k][i], names of columns."""
        groups = range(len(self._rows()))
        return [[c.names(i) for i in groups] for c in self._components]

    @cached_property
    def mats(self) -> list[list[Any]]:
        """mats[k][i], designs; sparse where ``use_sparse`` was asked for."""
        rows = self._rows()
        out = [[c.matrix(i, r) for i, r in enumerate(rows)] for c in self._components]
        if not self._sparse:
            return out
        from scipy.sparse import csr_array

        return [[csr_array(m) for m in mats] for mats in out]


def rows_of(group: np.ndarray, n_groups: int) -> list[np.ndarray]:
    """Rows of every group."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, n_groups)))


def from_spec(spec: VCSpec, rows: list[np.ndarray], n: int) -> list[Component]:
    """Components of a ``VCSpec``; ``rows[i]`` are the rows of group i.

    Raises:
        DataError: numbers of groups or of rows that do not agree, naming them.
    """
    return [_from_matrices(spec, k, rows, n) for k in range(len(spec.names))]


def _from_matrices(spec, k: int, rows: list[np.ndarray], n: int) -> Component:
    name, mats, colnames = str(spec.names[k]), spec.mats[k], spec.colnames[k]
    if len(mats) != len(rows):
        raise DataError(
            f"variance component {name!r} has designs for {len(mats)} groups; the data "
            f"have {len(rows)}"
        )
    codes, values, counts = [], [], []  # a run each
    starts, run, level, labels = [0], [], [], []
    most = []  # columns of one group in each run
    for i, (mat, here) in enumerate(zip(mats, rows, strict=True)):
        matrix = _dense(mat)
        if matrix.ndim != 2 or len(matrix) != len(here):
            raise DataError(
                f"variance component {name!r}: the design of group {i} has shape "
                f"{matrix.shape}, its {len(here)} rows need ({len(here)}, columns)"
            )
        if not np.isfinite(matrix).all():
            raise DataError(f"variance component {name!r}: group {i} is not finite")
        taken = []
        for c in range(matrix.shape[1]):
            support = matrix[:, c] != 0
            labels.append(str(colnames[i][c]))
            if not support.any():
                run.append(-1)
                level.append(-1)
                continue
            r = next((r for r, t in enumerate(taken) if not (t & support).any()), None)
            if r is None:
                r = len(taken)
                taken.append(np.zeros(len(here), bool))
                if r == len(codes):
                    codes.append(np.full(n, -1, np.int32))
                    values.append(np.zeros(n))
                    counts.append(0)
                    most.append(0)
            taken[r] |= support
            codes[r][here[support]] = counts[r]
            values[r][here[support]] = matrix[support, c]
            run.append(r)
            level.append(counts[r])
            counts[r] += 1
        for r in range(len(taken)):
            own = run[starts[-1] :].count(r)
            most[r] = max(most[r], own)
        starts.append(len(run))
    where, which = np.array(run, int), np.array(level, int)
    runs = []
    for r in range(len(codes)):
        if most[r] == 1:  # a column a group: grouped as the data are
            mine = np.flatnonzero(where == r)
            which[mine] = np.searchsorted(starts, mine, "right") - 1
            by_group = np.empty(n, np.int32)
            for i, here in enumerate(rows):
                by_group[here] = i
            runs.append(Run(by_group, values[r], len(rows), True))
        else:
            runs.append(Run(np.maximum(codes[r], 0), values[r], counts[r], False))
    return Component(
        name, tuple(runs), np.array(starts), where, which, labels.__getitem__
    )


def _dense(mat: Any) -> np.ndarray:
    return np.asarray(mat.toarray() if hasattr(mat, "toarray") else mat, float)


def by_levels(
    name: str,
    group: np.ndarray,
    n_groups: int,
    category: np.ndarray,
    n_categories: int,
    values: np.ndarray | None,
    label: Callable[[int], str],
) -> Component:
    """A component of indicators: one effect for each category within each group.

    group, category: (n,) codes; values: (n,) what they multiply, None for ones; label:
    name of a category. Only combinations that occur have an effect.
    """
    key = group.astype(np.int64) * n_categories + category
    cells, codes = np.unique(key, return_inverse=True)
    owner, own = cells // n_categories, cells % n_categories
    starts = np.searchsorted(owner, np.arange(n_groups + 1))
    by_group = len(cells) == n_groups and np.array_equal(owner, np.arange(n_groups))
    run = Run(
        codes.astype(np.int32),
        np.ones(len(key)) if values is None else np.asarray(values, float),
        len(cells),
        by_group,
    )
    return Component(
        name,
        (run,),
        starts,
        np.zeros(len(cells), int),
        np.arange(len(cells)),
        OwnNames(label, own),
    )


@dataclass(frozen=True)
class TermLayout:
    """Where the random effects of a model are: terms of a design.

    terms: the random effects proper first, if any, then the runs of the components;
    owner: for each term -1 (random effects) or the index of its component; run: which
    run of it.
    """

    terms: tuple[RandomTerm, ...]
    owner: tuple[int, ...]
    run: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether each component is one run, so that no variances are tied."""
        own = [k for k in self.owner if k >= 0]
        return len(own) == len(set(own))


def layout(
    group: np.ndarray,
    labels: np.ndarray,
    exog_re: np.ndarray | None,
    re_names: Sequence[str],
    components: Sequence[Component],
    diagonal: bool = False,
) -> TermLayout:
    """Terms of the random effects and the components."""
    terms, owner, which = [], [], []
    if exog_re is not None and exog_re.shape[1]:
        kind = "diag" if diagonal and exog_re.shape[1] > 1 else "us"
        terms.append(
            RandomTerm(GROUPS, GROUPS, tuple(re_names), group, exog_re, labels, kind)
        )
        owner.append(-1)
        which.append(0)
    known: list[tuple[str, np.ndarray]] = [(GROUPS, group)]
    for k, component in enumerate(components):
        for r, run in enumerate(component.runs):
            factor = GROUPS if run.by_group else _factor(run, known, k, r)
            label = f"{component.name}" if r == 0 else f"{component.name}.{r}"
            codes = group if factor == GROUPS else run.codes
            terms.append(
                RandomTerm(
                    f"vc {label}",
                    factor,
                    (component.name,),
                    codes,
                    run.values[:, None],
                    labels if factor == GROUPS else np.arange(run.n_levels),
                    "us",
                )
            )
            owner.append(k)
            which.append(r)
    return TermLayout(tuple(terms), tuple(owner), tuple(which))


def _factor(run: Run, known: list[tuple[str, np.ndarray]], k: int, r: int) -> str:
    """The name of the factor with these codes, an earlier one's where it has them."""
    for name, codes in known:
        if codes is run.codes or np.array_equal(codes, run.codes):
            return name
    name = f"component {k}.{r}"
    known.append((name, run.codes))
    return name
