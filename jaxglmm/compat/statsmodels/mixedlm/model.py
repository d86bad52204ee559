"""Linear mixed models under statsmodels' names, on the engine of ``jg.lmm``.

The model is that of Lindstrom and Bates (1988): groups are independent, and in a group
Y = X beta + Z gamma + e, with cov(gamma) = ``cov_re`` and e of variance ``scale``, plus
variance components, effects that are independent of everything else with one variance a
name. Crossed factors are components of one group with all rows; they are codes here, so
that nothing of n x n or q x q is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError, ModelError
from jaxglmm.compat.statsmodels.mixedlm import arguments as arguments
from jaxglmm.compat.statsmodels.mixedlm import formula as mixedlm_formula
from jaxglmm.compat.statsmodels.mixedlm import structure as mixedlm_structure
from jaxglmm.compat.statsmodels.mixedlm.estimate import estimate, regularized
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams as MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.results import MixedLMResults as MixedLMResults
from jaxglmm.compat.statsmodels.mixedlm.structure import LazyVCSpec
from jaxglmm.compat.statsmodels.mixedlm.structure import VCSpec as VCSpec
from jaxglmm.formula.context import caller_context
from jaxglmm.formula.design import Design
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.rank import dependent_columns

ALLOWED = ("missing_idx", "model_spec", "formula")  # of statsmodels' constructor


class MixedLM:
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
        for name in kwargs:
            if name not in ALLOWED:
                raise ValueError(
                    f"argument {name} not permitted for MixedLM initialization"
                )
        groups, exog_re, weights = arguments.aligned(
            endog, exog, groups=groups, exog_re=exog_re, weights=weights
        )
        n = len(endog)
        labels, crossed = arguments.factors(groups, n)
        names = arguments.names(endog, exog, n)
        arrays = {
            "endog": arguments.array("endog", endog, n)[:, 0],
            "exog": arguments.array("exog", exog, n),
            "exog_re": None
            if exog_re is None
            else arguments.array("exog_re", exog_re, n),
            "weights": None
            if weights is None
            else arguments.array("weights", weights, n)[:, 0],
        }
        keep = arguments.complete(arrays, labels, missing)
        if keep is not None:
            if exog_vc is not None:
                raise DataError(
                    "missing='drop' cannot drop rows of exog_vc; drop them beforehand, "
                    "or use from_formula"
                )
            arrays = {k: None if v is None else v[keep] for k, v in arrays.items()}
            labels = labels[keep]
            crossed = {k: v[keep] for k, v in crossed.items()}
        components, spec = self._components(exog_vc, labels, crossed)
        re_names = arguments.re_names(exog_re, arrays["exog_re"])
        if arrays["exog_re"] is None and not components:
            arrays["exog_re"] = np.ones((len(labels), 1))
            re_names = ["Group Var"]  # as statsmodels calls it
        self._pandas = isinstance(endog, pd.Series | pd.DataFrame) or isinstance(
            exog, pd.Series | pd.DataFrame
        )
        self._index = getattr(endog, "index", getattr(exog, "index", None))
        if keep is not None and self._index is not None:
            self._index = self._index[keep]
        self._setup(
            arrays, labels, components, spec, names, re_names, use_sqrt, endog, exog
        )
        self.n_missing = 0 if keep is None else int((~keep).sum())

    def _components(self, exog_vc, labels, crossed):
        if crossed:
            zeros = np.zeros(len(labels), int)
            out = []
            for name, values in crossed.items():
                levels, codes = np.unique(values, return_inverse=True)
                label = mixedlm_structure.LevelNames(levels)
                out.append(
                    mixedlm_structure.by_levels(
                        str(name), zeros, 1, codes, len(levels), None, label
                    )
                )
            return sorted(out, key=lambda c: c.name), None
        if exog_vc is None:
            return [], VCSpec([], [], [])
        if isinstance(exog_vc, Mapping):
            warnings.warn(
                "Using deprecated variance components format; pass a VCSpec",
                FutureWarning,
                stacklevel=3,
            )
            exog_vc = arguments.from_dict(exog_vc, np.unique(labels).tolist())
        _, group = np.unique(labels, return_inverse=True)
        rows = mixedlm_formula.rows_of(group, int(group.max()) + 1)
        return mixedlm_structure.from_spec(exog_vc, rows, len(labels)), exog_vc

    def _setup(
        self, arrays, labels, components, spec, names, re_names, use_sqrt, endog, exog
    ) -> None:
        """Dimensions, names and layout; shared by both ways to make a model."""
        self.endog, self.exog = arrays["endog"], arrays["exog"]
        self.exog_re, self.weights = arrays["exog_re"], arrays["weights"]
        self.use_sqrt, self.reml = bool(use_sqrt), True
        self.fe_pen = self.re_pen = self.cov_pen = None
        self._freepat = None
        self._spec: Any = None
        levels, group = np.unique(labels, return_inverse=True)
        self.groups, self._group = labels, group.astype(np.int32)
        self._levels = levels
        self.group_labels = levels.tolist()
        self.n_groups = len(levels)
        self.nobs = self.n_totobs = len(self.endog)
        self._vc = list(components)
        self._use_sparse = False
        if spec is not None:
            self.exog_vc = spec
        self.k_fe = self.exog.shape[1]
        self.k_re = 0 if self.exog_re is None else self.exog_re.shape[1]
        self.k_re2 = self.k_re * (self.k_re + 1) // 2
        self.k_vc = len(self._vc)
        self.k_params = self.k_fe + self.k_re2
        self.endog_names, self.exog_names = names
        constant = np.flatnonzero(
            (np.ptp(self.exog, axis=0) == 0) & (self.exog[0] != 0)
            if len(self.exog)
            else np.zeros(self.k_fe, bool)
        )
        self.data = SimpleNamespace(
            endog=self.endog,
            exog=self.exog,
            orig_endog=endog,
            orig_exog=exog,
            exog_re=self.exog_re,
            xnames=self.exog_names,
            ynames=self.endog_names,
            vcomp_names=[c.name for c in self._vc],
            row_labels=self._index,
            const_idx=int(constant[0]) if len(constant) else None,
            k_constant=int(len(constant) > 0),
            formula=None,
            model_spec=None,
            missing_row_idx=[],
        )
        self._name_effects(re_names)
        self.data.cov_names = self.data.param_names

    def _name_effects(self, re_names: list[str]) -> None:
        full = []
        for i in range(self.k_re):
            full += [f"{re_names[j]} x {re_names[i]} Cov" for j in range(i)]
            full.append(f"{re_names[i]} Var")
        if re_names == ["Group Var"]:
            full = ["Group Var"]
        vc = [f"{c.name} Var" for c in self._vc]
        self.data.exog_re_names = list(re_names)
        self.data.exog_re_names_full = full
        self.data.param_names = [*self.exog_names, *full, *vc]

    @cached_property
    def _full_rank(self) -> bool:
        """True; asked before the first fit, since a design alone may be of any rank."""
        if self.k_fe == 0:
            return True
        dropped = [str(self.exog_names[j]) for j in dependent_columns(self.exog)]
        if dropped:
            raise ModelError(
                f"exog is rank deficient: {', '.join(dropped)} depend on the other "
                "columns. Leave them out (jg.lmm drops them itself)"
            )
        return True

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
        for name in kwargs:
            raise ValueError(
                f"argument {name} not permitted for MixedLM initialization"
            )
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
        if exog_re is None and exog_vc is None:
            return cls._from_read(read, str(formula), use_sqrt, use_sparse)
        if re_formula is not None or vc_formula is not None:
            raise DataError(
                "exog_re and exog_vc stand beside re_formula or vc_formula: give one"
            )
        self = cls(
            read.y,
            read.X,
            read.groups,
            exog_re,
            exog_vc,
            use_sqrt,
            weights=read.weights,
        )
        self._remember(read, str(formula))
        return self

    @classmethod
    def _from_read(
        cls, read, formula: str, use_sqrt: bool, use_sparse: bool
    ) -> MixedLM:
        self = cls.__new__(cls)
        exog_re = read.exog_re
        if exog_re is None and not read.components:
            exog_re = pd.DataFrame({read.group_name: np.ones(len(read.y))})
        arrays = {
            "endog": read.y.to_numpy(float),
            "exog": read.X.to_numpy(float),
            "exog_re": None if exog_re is None else exog_re.to_numpy(float),
            "weights": None if read.weights is None else read.weights.astype(float),
        }
        arguments.complete(arrays, read.groups, "none")
        self._pandas, self._index = True, read.y.index
        names = (str(read.y.name), [str(c) for c in read.X.columns])
        self._setup(
            arrays,
            read.groups,
            read.components,
            None,
            names,
            read.re_names,
            use_sqrt,
            read.y.to_frame(),
            read.X,
        )
        self._use_sparse = use_sparse
        self._remember(read, formula)
        return self

    def _remember(self, read, formula: str) -> None:
        """What a model of a formula has beside its arrays."""
        self.formula, self._spec, self.n_missing = formula, read.spec, read.n_missing
        self.data.frame, self.data.formula = read.frame, formula
        self.data.model_spec = read.spec

    # The data by group ----------------------------------------------------------------

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        return mixedlm_formula.rows_of(self._group, self.n_groups)

    @cached_property
    def row_indices(self) -> dict[Any, list[int]]:
        """Label -> rows of the group."""
        pairs = zip(self.group_labels, self._rows, strict=True)
        return {label: rows.tolist() for label, rows in pairs}

    @cached_property
    def exog_vc(self) -> VCSpec:
        """The variance components as matrices, made when they are looked at."""
        return LazyVCSpec(self._vc, lambda: self._rows, self._use_sparse)

    def group_list(self, array: Any) -> list[np.ndarray] | None:
        """An array (n,) or (n, k) cut into groups, in the order of ``group_labels``."""
        if array is None:
            return None
        values = np.asarray(array)
        return [values[rows] for rows in self._rows]

    @cached_property
    def endog_li(self) -> list[np.ndarray]:
        """The response by group."""
        return self.group_list(self.endog)  # type: ignore[return-value]

    @cached_property
    def exog_li(self) -> list[np.ndarray]:
        """The fixed-effects design by group."""
        return self.group_list(self.exog)  # type: ignore[return-value]

    @cached_property
    def exog_re_li(self) -> list[np.ndarray] | None:
        """The random-effects design by group, None where there is none."""
        return self.group_list(self.exog_re)

    @cached_property
    def exog_re2_li(self) -> list[np.ndarray] | None:
        """Z'Z of every group, None where there is no ``exog_re``."""
        return None if self.exog_re_li is None else [Z.T @ Z for Z in self.exog_re_li]

    @cached_property
    def k_constant(self) -> int:
        """1 where the columns of ``exog`` span the constant, else 0."""
        with_one = np.column_stack([self.exog, np.ones(len(self.exog))])
        return int(len(dependent_columns(with_one)) > 0)

    _init_keys = ("groups", "exog_re", "exog_vc", "use_sqrt", "weights")

    def _get_init_kwds(self) -> dict[str, Any]:
        """What makes the model again: arguments of the constructor, or of the formula.

        statsmodels' tools (mediation) give them back with other data; those of the
        formula are given to ``from_formula`` too.
        """
        kwds: dict[str, Any] = {
            "groups": self.groups,
            "exog_re": self.exog_re,
            "exog_vc": self.exog_vc if self._vc else None,
            "use_sqrt": self.use_sqrt,
            "weights": self.weights,
        }
        if hasattr(self, "formula"):  # no attribute of a model made of arrays
            kwds["formula"] = self.formula
        return kwds

    def information(self, params: Any) -> np.ndarray:
        """Minus ``hessian``."""
        return -self.hessian(params)[0]

    def initialize(self) -> None:
        """Nothing, as in statsmodels: a model is ready when it has been made."""

    # Engines --------------------------------------------------------------------------

    def _layout(self, diagonal: bool = False) -> mixedlm_structure.Layout:
        return mixedlm_structure.layout(
            self._group,
            self._levels,
            self.exog_re,
            self.data.exog_re_names,
            self._vc,
            diagonal,
        )

    def _design(self, diagonal: bool = False, response=None, columns=None) -> Design:
        """The model as a design; perhaps another response, or fewer fixed effects."""
        assert self._full_rank
        chosen = slice(None) if columns is None else columns
        return mixedlm_structure.design(
            self.endog if response is None else response,
            self.exog[:, chosen],
            np.asarray(self.exog_names, object)[chosen].tolist(),
            self._layout(diagonal),
            self.weights,
            self.endog_names,
            getattr(self, "formula", None),
        )

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self._design(), self._layout(), self.k_re, self.k_vc)

    def __getstate__(self) -> dict:
        dropped = ["_evaluator"]
        if isinstance(self.__dict__.get("exog_vc"), LazyVCSpec):
            dropped.append("exog_vc")  # made again when it is looked at
        return {k: v for k, v in self.__dict__.items() if k not in dropped}

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
        at = self._params(params, has_fe=False)
        value = self._evaluator.loglike(at, self.reml, profile_fe)
        if self.cov_pen is not None and self.k_re:
            value -= self.cov_pen.func(at.cov_re, np.linalg.pinv(at.cov_re))
        if self.fe_pen is not None:
            beta = self._beta(at) if profile_fe else at.fe_params
            value -= self.fe_pen.func(beta)
        return float(value)

    def _beta(self, at: MixedLMParams) -> np.ndarray:
        return self.get_fe_params(at.cov_re, at.vcomp)[0]

    def score(self, params: Any, profile_fe: bool = True) -> np.ndarray:
        """Gradient of ``loglike``, in the coordinates of ``use_sqrt``.

        Covariance parameters; before them the fixed effects where these are not
        profiled. Zero where the last fit held a parameter.
        """
        at = self._params(params, has_fe=False)
        if profile_fe:
            at = at.copy()
            at.fe_params = self._beta(at)
        method = self.score_sqrt if self.use_sqrt else self.score_full
        fe, re, vc = method(at, calc_fe=not profile_fe)
        if self._freepat is not None:
            free = self._freepat
            fe = fe * free.fe_params if free.k_fe else fe
            re, vc = re * free.cov_re[free._ix], vc * free.vcomp
        return np.concatenate((re, vc) if profile_fe else (fe, re, vc))

    def score_full(
        self, params: Any, calc_fe: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients over fixed effects, elements of the covariance, components.

        Args:
            params: a ``MixedLMParams``, or a packed vector of covariance parameters.
            calc_fe: False returns zeros for the fixed effects.
        """
        at = self._params(params, has_fe=False)
        fe, inner = self._evaluator.score(at, self.reml, profile_fe=False)
        re, vc = inner[: self.k_re2].copy(), inner[self.k_re2 :]
        if self.cov_pen is not None and self.k_re:
            re -= self.cov_pen.deriv(at.cov_re, np.linalg.pinv(at.cov_re))
        if not calc_fe:
            fe = np.zeros(self.k_fe)
        elif self.fe_pen is not None:
            fe = fe - self.fe_pen.deriv(at.fe_params)
        return fe, re, vc

    def score_sqrt(
        self, params: Any, calc_fe: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same over entries of the root of the covariance and of the components."""
        from jaxglmm.compat.statsmodels.mixedlm.fit import roots_from

        at = self._params(params, has_fe=False)
        fe, re, vc = self.score_full(at, calc_fe)
        coordinates = roots_from(at, None)
        J = coordinates.jacobian(coordinates.start(), 0.0)[:, :-1]
        out = J.T @ np.concatenate([re, vc])
        return fe, out[: self.k_re2], out[self.k_re2 :]

    def hessian(self, params: Any) -> tuple[np.ndarray, bool]:
        """Second derivatives over (fixed effects, covariance elements, components).

        Args:
            params: a ``MixedLMParams``, or a packed vector with the fixed effects.

        Returns:
            The matrix, and whether the covariance is singular (which is no obstacle).
        """
        at = self._params(params, has_fe=True)
        singular = self.k_re > 0 and np.linalg.matrix_rank(at.cov_re) < self.k_re
        singular = bool(singular or (at.vcomp < 1e-10).any())
        return self._evaluator.hessian(at, self.reml), singular

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
        _, K, _ = self._evaluator.ground(cov_re.reshape(self.k_re, self.k_re), vcomp)
        return self._evaluator.gls(K), singular

    def get_scale(self, fe_params: Any, cov_re: Any, vcomp: Any) -> float:
        """Residual variance at given fixed effects and relative covariances."""
        cov_re = np.asarray(cov_re, float).reshape(self.k_re, self.k_re)
        _, K, _ = self._evaluator.ground(cov_re, np.asarray(vcomp, float))
        return self._evaluator.scale(K, np.asarray(fe_params, float), self.reml)

    def predict(self, params: Any, exog: Any = None) -> np.ndarray:
        """X beta.

        Args:
            params: a ``MixedLMParams``, or a vector that begins with the fixed effects.
            exog: (m, k_fe), or new data for the formula; default the data of the model.
        """
        if isinstance(params, MixedLMParams):
            params = params.fe_params
        beta = np.asarray(params, float)[: self.k_fe]
        return self._new_exog(exog) @ beta

    def _new_exog(self, exog: Any) -> np.ndarray:
        if exog is None:
            return self.exog
        if self._spec is not None and not isinstance(exog, np.ndarray):
            return self._from_spec(exog)
        out = np.asarray(unmasked(exog), float)
        if out.ndim == 1:
            out = out[:, None] if self.k_fe == 1 else out[None]
        if out.shape[1] != self.k_fe:
            raise DataError(f"exog has {out.shape[1]} columns, expected {self.k_fe}")
        return out

    def _from_spec(self, data: Any) -> np.ndarray:
        frame = mixedlm_formula.as_frame(data)
        try:
            return self._spec.apply(frame)
        except FormulaError as error:
            if list(map(str, frame.columns)) == list(self.exog_names):
                return frame.to_numpy(float)  # a design already
            raise DataError(
                f"exog cannot be evaluated for {self.formula!r}: {error}"
            ) from error

    def get_distribution(self, params: Any, scale: float, exog: Any = None) -> Any:
        """The distribution of the response, for its ``rvs``.

        Args:
            params: (k_params,) packed, variances relative to the scale.
            scale: residual variance.
            exog: (n, k_fe) fixed-effects design; default the model's.
        """
        from jaxglmm.compat.statsmodels.mixedlm.simulate import Distribution

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
        return estimate(
            self,
            start_params=start_params,
            reml=reml,
            em_steps=int(em_steps) or int(niter_sa),
            do_cg=do_cg,
            fe_pen=fe_pen,
            cov_pen=cov_pen,
            free=free,
            full_output=full_output,
            method=method,
            fix=fix,
            cov_type=cov_type,
            options=fit_kwargs,
        )

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
        return regularized(
            self, start_params, method, alpha, ceps, ptol, maxit, fit_kwargs
        )

    def regularization_path(self, alphas: Any, **kwargs: Any) -> pd.DataFrame:
        """``fit_regularized`` along weights, warm-started: a frame, alpha by name."""
        from jaxglmm.compat.statsmodels.mixedlm.estimate import path

        return path(self, alphas, kwargs)


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
