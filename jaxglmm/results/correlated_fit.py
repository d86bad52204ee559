"""The face of a linear model with correlated residuals."""

from __future__ import annotations

from jaxglmm import _arguments
from jaxglmm._brief import cut
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.fitting.fitted_correlated import FittedCorrelated
from jaxglmm.fitting.fitted_dispersed import FittedDispersed
from jaxglmm.postestimation.prediction import from_neighbours
from jaxglmm.results.fit import Fit


class CorrelatedFit(FittedCorrelated, Fit):
    """A fitted linear model whose residuals are correlated or differ in variance.

    Everything that ``Fit`` says holds here too. ``residual_covariance`` has standard
    deviations and correlations of the visits, ``residual_parameters`` the parameters
    with their errors.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or a function that makes them when they are read.
        engine: whatever computes for this design again; rebuilt when it is needed.
        diagnostics: facts about the computation.
        compute_satterthwaite: False for n - p degrees of freedom.
        ddf: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within"
            or "residual".
        vcov: "asymptotic", or an empirical covariance of the coefficients.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days", data, residual="ar1(Days | Subject)")
        >>> fit.residual_parameters["estimate"].round(3).to_dict()
        {'sigma': 48.436, 'rho|Residual': 0.786}
    """

    @conf_level_too
    def predict(
        self,
        newdata=None,
        re: str = "conditional",
        type: str = "response",
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "zero",
        offset=None,
        *,
        residual: bool = False,
    ):
        """Predicted means, or with ``residual=True`` predicted values.

        By default the means of ``Fit.predict``: residuals of other rows say nothing,
        as in nlme's and lme4's ``predict``. With ``residual=True`` a new row of a
        subject that is known also takes what its other rows leave to be expected of
        its residual, cov(new, old) V^-1 (y - X beta) (Goldberger 1962; mmrm's
        ``conditional = TRUE``): a visit that was missed, a time to come. A row at a
        place where the subject has one is that row, but for a nugget. ``se`` and
        ``interval="prediction"`` are then those of the value itself.

        Args:
            newdata: data frame or mapping of arrays; default the data of the fit.
            re: as in ``Fit.predict``; "conditional" where ``residual`` is asked for.
            type: "response" or "link", here the same.
            se: also standard errors.
            interval: "confidence" for the mean, "prediction" for a new observation.
            level: coverage of the interval.
            new_levels: "zero" or "error".
            offset: (n,) of new data, where the fit's was given as an array.
            residual: whether residuals of the subject's other rows are used.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days", data, residual="ar1(Days | Subject)")
            >>> new = {"Days": [10, 10], "Subject": ["308", "309"]}
            >>> fit.predict(new).round(1).tolist()
            [358.4, 358.4]
            >>> fit.predict(new, residual=True).round(1).tolist()
            [453.1, 269.9]
        """
        _arguments.flag("residual", residual)
        if not residual:
            return super().predict(
                newdata, re, type, se, interval, level, new_levels, offset
            )
        return from_neighbours.predict(
            self, newdata, re, type, se, interval, level, new_levels, offset
        )

    def __repr__(self) -> str:
        how = "REML" if self.reml else "ML"
        flags = "" if self.converged else ", not converged"
        flags += ", singular" if self.is_singular else ""
        return (
            f"<{type(self).__name__} {cut(self.formula, 90)} | {self.nobs} rows, {how} "
            f"criterion {self.criterion:.2f}{flags}>"
        )


class DispersedFit(FittedDispersed, CorrelatedFit):
    """A fitted linear model with a formula of its residual standard deviation.

    Everything that ``Fit`` says holds here too. The components are "cond", the mean,
    and "disp", the logarithm of the residual standard deviation: ``fixef["disp"]`` and
    ``tidy()`` have its coefficients, ``predict(type="disp")`` its values.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days + (1 | Subject)", data, dispersion="~ Days")
        >>> {name: round(value, 3) for name, value in fit.fixef["disp"].items()}
        {'(Intercept)': 2.979, 'Days': 0.091}
    """

    @conf_level_too
    def predict(
        self,
        newdata=None,
        re: str = "conditional",
        type: str = "response",
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "zero",
        offset=None,
    ):
        """Predicted means, or residual standard deviations, of the rows or of new data.

        Args:
            newdata: data frame or mapping of arrays; default the data of the fit.
            re: "conditional", "population" or "marginal", as for other linear models.
            type: "response", "conditional" or "link", which are the same here; "disp",
                the residual standard deviation of a row of weight one.
            se: also standard errors.
            interval: "confidence", or "prediction" for a new observation.
            level: coverage of the interval.
            new_levels: "zero" or "error", of levels that were not in the data.
            offset: (n,) offset of the mean of new data, where the fit's was an array.

        Returns:
            (n,) array; a frame with fit, se, lower, upper where these were asked for.

        Raises:
            NotApplicableError: a type that there is not, a prediction interval of the
                standard deviation.
            DataError: missing columns, unseen levels of a fixed factor.
        """
        from jaxglmm.postestimation.prediction import dispersion as _dispersion

        if type == "disp":
            return _dispersion.predict(self, newdata, se, interval, level)
        _dispersion.check_type(type)
        of = {"re": re, "se": se, "interval": interval, "level": level}
        rest = of | {"new_levels": new_levels, "offset": offset}
        return super().predict(newdata, **rest)

    @property
    def icc(self):
        """None of these models: rows have no one residual variance.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError(_NO_SHARE.format("intraclass correlation"))

    def r2(self):
        """None of these models, for the same reason as ``icc``.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError(_NO_SHARE.format("Nakagawa's R squared"))


_NO_SHARE = (
    "a model with a formula of its residual sd has no {}: the residual variance "
    "differs from row to row. varcorr has the variances of the random effects, "
    "predict(type='disp') the residual standard deviations"
)
