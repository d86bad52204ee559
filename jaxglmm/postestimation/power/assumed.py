"""A model with parameters that are assumed: a fit's, changed, or all of them given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.components import parameters
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import pack
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.notices import nearest

PLAIN = ("us", "diag")


def _check(values: Mapping[str, float], known: list[str]) -> None:
    """Refuse names of no parameter, and what is no number."""
    for name, value in values.items():
        if name not in known:
            raise NotApplicableError(
                f"{name!r} is no parameter of the model{nearest(str(name), known)}"
            )
        if not _arguments.is_finite(value):
            raise NotApplicableError(f"{name}={_arguments.shown(value)} is no number")


def with_values(model: Any, values: Mapping[str, float] | None) -> Any:
    """The same model with some parameters at other values, by name.

    Coefficients go by their columns, "Days"; others as ``confint`` names them,
    "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma", and dispersions.

    Raises:
        NotApplicableError: no such parameter, or a value it cannot have.
    """
    if values is None:
        return model
    if not isinstance(values, Mapping):
        raise NotApplicableError(
            "values of parameters are a dict by name, {'Days': 5.0, 'sigma': 20}"
        )
    if not values:
        return model
    design, e = model.design, model.estimates
    names = [p.label for p in parameters(design, e, model.is_linear)]
    dispersions = list(model.dispersions)
    known = [*design.x_names, *names, *dispersions]
    _check(values, known)
    beta = np.array(e.beta, float)
    for j, name in enumerate(design.x_names):
        beta[j] = values.get(name, beta[j])
    changed = {k: float(v) for k, v in values.items() if k in names}
    changes: dict[str, Any] = {"beta": beta}
    if changed:
        found = {p.label: p.value for p in parameters(design, e, model.is_linear)}
        changes |= covariances_from(design, found | changed, model.is_linear)
    if any(name in values for name in dispersions):
        if design.residual is not None:
            raise NotApplicableError(
                "parameters of the residual covariance cannot be assumed: fit the "
                "model with fixed= for them"
            )
        natural = [values.get(k, v) for k, v in model.dispersions.items()]
        changes["phi"] = np.asarray(model.family.from_natural(np.array(natural)), float)
    return model.like(design, replace(e, **changes), None, dict(model.diagnostics))


def covariances_from(
    design: Design, values: Mapping[str, float], linear: bool
) -> dict[str, Any]:
    """sigma, lam and theta of ``Estimates`` from sds, correlations and "sigma"."""
    sigma = float(values["sigma"]) if linear else 1.0
    if not sigma > 0:
        raise NotApplicableError(f"sigma={sigma:g} must be positive")
    lam = tuple(_root(term, values) / sigma for term in design.terms)
    return {"sigma": sigma, "lam": lam, "theta": pack(design, lam)}


def _root(term: RandomTerm, values: Mapping[str, float]) -> np.ndarray:
    """(q, q) of a term's covariance."""
    if term.covariance not in PLAIN:
        raise NotApplicableError(
            f"the covariance {term.covariance!r} of ({term.label}) cannot be given by "
            "standard deviations: fit the model with fixed= for them"
        )
    names = term.names
    sd = np.array([float(values[f"sd_{name}|{term.label}"]) for name in names])
    if (sd < 0).any():
        raise NotApplicableError(f"standard deviations of ({term.label}) are negative")
    R = np.eye(len(names))
    for i, later in enumerate(names):
        for j, earlier in enumerate(names[:i]):
            key = f"cor_{later}.{earlier}|{term.label}"
            r = float(values.get(key, 0.0))
            R[i, j] = R[j, i] = r if np.isfinite(r) else 0.0
    size, U = np.linalg.eigh(R)
    if size.min() < -1e-10 or np.abs(R).max() > 1 + 1e-12:
        raise NotApplicableError(
            f"the correlations of ({term.label}) are those of no distribution: their "
            f"matrix has the eigenvalue {size.min():.3g}"
        )
    root = np.linalg.qr((U * np.sqrt(np.maximum(size, 0.0))).T, mode="r").T
    root = root * np.where(np.diagonal(root) < 0, -1.0, 1.0)
    return sd[:, None] * root


def estimates_of(design: Design, values: Mapping[str, float], family: Any) -> Estimates:
    """All parameters of a model without data, by name; family: None of a linear one.

    Coefficients and correlations that are not given are zero; standard deviations,
    sigma and dispersions must be.

    Raises:
        NotApplicableError: a name that is no parameter, or one that is missing.
    """
    linear = family is None
    sds = [f"sd_{n}|{t.label}" for t in design.terms for n in t.names]
    cors = [
        f"cor_{a}.{b}|{t.label}"
        for t in design.terms
        for i, a in enumerate(t.names)
        for b in t.names[:i]
    ]
    phis = [] if linear or not family.n_phi else list(family.phi_names)
    needed = [*sds, *(["sigma"] if linear else []), *phis]
    known = [*design.x_names, *needed, *cors]
    _check(values, known)
    missing = [name for name in needed if name not in values]
    if missing:
        raise NotApplicableError(f"values are missing for {', '.join(missing)}")
    beta = np.array([float(values.get(name, 0.0)) for name in design.x_names])
    phi = np.zeros(0)
    if phis:
        phi = np.asarray(
            family.from_natural(np.array([values[k] for k in phis])), float
        )
    found = covariances_from(design, values, linear)
    return Estimates(
        beta=beta,
        vcov=np.full((len(beta), len(beta)), np.nan),
        b=tuple(np.zeros((t.n_levels, len(t.names))) for t in design.terms),
        criterion=np.nan,
        reml=linear,
        converged=True,
        singular=False,
        status=0,
        n_iter=0,
        decrement=0.0,
        phi=phi,
        **found,
    )


def for_rows(model: Any, design: Design) -> Any:
    """The same parameters for another design; modes of its levels are zero."""
    b = tuple(np.zeros((t.n_levels, len(t.names))) for t in design.terms)
    estimates = replace(model.estimates, b=b)
    return model.like(design, estimates, None, dict(model.diagnostics))
