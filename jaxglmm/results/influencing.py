"""What a fit can be asked about single rows, levels and predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.results.choosing import Choosing
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.influence.deletion import Influence


class Influencing(Choosing):
    """An estimated model whose data are left out bit by bit; see ``Fit``."""

    @of_likelihood
    def influence(
        self, by: Any = None, refit: bool | None = None, progress: bool = False
    ) -> Influence:
        """What the fit would be without each row, or each level of a factor.

        Levels are left out exactly: all is estimated anew, variances too, of models
        with one grouping factor in one batch. Rows of linear models are left out at
        covariances held, in closed form; with ``refit=True`` exactly too.

        Args:
            by: None for rows; a grouping factor, a variable of the model, or labels,
                one a row.
            refit: estimate all anew; None: for levels, and where rows have no closed
                form.
            progress: show a bar.

        Returns:
            ``Influence``, which shows itself: ``.cook`` (Cook's distance),
            ``.dfbetas``, ``.dfbeta``, ``.covratio``, ``.hat`` of rows, ``.variances``
            (a frame), ``.table``, ``.top(n)``. Signs and scales are lme4's: without
            less with.

        Raises:
            NotApplicableError: no such factor, or fewer than three levels.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.influence("Subject").top(2)["cook"].round(3).to_dict()
            {'309': 0.132, '335': 0.115}
        """
        from jaxglmm.postestimation.influence.deletion import influence

        return influence(self, by, refit, progress)

    @of_likelihood
    def hat_values(self) -> np.ndarray:
        """(n,) leverages: how far each fitted value follows its own response.

        The diagonal of the hat matrix of X beta + Z b, covariances held.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.hat_values()[:2].round(4).tolist()
            [0.2293, 0.1697]
        """
        from jaxglmm.postestimation.influence.rows import hat_values

        return hat_values(self)

    @of_likelihood
    def cooks_distance(self, by: Any = None) -> np.ndarray:
        """Cook's distance of each row, (n,), or of each level left out.

        Args:
            by: None for rows, by the hat matrix, covariances held; a factor for its
                levels, exactly (``influence(by).cook``).
        """
        if by is not None:
            return self.influence(by).cook
        from jaxglmm.postestimation.influence.rows import cooks_distance

        return cooks_distance(self)

    @of_likelihood
    def studentised_residuals(self) -> np.ndarray:
        """(n,) Pearson residuals over their standard errors, sigma sqrt(1 - hat)."""
        from jaxglmm.postestimation.influence.rows import studentised

        return studentised(self)

    def vif(self, by: str = "term") -> pd.DataFrame:
        """How much predictors inflate each other's variances.

        Generalised variance inflation factors (Fox and Monette 1992) from the
        covariance of the coefficients, the intercept left out, as R's ``car::vif``.

        Args:
            by: "term", or "coefficient" for each column by itself.

        Returns:
            df, vif, and inflation, vif^(1 / (2 df)): of standard errors, to compare
            terms by.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Orthodont")
            >>> fit = jg.lmm("distance ~ age + Sex + (1 | Subject)", data)
            >>> fit.vif()["vif"].round(3).to_dict()
            {'age': 1.0, 'Sex': 1.0}
        """
        from jaxglmm.postestimation.influence.collinearity import vif

        return vif(self, by)

    def condition_number(self) -> float:
        """Of X with columns of length one: above 30 is often called harmful."""
        from jaxglmm.postestimation.influence.collinearity import condition_number

        return condition_number(self)
