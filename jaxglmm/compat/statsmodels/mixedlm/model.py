"""Linear mixed models under statsmodels' names, on the engine of ``jg.lmm``.

The model is that of Lindstrom and Bates (1988): groups are independent, and in a group
Y = X beta + Z gamma + e, with cov(gamma) = ``cov_re`` and e of variance ``scale``, plus
variance components, effects that are independent of everything else with one variance a
name. Crossed factors are components of one group with all rows; they are codes here, so
that nothing of n x n or q x q is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError
from jaxglmm.compat.statsmodels.mixedlm import arguments, regularized, surface
from jaxglmm.compat.statsmodels.mixedlm import formula as mixedlm_formula
from jaxglmm.compat.statsmodels.mixedlm.estimate import FitRequest, estimate
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams as MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.results import MixedLMResults as MixedLMResults
from jaxglmm.compat.statsmodels.mixedlm.simulate import Distribution
from jaxglmm.compat.statsmodels.mixedlm.state import ModelState
from jaxglmm.compat.statsmodels.mixedlm.structure import VCSpec as VCSpec
from jaxglmm.formula.context import caller_context

ALLOWED = ("missing_idx", "model_spec", "formula")  # of statsmodels' constructor


class MixedLM(ModelState):
    """A linear mixed model.

    Args:
        endog: (n,) response.
        exog: (n, k_fe) fixed effects, an intercept column included where one is wanted.
        groups: (n,) labels of independent groups; or a frame or dict of factors,
            which are then crossed random intercepts.
        exog_re: (n, k_re) design of the correlated random effects; an intercept where
            neither it nor ``exog_vc`` is given.
        exog_vc: a ``VCSpec``, or a dict name -> group -> matrix.
        use_sqrt: packed parameters, ``free`` masks and optimisation in the root of the
            covariance (True) or in the covariance itself.
        missing: "none" (missing values are refused), "drop" or "raise".
        weights: (n,) the residual variance of a row is ``scale`` / weight.

    Raises:
        DataError: lengths that do not agree, values that are missing or infinite.
        ModelError: dependent columns of ``exog``, by name, when the model is fitted.

    >>> import jaxglmm as jg
    >>> from jaxglmm.compat.statsmodels import MixedLM
    >>> pigs = jg.datasets.load("dietox")
    >>> model = MixedLM.from_formula("Weight ~ Time", pigs, groups="Pig")
    >>> result = model.fit()
    >>> result.fe_params.round(3).to_dict(), round(float(result.llf), 3)
    ({'Intercept': 15.724, 'Time': 6.943}, -2404.775)
    """

    def __init__(
        self,
        endog: Any,
        exog: Any,
        groups: Any,
        exog_re: Any = None,
        exog_vc: Any = None,
        use_sqrt: bool = True,
        missing: str = "none",
        *,
        weights: Any = None,
        **kwargs: Any,
    ):
        _refuse(name for name in kwargs if name not in ALLOWED)
        given = arguments.read(endog, exog, groups, exog_re, exog_vc, missing, weights)
        super().__init__(given, use_sqrt)

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        re_formula: str | None = None,
        vc_formula: Mapping[str, str] | None = None,
        subset: Any = None,
        use_sparse: bool = False,
        missing: str = "none",
        *args: Any,
        **kwargs: Any,
    ) -> MixedLM:
        """A model from formulas and a table.

        Args:
            formula: "y ~ x"; random effects may also be in it as in lme4, "(1 | g)".
            data: pandas or polars frame, pyarrow table, dict of arrays.
            re_formula: one-sided formula of the correlated random effects; a random
                intercept where neither it nor ``vc_formula`` is given.
            vc_formula: name -> one-sided formula of a variance component; write "0 +
                C(g)" for an intercept of each level of g within each group.
            subset: rows of ``data`` to use, as for ``DataFrame.loc``.
            use_sparse: make ``exog_vc.mats`` sparse. (No matrix is made for fitting.)
            missing: "none" (refused), "drop" or "raise".
            *args: none is taken.
            **kwargs: ``groups=`` (required: name of a column, or labels), ``weights=``,
                ``use_sqrt=``, ``eval_env=`` (-1: formulas see no names but their own).

        Raises:
            AttributeError: no ``groups``.
            FormulaError, DataError: naming what cannot be read, and what to do.

        >>> import jaxglmm as jg
        >>> from jaxglmm.compat.statsmodels import MixedLM
        >>> pigs = jg.datasets.load("dietox")
        >>> nested = MixedLM.from_formula(
        ...     "Weight ~ Time", pigs, re_formula="1",
        ...     vc_formula={"Pig": "0 + C(Pig)"}, groups="Litter",
        ... )
        >>> nested.fit().vcomp.round(1).tolist()
        [31.2]
        """
        if args:
            raise TypeError(
                "MixedLM.from_formula takes keyword arguments after missing"
            )
        if "groups" not in kwargs and "|" not in str(formula):
            raise AttributeError(mixedlm_formula.REQUIRED)
        groups = kwargs.pop("groups", None)
        weights = kwargs.pop("weights", None)
        use_sqrt = kwargs.pop("use_sqrt", True)
        eval_env = kwargs.pop("eval_env", 0)
        exog_re, exog_vc = kwargs.pop("exog_re", None), kwargs.pop("exog_vc", None)
        for name in ALLOWED:
            kwargs.pop(name, None)
        _refuse(kwargs)
        depth = 1 if eval_env in (None, -1) else 1 + int(eval_env)
        context = {} if eval_env == -1 else dict(caller_context(depth))
        read = mixedlm_formula.read(
            formula,
            data,
            re_formula,
            vc_formula,
            subset,
            missing,
            groups,
            weights,
            context,
        )
        self = cls.__new__(cls)
        if exog_re is None and exog_vc is None:
            given = read.given(use_sparse)
        elif re_formula is not None or vc_formula is not None:
            raise DataError(
                "exog_re and exog_vc stand beside re_formula or vc_formula: give one"
            )
        else:
            made = (read.y, read.X, read.groups, exog_re, exog_vc, "none", read.weights)
            given = replace(arguments.read(*made), n_missing=read.n_missing)
        ModelState.__init__(self, given, use_sqrt)
        self.formula, self._spec = str(formula), read.spec
        self.data.frame, self.data.formula = read.frame, self.formula
        self.data.model_spec = read.spec
        return self

    # Evaluations ----------------------------------------------------------------------

    def _params(self, params: Any, has_fe: bool) -> MixedLMParams:
        if isinstance(params, MixedLMParams):
            return params
        return MixedLMParams.from_packed(
            params, self.k_fe, self.k_re, self.use_sqrt, has_fe
        )

    def loglike(self, params: Any, profile_fe: bool = True) -> float:
        """The log-likelihood with the scale profiled out.

        ML or REML as ``self.reml`` says (True, or what was fitted last), less the
        penalties of the last fit.

        Args:
            params: a ``MixedLMParams``, or a packed vector of covariance parameters.
            profile_fe: fixed effects at their estimates by generalised least squares.
        """
        return surface.loglike(self, self._params(params, False), profile_fe)

    def score(self, params: Any, profile_fe: bool = True) -> np.ndarray:
        """Gradient of ``loglike``, in the coordinates of ``use_sqrt``.

        Covariance parameters; before them the fixed effects where these are not
        profiled. Zero where the last fit held a parameter.
        """
        return surface.score(self, self._params(params, False), profile_fe)

    def score_full(
        self, params: Any, calc_fe: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients over fixed effects, elements of the covariance, components.

        Args:
            params: a ``MixedLMParams``, or a packed vector of covariance parameters.
            calc_fe: False returns zeros for the fixed effects.
        """
        return surface.score_full(self, self._params(params, False), calc_fe)

    def score_sqrt(
        self, params: Any, calc_fe: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same over entries of the root of the covariance and of the components."""
        return surface.score_sqrt(self, self._params(params, False), calc_fe)

    def hessian(self, params: Any) -> tuple[np.ndarray, bool]:
        """Second derivatives over (fixed effects, covariance elements, components).

        Args:
            params: a ``MixedLMParams``, or a packed vector with the fixed effects.

        Returns:
            The matrix, and whether the covariance is singular (which is no obstacle).
        """
        return surface.hessian(self, self._params(params, has_fe=True))

    def information(self, params: Any) -> np.ndarray:
        """Minus ``hessian``."""
        return -self.hessian(params)[0]

    def get_fe_params(
        self, cov_re: Any, vcomp: Any, tol: float = 1e-10
    ) -> tuple[np.ndarray, bool]:
        """Fixed effects by generalised least squares at a covariance.

        Args:
            cov_re: (k_re, k_re), relative to the scale.
            vcomp: (k_vc,), relative to the scale.
            tol: eigenvalue below which the covariance is reported as singular.

        Returns:
            (k_fe,) estimates, exact for singular covariances too; whether it is one.
        """
        cov_re, vcomp = np.asarray(cov_re, float), np.asarray(vcomp, float)
        singular = bool((vcomp < tol).any())
        if self.k_re:
            singular |= bool(np.linalg.eigvalsh(cov_re)[0] < tol)
        at = MixedLMParams.from_components(cov_re=cov_re, vcomp=vcomp)
        return surface.best_fixed(self, at), singular

    def get_scale(self, fe_params: Any, cov_re: Any, vcomp: Any) -> float:
        """Residual variance at given fixed effects and relative covariances."""
        square = np.asarray(cov_re, float).reshape(self.k_re, self.k_re)
        at = MixedLMParams.from_components(fe_params, square, vcomp=vcomp)
        return self._evaluator.scale_at(at, self.reml)

    def predict(self, params: Any, exog: Any = None) -> np.ndarray:
        """X beta.

        Args:
            params: a ``MixedLMParams``, or a vector that begins with the fixed effects.
            exog: (m, k_fe), or new data for the formula; default the data of the model.
        """
        if isinstance(params, MixedLMParams):
            params = params.fe_params
        beta = np.asarray(params, float)[: self.k_fe]
        return surface.new_exog(self, exog) @ beta

    def get_distribution(
        self, params: Any, scale: float, exog: Any = None
    ) -> Distribution:
        """The distribution of the response, for its ``rvs``.

        Args:
            params: (k_params,) packed, variances relative to the scale.
            scale: residual variance.
            exog: (n, k_fe) fixed-effects design; default the model's.
        """
        return Distribution(self, params, scale, exog)

    # Fits -----------------------------------------------------------------------------

    def fit(
        self,
        start_params: Any = None,
        reml: bool = True,
        niter_sa: int = 0,
        do_cg: bool = True,
        fe_pen: Any = None,
        cov_pen: Any = None,
        free: MixedLMParams | None = None,
        full_output: bool = False,
        method: Any = None,
        *,
        em_steps: int = 0,
        fix: Mapping[str, float] | None = None,
        cov_type: str = "nonrobust",
        **fit_kwargs: Any,
    ) -> MixedLMResults:
        """Fit by REML or maximum likelihood.

        Args:
            start_params: a ``MixedLMParams`` or a packed vector to start from.
            reml: restricted maximum likelihood, or maximum likelihood.
            niter_sa: the same as ``em_steps``.
            do_cg: False evaluates at the start (after EM steps) and optimises nothing.
            fe_pen: penalty of the fixed effects: an object with ``func(params)`` and
                ``deriv(params)``.
            cov_pen: penalty of the relative covariance: ``func(cov_re, cov_re_inv)``
                and ``deriv`` of the same, a gradient over the lower triangle.
            free: mask; zeros hold a parameter at its start. An identity for ``cov_re``
                makes independent random effects. Without ``use_sqrt`` the mask is that
                of the covariance itself.
            full_output: keep the points on the way in ``hist``.
            method: None for Newton's method; or SciPy's optimisers by name ("bfgs",
                "lbfgs", "cg", "nm", "powell"), one or a list to be tried in order: they
                run first, and Newton's method finishes.
            em_steps: steps of the ECME algorithm to begin with; each raises the
                likelihood.
            fix: name of a variance as in ``summary`` ("Group Var") -> value to hold.
            cov_type: "nonrobust", or "cluster": the sandwich over groups for the fixed
                effects.
            **fit_kwargs: ``maxiter``, ``tol`` (of -2 log-likelihood); ``gtol``,
                ``ftol``, ``eps``, ``maxcor``, ``maxls``, ``disp`` for SciPy's.

        Raises:
            ValueError: "method newton not available for MixedLM", "invalid
                start_params".
            TypeError: an argument that nothing would read.
        """
        request = FitRequest(
            start_params,
            reml,
            int(em_steps) or int(niter_sa),
            do_cg,
            fe_pen,
            cov_pen,
            free,
            full_output,
            method,
            fix or {},
            cov_type,
            fit_kwargs,
        )
        return estimate(self, request, MixedLMResults)

    def fit_regularized(
        self,
        start_params: Any = None,
        method: Any = "l1",
        alpha: Any = 0,
        ceps: float = 1e-4,
        ptol: float = 1e-6,
        maxit: int = 200,
        **fit_kwargs: Any,
    ) -> MixedLMResults:
        """Fit with an L1 penalty on the fixed effects, variances held at their fit.

        Minimises (y - X beta)'V^-1(y - X beta) + sum_j alpha_j |beta_j| by cyclic
        coordinate descent (Friedman, Hastie and Tibshirani 2010).

        Args:
            start_params: fixed effects to start from; default the unpenalised ones.
            method: "l1", or a penalty object, whose ``alpha`` is set and which goes to
                ``fit`` as ``fe_pen``.
            alpha: weight, or (k_fe,) weights.
            ceps: a coefficient smaller than this is zero.
            ptol: stop when no coefficient changes more.
            maxit: most rounds.
            **fit_kwargs: of the unpenalised ``fit``.
        """
        if isinstance(method, str) and method.lower() != "l1":
            raise ValueError("Invalid regularization method")
        if not isinstance(method, str):
            method.alpha = alpha
            return self.fit(**{**fit_kwargs, "fe_pen": method})
        weights = regularized.checked(alpha, self.k_fe)
        base = self.fit(**fit_kwargs)
        return regularized.shrunk(base, start_params, weights, ceps, ptol, maxit)

    def regularization_path(self, alphas: Any, **kwargs: Any) -> pd.DataFrame:
        """``fit_regularized`` along weights, warm-started: a frame, alpha by name."""
        return regularized.path(self, alphas, kwargs)


def _refuse(names: Iterable[str]) -> None:
    """No argument but those that are named."""
    for name in names:
        raise ValueError(f"argument {name} not permitted for MixedLM initialization")


def mixedlm(
    formula: str,
    data: Any,
    re_formula: str | None = None,
    vc_formula: Mapping[str, str] | None = None,
    subset: Any = None,
    use_sparse: bool = False,
    missing: str = "none",
    **kwargs: Any,
) -> MixedLM:
    """``MixedLM.from_formula`` under its name in statsmodels.formula.api."""
    kwargs.setdefault("eval_env", 0)
    if kwargs["eval_env"] not in (None, -1):
        kwargs["eval_env"] = int(kwargs["eval_env"]) + 1
    return MixedLM.from_formula(
        formula, data, re_formula, vc_formula, subset, use_sparse, missing, **kwargs
    )
