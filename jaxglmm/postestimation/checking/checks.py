"""Whether data look like the model: overdispersion, zeros, residuals, in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import Paragraph, TextTable
from jaxglmm.postestimation.checking.simulated_residuals import (
    SimulatedResiduals,
    Test,
    simulated_residuals,
)
from jaxglmm.postestimation.report.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.formula.design import Design
    from jaxglmm.model.families import AbstractFamily

ALARM = 0.01  # a p-value below this is worth a look; several tests are made


@dataclass(frozen=True)
class Overdispersion:
    """Pearson's chi-squared statistic over its degrees of freedom.

    ratio, chisq, df: about 1 where the variance is as the family says; p_value: of a
    larger one; simulated: mean square of the responses against draws from the fit, or
    chisq against that of draws that were fitted themselves
    """

    ratio: float
    chisq: float
    df: int
    p_value: float
    simulated: Test | None

    def __repr__(self) -> str:
        p = numbers.p_value(self.p_value)
        p = p if p.startswith("<") else f"= {p}"
        text = (
            f"ratio {numbers.general(self.ratio)} (chisq {numbers.general(self.chisq)} "
            f"on {self.df} df), p {p}"
        )
        if self.simulated is None:
            return text
        ratio = numbers.general(self.simulated.ratio)
        p = numbers.p_value(self.simulated.p_value)
        p = p if p.startswith("<") else f"= {p}"
        return f"{text}; against draws: ratio {ratio}, p {p}"


def overdispersion(
    fit: FittedGeneralised, n: int, seed, re: str | None, refit: bool = False
) -> Overdispersion:
    """See ``GeneralisedFit.overdispersion``."""
    from scipy import stats

    fit = fit.unfolded("overdispersion()", keep=refit)
    if is_bernoulli(fit):
        raise NotApplicableError(
            "responses of 0 and 1 have the variance p (1 - p) whatever the model: they "
            "cannot be overdispersed. Look at simulated_residuals() instead"
        )
    chisq = float(np.sum(fit.resid("pearson")[fit.design.counted] ** 2))
    df = fit.df_resid
    if df < 1:
        raise NotApplicableError(
            f"there are {fit.npar} parameters for {df + fit.npar} rows: no degree of "
            "freedom is left to judge the variance by"
        )
    p = float(stats.chi2.sf(chisq, df))
    drawn = None
    most = _arguments.DRAWS
    n = _arguments.whole("n", n, 0, most, error=NotApplicableError)
    if n and _arguments.flag("refit", refit):
        from jaxglmm.postestimation.checking import refits

        drawn = refits.overdispersion(fit, n, seed, re)
    elif n:
        drawn = simulated_residuals(fit, n, seed, re).dispersion
    return Overdispersion(chisq / df, chisq, df, p, drawn)


def is_bernoulli(fit: FittedGeneralised) -> bool:
    """Whether every response is 0 or 1."""
    return _zero_or_one(fit.family, fit.design)


def _zero_or_one(family: AbstractFamily, design: Design) -> bool:
    if family.family_kind != "binomial":
        return False
    return design.trials is None or bool((design.trials <= 1).all())


def counts_zeros(family: AbstractFamily, design: Design) -> bool:
    """Whether zeros are some of many possible values."""
    if family.family_kind in ("ordinal", "nominal"):
        return False
    return family.discrete and not _zero_or_one(family, design)


def zero_inflation(
    fit: FittedGeneralised, n: int, seed, re: str | None, refit: bool = False
) -> Test:
    """See ``GeneralisedFit.zero_inflation``."""
    fit = fit.unfolded("zero_inflation()", keep=refit)
    if not fit.family.discrete:
        raise NotApplicableError(
            f"responses of family {fit.family_name!r} are never exactly zero; "
            "zero_inflation() is for counts"
        )
    if is_bernoulli(fit):
        raise NotApplicableError(
            "the share of zeros among responses of 0 and 1 is what the model fits; "
            "zero_inflation() is for counts"
        )
    if _arguments.flag("refit", refit):
        from jaxglmm.postestimation.checking import refits

        return refits.zero_inflation(fit, n, seed, re)
    return simulated_residuals(fit, n, seed, re).zero_share


# All at once --------------------------------------------------------------------------


class Checks(Summary):
    """A table that shows itself.

    table: frame (observed, expected, p_value, verdict), one row a check; ok: whether
    none asks for a look; residuals: the simulated residuals
    """

    table: pd.DataFrame
    ok: bool
    residuals: SimulatedResiduals


def check(fit: FittedModel, n: int, seed, re: str | None) -> Checks:
    """See ``Fit.check``."""
    import pandas as pd

    fit = fit.unfolded("check()")
    residuals = simulated_residuals(fit, n, seed, re)
    rows = [
        (
            "uniformity",
            residuals.uniformity,
            "the distribution is not that of the data",
        ),
        ("dispersion", residuals.dispersion, _spread(fit, residuals.dispersion)),
        ("outliers", residuals.outliers, _outliers(residuals.outliers)),
    ]
    if isinstance(fit, FittedGeneralised) and counts_zeros(fit.family, fit.design):
        zeros, pearson = residuals.zero_share, _pearson(fit)
        rows.append(("zeros", zeros, _zeros(zeros)))
        rows.append(("Pearson", pearson, _spread(fit, pearson)))
    table = pd.DataFrame(
        [
            (t.statistic, t.expected, t.p_value, text if t.p_value < ALARM else "ok")
            for _, t, text in rows
        ],
        index=[name for name, _, _ in rows],
        columns=["observed", "expected", "p_value", "verdict"],
    )
    ok = bool((table["verdict"] == "ok").all()) and not fit.warnings
    blocks = [Paragraph(_heading(fit, residuals)), _shown(table)]
    if fit.warnings:
        blocks.append(Paragraph(tuple(f"Note: {text}" for text in fit.warnings)))
    out = Checks(layout.as_text(blocks))
    out.html = layout.as_html(blocks)
    out.table, out.ok, out.residuals = table, ok, residuals
    return out


def _pearson(fit: FittedGeneralised) -> Test:
    """Pearson's ratio, two-sided."""
    from scipy import stats

    found = overdispersion(fit, 0, None, None)
    p = 2 * min(found.p_value, float(stats.chi2.cdf(found.chisq, found.df)))
    return Test(found.ratio, 1.0, p, "asymptotic")


def _spread(fit: FittedModel, test: Test) -> str:
    if test.ratio < 1:
        return "less spread than the model makes"
    better = fit.family.overdispersed if isinstance(fit, FittedGeneralised) else None
    if better is None:
        return "more spread than the model makes"
    return f"overdispersion: family={better!r}, or a random effect of each row"


def _outliers(test: Test) -> str:
    more = "fewer" if test.ratio < 1 else "more"
    return f"{more} rows outside all draws than the model makes"


def _zeros(test: Test) -> str:
    if test.ratio < 1:
        return "fewer zeros than the model makes"
    return "more zeros than the model makes: family='nbinom2', or zero inflation"


def _heading(fit: FittedModel, residuals: SimulatedResiduals) -> tuple[str, ...]:
    return (
        f"Checks of {fit.formula}",
        f"{fit.family_name} ({fit.link_name}); {fit.status}; {residuals.n} draws from "
        f"the fit, {residuals.re}",
    )


def _shown(table: pd.DataFrame) -> TextTable:
    rows = tuple(
        (
            str(name),
            numbers.general(float(row["observed"])),
            numbers.general(float(row["expected"])),
            numbers.p_value(float(row["p_value"])),
            str(row["verdict"]),
        )
        for name, row in table.iterrows()
    )
    return TextTable("", ("", "observed", "expected", "p", "verdict"), rows, "<>>><")
