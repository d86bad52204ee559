"""A fit as a model of the package marginaleffects (Arel-Bundock, Greifer, Heiss 2024).

Its functions (predictions, comparisons, slopes, hypotheses, datagrid) ask a model for
its data, coefficients, their covariance, and predictions at other coefficients. New
rows are read by the fit's own formula, so that bases, codings and transforms are those
of the fit; random effects are zero, as ``re.form = NA`` in R.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.kinds import is_generalised
from jaxglmm.fitting.model_frame import frame
from jaxglmm.formula.against_table import variables_in
from jaxglmm.postestimation.prediction import averages, predict

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

TYPES = ("response", "link")
FAMILIES = ("gaussian", "binomial", "poisson", "gamma")
LINKS = ("identity", "log", "logit", "probit", "cloglog")
OWN = "fit.means(), predictions(), slopes() and contrasts() are there for it"


def to_marginaleffects(fit: FittedModel, type: str = "response") -> Any:
    """The fit as marginaleffects takes it.

    Args:
        fit: linear, or generalised with one linear predictor.
        type: "response" (the mean at random effects of zero) or "link".

    Returns:
        A ``marginaleffects.classes.ModelAbstract``. Tests are by z, as marginaleffects
        has it for mixed models in R; ``vcov="CR2"`` and the like are
        ``fit.with_vcov``'s. Standard errors of its slopes are by differences of steps
        there, to three or four digits; those of predictions and comparisons exact.

    Raises:
        NotApplicableError: the package is not installed; posteriors, several
            predictors, categories, dropped columns.
    """
    _arguments.choice("type", type, TYPES)
    refuse(fit, "to_marginaleffects()", "marginaleffects", OWN)
    try:
        import polars as pl
        from marginaleffects.classes import (  # pyright: ignore[reportMissingImports]
            ModelAbstract,
            ModelVault,
        )
    except ImportError as error:
        raise NotApplicableError(
            f"to_marginaleffects() needs the package marginaleffects ({error}): "
            "pip install marginaleffects"
        ) from error

    data = _polars(fit)

    base: Any = ModelAbstract  # of a package without types

    class FittedMixedModel(base):
        """A fit of jaxglmm."""

        df_resid = float("inf")

        def get_exog(self, newdata: Any) -> np.ndarray:
            """(n, p) X of rows, and the offset beside it where the fit has one."""
            return _rows(fit, newdata)

        def get_autodiff_args(self) -> Any:
            """How it differentiates exactly; differences of steps elsewhere."""
            return _known(fit, type)

        def get_vcov(self, vcov: Any = True) -> np.ndarray | None:
            """(p, p), None without; a word is a robust covariance's name."""
            if vcov is False or vcov is None:
                return None
            if isinstance(vcov, str):
                return np.asarray(fit.with_vcov(vcov).coefficient_covariance())
            return np.asarray(fit.coefficient_covariance())

        def get_predict(self, params: np.ndarray, newdata: Any) -> Any:
            """rowid, estimate."""
            given = isinstance(newdata, np.ndarray)
            rows = newdata if given else _rows(fit, newdata)
            value = _values(fit, np.asarray(params), rows, type)
            ids = np.arange(len(value), dtype=np.int32)
            return pl.DataFrame({"rowid": ids, "estimate": value})

    response = fit.design.response
    known = [name for name in data.columns if name != response]
    first = response if response in data.columns else known.pop(0)
    record: Any = ModelVault
    vault = record(
        coef=np.asarray(fit.coefficients, float),
        coefnames=np.asarray(fit.design.x_names),
        formula=lambda rows: (None, _rows(fit, rows)),
        modeldata=data,
        package="jaxglmm",
        variable_names=[first, *_used(fit, known)],
    )
    try:
        return FittedMixedModel(fit, vault)
    except pl.exceptions.PolarsError as error:  # its own checks, of what polars lacks
        raise NotApplicableError(
            f"the installed marginaleffects does not run with polars {pl.__version__} "
            f"({str(error).splitlines()[0]}): pip install 'polars<2', or {OWN}"
        ) from error


def refuse(fit: FittedModel, door: str, package: str, own: str) -> None:
    """What has no coefficients of one predictor whose covariance says all.

    door: the method that was called; own: what is there instead.
    """
    why = None
    if not fit.has_likelihood:
        why = "this posterior has draws and no covariance of estimates"
    elif fit.design.parts:
        why = f"a model of several linear predictors is none of {package}' models"
    elif fit.design.response_levels is not None and is_generalised(fit):
        kind = fit.family.family_kind
        if kind in ("ordinal", "nominal"):
            why = "a model of categories has thresholds besides its coefficients"
    if why is None and is_generalised(fit) and not averages.has_plain_mean(fit.family):
        why = f"family={fit.family_name!r} has a mean that its dispersion moves"
    if why is None and fit.design.dropped_columns:
        why = f"columns were dropped ({', '.join(fit.design.dropped_columns)})"
    if why is None and fit.design.recipe is None:
        why = "a fit without formula or named arrays has no variables"
    if why is not None:
        raise NotApplicableError(f"{door}: {why}; {own}")


def _rows(fit: FittedModel, data: Any) -> np.ndarray:
    table = data.to_pandas() if hasattr(data, "to_pandas") else data
    new = predict.rows(fit, table, random=False)
    if fit.design.offset is None:
        return np.asarray(new.X, float)
    offset = np.broadcast_to(np.asarray(new.offset, float), (len(new.X),))
    return np.column_stack([new.X, offset])


def _known(fit: Any, type: str) -> dict[str, str | None] | str:
    """Model, family and link as marginaleffects' own derivatives know them."""
    if fit.design.offset is not None:
        return "models with offset or exposure"
    if type == "link" or not is_generalised(fit):
        return {"model_type": "linear", "family": None, "link": None}
    family = {"bernoulli": "binomial"}.get(fit.family.name, fit.family.name)
    if family not in FAMILIES or fit.link_name not in LINKS:
        return f"family {fit.family_name!r} with link {fit.link_name!r}"
    return {"model_type": "glm", "family": family, "link": fit.link_name}


def _values(fit: Any, params: np.ndarray, rows: np.ndarray, type: str) -> np.ndarray:
    p = len(params)
    eta = rows[:, :p] @ params + rows[:, p:].sum(axis=1)
    if type == "link" or not is_generalised(fit):
        return eta
    return np.asarray(fit.family.mean(eta), float)


def _polars(fit: FittedModel) -> Any:
    """The variables of the rows that count; text as an ordered set of levels."""
    import polars as pl

    table = frame(fit.design).iloc[fit.design.counted].reset_index(drop=True)
    columns = {}
    for name, values in table.items():
        if hasattr(values, "cat"):
            levels = [str(x) for x in values.cat.categories]
            text = [None if x is None else str(x) for x in values.astype(object)]
            columns[str(name)] = pl.Series(text, dtype=pl.Enum(levels))
        else:
            columns[str(name)] = pl.Series(values.to_numpy())
    return pl.DataFrame(columns)


def _used(fit: FittedModel, names: list[str]) -> list[str]:
    """Variables that may be asked for: neither of the response nor grouping factors."""
    groups = {part for term in fit.design.terms for part in term.factor.split(":")}
    left = fit.design.formula.partition("~")[0] if fit.design.formula else ""
    response = variables_in(f"y ~ {left}", [*names, "y"], ()) if left.strip() else ()
    return [n for n in names if n not in groups and n not in response]
