"""Means of the cells of a grid, averaged over what is not asked for, and contrasts.

Estimates are linear in what ``Means`` gives a row (the value of a linear predictor and
its Jacobian, or draws of both), so that averages, contrasts, contrasts of contrasts and
slopes are one thing: rows multiplied by a matrix. Searle, Speed and Milliken 1980 (The
American Statistician 34, 216) for the means; names and defaults are those of R's
emmeans.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formatting.tables import as_html, as_text
from jaxglmm.postestimation.comparisons.contrast_matrices import METHODS, contrasts
from jaxglmm.postestimation.comparisons.display import blocks, effect_sizes
from jaxglmm.postestimation.comparisons.families import ADJUST, Wanted, tabulated
from jaxglmm.postestimation.comparisons.grid import keys_of
from jaxglmm.postestimation.comparisons.interactions import interactions, short
from jaxglmm.postestimation.comparisons.letters import letters_of_groups
from jaxglmm.postestimation.comparisons.shown import Shown, on_response
from jaxglmm.postestimation.prediction.means import MeanRows, Means


def combined(rows: MeanRows, weights: np.ndarray) -> MeanRows:
    """weights (m, n) times the rows; what one blind row takes part in is blind."""
    used = weights != 0
    return rows.map(lambda x: weights @ x, lambda blind: used @ blind > 0)


@dataclass(frozen=True)
class MarginalMeans:
    """Estimates with their errors, tests and limits: a row a mean, slope or contrast.

    ``table`` is a data frame of them. ``pairs()``, ``contrast()``, ``letters()``,
    ``regrid()``, ``test()`` and ``effect_sizes()`` go on from here; ``showing()``
    changes level, adjustment and scale.

    keys: names of the rows; factors: columns of keys that are compared; by: columns
    that keep groups apart; level, adjust: of limits and p-values.
    """

    means: Means = field(repr=False)
    rows: MeanRows = field(repr=False)
    keys: pd.DataFrame = field(repr=False)
    factors: tuple[str, ...]
    by: tuple[str, ...] = ()
    shown: Shown = field(default_factory=Shown)
    level: float = 0.95
    adjust: str = "none"
    n_means: int | None = None
    df: float | None = None
    notes: tuple[str, ...] = ()

    # As numbers -----------------------------------------------------------------------

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """Positions of the rows of each group."""
        if not self.by:
            return [np.arange(len(self.keys))]
        found: dict[tuple, list[int]] = {}
        for i, key in enumerate(keys_of(self.keys, self.by)):
            found.setdefault(key, []).append(i)
        return [np.array(i) for i in found.values()]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Keys, estimate, std_error, df, statistic, p_value, conf_low, conf_high.

        Of a posterior estimate, std_error, limits and p_direction of the draws.
        """
        found = tabulated(
            self.means,
            self.rows,
            Wanted(self.shown, self.level, self.adjust, self.n_means, self.df),
            self.groups,
        )
        return pd.concat([self.keys, found], axis=1)

    @property
    def estimates(self) -> np.ndarray:
        """(m,) as shown."""
        return self.table["estimate"].to_numpy()

    def showing(
        self,
        *,
        level: float | None = None,
        adjust: str | None = None,
        type: str | None = None,
    ) -> MarginalMeans:
        """The same estimates, shown otherwise.

        Args:
            level: coverage of the limits.
            adjust: see ``contrast``.
            type: "link" or "response".

        Raises:
            NotApplicableError: of a transformed response whose inverse is not known.
        """
        out = self
        if level is not None:
            _arguments.level(level)
            out = replace(out, level=level)
        if adjust is not None:
            out = replace(out, adjust=checked_adjust(adjust))
        if type is not None:
            _arguments.choice("type", type, ("link", "response"))
            out = replace(out, shown=out.shown.turned(type == "response"))
        return out

    # Contrasts ------------------------------------------------------------------------

    def pairs(self, adjust: str | None = None, *, reverse: bool = False, by=None):
        """All differences of two means of a group, adjusted after Tukey.

        Args:
            adjust: see ``contrast``.
            reverse: second minus first.
            by: see ``contrast``.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Machines")
            >>> fit = jg.lmm("score ~ Machine + (1 | Worker / Machine)", data)
            >>> table = fit.means("Machine").pairs().table
            >>> table["contrast"].tolist(), table["estimate"].round(2).tolist()
            (['A - B', 'A - C', 'B - C'], [-7.97, -13.92, -5.95])
        """
        reverse = _arguments.flag("reverse", reverse)
        method = "revpairwise" if reverse else "pairwise"
        return self.contrast(method, adjust=adjust, by=by)

    def contrast(
        self,
        method: Any = "eff",
        *,
        adjust: str | None = None,
        by: Any = None,
        ref: Any = None,
        interaction: Any = None,
        simple: Any = None,
    ) -> MarginalMeans:
        """Contrasts of the means of each group.

        Args:
            method: "pairwise", "revpairwise", "trt.vs.ctrl" (the first is the control,
                or ``ref``), "trt.vs.ctrlk" (the last), "consec", "mean_chg", "eff",
                "del.eff", "poly", "helmert", "identity", a dict name -> weights, or a
                matrix of weights, a row a contrast.
            adjust: of p-values and limits, for the contrasts of a group: "tukey",
                "dunnettx", "dunnett", "mvt", "scheffe", "sidak", "bonferroni", "holm",
                "holm-sidak", "fdr" or "none". Default by method: "tukey" of pairs,
                "dunnettx" (emmeans' approximation to Dunnett's) of a control, "mvt" of
                "consec" and "mean_chg", "fdr" of effects, "none" of others. "dunnett"
                and "mvt" are the multivariate t of the contrasts' own correlations.
            by: variables that keep groups apart; default as the means have them.
            ref: the control, a name or a place; of several the average.
            interaction: True ("pairwise" of each factor), a method, or one a factor:
                contrasts of contrasts.
            simple: a factor (or "each"): its contrasts within the levels of the
                others; "each" gives a dict of them.

        Raises:
            ArgumentError, NotApplicableError: for what these means cannot answer.
        """
        if interaction is not None and interaction is not False:
            return self._interaction(interaction, adjust, by)
        if simple is not None:
            return self._simple(method, simple, adjust)
        source = self if by is None else self._grouped_by(by)
        pairs = isinstance(method, str) and method in ("pairwise", "revpairwise")
        sign = "/" if source._ratios else "-"
        keys, weights, sizes = [], [], []
        for i in source.groups:
            names, W = contrasts(method, source._labels(i), sign, ref)
            part = pd.DataFrame({"contrast": names})
            for name in source.by:
                part[name] = [source.keys[name].iloc[i[0]]] * len(names)
            full = np.zeros((len(W), len(source.keys)))
            full[:, i] = W
            if len(names):
                keys.append(part)
                weights.append(full)
                sizes.append(len(i))
        if adjust is None:
            adjust = METHODS[method][1] if isinstance(method, str) else "none"
        label = method if isinstance(method, str) else "contrasts"
        if not keys:
            raise NotApplicableError(
                f"{label}: there is nothing to compare, each group has one mean. Give "
                f"another by= (now {', '.join(source.by) or 'none'})"
            )
        return source._of(
            pd.concat(keys, ignore_index=True),
            np.concatenate(weights),
            ("contrast",),
            checked_adjust(adjust),
            max(sizes) if pairs else None,
        )

    def _of(self, keys, weights, factors, adjust, n_means) -> MarginalMeans:
        """Contrasts by weights (m, n) of these rows."""
        rows = combined(self.rows, weights)
        if self.means.is_linear:  # offsets and what rounding leaves cancel
            sums = np.abs(weights.sum(axis=1)) < 1e-12
            exact = rows.jacobian @ self.means.fit.coefficients
            off = np.where(sums & (np.ptp(self.rows.offset) == 0), 0.0, rows.offset)
            rows = replace(rows, value=exact + off, offset=off)
        zero = np.abs(weights.sum(axis=1)).max() < 1e-9
        shown = self.shown if not zero else replace(self.shown, difference=True)
        if not zero and not self.shown.plain and not self.shown.difference:
            shown = replace(self.shown, back=False)
        return replace(
            self,
            rows=rows,
            keys=keys,
            factors=factors,
            shown=shown,
            adjust=adjust,
            n_means=n_means,
        )

    @property
    def _ratios(self) -> bool:
        shown = replace(self.shown, difference=True)
        return shown.changes and not self.shown.difference

    def _labels(self, i: np.ndarray) -> list[str]:
        """Names of the means of a group; levels that are numbers after their factor."""
        if self.factors == ("contrast",):
            return [f"({x})" for x in self.keys["contrast"].iloc[i]]
        if not self.factors:
            return ["mean"] * len(i)
        parts = []
        for name in self.factors:
            levels = self.keys[name]
            plain = not all(_is_numeral(v) for v in levels)
            parts.append(
                [f"{v}" if plain else f"{name}{short(v)}" for v in levels.iloc[i]]
            )
        names = (" ".join(some) for some in zip(*parts, strict=True))
        # a sign within a name is none between two
        return [f"({name})" if set(name) & set("+-*/") else name for name in names]

    def _grouped_by(self, by: Any) -> MarginalMeans:
        names = tuple(_arguments.names("by", by, meaning="a variable's name"))
        all_of = (*self.factors, *self.by)
        unknown = [n for n in names if n not in all_of]
        if unknown:
            raise ArgumentError(
                f"by={unknown[0]!r}: these means are of {', '.join(all_of) or 'all'}"
            )
        rest = tuple(n for n in all_of if n not in names)
        return replace(self, factors=rest, by=names)

    def _simple(self, method: Any, simple: Any, adjust: str | None) -> Any:
        if isinstance(simple, str) and simple == "each":
            return {
                name: self._simple(method, name, adjust)
                for name in self.factors
                if len(set(self.keys[name])) > 1
            }
        names = _arguments.names("simple", simple, meaning="a factor's name")
        unknown = [n for n in names if n not in self.factors]
        if unknown:
            raise ArgumentError(
                f"simple={unknown[0]!r}: these means are of {', '.join(self.factors)}"
            )
        others = [n for n in (*self.factors, *self.by) if n not in names]
        return self.contrast(method, adjust=adjust, by=others)

    def _interaction(
        self, interaction: Any, adjust: str | None, by: Any
    ) -> MarginalMeans:
        source = self if by is None else self._grouped_by(by)
        keys, weights, labels = interactions(
            source.keys, source.factors, source.by, source.groups, interaction
        )
        adjust = checked_adjust("none" if adjust is None else adjust)
        return source._of(keys, weights, labels, adjust, None)

    # What else ------------------------------------------------------------------------

    def regrid(self) -> MarginalMeans:
        """The means on the scale of the response, to be compared there.

        Differences of what is returned are differences of means (of probabilities,
        say), with errors by the delta method, or of the draws.
        """
        if self.shown.plain:
            return self
        drawn = "p_value" not in self.means.table(self.rows, self.level)
        rows = self.shown.transformed(self.rows, drawn)
        means = on_response(self.means)
        return replace(self, rows=rows, means=means, shown=Shown(), adjust="none")

    def test(self, *, joint: bool = True) -> pd.DataFrame:
        """All estimates of a group are zero: F or chi-squared, a row a group.

        Args:
            joint: False for the table of single tests instead.

        Returns:
            the groups, num_df, den_df, statistic (F), p_value.
        """
        if not _arguments.flag("joint", joint):
            return self.table
        if "p_value" not in self.table:
            raise NotApplicableError(
                "test() needs p-values, and a posterior has none: look at p_direction"
            )
        found = []
        for i in self.groups:
            key = {n: self.keys[n].iloc[i[0]] for n in self.by}
            found.append(key | self.means.joint(self.rows.take(i), self.df))
        return pd.DataFrame(found)

    def letters(self, alpha: float = 0.05, adjust: str | None = None) -> pd.DataFrame:
        """The table with a column of letters: means that share one do not differ.

        Args:
            alpha: of the comparisons of all pairs.
            adjust: see ``contrast``.

        After Piepho (2004, J. Comput. Graph. Stat. 13, 456).
        """
        alpha = _arguments.between("alpha", alpha, "0.05 for five per cent")
        compared = self.pairs(adjust).table
        if "p_value" not in compared:
            raise NotApplicableError(
                "letters() needs p-values, and a posterior has none: look at pairs()"
            )
        differ = compared["p_value"].to_numpy() <= alpha
        found = letters_of_groups(self.estimates, self.groups, differ)
        return self.table.assign(letters=found)

    def effect_sizes(self, sigma: float | None = None, edf: float | None = None):
        """Differences in units of a standard deviation (Cohen's d), with their errors.

        Args:
            sigma: that standard deviation; default the fit's residual one.
            edf: degrees of freedom that it was estimated with, infinite where None.

        Returns:
            a frame; std_error has the uncertainty of sigma where edf is given.
        """
        sigma = self.means.fit.sigma if sigma is None else sigma
        sigma = _arguments.positive("sigma", sigma, 1e300, "a standard deviation")
        if edf is not None:
            edf = _arguments.positive("edf", edf, 1e300, "degrees of freedom of sigma")
        source = self if self.shown.difference else self.pairs(adjust="none")
        source = replace(source, shown=replace(source.shown, back=False), adjust="none")
        return effect_sizes(source.table, source.keys, sigma, edf)

    # As text --------------------------------------------------------------------------

    def _notes(self) -> list[str]:
        out = [*self.notes]
        if not self.shown.plain:
            out.append(f"Scale: {self.shown.scale}")
        if self.means.ddf is not None and self.df is None:
            out.append(f"Degrees of freedom: {self.means.ddf}")
        adjusted = self.adjust != "none" and any(len(i) > 1 for i in self.groups)
        kind = f", adjusted ({self.adjust})" if adjusted else ""
        return [*out, f"Limits: {100 * self.level:g}%{kind}"]

    def __repr__(self) -> str:
        return as_text(blocks(self.table, self.keys, self._notes()))

    def _repr_html_(self) -> str:
        return as_html(blocks(self.table, self.keys, self._notes()))

    def __len__(self) -> int:
        return len(self.keys)


def checked_adjust(adjust: Any) -> str:
    """One of ``ADJUST``; the spellings of emmeans and SciPy are read."""
    if isinstance(adjust, str):
        adjust = {"fdr_bh": "fdr", "BH": "fdr"}.get(adjust, adjust)
    return _arguments.choice("adjust", adjust, ADJUST)


def _is_numeral(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
