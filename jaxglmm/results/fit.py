"""Fit: names come back.

A fit is what was found (``fitting.fitted_model``), what it can be asked
(``questions``), and how it is shown and kept, which is here.
"""

from __future__ import annotations

import copy as _copy
from functools import cached_property
from typing import TYPE_CHECKING

from jaxglmm._brief import cut
from jaxglmm.fitting import storage as _store
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.postestimation.report import frames as _frames
from jaxglmm.postestimation.report import summary as _summary
from jaxglmm.results import faces
from jaxglmm.results.plotting import PlotAccessor
from jaxglmm.results.questions import Questions

if TYPE_CHECKING:
    import pandas as pd


class Fit(Questions):
    """A fitted linear mixed model.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        engine: whatever computes for this design again (refit, profile, Satterthwaite);
            rebuilt from the design when it is first needed.
        diagnostics: facts about the computation (seconds, steps, system, ...).
        compute_satterthwaite: False for n - p degrees of freedom, which cost nothing.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
        >>> fit.varcorr["Subject"].sd.round(2).tolist(), round(fit.sigma, 2)
        ([24.74, 5.92], 25.59)
        >>> fit.confint().round(2).loc["Days"].tolist()
        [7.21, 13.73]
        >>> fit.predict({"Days": [10]}, re="population").round(1).tolist()
        [356.1]
    """

    # Showing it ----------------------------------------------------------------------

    def summary(self, ddf: str | None = None) -> _summary.Summary:
        """The fit on a page.

        Args:
            ddf: degrees of freedom of the t-tests: "satterthwaite", "kenward-roger" or
                "residual"; default as fitted.

        Returns:
            A string that shows itself and carries ``.coefficients``, ``.varcorr``, ...
        """
        return _summary.summarise(self, self.checked_ddf(ddf))

    @conf_level_too
    def tidy(
        self,
        effects="fixed",
        conf_int: bool = False,
        level: float = 0.95,
        conf_method: str = "wald",
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """One row an estimate, with the columns of R's broom.mixed.

        Args:
            effects: "fixed", "ran_pars", "ran_vals", "all", or several of them.
            conf_int: also conf_low and conf_high.
            level: their coverage (``conf_level`` is read as well).
            conf_method: "wald" (none for "ran_pars"), "profile" or "bootstrap".
            exponentiate: exp of the fixed effects and their limits: odds ratios
                (logit), ratios of means (log), hazard ratios (cloglog). Standard errors
                by the delta method; statistic and p-value stay the coefficient's.

        Raises:
            NotApplicableError: ``exponentiate`` with a link for which exp of a
                coefficient has no meaning.
        """
        return _frames.tidy(self, effects, conf_int, level, conf_method, exponentiate)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit."""
        return _frames.glance(self)

    def augment(self) -> pd.DataFrame:
        """The data with fitted values, residuals and X beta."""
        return _frames.augment(self)

    @cached_property
    def certificate(self):
        """How far the likelihood can be trusted, with numbers and advice.

        Example:
            >>> import jaxglmm as jg
            >>> cbpp = jg.datasets.load("cbpp")
            >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
            >>> jg.glmm(formula, cbpp).certificate.verdict
            'trust'
        """
        from jaxglmm.posterior.certificate import of_maximum

        return of_maximum(self)

    def smooths(self) -> pd.DataFrame:
        """Effective degrees of freedom of the smooths, and their columns."""
        from jaxglmm.postestimation.prediction.smooths import table

        return table(self)

    def smooth(self, label=None, at=None, level: float = 0.95) -> pd.DataFrame:
        """A smooth by itself: estimate, std_error and band, around zero.

        Args:
            label: ``"s(x)"``, ``"s(x):fa"`` of one level of ``by``.
            at: a table with its variables; a grid over the data where None.
            level: coverage of the band, pointwise.
        """
        from jaxglmm.postestimation.prediction.smooths import curve

        return curve(self, label, at, level)

    @property
    def plot(self) -> PlotAccessor:
        """Figures: ``.residuals()``, ``.qq()``, ``.ranef()``, ``.profile()``, ..."""
        return PlotAccessor(self)

    def __repr__(self) -> str:
        how = "REML" if self.reml else "ML"
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<Fit {cut(self.formula, 90)} | {self.nobs} rows, {how} criterion "
            f"{self.criterion:.2f}{flags}>"
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # Keeping it ----------------------------------------------------------------------

    def save(self, path) -> None:
        """Write the fit to a file that ``load`` reads; no pickle in it."""
        _store.save(self, path)

    @staticmethod
    def load(path, *, functions=None, trusted: bool = False) -> Fit:
        """Read a fit that ``save`` wrote; the arguments are those of ``jg.load``."""
        return _store.load(path, functions, trusted, faces.face)

    def copy(self) -> Fit:
        """A copy that shares nothing that can be changed."""
        return _copy.deepcopy(self)
