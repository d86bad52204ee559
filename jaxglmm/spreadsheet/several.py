"""Models of more than a mean and its groups: zeros, thresholds, visits.

    GLMM_ZINB   nbinom2 with zi="~ 1", or the columns of x_zero
    CLMM        cumulative logits; thresholds are the intercept
    MMRM        correlated residuals of a subject's visits, no random effects

All of them by maximum likelihood (MMRM by REML).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.formula.residual import PLACES, is_residual
from jaxglmm.spreadsheet.checks import plain
from jaxglmm.spreadsheet.estimate import GROUP, SheetArrays, from_fit
from jaxglmm.spreadsheet.layout import Answer, ShownDeviation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxglmm.results.correlated_fit import CorrelatedFit

COVARIANCE = "us"  # of visits


def as_table(data: SheetArrays, y: Any, random: bool = True) -> tuple[str, dict]:
    """The model ``y ~ x + (1 + x_random || Group)`` as a formula and a table."""
    first = int(data.intercept)
    table = {f"x{j}": data.X[:, j] for j in range(first, data.p)}
    right = [str(first), *table]
    if random:
        slopes = {f"z{j}": column for j, column in enumerate(data.slopes.values())}
        table |= slopes
        right.append(f"({' + '.join(['1', *slopes])} || {GROUP})")
    return f"y ~ {' + '.join(right)}", {**table, "y": y, GROUP: data.labels}


def by_zeros(method: str, data: SheetArrays, extended: bool) -> Answer:
    """A zero-inflated negative binomial model by ``jg.glmm``."""
    import jaxglmm as jg

    formula, table = as_table(data, data.y)
    names, zeros = ["Intercept"], data.more.get("x_zero")
    columns: dict[str, np.ndarray] = {}
    if zeros is not None:
        values = np.array(zeros, float)
        columns = {f"w{j}": values[:, j] for j in range(values.shape[1])}
        given = data.more.get("zero_names")
        names += given or [str(j) for j in range(len(columns))]
    _independent(list(columns.values()), len(data.y), names)
    zi = "~ " + " + ".join(["1", *columns])
    fit = jg.glmm(formula, {**table, **columns}, family="nbinom2", zi=zi, method=method)
    own = slice(data.p, data.p + len(names))
    section = {"zero_inflation": (names, fit.coefficients[own], fit.se[own])}
    extra = {"dispersion": float(fit.dispersion)}
    return replace(from_fit(fit, data, method, extended, extra=extra), sections=section)


def by_thresholds(method: str, data: SheetArrays, extended: bool) -> Answer:
    """A cumulative logit model by ``jg.clmm``."""
    import jaxglmm as jg

    y = np.array([plain(v) for v in data.y.tolist()], object)
    levels = data.more.get("levels")
    if levels is None:
        order = sorted({*y})
    else:
        order = [v for v in dict.fromkeys(map(plain, levels)) if v in {*y}]
    if len(order) < 2:
        raise ValueError(f"y has the category {order[0]!r} alone; two are needed")
    formula, table = as_table(data, y)
    fit = jg.clmm(formula, table, levels=order, method=method)
    rows = fit.threshold_coefficients
    found = (list(rows.index), rows["estimate"], rows["std_error"])
    slopes = replace(data, X=data.X[:, 1:])
    answer = from_fit(fit, slopes, method, extended)
    return replace(answer, sections={"thresholds": found})


def by_visits(ddf: str, data: SheetArrays, extended: bool) -> Answer:
    """A model for repeated measures by ``jg.mmrm``, with this method of tests."""
    import jaxglmm as jg

    formula, table = as_table(data, data.y, random=False)
    covariance = str(data.more.get("covariance") or COVARIANCE).strip()
    if not is_residual(covariance):  # it becomes a word of a formula
        raise ValueError(f"covariance {covariance!r} is not one of {', '.join(PLACES)}")
    assert data.visits is not None
    if data.visits.dtype.kind in "US":  # text has the order in which it stands
        import pandas as pd

        order = list(dict.fromkeys(data.visits.tolist()))
        table["visit"] = pd.Categorical(data.visits, order, ordered=True)
    else:
        table["visit"] = data.visits
    formula += f" + {covariance}(visit | {GROUP})"
    fit = jg.mmrm(formula, table, ddf=ddf, conf_level=1 - data.alpha)
    tests = fit.summary().coefficients
    sds, others = residual_numbers(fit)
    return Answer(
        fit.coefficients,
        tests.iloc[:, 1].to_numpy(float),
        sds,
        fit.log_likelihood,
        fit.aic,
        fit.bic,
        ddf,
        bool(fit.converged),
        fit.nobs,
        len(np.unique(data.labels)),
        tuple(fit.warnings),
        (),
        np.asarray(fit.denominator_df, float),
        {},
        {},
        others if extended else (),
    )


def residual_numbers(
    fit: CorrelatedFit,
) -> tuple[list[ShownDeviation], Sequence[tuple[str, str, float, float, float]]]:
    """The sd of each visit with its limits, where it has some, and what else there is.

    Names without ``|Residual``.
    """
    limits = {
        str(name).partition("|")[0]: (row.estimate, row.lower, row.upper)
        for name, row in fit.residual_parameters.iterrows()
    }
    sds, one = [], limits.pop("sigma", (math.nan, math.nan, math.nan))
    for visit, sd in fit.residual_covariance["Residual"].sd.items():
        _, low, high = limits.pop(f"sd_{visit}", one)
        sds.append(ShownDeviation(str(plain(visit)), float(sd), low, high))
    return sds, [
        ("covariance", name, *map(float, values)) for name, values in limits.items()
    ]


def _independent(columns: list[np.ndarray], n: int, names: list[str]) -> None:
    """Refuse columns of zero inflation that others determine."""
    from jaxglmm.formula.rank import dependent_columns

    lost = dependent_columns(np.column_stack([np.ones(n), *columns]))
    if len(lost):
        raise ValueError(
            "columns of x_zero depend on each other or are constant: "
            f"{', '.join(names[j] for j in lost)}. Leave them out"
        )


DDF = (
    "satterthwaite",
    "kenward-roger",
    "kenward-roger-linear",
    "between-within",
    "residual",
)
