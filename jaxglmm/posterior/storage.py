"""Saving a posterior: its draws as arrays, method and priors by name."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.estimate.methods import NAMED
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors import distributions as _priors
from jaxglmm.posterior.draws import Moments, Posterior
from jaxglmm.posterior.engine import Draws

if TYPE_CHECKING:
    from jaxglmm.results.posterior_fit import PosteriorFit

PRIORS = {
    cls.__name__: cls
    for cls in (
        _priors.Exponential,
        _priors.Fixed,
        _priors.HalfNormal,
        _priors.HalfT,
        _priors.LKJ,
        _priors.LogNormal,
        _priors.Normal,
    )
}
METHODS = {cls.__name__: cls for cls in NAMED.values()}
KEY = "posterior"  # where the draws are among the diagnostics
SCALARS = (
    "chains",
    "method",
    "log_evidence",
    "log_evidence_error",
    "elbo",
    "khat",
    "ess",
)


def with_arrays(fit: PosteriorFit) -> PosteriorFit:
    """A copy whose diagnostics hold the draws, for ``store.save``."""
    out = copy.copy(fit)
    p = fit.posterior
    arrays = {
        "draws": _fields(p.draws),
        "moments": _fields(p.moments),
        "sample_stats": dict(p.sample_stats),
        "log_lik": p.log_lik,
        "log_posterior": p.log_posterior,
        "facts": {k: v for k, v in p.facts.items() if _plain(v)},
    }
    out.diagnostics = fit.diagnostics | {KEY: arrays}
    return out


def facts(fit: PosteriorFit) -> dict[str, Any]:
    """Method, priors and scalars as JSON."""
    return {
        "method": type(fit.bayes).__name__,
        "options": {f.name: getattr(fit.bayes, f.name) for f in fields(fit.bayes)},
        "priors": prior_data(fit.given_priors),
        "scalars": {name: getattr(fit.posterior, name) for name in SCALARS},
    }


def restored(
    saved: dict[str, Any],
    design: Design,
    family: AbstractFamily,
    estimates: Estimates,
    diagnostics: dict,
) -> PosteriorFit:
    """The fit that ``facts`` and the arrays describe."""
    from jaxglmm.results.posterior_fit import PosteriorFit

    arrays = diagnostics.pop(KEY, None)
    if arrays is None or saved["method"] not in METHODS:
        raise DataError("the file holds no posterior that can be read")
    terms = tuple(
        (t.label, t.factor, tuple(t.names), tuple(t.levels.tolist()))
        for t in design.terms
    )
    posterior = Posterior(
        names=tuple(design.x_names),
        terms=terms,
        draws=Draws(**arrays["draws"]),
        moments=Moments(**arrays["moments"]),
        log_lik=arrays["log_lik"],
        log_posterior=arrays["log_posterior"],
        sample_stats=arrays["sample_stats"],
        facts=arrays["facts"],
        **saved["scalars"],
    )
    method = METHODS[saved["method"]](**saved["options"])
    priors = data_prior(saved["priors"])
    return PosteriorFit(
        design, family, priors, method, posterior, estimates, None, diagnostics
    )


def _fields(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | np.ndarray)


def prior_data(value: Any) -> Any:
    """Priors as JSON: records by the names of their classes."""
    if isinstance(value, _priors.Priors):
        return {
            "Priors": {
                f.name: prior_data(getattr(value, f.name)) for f in fields(value)
            }
        }
    if type(value).__name__ in PRIORS:
        numbers = {k: _number(v) for k, v in vars(value).items()}
        return {type(value).__name__: numbers}
    if isinstance(value, dict):
        return {"dict": [[k, prior_data(v)] for k, v in value.items()]}
    if isinstance(value, list | tuple | np.ndarray):
        return [prior_data(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def data_prior(value: Any) -> Any:
    """The inverse of ``prior_data``."""
    if isinstance(value, list):
        return [data_prior(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((name, inside),) = value.items()
    if name == "Priors":
        return _priors.Priors(**{k: data_prior(v) for k, v in inside.items()})
    if name == "dict":
        return {k: data_prior(v) for k, v in inside}
    return PRIORS[name](**{k: float(v) for k, v in inside.items()})


def _number(value: Any) -> Any:
    """inf is no JSON number."""
    return float(value) if np.isfinite(value) else str(float(value))
