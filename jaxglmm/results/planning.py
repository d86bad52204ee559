"""What a fit can be asked about a study like its own: power, and larger designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxglmm.results import faces
from jaxglmm.results.influencing import Influencing
from jaxglmm.results.refusals import of_likelihood

if TYPE_CHECKING:
    from jaxglmm.postestimation.power.simulation import Power


class Planning(Influencing):
    """An estimated model that the next study is planned by; see ``Fit``."""

    @of_likelihood
    def power(
        self,
        test: str,
        n_simulations: int = 1000,
        *,
        alpha: float = 0.05,
        method: str | None = None,
        assume: Mapping[str, float] | None = None,
        seed: Any = 0,
        progress: bool | None = None,
    ) -> Power:
        """The share of simulated data sets in which a test finds an effect.

        Responses are drawn from the fit, random effects anew in each, and fitted. An
        effect that was estimated is a poor guide to the next study's power (it is large
        because it was found): say by ``assume`` what effect matters.

        Args:
            test: a coefficient, or a term of the fixed effects.
            n_simulations: number of data sets.
            alpha: level of the test.
            method: "t" (Satterthwaite's df; default of a coefficient in linear models),
                "kenward-roger" (one fit after the other), "z" (default of a coefficient
                in generalised models) or "lrt" (default of terms with several
                coefficients, by maximum likelihood).
            assume: name -> value of parameters: coefficients, "sd_Days|Subject",
                "sigma", ...; others stay as they were estimated.
            seed: of the random numbers; equal seeds give equal results.
            progress: show a bar; None: where it takes more than a moment.

        Returns:
            ``Power``, which shows itself: ``.power``, ``.limits`` (Clopper and
            Pearson's, exact), ``.failed``, ``.p_values``.

        Raises:
            NotApplicableError: no such effect, or a test that the model has not.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> found = fit.power("Days", 500, assume={"Days": 4.0})
            >>> 0.6 < found.power < 0.8, found.n
            (True, 500)
        """
        given = {"alpha": alpha, "method": method, "assume": assume}
        given |= {"seed": seed, "progress": progress}
        return faces.face("study").of(self).power(test, n_simulations, **given)

    @of_likelihood
    def extend(
        self,
        along: str | None = None,
        n: int | None = None,
        *,
        within: str | None = None,
        data: Any = None,
    ):
        """A study of other size with the parameters of the fit, to ask for its power.

        Args:
            along: a grouping factor that is to have n levels: new ones have the rows of
                levels of the data in turn, and levels of factors inside it are new too.
            n: levels, or rows with ``within``.
            within: a grouping factor whose levels are to have n rows each, those there
                are in turn.
            data: a table with predictors and grouping factors (no response) instead; of
                binomial responses its column ``trials`` has their numbers.

        Returns:
            ``Study``: ``.power(...)``, ``.power_curve(...)``, ``.simulate(n)``.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
            >>> more = fit.extend(along="Subject", n=40)
            >>> more.power("Days", 200, assume={"Days": 4.0}).power > 0.9
            True
        """
        return faces.face("study").of(self).extend(along, n, within=within, data=data)

    @of_likelihood
    def power_curve(
        self,
        test: str,
        along: str | None = None,
        sizes: Sequence[float] | None = None,
        **options: Any,
    ):
        """Power at several sizes; see ``jg.power_curve``."""
        return faces.face("study").of(self).power_curve(test, along, sizes, **options)
