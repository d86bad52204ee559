"""The left side: one number a row, or successes out of trials.

A model of counts out of trials may be written in any of these ways; all give successes
and trials:

    cbind(k, n - k)        R: successes, failures
    k | trials(n)          brms: successes, trials
    p(k, n), prop(k, n)    bambi: successes, trials
    k, with trials=n       successes, trials
    k / n, with trials=n   proportions
    k / n, with weights=n  proportions, as in R: the weights are the trials

A row without trials is one trial: 0 and 1, false and true, or two labels of which the
second is the success (as in R, where the first level of a factor is the failure).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import DataError, FormulaError, ModelError
from jaxglmm.formula.encode import check_finite
from jaxglmm.formula.notices import listed
from jaxglmm.formula.reading import almost_numbers, not_numeric
from jaxglmm.formula.tables import Column
from jaxglmm.formula.terms import Atom, read_atom
from jaxglmm.formula.text import call, split

NUMERIC, BINOMIAL, ORDINAL, NOMINAL = "numeric", "binomial", "ordinal", "nominal"
KINDS = (NUMERIC, BINOMIAL, ORDINAL, NOMINAL)
NEAR = 0.02  # how far rounding may take a proportion times its trials from a count


@dataclass(frozen=True)
class Left:
    """The left side as text in parts.

    form: "plain", "failures" (the second part counts failures) or "trials".
    """

    text: str
    form: str
    atoms: tuple[Atom, ...]


@dataclass(frozen=True)
class Response:
    """The left side as numbers.

    y: (n,); successes where there are trials. weights: those left, since they may have
    been the trials. levels: labels of y = 0, 1, ... where y was text.
    """

    y: np.ndarray
    trials: np.ndarray | None = None
    weights: np.ndarray | None = None
    levels: np.ndarray | None = None

    @property
    def of_design(self) -> dict[str, np.ndarray | None]:
        """The fields of a ``Design`` that it says."""
        own = {"y": self.y, "weights": self.weights, "trials": self.trials}
        return {**own, "response_levels": self.levels}


def read_left(text: str, family_kind: str = NUMERIC) -> Left:
    """Read a left side.

    Args:
        text: what stands before ``~``.
        family_kind: "binomial" allows successes out of trials.

    Raises:
        FormulaError: for a form that cannot be read, or does not suit the family.
    """
    if family_kind not in KINDS:
        raise ValueError(f"family_kind must be one of {KINDS}, not {family_kind!r}")
    form, parts = "plain", (text,)
    head, inner = call(text)
    bar = [piece.strip() for _, piece in split(text, "|")]
    if head in ("cbind", "p", "prop"):
        form = "failures" if head == "cbind" else "trials"
        parts = tuple(piece.strip() for _, piece in split(inner, ","))
        if len(parts) != 2 or not all(parts):
            example = "cbind(k, n - k)" if head == "cbind" else f"{head}(k, n)"
            raise FormulaError(
                f"response {text!r}: {head}() takes two columns, as in {example}"
            )
    elif len(bar) > 1:
        name, inner = call(bar[-1])
        if len(bar) != 2 or not bar[0] or name != "trials" or not inner.strip():
            raise FormulaError(
                f"response {text!r}: the bar on the left side is for "
                "successes | trials(n)"
            )
        form, parts = "trials", (bar[0], inner.strip())
    if form != "plain" and family_kind != BINOMIAL:
        raise FormulaError(
            f"response {text!r}: successes out of trials are for family='binomial' "
            "and 'betabinomial'. A linear model takes proportions, with weights= the "
            "number of trials"
        )
    return Left(text, form, tuple(read_atom(part) for part in parts))


def binomial_response(
    columns: Sequence[Column],
    form: str,
    *,
    trials: Column | None = None,
    weights: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> Response:
    """Successes and trials.

    Args:
        columns: the parts of the left side, missing rows gone.
        form: as in ``Left``.
        trials: what was given as ``trials=``.
        weights: (n,) prior weights.
        rows: (n,) positions in the user's data, for messages.

    Raises:
        DataError: values that cannot be read so, with the way to write them.
        ModelError: text with one value only.
    """
    first = columns[0]
    if form != "plain":
        if trials is not None:
            raise DataError(
                f"the trials are given twice: on the left side ({form} in "
                f"{', '.join(c.name for c in columns)}) and as trials="
            )
        k, other = (_numbers(c, rows) for c in columns)
        if form == "trials":
            return Response(_successes(first.name, k, other, rows), other, weights)
        negative = np.flatnonzero(other < 0)
        if len(negative):
            raise DataError(
                f"cbind({first.name}, {columns[1].name}): negative failures "
                f"{_first(negative, other, rows)}; the second column counts failures, "
                "n - k, not trials"
            )
        total = k + other
        empty = np.flatnonzero(total <= 0)
        if len(empty):
            raise DataError(
                "every row needs a positive trial count (successes + failures > 0); "
                f"not so {_first(empty, total, rows)}. Leave these rows out"
            )
        return Response(k, total, weights)
    if first.kind == "label":
        if trials is not None:
            raise DataError(
                f"response {first.name!r} is text, which is one trial a row; trials= "
                "needs numbers of successes"
            )
        return _labels(first, weights)
    k = _numbers(first, rows)
    if trials is not None:
        m = _numbers(trials, rows)
        return Response(_successes(first.name, k, m, rows), m, weights)
    if (k == np.round(k)).all():
        _zero_one(first.name, k, rows)
        return Response(k, None, weights)
    return _proportions(first.name, k, weights, rows)


def _labels(column: Column, weights: np.ndarray | None) -> Response:
    codes, levels = column.as_factor()
    if len(levels) == 1:
        raise ModelError(
            f"response {column.name!r} has one value only, {listed(list(levels))}: "
            "there is nothing to fit"
        )
    if len(levels) > 2:
        raise DataError(
            f"response {column.name!r} has {len(levels)} values, "
            f"{listed(list(levels))}; a binomial response has two, failure and "
            f"success. Compare one with the rest, as in "
            f"({column.name} == {levels[-1]!r}) ~ ...{_reads(column)}"
        )
    return Response(codes.astype(np.float64), None, weights, levels)


def _reads(column: Column) -> str:
    return f". {not_numeric(column)}" if almost_numbers(column) else ""


def _successes(name: str, k: np.ndarray, m: np.ndarray, rows) -> np.ndarray:
    """Counts as they are, proportions times their trials."""
    if (k == np.round(k)).all() or (k < 0).any() or (k > 1).any():
        return k  # the family's own check says what is wrong with the others
    counts = k * m
    whole = np.round(counts)
    bad = np.flatnonzero(np.abs(counts - whole) > NEAR)
    if len(bad):
        i = bad[0]
        raise DataError(
            f"response {name!r} holds proportions that are no whole number of "
            f"successes: {k[i]:g} of {m[i]:g} trials (row {_row(i, rows)}; {len(bad)} "
            "such rows). Check the trials; a proportion that is no count out of "
            "trials belongs to family='beta'"
        )
    return whole


def _zero_one(name: str, k: np.ndarray, rows) -> None:
    high = np.flatnonzero((k < 0) | (k > 1))
    if not len(high):
        return
    values = np.unique(k)
    if len(values) == 2:
        raise DataError(
            f"response {name!r} is coded {values[0]:g} and {values[1]:g}; a binomial "
            f"response is 0 and 1. Write ({name} == {values[1]:g}) on the left side"
        )
    raise DataError(
        f"response {name!r} has values other than 0 and 1, "
        f"{_first(high, k, rows)}, and no trials. For successes out of trials write "
        "cbind(successes, failures) or pass trials=; for counts without an upper "
        "bound use family='poisson'"
    )


def _proportions(name: str, k: np.ndarray, weights, rows) -> Response:
    """Proportions whose weights are the trials, as in R."""
    outside = np.flatnonzero((k < 0) | (k > 1))
    if len(outside):
        raise DataError(
            f"response {name!r} is neither 0 and 1 nor a proportion: "
            f"{_first(outside, k, rows)}. family='binomial' needs successes out of "
            "trials"
        )
    if weights is None:
        raise DataError(
            f"response {name!r} holds proportions, whose trials are not known. Pass "
            "trials= (or weights=) the number of trials of each row; proportions that "
            "are no counts belong to family='beta'"
        )
    broken = np.flatnonzero(weights != np.round(weights))
    if len(broken):
        raise DataError(
            f"response {name!r} holds proportions, so weights= are their numbers of "
            f"trials; these are not whole {_first(broken, weights, rows)}. Pass the "
            "trials as trials= and other weights as weights="
        )
    used = weights > 0
    m = np.where(used, weights, 1.0)
    y = np.zeros_like(k)
    y[used] = _successes(
        name, k[used], m[used], np.flatnonzero(used) if rows is None else rows[used]
    )
    return Response(y, m, None if used.all() else used.astype(np.float64))


def _numbers(column: Column, rows) -> np.ndarray:
    if column.values is None or column.kind == "time":
        raise DataError(
            f"{column.name!r} must be numeric, numbers of successes and trials: "
            f"{not_numeric(column)}"
        )
    values = np.asarray(column.values, np.float64)
    check_finite(column.name, (values,), rows)
    return values


def _row(i: int, rows) -> int:
    return int(i if rows is None else rows[i])


def _first(at: np.ndarray, values: np.ndarray, rows) -> str:
    """``in 3 rows, the first 7 (row 2)``."""
    many = f"in {len(at)} rows, the first" if len(at) > 1 else "in one row,"
    return f"{many} {values[at[0]]:g} (row {_row(at[0], rows)})"
