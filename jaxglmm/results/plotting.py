"""``fit.plot``: the figures of a fit, drawn by ``jaxglmm.plots`` when asked for.

Matplotlib is imported by the figure, not by the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxglmm._errors import NotApplicableError

if TYPE_CHECKING:
    from jaxglmm.results.questions import Questions


FIGURES = (
    "check",
    "ranef",
    "residuals",
    "qq",
    "simulated_residuals",
    "profile",
    "marginals",
    "smooths",
    "influence",
    "means",
    "wright_map",
    "item_curves",
)


class PlotAccessor:
    """Figures of one fit; each returns Matplotlib axes."""

    def __init__(self, fit: Questions):
        self._fit = fit

    def __repr__(self) -> str:
        return f"<Figures of {self._fit!r}: {', '.join(FIGURES)}>"

    def check(self, **options):
        """All that the model assumes on one page.

        Draws against the data, linearity, homogeneity, normal quantiles, influential
        rows, collinearity.

        Args:
            **options: ``draws`` and their ``seed``, ``axes``.

        Returns:
            Array of axes, a panel each.
        """
        from jaxglmm.plots import check

        return check(self._fit, **options)

    def ranef(self, factor: str | None = None, **options):
        """Conditional modes with intervals, sorted: one panel a column.

        Args:
            factor: which grouping factor; all of them by default.
            **options: ``terms``, ``level``, ``sort``, ``max_labels``, ``axes``.

        Returns:
            Array of axes.
        """
        from jaxglmm.plots import ranef

        return ranef(self._fit, factor, **options)

    def residuals(self, **options):
        """Residuals against the fixed part of the prediction, with a smooth curve.

        Args:
            **options: ``type`` of residuals, ``against`` ("fixed" or "fitted"),
                ``smooth``, ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots import residuals

        return residuals(self._fit, **options)

    def smooths(self, **options):
        """Curves of the smooths ``s(x)``, ``te(x, z)`` with their bands.

        Args:
            **options: ``level`` of the bands, ``axes``.

        Returns:
            Array of axes.
        """
        from jaxglmm.plots import smooths

        return smooths(self._fit, **options)

    def qq(self, what: str = "residuals", **options):
        """Normal quantile plot with a simultaneous band.

        Args:
            what: "residuals", or "ranef" for one panel a column of random effects.
            **options: ``level`` of the band, ``factor``, ``ax`` or ``axes``.

        Returns:
            Axes for residuals, array of axes for random effects.
        """
        from jaxglmm.plots import qq

        return qq(self._fit, what, **options)

    def simulated_residuals(self, residuals=None, **options):
        """Simulated residuals: against the uniform distribution and the prediction.

        Args:
            residuals: what ``fit.simulated_residuals()`` returned; made where not
                given.
            **options: ``n``, ``seed`` and ``re`` of the residuals; ``axes``, two.

        Returns:
            Array of two axes.
        """
        from jaxglmm.plots import simulated_residuals as draw

        if residuals is None:
            given = {k: options.pop(k) for k in ("n", "seed", "re") if k in options}
            residuals = self._fit.simulated_residuals(**given)
        return draw(residuals, **options)

    def profile(self, profile=None, **options):
        """Signed roots of the profile deviance: straight lines where Wald is right.

        Args:
            profile: what ``fit.profile()`` returned; computed where not given.
            **options: ``levels`` of the marked intervals, ``which``, ``axes``.

        Returns:
            Array of axes.
        """
        from jaxglmm.plots import profile as draw

        if profile is None:
            profile = self._fit.profile(options.pop("which", None))
        return draw(profile, **options)

    def influence(self, by=None, **options):
        """Cook's distances of levels or rows left out, and what coefficients do.

        Args:
            by: what ``fit.influence(...)`` returned, or what it takes: a factor, None
                for rows.
            **options: ``n`` of the largest that are shown, ``axes``, two.

        Returns:
            Array of two axes.
        """
        from jaxglmm.plots import influence as draw

        found = by if hasattr(by, "dfbetas") else self._fit.influence(by)
        return draw(found, **options)

    def means(
        self,
        specs=(),
        by=None,
        *,
        arrows: bool | None = None,
        adjust: str | None = None,
        lines: bool = False,
        axes=None,
        **options,
    ):
        """Marginal means with limits and arrows of comparison, or interaction lines.

        Args:
            specs: what ``fit.means(...)`` returned, or its factors.
            by: factors that keep groups apart, a panel or a line each.
            arrows: two that overlap are means that do not differ.
            adjust: of these comparisons.
            lines: means of the first factor joined by lines.
            axes: where to draw.
            **options: as ``fit.means`` takes them (``at``, ``type``, ``level``, ...).

        Returns:
            Array of axes.
        """
        from jaxglmm.plots import means as draw

        known = hasattr(specs, "letters")
        found = specs if known else self._fit.means(specs, by, **options)
        return draw(found, arrows=arrows, adjust=adjust, lines=lines, axes=axes)

    def wright_map(self, persons=None, items=None, **options):
        """Persons' abilities and items' difficulties on one axis.

        Args:
            persons: what ``fit.persons_items()`` returned, or its grouping factor.
            items: the other factor.
            **options: ``level``, ``max_labels``, ``axes``, two.

        Returns:
            Array of two axes.

        Raises:
            NotApplicableError: no model of right and wrong answers of persons.
        """
        from jaxglmm.plots import wright_map as draw

        return draw(self._persons_items(persons, items), **options)

    def item_curves(self, which=None, persons=None, items=None, **options):
        """Item characteristic curves: the probability of a right answer by ability.

        Args:
            which: names of items; by default eight, from the easiest to the hardest.
            persons: what ``fit.persons_items()`` returned, or its grouping factor.
            items: the other factor.
            **options: ``level``, ``most``, ``axes``.

        Returns:
            The axes.

        Raises:
            NotApplicableError: no model of right and wrong answers of persons; no item
                of such a name.
        """
        from jaxglmm.plots import item_curves as draw

        return draw(self._persons_items(persons, items), which, **options)

    def _persons_items(self, persons, items):
        if hasattr(persons, "reliability"):
            return persons
        ask = getattr(self._fit, "persons_items", None)
        if ask is None:
            raise NotApplicableError(
                "a Wright map and curves of items are of right and wrong answers: "
                "jg.glmm('right ~ 1 + (1 | person) + (1 | item)', data, "
                "family='binomial')"
            )
        return ask(persons, items)

    def marginals(self, which=None, **options):
        """Histograms of a posterior's parameters, with the central 95%.

        Args:
            which: names of the parameters; the first twelve by default.
            **options: ``axes``, one a parameter.

        Returns:
            Array of axes.

        Raises:
            NotApplicableError: the fit is no posterior.
        """
        from jaxglmm.plots import marginals

        return marginals(self._fit.posterior.parameters, which, **options)

    def __call__(self, **options):
        """Residuals against the fixed part of the prediction."""
        return self.residuals(**options)
