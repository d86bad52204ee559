"""What a fit can be asked about means: of cells, slopes, contrasts, joint tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.postestimation.prediction import means as _means
from jaxglmm.postestimation.prediction.dispersion import DispersionMeans

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.comparisons.marginal_means import MarginalMeans

TYPES = {
    "cond": ("link", "conditional"),
    "zi": ("zlink", "zprob"),
    "disp": ("displink", "disp"),
}


class Comparing(FittedModel):
    """An estimated model whose means are compared; see ``Fit``."""

    @conf_level_too
    def means(
        self,
        specs: Any = (),
        by: Any = None,
        *,
        at: Mapping | None = None,
        weights: Any = "equal",
        type: str = "link",
        component: str = "cond",
        regrid: bool = False,
        ddf: str | None = None,
        df: float | None = None,
        level: float = 0.95,
    ) -> MarginalMeans:
        """Estimated marginal means: of a grid of all levels, others averaged over.

        As R's ``emmeans``: means of the linear predictor at random effects of zero.
        What is returned shows itself as a table, and is asked for ``pairs()``,
        ``contrast()``, ``letters()``, ``regrid()``, ``effect_sizes()``.

        Args:
            specs: variable or variables whose combinations have a mean each; a text may
                be a formula, ``"a * b | c"``.
            by: variables whose levels keep comparisons apart.
            at: variable -> values in the grid. Without, factors have all their levels
                and numbers their mean (both of two values).
            weights: of what is averaged over: "equal", "proportional" (to the rows of
                the combinations), "outer" (to products of the rows of each factor's
                levels), "cells" (to the rows of the cells), "flat" (cells with rows
                alone), or numbers, one for each combination.
            type: "link", or "response": transformed back, differences to ratios of
                odds or rates where the link has them. A linear model of log(y), log2,
                log10, log1p, sqrt or log(y + 1) goes back to y.
            component: "cond", "zi" of a zero-inflated model, or "disp" where the
                dispersion has a formula: of a linear model the log residual standard
                deviation, tested by z.
            regrid: average means of the response rather than linear predictors.
            ddf: degrees of freedom, "satterthwaite", "kenward-roger", ...; default as
                fitted.
            df: a number of degrees of freedom instead.
            level: coverage of the limits.

        Raises:
            DataError: for a variable or level that is not there.
            NotApplicableError: type="response" of another function of the response.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Machines")
            >>> fit = jg.lmm("score ~ Machine + (1 | Worker / Machine)", data)
            >>> fit.means("Machine").table["estimate"].round(2).tolist()
            [52.36, 60.32, 66.27]
        """
        from jaxglmm.postestimation.comparisons.asked import marginal_means

        found = self._asked_means(component, _arguments.flag("regrid", regrid), ddf)
        return marginal_means(
            found, specs, by, at=at, weights=weights, type=type, level=level, df=df
        )

    @conf_level_too
    def trends(
        self,
        variable: str,
        specs: Any = (),
        by: Any = None,
        *,
        at: Mapping | None = None,
        weights: Any = "equal",
        component: str = "cond",
        ddf: str | None = None,
        df: float | None = None,
        level: float = 0.95,
    ) -> MarginalMeans:
        """Slopes of the linear predictor in a number, in each combination of others.

        As R's ``emtrends``: at the mean of the variable (or ``at``), to be compared by
        ``pairs()``.

        Args:
            variable: a number of the fixed effects.
            specs: as for ``means``, and all that follow.
            by: groups of comparisons.
            at: values in the grid.
            weights: of what is averaged over.
            component: "cond", "zi" or "disp".
            ddf: how degrees of freedom are found.
            df: a number of them.
            level: coverage of the limits.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.trends("Days").table["estimate"].round(3).tolist()
            [10.467]
        """
        from jaxglmm.postestimation.comparisons.asked import trends

        found = self._asked_means(component, False, ddf)
        return trends(
            found, variable, specs, by, at=at, weights=weights, level=level, df=df
        )

    def joint_tests(
        self,
        by: Any = None,
        *,
        at: Mapping | None = None,
        component: str = "cond",
        ddf: str | None = None,
        df: float | None = None,
    ) -> pd.DataFrame:
        """Tests of the contrasts of every term over the grid of marginal means.

        As R's ``joint_tests``: type III tests that do not depend on how factors are
        coded, within the levels of ``by`` where it is given. A number is tested by the
        difference of its mean - 1 and its mean + 1, or of what ``at`` says.

        Args:
            by: variables within whose levels tests are made.
            at: as for ``means``, and all that follow.
            component: "cond", "zi" or "disp".
            ddf: how degrees of freedom are found.
            df: a number of them.

        Returns:
            term, by, num_df, den_df, statistic (F), p_value.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Machines")
            >>> fit = jg.lmm("score ~ Machine + (1 | Worker / Machine)", data)
            >>> fit.joint_tests()["statistic"].round(2).tolist()
            [20.58]
        """
        from jaxglmm.postestimation.comparisons.asked import joint_tests

        return joint_tests(self._asked_means(component, False, ddf), by, at=at, df=df)

    def to_marginaleffects(self, type: str = "response") -> Any:
        """This fit as a model of the package marginaleffects.

        Its ``predictions``, ``comparisons``, ``slopes`` and ``hypotheses`` take what
        this returns; random effects are zero there, tests by z.

        Args:
            type: "response" or "link".

        Raises:
            NotApplicableError: the package is not installed; a model that is none of
                its kinds (categories, several predictors, posteriors).

        Example:
            >>> import jaxglmm as jg
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)",
            ...              jg.datasets.load("sleepstudy"))
            >>> model = fit.to_marginaleffects()  # doctest: +SKIP
            >>> marginaleffects.avg_slopes(model, variables="Days")  # doctest: +SKIP
        """
        from jaxglmm.export.marginaleffects import to_marginaleffects

        return to_marginaleffects(self, type)

    def to_pymmeans(self, df: float | None = None) -> Any:
        """This fit as a model of the package pymmeans, by its ``qdrg``.

        Its ``emmeans``, ``contrast``, ``pairs``, ``emtrends`` and ``joint_tests`` take
        what this returns; random effects are zero there.

        Args:
            df: degrees of freedom of all tests of a linear model; None for tests by z.

        Raises:
            ArgumentError: degrees of freedom that are none.
            NotApplicableError: the package is not installed; a model that is none of
                its kinds (categories, several predictors, posteriors), or whose
                formula is another model to patsy, by which pymmeans reads it.

        Example:
            >>> import jaxglmm as jg
            >>> fit = jg.lmm("score ~ Machine + (1 | Worker)",
            ...              jg.datasets.load("Machines"))
            >>> info = fit.to_pymmeans()  # doctest: +SKIP
            >>> pymmeans.emmeans(info, "Machine").frame  # doctest: +SKIP
        """
        from jaxglmm.export.pymmeans import to_pymmeans

        return to_pymmeans(self, df)

    def _asked_means(self, component: str, regrid: bool, ddf: str | None):
        """Means of the linear predictor of a component, or of the response."""
        _arguments.choice("component", component, tuple(TYPES))
        known = getattr(self, "components", ("cond",))
        if component not in known:
            raise NotApplicableError(
                f"component={component!r}: this model has {', '.join(known)}"
            )
        if self.is_linear and component == "disp":
            if ddf is not None and self.checked_ddf(ddf) != "asymptotic":
                raise NotApplicableError(
                    f"ddf={ddf!r}: tests of a dispersion formula are by z; df= gives a "
                    "number of degrees of freedom"
                )
            return DispersionMeans(self, TYPES[component][regrid])
        if self.is_linear:
            type = ("link", "response")[regrid]
            return _means.LinearMeans(self, type, self.checked_ddf(ddf))
        if ddf is not None:
            self.checked_ddf(ddf)  # refuses
        ordered = self.family.family_kind == "ordinal"  # type: ignore[attr-defined]
        if ordered and component != "cond":
            raise NotApplicableError(
                f"component={component!r}: means of ordered categories are of the "
                "latent variable, component='cond', or with regrid=True of the mean "
                "category"
            )
        several = len(known) > 1 and not ordered
        type = TYPES[component][regrid] if several else ("link", "response")[regrid]
        return self._means(type, "population")
