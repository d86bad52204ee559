"""Several models in one table, side by side, as papers show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError
from jaxglmm._pandas import pd
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import TextTable
from jaxglmm.postestimation.report.by_component import COND, WORDS
from jaxglmm.postestimation.report.summary import Summary

if TYPE_CHECKING:
    from jaxglmm.posterior.fitted_posterior import FittedPosterior

BELOW = ("std_error", "conf_int", "statistic", "p_value", "none")
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
LEGEND = "* p < 0.05, ** p < 0.01, *** p < 0.001"
MISSING = ""
RESIDUAL = "Residual"  # what stands below the random effects
WAYS = {"NestedLaplace": "nested Laplace"}  # of finding a posterior
Key = tuple[str, str]  # of a section, and of a row in it


class ModelTable(Summary):
    """Models side by side: shows itself as text, in a notebook as HTML.

    frame: the cells as strings, rows by (part, term), a column a model; values: the
    numbers behind them, one row an estimate; ``html``, ``latex``, ``markdown``: the
    same table for a page, a paper, a text.
    """

    frame: pd.DataFrame
    values: pd.DataFrame
    markdown: str


def table(
    *fits: FittedModel | FittedPosterior,
    names: Sequence[str] | None = None,
    below: str = "std_error",
    stars: bool = True,
    random: bool = True,
    exponentiate: bool = False,
    level: float = 0.95,
    digits: int = 3,
    labels: Mapping[str, str] | None = None,
) -> ModelTable:
    """Fits side by side: estimates, standard errors, stars, variances, fit statistics.

    Rows are the union of the models' terms in order of appearance, by component where
    a model has several; posteriors show means and standard deviations.

    Args:
        fits: one or more fits, of any kinds (not those of ``fit_many``).
        names: of the columns; default (1), (2), ...
        below: what stands in brackets below an estimate: "std_error", "conf_int",
            "statistic", "p_value", or "none".
        stars: whether estimates have them (a posterior has none).
        random: whether standard deviations and correlations are shown.
        exponentiate: show exp of coefficients and their limits (odds, rates); a fit
            with another link is refused.
        level: coverage of ``below="conf_int"``.
        digits: significant digits of a standard error.
        labels: name of a term -> what to print instead.

    Returns:
        A text that shows itself, with ``.frame`` (strings), ``.values`` (numbers),
        ``.html``, ``.latex``, ``.markdown``.

    Raises:
        ArgumentError: no fit, something else than a fit, names that do not match.
        NotApplicableError: exp of coefficients where it means nothing.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> one = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    >>> two = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> jg.table(one, two).frame.loc[("Fixed effects", "Days")].tolist()
    ['10.467*** (0.804)', '10.467*** (1.546)']
    """
    asked = _checked(fits, names, below, level, digits)
    for name, flag in (
        ("stars", stars),
        ("random", random),
        ("exponentiate", exponentiate),
    ):
        _arguments.flag(name, flag)
    known = dict(labels or {})
    cells: dict[Key, dict[int, tuple[str, str]]] = {}
    parts, last = [], set()
    for k, fit in enumerate(fits):
        rows = _estimates(fit, below, level, random, exponentiate)
        parts.append(rows.assign(model=asked[k]))
        shown = _cells(rows, below, stars, digits)
        for row, cell in zip(rows.itertuples(), shown, strict=True):
            term = str(row.term)
            key = (str(row.part), known.get(term, term))
            cells.setdefault(key, {})[k] = cell
            if row.group == RESIDUAL:
                last.add(key)
    sections = _sections(cells)
    order = sorted(cells, key=lambda key: (sections.index(key[0]), key in last))
    ordered = {key: cells[key] for key in order}
    facts = _facts(fits)
    tested = stars and any("p_value" in p and p["p_value"].notna().any() for p in parts)
    out = _shown(ordered, facts, asked, fits, tested)
    out.values = pd.concat(parts, ignore_index=True)
    out.values = out.values[["model", *(c for c in out.values if c != "model")]]
    return out


def _checked(
    fits: Sequence[Any],
    names: Sequence[str] | None,
    below: str,
    level: float,
    digits: int,
) -> list[str]:
    """Names of the columns."""
    if not fits:
        raise ArgumentError("table() takes one fit or several: table(fit1, fit2)")
    for fit in fits:
        if not isinstance(fit, FittedModel):
            raise ArgumentError(
                f"table() takes fits, not {type(fit).__name__}; those of fit_many have "
                "tidy() and frame()"
            )
    _arguments.choice("below", below, BELOW)
    _arguments.level(level)
    _arguments.whole("digits", digits, 1, 12)
    if names is None:
        return [f"({k})" for k in range(1, len(fits) + 1)]
    found = [str(x) for x in _arguments.names("names", names, meaning="a model")]
    if len(found) != len(fits) or len(set(found)) < len(found):
        raise ArgumentError(
            f"names= must name {len(fits)} models, each of its own; there are "
            f"{len(found)}: {', '.join(found)}"
        )
    return found


# Estimates ----------------------------------------------------------------------------


def _estimates(
    fit: Any, below: str, level: float, random: bool, exponentiate: bool
) -> pd.DataFrame:
    """Rows of ``tidy``, with the part of the table that each belongs to."""
    options: dict[str, Any] = {}
    if below == "conf_int":
        options = {"conf_int": True, "level": level}
    rows = fit.tidy("fixed", exponentiate=exponentiate, **options)
    if random:
        rows = pd.concat([rows, fit.tidy("ran_pars", **options)], ignore_index=True)
    component = rows.get("component", COND)
    part = np.where(rows["effect"] == "ran_pars", "Random effects", "Fixed effects")
    named = (rows["effect"] == "threshold") | (rows["group"] == "Thresholds")
    part = np.where(named, "Thresholds", part)
    known = pd.Series(component, index=rows.index).fillna(COND)
    own = [
        p if c == COND or p == "Thresholds" else f"{p}, {WORDS.get(c, c)}"
        for p, c in zip(part, known, strict=True)
    ]
    return rows.assign(part=own)


def _cells(
    rows: pd.DataFrame, below: str, stars: bool, digits: int
) -> list[tuple[str, str]]:
    """Estimate with stars, and what stands below it."""
    names = ("estimate", "std_error", "p_value")
    numbers_of = rows.reindex(columns=list(names)).to_numpy(float)
    out = []
    for i, (estimate, error, p) in zip(rows.index, numbers_of, strict=True):
        known = np.isfinite(error) and error > 0
        (top,), (bottom,) = (
            numbers.with_errors([estimate], [error], digits)
            if known
            else ([numbers.general(estimate, digits)], [MISSING])
        )
        if stars and np.isfinite(p):
            top += next((mark for bound, mark in MARKS if p < bound), "")
        if below == "p_value":
            bottom = numbers.p_value(p) if np.isfinite(p) else MISSING
        elif below == "statistic":
            value = rows.loc[i].get("statistic", np.nan)
            bottom = numbers.fixed(value, 2) if np.isfinite(value) else MISSING
        elif below == "conf_int":
            ends = [rows.loc[i].get(end, np.nan) for end in ("conf_low", "conf_high")]
            shown = numbers.with_errors(ends, [error] * 2, digits)[0] if known else []
            shown = shown or [numbers.general(x, digits) for x in ends]
            bottom = ", ".join(shown) if np.isfinite(ends).any() else MISSING
        elif below == "none":
            bottom = MISSING
        brackets = "[{}]" if below == "conf_int" else "({})"
        out.append((top, brackets.format(bottom) if bottom else MISSING))
    return out


def _sections(cells: Mapping[Key, Any]) -> list[str]:
    """Parts of the table in order: coefficients, then thresholds, then variances."""
    found = list(dict.fromkeys(part for part, _ in cells))
    order = ("Fixed", "Thresh", "Random")
    return sorted(found, key=lambda p: [p.startswith(x) for x in order].index(True))


# Facts --------------------------------------------------------------------------------


def _facts(fits: Sequence[Any]) -> dict[str, list[str]]:
    """What is said of a whole model, by name: a text a model."""
    out: dict[str, list[str]] = {"Observations": [f"{f.nobs:,}" for f in fits]}
    for factor in dict.fromkeys(name for f in fits for name in f.ngroups):
        counts = [f.ngroups.get(factor) for f in fits]
        out[f"Levels of {factor}"] = [
            MISSING if n is None else f"{n:,}" for n in counts
        ]
    out["Method"] = [_method(f) for f in fits]
    for word, name in (
        ("Log-likelihood", "log_likelihood"),
        ("AIC", "aic"),
        ("BIC", "bic"),
        ("Log evidence", "log_evidence"),
    ):
        values = [_number(f, name) for f in fits]
        if any(v is not None for v in values):
            out[word] = [MISSING if v is None else numbers.fixed(v, 1) for v in values]
    return out


def _number(fit: Any, name: str) -> float | None:
    row = fit.glance().iloc[0]
    value = row.get(name)
    return None if value is None or not np.isfinite(value) else float(value)


def _method(fit: Any) -> str:
    """In a word or two."""
    bayes = getattr(fit, "bayes", None)
    if bayes is not None:
        return WAYS.get(type(bayes).__name__, type(bayes).__name__)
    found = str(fit.glance().iloc[0]["method"])
    return {
        "Laplace approximation": "Laplace",
        "maximum likelihood": "ML",
    }.get(found, found.split(" of ")[0])


# Shown --------------------------------------------------------------------------------


def _shown(
    cells: Mapping[Key, Mapping[int, tuple[str, str]]],
    facts: Mapping[str, Sequence[str]],
    names: Sequence[str],
    fits: Sequence[Any],
    stars: bool,
) -> ModelTable:
    rows: list[tuple[str, ...]] = []
    index, flat = [], []
    several = len({part for part, _ in cells}) > 1
    part = None
    for (section, term), found in cells.items():
        if section != part and several:
            rows.append((section, *[""] * len(names)))
        part = section
        pairs = [found.get(k, (MISSING, MISSING)) for k in range(len(names))]
        indent = "  " * several
        rows.append((indent + term, *(top for top, _ in pairs)))
        if any(bottom for _, bottom in pairs):
            rows.append(("", *(bottom for _, bottom in pairs)))
        index.append((section, term))
        flat.append([f"{top} {bottom}".strip() for top, bottom in pairs])
    first = True
    for name, values in facts.items():
        if first and several:
            rows.append(("Model", *[""] * len(names)))
        first = False
        rows.append(("  " * several + name, *values))
        index.append(("Model", name))
        flat.append(list(values))
    footer = [f"{n}: {f.formula}" for n, f in zip(names, fits, strict=True)]
    if stars:
        footer.append(LEGEND)
    block = TextTable("", ("", *names), tuple(rows), "<" + ">" * len(names), (*footer,))
    out = ModelTable(layout.as_text([block]))
    out.html, out.latex = layout.as_html([block]), layout.as_latex([block])
    out.markdown = layout.as_markdown(block)
    out.frame = pd.DataFrame(
        flat,
        index=pd.MultiIndex.from_tuples(index, names=["part", "term"]),
        columns=list(names),
    )
    return out
