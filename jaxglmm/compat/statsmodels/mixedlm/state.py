"""A mixed model and a fit of it, as records: what the questions about them are asked.

``MixedLM`` and ``MixedLMResults`` are these records under statsmodels' names. Whatever
computes takes the records, so that it knows of no class above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.compat.statsmodels.mixedlm import structure
from jaxglmm.compat.statsmodels.mixedlm.arguments import ModelInputs
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.structure import LazyVCSpec, VCSpec
from jaxglmm.formula.design import Design
from jaxglmm.formula.rank import dependent_columns

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit


class ModelState:
    """A mixed linear model and its data, ready to be evaluated.

    Args:
        given: arrays and names, checked.
        use_sqrt: see ``MixedLM``.
    """

    def __init__(self, given: ModelInputs, use_sqrt: bool):
        self.endog, self.exog = given.endog, given.exog
        self.exog_re, self.weights = given.exog_re, given.weights
        self.use_sqrt, self.reml = bool(use_sqrt), True
        self.fe_pen = self.re_pen = self.cov_pen = None
        self._freepat: MixedLMParams | None = None
        self._spec: Any = None
        self._pandas, self._index = given.is_pandas, given.index
        levels, group = np.unique(given.labels, return_inverse=True)
        self.groups, self._group = given.labels, group.astype(np.int32)
        self._levels, self.group_labels = levels, levels.tolist()
        self.n_groups = len(levels)
        self.nobs = self.n_totobs = len(self.endog)
        self.n_missing = given.n_missing
        self._vc, self._use_sparse = list(given.components), given.use_sparse
        if given.spec is not None:
            self.exog_vc = given.spec
        self.k_fe = self.exog.shape[1]
        self.k_re = 0 if self.exog_re is None else self.exog_re.shape[1]
        self.k_re2 = self.k_re * (self.k_re + 1) // 2
        self.k_vc = len(self._vc)
        self.k_params = self.k_fe + self.k_re2
        self.endog_names, self.exog_names = given.names
        self.data = self._described(given)

    def _described(self, given: ModelInputs) -> SimpleNamespace:
        """The arrays and their names, under statsmodels' names."""
        constant = np.flatnonzero(
            (np.ptp(self.exog, axis=0) == 0) & (self.exog[0] != 0)
            if len(self.exog)
            else np.zeros(self.k_fe, bool)
        )
        re, full = list(given.re_names), effect_names(given.re_names)
        vc = [c.name for c in self._vc]
        names = [*self.exog_names, *full, *(f"{name} Var" for name in vc)]
        return SimpleNamespace(
            endog=self.endog,
            exog=self.exog,
            orig_endog=given.original[0],
            orig_exog=given.original[1],
            exog_re=self.exog_re,
            xnames=self.exog_names,
            ynames=self.endog_names,
            vcomp_names=vc,
            row_labels=self._index,
            const_idx=int(constant[0]) if len(constant) else None,
            k_constant=int(len(constant) > 0),
            formula=None,
            model_spec=None,
            missing_row_idx=[],
            exog_re_names=re,
            exog_re_names_full=full,
            param_names=names,
            cov_names=names,
        )

    @cached_property
    def k_constant(self) -> int:
        """1 where the columns of ``exog`` span the constant, else 0."""
        with_one = np.column_stack([self.exog, np.ones(len(self.exog))])
        return int(len(dependent_columns(with_one)) > 0)

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

    def initialize(self) -> None:
        """Nothing, as in statsmodels: a model is ready when it has been made."""

    # The data by group ----------------------------------------------------------------

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        return structure.rows_of(self._group, self.n_groups)

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

    # Engines --------------------------------------------------------------------------

    def _layout(self, diagonal: bool = False) -> structure.TermLayout:
        return structure.layout(
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
        return Design(
            y=self.endog if response is None else response,
            X=self.exog[:, chosen],
            x_names=tuple(np.asarray(self.exog_names, object)[chosen].tolist()),
            terms=self._layout(diagonal).terms,
            response=self.endog_names,
            formula=getattr(self, "formula", None),
            weights=self.weights,
        )

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self._design(), self._layout(), self.k_re, self.k_vc)

    def apart(self, at: np.ndarray) -> Evaluator:
        """An evaluator with the fixed effects that ``at`` has numbers for in an offset.

        at: (k_fe,), NaN where an effect is free.
        """
        known = ~np.isnan(at)
        rest = self.endog - self.exog[:, known] @ at[known]
        design = self._design(response=rest, columns=np.flatnonzero(~known))
        return Evaluator(design, self._layout(), self.k_re, self.k_vc)

    def __getstate__(self) -> dict:
        dropped = ["_evaluator"]
        if isinstance(self.__dict__.get("exog_vc"), LazyVCSpec):
            dropped.append("exog_vc")  # made again when it is looked at
        return {k: v for k, v in self.__dict__.items() if k not in dropped}

    def forget_rows(self) -> None:
        """Drop arrays of the length of the data."""
        for name in ("endog", "exog", "exog_re", "weights", "groups", "_group"):
            setattr(self, name, None)
        made = ("_evaluator", "endog_li", "exog_li", "exog_re_li", "_rows")
        for name in (*made, "row_indices", "exog_vc"):
            self.__dict__.pop(name, None)
        for name in ("endog", "exog", "orig_endog", "orig_exog", "exog_re", "frame"):
            if hasattr(self.data, name):
                setattr(self.data, name, None)
        self._vc = [c.without_rows() for c in self._vc]


def effect_names(names: list[str]) -> list[str]:
    """Names of the triangle of the covariance, row by row."""
    if names == ["Group Var"]:
        return ["Group Var"]
    out = []
    for i, name in enumerate(names):
        out += [f"{names[j]} x {name} Cov" for j in range(i)]
        out.append(f"{name} Var")
    return out


@dataclass(frozen=True)
class HeldFixed:
    """Fixed effects that are held: at (k_fe,) with NaN where they are free."""

    at: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """(k_fe,) which are estimated."""
        return np.isnan(self.at)

    def fill(self, beta: np.ndarray) -> np.ndarray:
        """All fixed effects from the free ones."""
        out = self.at.copy()
        out[self.free] = beta
        return out


class FitState:
    """Estimates of a model, and how they came about.

    Args:
        model: the model.
        params: packed parameters, variances relative to the scale.
        cov_params: their covariance over the scale; computed when asked for by default.
        params_object: the same parameters.
        scale: residual variance.
        reml: whether the likelihood was the restricted one.
        converged: whether the optimiser met its test.
        freepat: mask of what was free, None for all.
        held: names of variances that were held at a value.
        pinned: whether the scale was found beside a held variance.
        evaluator: of the model, or of one with held fixed effects in an offset.
        fixed: these fixed effects.
        fit: the same fit as a ``jg.Fit``.
        cov_type: "nonrobust" or "cluster".
        zero: (k_fe,) fixed effects that a penalty put at zero.
        shrunk: cov_re and vcomp without a penalty, where that moved the scale.
    """

    use_t = False

    def __init__(
        self,
        model: ModelState,
        params: Any,
        cov_params: Any = None,
        *,
        params_object: MixedLMParams | None = None,
        scale: float | None = None,
        reml: bool | None = None,
        converged: bool = True,
        freepat: MixedLMParams | None = None,
        held: tuple[str, ...] = (),
        pinned: bool = False,
        evaluator: Evaluator | None = None,
        fixed: HeldFixed | None = None,
        fit: Fit | None = None,
        cov_type: str = "nonrobust",
        zero: np.ndarray | None = None,
        shrunk: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.model = model
        self.params_array = np.asarray(params, float)
        if params_object is None:
            params_object = MixedLMParams.from_packed(
                self.params_array, model.k_fe, model.k_re, False, True
            )
        self.params_object = params_object
        self.reml = model.reml if reml is None else bool(reml)
        self._evaluator = model._evaluator if evaluator is None else evaluator
        self.fixed, self.zero = fixed, zero
        if scale is None:
            scale = model._evaluator.scale_at(params_object, model.reml)
        self.scale = np.float64(scale)
        self.converged, self.freepat = bool(converged), freepat
        self.held, self._pinned = held, pinned
        self.jg_fit, self.cov_type = fit, cov_type
        self._shrunk = shrunk
        self.method = "REML" if self.reml else "ML"
        self.hist: Any = None
        self.mle_retvals: dict[str, Any] = {}
        self.use_sqrt = model.use_sqrt
        self.cov_pen, self.fe_pen = model.cov_pen, model.fe_pen
        self.k_fe, self.k_re = model.k_fe, model.k_re
        self.k_re2, self.k_vc = model.k_re2, model.k_vc
        self.nobs = model.nobs
        self.df_resid = model.nobs - model.k_fe
        self.bootstrap_results: np.ndarray | None = None
        if cov_params is not None:
            self.__dict__["covariance"] = np.asarray(cov_params, float) * self.scale

    @property
    def evaluator(self) -> Evaluator:
        """The compiled side; rebuilt where it was dropped."""
        if self._evaluator is None:
            model = self.model
            fixed = self.fixed
            made = model._evaluator if fixed is None else model.apart(fixed.at)
            self._evaluator = made
        return self._evaluator

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_evaluator": None}

    @property
    def evaluated_at(self) -> MixedLMParams:
        """The parameters as the evaluator counts them (held fixed effects left out)."""
        params = self.params_object
        if self.fixed is None:
            return params
        return MixedLMParams.from_components(
            params.fe_params[self.fixed.free], params.cov_re, vcomp=params.vcomp
        )

    @cached_property
    def llf(self) -> float:
        """Log-likelihood (restricted under REML), all constants included."""
        ev, at = self.evaluator, self.evaluated_at
        log_det, K, _ = ev.ground(at.cov_re, at.vcomp)
        v = ev.direction(at.fe_params)
        scale = self.scale if self._pinned else None
        return np.float64(ev.value(log_det, K, v, self.reml, scale))

    @property
    def _names(self) -> list[str]:
        """(k,) names of the packed parameters."""
        return self.model.data.param_names

    @property
    def is_held(self) -> np.ndarray:
        """(k,) which packed parameters were not estimated."""
        out = np.array([n in self.held for n in self._names], bool)
        if self.freepat is not None:
            out |= self.freepat.get_packed(use_sqrt=False, has_fe=True) == 0
        return out

    @property
    def cov_re_array(self) -> np.ndarray:
        """(k_re, k_re) covariance of the random effects, as an array."""
        if self._shrunk is not None:
            return self._shrunk[0]
        return self.scale * self.params_object.cov_re

    @property
    def vcomp(self) -> np.ndarray:
        """(k_vc,) variance components."""
        if self._shrunk is not None:
            return self._shrunk[1]
        return self.scale * self.params_object.vcomp

    @property
    def natural_variances(self) -> np.ndarray:
        """(k_re2 + k_vc,) triangle of ``cov_re`` row by row, then ``vcomp``."""
        return np.concatenate(
            [self.cov_re_array[np.tril_indices(self.k_re)], self.vcomp]
        )

    @property
    def fix(self) -> dict[str, float]:
        """Variances that were held by name, with their values."""
        names = self._names[self.k_fe :]
        return {n: float(self.natural_variances[names.index(n)]) for n in self.held}
