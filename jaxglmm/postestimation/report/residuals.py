"""What a summary says of correlated residuals."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.fitting import residual_parameters as parameters
from jaxglmm.formatting import numbers
from jaxglmm.formatting.tables import Paragraph, TextTable
from jaxglmm.formula.residual import BY_VISIT
from jaxglmm.model.residuals import title

WIDE = 12  # visits up to which their correlations are shown


def correlated_heading(fit: Any, tests: str, how: str) -> tuple[str, ...]:
    """Method, formula, structure and sizes, as the R package mmrm has them."""
    term = fit.design.residual
    if term.part is not None:
        return _dispersed_heading(fit, tests, how)
    kind = "Linear mixed model" if fit.design.terms else "Linear model"
    lines = [f"{kind} with correlated residuals fit by {how}. {tests}"]
    if not term.structure:
        unequal = " with unequal variances" if term.text else ""
        lines = [f"{kind}{unequal} fit by {how}. {tests}"]
    lines.append(f"Formula: {fit.design.formula}")
    count = len(fit.estimates.phi)
    if term.text:
        lines.append(
            f"Residuals: {term.text} ({title(term.structure)}, {count} variance "
            f"parameter{'s' * (count > 1)})"
        )
    if term.structure and term.subject:
        subjects = len(np.unique(term.codes[fit.design.counted]))
        visits = f", up to {len(term.visits)} visits" if term.time else ""
        lines.append(f"Number of obs: {fit.nobs}, subjects: {subjects}{visits}")
    else:
        lines.append(f"Number of obs: {fit.nobs}")
    return tuple(lines)


def _dispersed_heading(fit: Any, tests: str, how: str) -> tuple[str, ...]:
    """Method, both formulas, size."""
    term = fit.design.residual
    kind = "Linear mixed model" if fit.design.terms else "Linear model"
    what = "without a residual" if term.is_silent else "with a residual sd by formula"
    lines = [f"{kind} {what} fit by {how}. {tests}", f"Formula: {fit.design.formula}"]
    lines += [] if term.is_silent else [f"Dispersion: {term.text}"]
    lines += [] if fit.design.terms else [f"Number of obs: {fit.nobs}"]
    if fit.vcov_type != "asymptotic":
        lines.append(f"Covariance of the coefficients: {fit.vcov_type}")
    return tuple(lines)


def residual_blocks(fit: Any) -> list[Paragraph | TextTable]:
    """Standard deviations and correlations by visit, or the few parameters."""
    if fit.design.residual.part is not None:
        return []
    by_visit = fit.design.residual.structure in BY_VISIT
    if by_visit and len(fit.design.residual.visits) <= WIDE:
        tables = [_matrix(k, v) for k, v in fit.residual_covariance.items()]
        if tables:
            return tables
    found = parameters.parameters(fit)
    rows = tuple(
        (each.label, text)
        for each, text in zip(
            found, numbers.column([x.value for x in found]), strict=True
        )
    )
    return [TextTable("Residual covariance:", ("", "Estimate"), rows, "<>")]


def _matrix(label: str, record: Any) -> TextTable:
    names = [str(name) for name in record.sd.index]
    corr = record.corr.to_numpy()
    sd = record.sd.to_numpy()
    rows = tuple(
        (
            name,
            variance,
            deviation,
            *[numbers.fixed(float(corr[k, j]), 2) for j in range(k)],
            *[""] * (len(names) - 1 - k),
        )
        for k, (name, variance, deviation) in enumerate(
            zip(
                names,
                numbers.column((sd**2).tolist()),
                numbers.column(sd.tolist()),
                strict=True,
            )
        )
    )
    header = ("", "Variance", "Std.Dev.", "Corr", *[""] * (len(names) - 2))
    head = "Residual covariance:"
    if label != "Residual":
        head = f"Residual covariance ({label.removeprefix('Residual.')}):"
    return TextTable(head, header, rows, "<>>" + ">" * (len(names) - 1))
