"""The front door to studies that are planned: ``design``, ``power_curve``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError, ModelError, NotApplicableError
from jaxglmm.api.given import integration_of, reading
from jaxglmm.fitting.model_frame import pandas_frame
from jaxglmm.formula import caller_context, design_from_formula
from jaxglmm.formula.parse import parse
from jaxglmm.model.families import family_from
from jaxglmm.postestimation.power.assumed import estimates_of
from jaxglmm.results import faces
from jaxglmm.results.study import DrawnPowerCurve, Study


def design(
    formula: str,
    data: Any,
    values: Mapping[str, float],
    *,
    family: Any = "gaussian",
    method: Any = "laplace",
    trials: Any = None,
    offset: Any = None,
    contrasts: dict | None = None,
) -> Study:
    """A study without data: a formula, a table of predictors, assumed parameters.

    Args:
        formula: in lme4's syntax; its left side is a name.
        data: a table with predictors and grouping factors, one row an observation.
        values: name -> value: coefficients by their columns (those not given are zero),
            ``"sd_(Intercept)|g"``, ``"cor_x.(Intercept)|g"`` (zero if not given),
            ``"sigma"`` of linear models, dispersions.
        family: as for ``glmm``; "gaussian" with the identity is a linear model.
        method: how generalised models are fitted, as for ``glmm``.
        trials: of binomial responses, a number, a column or (n,).
        offset: known part of the linear predictor, column name or (n,).
        contrasts: as for ``lmm``.

    Returns:
        A ``Study``: ``.power(test)``, ``.power_curve(...)``, ``.extend(...)``,
        ``.simulate(n)``.

    Raises:
        NotApplicableError: a name that is no parameter, or one that is missing; the
            message lists them.

    >>> import jaxglmm as jg, numpy as np
    >>> plan = {"g": np.repeat(np.arange(12), 4), "x": np.tile([0, 1], 24)}
    >>> values = {"x": 0.8, "sd_(Intercept)|g": 0.5, "sigma": 1.0}
    >>> study = jg.design("y ~ x + (1 | g)", plan, values)
    >>> study
    <Study of y ~ x + (1 | g): 48 rows, 12 g>
    >>> 0.6 < study.power("x", 500).power < 0.9
    True
    """
    likelihood = family_from(family)
    if (
        likelihood.family_kind in ("ordinal", "nominal")
        or len(likelihood.predictors) > 1
    ):
        raise NotApplicableError(
            "design() is for families of one linear predictor of numbers"
        )
    if not isinstance(values, Mapping):
        raise NotApplicableError("values= is a dict, {'x': 0.5, 'sigma': 1.0}")
    read = parse(formula)
    if not read.response.isidentifier():
        raise FormulaError(
            f"the left side of {formula!r} is to be a name, as in 'y ~ x + (1 | g)': "
            "there is no response yet; numbers of trials go to trials="
        )
    table = pandas_frame(data)
    table = table.assign(**{read.response: _placeholder(len(table), likelihood)})
    linear = likelihood.is_linear_model
    given = {"offset": offset, "contrasts": contrasts}
    if not linear:
        given |= {"trials": trials} | reading(likelihood)
    made = design_from_formula(formula, table, context=caller_context(), **given)
    if linear and not made.terms:
        raise ModelError("the model has no random effects; add a term (1 | group)")
    estimates = estimates_of(made, values, None if linear else likelihood)
    if linear:
        return Study(faces.face("linear")(made, estimates))
    marginal = integration_of(method)
    return Study(faces.face("generalised")(made, estimates, likelihood, marginal))


def _placeholder(n: int, family: Any) -> np.ndarray:
    """Responses that no family refuses, until others are drawn."""
    if family.family_kind == "binomial":
        return (np.arange(n) % 2).astype(float)
    if family.discrete:
        return 1.0 + np.arange(n) % 2
    return 0.25 + 0.5 * (np.arange(n) % 2)


def power_curve(
    model: Any,
    test: str,
    along: str | None = None,
    sizes: Sequence[float] | None = None,
    *,
    within: str | None = None,
    effect: Sequence[float] | None = None,
    n_simulations: int = 1000,
    alpha: float = 0.05,
    method: str | None = None,
    assume: Mapping[str, float] | None = None,
    seed: Any = 0,
    progress: bool | None = None,
) -> DrawnPowerCurve:
    """Power at several sizes, of a fit or of a study.

    Args:
        model: a fit, or what ``jg.design`` or ``fit.extend`` returned.
        test: a coefficient, or a term of the fixed effects.
        along: a grouping factor whose number of levels varies over ``sizes``.
        sizes: numbers of levels, or of rows with ``within``.
        within: a grouping factor, the rows of whose levels vary instead.
        effect: values of the tested coefficient that vary instead.
        n_simulations: as for ``fit.power``, each size; and all that follow.
        alpha: level of the test.
        method: "t", "z", "kenward-roger" or "lrt".
        assume: name -> value of parameters.
        seed: of the random numbers.
        progress: show a bar.

    Returns:
        A curve: ``.table`` with exact limits, ``.plot()``, ``.size_for(0.8)``.

    Raises:
        NotApplicableError: not one of along, within and effect.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> curve = jg.power_curve(fit, "Days", "Subject", [8, 16, 32], n_simulations=200,
    ...                        assume={"Days": 4.0})
    >>> curve.table["power"].is_monotonic_increasing, 16 < curve.size_for(0.8) < 32
    (True, True)
    """
    given = {"within": within, "effect": effect, "n_simulations": n_simulations}
    given |= {"alpha": alpha, "method": method, "assume": assume}
    given |= {"seed": seed, "progress": progress}
    return Study.of(model).power_curve(test, along, sizes, **given)
