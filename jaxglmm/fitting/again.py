"""The same kind of model fitted to another design: other terms, or some of the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.fit_design import fit_correlated, fit_design, fit_generalised
from jaxglmm.fitting.kinds import Kinds, is_generalised, record
from jaxglmm.formula.design import Design, ResidualTerm


def fitted_to(
    fit: Any, design: Design, kinds: Kinds = record, reml: bool | None = None
) -> Any:
    """The model of ``fit`` (family, criterion, tolerances) for another design.

    A linear model whose last random term went is one of independent residuals, by the
    same criterion.

    Args:
        fit: by maximum likelihood or REML.
        design: of the same response, or of some rows.
        kinds: classes of what is made, by name.
        reml: whether by REML; None as ``fit`` is.

    Raises:
        NotApplicableError: parameters of ``fit`` were held at values.
    """
    if fit.design.fixed:
        raise NotApplicableError(
            "the fit has parameters that are held at values (fixed=), which other "
            "designs need not have: fit the other model by lmm or glmm"
        )
    settings = fit.diagnostics
    tol = settings.get("tol", _engine.TOLERANCE)
    steps = settings.get("max_iter", _engine.STEPS)
    if is_generalised(fit):
        # no formula: one of ordered categories has lost its intercept already
        plain = replace(design, formula=None)
        out = fit_generalised(plain, fit._family, fit.marginal, tol, steps, kinds=kinds)
        out.design = replace(out.design, formula=design.formula)
        return out
    estimator = Maximise(fit.reml if reml is None else reml)
    ddf = fit.ddf
    if design.residual is None and design.terms:
        plain = ddf == "residual"
        return fit_design(
            design,
            estimator,
            tol,
            steps,
            compute_satterthwaite=not plain,
            make=kinds("linear"),
        )
    if design.residual is None:
        design = with_independent_residuals(design)
    if len(design.y) <= design.p:
        raise ModelError(
            f"{design.p} fixed effects leave no residual in {design.n} rows"
        )
    return fit_correlated(design, estimator, tol, steps, kinds=kinds, ddf=ddf)


def with_independent_residuals(design: Design) -> Design:
    """A design without random effects as one of residuals that are independent."""
    n = design.n
    zeros, none = np.zeros(n, int), np.array([""])
    residual = ResidualTerm(
        text="",
        structure="",
        time="",
        subject="",
        group="",
        codes=np.arange(n),
        levels=np.arange(n),
        position=zeros,
        visits=none,
        times=np.zeros((n, 1)),
        group_codes=zeros,
        group_levels=none,
        scales=np.zeros((n, 0)),
    )
    return replace(design, residual=residual)
