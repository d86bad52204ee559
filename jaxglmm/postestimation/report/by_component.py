"""Tables of a model of several linear predictors, component by component."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import TextTable
from jaxglmm.formula.design import DISP, MARK, Design

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

COND = "cond"
WORDS = {
    "cond": "conditional model",
    "zi": "zero-inflation model",
    "disp": "dispersion model",
}


def components(design: Design) -> tuple[str, ...]:
    """Names of the linear predictors where there are several, else none."""
    if design.residual is not None and design.residual.part is not None:
        return (COND, DISP)
    return tuple(design.parts)


def named(design: Design, table: pd.DataFrame) -> pd.DataFrame:
    """Rows with the component that they are of in a column of its own.

    The mark of the component (``zi~``) leaves names of terms and groups; a correlation
    of two components keeps both, and is a row of the first that it names.
    """
    known = components(design)
    component = np.full(len(table), known[0], object)
    out = table.copy()
    for column in ("term", "group"):
        values = list(out[column])
        for i, value in enumerate(values):
            found = marked(value, known) if isinstance(value, str) else []
            if found:
                component[i] = found[0][1]
            if len(found) == 1:
                start, name = found[0]
                values[i] = value[:start] + value[start + len(name) + len(MARK) :]
        out[column] = pd.Series(values, index=out.index, dtype=object)
    return out.assign(component=component)


def marked(label: str, known: Sequence[str]) -> list[tuple[int, str]]:
    """Where a label has marks of components, and whose, in order.

    >>> marked("cor_11~x.2~x|g", ["1", "11", "2"])
    [(4, '11'), (9, '2')]
    """
    ends = {}  # a mark ends at its sign: of names that end alike the longest is meant
    for name in sorted(known, key=len):
        for hit in re.finditer(re.escape(f"{name}{MARK}"), label):
            ends[hit.end()] = hit.start(), name
    return sorted(ends.values())


def formulas(design: Design) -> list[str]:
    """Those of the predictors beside the mean, a line each."""
    words = {"zi": "Zero inflation", "disp": "Dispersion"}
    return [
        f"{words.get(name, name)}: ~{str(part.formula).partition('~')[2].rstrip()}"
        for name, part in list(design.parts.items())[1:]
    ]


def random_effects(fit: FittedModel, footer: tuple[str, ...]) -> list[TextTable]:
    """A table of variances for each component that has some."""
    found = []
    for k, name in enumerate(fit.design.parts):
        pairs = zip(fit.varcorr.items(), fit.design.terms, strict=True)
        own = {
            label.removeprefix(term.mark): record
            for (label, record), term in pairs
            if term.predictor == k
        }
        if own:
            title = f"Random effects, {WORDS.get(name, name)}:"
            found.append(replace(layout.random_effects(own, None), title=title))
    return [*found[:-1], replace(found[-1], footer=footer)] if found else []


def dispersion_table(fit: Any) -> pd.DataFrame:
    """Estimate, std_error, df, statistic, p_value of a dispersion's coefficients.

    Of a linear model, whose names here have the component's mark.
    """
    from scipy import special

    names = fit.design.residual.scale_names
    value = np.asarray(fit.estimates.phi)
    error = np.sqrt(np.diagonal(fit.dispersion_covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = value / error
    return pd.DataFrame(
        {
            "estimate": value,
            "std_error": error,
            "df": np.inf,
            "statistic": z,
            "p_value": 2 * special.ndtr(-np.abs(z)),
        },
        index=pd.Index(names, name="term"),
    )


def fixed_effects(
    design: Design, table: pd.DataFrame, show: Callable[..., TextTable]
) -> list[TextTable]:
    """A table of coefficients for each component that has some."""
    found = []
    for k, (name, part) in enumerate(design.parts.items()):
        if part.p:
            here = [of == k for of in design.of_x]
            own = table[here].set_axis(list(part.x_names), axis=0)
            title = f"Fixed effects, {WORDS.get(name, name)}:"
            found.append(replace(show(own, z=True), title=title))
    return found
