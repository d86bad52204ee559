"""A Bayesian mixed model and its posterior, as records: what fits and tables are given.

``BayesMixedGLM`` and ``BayesMixedGLMResults`` are these under statsmodels' names.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels.bayes import arguments
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.covariance import Covariance, covariance
from jaxglmm.compat.statsmodels.bayes.layout import DesignLayout
from jaxglmm.compat.statsmodels.mixedlm.arguments import names as columns_of
from jaxglmm.density.smoothed import is_canonical
from jaxglmm.formula.rank import dependent_columns

RULES = {"statsmodels": "legendre", "exact": "exact"}


class BayesState:
    """A model: its arrays, its names, and its design on the structured systems."""

    def __init__(self, given: arguments.Given):
        self._given, self._data = given, given.data
        self._endog_name = given.endog_name
        self._table: pd.DataFrame | None = None  # of a formula
        self._layout: DesignLayout | None = None
        self.verbose = False

    @property
    def endog(self) -> np.ndarray:
        """(n,) the response."""
        return self._data.y

    @property
    def exog(self) -> np.ndarray:
        """(n, p) the fixed-effects design."""
        return self._data.X

    @property
    def exog_vc(self):
        """(n, q) the random-effects design, SciPy sparse."""
        return self._data.Z

    @property
    def exog_vc2(self):
        """Its elementwise square."""
        return self._data.Z.multiply(self._data.Z)

    @property
    def ident(self) -> np.ndarray:
        """(q,) which scale each column has, 0 .. K-1."""
        return self._data.ident

    @property
    def family(self):
        """The family of the response."""
        return self._data.family

    @property
    def k_fep(self) -> int:
        """Number of coefficients."""
        return self._data.X.shape[1]

    @property
    def k_vcp(self) -> int:
        """Number of scales."""
        return len(self._data.vcp_p)

    @property
    def k_vc(self) -> int:
        """Number of random effects."""
        return self._data.Z.shape[1]

    @property
    def fe_p(self):
        """Prior sd of the coefficients, as given."""
        return arguments.plain(self._given.priors[0])

    @property
    def vcp_p(self):
        """Prior sd of the log standard deviations, as given."""
        return arguments.plain(self._given.priors[1])

    @property
    def fep_names(self) -> list[str]:
        """Names of the coefficients."""
        return list(self._given.names.fep)

    @property
    def vcp_names(self) -> list[str]:
        """Names of the scales."""
        return list(self._given.names.vcp)

    @property
    def vc_names(self) -> list[str] | None:
        """Names of the random effects, None where none were given."""
        return None if self._given.names.vc is None else list(self._given.names.vc)

    @property
    def names(self) -> list[str]:
        """All names, in the order of the packing."""
        return self.fep_names + self.vcp_names + (self.vc_names or [])

    @property
    def endog_names(self) -> str:
        """Name of the response."""
        return self._endog_name

    @property
    def exog_names(self) -> list[str]:
        """Names of the columns of ``exog``: const, x1, ... where they had none."""
        endog, exog = self._given.original
        if self._given.frame is not None or isinstance(exog, pd.Series):
            return self.fep_names
        return columns_of(endog, exog, self.nobs)[1]

    @property
    def data(self) -> SimpleNamespace:
        """The arrays and what they were made from, under statsmodels' names."""
        endog, exog = self._given.original
        return SimpleNamespace(
            endog=self.endog,
            exog=self.exog,
            orig_endog=endog,
            orig_exog=exog,
            xnames=self.exog_names,
            ynames=self.endog_names,
            param_names=self.names,
            row_labels=None if self._given.frame is None else self._given.frame.index,
            frame=self._table,
        )

    @property
    def k_constant(self) -> int:
        """1 where the columns of ``exog`` span the constant, else 0."""
        with_one = np.column_stack([self.exog, np.ones(len(self.exog))])
        return int(len(dependent_columns(with_one)) > 0)

    @property
    def nobs(self) -> int:
        """Number of rows."""
        return len(self._data.y)

    @property
    def has_names(self) -> bool:
        """Whether data came with names (a frame or a formula)."""
        return self._given.frame is not None

    @property
    def layout(self) -> DesignLayout:
        """The design on the structured systems, made when first fitted."""
        if self._layout is None:
            self._layout = DesignLayout(self._data)
        return self._layout

    def _unpack(self, vec: np.ndarray):
        return _objective.unpack(self._data, vec)

    def predict(self, params: Any, exog: Any = None, linear: bool = False):
        """X beta, or the mean there: the random effects at zero, no offset in new rows.

        Args:
            params: packed, or the coefficients alone.
            exog: (m, p) design of new rows; the model's own (with its offset) if None.
            linear: the predictor instead of the mean.
        """
        X = self.exog if exog is None else arguments.matrix(exog, "exog")[0]
        if X.shape[1] != self.k_fep:
            raise ValueError(
                f"exog has {X.shape[1]} columns, the model has {self.k_fep}"
            )
        eta = X @ np.asarray(params, float)[: self.k_fep]
        if exog is None:
            eta = eta + self._data.offset
        return eta if linear else np.asarray(self._data.family.mean(eta))

    def _packed(self, vec: Any, name: str) -> np.ndarray:
        out = np.asarray(vec, float)
        k = self.k_fep + self.k_vcp + self.k_vc
        if out.shape != (k,):
            raise ValueError(f"{name} has incorrect length, {np.size(out)} != {k}")
        return out

    def _factored(self, mean: Any, sd: Any) -> _objective.MeanField:
        return _objective.MeanField.of(
            self._data, self._packed(mean, "mean"), self._packed(sd, "sd")
        )

    def _rule(self, quadrature: str) -> str:
        if quadrature not in RULES:
            raise ValueError(
                f"quadrature={quadrature!r} is not one of 'statsmodels', 'exact'"
            )
        if RULES[quadrature] == "legendre" and not is_canonical(self._data.family):
            raise ValueError(
                "statsmodels' quadrature is for the Poisson with log link and the "
                f"binomial with logit link, not {self._data.family!r}; use "
                "quadrature='exact'"
            )
        return RULES[quadrature]


class PosteriorState:
    """A model's posterior; arguments and attributes as ``BayesMixedGLMResults``."""

    def __init__(
        self,
        model: BayesState,
        params: np.ndarray,
        cov_params: Any,
        optim_retvals: Any = None,
        facts: dict[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ):
        self.model = model
        self.params = np.asarray(params, float)
        self.optim_retvals = optim_retvals
        self.facts = {} if facts is None else facts
        self.notes = notes
        self._cov_params: Covariance = covariance(cov_params)
        self.fe_mean, self.vcp_mean, self.vc_mean = model._unpack(self.params)
        sd = np.sqrt(np.maximum(self._cov_params.variances(), 0.0))
        self.fe_sd, self.vcp_sd, self.vc_sd = model._unpack(sd)

    @property
    def method(self) -> str:
        """How the posterior was approximated."""
        return self.facts.get("method", "")

    @property
    def converged(self) -> bool:
        """Whether the optimiser met its test."""
        return bool(getattr(self.optim_retvals, "success", True))

    @property
    def sd_mean(self) -> np.ndarray:
        """(K,) means of the effects' standard deviations (log-normal)."""
        return np.exp(self.vcp_mean + self.vcp_sd**2 / 2)

    def sd_interval(self, alpha: float = 0.05) -> np.ndarray:
        """(K, 2) central intervals of the standard deviations, of mass 1 - alpha."""
        from scipy.stats import norm

        z = norm.ppf(1 - alpha / 2) * self.vcp_sd
        return np.exp(np.column_stack([self.vcp_mean - z, self.vcp_mean + z]))
