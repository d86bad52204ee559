"""One posterior found, from its design to a named fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import (
    ConvergenceWarning,
    PosteriorWarning,
    UnboundedLikelihoodError,
)
from jaxglmm.estimate.methods import MAP, NUTS, VB, BayesMethod, NestedLaplace
from jaxglmm.fitting import convergence as diagnose
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import pack
from jaxglmm.fitting.refit_generalised import response_again
from jaxglmm.formula import notices
from jaxglmm.formula.design import Design
from jaxglmm.formula.structures import refuse_posterior
from jaxglmm.integrate.exact_marginal import Exact
from jaxglmm.model import covariances
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.build import resolve
from jaxglmm.model.priors.distributions import Priors
from jaxglmm.posterior import engine as _engine
from jaxglmm.posterior.draws import Posterior, posterior
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.posterior.notes import EXPECTED
from jaxglmm.posterior.outcome import Outcome
from jaxglmm.posterior.run import run

if TYPE_CHECKING:
    from jaxglmm.structure.rows_of_design import RowData

P = TypeVar("P", bound=FittedPosterior)


def fit_posterior(
    design: Design,
    family: AbstractFamily,
    method: BayesMethod,
    priors: Priors | None,
    diagnostics: dict | None = None,
    data: RowData | None = None,
    *,
    make: Callable[..., P] = FittedPosterior,
) -> P:
    """Build, run, name.

    Args:
        design: names and arrays of the model.
        family: of the response.
        method: by which the posterior is found.
        priors: None for defaults.
        diagnostics: facts about what was done before.
        data: rows of the design where they are built already.
        make: the class of what is made.
    """
    refuse_posterior(design)
    engine = _engine.build(design, family, priors, data)
    if isinstance(method, VB):
        method = method.of_predictors(engine.posterior.problem.predictors.K)
    out = run(engine, method)
    words = describe(method, out)
    found = posterior(engine, out, words)
    facts = {} if diagnostics is None else diagnostics
    facts.setdefault("seconds", {}).update(out.seconds)
    facts["system"] = type(engine.data.rows).__name__
    return make(
        design,
        family,
        priors,
        method,
        found,
        estimates(design, family, found, out),
        engine,
        facts,
    )


def refit(fit: P, y) -> P:
    """The same model, priors and method for another response."""
    response, trials = response_again(fit.design, fit.family.family_kind, y)
    fit.family.check(response, trials, fit.design.rows)
    design = replace(fit.design, y=response, trials=trials)
    return fit_posterior(
        design, fit.family, fit.bayes, fit.given_priors, make=type(fit)
    )


def check_response(
    design: Design, family: AbstractFamily, priors: Priors | None
) -> None:
    """Refuse a response that the family cannot have produced.

    One whose likelihood has no maximum, such as successes alone, is what proper priors
    are for.
    """
    try:
        family.check(design.y, design.trials, design.rows)
    except UnboundedLikelihoodError:
        sds = [prior.sd for prior in resolve(design, family, priors).coefficients]
        if not np.isfinite(sds).all():
            raise


def warn(fit: FittedPosterior) -> None:
    """Warn of what the search and the draws found (the formula has warned of data)."""
    data = {n.text for n in diagnose.notes(fit.design, fit.estimates)}
    found = fit.warnings
    if not fit.converged:
        notices.warn(f"Not converged: {fit.status}.", ConvergenceWarning)
    for text in found:
        if text not in data and not any(known in text for known in EXPECTED):
            notices.warn(text, PosteriorWarning)


def describe(method: BayesMethod, out: Outcome) -> str:
    """A method in words."""
    inside = "Laplace"
    if isinstance(out.marginal, Exact):
        inside = "random effects integrated out exactly"
    elif out.marginal is not None and out.marginal.nodes > 1:
        inside = f"{out.marginal.nodes}-node quadrature"
    if isinstance(method, NestedLaplace):
        return f"importance sampling of the marginal posterior ({inside})"
    if isinstance(method, MAP):
        return f"mode of the marginal posterior ({inside}), Gaussian with skewness"
    if isinstance(method, NUTS):
        if out.marginal is None:
            return "NUTS on the joint density"
        return f"NUTS on the marginal posterior ({inside})"
    assert isinstance(method, VB)
    if method.family == "mean-field":
        return "mean-field variational Bayes"
    if method.family == "stochastic":
        return "stochastic variational Bayes"
    nested = ", nested" if out.facts.get("nested") else ""
    return f"Gaussian variational Bayes{nested}"


def estimates(
    design: Design, family: AbstractFamily, found: Posterior, out: Outcome
) -> Estimates:
    """Posterior means where other fits have estimates."""
    m = found.moments
    lam = []
    for term in design.terms:
        sd, own = m.sd[term.label], covariances.of(term)
        if own.has_own:
            x = np.concatenate([sd, m.more[term.label]])
            lam.append(own.matrix(own.from_natural(x)))
            continue
        R = m.corr.get(term.label, np.eye(len(sd)))
        lam.append(np.linalg.cholesky(np.outer(sd, sd) * R + 0.0))
    b = tuple(
        m.effects.get(t.label, np.full((t.n_levels, len(t.names)), np.nan))
        for t in design.terms
    )
    phi = family.phi_of(m.dispersion)
    log_lik = np.nan if out.log_lik is None else float(np.mean(out.log_lik))
    facts = out.facts
    return Estimates(
        beta=m.beta,
        vcov=m.beta_cov,
        sigma=1.0,
        lam=tuple(lam),
        theta=pack(design, lam),
        b=b,
        criterion=-2 * log_lik,
        reml=False,
        converged=out.status == _status.CONVERGED,
        singular=False,
        status=out.status,
        n_iter=int(facts.get("steps", 0)),
        decrement=float(facts.get("decrement", np.nan)),
        phi=phi,
    )
