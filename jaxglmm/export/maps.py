"""Results of many fits as maps of the images that were fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special, stats

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.many.images import image_of
from jaxglmm.postestimation.collection import tables

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

FAR = 37.0  # standard deviations, beyond which tails are no normal doubles
WHAT = ("estimate", "se", "t", "df", "z", "p", "p_adjusted")


def to_image(fits: FittedModels, like: Any, terms: Any, what: str, fill: Any) -> Any:
    """See ``Fits.to_image``."""
    _arguments.choice("what", what, WHAT)
    if not isinstance(fill, int | float):
        raise ArgumentError(f"fill={_arguments.shown(fill)} must be a number")
    names = _arguments.names("term", terms)
    return image_of(
        like, fits.labels, {f"{n} {what}": _map(fits, n, what) for n in names}, fill
    )


def _map(fits: FittedModels, name: str, what: str) -> np.ndarray:
    """(D,) of one parameter."""
    if what == "estimate":
        if name == "status":
            return fits.status.astype(float)
        table = tables.wide(fits)
        known = {*fits.coefficient_names, *fits.sd_names, *fits.dispersion_names}
        known |= {"sigma"} & set(table)
        tables.place("parameter", name, tuple(x for x in table if x in known))
        return table[name].to_numpy()
    k = tables.column(fits, name)
    if fits.se is None or fits.df is None or fits.p_values is None:
        raise NotApplicableError(f"what={what!r}: these fits have no standard errors")
    if what == "se":
        return fits.se[:, k]
    if what == "df":
        return fits.df[:, k]
    if what == "p":
        return tables.tested(fits)[:, k]
    if what == "p_adjusted":
        return tables.adjusted(fits)[:, k]
    with np.errstate(invalid="ignore", divide="ignore"):
        t = fits.coefficients[:, k] / fits.se[:, k]
    return t if what == "t" else equivalent(t, fits.df[:, k])


def equivalent(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """(D,) z with the tail probability of t, its sign kept.

    Where that is below the smallest double (z beyond 37) by Wallace's (1959, Annals of
    Mathematical Statistics 30, 1121) transformation, to a per cent there from 30
    degrees of freedom up.
    """
    plain = np.isinf(df)
    with np.errstate(invalid="ignore", divide="ignore"):
        finite = np.where(plain, 1.0, df)
        z = -special.ndtri(stats.t.sf(np.abs(t), finite))
        shrunk = (8 * finite + 1) / (8 * finite + 3)
        far = shrunk * np.sqrt(finite * np.log1p(t**2 / finite))
        z = np.where(z < FAR, z, np.where(np.isnan(t), np.nan, far))
    return np.where(plain, t, np.copysign(z, t))
