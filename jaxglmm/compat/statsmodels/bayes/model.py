"""Bayesian mixed GLMs with statsmodels' signatures, numbers and names.

    y_i ~ family(eta_i), eta = offset + X beta + Z u, u_j ~ N(0, s^2_ident(j))
    beta_j ~ N(0, fe_p^2), log s_k ~ N(0, vcp_p^2)

Unknowns are packed as (beta, log s, u) everywhere. ``logposterior``, ``vb_elbo`` and
their gradients are statsmodels' values. ``fit_map`` is the mode of the *marginal*
posterior of (beta, log s), u integrated out by Laplace's method: the joint density has
its peak at zero variance, where a mode means nothing (``joint=True`` finds the interior
one, if there is one). ``fit_vb`` is the documented mean field, by Newton's method
instead of BFGS; ``structure="joint"`` keeps coefficients and random effects together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.compat.statsmodels.bayes import formula as _formula
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.arguments import read, same_length
from jaxglmm.compat.statsmodels.bayes.fit_map import fit_map as by_mode
from jaxglmm.compat.statsmodels.bayes.fit_vb import fit_vb as by_bound
from jaxglmm.compat.statsmodels.bayes.results import BayesMixedGLMResults
from jaxglmm.compat.statsmodels.bayes.state import BayesState
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.context import caller_context
from jaxglmm.formula.matrix import unmasked

MixedGLMResults = BayesMixedGLMResults


class BayesMixedGLM(BayesState):
    """A generalised linear mixed model with normal priors, any family without scale.

    Args:
        endog: (n,) response; 0/1, booleans, or counts with ``n_trials`` (binomial).
        exog: (n, p) fixed-effects design, array-like or a frame; a vector is a column.
        exog_vc: (n, q) random-effects design, dense or SciPy sparse.
        ident: (q,) labels of the columns; equal labels share a standard deviation.
        vcp_p: prior sd of the log standard deviations, a number or one each.
        fe_p: prior sd of the coefficients, a number or one each.
        fep_names, vcp_names, vc_names: names of coefficients, scales, random effects.
        family: a family of jaxglmm or its name, with any link.
        vc_p: alias of ``vcp_p``.
        offset, exposure: (n,) known part of the predictor; exposure enters as its log.
        weights: (n,) multiply the rows' log densities.
        n_trials: (n,) or a number: binomial trials.
        dispersion: fixed value of the family's dispersion parameter, where it has one.

    Raises:
        ValueError: shapes, lengths or values that do not fit; statsmodels' texts where
            it has the same check.

    >>> import numpy as np
    >>> from jaxglmm.compat.statsmodels import PoissonBayesMixedGLM
    >>> g = np.arange(40) % 8
    >>> y = np.array([1, 0, 3, 2, 6, 1, 0, 2] * 5)
    >>> Z = (g[:, None] == np.arange(8)) * 1.0
    >>> model = PoissonBayesMixedGLM(y, np.ones((40, 1)), Z, np.zeros(8, int))
    >>> model.fit_vb().fe_mean.shape
    (1,)
    """

    default_family = "binomial"
    rng = 5  # half-width of statsmodels' quadrature, an attribute of its class

    def __init__(
        self,
        endog: Any,
        exog: Any,
        exog_vc: Any = None,
        ident: Any = None,
        vcp_p: Any = 1,
        fe_p: Any = 2,
        fep_names: Sequence[str] | None = None,
        vcp_names: Sequence[str] | None = None,
        vc_names: Sequence[str] | None = None,
        *,
        family: Any = None,
        vc_p: Any = None,
        offset: Any = None,
        exposure: Any = None,
        weights: Any = None,
        n_trials: Any = None,
        dispersion: Any = None,
    ):
        given = read(
            endog,
            exog,
            exog_vc,
            ident,
            (fe_p, vcp_p if vc_p is None else vc_p),
            (fep_names, vcp_names, vc_names),
            self.default_family if family is None else family,
            dispersion,
            offset=offset,
            exposure=exposure,
            weights=weights,
            n_trials=n_trials,
        )
        super().__init__(given)

    @classmethod
    def from_formula(
        cls,
        formula: str,
        vc_formulas: Any = None,
        data: Any = None,
        vcp_p: Any = 1,
        fe_p: Any = 2,
        vcp_names: Sequence[str] | None = None,
        vc_names: Sequence[str] | None = None,
        *,
        family: Any = None,
        **options: Any,
    ):
        """A model from formulas.

        Args:
            formula: response and fixed effects, ``"y ~ x"``.
            vc_formulas: dict name -> one-sided formula, one variance component each
                (``{"village": "0 + C(Village)"}``), or a list of formulas, named by
                their texts; None where ``formula`` has terms ``(1 | g)``, ``(x || g)``.
            data: frame or dict of arrays; rows with a missing value are dropped.
            vcp_p: as in the constructor, as all that follow.
            fe_p: prior sd of the coefficients.
            vcp_names: names of the scales.
            vc_names: names of the random effects.
            family: a family of jaxglmm or its name.
            options: offset, exposure, weights, n_trials (columns' names or arrays),
                dispersion, vc_p.

        Raises:
            FormulaError: a formula cannot be read.
        """
        if data is None:
            raise FormulaError("a formula needs data, a frame or a dict of arrays")
        of_rows = ("offset", "exposure", "weights", "n_trials")
        rows = data.index if isinstance(data, pd.DataFrame) else None
        extras = {
            name: by_labels(name, options[name], rows, strict=False)
            for name in of_rows
            if name in options
        }
        context = caller_context(1)
        read = _formula.read(formula, vc_formulas, data, extras, context)
        taken = {name: _taken(value, read, name) for name, value in extras.items()}
        model = cls(
            read.endog,
            read.exog,
            read.exog_vc,
            read.ident,
            vcp_p=vcp_p,
            fe_p=fe_p,
            vcp_names=read.vcp_names if vcp_names is None else vcp_names,
            vc_names=read.vc_names if vc_names is None else vc_names,
            family=family,
            **{**options, **taken},
        )
        model._endog_name, model._table = read.endog_name, read.frame
        model.formula = formula
        return model

    # Evaluations: statsmodels' numbers -----------------------------------------------

    def logposterior(self, params: Any, *, constants: bool = False) -> float:
        """log p(y, beta, log s, u), normalisers of priors and effects dropped.

        Args:
            params: packed (beta, log s, u).
            constants: add what statsmodels leaves out.
        """
        params = self._packed(params, "params")
        value = _objective.log_posterior(self._data, params)
        if constants:
            value += _objective.log_posterior_constant(self._data)
        return value

    def logposterior_grad(self, params: Any) -> np.ndarray:
        """Gradient of ``logposterior``."""
        return _objective.log_posterior_gradient(
            self._data, self._packed(params, "params")
        )

    def vb_elbo(
        self,
        vb_mean: Any,
        vb_sd: Any,
        *,
        quadrature: str = "statsmodels",
        constants: bool = False,
    ) -> float:
        """The evidence lower bound of independent Gaussians.

        Args:
            vb_mean: packed means.
            vb_sd: packed standard deviations.
            quadrature: "statsmodels" (its ten nodes; canonical links) or "exact"
                (closed forms, or Gauss-Hermite).
            constants: add what statsmodels leaves out, so that the value is a lower
                bound of log p(y) (with ``quadrature="exact"``).
        """
        q, rule = self._factored(vb_mean, vb_sd), self._rule(quadrature)
        value = _objective.bound(self._data, q, rule)
        if constants:
            value += _objective.bound_constant(self._data, rule)
        return value

    def vb_elbo_grad(
        self, vb_mean: Any, vb_sd: Any, *, quadrature: str = "statsmodels"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of the bound in means and standard deviations.

        With statsmodels' quadrature these are its values, the quadrature of the
        derivative; with "exact" the derivative of ``vb_elbo``.
        """
        q, rule = self._factored(vb_mean, vb_sd), self._rule(quadrature)
        return _objective.bound_gradient(self._data, q, rule)

    def vb_elbo_base(
        self, h, tm, fep_mean, vcp_mean, vc_mean, fep_sd, vcp_sd, vc_sd
    ) -> float:
        """The bound where a row's term is y tm + E h(z), z ~ N(0, 1).

        Args:
            h: standardised predictor -> (n,), any canonical family's.
            tm: (n,) means of the predictor.
            fep_mean: (p,) means of the coefficients.
            vcp_mean: (K,) means of the log standard deviations.
            vc_mean: (q,) means of the random effects.
            fep_sd: (p,) standard deviations of q, as the next two.
            vcp_sd: (K,).
            vc_sd: (q,).
        """
        parts = (fep_mean, vcp_mean, vc_mean, fep_sd, vcp_sd, vc_sd)
        q = _objective.MeanField(*(np.asarray(x, float) for x in parts))
        return _objective.bound_base(self._data, h, np.asarray(tm, float), q)

    def vb_elbo_grad_base(
        self, h, tm, tv, fep_mean, vcp_mean, vc_mean, fep_sd, vcp_sd, vc_sd
    ) -> tuple[np.ndarray, np.ndarray]:
        """Its gradients from the derivative h of a row's term in the predictor.

        Args:
            h: standardised predictor -> (n,), which knows the means ``tm``.
            tm: (n,) means of the predictor.
            tv: (n,) its variances.
            fep_mean: (p,) means and standard deviations as in ``vb_elbo_base``.
            vcp_mean: (K,).
            vc_mean: (q,).
            fep_sd: (p,).
            vcp_sd: (K,).
            vc_sd: (q,).
        """
        same_length(self.nobs, tm=len(tm), tv=len(tv))
        parts = (fep_mean, vcp_mean, vc_mean, fep_sd, vcp_sd, vc_sd)
        q = _objective.MeanField(*(np.asarray(x, float) for x in parts))
        return _objective.bound_gradient_base(self._data, h, tv, q)

    # Fits ----------------------------------------------------------------------------

    def fit(self, method: str = "BFGS", minim_opts: dict | None = None):
        """``fit_map``; ``fit_vb`` for variational Bayes."""
        return self.fit_map(method, minim_opts)

    def fit_map(
        self,
        method: str = "BFGS",
        minim_opts: dict | None = None,
        scale_fe: bool = False,
        rng: Any = None,
        *,
        joint: bool = False,
    ) -> BayesMixedGLMResults:
        """The mode of the posterior and the Gaussian there.

        Args:
            method: a method of ``scipy.optimize.minimize``, used with ``joint=True``
                where it is not "BFGS". The marginal mode is found by this package's own
                method, Newton's, whatever the name.
            minim_opts: ``maxiter``, ``gtol`` (largest gradient component), ``disp``;
                with another method, that method's options.
            scale_fe: fit with columns of exog centred and divided by their standard
                deviation, the priors on these coefficients, and transform back.
            rng: seed or generator for a random start (deterministic without).
            joint: the mode of the joint density of (beta, log s, u) instead, where it
                has one inside; warns where it has collapsed to a scale of zero.
        """
        return by_mode(self, method, minim_opts, scale_fe, rng, joint)

    def fit_vb(
        self,
        mean: Any = None,
        sd: Any = None,
        fit_method: str = "BFGS",
        minim_opts: dict | None = None,
        scale_fe: bool = False,
        verbose: bool = False,
        rng: Any = None,
        *,
        structure: str = "mean-field",
        quadrature: str = "statsmodels",
    ) -> BayesMixedGLMResults:
        """Variational Bayes.

        Args:
            mean: packed starting values of the means.
            sd: packed starting values of the standard deviations.
            fit_method: "BFGS" (the default) means Newton's method on the structure of
                the design; any other name is a method of ``scipy.optimize.minimize``.
            minim_opts: as in ``fit_map``.
            scale_fe: as in ``fit_map``.
            verbose: print the norm of the gradient at each step.
            rng: seed or generator for random starting sds (deterministic without).
            structure: "mean-field", independent Gaussians as documented; "joint", a
                Gaussian with coefficients and random effects correlated.
            quadrature: "statsmodels" or "exact", see ``vb_elbo``.
        """
        return by_bound(
            self,
            mean,
            sd,
            fit_method,
            minim_opts,
            scale_fe,
            verbose,
            rng,
            structure,
            quadrature,
        )


class PoissonBayesMixedGLM(BayesMixedGLM):
    """Counts with a log link; arguments as in ``BayesMixedGLM``."""

    default_family = "poisson"


class BinomialBayesMixedGLM(BayesMixedGLM):
    """0/1 responses, or counts with ``n_trials``, with a logit link."""

    default_family = "binomial"


def _taken(value: Any, read: _formula.BayesFormulaInputs, name: str) -> Any:
    """An option of ``from_formula`` for the rows that were kept."""
    if value is None or (np.isscalar(value) and not isinstance(value, str)):
        return value
    if isinstance(value, str):
        if value not in read.frame:
            raise DataError(f"{name}={value!r} is not a column of the data")
        column = read.frame[value].to_numpy(float)
        return column if len(column) == len(read.rows) else column[read.rows]
    array = np.asarray(unmasked(value))
    return array if len(array) == len(read.rows) else array[read.rows]
