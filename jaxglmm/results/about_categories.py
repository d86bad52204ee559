"""Questions that have an answer of their own where the response has categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too

if TYPE_CHECKING:
    import pandas as pd


class AboutCategories:
    """Of faces whose record has categories, fitted or Bayesian; before them."""

    is_ordered: bool
    _predictions: Any

    @conf_level_too
    def predictions(
        self,
        newdata=None,
        by=None,
        level: float = 0.95,
        *,
        type: str = "response",
        re: str = "population",
        offset=None,
        grid: str = "observed",
    ) -> pd.DataFrame:
        """Predictions with standard errors and limits, of rows or averages of rows.

        As for other models, with ``type="probs"`` as well: a row a category.

        Raises:
            NotApplicableError: categories without an order that were fitted by maximum
                likelihood; ``predict`` has their probabilities.

        Example:
            >>> import jaxglmm as jg
            >>> data = {"y": [1, 2, 3, 2, 1, 3, 3, 2], "x": [0, 1, 1, 0, 0, 1, 0, 1]}
            >>> fit = jg.clmm("y ~ x", data)
            >>> table = fit.predictions(by="x", type="probs")
            >>> table[["x", "category", "estimate"]].round(3).to_numpy()[0].tolist()
            [0.0, 1.0, 0.436]
        """
        return self._predictions(newdata, by, level, type, re, offset, grid)

    @property
    def icc(self):
        """Refused where there is a variance a category."""
        self._one_scale()
        return super().icc  # type: ignore[misc]

    def r2(self, *args, **options):
        """Refused, as is ``icc``."""
        self._one_scale()
        return super().r2(*args, **options)  # type: ignore[misc]

    def _one_scale(self) -> None:
        if not self.is_ordered:
            raise NotApplicableError(
                "ICC and R2 are of one response on one scale; a multinomial model has "
                "a scale for every category: see fit.varcorr"
            )

    def overdispersion(self, *_, **__):
        """Refused: the categories of a row have the spread that their model says."""
        raise NotApplicableError(
            "categories cannot be overdispersed: their probabilities say their spread. "
            "Look at simulated_residuals(), or at dispersion in check()"
        )

    def zero_inflation(self, *_, **__):
        """Refused: categories have no zero, and the lowest one has its threshold."""
        raise NotApplicableError(
            "categories have no zero: the share of each is what the model fits; "
            "zero_inflation() is for counts"
        )
