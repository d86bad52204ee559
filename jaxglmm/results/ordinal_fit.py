"""The face of a cumulative link mixed model."""

from __future__ import annotations

from jaxglmm.fitting.fitted_ordinal import FittedOrdinal
from jaxglmm.results.generalised_fit import GeneralisedFit


class OrdinalFit(FittedOrdinal, GeneralisedFit):
    """A fitted model of ordered categories; see ``Fit``.

    Example:
        >>> import jaxglmm as jg
        >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
        >>> fit = jg.glmm("y ~ x", data, family=jg.Cumulative())
        >>> fit.thresholds.round(3).to_dict(), fit.coefficients.round(3).tolist()
        ({'1|2': -0.053, '2|3': 1.749}, [1.766])
    """
