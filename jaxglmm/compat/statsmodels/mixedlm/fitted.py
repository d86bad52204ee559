"""A fit with the numbers that are computed once, when they are first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels.mixedlm import covariance as covariances
from jaxglmm.compat.statsmodels.mixedlm import surface
from jaxglmm.compat.statsmodels.mixedlm.state import FitState


class FitNumbers(FitState):
    """Estimates with their covariances, and the random effects, as arrays."""

    @cached_property
    def covariance(self) -> np.ndarray:
        """(k, k) covariance of the packed parameters, as an array."""
        return covariances.packed(self)

    @cached_property
    def natural_covariance(self) -> np.ndarray:
        """Covariance of (fixed effects, cov_re, vcomp, scale), in units of the data."""
        return covariances.natural(self)

    @property
    def bse_array(self) -> np.ndarray:
        """``bse`` as an array."""
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def bse_fe_array(self) -> np.ndarray:
        """``bse_fe`` as an array."""
        return self.bse_array[: self.k_fe]

    @property
    def bse_re_array(self) -> np.ndarray:
        """``bse_re`` as an array."""
        return np.sqrt(np.diagonal(self.natural_covariance)[self.k_fe : -1])

    @property
    def df_modelwc(self) -> int:
        """Number of packed parameters."""
        return len(self.params_array)

    @property
    def k_constant(self) -> int:
        """1 where the fixed effects span the constant, else 0."""
        return self.model.k_constant

    @cached_property
    def hessv(self) -> tuple[np.ndarray, bool]:
        """``model.hessian`` at the estimates: the matrix, if ``cov_re`` is singular.

        (With ``use_sqrt`` statsmodels reads its own ``params`` as a root there, and so
        evaluates at another point.)
        """
        return surface.hessian(self.model, self.params_object)

    @property
    def k_estimated(self) -> int:
        """Number of estimated parameters, the scale included."""
        return int((~self.is_held).sum()) + 1

    @property
    def aic(self) -> float:
        """Akaike's criterion; of the restricted likelihood under REML.

        (statsmodels gives NaN there. Compare REML fits of equal fixed effects only.)
        """
        return -2 * (self.llf - self.k_estimated)

    @property
    def bic(self) -> float:
        """Schwarz's criterion with n the number of rows; see ``aic`` for REML."""
        return -2 * self.llf + float(np.log(self.nobs)) * self.k_estimated

    @cached_property
    def _modes(self) -> list[np.ndarray]:
        return covariances.modes(self)

    @cached_property
    def fitted_array(self) -> np.ndarray:
        """``fittedvalues`` as an array."""
        return covariances.fitted_values(self, self._modes)

    @property
    def resid_array(self) -> np.ndarray:
        """``resid`` as an array."""
        return self.model.endog - self.fitted_array

    @cached_property
    def random_effects(self) -> dict[Any, pd.Series]:
        """Group -> conditional modes: random effects, then those of the components.

        Defined for singular covariances too.
        """
        return covariances.by_group(self, self._modes)

    @cached_property
    def random_effects_cov(self) -> dict[Any, pd.DataFrame]:
        """Group -> covariance of its random effects given the data and parameters."""
        return covariances.of_groups(self, None)

    @cached_property
    def facts(self) -> dict[str, float]:
        """Sizes of the groups."""
        sizes = np.bincount(self.model._group, minlength=self.model.n_groups)
        return {
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "mean": float(sizes.mean()),
        }

    def remove_data(self) -> None:
        """Drop arrays of the length of the data; tables and tests still work."""
        _ = self.llf, self.covariance, self.natural_covariance, self.facts
        _ = self.random_effects
        self.model.forget_rows()
        self._evaluator = self.jg_fit = None
        self.__dict__.pop("fitted_array", None)
