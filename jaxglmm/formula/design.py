"""Design: a model as names and NumPy arrays, the last place where strings live.

``y = X beta + sum over terms of values[i] . b[codes[i]] + offset + e``. A random
term is an index and values, never a matrix with a column a level. Everything
downstream sees arrays and static integers; names come back in ``results``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from jaxglmm._brief import brief
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.strata import strata

MARK = "~"  # between the name of a linear predictor and that of its column
DISP = "disp"  # the linear predictor of the dispersion


@brief
@dataclass(frozen=True)
class KnownLevels:
    """Levels and a root of their known covariance: K = root root'.

    labels: (J,); root: (J, J).
    """

    labels: np.ndarray
    root: np.ndarray

    def shown(self, b: np.ndarray) -> np.ndarray:
        """(J, 1) effects of the levels from those of the columns, (1, J)."""
        return self.root @ b[0][:, None]

    def spread(self, covariance: np.ndarray) -> np.ndarray:
        """(J, 1, 1) variances of the levels from those of the columns, (1, J, J)."""
        own = np.sum((self.root @ covariance[0]) * self.root, axis=1)
        return own[:, None, None]


@brief
@dataclass(frozen=True)
class RandomTerm:
    """One term ``(columns | factor)``.

    label:  unique name of the term: the factor's, then ``factor.1``, ... as in lme4
    factor: name of the grouping factor, ``"Subject"``, ``"batch:cask"``
    names:  (q,) names of the columns, ``"(Intercept)"``, ``"Days"``
    codes:  (n,) int32, the level of each row, 0 .. J-1 (in new data -1: not seen)
    values: (n, q) float64, the row's values of the columns
    levels: (J,) labels, in order of the codes
    covariance: "us" (unstructured), "diag" (independent columns), or another structure
        as ``model.covariances`` spells it, ``ar1``, ``rr(2)``, ``ou(0;1.5)``
    at: (n, k) of new rows, where they lie, for effects that have places given by
        numbers; a place without a column has a row of zeros in ``values``
    predictor: number of the linear predictor that it belongs to
        or of each column where these belong to several
    known: of a covariance between levels that is known, these levels: the columns are
        then those of its root, and there is one level
    beyond: (n,) share of its variance that an effect at a new place has beyond what
        the others say of it; None without such places
    """

    label: str
    factor: str
    names: tuple[str, ...]
    codes: np.ndarray
    values: np.ndarray
    levels: np.ndarray
    covariance: str = "us"
    predictor: int | tuple[int, ...] = 0
    at: np.ndarray | None = None
    known: KnownLevels | None = None
    beyond: np.ndarray | None = None

    @property
    def first(self) -> float:
        """The number of the first of whole steps, which its column is named for."""
        text = self.names[0].rpartition("[")[2].removesuffix("]")
        return float(text) if self.structure in ("ar1", "hetar1") else 0.0

    @property
    def n_levels(self) -> int:
        return len(self.levels)

    @property
    def mark(self) -> str:
        """What the names of its columns begin with, beside those of the mean: zi~."""
        one = isinstance(self.predictor, int) and self.predictor > 0
        return self.label[: self.label.index(MARK) + 1] if one else ""

    @property
    def structure(self) -> str:
        """The word of its covariance, without what is in brackets behind it."""
        return self.covariance.partition("(")[0]

    def take(self, rows: slice | np.ndarray) -> RandomTerm:
        """The term of some of the rows."""
        at = None if self.at is None else self.at[rows]
        beyond = None if self.beyond is None else self.beyond[rows]
        codes, values = self.codes[rows], self.values[rows]
        return replace(self, codes=codes, values=values, at=at, beyond=beyond)

    def at_rows(self, codes: np.ndarray, values: np.ndarray | None) -> RandomTerm:
        """The term of other rows; values: zeros where None."""
        if values is None:
            values = np.zeros((len(codes), len(self.names)))
        return replace(self, codes=codes, values=values, at=None, beyond=None)

    def mean_square(self, rows: slice | np.ndarray) -> np.ndarray:
        """(q,) of the columns, over some of the rows."""
        return np.mean(self.values[rows] ** 2, axis=0)

    def variance_beyond(self, lam: np.ndarray) -> np.ndarray | float:
        """That of effects at new places, their covariance being lam lam'."""
        return 0.0 if self.beyond is None else self.beyond * float(np.sum(lam[0] ** 2))


@brief
@dataclass(frozen=True)
class ResidualTerm:
    """The residual covariance ``us(visit | arm / subject) + varident(f)``, by rows.

    text: as it was given; structure: key of ``model.residuals.REGISTRY``, "" where rows
        are independent and differ in their variances alone
    time, subject, group: names, "" where there is none
    codes: (n,) subjects; levels: their labels
    position: (n,) among the ``visits``, labels; times: (n, d), lags are distances
    group_codes: (n,); group_levels: labels, one "" where there is one group
    scales: (n, s) what the log standard deviation depends on besides visits
    scale_names: (s,), ``varpower(x)`` or ``varident(f): level``
    nugget: whether correlations start below one
    part: of a dispersion formula its design, whose columns are the scales: there is no
        other level of the standard deviations then, and with no columns no residual
    known: (n, w) of a covariance that is known up to a variance, over the roots of the
        variances: that of each row with the row at each position of its block
    """

    text: str
    structure: str
    time: str
    subject: str
    group: str
    codes: np.ndarray
    levels: np.ndarray
    position: np.ndarray
    visits: np.ndarray
    times: np.ndarray
    group_codes: np.ndarray
    group_levels: np.ndarray
    scales: np.ndarray
    scale_names: tuple[str, ...] = ()
    nugget: bool = False
    part: Design | None = None
    known: np.ndarray | None = None

    @cached_property
    def strata(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Code (n,) of each row's scales and these (S, s); None where they are many."""
        return strata(self.scales)

    @cached_property
    def strata_size(self) -> np.ndarray:
        """(S,) rows of each."""
        code, rows = self.strata  # type: ignore[misc]
        return np.bincount(code, minlength=len(rows))

    @property
    def offset(self) -> np.ndarray | None:
        """(n,) known part of the log standard deviation."""
        return None if self.part is None else self.part.offset

    @property
    def is_silent(self) -> bool:
        """Whether there is no residual: random effects say all of the covariance."""
        return self.part is not None and not self.scales.shape[1]


@dataclass(frozen=True)
class FixedTerm:
    """One term of the fixed effects: its name, its variables, its columns of X.

    factors: those of the variables that enter as factors (``g`` in ``C(g)`` is one,
    although its values are numbers). full: its columns before any were dropped.
    """

    name: str
    variables: frozenset[str]
    columns: tuple[int, ...]
    factors: frozenset[str] = frozenset()
    full: tuple[int, ...] = ()


@dataclass(frozen=True)
class NewRows:
    """The design of new rows (``codes`` of -1 where a level was not in the data).

    full: (n, p_all), X before columns were dropped; None where none was. Of several
    predictors offset is (K, n), and ``parts`` has the rows of each.
    """

    X: np.ndarray
    offset: np.ndarray
    terms: tuple[RandomTerm, ...]
    index: object = None
    full: np.ndarray | None = None
    parts: tuple[NewRows, ...] = ()

    def take(self, rows: slice | np.ndarray) -> NewRows:
        """Some of the rows, without their labels."""
        if self.parts:
            return joined_rows(tuple(part.take(rows) for part in self.parts))
        terms = tuple(t.take(rows) for t in self.terms)
        full = None if self.full is None else self.full[rows]
        offset = np.asarray(self.offset)  # of several predictors (K, n)
        every = np.broadcast_to(offset, (*offset.shape[:-1], len(self.X)))
        offset = every[..., rows]
        return NewRows(self.X[rows], offset, terms, None, full)


class Recipe(Protocol):
    """How the design was made, remembered: it makes the same columns from new data.

    Picklable; ``to_dict``/``from_dict`` carry it through JSON where that is possible.
    """

    def new_rows(
        self, data, *, new_levels: str = "zero", random: bool = True, offset=None
    ) -> NewRows:
        """Same columns from new data; an unseen fixed level raises ``DataError``.

        random: False leaves the random terms out, whose columns are then not needed;
        offset: (n,), where that of the fit was an array.
        """
        ...

    def sum_coded(self) -> np.ndarray:
        """X again with sum-to-zero contrasts (all columns, same order of terms)."""
        ...


@brief
@dataclass(frozen=True)
class Design:
    """A model as names and arrays; made by ``jaxglmm.formula``.

    y: (n,), X: (n, p) of full column rank, weights and offset: (n,) or None. With
    trials (n,) y counts successes; None is one trial a row (or a family without).

    Of several linear predictors ``parts`` has the design of each by its name, the
    first that of the mean. X has the columns of all side by side, names and labels of
    the others begin with the name of theirs (``zi~x``), and offset is (K, n).
    """

    has_rows: ClassVar[bool] = True  # whether they are in memory

    y: np.ndarray
    X: np.ndarray
    x_names: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    response: str = "y"
    formula: str | None = None
    weights: np.ndarray | None = None
    offset: np.ndarray | None = None
    fixed_terms: tuple[FixedTerm, ...] = ()
    dropped_columns: tuple[str, ...] = ()
    null_space: NullSpace | None = None  # what cannot be told without these
    n_missing: int = 0
    rows: np.ndarray | None = None  # positions of the kept rows where some were dropped
    index: object = None  # labels of the kept rows, of the frame they came from
    recipe: Recipe | None = None
    variables: Mapping[str, np.ndarray] = field(default_factory=dict)  # columns used
    response_levels: np.ndarray | None = None  # labels of y's codes where y was text
    trials: np.ndarray | None = None
    parts: Mapping[str, Design] = field(default_factory=dict)
    residual: ResidualTerm | None = None  # where rows are correlated or unlike
    fixed: Mapping[str, float] = field(
        default_factory=dict
    )  # parameters held at values

    @property
    def columns(self) -> tuple[int, ...]:
        """How many columns of X are each predictor's."""
        return tuple(part.p for part in self.parts.values()) or (self.p,)

    @property
    def of_x(self) -> tuple[int, ...]:
        """(p,) the predictor of each column of X."""
        return tuple(k for k, count in enumerate(self.columns) for _ in range(count))

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def p(self) -> int:
        return self.X.shape[1]

    @property
    def counted(self) -> np.ndarray | slice:
        """Rows that count, to index with: those of a weight above zero.

        The others have a place in the data, a prediction and a residual, and are no
        observations.
        """
        w = self.weights
        return slice(None) if w is None or (w > 0).all() else w > 0

    @property
    def n_counted(self) -> int:
        return len(self.y[self.counted])

    def sum_coded(self) -> tuple[np.ndarray, np.ndarray]:
        """X with sum-to-zero contrasts (all columns), and X, by the same rows."""
        assert self.recipe is not None
        return self.recipe.sum_coded(), self.X

    def same_response(self, other: Design) -> bool:
        """Whether another design, of as many rows, has the same response."""
        return other.has_rows and bool(np.array_equal(other.y, self.y))

    def levels_counted(self, term: RandomTerm) -> int:
        """Number of a term's levels with rows that count."""
        here = self.counted
        if isinstance(here, slice):
            return term.n_levels
        return len(np.unique(term.codes[here]))


def joined_rows(parts: tuple[NewRows, ...]) -> NewRows:
    """New rows of several predictors, from those of each."""
    first = parts[0]
    n = len(first.X)
    offset = np.stack([np.broadcast_to(part.offset, (n,)) for part in parts])
    terms = (
        replace(t, predictor=k) for k, part in enumerate(parts) for t in part.terms
    )
    X = np.concatenate([part.X for part in parts], axis=1)
    return NewRows(X, offset, tuple(terms), first.index, None, parts)


def formula_of(design: Design) -> str:
    """A formula for a design that was made from arrays."""
    fixed = " + ".join("1" if n == "(Intercept)" else n for n in design.x_names) or "0"
    random = []
    for term in design.terms:
        has_intercept = "(Intercept)" in term.names
        names = ["1" if n == "(Intercept)" else n for n in term.names]
        columns = " + ".join(names if has_intercept else ["0", *names])
        bar = "||" if term.covariance == "diag" and len(names) > 1 else "|"
        word = "" if term.covariance in ("us", "diag") else term.structure
        random.append(f"{word}({columns} {bar} {term.factor})")
    return f"{design.response} ~ {' + '.join([fixed, *random])}"
