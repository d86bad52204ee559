"""Saving a posterior: its draws as arrays, method and priors by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.estimate.methods import NAMED, BayesMethod
from jaxglmm.formula.design import Design
from jaxglmm.model.priors import distributions as _priors
from jaxglmm.posterior.draws import MomentsOfDraws, Posterior
from jaxglmm.posterior.engine import Draws

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
        _priors.Uniform,
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


def arrays(p: Posterior) -> dict[str, Any]:
    """The draws and what belongs to them, as a file keeps them."""
    return {
        "draws": _fields(p.draws),
        "moments": _fields(p.moments),
        "sample_stats": dict(p.sample_stats),
        "log_lik": p.log_lik,
        "log_posterior": p.log_posterior,
        "facts": {k: v for k, v in p.facts.items() if _plain(v)},
    }


def facts(
    bayes: BayesMethod, priors: _priors.Priors | None, posterior: Posterior
) -> dict[str, Any]:
    """Method, priors and scalars as JSON."""
    return {
        "method": type(bayes).__name__,
        "options": {f.name: getattr(bayes, f.name) for f in fields(bayes)},
        "priors": prior_data(priors),
        "scalars": {name: getattr(posterior, name) for name in SCALARS},
    }


def restored(
    saved: dict[str, Any], arrays: dict[str, Any] | None, design: Design
) -> tuple[_priors.Priors | None, BayesMethod, Posterior]:
    """Priors, method and posterior that ``facts`` and ``arrays`` describe."""
    if arrays is None or saved["method"] not in METHODS:
        raise DataError("the file holds no posterior that can be read")
    posterior = Posterior(
        names=tuple(design.x_names),
        terms=tuple(term.take(slice(0, 0)) for term in design.terms),
        draws=Draws(**arrays["draws"]),
        moments=MomentsOfDraws(**arrays["moments"]),
        log_lik=arrays["log_lik"],
        log_posterior=arrays["log_posterior"],
        sample_stats=arrays["sample_stats"],
        facts=arrays["facts"],
        **saved["scalars"],
    )
    method = METHODS[saved["method"]](**saved["options"])
    return data_prior(saved["priors"]), method, posterior


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
