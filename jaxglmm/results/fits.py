"""Fits: many fits of one model's shape, and what can be asked of them.

What ``fit_many`` and a parametric bootstrap return; tables and summaries say how many
failed and why. Methods only hand over to the modules that do the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import listed
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.many.record import FittedModels
from jaxglmm.postestimation.collection import tables as _tables
from jaxglmm.results import faces
from jaxglmm.results.exporting_many import ExportingMany
from jaxglmm.results.fits_plotting import FitsPlots

if TYPE_CHECKING:
    from jaxglmm.postestimation.collection.means import MeansOfMany
    from jaxglmm.postestimation.report.summary import Summary
    from jaxglmm.results.fit import Fit


@dataclass(frozen=True, repr=False, eq=False)
class Fits(ExportingMany):
    """Estimates of D data sets.

    coefficients: (D, p) fixed effects, named by ``coefficient_names``
    sd: (D, k) standard deviations of random effects, ``sd_names`` such as
        ``sd_Days|Subject``
    sigma: (D,) residual sd; theta: (D, m); log_likelihood: (D,)
    terms: label, columns and covariance of each random term: what ``correlations``
        needs beside theta
    status: (D,) codes, in words ``status_names``; converged, singular: (D,) bool
    original: name -> value in the fit that the data sets were drawn from
    se, df, p_values: (D, p) or None; t-tests of the coefficients (z-tests where df is
        infinite)
    dispersion: (D, r) dispersion parameters, ``dispersion_names``, or None
    dispersion_se: (D, r) their standard errors, of ordinal models, or None
    separated: (D,) bool, coefficients that run off to infinity, or None
    df_sigma: (D,) degrees of freedom of the residual variance, or None
    steps: (D,) evaluations of each fit, or None
    labels: (D,) names of the data sets; their positions where None
    positions: (D,) which data sets of the source these are, where they are a part
    source: what can make the ``Fit`` of one data set, for ``fits[i]``
    facts: how it was done: formula, family, method, seconds, devices

    Example:
        >>> import jaxglmm as jg, numpy as np
        >>> sleep = jg.datasets.load("sleepstudy")
        >>> noise = np.random.default_rng(1).normal(size=(180, 3))
        >>> Y = sleep["Reaction"].to_numpy()[:, None] + noise
        >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
        >>> fits.coefficients.shape, fits.converged.all().item()
        ((3, 2), True)
        >>> round(fits[0].sigma - fits.sigma[0], 8).item()
        0.0
    """

    @classmethod
    def showing(cls, found: FittedModels) -> Self:
        """The face of a record."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(found)})

    def __iter__(self) -> Iterator[Fit]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, which: Any) -> Any:
        """``fits[i]`` or ``fits[label]``: a ``Fit``; a slice or mask: ``Fits``."""
        if isinstance(which, slice | np.ndarray | list | pd.Series):
            rows = which if isinstance(which, slice) else np.asarray(which)
            return self.part(np.arange(len(self))[rows])
        return self.one(which, faces.face)

    # Tables --------------------------------------------------------------------------

    @conf_level_too
    def tidy(
        self, effects: str = "all", conf_int: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """One row a data set and parameter, with the columns of R's broom.mixed.

        Args:
            effects: "fixed", "ran_pars" or "all".
            conf_int: also conf_low and conf_high of the fixed effects (Wald).
            level: their coverage.

        Returns:
            dataset, effect, term, estimate; for fixed effects std_error, statistic, df,
            p_value, and p_adjusted: Benjamini and Hochberg's (1995) adjustment over the
            data sets that converged, coefficient by coefficient; status, in words.
        """
        _arguments.level(level)
        return _tables.tidy(self, effects, conf_int, level)

    def top(self, term: str, n: int = 10) -> pd.DataFrame:
        """The ``n`` data sets with the smallest p-values of one coefficient.

        Of fits that converged: of others p-values are no tests.

        Args:
            term: name of a coefficient.
            n: how many.
        """
        return _tables.top(self, term, n)

    def p_adjusted(self) -> np.ndarray:
        """(D, p) Benjamini and Hochberg's adjusted p-values, a column at a time.

        NaN where a fit did not converge, and not counted.
        """
        return _tables.adjusted(self)

    @conf_level_too
    def confint(
        self, level: float = 0.95, method: str = "percentile", *, which: Any = None
    ) -> pd.DataFrame:
        """Bootstrap intervals of draws, or profile intervals of every model.

        Args:
            level: coverage.
            method: "percentile" (quantiles of the draws), "basic" (twice the estimate
                minus the opposite quantile; Davison and Hinkley 1997, 5.2) or "profile"
                (profile likelihood of each model, all models, parameters and sides in
                one program; Bates, Maechler, Bolker and Walker 2015, 5.1).
            which: of "profile": names of parameters, "beta" or "theta"; None for all.

        Returns:
            Of draws, a frame of lower and upper, one row a parameter. Of "profile", one
            row a data set and parameter: dataset, effect, term, estimate, conf_low,
            conf_high, status; the limits of ``fits[i].confint(method="profile")``, NaN
            where the data set has no fit that converged.

        Raises:
            NotApplicableError: another method; profiles without the data at hand.
        """
        from jaxglmm.postestimation.collection.confint import confint

        return confint(self, level, method, which)

    def summary(self) -> Summary:
        """How many converged, are singular, failed and why; a table of parameters."""
        return _tables.summarise(self)

    # Across data sets ----------------------------------------------------------------

    def moderate(self) -> Fits:
        """Residual variances shrunk towards a common value, as in limma.

        Smyth (2004): the residual variances s2 with d degrees of freedom are draws of
        s0^2 F(d, d0); d0 and s0^2 are estimated from all data sets by moments of log
        s2, and each s2 is replaced by (d0 s0^2 + d s2) / (d0 + d). Standard errors
        change with it, and degrees of freedom grow by d0.

        Returns:
            ``Fits`` with moderated sigma, se, df and p_values; ``facts["moderation"]``
            has d0 and s0^2.

        Raises:
            NotApplicableError: not linear models with standard errors, or fewer than
                three of them.
        """
        from jaxglmm.postestimation.collection.moderation import moderate

        return moderate(self)

    def check(self, n: int = 250, seed: int = 0, re: str | None = None) -> pd.DataFrame:
        """Simulation-based checks of every model, as ``Fit.check`` makes them of one.

        Each model's data are compared with ``n`` draws from it, with new random
        effects: whether simulated residuals are uniform (Dunn and Smyth 1996), whether
        the data spread as the draws do, whether rows lie outside all draws, and, for
        counts, whether there are as many zeros. Given the parameters data and draws are
        exchangeable, so the draws judge: p-values are shares of draws.

        Args:
            n: draws of each model.
            seed: of the random numbers. The tests of data set i are those of
                ``fits[i].simulated_residuals(n, seed)``; all models share the seed.
            re: None, or "marginal"; the modes are not kept for "conditional".

        Returns:
            One row a data set and check: dataset, check ("uniformity", "dispersion",
            "outliers" and, for counts, "zeros"), observed, expected, p_value,
            p_adjusted (Benjamini and Hochberg 1995, check by check), status; NaN where
            the fit of a data set did not converge.

        Raises:
            NotApplicableError: too few draws, conditional draws, no data at hand.

        Example:
            >>> import jaxglmm as jg, numpy as np
            >>> sleep = jg.datasets.load("sleepstudy")
            >>> noise = np.random.default_rng(1).normal(size=(180, 3))
            >>> Y = sleep["Reaction"].to_numpy()[:, None] + noise
            >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
            >>> table = fits.check(50)
            >>> table["check"].tolist()[:3], len(table)
            (['uniformity', 'dispersion', 'outliers'], 9)
        """
        from jaxglmm.postestimation.collection.checks import check

        return check(self, n, seed, re)

    def predict(self, newdata: Any = None, *, type: str = "response") -> np.ndarray:
        """Predictions of every model for the same rows, at random effects of zero.

        Args:
            newdata: a table of n rows; None for those of the responses.
            type: "response" (the mean; of ordered categories that of their numbers 1,
                2, ...), "link", and of categories "probs", "class" or "mean_class".

        Returns:
            (D, n), or (D, n, K) of probabilities; NaN where a data set has no fit.

        Raises:
            NotApplicableError: no data at hand, several linear predictors.

        Example:
            >>> import jaxglmm as jg, numpy as np
            >>> sleep = jg.datasets.load("sleepstudy")
            >>> Y = sleep["Reaction"].to_numpy()[:, None] + np.zeros((180, 2))
            >>> fits = jg.fit_many("y ~ Days + (Days | Subject)", sleep, responses=Y)
            >>> fits.predict({"Days": [0, 9]}).round(1).tolist()[0]
            [251.4, 345.6]
        """
        from jaxglmm.postestimation.collection.predictions import predict

        return predict(self, newdata, type)

    def means(
        self,
        specs: Any = (),
        by: Any = None,
        *,
        progress: bool | None = None,
        **options,
    ) -> MeansOfMany:
        """Estimated marginal means in every model, to be compared by ``pairs()``.

        As ``fits[i].means(...)``, over one grid: that of the rows of all models. The
        models are fitted again in coordinates that have what is asked for, so that
        standard errors and degrees of freedom are those of single fits; moderated
        models (``moderate()``) have moderated ones.

        Args:
            specs: variables whose combinations have a mean each.
            by: variables whose levels keep comparisons apart.
            progress: show a bar; None: where it takes more than a moment.
            **options: ``at``, ``weights``, ``type``, ``df``, ``level``, as for a fit.

        Returns:
            ``.table``: a row a model and mean; ``.pairs()``, ``.contrast()``.

        Raises:
            NotApplicableError: no data at hand, several linear predictors, categories.

        Example:
            >>> import jaxglmm as jg, numpy as np
            >>> data = jg.datasets.load("Machines")
            >>> noise = np.random.default_rng(1).normal(size=(54, 3))
            >>> Y = data["score"].to_numpy()[:, None] + noise
            >>> fits = jg.fit_many("y ~ Machine + (1 | Worker)", data, responses=Y)
            >>> table = fits.means("Machine").pairs().table
            >>> len(table), table["contrast"].tolist()[:3]
            (9, ['A - B', 'A - C', 'B - C'])
        """
        return self._of_many("means", (specs, by), options, progress)

    def trends(
        self,
        variable: str,
        specs: Any = (),
        by: Any = None,
        *,
        progress: bool | None = None,
        **options,
    ) -> MeansOfMany:
        """Slopes of the linear predictor in a number, in every model.

        Args:
            variable: a number of the fixed effects.
            specs: as for ``means``, and all that follow.
            by: groups of comparisons.
            progress: show a bar.
            **options: ``at``, ``weights``, ``df``, ``level``.
        """
        return self._of_many("trends", (variable, specs, by), options, progress)

    def _of_many(self, name: str, asked: tuple, options: dict, progress: Any):
        from jaxglmm.postestimation.collection.means import of_many

        unknown = set(options) - {"at", "weights", "type", "df", "level"}
        if unknown:
            raise NotApplicableError(
                f"{name}() of many models has no {sorted(unknown)[0]}=; that of one, "
                f"fits[i].{name}(), has more"
            )

        if progress is not None:
            _arguments.flag("progress", progress)

        def of_one(one: Any) -> Any:
            return getattr(one, name)(*asked, **options)

        return of_many(self, faces.face, of_one, progress)

    @property
    def plot(self) -> FitsPlots:
        """Figures: ``volcano(term)``, ``p_values(term)``, ``estimates()``."""
        return FitsPlots(self)

    def _counts(self) -> tuple[str, ...]:
        return _tables.counts(self)

    def __repr__(self) -> str:
        return f"<Fits {'; '.join(self._counts())} | {listed(self.names)}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # Keeping them --------------------------------------------------------------------

    def save(self, path: Any, data: bool = False) -> None:
        """Write to a file that ``load`` reads; no pickle in it.

        Args:
            path: the file.
            data: also what ``fits[i]`` needs: the design and the responses.
        """
        from jaxglmm.many.storage import save

        save(self, path, data)

    @staticmethod
    def load(path: Any, *, functions: Any = None, trusted: bool = False) -> Fits:
        """Read what ``save`` wrote, or the table of a run with ``file=``.

        The arguments are those of ``jg.load``.
        """
        from jaxglmm.many.storage import load

        return load(path, functions, trusted, faces.face)
