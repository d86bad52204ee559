"""What a fit can be asked about its own uncertainty, by draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.results.planning import Planning
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.checking.against_draws import Test
    from jaxglmm.postestimation.prediction.joint_draws import JointDraws


class Drawing(Planning):
    """An estimated model that parameters and effects are drawn from; see ``Fit``."""

    @of_likelihood
    def draws(self, n: int = 1000, seed: Any = 0) -> JointDraws:
        """Draws of coefficients, random effects and variance parameters together.

        Normal around the estimates, variance parameters too, with random effects that
        go with them: what ``sim`` of R's arm and ``predictInterval`` of merTools are
        made of. ``.predict``, ``.observations`` and ``.intervals`` ask for rows.

        Args:
            n: draws.
            seed: of the random numbers; equal seeds give equal draws.

        Returns:
            ``JointDraws``: ``.beta`` (n, p), ``.b`` (n, J, q) a term,
            ``.ranef(label)``, ``.frame`` (coefficients, standard deviations,
            correlations, sigma or the dispersion), ``.predict(newdata, re=, type=,
            new_levels="sample")``, ``.observations(newdata)``, ``.intervals(newdata,
            of="observation")``.

        Raises:
            NotApplicableError: a fit without a curvature; a posterior, which has draws
                of its own.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> draws = fit.draws(2000)
            >>> draws.beta.shape, draws.ranef("Subject").shape
            ((2000, 2), (2000, 18, 2))
            >>> new = {"Days": [9], "Subject": ["somebody"]}
            >>> draws.intervals(new).round(-1).iloc[0].tolist()
            [350.0, 240.0, 450.0]
        """
        from jaxglmm.postestimation.prediction.joint_draws import joint_draws

        return joint_draws(self, n, seed)

    def simulated_statistic(
        self,
        of: Callable[[np.ndarray], float],
        n: int = 250,
        seed: Any = 0,
        re: str | None = None,
    ) -> Test:
        """Any statistic of the responses against the same of responses drawn anew.

        Args:
            of: a function of the responses (nobs,) with one number for an answer.
            n: draws, at least 20.
            seed: of the random numbers.
            re: None draws new random effects, "conditional" keeps the modes.

        Returns:
            ``.statistic`` of the data, ``.expected`` by the draws, ``.p_value`` (on
            both sides).

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("Salamanders")
            >>> fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson")
            >>> fit.simulated_statistic(max).p_value < 0.05
            True
        """
        from jaxglmm.postestimation.checking.simulated_residuals import statistic

        return statistic(self, of, n, seed, re)

    def partial_residuals(self) -> pd.DataFrame:
        """Each term's share of the predictor with the residuals: its shape, to be seen.

        Residuals (working residuals of a generalised model, on the scale of the link)
        plus X_t beta_t, centred where there is an intercept: R's
        ``residuals(type="partial")``, random effects taken off with the rest (Larsen
        and McCleary 1972, Technometrics 14, 781).

        Returns:
            (nobs,) rows, a column a term of the fixed effects.

        Raises:
            NotApplicableError: several linear predictors, categories.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> fit.partial_residuals()["Days"].round(1).tolist()[:3]
            [-51.2, -51.3, -68.4]
        """
        from jaxglmm.postestimation.checking.partial_residuals import partial_residuals

        return partial_residuals(self)
