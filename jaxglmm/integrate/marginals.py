"""All marginals by name, and what options and files make of them."""

from __future__ import annotations

from typing import Any

from jaxglmm._errors import DataError
from jaxglmm.integrate.base import AbstractMarginal, Laplace
from jaxglmm.integrate.exact_marginal import Exact
from jaxglmm.integrate.laplace_derivatives import Hessian
from jaxglmm.integrate.quadrature import AdaptiveQuadrature
from jaxglmm.integrate.restricted import RestrictedLaplace
from jaxglmm.integrate.second_order import SecondOrder

REGISTRY: dict[str, type[AbstractMarginal]] = {
    kind.name: kind
    for kind in (Exact, Laplace, RestrictedLaplace, AdaptiveQuadrature, SecondOrder)
}


def integrator(
    hessian: Hessian = "observed",
    nodes: int = 1,
    order: int = 1,
    probes: int | None = None,
) -> AbstractMarginal:
    """The marginal of these options.

    hessian: information of the rows in log|M|; nodes: a dimension, 1 for Laplace, 0 for
    as many as are needed (``generalised.fit_auto``); order: 2 for the second-order
    approximation; probes: random vectors of large crossed factors.
    """
    if nodes != 1:
        return AdaptiveQuadrature(nodes)
    return SecondOrder(hessian) if order > 1 else Laplace(hessian, probes)


def from_facts(facts: dict[str, Any]) -> AbstractMarginal:
    """The marginal of which ``facts`` wrote; files once kept options alone.

    Raises:
        DataError: a name that is not known.
    """
    options = dict(facts)
    name = options.pop("name", None)
    if name is None:
        return integrator(**options)
    if name not in REGISTRY:
        raise DataError(
            f"the file integrates random effects out by {name!r}, which is unknown; "
            f"known are {', '.join(map(repr, REGISTRY))}. It may be of a newer jaxglmm"
        )
    return REGISTRY[name](**options)
