"""Estimates of a fit with their uncertainty, named where the data had names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from jaxglmm.compat.statsmodels.mixedlm import contrasts
from jaxglmm.compat.statsmodels.mixedlm.fitted import FitNumbers


class NamedEstimates(FitNumbers):
    """Series and frames under statsmodels' names; arrays of a model of arrays."""

    # Names ----------------------------------------------------------------------------

    def _series(self, values: np.ndarray, names: list[str]) -> Any:
        return pd.Series(values, index=names) if self.model._pandas else values

    def _frame(self, values: np.ndarray, names: list[str]) -> Any:
        if not self.model._pandas:
            return values
        return pd.DataFrame(values, index=names, columns=names)

    @property
    def _variance_names(self) -> list[str]:
        return self.model.data.param_names[self.k_fe :]

    # Estimates ------------------------------------------------------------------------

    @property
    def params(self) -> Any:
        """(k,) packed parameters; variances relative to ``scale``."""
        return self._series(self.params_array, self._names)

    @property
    def fe_params(self) -> Any:
        """(k_fe,) fixed effects."""
        return self._series(self.params_object.fe_params, self.model.exog_names)

    @property
    def cov_re(self) -> Any:
        """(k_re, k_re) covariance of the random effects."""
        return self._frame(self.cov_re_array, self.model.data.exog_re_names)

    @property
    def cov_re_unscaled(self) -> Any:
        """``cov_re`` relative to ``scale``."""
        return self._frame(self.params_object.cov_re, self.model.data.exog_re_names)

    # Their uncertainty ----------------------------------------------------------------

    def cov_params(
        self,
        r_matrix: Any = None,
        column: Any = None,
        scale: float | None = None,
        cov_p: Any = None,
        other: Any = None,
    ) -> Any:
        """Covariance of the packed parameters, of R params, or of one parameter.

        Args:
            r_matrix: (r, k) matrix R, with ``other`` for R Cov other'; a number comes
                of (k,).
            column: position, or positions, of parameters instead.
            scale: another scale than ``self.scale``.
            cov_p: another covariance.
            other: (s, k) matrix.
        """
        cov = self.covariance if cov_p is None else np.asarray(cov_p, float)
        if scale is not None:
            cov = cov * (scale / self.scale)
        if column is not None:
            column = np.asarray(column)
            return cov[np.ix_(column, column)] if column.ndim else cov[column, column]
        if r_matrix is not None:
            R = np.asarray(r_matrix, float)
            S = R if other is None else np.asarray(other, float)
            return R @ cov @ S.T
        return self._frame(cov, self._names)

    @property
    def normalized_cov_params(self) -> Any:
        """``cov_params`` over ``scale``."""
        return self._frame(self.covariance / self.scale, self._names)

    @property
    def bse(self) -> Any:
        """(k,) standard errors of ``params``."""
        return self._series(self.bse_array, self._names)

    @property
    def bse_fe(self) -> Any:
        """(k_fe,) standard errors of the fixed effects."""
        return self._series(self.bse_fe_array, self.model.exog_names)

    @property
    def bse_re(self) -> Any:
        """(k_re2 + k_vc,) standard errors of ``cov_re`` (its triangle) and ``vcomp``.

        From observed information on the scale of the data, so that they change with
        the unit of the response as variances do (statsmodels' change with its root).
        Intervals are better from ``profile_re``: variances have skew distributions.
        """
        return self._series(self.bse_re_array, self._variance_names)

    @property
    def tvalues(self) -> Any:
        """(k,) ``params`` over ``bse``."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._series(self.params_array / self.bse_array, self._names)

    @property
    def pvalues(self) -> Any:
        """(k,) two-sided, normal (t with ``df_resid`` where ``use_t``)."""
        t = np.abs(np.asarray(self.tvalues))
        p = stats.t.sf(t, self.df_resid) if self.use_t else stats.norm.sf(t)
        return self._series(2 * p, self._names)

    def conf_int(
        self, alpha: float = 0.05, cols: Any = None, *, ddf: str | None = None
    ) -> Any:
        """Limits of ``params``, a frame of columns 0 and 1.

        Args:
            alpha: one minus the coverage.
            cols: positions of the parameters wanted.
            ddf: "satterthwaite" or "kenward-roger": t-limits of the fixed effects
                alone, with these degrees of freedom.
        """
        if ddf is not None:
            test = contrasts.t_test(self, np.eye(self.k_fe), None, ddf)
            limits, names = test.conf_int(alpha), self.model.exog_names
        else:
            law = stats.t(self.df_resid) if self.use_t else stats.norm()
            half = law.ppf(1 - alpha / 2) * self.bse_array
            limits = np.column_stack(
                [self.params_array - half, self.params_array + half]
            )
            names = self._names
        if cols is not None:
            limits, names = limits[cols], [names[i] for i in np.atleast_1d(cols)]
        return pd.DataFrame(limits, index=names) if self.model._pandas else limits
