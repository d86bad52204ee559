"""The table that a worksheet function returns: nine columns, blanks where nothing is.

Labels differ between functions, because sheets look them up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scipy.special import ndtr, ndtri, stdtr, stdtrit

WIDTH = 9
Cell = str | float | int | bool | None


@dataclass(frozen=True)
class ShownDeviation:
    """A standard deviation with its interval (NaN where there is none)."""

    name: str
    sd: float
    lower: float = math.nan
    upper: float = math.nan


@dataclass(frozen=True)
class Effect:
    """One predicted random effect."""

    group: Cell
    term: str
    mean: float
    se: float


Section = tuple[Sequence[str], Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Answer:
    """What was estimated, before it is laid out.

    df: degrees of freedom a coefficient, empty for normal tests; extra: further rows of
    the footer, label to value; sections: further coefficients, label to their names,
    estimates and errors; others: label, name, estimate and
    limits of further parameters.
    """

    coefficients: Sequence[float]
    errors: Sequence[float]
    components: Sequence[ShownDeviation]
    log_likelihood: float
    aic: float
    bic: float
    method: str
    converged: bool
    rows: int
    levels: int
    warnings: Sequence[str] = ()
    effects: Sequence[Effect] = ()
    df: Sequence[float] = ()
    extra: dict[str, float] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    others: Sequence[tuple[str, str, float, float, float]] = ()


@dataclass(frozen=True)
class Labels:
    """The words of one function.

    section: first cell of each coefficient; intercept and slope: names of coefficients
    (``slope`` has a place for the column's number); one_variance: name of the only
    variance; variance: of several; last: heading of the last column, "df" or a ratio;
    spread: heading of the variances; in_place: whether a column of ones is the
    intercept, and not something else in its place.
    """

    section: str
    intercept: str
    slope: str
    first_slope: int
    one_variance: str
    variances: tuple[str, str]
    last: str
    statistic: str = "z_statistic"
    spread: str = "random_effects"
    in_place: bool = True

    def coefficients(
        self, k: int, intercept: bool, names: list[str] | None
    ) -> list[str]:
        """Names of the coefficients of k columns."""
        own = names or [self.slope.format(j + self.first_slope) for j in range(k)]
        return [self.intercept, *own] if intercept and self.in_place else own

    def random(self, k: int, names: list[str] | None) -> list[str]:
        """Names of the variances, for k columns of x_random."""
        if k == 0:
            return [self.one_variance]
        top, slope = self.variances
        return [top, *(names or [slope.format(j + 1) for j in range(k)])]


POISSON = Labels(
    section="fixed_effects",
    intercept="Intercept",
    slope="{}",
    first_slope=0,
    one_variance="Group Var",
    variances=("Random[0]", "Random[{}]"),
    last="incidence_rate_ratio",
)
BINOMIAL = Labels(
    section="",
    intercept="intercept",
    slope="x{}",
    first_slope=1,
    one_variance="intercept",
    variances=("intercept", "random_x{}"),
    last="odds_ratio",
)
GAUSSIAN = Labels(
    section="fixed_effects",
    intercept="Intercept",
    slope="{}",
    first_slope=0,
    one_variance="Group Var",
    variances=("Random[0]", "Random[{}]"),
    last="df",
    statistic="t_statistic",
)
ORDINAL = replace(POISSON, last="odds_ratio", in_place=False)
VISITS = replace(GAUSSIAN, spread="residual_covariance")


def row(*cells: Cell) -> list[Cell]:
    """Cells with blanks up to the width."""
    return [*cells, *[None] * (WIDTH - len(cells))]


def table(
    answer: Answer, labels: Labels, names: list[str], alpha: float, extended: bool
) -> list[list[Cell]]:
    """The whole table."""
    heads = ["coefficient", "std_error", labels.statistic, "p_value"]
    out = [
        row("fixed_effects", "parameter", *heads, "ci_lower", "ci_upper", labels.last)
    ]
    for k, name in enumerate(names):
        out.append(coefficient(answer, labels, k, name, alpha))
    for section, rows in answer.sections.items():
        out += [
            [*tested(section, name, float(b), float(se), None, alpha)[:-1], None]
            for name, b, se in zip(*rows, strict=True)
        ]
    out.append(row(labels.spread, "parameter", "variance", "std_dev"))
    out += [row("", c.name, c.sd**2, c.sd) for c in answer.components]
    footer = {"log_likelihood": answer.log_likelihood, "aic": answer.aic}
    footer |= {"bic": answer.bic, **answer.extra}
    out += [row(label, value) for label, value in footer.items()]
    return [*out, *further(answer, labels, names, alpha)] if extended else out


def coefficient(
    answer: Answer, labels: Labels, k: int, name: str, alpha: float
) -> list[Cell]:
    """One coefficient with its test and interval."""
    b, se = float(answer.coefficients[k]), float(answer.errors[k])
    df = float(answer.df[k]) if len(answer.df) else None
    return tested(labels.section, name, b, se, df, alpha)


def tested(
    section: str, name: str, b: float, se: float, df: float | None, alpha: float
) -> list[Cell]:
    """An estimate with its test and interval: normal, or by t with df."""
    z = b / se
    if df is not None:
        p, q = 2 * stdtr(df, -abs(z)), stdtrit(df, 1 - alpha / 2)
        last: Cell = df
    else:
        p, q = 2 * ndtr(-abs(z)), ndtri(1 - alpha / 2)
        last = ratio(b)
    limits = (b - float(q) * se, b + float(q) * se)
    return [section, name, b, se, z, float(p), *limits, last]


def ratio(value: float) -> float:
    """exp, infinite where it overflows."""
    return math.exp(value) if value < 709 else math.inf


def further(
    answer: Answer, labels: Labels, names: list[str], alpha: float
) -> list[list[Cell]]:
    """The rows of ``extended``: facts, predicted effects, intervals."""
    out = [
        row("groups", "groups", answer.levels),
        row("observations", answer.rows),
        row("converged", answer.converged),
        row("method", answer.method),
        row("warning", "; ".join(answer.warnings) or None),
        row("group_effects", "group", "term", "mean", "std_error"),
    ]
    out += [row("", e.group, e.term, e.mean, e.se) for e in answer.effects]
    out.append(row("intervals", "parameter", "estimate", "lower", "upper"))
    if not len(answer.df):
        for k, name in enumerate(names):
            cells = coefficient(answer, labels, k, name, alpha)
            low, high = (ratio(float(v)) for v in cells[6:8])  # type: ignore[arg-type]
            out.append(row(labels.last, name, cells[8], finite(low), finite(high)))
    for c in answer.components:
        out.append(row("std_dev", c.name, c.sd, finite(c.lower), finite(c.upper)))
    for label, name, value, low, high in answer.others:
        out.append(row(label, name, value, finite(low), finite(high)))
    return out


def finite(value: float) -> float | None:
    """A number, or a blank where there is none."""
    return value if math.isfinite(value) else None
