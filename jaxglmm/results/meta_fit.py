"""The face of a meta-analysis."""

from __future__ import annotations

from jaxglmm.fitting.meta_analysis import MetaAnalysis


class MetaFit(MetaAnalysis):
    """A meta-analysis: effects, heterogeneity, and what is asked of them.

    ``table`` has the coefficients, ``components`` the variances; ``Q``, ``I2``,
    ``I2_by_level``, ``H2``, ``tau2``; ``predict()`` with prediction intervals,
    ``blup()``, ``moderators()``; ``plot.forest()`` and ``plot.funnel()``. ``model`` is
    the linear mixed model beneath, with all that can be asked of one.

    Example:
        >>> import jaxglmm as jg
        >>> studies = {"yi": [0.1, 0.5, 0.3, 0.9], "vi": [0.04, 0.02, 0.05, 0.03]}
        >>> fit = jg.meta("yi ~ 1", studies, "vi")
        >>> fit.predict().round(2).to_numpy().tolist()
        [[0.46, 0.17, 0.13, 0.79, -0.17, 1.09]]
    """

    def summary(self) -> MetaFit:
        """The analysis itself, which shows all of it on a page."""
        return self

    @property
    def plot(self) -> MetaPlots:
        """Its figures: ``plot.forest()``, ``plot.funnel()``."""
        return MetaPlots(self)


class MetaPlots:
    """Figures of a meta-analysis; each returns Matplotlib axes."""

    def __init__(self, fit: MetaFit):
        self._fit = fit

    def __repr__(self) -> str:
        return f"<Figures of a meta-analysis of {self._fit.nobs}: forest, funnel>"

    def forest(self, labels=None, **options):
        """Effects with their intervals, and the mean with its own below.

        Args:
            labels: (k,) names of the rows, or the name of a column that was used.
            **options: ``sort`` ("data", "effect" or "precision"), ``max_labels``,
                ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots.meta import forest

        return forest(self._fit, labels, **options)

    def funnel(self, **options):
        """Residuals from the mean against standard errors.

        Args:
            **options: ``level`` of the region, ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots.meta import funnel

        return funnel(self._fit, **options)
