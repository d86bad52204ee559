"""Linear hypotheses L beta = r: reading them, and showing their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.formatting import numbers
from jaxglmm.formula.matrix import as_numbers
from jaxglmm.postestimation.prediction import predict

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

HINT = "give a matrix of numbers, a coefficient's name, or a dict name -> weight"


@dataclass(frozen=True)
class WaldTest:
    """F-test of L beta = r; with one row also its estimate, standard error and t.

    estimate: (k,) L beta - r; std_error: (k,)
    """

    F: float
    num_df: float
    den_df: float
    p: float
    method: str
    estimate: np.ndarray = field(repr=False)
    std_error: np.ndarray = field(repr=False)

    @property
    def statistic(self) -> float:
        """F: its name in tables."""
        return self.F

    @property
    def p_value(self) -> float:
        """p: its name in tables."""
        return self.p

    @property
    def chisq(self) -> float:
        """Wald's chi-squared statistic: F times its numerator degrees of freedom."""
        return float(self.F * self.num_df)

    @property
    def t(self) -> float:
        """The t statistic of a test of one row."""
        if len(self.estimate) != 1:
            raise NotApplicableError(
                f"A test of {len(self.estimate)} rows has an F, not a t: use .F"
            )
        return float(self.estimate[0] / self.std_error[0])

    def __repr__(self) -> str:
        p = numbers.p_value(self.p)
        p = p if p.startswith("<") else f"= {p}"
        text = f"F({self.num_df:g}, {self.den_df:.2f}) = {self.F:.4f}, p {p}"
        known = np.isinf(self.den_df)
        if known:
            text = f"chisq({self.num_df:g}) = {self.chisq:.4f}, p {p}"
        if len(self.estimate) == 1:
            est, se = numbers.with_errors(
                self.estimate.tolist(), self.std_error.tolist()
            )
            letter = "z" if known else f"t({self.den_df:.2f})"
            text = f"estimate {est[0]} (se {se[0]}), {letter} = {self.t:.4f}, p {p}"
        return f"{text} [{self.method}]"


def contrast_matrix(L, names: Sequence[str]) -> np.ndarray:
    """(k, p) from a matrix, a row, a name, a dict name -> weight, or a list of them."""
    if isinstance(L, str | Mapping):
        return _row(L, names)[None]
    if isinstance(L, list | tuple) and any(isinstance(r, str | Mapping) for r in L):
        return np.array([_row(r, names) for r in L])
    matrix = np.atleast_2d(as_numbers("L", L, HINT))
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise NotApplicableError(
            f"L has shape {np.shape(L)}; it needs {len(names)} columns, one for each "
            f"of {', '.join(names)}. Names work too: test('{names[-1]}')"
        )
    return matrix


def _row(spec, names: Sequence[str]) -> np.ndarray:
    weights = {spec: 1.0} if isinstance(spec, str) else spec
    if not isinstance(weights, Mapping):
        row = as_numbers("a row of L", spec, HINT)
        if row.shape != (len(names),):
            raise NotApplicableError(
                f"a row of L has shape {row.shape}; it needs {len(names)} numbers, one "
                f"for each of {', '.join(names)}"
            )
        return row
    row = np.zeros(len(names))
    for name, weight in weights.items():
        if name not in names:
            raise NotApplicableError(
                f"There is no coefficient {name!r}; there are {', '.join(names)}"
            )
        if not _arguments.is_number(weight):
            raise ArgumentError(
                f"the weight of {name!r} in L is {_arguments.shown(weight)}, and must "
                "be a number"
            )
        row[list(names).index(name)] = weight
    return row


def right_side(rhs, rows: int) -> np.ndarray:
    """(k,) right-hand sides, from as many numbers or from one.

    Raises:
        DataError: no numbers; NotApplicableError: not finite, or of another number.
    """
    found = as_numbers("rhs", rhs, "give a number, or one for each row of L")
    if not np.isfinite(found).all() or found.shape not in ((), (1,), (rows,)):
        raise NotApplicableError(
            f"rhs={_arguments.shown(rhs)} must be a finite number, or {rows} of them, "
            "one for each row of L"
        )
    return np.broadcast_to(found, (rows,))


def in_words(row: np.ndarray, names: Sequence[str]) -> str:
    """A row of L: ``Days - 2 f[T.b]``."""
    text = ""
    for weight, name in zip(row, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            sign = "-" if weight < 0 else "+"
            text += f" {sign} {size}{name}"
    return text.removeprefix(" + ").lstrip() or "0"


def test(fit: FittedModel, L, rhs, ddf: str) -> WaldTest:
    """F-test of L beta = rhs with denominator degrees of freedom by ``ddf``."""
    from jaxglmm.postestimation.inference import denominator_df as inference

    matrix = contrast_matrix(L, fit.coefficient_names)
    rhs = right_side(rhs, len(matrix))
    blind = inestimable(fit, matrix)
    if blind.any():
        return _not_estimable(fit, matrix, rhs, blind, ddf)
    found = inference.contrast_test(
        fit, matrix, ddf, **({"rhs": rhs} if rhs.any() else {})
    )
    cov = matrix @ fit.coefficient_covariance(ddf) @ matrix.T
    return WaldTest(
        F=float(found["F"]),
        num_df=float(found["num_df"]),
        den_df=float(found["den_df"]),
        p=float(found["p"]),
        method=ddf,
        estimate=matrix @ fit.coefficients - rhs,
        std_error=np.sqrt(np.diagonal(cov)),
    )


def inestimable(fit: FittedModel, matrix: np.ndarray) -> np.ndarray:
    """Rows of L (k, p) whose value depends on which columns were dropped, (k,)."""
    missing = fit.design.null_space
    if missing is None:
        return np.zeros(len(matrix), bool)
    return missing.inestimable(missing.full(matrix))


def _not_estimable(
    fit: FittedModel, matrix: np.ndarray, rhs: np.ndarray, blind: np.ndarray, ddf: str
) -> WaldTest:
    """NaN for the test and for the rows that cannot be told, with a warning."""
    count = int(blind.sum())
    predict.warn_not_estimable(fit.design, count, len(blind), "rows of L")
    cov = matrix @ fit.coefficient_covariance(ddf) @ matrix.T
    return WaldTest(
        F=np.nan,
        num_df=np.nan,
        den_df=np.nan,
        p=np.nan,
        method=f"{ddf}; not estimable",
        estimate=np.where(blind, np.nan, matrix @ fit.coefficients - rhs),
        std_error=np.where(blind, np.nan, np.sqrt(np.diagonal(cov))),
    )
