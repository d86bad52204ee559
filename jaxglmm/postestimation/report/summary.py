"""The summary of a fit: one string that shows itself and carries its numbers.

Laid out as users of lme4 and lmerTest know it: method, formula, criterion, scaled
residuals, random effects, fixed effects, their correlations, notes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.kinds import (
    is_correlated,
    is_dispersed,
    is_generalised,
    is_ordinal,
)
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import Paragraph, TextTable
from jaxglmm.formula.design import DISP, MARK
from jaxglmm.formula.parse import parse
from jaxglmm.formula.smooths import smooths_of, taken_apart
from jaxglmm.model import covariances
from jaxglmm.postestimation.prediction.smooths import table as edf_table
from jaxglmm.postestimation.report import by_component, thresholds
from jaxglmm.postestimation.report.residuals import correlated_heading, residual_blocks

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.formula.design import Design

WIDTH = 80  # of the notes
MOST_CORRELATED = 20  # columns of X up to which their correlations are shown
TESTS = {
    "satterthwaite": "t-tests use Satterthwaite's method",
    "kenward-roger": "t-tests use the Kenward-Roger method",
    "kenward-roger-linear": "t-tests use the Kenward-Roger method (linear)",
    "between-within": "t-tests use between and within degrees of freedom",
    "residual": "t-tests use n - p degrees of freedom",
}


_CODED = re.compile(r"\bC\(\s*([\w.]+)\s*(?:,(?:[^()]|\([^()]*\))*)?\)")


class Summary(str):
    """A text that shows itself (``repr`` is the text; HTML in a notebook).

    coefficients: frame (estimate, std_error, df, statistic, p_value)
    varcorr, sigma: the random effects' covariances and the residual sd
    scaled_residuals: Series of five quantiles; criteria: dict; correlation: (p, p)
    frame
    notes: tuple of warnings
    html, latex: the same as a page and as tables of a paper (needs booktabs)
    """

    __slots__ = ("__dict__",)

    coefficients: pd.DataFrame
    scaled_residuals: pd.Series | None
    correlation: pd.DataFrame
    criteria: dict[str, float]
    notes: tuple[str, ...]
    html: str
    latex: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def summarise(fit: FittedModel, ddf: str) -> Summary:
    """The summary with t-tests by ``ddf``, a key of ``TESTS``."""
    coefficients, vcov = fit.coefficient_table(ddf), fit.coefficient_covariance(ddf)
    shown = thresholds.others(fit, coefficients)
    quantiles = _scaled(fit)
    correlation = correlations(vcov, fit.design.x_names)
    blocks = [
        Paragraph((*_heading(fit, ddf), *_robust(fit))),
        _criteria(fit),
        *([] if quantiles is None else [_residuals(quantiles)]),
    ]
    alike = fit.design.residual is None or not fit.design.residual.text
    parts = bool(fit.design.parts)
    if parts:
        blocks += by_component.random_effects(fit, (_groups(fit),))
    elif fit.design.terms:
        sigma = fit.varcorr.sigma if alike else None
        blocks.append(layout.random_effects(fit.varcorr, sigma, (_groups(fit),)))
    blocks += thresholds.table(fit)
    if not alike:
        blocks += residual_blocks(fit)
    if parts:
        blocks += by_component.fixed_effects(fit.design, coefficients, fixed_effects)
    elif is_dispersed(fit):
        blocks += _by_formula(fit, coefficients)
    elif len(shown):
        blocks.append(fixed_effects(shown, z=not fit.is_linear))
    short = correlation.loc[shown.index, shown.index]
    blocks += [] if parts else _correlation_block(short)
    blocks += _smooths(fit)
    if fit.design.fixed:
        blocks.append(_held(fit.design.fixed))
    said = (*fit.warnings, *kept_together(fit.design))
    if said:
        notes = [textwrap.wrap(f"Note: {text}", WIDTH) for text in said]
        blocks.append(Paragraph(tuple(line for note in notes for line in note)))
    out = Summary(layout.as_text(blocks))
    out.html, out.latex = layout.as_html(blocks), layout.as_latex(blocks)
    out.coefficients, out.scaled_residuals = coefficients, quantiles
    out.correlation, out.notes = correlation, said
    out.varcorr, out.sigma = fit.varcorr, fit.sigma
    out.criteria = criteria(fit)
    return out


def _by_formula(fit: FittedModel, coefficients: pd.DataFrame) -> list[TextTable]:
    """Coefficients of the mean, then those of the residual sd."""
    out = []
    own = by_component.dispersion_table(fit)
    mark = f"{DISP}{MARK}"
    own.index = pd.Index([name.removeprefix(mark) for name in own.index])
    tables = {by_component.COND: coefficients, DISP: own}
    for name, table in tables.items():
        if len(table):
            title = f"Fixed effects, {by_component.WORDS[name]}:"
            shown = fixed_effects(table, z=name == DISP)
            out.append(replace(shown, title=title))
    return out


def _smooths(fit: FittedModel) -> list[TextTable]:
    """Effective degrees of freedom of the smooths."""
    if not smooths_of(fit.design) or is_correlated(fit) or not fit.has_likelihood:
        return []
    table = edf_table(fit)
    edf = numbers.column(table["edf"].tolist())
    rows = tuple(zip(map(str, table.index), edf, strict=True))
    return [TextTable("Smooths:", ("", "edf"), rows, "<>")]


def _held(fixed: Mapping[str, float]) -> Paragraph:
    """Parameters that were given and not estimated."""
    each = [f"{name} = {numbers.general(x, 6)}" for name, x in fixed.items()]
    return Paragraph(tuple(textwrap.wrap(f"Held: {', '.join(each)}", WIDTH)))


def criteria(fit: FittedModel) -> dict[str, float]:
    """AIC, BIC, log-likelihood, criterion and residual degrees of freedom."""
    return {
        "AIC": fit.aic,
        "BIC": fit.bic,
        "logLik": fit.log_likelihood,
        "-2*log(L)": fit.criterion,
        "df.resid": fit.df_resid,
    }


def _generalised_heading(fit: FittedGeneralised) -> tuple[str, ...]:
    how = "maximum likelihood" + (f" ({fit.method})" if fit.method else "")
    if fit.reml:
        how = str(fit.method)
    kind = "mixed model" if fit.design.terms else "model"
    lines = [
        f"Generalised linear {kind} fit by {how}",
        f"Family: {fit.family_name} ({fit.link_name})",
        f"Formula: {fit.design.formula or fit.formula}",
        *by_component.formulas(fit.design),
        *modelled(fit.design),
    ]
    lines += [
        f"Dispersion: {name} = {numbers.general(value)}"
        for name, value in fit.dispersions.items()
    ]
    return tuple(lines)


def modelled(design: Design) -> tuple[str, ...]:
    """Which level of a response that was text counts as the success."""
    if design.response_levels is None:
        return ()
    if len(design.response_levels) > 2:
        first, *others = map(str, design.response_levels)
        return (f"Categories: {', '.join(others)}, each against {first!r}",)
    other, success = (str(level) for level in design.response_levels)
    return (f"Response: probability of {success!r} (the other level is {other!r})",)


def kept_together(design: Design) -> tuple[str, ...]:
    """A note on ``(f || g)``: the columns of one factor stay correlated, as in lme4."""
    if design.formula is None or "||" not in design.formula:
        return ()
    notes = []
    parts = parse(taken_apart(design.formula)[0]).random
    if len(parts) != len(design.terms):
        return ()
    for part, term in zip(parts, design.terms, strict=True):
        if part.double and covariances.of(term).pairs:
            name = part.terms[0].name
            notes.append(
                f"({name} || {term.factor}): the two bars part terms; the "
                f"{len(term.names)} columns of {name!r} stay correlated, as in lme4. "
                f"diag({name} | {term.factor}) makes them independent."
            )
    return tuple(notes)


def _heading(fit: FittedModel, ddf: str) -> tuple[str, ...]:
    if is_ordinal(fit):
        return thresholds.heading(fit)
    if is_generalised(fit):
        return _generalised_heading(fit)
    how = "REML" if fit.reml else "maximum likelihood"
    if fit.design.residual is not None:
        return correlated_heading(fit, TESTS[ddf], how)
    return (
        f"Linear mixed model fit by {how}. {TESTS[ddf]}",
        f"Formula: {fit.formula}",
    )


def _robust(fit: FittedModel) -> tuple[str, ...]:
    """How the covariance of the fixed effects was found, where not by the model."""
    if fit.vcov_type == "asymptotic":
        return ()
    of = f" by {fit.cluster}" if fit.cluster else " by clusters"
    return (f"Covariance of the fixed effects: {fit.vcov_type}{of}",)


def _criteria(fit: FittedModel) -> Paragraph | TextTable:
    if fit.reml:
        when = "at convergence" if fit.converged else "where the optimiser stopped"
        return Paragraph((f"REML criterion {when}: {numbers.fixed(fit.criterion, 1)}",))
    names = tuple(criteria(fit))
    values = [*criteria(fit).values()]
    cells = (*[numbers.fixed(v, 1) for v in values[:-1]], str(values[-1]))
    return TextTable("", names, (cells,), ">>>>>")


def scaled_quantiles(scaled: np.ndarray) -> pd.Series:
    """Minimum, quartiles and maximum of the scaled residuals that count."""
    values = np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1])
    return pd.Series(values, index=["Min", "1Q", "Median", "3Q", "Max"])


def _scaled(fit: FittedModel) -> pd.Series | None:
    """None where a family of one's own does not say its variance."""
    try:
        return scaled_quantiles(fit.resid("scaled")[fit.design.counted])
    except NotApplicableError:
        return None


def _residuals(quantiles: pd.Series) -> TextTable:
    cells = tuple(numbers.fixed(float(v), 4) for v in quantiles)
    return TextTable("Scaled residuals:", tuple(quantiles.index), (cells,), ">>>>>")


def _groups(fit: FittedModel) -> str:
    groups = "; ".join(f"{factor}, {count}" for factor, count in fit.ngroups.items())
    return f"Number of obs: {fit.nobs}, groups: {groups}"


def fixed_effects(table: pd.DataFrame, z: bool = False) -> TextTable:
    """Estimate, standard error, df, t (z) and p of every coefficient, with stars."""
    estimate, error = numbers.with_errors(
        table["estimate"].tolist(), table["std_error"].tolist()
    )
    p = table["p_value"].tolist()
    columns = [
        [str(name) for name in table.index],
        estimate,
        error,
        *([] if z else [numbers.df(table["df"].tolist())]),
        [numbers.fixed(t, 3) for t in table["statistic"]],
        [numbers.p_value(v) for v in p],
        [numbers.stars(v) for v in p],
    ]
    letter = "z" if z else "t"
    df = () if z else ("df",)
    test = (f"{letter} value", f"Pr(>|{letter}|)", "")
    header = ("", "Estimate", "Std. Error", *df, *test)
    any_star = any(columns[-1])
    footer = ("---", numbers.STARS_LEGEND) if any_star else ()
    align = "<" + ">" * (len(header) - 2) + "<"
    return TextTable(
        "Fixed effects:", header, tuple(zip(*columns, strict=True)), align, footer
    )


def correlations(vcov: np.ndarray, names) -> pd.DataFrame:
    """Correlations of the estimated fixed effects, (p, p)."""
    se = np.sqrt(np.diagonal(vcov))
    se = np.where(se > 0, se, np.nan)
    return pd.DataFrame(vcov / np.outer(se, se), index=names, columns=names)


def _correlation_block(correlation: pd.DataFrame) -> list[Paragraph | TextTable]:
    p = len(correlation)
    if p < 2:
        return []
    if p > MOST_CORRELATED:
        text = (
            f"Correlation of Fixed Effects not shown for {p} coefficients: see "
            "summary().correlation"
        )
        return [Paragraph((text,))]
    values = correlation.to_numpy()
    names = [str(name) for name in correlation.index]
    short = abbreviate(names)
    rows = tuple(
        (
            names[i],
            *[numbers.fixed(float(values[i, j]), 3) for j in range(i)],
            *[""] * (p - 1 - i),
        )
        for i in range(1, p)
    )
    header = ("", *short[:-1])
    return [
        TextTable("Correlation of Fixed Effects:", header, rows, "<" + ">" * (p - 1))
    ]


def abbreviate(names: list[str], width: int = 6) -> list[str]:
    """Short, distinct names: the vowels go first, as R's users are used to."""
    out: list[str] = []
    for name in names:
        short = _shorten(name, width)
        k = 2
        while short in out:
            short = f"{_shorten(name, width - 1)}{k}"
            k += 1
        out.append(short)
    return out


def _shorten(name: str, width: int) -> str:
    if name == "(Intercept)":
        return "(Intr)"
    plain = _CODED.sub(r"\1", name)  # C(Machine, Sum)[S.B]: Machine[S.B]
    letters = list(re.sub(r"\[(?:[TS]\.)?|\]", "", plain))  # Machine[T.B]: MachineB
    for k in range(len(letters) - 1, 0, -1):
        if len(letters) <= width:
            break
        if letters[k] in "aeiou" and letters[k - 1].isalpha():
            del letters[k]
    if len(letters) > width:
        letters = [*letters[: width // 2], *letters[-(width - width // 2) :]]
    return "".join(letters)
