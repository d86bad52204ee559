"""Result codes with teaching messages: data inside, a warning at the edge."""

from __future__ import annotations

CONVERGED = 0
MAX_STEPS = 1
NOT_FINITE = 2
STALLED = 3

MESSAGES = {
    CONVERGED: "converged",
    MAX_STEPS: (
        "the optimiser used up its {steps} steps with {decrement:.2g} of the criterion "
        "still to gain (1e-8 counts as converged). Raise max_iter, or simplify the "
        "random effects: drop a term, or write (x || g) for (x | g)"
    ),
    NOT_FINITE: (
        "the criterion is not finite at the starting values. Look for columns of "
        "extreme scale, weights of zero, or a response that is constant"
    ),
    STALLED: (
        "no step lowers the criterion any more although the Newton decrement is still "
        "{decrement:.2g} (1e-8 counts as converged): a flat or badly scaled direction. "
        "Rescale the covariates, or simplify the random effects"
    ),
}


def message(status: int, **numbers: float) -> str:
    """The text for a status code, with its numbers filled in."""
    return MESSAGES[int(status)].format(**numbers)
