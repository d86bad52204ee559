"""Means, slopes and contrasts of a model of several linear predictors, by type.

The types are those of ``components``, and "displink", the linear predictor of the
dispersion. Linear predictors are linear in the coefficients, the others have their
slopes in all parameters by differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.formula.design import NewRows, joined_rows
from jaxglmm.model.links import Log, Logit
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.components import TYPES, Predicted, refuse
from jaxglmm.postestimation.prediction.means import EFFECTS, MeanRows, Means

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_components import FittedComponents

LINKS = {"link": "cond", "zlink": "zi", "displink": "disp"}


class ComponentMeans(Means):
    """Means of one type; see the module."""

    fit: FittedComponents

    def __init__(self, fit: FittedComponents, type: str, re: str):
        _arguments.choice("type", type, (*TYPES, "displink"))
        _arguments.choice("re", re, EFFECTS)
        refuse(fit, type, None)
        self.fit, self.type = fit, type
        self.is_link = type in LINKS
        own = {"zlink": Logit(), "displink": Log()}
        self.link = own.get(type, getattr(fit.family, "base", fit.family).link)
        self.random = re == "marginal" and bool(fit.design.terms) and not self.is_link
        self.is_linear = self.is_affine = self.is_link
        self.covariance = (
            fit.coefficient_covariance() if self.is_link else fit.parameter_covariance
        )

    def at(self, new: NewRows) -> MeanRows:
        if new.parts:
            pairs = zip(self.fit.design.parts.values(), new.parts, strict=True)
            new = joined_rows(tuple(_predict.answerable_of(*pair) for pair in pairs))
        re = "marginal" if self.random else "population"
        asked = Predicted(self.fit, new, self.type, re, 1.0)
        value = asked.values()
        if not self.is_link:
            return MeanRows(value, asked.jacobian(len(value)), np.zeros(len(value)))
        k = self.fit.components.index(LINKS[self.type])
        own = [of == k for of in self.fit.design.of_x]
        K = len(self.fit.components)
        offset = np.broadcast_to(new.offset, (K, len(value)))[k]
        return MeanRows(value, np.where(own, new.X, 0.0), offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Infinite: tests are asymptotic; NaN where there is nothing to test."""
        return np.where(jacobian.any(axis=1), np.inf, np.nan)

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Made on the scale of the predictor."""
        asked = Predicted(self.fit, None, self.type, "population", 1.0)
        return asked.limits(estimate, error, t_quantile(level, df))
