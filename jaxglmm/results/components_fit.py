"""The face of a model of several linear predictors: zero inflation, dispersion."""

from __future__ import annotations

from jaxglmm.fitting.fitted_components import FittedComponents
from jaxglmm.results.generalised_fit import GeneralisedFit


class ComponentsFit(FittedComponents, GeneralisedFit):
    """A fitted model with a model of its zeros or of its dispersion; see ``Fit``.

    Its components are "cond", the mean before zeros are added, "zi", the logit of the
    probability of an added zero, and "disp", the logarithm of the dispersion.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("Salamanders")
        >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson",
        ...               zi="~ mined")
        >>> {name: round(value, 3) for name, value in fit.fixef["zi"].items()}
        {'(Intercept)': 0.756, 'mined[T.no]': -1.859}
    """
