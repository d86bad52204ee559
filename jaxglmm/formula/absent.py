"""A design whose rows were read in batches and are no longer there.

It has the names, the levels and the sizes of an ordinary one, so that all that works
from cross-products works; where an array by rows would stand is one that has a shape
and no values, and whoever asks for these is told what to do instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.recipe import FormulaRecipe

WHERE = (
    "the rows of this fit were read in batches and are not in memory. "
    "fit.predict(source, to='out.parquet') writes the means of any rows, "
    "fit.ranef_to('ranef.parquet') the random effects, and fit.predict(table, "
    "'population', se=True) has the means of a table that you make; for questions "
    "about the rows (residuals, simulation, influence, averages over them) fit some of "
    "the groups from a table in memory"
)


class AbsentRows(np.lib.mixins.NDArrayOperatorsMixin):
    """An array (n, ...) of doubles without values: all but its shape is refused."""

    dtype = np.dtype(float)

    def __init__(self, *shape: int):
        self.shape = shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<rows that are not in memory, {self.shape}>"

    def __getitem__(self, key: Any) -> AbsentRows:
        if isinstance(key, slice) and key == slice(None):
            return self
        raise self._refusal()

    def __iter__(self) -> Any:
        raise self._refusal()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise self._refusal()

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refusal()

    def __array_function__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refusal()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying and pickling look for
            raise AttributeError(name)
        raise self._refusal()

    @staticmethod
    def _refusal() -> NotApplicableError:
        return NotApplicableError(WHERE)


@dataclass(frozen=True)
class StreamedTerm(RandomTerm):
    """A random term without its rows.

    square: (q,) mean squares of its columns, under the weights; gram: (q, q) mean
    products, None where there are weights; counted: levels with rows that count.
    """

    square: np.ndarray | None = None
    gram: np.ndarray | None = None
    counted: int = 0

    def mean_square(self, rows: slice | np.ndarray) -> np.ndarray:
        """(q,) of the columns, over the rows that count."""
        assert self.square is not None
        return self.square


@dataclass(frozen=True)
class StreamedDesign(Design):
    """A design without its rows; ``n`` and ``n_counted`` are those that count.

    root: (p, p) with the inner products of X, without weights; facts: by which the
    response and the weights are known again.
    """

    has_rows: ClassVar[bool] = False

    root: np.ndarray | None = None
    facts: tuple[Any, ...] = ()

    def same_response(self, other: Design) -> bool:
        """Whether another design is of the same rows, response and weights."""
        return isinstance(other, StreamedDesign) and other.facts == self.facts

    def fixed_variance(self, beta: np.ndarray) -> float:
        """Variance of X beta over the rows.

        Raises:
            NotApplicableError: without an intercept, whose products are sums.
        """
        if self.root is None or "(Intercept)" not in self.x_names:
            np.asarray(self.X)  # says where the rows are
        assert self.root is not None
        eta = self.root @ beta
        total = float(self.root[:, self.x_names.index("(Intercept)")] @ eta)
        return (float(eta @ eta) - total**2 / self.n) / (self.n - 1)

    def random_variance(self, cov: Sequence[np.ndarray], at: Sequence[int]) -> float:
        """Mean of z' Sigma z over the rows, summed over some of the terms."""
        total = 0.0
        for k in at:
            term = self.terms[k]
            gram = term.gram if isinstance(term, StreamedTerm) else None
            # without it, this says where the rows are
            gram = np.asarray(term.values) if gram is None else gram
            total += float(np.sum(gram * cov[k]))
        return total

    def sum_coded(self) -> tuple[np.ndarray, np.ndarray]:
        """Both codings of rows that are made up: they span the same as the data's."""
        assert isinstance(self.recipe, FormulaRecipe)
        return self.recipe.both_codings()

    def levels_counted(self, term: RandomTerm) -> int:
        """Number of a term's levels with rows that count."""
        return term.counted if isinstance(term, StreamedTerm) else term.n_levels
