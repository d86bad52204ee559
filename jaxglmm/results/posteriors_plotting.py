"""``posteriors.plot``: figures of many posteriors, drawn when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxglmm.many.posteriors import FittedPosteriors


class PosteriorsPlots:
    """Figures of many posteriors; each returns Matplotlib axes."""

    def __init__(self, posteriors: FittedPosteriors):
        self._posteriors = posteriors

    def __repr__(self) -> str:
        return f"<Figures: intervals of {len(self._posteriors):,} posteriors>"

    def intervals(self, term: str, **options):
        """Posterior means of one parameter with their 95% intervals, sorted.

        Args:
            term: name of the parameter.
            **options: ``max_labels``, the number of data sets up to which each is
                named; ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots import intervals

        return intervals(self._posteriors, term, **options)
