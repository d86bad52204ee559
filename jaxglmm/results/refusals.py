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
    "drop1": "terms of a posterior are tested by test(L), or by the log_evidence or "
    "fit.loo() of the fit without them",
    "ranova": "likelihood-ratio tests need maximum likelihood; compare posteriors with "
    "and without a random term by log_evidence, or by fit.loo()",
    "step": "backward elimination tests by maximum likelihood; compare posteriors by "
    "log_evidence, or by fit.loo()",
    "conditional_aic": "a posterior has fit.loo() in its place",
    "cross_validate": "a posterior has fit.loo(), and fit.loo(by=) for whole groups",
    "multistart": "a posterior has fit.certificate",
    "influence": "of a posterior see fit.loo(), whose Pareto k of each row or group "
    "says how far the posterior depends on it",
    "hat_values": "leverages are those of maximum likelihood; see fit.loo() for the "
    "influence of rows on a posterior",
    "cooks_distance": "of a posterior see the Pareto k of fit.loo()",
    "power": "power is simulated from fits by maximum likelihood; give assumed "
    "parameters to jg.design(...) instead",
    "extend": "give assumed parameters to jg.design(...) instead",
    "power_curve": "give assumed parameters to jg.design(...) instead",
    "draws": "the draws of a posterior are in fit.posterior: .frame(), .beta, .ranef",
    "studentised_residuals": "of a posterior see fit.simulated_residuals()",
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
