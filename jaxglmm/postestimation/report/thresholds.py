"""What the summary of an ordinal model says that others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxglmm.fitting.kinds import is_ordinal
from jaxglmm.formatting import numbers
from jaxglmm.formatting.tables import TextTable

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal


def heading(fit: FittedOrdinal) -> tuple[str, ...]:
    """What was fitted, and how."""
    how = f" ({fit.method})" if fit.method else ""
    kind = "mixed model" if fit.design.terms else "model"
    return (
        f"Cumulative link {kind} fit by maximum likelihood{how}",
        f"Link: {fit.link_name}; thresholds: {fit.cumulative.thresholds}",
        f"Formula: {fit.formula}",
        *_parts(fit),
        f"Categories: {' < '.join(map(str, fit.levels))}",
    )


def _parts(fit: FittedOrdinal) -> list[str]:
    """Right sides of the formulas of thresholds and scale."""
    parts = {name: part.formula or "" for name, part in fit.design.parts.items()}
    sides = {name: text.partition("~")[2].strip() for name, text in parts.items()}
    names = getattr(fit.cumulative, "threshold_predictors", ())
    nominal = next((sides.get(n) for n in names), None)
    lines = [] if nominal in (None, "1") else [f"Nominal: ~ {nominal}"]
    return lines + ([f"Scale: ~ {sides['disp']}"] if "disp" in sides else [])


def others(fit: FittedModel, coefficients: pd.DataFrame) -> pd.DataFrame:
    """The coefficients that are no threshold's."""
    if not is_ordinal(fit) or not fit.design.parts:
        return coefficients
    return coefficients.drop(index=fit.threshold_coefficients.index)


def table(fit: FittedModel) -> list[TextTable]:
    """The threshold coefficients; none of other models."""
    if not is_ordinal(fit):
        return []
    found = fit.threshold_coefficients
    estimate, error = numbers.with_errors(
        found["estimate"].tolist(), found["std_error"].tolist()
    )
    z = [numbers.fixed(t, 3) for t in found["statistic"]]
    rows = tuple(zip(map(str, found.index), estimate, error, z, strict=True))
    header = ("", "Estimate", "Std. Error", "z value")
    return [TextTable("Threshold coefficients:", header, rows, "<>>>")]
