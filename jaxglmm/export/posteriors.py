"""Many posteriors for ArviZ: their draws with a ``model`` dimension."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._version import __version__
from jaxglmm.export.fits import label_of
from jaxglmm.model.covariances.names import kind

if TYPE_CHECKING:
    from jaxglmm.many.posteriors import FittedPosteriors

STATS = ("khat", "ess", "log_evidence", "converged", "status")


def to_arviz(posteriors: FittedPosteriors) -> Any:
    """The draws of many posteriors as ArviZ's own object.

    Args:
        posteriors: many posteriors whose draws were kept.

    Returns:
        ``arviz.InferenceData`` (arviz before 1) or ``xarray.DataTree``: ``beta (chain,
        draw, model, term)``, ``sd (..., sd_term)``, ``cor (..., cor_term)``, dispersion
        by its name; k-hats and status by model in ``constant_data``. NaN where a data
        set failed.

    Raises:
        NotApplicableError: the draws were too many to keep.
    """
    import arviz as az

    draws = posteriors.draws
    if draws is None:
        raise NotApplicableError(
            "draws are not kept: there are too many of them. Ask for fewer, such as "
            "NestedLaplace(draws=500)"
        )
    own = posteriors.labels
    models = range(len(posteriors)) if own is None else map(label_of, own)
    coords: dict[str, Any] = {"model": list(models)}
    values = np.swapaxes(draws, 0, 1)[None]  # chain, draw, model, parameter
    posterior: dict[str, np.ndarray] = {}
    dims: dict[str, list[str]] = {name: ["model"] for name in STATS}
    p = len(posteriors.coefficient_names)
    rest = list(enumerate(posteriors.names))[p:]
    groups = {
        "beta": list(range(p)),
        "sd": [k for k, name in rest if kind(name) == "sd"],
        "cor": [k for k, name in rest if kind(name) == "cor"],
    }
    placed = {k for own in groups.values() for k in own}
    for name, where in groups.items():
        if where:
            term = "term" if name == "beta" else f"{name}_term"
            coords[term] = [posteriors.names[k] for k in where]
            posterior[name], dims[name] = values[..., where], ["model", term]
    for k, name in rest:
        if k not in placed:
            posterior[name], dims[name] = values[..., k], ["model"]
    constant = {name: np.asarray(getattr(posteriors, name)) for name in STATS}
    facts = {
        "inference_library": "jaxglmm",
        "inference_library_version": __version__,
        "inference_method": str(posteriors.facts.get("method", "")),
    }
    data: dict[str, Any] = {"posterior": posterior, "constant_data": constant}
    make: Any = az.from_dict
    if "posterior" in inspect.signature(make).parameters:  # arviz before 1
        return make(**data, coords=coords, dims=dims, attrs=facts)
    return make(data, coords=coords, dims=dims, attrs={"/": facts})
