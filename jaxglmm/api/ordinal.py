"""Ordinal regression under the names of R's package ordinal: ``clmm`` and ``clm``."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.api.models import glmm
from jaxglmm.results.fit import Fit


def clmm(
    formula: str,
    data: Any = None,
    *,
    link: Any = "logit",
    threshold: str = "flexible",
    nAGQ: int = 1,
    levels: Sequence[Any] | None = None,
    weights: Any = None,
    offset: Any = None,
    method: Any = None,
    scale: Any = None,
    nominal: Any = None,
    **options: Any,
) -> Fit:
    """Fit a cumulative link mixed model: ordered categories.

    P(Y <= j) = F(theta_j - x'beta - z'b), by maximum likelihood; the same as
    ``jg.glmm(formula, data, family=jg.Cumulative(link, threshold))``. A formula without
    random effects is a cumulative link model (``clm``).

    Args:
        formula: in lme4's syntax; its intercept is the thresholds.
        data: a table.
        link: "logit", "probit", "cloglog", "loglog" or "cauchit".
        threshold: "flexible", "symmetric", "symmetric2" or "equidistant".
        nAGQ: 1 for Laplace's approximation; more for adaptive Gauss-Hermite quadrature
            with so many nodes, of models with one grouping factor.
        levels: the categories in their order, where the response is text without one.
        weights: prior weights, column name or (n,): frequencies of the rows.
        offset: known part of the linear predictor, column name or (n,).
        scale: right side of a formula, ``"~ x"``, of the logarithm of the latent scale
            (``dispersion=`` of ``glmm``).
        nominal: right side of a formula of effects that differ from threshold to
            threshold (partial proportional odds).
        method: instead of nAGQ, as for ``glmm``; Bayesian methods too.
        options: those of ``glmm``: tol, max_iter, missing, contrasts, conf_level, ...

    Returns:
        A ``Fit`` with ``thresholds``, ``threshold_coefficients`` and predictions of
        categories (``predict(type="probs")``).

    Raises:
        DataError: a response without an order; ModelError: one category only.

    >>> import jaxglmm as jg
    >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
    >>> jg.clmm("y ~ x", data, link="probit").thresholds.round(3).to_dict()
    {'1|2': -0.2, '2|3': 0.983}
    """
    from jaxglmm.model.families import Cumulative

    known = signature(glmm).parameters
    options = {k: v for k, v in options.items() if v is not None}
    if "dispersion" in options:
        scale = options.pop("dispersion")
    strange = [name for name in options if name not in known or name == "family"]
    if strange:
        own = [*signature(clmm).parameters, *known]
        raise unknown_argument("jg.clmm", strange, [n for n in own if n != "family"])
    family = Cumulative(link, threshold, levels)
    if method is None:
        method = _nodes(nAGQ)
    elif nAGQ != 1:
        raise ArgumentError("jg.clmm() takes nAGQ= or method=, not both")
    return glmm(
        formula,
        data,
        family=family,
        method=method,
        weights=weights,
        offset=offset,
        dispersion=scale,
        nominal=nominal,
        **options,
    )


def clm(formula: str, data: Any = None, **options: Any) -> Fit:
    """Fit a cumulative link model, without random effects; see ``clmm``.

    >>> import jaxglmm as jg
    >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
    >>> round(jg.clm("y ~ x", data).log_likelihood, 4)
    -7.7366
    """
    fit = clmm(formula, data, **options)
    if fit.design.terms:
        raise ModelError(
            f"jg.clm() is for models without random effects, and {formula!r} has some: "
            "use jg.clmm()"
        )
    return fit


def _nodes(nAGQ: Any) -> Any:
    from jaxglmm.estimate.presets import AGQ

    if _arguments.is_number(nAGQ) and nAGQ < 0:
        raise ModelError(
            f"nAGQ={nAGQ}: quadrature that does not adapt to the data is not offered; "
            f"nAGQ={-nAGQ} adapts, and is more precise with fewer nodes"
        )
    nodes = _arguments.whole("nAGQ", nAGQ, 1, 100, meaning="the number of nodes")
    return "laplace" if nodes == 1 else AGQ(nodes)
