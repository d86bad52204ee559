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
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError, UnboundedLikelihoodError
from jaxglmm.compat.statsmodels.bayes import fits as _fits
from jaxglmm.compat.statsmodels.bayes import formula as _formula
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.layout import Data, Layout
from jaxglmm.compat.statsmodels.bayes.results import BayesMixedGLMResults
from jaxglmm.compat.statsmodels.mixedlm.arguments import aligned, names
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.context import caller_context
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.rank import dependent_columns
from jaxglmm.model.families import AbstractFamily, family_from

RULES = {"statsmodels": "legendre", "exact": "exact"}
MixedGLMResults = BayesMixedGLMResults


class BayesMixedGLM:
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
        exog_vc, offset, exposure, weights, n_trials = aligned(
            endog,
            exog,
            exog_vc=exog_vc,
            offset=offset,
            exposure=exposure,
            weights=weights,
            n_trials=n_trials,
        )
        self._family = family_from(self.default_family if family is None else family)
        y, self._endog_name = _vector(endog, "endog")
        self._data_given = (endog, exog)
        X, columns = _matrix(exog, "exog")
        Z = _sparse(exog_vc)
        labels, self._ident = _ident(ident, Z.shape[1])
        k = len(labels)
        n = len(y)
        _same_length(n, exog=len(X), exog_vc=Z.shape[0])
        self._names = _Names(columns, X.shape[1], k, fep_names, vcp_names, vc_names)
        self._names.check(Z.shape[1])
        vcp_p = vcp_p if vc_p is None else vc_p
        trials = _column(1.0 if n_trials is None else n_trials, n, "n_trials")
        if n_trials is not None and self._family.family_kind != "binomial":
            raise ValueError(
                f"n_trials belongs to a binomial response, not {self._family.name}"
            )
        weights = _column(1.0 if weights is None else weights, n, "weights")
        if (weights < 0).any():
            raise ValueError("weights must not be negative")
        _check_response(self._family, y, trials, n_trials)
        self._data = Data(
            y=y,
            X=X,
            Z=Z,
            ident=self._ident,
            trials=trials,
            weights=weights,
            offset=_offset(offset, exposure, n),
            family=self._family,
            phi=_dispersion(self._family, dispersion),
            fe_p=_scale(fe_p, X.shape[1], "fe_p"),
            vcp_p=_scale(vcp_p, k, "vcp_p"),
        )
        self._given = (fe_p, vcp_p)
        self._frame = exog if isinstance(exog, pd.DataFrame) else None
        self._table: pd.DataFrame | None = None  # of a formula
        self._layout: Layout | None = None
        self.verbose = False

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

    # What the model is ---------------------------------------------------------------

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
        return self._family

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
        return _plain(self._given[0])

    @property
    def vcp_p(self):
        """Prior sd of the log standard deviations, as given."""
        return _plain(self._given[1])

    @property
    def fep_names(self) -> list[str]:
        """Names of the coefficients."""
        return list(self._names.fep)

    @property
    def vcp_names(self) -> list[str]:
        """Names of the scales."""
        return list(self._names.vcp)

    @property
    def vc_names(self) -> list[str] | None:
        """Names of the random effects, None where none were given."""
        return None if self._names.vc is None else list(self._names.vc)

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
        endog, exog = self._data_given
        if self._frame is not None or isinstance(exog, pd.Series):
            return self.fep_names
        return names(endog, exog, self.nobs)[1]

    @property
    def data(self) -> SimpleNamespace:
        """The arrays and what they were made from, under statsmodels' names."""
        endog, exog = self._data_given
        return SimpleNamespace(
            endog=self.endog,
            exog=self.exog,
            orig_endog=endog,
            orig_exog=exog,
            xnames=self.exog_names,
            ynames=self.endog_names,
            param_names=self.names,
            row_labels=None if self._frame is None else self._frame.index,
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
        return self._frame is not None

    @property
    def layout(self) -> Layout:
        """The design on the structured systems, made when first fitted."""
        if self._layout is None:
            self._layout = Layout(self._data)
        return self._layout

    def _unpack(self, vec: np.ndarray):
        return _objective.unpack(self._data, vec)

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
        q = _objective.Factored(*(np.asarray(x, float) for x in parts))
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
        _same_length(self.nobs, tm=len(tm), tv=len(tv))
        parts = (fep_mean, vcp_mean, vc_mean, fep_sd, vcp_sd, vc_sd)
        q = _objective.Factored(*(np.asarray(x, float) for x in parts))
        return _objective.bound_gradient_base(self._data, h, tv, q)

    def predict(self, params: Any, exog: Any = None, linear: bool = False):
        """X beta, or the mean there: the random effects at zero, no offset in new rows.

        Args:
            params: packed, or the coefficients alone.
            exog: (m, p) design of new rows; the model's own (with its offset) if None.
            linear: the predictor instead of the mean.
        """
        X = self.exog if exog is None else _matrix(exog, "exog")[0]
        if X.shape[1] != self.k_fep:
            raise ValueError(
                f"exog has {X.shape[1]} columns, the model has {self.k_fep}"
            )
        eta = X @ np.asarray(params, float)[: self.k_fep]
        if exog is None:
            eta = eta + self._data.offset
        return eta if linear else np.asarray(self._family.mean(eta))

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
        return _fits.fit_map(self, method, minim_opts, scale_fe, rng, joint)

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
        return _fits.fit_vb(
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

    # Checks --------------------------------------------------------------------------

    def _packed(self, vec: Any, name: str) -> np.ndarray:
        out = np.asarray(vec, float)
        k = self.k_fep + self.k_vcp + self.k_vc
        if out.shape != (k,):
            raise ValueError(f"{name} has incorrect length, {np.size(out)} != {k}")
        return out

    def _factored(self, mean: Any, sd: Any) -> _objective.Factored:
        return _objective.Factored.of(
            self._data, self._packed(mean, "mean"), self._packed(sd, "sd")
        )

    def _rule(self, quadrature: str) -> str:
        from jaxglmm.density.smoothed import is_canonical

        if quadrature not in RULES:
            raise ValueError(
                f"quadrature={quadrature!r} is not one of 'statsmodels', 'exact'"
            )
        if RULES[quadrature] == "legendre" and not is_canonical(self._family):
            raise ValueError(
                "statsmodels' quadrature is for the Poisson with log link and the "
                f"binomial with logit link, not {self._family!r}; use "
                "quadrature='exact'"
            )
        return RULES[quadrature]


class PoissonBayesMixedGLM(BayesMixedGLM):
    """Counts with a log link; arguments as in ``BayesMixedGLM``."""

    default_family = "poisson"


class BinomialBayesMixedGLM(BayesMixedGLM):
    """0/1 responses, or counts with ``n_trials``, with a logit link."""

    default_family = "binomial"


class _Names:
    """Names of coefficients, scales and random effects, with statsmodels' defaults."""

    def __init__(self, columns, p: int, k: int, fep, vcp, vc):
        default = [f"FE_{j + 1}" for j in range(p)] if columns is None else columns
        self.fep = list(map(str, default if fep is None else fep))
        self.vcp = (
            [f"VC_{j + 1}" for j in range(k)] if vcp is None else list(map(str, vcp))
        )
        self.vc = None if vc is None else list(map(str, vc))
        if len(self.fep) != p:
            raise ValueError(f"{len(self.fep)} fep_names for the {p} columns of exog")
        if len(self.vcp) != k:
            raise ValueError("The lengths of vcp_names and ident should be the same")

    def check(self, q: int) -> None:
        """Lengths that only exog_vc knows."""
        if self.vc is not None and len(self.vc) != q:
            raise ValueError(f"{len(self.vc)} vc_names for the {q} columns of exog_vc")


def _dispersion(family: AbstractFamily, value: Any) -> np.ndarray:
    if not family.n_phi:
        if value is not None:
            raise ValueError(f"the family {family.name} has no dispersion parameter")
        return np.zeros(0)
    if value is None:
        raise ValueError(
            f"the family {family.name} has a dispersion parameter "
            f"({family.phi_names[0]}), which this class does not estimate: give "
            "dispersion=, or use jaxglmm.glmm(..., method='map')"
        )
    if not float(value) > 0:
        raise ValueError(f"dispersion={value!r} must be positive")
    return np.log([float(value)])


def _vector(values: Any, name: str) -> tuple[np.ndarray, str]:
    """(n,) numbers and their name; booleans are numbers, text is not."""
    label = getattr(values, "name", None)
    if isinstance(values, pd.DataFrame):
        label = values.columns[0]
    array = np.asarray(unmasked(values))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not {array.shape}")
    array = _numbers(array, name)
    return array, "y" if label is None else str(label)


def _matrix(values: Any, name: str) -> tuple[np.ndarray, list[str] | None]:
    """(n, p) numbers, and the names of a frame's columns."""
    columns = None
    if hasattr(values, "columns"):
        columns = [str(c) for c in values.columns]
        values = values.to_numpy()
    array = np.asarray(unmasked(values))
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"'{name}' must have one or two columns")
    return _numbers(array, name), columns


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    try:
        out = array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, not {array.dtype}") from error
    if not np.isfinite(out).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(out)).sum())} missing or infinite values"
        )
    return out


def _sparse(values: Any) -> Any:
    """exog_vc as CSR, never through a dense copy where it is sparse."""
    from scipy import sparse

    if values is None:
        raise ValueError(
            "exog_vc is None: a model without random effects is a GLM; fit it by "
            "jaxglmm.glmm with a formula without (... | g)"
        )
    if sparse.issparse(values):
        out: Any = sparse.csr_array(values).astype(float)
        out.sum_duplicates()
        if not np.isfinite(out.data).all():
            raise ValueError("exog_vc has missing or infinite values")
    else:
        out = sparse.csr_array(_matrix(values, "exog_vc")[0])
    out.eliminate_zeros()
    if out.shape[1] == 0:
        raise ValueError("exog_vc has no columns")
    return out


def _ident(values: Any, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels in sorted order, and (q,) positions among them."""
    if values is None:
        raise ValueError(
            "ident is None: give one label a column of exog_vc, equal where columns "
            "share a standard deviation"
        )
    array = np.asarray(unmasked(values))
    if array.ndim != 1:
        raise ValueError("ident must be a one-dimensional array")
    if len(array) != q:
        raise ValueError("len(ident) should match the number of columns of exog_vc")
    return np.unique(array, return_inverse=True)


def _column(value: Any, n: int, name: str) -> np.ndarray:
    array = np.asarray(unmasked(value), float)
    if array.ndim > 1:
        array = array.reshape(-1)
    if array.ndim == 1:
        _same_length(n, **{name: len(array)})
    out = np.broadcast_to(array, (n,)).astype(float)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} has missing or infinite values")
    return out


def _offset(offset: Any, exposure: Any, n: int) -> np.ndarray:
    out = _column(0.0 if offset is None else offset, n, "offset")
    if exposure is None:
        return out
    exposure = _column(exposure, n, "exposure")
    if not (exposure > 0).all():
        raise ValueError("exposure must be positive: its logarithm is the offset")
    return out + np.log(exposure)


def _scale(value: Any, k: int, name: str) -> np.ndarray:
    array = np.atleast_1d(np.asarray(value, float))
    if array.shape not in ((1,), (k,)):
        raise ValueError(f"{name} has {array.size} values; give one, or {k}")
    if not ((array > 0) & np.isfinite(array)).all():
        raise ValueError(f"{name}={value!r} must be positive")
    return np.broadcast_to(array, (k,)).astype(float)


def _check_response(
    family: AbstractFamily, y: np.ndarray, trials: np.ndarray, given: Any
) -> None:
    if family.family_kind != "binomial":
        with suppress(UnboundedLikelihoodError):  # which the priors bound
            family.check(y)
    elif given is not None:
        family.check(y, trials)
    elif not np.array_equal(np.unique(y), [0.0, 1.0]):
        raise ValueError("endog values must be 0 and 1, and not all identical")


def _same_length(n: int, **lengths: int) -> None:
    for name, length in lengths.items():
        if length != n:
            raise ValueError(f"{name} has {length} rows, endog has {n}")


def _plain(value: Any):
    array = np.asarray(unmasked(value), float)
    return float(array) if array.ndim == 0 else array


def _taken(value: Any, read: _formula.Read, name: str) -> Any:
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
