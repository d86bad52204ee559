"""Residual covariances: scales times a correlation, by name.

    V_ij = exp(s_i + s_j) R_ij(t),   s = B theta_s,

with s the logarithms of standard deviations: one for all rows, one a visit, one a
stratum, or the powers of a variable. ``us`` puts L L' in the place of R (see
``AnyCorrelation``). Parameters are those of the R package mmrm where it has the
structure, in the same order; where covariances differ by group each has its own.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxglmm.model.residuals.correlations import (
    AnyCorrelation,
    Arma11,
    ByLag,
    BySteps,
    CompoundSymmetry,
    Correlation,
    Distance,
    FirstOrder,
    Known,
)

TITLES = {
    "us": "unstructured",
    "toep": "Toeplitz",
    "ar1": "auto-regressive order one",
    "cs": "compound symmetry",
    "ad": "ante-dependence",
    "arma11": "ARMA(1, 1)",
    "car1": "continuous-time AR(1)",
    "sp_exp": "spatial exponential",
    "sp_gau": "spatial Gaussian",
    "known": "known",
    "": "independent",
}
# of visits, and whether there is a nugget
MAKE: dict[str, Callable[[int, bool], Correlation | None]] = {
    "us": lambda visits, nugget: AnyCorrelation(visits),
    "toep": lambda visits, nugget: ByLag(visits),
    "ar1": lambda visits, nugget: FirstOrder(),
    "cs": lambda visits, nugget: CompoundSymmetry(visits),
    "ad": lambda visits, nugget: BySteps(visits),
    "arma11": lambda visits, nugget: Arma11(),
    "car1": lambda visits, nugget: Distance(1, nugget, "rho"),
    "sp_exp": lambda visits, nugget: Distance(1, nugget),
    "sp_gau": lambda visits, nugget: Distance(2, nugget),
    "known": lambda visits, nugget: Known(),
    "": lambda visits, nugget: None,
}


def correlation(
    structure: str, visits: int, nugget: bool = False
) -> Correlation | None:
    """Of a structure, ``toeph`` as of ``toep``; None where rows are independent."""
    return MAKE[_plain(structure)](visits, nugget)


def title(structure: str) -> str:
    """In words."""
    plain = _plain(structure)
    return TITLES[plain] if plain == structure else f"heterogeneous {TITLES[plain]}"


def _plain(structure: str) -> str:
    return structure if structure in MAKE else structure.removesuffix("h")
