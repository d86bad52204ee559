"""Many fits for ArviZ: estimates with a model dimension, bootstrap draws as draws."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._version import __version__

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

STATS = ("converged", "singular", "status", "log_likelihood", "steps", "separated")


def to_arviz(fits: FittedModels) -> Any:
    """Estimates as ArviZ's own object.

    Models of ``fit_many`` are a dimension, ``model``, of one chain with one draw, the
    estimate; ``sample_stats`` has standard errors, tests and what became of each fit.
    Draws of a bootstrap are the draws of one chain, without that dimension.

    Args:
        fits: many fits.

    Returns:
        ``arviz.InferenceData`` (arviz before 1) or ``xarray.DataTree``: ``beta
        (chain, draw, model, term)``, ``sd (..., sd_term)``, ``cor (..., cor_term)``,
        the dispersion by its name.

    Example:
        >>> import jaxglmm as jg
        >>> sleep = jg.datasets.load("sleepstudy")
        >>> Y = sleep[["Reaction", "Reaction"]].to_numpy() ** [1.0, 0.5]
        >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
        >>> dict(fits.to_arviz()["posterior"]["beta"].sizes)
        {'chain': 1, 'draw': 1, 'model': 2, 'term': 2}
    """
    import arviz as az

    drawn = fits.p_values is None
    here = [] if drawn else ["model"]
    coords: dict[str, Any] = {
        "term": list(fits.coefficient_names),
        "sd_term": list(fits.sd_names),
    }
    if not drawn:
        labels = range(len(fits)) if fits.labels is None else map(label_of, fits.labels)
        coords["model"] = list(labels)
    posterior, dims = {"beta": fits.coefficients}, {"beta": [*here, "term"]}
    posterior["sd"], dims["sd"] = fits.sd, [*here, "sd_term"]
    if fits.correlation_names:
        coords["cor_term"] = list(fits.correlation_names)
        posterior["cor"], dims["cor"] = fits.correlations, [*here, "cor_term"]
    if fits.dispersion is not None:
        for name, values in zip(fits.dispersion_names, fits.dispersion.T, strict=True):
            posterior[name], dims[name] = values, here
    if "sigma" in fits.names:
        posterior["sigma"], dims["sigma"] = fits.sigma, here
    stats = {name: getattr(fits, name) for name in STATS}
    dims |= dict.fromkeys(STATS, here)
    if not drawn:
        for name in ("se", "df", "p_values"):
            stats[name], dims[name] = getattr(fits, name), [*here, "term"]

    def placed(group: dict[str, Any]) -> dict[str, np.ndarray]:
        known = {k: np.asarray(v) for k, v in group.items() if v is not None}
        return {k: v[None] if drawn else v[None, None] for k, v in known.items()}

    data = {"posterior": placed(posterior), "sample_stats": placed(stats)}
    kept = {
        k: v for k, v in dims.items() if k in data["posterior"] | data["sample_stats"]
    }
    facts = {
        "inference_library": "jaxglmm",
        "inference_library_version": __version__,
    }
    facts |= {k: str(v) for k, v in fits.facts.items() if k in ("formula", "family")}
    make: Any = az.from_dict
    if "posterior" in inspect.signature(make).parameters:  # arviz before 1
        return make(**data, coords=coords, dims=kept, attrs=facts)
    return make(data, coords=coords, dims=kept, attrs={"/": facts})


def label_of(label: Any) -> Any:
    """A label that a coordinate can hold: several columns as one text."""
    return " ".join(map(str, label)) if isinstance(label, tuple) else label
