"""What a posterior answers where a fit by maximum likelihood is asked: one table."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.fitted_model import FittedModel

F = TypeVar("F", bound=FittedModel)
P = ParamSpec("P")
T = TypeVar("T")

INSTEAD = {
    "anova": "an analysis of variance tests terms by maximum likelihood; of a "
    "posterior ask contrasts() or test(L) for its differences, or compare with the fit "
    "that leaves a term out by log_evidence or fit.loo()",
    "profile": "a posterior has no profile likelihood; its marginals are in "
    "fit.posterior.frame(), or profile the fit by maximum likelihood",
    "bootstrap": "a posterior needs no bootstrap: its draws are in fit.posterior; "
    "fit.simulate(n) draws new data from it",
    "compare": "likelihood-ratio tests compare fits by maximum likelihood; compare "
    "posteriors by log_evidence, by fit.loo(), or by arviz.compare of "
    "fit.to_arviz()",
}


def of_likelihood(
    method: Callable[Concatenate[F, P], T],
) -> Callable[Concatenate[F, P], T]:
    """The same method, which refuses posteriors with what to ask instead."""
    name = getattr(method, "__name__", "")

    @wraps(method)
    def asked(self: F, /, *args: P.args, **options: P.kwargs) -> T:
        if not self.has_likelihood:
            raise NotApplicableError(INSTEAD[name])
        return method(self, *args, **options)

    return asked
