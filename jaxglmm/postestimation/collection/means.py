"""Marginal means, slopes and contrasts of many models at once.

One grid for all models, that of all their rows together; what is asked for is worked
out for one model as a matrix of weights of its coefficients, and then found for all
(``many.combinations``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import JaxGLMMError, JaxGLMMWarning, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import t_p_values, t_quantile
from jaxglmm.fitting.kinds import Kinds
from jaxglmm.many.combinations import Combinations, combinations, rounds
from jaxglmm.numerics import multiplicity
from jaxglmm.postestimation.comparisons.families import BY_NUMBER, Comparisons
from jaxglmm.postestimation.comparisons.marginal_means import MarginalMeans
from jaxglmm.runtime import progress as _progress

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

JOINT = ("mvt", "dunnett")  # adjustments that need the covariances of a model
FEW = 33  # numbers of degrees of freedom that critical values are searched for


@dataclass(frozen=True)
class MeansOfMany:
    """Estimates of D models: a row a model and mean, slope or contrast in ``table``.

    ``pairs()``, ``contrast()`` and ``showing()`` go on from here, as of one model.
    """

    fits: Any = field(repr=False)
    one: MarginalMeans = field(repr=False)
    progress: bool | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """Rows by model, ``dataset``, then the keys and numbers of one model's table.

        estimate, std_error, df, statistic, p_value, conf_low, conf_high, p_adjusted
        (Benjamini and Hochberg 1995 over the models, row by row of one model's table),
        status. ``p_value`` and limits are adjusted within a model, as of one.
        """
        fits, keys = self.fits, self.one.keys
        D, r = len(fits), len(keys)
        found = self._numbers
        numbers = {name: values.ravel() for name, values in found.items()}
        adjusted = np.stack(
            [multiplicity.adjusted(p, "fdr_bh") for p in found["p_value"].T], axis=1
        )
        left = pd.concat([keys] * D, ignore_index=True)
        left.insert(0, "dataset", np.repeat(np.asarray(_labels(fits), object), r))
        right = pd.DataFrame(numbers).assign(
            p_adjusted=adjusted.ravel(), status=np.repeat(fits.status_names, r)
        )
        return pd.concat([left, right], axis=1)

    @cached_property
    def _combinations(self) -> Combinations:
        """Of this table's rows, of all models that have all coefficients."""
        fits, L = self.fits, self.one.rows.jacobian
        good = np.asarray(fits.converged) & np.isfinite(fits.coefficients).all(axis=1)
        source, total = fits.source, len(fits)
        place = np.arange(total) if fits.positions is None else fits.positions
        if source.responses is not None:
            total = len(source.responses)
        elif source.split is not None:
            total = len(source.split.levels)
        wanted = np.zeros(total, bool)
        wanted[place[good]] = True
        # sums of a few weights that are zero but for rounding are zero
        L = np.where(np.abs(L) < 1e-12 * np.abs(L).max(initial=1.0), 0.0, L)
        size = total * len(rounds(L))
        with _progress.bar(size, self.progress, " fits") as bar:
            found = combinations(source, L, wanted, bar)
        return Combinations(
            found.estimate[place],
            found.se[place],
            found.df[place],
            found.p_values[place],
            found.sigma[place],
        )

    @property
    def _numbers(self) -> dict[str, np.ndarray]:
        """(D, r) of each column."""
        one, own = self.one, self._combinations
        estimate = own.estimate + one.rows.offset
        error, df = self._moderated(own)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = estimate / error
        if one.df is not None:
            df = np.where(np.isnan(df), np.nan, float(one.df))
        p = t_p_values(t, df)
        adjusted, half = np.array(p), np.full(p.shape, np.nan)
        for i in one.groups:
            adjusted[:, i], half[:, i] = self._adjusted(t[:, i], df[:, i], p[:, i], i)
        half = half * error
        shown = one.shown
        ends = shown.value(estimate - half), shown.value(estimate + half)
        return {
            "estimate": shown.value(estimate),
            "std_error": error * np.abs(shown.slope(estimate)),
            "df": df,
            "statistic": t,
            "p_value": adjusted,
            "conf_low": np.minimum(*ends),
            "conf_high": np.maximum(*ends),
        }

    def _moderated(self, own: Combinations) -> tuple[np.ndarray, np.ndarray]:
        """Errors and degrees of freedom, moderated where those of the fits are."""
        facts = self.fits.facts.get("moderation")
        if facts is None:
            return own.se, own.df
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.asarray(self.fits.sigma) / own.sigma
        return own.se * ratio[:, None], own.df + facts["df_prior"]

    def _adjusted(
        self, t: np.ndarray, df: np.ndarray, p: np.ndarray, i: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """p-values (D, m) of the group i of rows, and multipliers of limits."""
        one, m = self.one, t.shape[1]
        if one.adjust == "none" or m == 1:
            return p, t_quantile(one.level, df)
        L = one.rows.jacobian[i]
        same = L @ L.T  # of the rank that their covariances have
        if one.adjust in BY_NUMBER:
            adjusted = np.stack(
                [self._family(t, df, x, same).p_values(one.adjust) for x in p]
            )
        else:
            flat = self._family(t.ravel(), df.ravel(), p[0], same)
            adjusted = flat.p_values(one.adjust).reshape(p.shape)
        known = np.unique(df[~np.isnan(df)])
        if not len(known):
            return adjusted, np.full(p.shape, np.nan)
        at = known
        if len(known) > FEW:  # smooth in 1 / df
            ends = np.sort(1 / known)[[0, -1]]
            x = np.cos(np.pi * (np.arange(FEW) + 0.5) / FEW)[::-1]
            at = 1 / (ends.mean() + np.ptp(ends) / 2 * x / x[-1])
        given = self._family(np.zeros(m), at, p[0], same)
        found = given.multipliers(one.adjust, one.level)
        if len(known) <= FEW:
            place = np.searchsorted(known, np.where(np.isnan(df), known[0], df))
            return adjusted, np.where(np.isnan(df), np.nan, found[place])
        from scipy.interpolate import BarycentricInterpolator

        smooth = BarycentricInterpolator(1 / at, found)
        return adjusted, np.where(np.isnan(df), np.nan, smooth(1 / df))

    def _family(self, t, df, p, covariance) -> Comparisons:
        return Comparisons(t, df, p, covariance, self.one.n_means)

    # Contrasts ------------------------------------------------------------------------

    def pairs(self, adjust: str | None = None, *, reverse: bool = False, by=None):
        """All differences of two means of a group, in every model.

        Args:
            adjust: within a model: as for one model, but "mvt" and "dunnett".
            reverse: second minus first.
            by: variables that keep groups apart.
        """
        return self._with(self.one.pairs(adjust, reverse=reverse, by=by))

    def contrast(self, method: Any = "eff", *, adjust: str | None = None, **options):
        """Contrasts of the means of each group, in every model.

        Args:
            method: as of one model's means.
            adjust: as of one model's means, but "mvt" and "dunnett".
            **options: ``by``, ``ref``, ``interaction``.
        """
        return self._with(self.one.contrast(method, adjust=adjust, **options))

    def showing(self, **how: Any) -> MeansOfMany:
        """The same estimates with another level, adjust or type."""
        return self._with(self.one.showing(**how))

    def _with(self, one: Any) -> MeansOfMany:
        if not isinstance(one, MarginalMeans):
            raise NotApplicableError(
                "simple='each' is several tables: ask for one factor at a time"
            )
        if one.adjust in JOINT and any(len(i) > 1 for i in one.groups):
            raise NotApplicableError(
                f"adjust={one.adjust!r} needs the covariances of each model: use "
                "'tukey', 'dunnettx', 'holm', ..., or fits[i].means(...)"
            )
        out = replace(self, one=one)
        same = one.rows.jacobian is self.one.rows.jacobian
        if same and "_combinations" in self.__dict__:
            out.__dict__["_combinations"] = self._combinations
        return out

    def __len__(self) -> int:
        return len(self.fits) * len(self.one.keys)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()  # type: ignore[attr-defined]


def of_many(
    fits: FittedModels,
    kinds: Kinds,
    asked: Callable[[Any], MarginalMeans],
    progress: Any,
) -> MeansOfMany:
    """What ``asked`` of one model's record, of all.

    Args:
        fits: of one linear predictor, their data at hand.
        kinds: the classes of single fits, by name.
        asked: means or slopes of a fit.
        progress: whether a bar is shown.

    Raises:
        NotApplicableError: no data at hand, several linear predictors, categories,
            or no model with all coefficients.
    """
    source = fits.source
    if source is None or fits.se is None:
        raise NotApplicableError(
            "means need the data of these fits, which are not at hand (they were "
            "drawn, or came from a file saved without data=True)"
        )
    kind = "numeric" if source.family is None else source.family.family_kind
    if source.design.parts or kind in ("ordinal", "nominal"):
        raise NotApplicableError(
            "means of many models are for one linear predictor and a numeric response: "
            "ask fits[i].means(...)"
        )
    known = np.asarray(fits.converged) & np.isfinite(fits.coefficients).all(axis=1)
    for i in np.flatnonzero(known):
        try:
            with warnings.catch_warnings():  # of one model; its columns are wanted
                warnings.simplefilter("ignore", JaxGLMMWarning)
                one = fits.one(int(i), kinds)
        except JaxGLMMError:  # its own data do not carry a fit of all columns
            continue
        if one.coefficient_names == tuple(source.design.x_names):
            design = replace(source.design, y=_response(source))
            return MeansOfMany(fits, asked(one.with_design(design)), progress)
    raise NotApplicableError(
        f"none of {len(fits)} models converged with all coefficients, so there is none "
        "whose means could be asked for"
    )


def _response(source: Any) -> np.ndarray:
    """(n,) of the whole design, where its rows have one."""
    y = source.design.y
    return np.zeros(len(source.design.X)) if y is None else y


def _labels(fits: FittedModels) -> Any:
    return np.arange(len(fits)) if fits.labels is None else fits.labels
