"""``fits.plot``: figures of many fits, drawn by ``jaxglmm.plots`` when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxglmm.results.fits.fits import Fits


class FitsPlots:
    """Figures of many fits; each returns Matplotlib axes."""

    def __init__(self, fits: Fits):
        self._fits = fits

    def __repr__(self) -> str:
        return f"<Figures: volcano, p_values of {len(self._fits):,} fits>"

    def volcano(self, term: str, **options):
        """Estimates of one coefficient against their p-values.

        Args:
            term: name of the coefficient.
            **options: ``rate`` of false discoveries, ``labels`` to write, ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots import volcano

        return volcano(self._fits, term, **options)

    def p_values(self, term: str, **options):
        """Histogram of the p-values of one coefficient, flat where nothing is there.

        Args:
            term: name of the coefficient.
            **options: ``bins``, ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots import p_values

        return p_values(self._fits, term, **options)
