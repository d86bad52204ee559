"""``fits.plot``: figures of many fits, drawn by ``jaxglmm.plots`` when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels


class FitsPlots:
    """Figures of many fits; each returns Matplotlib axes."""

    def __init__(self, fits: FittedModels):
        self._fits = fits

    def __repr__(self) -> str:
        return f"<Figures: volcano, p_values, estimates of {len(self._fits):,} fits>"

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

    def estimates(self, which=None, **options):
        """Histograms of the estimates over the data sets, with the central 95%.

        Of fits that converged. A line marks the value that draws came from, where it
        is known.

        Args:
            which: names of the parameters; the first twelve by default.
            **options: ``marks``, name -> value; ``axes``, one a parameter.

        Returns:
            Array of axes.
        """
        from jaxglmm.plots import marginals

        frame = self._fits.frame()[np.asarray(self._fits.converged)]
        draws = {name: frame[name].to_numpy() for name in frame.columns}
        options.setdefault("marks", dict(self._fits.original))
        return marginals(draws, which, **options)
