"""Answers as plain lists, and how near two records of them are.

A number may differ by ``tolerance`` of its scale: its own size, or where that is larger
its standard error (coefficients, limits), or else the largest of the numbers it was
given with (a column of a table, a vector, a matrix): a covariance next to zero is known
to the rounding of the variances next to it. Probabilities are recorded by their
logarithm, so that small ones count as much as large ones. Texts must be the same.
"""

import warnings

import numpy as np
import pandas as pd
from golden.models import CASES

PROBABILITIES = {"p", "p_value", "p_values", "pvalue", "p_boundary", "p_adjusted"}
WITH_ERRORS = {"coefficients": "se", "params": "bse"}  # quantity -> its scale

SMALLEST = 1e-300  # below are subnormal numbers, which some threads flush to zero

TOLERANCE = 1e-10
LOOSER = {  # (case, quantity) -> tolerance
    # slopes are differences of means over small steps, good to ten digits
    ("ohio_bernoulli", "slopes/estimate"): 1e-9,
    ("ohio_bernoulli", "slopes/conf_low"): 1e-9,
    ("ohio_bernoulli", "slopes/conf_high"): 1e-9,
}


def tolerance(case, quantity):
    """What a quantity may differ by, in its scales."""
    whole = LOOSER.get((case, "*"), TOLERANCE)
    return LOOSER.get((case, quantity), whole)


def record(name):
    """All answers of a case, flat: quantity -> list of numbers or of texts."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        answers = CASES[name]()
    ours = {
        f"{w.category.__name__}: {w.message}"
        for w in seen
        if w.category.__module__.startswith("jaxglmm")
    }
    flat = {"warnings": sorted(ours)}
    for quantity, answer in answers.items():
        flat |= dict(flattened(quantity, answer))
    return flat


def flattened(name, answer):
    """(quantity, list) of one answer: tables by column, dicts by key."""
    if answer is None:
        return
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield from flattened(f"{name}/{key}", value)
    elif isinstance(answer, pd.DataFrame):
        yield f"{name}/index", [str(label) for label in answer.index]
        for label in answer.columns:
            yield from flattened(f"{name}/{label}", answer[label].to_numpy())
    elif isinstance(answer, str):
        yield name, answer.splitlines()
    else:
        yield name, plain(name, answer)


def plain(name, answer):
    """A list of floats, or of texts."""
    values = np.ravel(np.asarray(answer))
    if values.dtype.kind not in "biuf":
        try:
            values = values.astype(float)
        except (TypeError, ValueError):
            return [str(value) for value in values]
    values = values.astype(float)
    if name.rsplit("/", 1)[-1] in PROBABILITIES:
        values = np.log10(np.maximum(values, SMALLEST))
    return [float(value) for value in values]


def scales(case, quantity):
    """(k,) what a difference of each number of a recorded case is measured by."""
    numbers = np.abs(np.asarray(case[quantity], float))
    finite = numbers[np.isfinite(numbers)]
    largest = finite.max() if finite.size else 0.0
    errors = case.get(WITH_ERRORS.get(quantity, ""))
    return np.maximum(numbers, largest if errors is None else np.abs(errors))


def distance(case, quantity, now):
    """Largest difference of a quantity in its scales; infinite where not comparable."""
    then = case[quantity]
    if any(isinstance(value, str) for value in [*then, *now]):
        return 0.0 if then == now else np.inf
    if len(then) != len(now):
        return np.inf
    a, b = np.asarray(then, float), np.asarray(now, float)
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)):
        return np.inf
    if not np.array_equal(a[~known], b[~known], equal_nan=True):
        return np.inf
    scale = scales(case, quantity)[known]
    apart = np.abs(a[known] - b[known])
    return float(
        np.max(
            np.where(apart == 0, 0.0, apart / np.maximum(scale, 1e-300)), initial=0.0
        )
    )
