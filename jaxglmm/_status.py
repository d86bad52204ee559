"""Result codes with teaching messages: data inside, a warning at the edge."""

from __future__ import annotations

from collections.abc import Iterable

CONVERGED = 0
MAX_STEPS = 1
NOT_FINITE = 2
STALLED = 3
NO_RESIDUAL = 4
# of a data set among many, before anything is fitted
CONSTANT = 5
BAD_VALUES = 6
TOO_FEW = 7
EXACT = 8

MESSAGES = {
    CONVERGED: "converged",
    MAX_STEPS: (
        "the optimiser stopped at max_iter={steps} with about {decrement:.2g} of the "
        "criterion still to gain. Raise max_iter, or simplify the random effects: drop "
        "a term, or write (x || g) for (x | g)"
    ),
    NOT_FINITE: (
        "the criterion is not finite at the starting values. Look for columns of "
        "extreme scale, weights of zero, or a response that is constant"
    ),
    STALLED: (
        "no step lowers the criterion any more although the Newton decrement is still "
        "{decrement:.2g}: a flat or badly scaled direction. Rescale the covariates, or "
        "simplify the random effects"
    ),
    NO_RESIDUAL: (
        "fixed and random effects together reproduce the response: the residual "
        "standard deviation goes to zero, and the likelihood has no maximum. Look for "
        "a response that is the same in all rows of a level, or that was computed from "
        "the predictors"
    ),
    CONSTANT: "the response is constant: there is no variation to explain",
    BAD_VALUES: "the response has infinite values, or none that the family can produce",
    TOO_FEW: (
        "too few rows or levels are left for the model: no more rows than fixed or "
        "random effects, or a grouping factor with one level"
    ),
    EXACT: (
        "the fixed effects reproduce the response exactly: nothing is left for random "
        "effects and residuals"
    ),
}

NAMES = {  # for tables and counts
    CONVERGED: "converged",
    MAX_STEPS: "out of steps",
    NOT_FINITE: "not finite",
    STALLED: "stalled",
    NO_RESIDUAL: "no residual variance",
    CONSTANT: "constant response",
    BAD_VALUES: "values that cannot be used",
    TOO_FEW: "too few rows or levels",
    EXACT: "fixed effects reproduce the response",
}


def names(codes: Iterable[int]) -> list[str]:
    """The short name of each code."""
    return [NAMES.get(int(code), f"status {int(code)}") for code in codes]


def message(status: int, **numbers: float) -> str:
    """The text for a status code, with its numbers filled in."""
    return MESSAGES[int(status)].format(**numbers)
