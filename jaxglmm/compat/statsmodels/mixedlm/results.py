"""What ``MixedLM.fit`` returns, attribute by attribute as in statsmodels.

The file is long because the list is; what computes lies beside it.
"""

from __future__ import annotations

import pickle
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from jaxglmm.compat.statsmodels.mixedlm import contrasts as contrasts
from jaxglmm.compat.statsmodels.mixedlm import covariance as covariances
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.summary import Summary, summarise

if TYPE_CHECKING:
    from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
    from jaxglmm.compat.statsmodels.mixedlm.model import MixedLM
    from jaxglmm.results.fit import Fit


class MixedLMResults:
    """A fitted ``MixedLM``.

    ``params`` are packed with variances relative to ``scale``, and ``bse`` are their
    standard errors; ``cov_re``, ``vcomp`` and ``bse_re`` are on the scale of the data.
    ``jg_fit`` is the same fit as a ``jg.Fit`` (None where parameters were held, tied or
    penalised), with degrees of freedom, predictions and plots.

    Args:
        model: the model.
        params: packed parameters.
        cov_params: their covariance over the scale; computed when asked for by default.
        **found: what ``fit`` knows; ``fit`` makes these objects.
    """

    use_t = False

    def __init__(
        self,
        model: MixedLM,
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
        fixed: Any = None,
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
            scale = model.get_scale(
                params_object.fe_params, params_object.cov_re, params_object.vcomp
            )
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
            self._evaluator = self._rebuilt()
        return self._evaluator

    def _rebuilt(self) -> Evaluator:
        if self.fixed is None:
            return self.model._evaluator
        from jaxglmm.compat.statsmodels.mixedlm.estimate import _evaluator

        start = MixedLMParams.from_components(np.nan_to_num(self.fixed.at))
        return _evaluator(self.model, self.freepat, start)[0]

    def initialize(self, model: Any, params: Any, **kwargs: Any) -> None:
        """Take another model and parameters, as statsmodels' results can."""
        self.__init__(model, params, **kwargs)

    @property
    def _results(self) -> MixedLMResults:
        return self  # no wrapper is around them

    # Names ----------------------------------------------------------------------------

    def _series(self, values: np.ndarray, names: list[str]) -> Any:
        return pd.Series(values, index=names) if self.model._pandas else values

    def _frame(self, values: np.ndarray, names: list[str]) -> Any:
        if not self.model._pandas:
            return values
        return pd.DataFrame(values, index=names, columns=names)

    @property
    def _names(self) -> list[str]:
        return self.model.data.param_names

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
    def cov_re_array(self) -> np.ndarray:
        """(k_re, k_re) covariance of the random effects, as an array."""
        if self._shrunk is not None:
            return self._shrunk[0]
        return self.scale * self.params_object.cov_re

    @property
    def cov_re(self) -> Any:
        """(k_re, k_re) covariance of the random effects."""
        return self._frame(self.cov_re_array, self.model.data.exog_re_names)

    @property
    def cov_re_unscaled(self) -> Any:
        """``cov_re`` relative to ``scale``."""
        return self._frame(self.params_object.cov_re, self.model.data.exog_re_names)

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
        names = self._variance_names
        return {n: float(self.natural_variances[names.index(n)]) for n in self.held}

    # Their uncertainty ----------------------------------------------------------------

    @cached_property
    def covariance(self) -> np.ndarray:
        """(k, k) covariance of the packed parameters, as an array."""
        return covariances.packed(self)

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
        return self._series(np.sqrt(np.diagonal(self.covariance)), self._names)

    @property
    def bse_fe_array(self) -> np.ndarray:
        """``bse_fe`` as an array."""
        return np.sqrt(np.diagonal(self.covariance)[: self.k_fe])

    @property
    def bse_fe(self) -> Any:
        """(k_fe,) standard errors of the fixed effects."""
        return self._series(self.bse_fe_array, self.model.exog_names)

    @cached_property
    def natural_covariance(self) -> np.ndarray:
        """Covariance of (fixed effects, cov_re, vcomp, scale), in units of the data."""
        return covariances.natural(self)

    @property
    def bse_re_array(self) -> np.ndarray:
        """``bse_re`` as an array."""
        return np.sqrt(np.diagonal(self.natural_covariance)[self.k_fe : -1])

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
            t = self.params_array / np.sqrt(np.diagonal(self.covariance))
        return self._series(t, self._names)

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
            se = np.sqrt(np.diagonal(self.covariance))
            law = stats.t(self.df_resid) if self.use_t else stats.norm()
            q = law.ppf(1 - alpha / 2)
            limits = np.column_stack(
                [self.params_array - q * se, self.params_array + q * se]
            )
            names = self._names
        if cols is not None:
            limits, names = limits[cols], [names[i] for i in np.atleast_1d(cols)]
        return pd.DataFrame(limits, index=names) if self.model._pandas else limits

    # Likelihood -----------------------------------------------------------------------

    @cached_property
    def llf(self) -> float:
        """Log-likelihood (restricted under REML), all constants included."""
        ev = self.evaluator
        at = covariances.evaluated_at(self)
        log_det, K, _ = ev.ground(at.cov_re, at.vcomp)
        v = ev.direction(at.fe_params)
        scale = self.scale if self._pinned else None
        return np.float64(ev.value(log_det, K, v, self.reml, scale))

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
        return self.model.hessian(self.params_object)

    @property
    def k_estimated(self) -> int:
        """Number of estimated parameters, the scale included."""
        held = set(self.held)
        mask = np.array([n not in held for n in self._names], bool)
        if self.freepat is not None:
            mask &= self.freepat.get_packed(use_sqrt=False, has_fe=True) != 0
        return int(mask.sum()) + 1

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

    # Random effects -------------------------------------------------------------------

    @cached_property
    def _modes(self) -> list[np.ndarray]:
        return covariances.modes(self)

    @cached_property
    def random_effects(self) -> dict[Any, pd.Series]:
        """Group -> conditional modes: random effects, then those of the components.

        Defined for singular covariances too.
        """
        model, b = self.model, self._modes
        columns = covariances.component_modes(self, b)
        re = b[0] if model.k_re else np.zeros((model.n_groups, 0))
        names = pd.Index(model.data.exog_re_names)
        out = {}
        for i, label in enumerate(model.group_labels):
            index, values = names, re[i]
            if model._vc:
                extra = [f"{c.name}[{s}]" for c in model._vc for s in c.names(i)]
                index = [*names, *extra]
                own = [
                    v[list(c.columns(i))]
                    for c, v in zip(model._vc, columns, strict=True)
                ]
                values = np.concatenate([values, *own])
            out[label] = pd.Series(values, index=index)
        return out

    @cached_property
    def random_effects_cov(self) -> dict[Any, pd.DataFrame]:
        """Group -> covariance of its random effects given the data and parameters."""
        return covariances.of_groups(self, with_beta=False)

    def random_effects_covariance(self, with_beta: bool = False) -> dict:
        """``random_effects_cov``; with_beta adds what estimating beta contributes."""
        if not with_beta:
            return self.random_effects_cov
        return covariances.of_groups(self, with_beta=True)

    @cached_property
    def fitted_array(self) -> np.ndarray:
        """``fittedvalues`` as an array."""
        out = self.model.exog @ self.params_object.fe_params
        for term, b in zip(self.evaluator.design.terms, self._modes, strict=True):
            out = out + np.einsum("ij,ij->i", term.values, b[term.codes])
        return out

    @property
    def resid_array(self) -> np.ndarray:
        """``resid`` as an array."""
        return self.model.endog - self.fitted_array

    @property
    def fittedvalues(self) -> Any:
        """(n,) X beta + Z b, with the predicted random effects."""
        return self._rows(self.fitted_array)

    @property
    def resid(self) -> Any:
        """(n,) response minus ``fittedvalues``."""
        return self._rows(self.resid_array)

    def _rows(self, values: np.ndarray) -> Any:
        if not self.model._pandas or self.model._index is None:
            return values
        return pd.Series(values, index=self.model._index)

    # Tests ----------------------------------------------------------------------------

    def t_test(
        self,
        r_matrix: Any,
        use_t: bool | None = None,
        *,
        ddf: str | None = None,
    ) -> contrasts.ContrastResults:
        """Test R beta = q row by row.

        Args:
            r_matrix: (r, k_fe) matrix, a tuple (R, q), or text such as "Time = 7".
            use_t: t with ``df_resid`` instead of normal.
            ddf: "satterthwaite" or "kenward-roger" degrees of freedom.
        """
        return contrasts.t_test(self, r_matrix, use_t, ddf)

    def wald_test(
        self,
        r_matrix: Any,
        cov_p: Any = None,
        invcov: Any = None,
        use_f: bool | None = None,
        df_constraints: int | None = None,
        scalar: bool = True,
        *,
        ddf: str | None = None,
    ) -> contrasts.WaldResults:
        """Test R params = q jointly.

        Args:
            r_matrix: as in ``t_test``; also (r, k) over all packed parameters.
            cov_p: another covariance of the parameters.
            invcov: inverse of the covariance of R params instead.
            use_f: F with ``df_resid`` instead of chi-squared.
            df_constraints: numerator degrees of freedom; default the rows of R.
            scalar: False gives the statistic as a matrix (1, 1).
            ddf: "satterthwaite" or "kenward-roger": an F-test.
        """
        found = contrasts.wald_test(
            self, r_matrix, cov_p, invcov, use_f, df_constraints, ddf
        )
        return found if scalar else found.as_matrix()

    def f_test(
        self,
        r_matrix: Any,
        cov_p: Any = None,
        invcov: Any = None,
        *,
        ddf: str | None = None,
    ) -> contrasts.WaldResults:
        """``wald_test`` with F."""
        return contrasts.wald_test(self, r_matrix, cov_p, invcov, True, None, ddf)

    def wald_test_terms(
        self,
        skip_single: bool = False,
        extra_constraints: Any = None,
        combine_terms: Any = None,
        scalar: bool = True,
        *,
        ddf: str | None = None,
    ) -> contrasts.WaldTable:
        """Joint tests of the formula's terms.

        Args:
            skip_single: leave out terms of one column.
            extra_constraints: lists of names to be tested together.
            combine_terms: texts; all terms that contain one are tested together.
            scalar: accepted for statsmodels' sake.
            ddf: as in ``wald_test``.
        """
        return contrasts.wald_terms(
            self, skip_single, extra_constraints, combine_terms, ddf
        )

    def t_test_pairwise(
        self,
        term_name: str,
        method: str = "hs",
        alpha: float = 0.05,
        factor_labels: Any = None,
    ) -> contrasts.PairwiseResults:
        """Differences of all pairs of levels of a treatment-coded factor.

        Args:
            term_name: the term, as in the formula.
            method: of adjusting p-values: "hs", "holm", "bonferroni", "sidak",
                "fdr_bh" or "none".
            alpha: level of limits and rejections.
            factor_labels: names of the levels; default their own.
        """
        return contrasts.pairwise(self, term_name, method, alpha, factor_labels)

    # Profiles, bootstrap --------------------------------------------------------------

    def profile_re(
        self,
        re_ix: Any,
        vtype: str,
        num_low: int = 5,
        dist_low: float = 1.0,
        num_high: int = 5,
        dist_high: float = 1.0,
        *,
        hold: str = "variance",
        tol: float = 1e-8,
        maxiter: int = 200,
        **fit_kwargs: Any,
    ) -> np.ndarray:
        """Profile likelihood of one variance.

        Args:
            re_ix: position (or name) of the random effect, or name of the component.
            vtype: "re" or "vc".
            num_low: values below the estimate.
            dist_low: how far below they begin; the estimate itself reaches zero.
            num_high: values above.
            dist_high: how far above they end.
            hold: "variance" holds the variance itself; "ratio" its ratio to the scale
                while the scale moves, as statsmodels does.
            tol: of -2 log-likelihood.
            maxiter: most steps at each value.
            **fit_kwargs: options of ``fit``, for statsmodels' sake (``method=`` is one
                of them): all values are found by Newton's method.

        Returns:
            (num_low + num_high + 1, 2): the variance, and the log-likelihood with
            everything else maximised. The model is left as it was.
        """
        from jaxglmm.compat.statsmodels.mixedlm.estimate import known_options
        from jaxglmm.compat.statsmodels.mixedlm.profile import profile_re

        known_options(fit_kwargs, ("method",))
        return profile_re(
            self,
            re_ix,
            vtype,
            num_low,
            dist_low,
            num_high,
            dist_high,
            hold,
            tol,
            maxiter,
        )

    def bootstrap(
        self,
        nrep: int = 100,
        method: Any = None,
        disp: Any = 0,
        store: Any = 1,
        rng: Any = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parametric bootstrap of the packed parameters.

        Responses are drawn from the fitted model, groups kept together, unlike
        statsmodels' resampling of single rows.

        Args:
            nrep: data sets.
            method: as in ``fit``: SciPy's optimisers, one data set at a time.
            disp: show progress.
            store: keep the estimates in ``bootstrap_results``.
            rng: seed or generator.

        Returns:
            Means, standard deviations, and (nrep, k) estimates.
        """
        from jaxglmm.compat.statsmodels.mixedlm.profile import bootstrap

        found = bootstrap(self, nrep, method, disp, rng)
        if store:
            self.bootstrap_results = found
        return found.mean(0), found.std(0), found

    # Showing, keeping -----------------------------------------------------------------

    @cached_property
    def facts(self) -> dict[str, float]:
        """Sizes of the groups."""
        sizes = np.bincount(self.model._group, minlength=self.model.n_groups)
        return {
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "mean": float(sizes.mean()),
        }

    def summary(
        self,
        yname: str | None = None,
        xname_fe: Any = None,
        xname_re: Any = None,
        title: str | None = None,
        alpha: float = 0.05,
    ) -> Summary:
        """The fit on a page, laid out as statsmodels does.

        Args:
            yname: name of the response.
            xname_fe: names of the fixed effects.
            xname_re: names of the variances.
            title: another title.
            alpha: one minus the coverage of the intervals.
        """
        return summarise(self, yname, xname_fe, xname_re, title, alpha)

    def predict(self, exog: Any = None, transform: bool = True) -> Any:
        """X beta, for the data of the model or for others.

        Args:
            exog: new data for the formula, or a design (m, k_fe).
            transform: False takes ``exog`` as a design although there is a formula.
        """
        index = getattr(exog, "index", None) if _is_pandas(exog) else None
        if isinstance(exog, pd.Series) and self.model._spec is not None and transform:
            exog = exog.to_frame()
        given = np.asarray(exog, float) if exog is not None and not transform else exog
        out = self.model.predict(self.params_object, given)
        if index is not None and len(index) == len(out):
            return pd.Series(out, index=index)
        named = not isinstance(exog, np.ndarray | list | tuple | None)
        return pd.Series(out) if named and self.model._spec is not None else out

    def save(self, fname: Any, remove_data: bool = False) -> None:
        """Write the results with pickle.

        Args:
            fname: path or file.
            remove_data: without arrays of the length of the data.
        """
        if remove_data:
            self.remove_data()
        if hasattr(fname, "write"):
            pickle.dump(self, fname)
        else:
            with Path(fname).open("wb") as file:
                pickle.dump(self, file)

    @classmethod
    def load(cls, fname: Any) -> MixedLMResults:
        """Read what ``save`` wrote. Only from files that you trust: it is a pickle."""
        if hasattr(fname, "read"):
            return pickle.load(fname)
        with Path(fname).open("rb") as file:
            return pickle.load(file)

    def remove_data(self) -> None:
        """Drop arrays of the length of the data; tables and tests still work."""
        _ = self.llf, self.covariance, self.natural_covariance, self.facts
        _ = self.random_effects
        model = self.model
        for name in ("endog", "exog", "exog_re", "weights", "groups", "_group"):
            setattr(model, name, None)
        for name in (
            "_evaluator",
            "endog_li",
            "exog_li",
            "exog_re_li",
            "_rows",
            "row_indices",
            "exog_vc",
        ):
            model.__dict__.pop(name, None)
        for name in ("endog", "exog", "orig_endog", "orig_exog", "exog_re", "frame"):
            if hasattr(model.data, name):
                setattr(model.data, name, None)
        model._vc = [_without_rows(c) for c in model._vc]
        self._evaluator = None
        self.jg_fit = None
        self.__dict__.pop("fitted_array", None)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_evaluator": None}


def _is_pandas(given: Any) -> bool:
    return isinstance(given, pd.DataFrame | pd.Series)


def _without_rows(component: Any) -> Any:
    from dataclasses import replace

    return replace(component, runs=())


def load(fname: Any) -> MixedLMResults:
    """Read results that ``save`` wrote."""
    return MixedLMResults.load(fname)
