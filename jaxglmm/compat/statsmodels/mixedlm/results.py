"""What ``MixedLM.fit`` returns, attribute by attribute as in statsmodels.

What computes lies beside it, and takes the records of ``state`` and ``fitted``.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels.mixedlm import contrasts, profile, surface
from jaxglmm.compat.statsmodels.mixedlm import covariance as covariances
from jaxglmm.compat.statsmodels.mixedlm.estimate import known_options
from jaxglmm.compat.statsmodels.mixedlm.estimates import NamedEstimates
from jaxglmm.compat.statsmodels.mixedlm.summary import MixedLMSummary, summarise


class MixedLMResults(NamedEstimates):
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

    def initialize(self, model: Any, params: Any, **kwargs: Any) -> None:
        """Take another model and parameters, as statsmodels' results can."""
        self.__init__(model, params, **kwargs)

    @property
    def _results(self) -> MixedLMResults:
        return self  # no wrapper is around them

    # Random effects -------------------------------------------------------------------

    def random_effects_covariance(self, with_beta: bool = False) -> dict:
        """``random_effects_cov``; with_beta adds what estimating beta contributes."""
        if not with_beta:
            return self.random_effects_cov
        return covariances.of_groups(self, self.covariance[: self.k_fe, : self.k_fe])

    @property
    def fittedvalues(self) -> Any:
        """(n,) X beta + Z b, with the predicted random effects."""
        return self._by_row(self.fitted_array)

    @property
    def resid(self) -> Any:
        """(n,) response minus ``fittedvalues``."""
        return self._by_row(self.resid_array)

    def _by_row(self, values: np.ndarray) -> Any:
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
        known_options(fit_kwargs, ("method",))
        return profile.profile_re(
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
        found = profile.bootstrap(self, nrep, method, disp, rng)
        if store:
            self.bootstrap_results = found
        return found.mean(0), found.std(0), found

    # Showing, keeping -----------------------------------------------------------------

    def summary(
        self,
        yname: str | None = None,
        xname_fe: Any = None,
        xname_re: Any = None,
        title: str | None = None,
        alpha: float = 0.05,
    ) -> MixedLMSummary:
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
        X = surface.new_exog(self.model, given)
        out = X @ self.params_object.fe_params
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


def _is_pandas(given: Any) -> bool:
    return isinstance(given, pd.DataFrame | pd.Series)


def load(fname: Any) -> MixedLMResults:
    """Read results that ``save`` wrote."""
    return MixedLMResults.load(fname)
