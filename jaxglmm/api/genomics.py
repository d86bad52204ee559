"""The front door for counts that linear models are to be fitted to: ``voom``."""

from __future__ import annotations

from typing import Any

from jaxglmm.many import voom as _voom
from jaxglmm.results.precision import PrecisionWeights


def voom(
    formula: str,
    counts: Any,
    data: Any,
    *,
    span: float = 0.5,
    size: Any = None,
) -> PrecisionWeights:
    """Log counts per million with precision weights, for linear models of counts.

    limma's ``voom``, and with a mixed model after it the way of ``dream``: variances
    of log counts fall with their mean, the trend is found over all genes, and each
    observation is weighted by its inverse at the count that is expected.

    Args:
        formula: of the model that is to be fitted; the trend is that of its fixed
            effects. Its left side is a name.
        counts: (n, D), one row a sample and one column a gene: array, sparse matrix or
            frame.
        data: table of the samples.
        span: share of the genes that a point of the trend is made from.
        size: (n,) effective totals of the samples (normalised library sizes); their
            sums where None.

    Returns:
        ``.log_cpm`` and ``.weights`` (n, D), ``.plot()``.

    Raises:
        DataError: negative or missing counts, samples without counts or predictors.

    Source: Law, Chen, Shi and Smyth (2014), Genome Biology 15, R29; Hoffman and Roussos
    (2021), Bioinformatics 37, 192.

    Example:
        >>> import jaxglmm as jg, numpy as np
        >>> rng = np.random.default_rng(1)
        >>> donor = np.repeat(np.arange(8), 3)
        >>> table = {"dose": np.tile([0.0, 1.0, 2.0], 8), "donor": donor}
        >>> mean = np.exp(rng.normal(4, 1, 200) + rng.normal(0, 0.3, (8, 200))[donor])
        >>> found = jg.voom("y ~ dose + (1 | donor)", rng.poisson(mean), table)
        >>> fits = jg.fit_many("y ~ dose + (1 | donor)", table,
        ...                    responses=found.log_cpm, weights=found.weights)
        >>> fits.moderate().top("dose", 3).shape[0]
        3
    """
    return PrecisionWeights.showing(
        _voom.voom(formula, counts, data, span=span, size=size)
    )
