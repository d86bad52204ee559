"""What a fit can be asked about its own uncertainty, by draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxglmm.results.planning import Planning
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
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
            NotApplicableError: models with correlated residuals; a posterior, which has
                draws of its own.

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
