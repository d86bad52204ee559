"""Fits: many fits of one model's shape, as arrays with the data sets first.

What ``fit_many`` and a parametric bootstrap return. A data set that failed has its
status and NaN, and the others are untouched; tables and summaries say how many failed
and why. Methods only hand over to the modules that do the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments, _status
from jaxglmm._brief import listed
from jaxglmm._errors import NotApplicableError
from jaxglmm._hints import Hinted
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.many import correlations as _correlations
from jaxglmm.many.columns import Columns
from jaxglmm.postestimation.collection import tables as _tables
from jaxglmm.results.fits_plotting import FitsPlots

if TYPE_CHECKING:
    from jaxglmm.postestimation.report.summary import Summary
    from jaxglmm.results.fit import Fit

A_ROW = (  # fields with one row a data set
    "coefficients",
    "sd",
    "sigma",
    "theta",
    "log_likelihood",
    "status",
    "converged",
    "singular",
    "se",
    "df",
    "p_values",
    "dispersion",
    "separated",
    "df_sigma",
    "steps",
    "labels",
    "positions",
)


@dataclass(frozen=True, repr=False, eq=False)
class Fits(Hinted):
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

    coefficients: np.ndarray
    coefficient_names: tuple[str, ...]
    sd: np.ndarray
    sd_names: tuple[str, ...]
    sigma: np.ndarray
    theta: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    original: Mapping[str, float] = field(default_factory=dict)
    se: np.ndarray | None = None
    df: np.ndarray | None = None
    p_values: np.ndarray | None = None
    dispersion: np.ndarray | None = None
    dispersion_names: tuple[str, ...] = ()
    separated: np.ndarray | None = None
    df_sigma: np.ndarray | None = None
    steps: np.ndarray | None = None
    labels: np.ndarray | None = None
    positions: np.ndarray | None = None
    source: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    terms: _correlations.Terms = ()

    @staticmethod
    def from_table(
        table: np.ndarray, columns: Columns, labels: np.ndarray | None = None, **more
    ) -> Fits:
        """Views of a table (D, columns) by name."""
        part = {name: table[:, where] for name, where in columns.slices().items()}
        status = part["status"][:, 0].astype(int)
        return Fits(
            coefficients=part["coefficients"],
            coefficient_names=columns.coefficients,
            sd=part["sd"],
            sd_names=columns.sd,
            sigma=part["sigma"][:, 0],
            theta=part["theta"],
            log_likelihood=part["log_likelihood"][:, 0],
            status=status,
            converged=status == _status.CONVERGED,
            singular=part["singular"][:, 0] == 1,
            se=part["se"],
            df=part["df"],
            p_values=part["p_values"],
            dispersion=part["dispersion"] if columns.dispersion else None,
            dispersion_names=columns.dispersion,
            separated=part["separated"][:, 0] == 1,
            df_sigma=part["df_sigma"][:, 0],
            steps=part["steps"][:, 0],
            labels=labels,
            terms=columns.terms,
            **more,
        )

    # One, or some of them ------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.sigma)

    def __iter__(self) -> Iterator[Fit]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, which: Any) -> Any:
        """``fits[i]`` or ``fits[label]``: a ``Fit``; a slice or mask: ``Fits``."""
        if isinstance(which, slice | np.ndarray | list | pd.Series):
            rows = np.arange(len(self))[
                np.asarray(which) if not isinstance(which, slice) else which
            ]
            return self._part(rows)
        i = self._place(which)
        if self.source is None:
            raise NotApplicableError(
                "the data of these fits are not at hand (they were drawn, or came from "
                "a file saved without data): fit the data set with lmm or glmm, or "
                "save with data=True"
            )
        return self.source.fit(i if self.positions is None else int(self.positions[i]))

    def _place(self, which: Any) -> int:
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"there are {len(self)} fits, no number {which}")
            return int(which) % len(self)
        if self.labels is not None:
            found = np.flatnonzero(self.labels == which)
            if len(found) > 1:
                raise KeyError(
                    f"{len(found)} data sets are called {which!r}, at the positions "
                    f"{', '.join(map(str, found[:5]))}: use one of these"
                )
            if len(found):
                return int(found[0])
        raise KeyError(f"no data set {which!r}: see .labels")

    def _part(self, rows: np.ndarray) -> Fits:
        changes = {
            name: getattr(self, name)[rows]
            for name in A_ROW
            if getattr(self, name) is not None
        }
        if self.positions is None:
            changes["positions"] = rows
        return replace(self, **changes)

    # Tables --------------------------------------------------------------------------

    @property
    def status_names(self) -> np.ndarray:
        """(D,) what became of each data set, in words such as "converged"."""
        return np.array(_status.names(self.status), object)

    @property
    def names(self) -> list[str]:
        """Names of everything that has an interval."""
        sigma = (
            []
            if self.dispersion is not None or np.isnan(self.sigma).all()
            else ["sigma"]
        )
        effects = [*self.sd_names, *self.correlation_names]
        return [*self.coefficient_names, *effects, *self.dispersion_names, *sigma]

    @property
    def correlation_names(self) -> tuple[str, ...]:
        """Names of the correlations, ``cor_Days.(Intercept)|Subject``."""
        return _correlations.names(self.terms)

    @property
    def correlations(self) -> np.ndarray:
        """(D, c) correlations of random effects; NaN beside a variance of zero."""
        return _correlations.values(self.terms, self.theta)

    def frame(self) -> pd.DataFrame:
        """One row a data set, one column a parameter."""
        parts = [self.coefficients, self.sd, self.correlations]
        if self.dispersion is not None:
            parts.append(self.dispersion)
        if "sigma" in self.names:
            parts.append(self.sigma[:, None])
        index = None if self.labels is None else pd.Index(self.labels, name="dataset")
        return pd.DataFrame(np.concatenate(parts, axis=1), index, self.names)

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
        _arguments.level(level)
        if not _arguments.is_among(method, ("percentile", "basic", "profile")):
            raise NotApplicableError(
                f"confint(method={_arguments.shown(method)}): there are 'percentile', "
                "'basic' and 'profile'"
            )
        if method == "profile":
            from jaxglmm.postestimation.profile.intervals import intervals

            return intervals(self, level, which)
        values = _tables.finite(self)
        tail = (1 - level) / 2
        lower, upper = _tables.quantiles(values, [tail, 1 - tail])
        if method == "basic":
            centre = _tables.original(self)
            lower, upper = 2 * centre - upper, 2 * centre - lower
        return pd.DataFrame({"lower": lower, "upper": upper}, index=self.names)

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

    def to_arviz(self) -> Any:
        """For ArviZ: estimates with a ``model`` dimension, or draws of a bootstrap.

        Returns:
            ``arviz.InferenceData`` or ``xarray.DataTree``, see ``export.fits``.
        """
        from jaxglmm.export.fits import to_arviz

        return to_arviz(self)

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

        return load(path, functions, trusted)


assert set(A_ROW) <= {f.name for f in fields(Fits)}
