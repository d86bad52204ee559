"""Backward elimination: random terms first, then fixed ones, as lmerTest's ``step``.

Of the random terms the one with the largest p-value goes while it is above a level
(0.1), then of the fixed terms that no other contains (0.05). Tests and intervals of the
model that is left know nothing of the search: they are too good.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.again import fitted_to
from jaxglmm.fitting.kinds import Kinds, record
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formula.reduced import reductions, without_fixed, without_random
from jaxglmm.postestimation.choice.dropping import NONE, drop1, ranova
from jaxglmm.postestimation.report.summary import Summary


class Steps(Summary):
    """What went, in order, and the model that is left; shows itself.

    random: frame of ``ranova``'s columns with ``eliminated``, 0 for what stayed; fixed:
    of ``drop1``'s columns likewise; model: the fit that is left.
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    model: Any


def step(
    fit: Any,
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    keep: Collection[str] = (),
    ddf: str | None = None,
    kinds: Kinds = record,
) -> Steps:
    """Backward elimination; see ``Fit.step``.

    kinds: classes of the fits that are made, by name.
    """
    level = {
        kind: _arguments.between(f"alpha_{kind}", value, "a term above it goes")
        for kind, value in (("random", alpha_random), ("fixed", alpha_fixed))
    }
    keep = _arguments.names("keep", keep, meaning="a term")
    known = [t.name for t in fit.design.fixed_terms] or list(fit.design.x_names)
    strange = [name for name in keep if name not in known]
    if strange:
        raise NotApplicableError(
            f"keep={strange[0]!r} is no fixed term of the model ({', '.join(known)})"
        )
    most = level["random"] if _arguments.flag("reduce_random", reduce_random) else 1.0
    fit, random = _random(fit, most, kinds)
    most = level["fixed"] if _arguments.flag("reduce_fixed", reduce_fixed) else 1.0
    fit, fixed = _fixed(fit, most, keep, ddf, kinds)
    return _shown(fit, random, fixed)


def _random(fit: Any, alpha: float, kinds: Kinds) -> tuple[Any, pd.DataFrame]:
    table = ranova(fit) if fit.design.terms else pd.DataFrame()
    gone = [table.iloc[:1]] if len(table) else []
    while len(table) > 1:
        p = table["p_value"].iloc[1:]
        if not (p.to_numpy() > alpha).any():
            break
        name = p.idxmax()
        gone.append(table.loc[[name]])
        at, stay = reductions(fit.design)[name]
        fit = fitted_to(fit, without_random(fit.design, at, stay), kinds)
        table = ranova(fit) if fit.design.terms else table.iloc[:0]
    return fit, _numbered([*gone, table.iloc[1:]], gone, first=0)


def _fixed(
    fit: Any, alpha: float, keep: list[str], ddf: str | None, kinds: Kinds
) -> tuple[Any, pd.DataFrame]:
    table, gone = _tests(fit, ddf), []
    while len(table):
        p = table["p_value"].drop([name for name in keep if name in table.index])
        if not (p.to_numpy() > alpha).any():
            break
        name = p.idxmax()
        gone.append(table.loc[[name]])
        fit = fitted_to(fit, without_fixed(fit.design, [name]), kinds)
        table = _tests(fit, ddf)
    return fit, _numbered([*gone, table], gone, first=1)


def _tests(fit: Any, ddf: str | None) -> pd.DataFrame:
    if not fit.is_linear:
        ddf = None
    return drop1(fit, ddf=ddf).drop(index=NONE, errors="ignore")


def _numbered(
    parts: list[pd.DataFrame], gone: list[pd.DataFrame], first: int
) -> pd.DataFrame:
    """All parts below each other, with the number of the step in which a row went."""
    table = (
        pd.concat([p for p in parts if len(p)]) if any(map(len, parts)) else parts[0]
    )
    order = [*range(first, first + len(gone))]
    order += [0] * (len(table) - len(gone))
    return table.assign(eliminated=order[: len(table)])


def _shown(fit: Any, random: pd.DataFrame, fixed: pd.DataFrame) -> Steps:
    blocks = [
        _block("Backward reduced random-effect table:", random),
        _block("Backward reduced fixed-effect table:", fixed),
        layout.Paragraph(("Model found:", fit.formula)),
    ]
    out = Steps(layout.as_text(blocks))
    out.html = layout.as_html(blocks)
    out.random, out.fixed, out.model = random, fixed, fit
    return out


def _block(title: str, table: pd.DataFrame) -> layout.TextTable:
    header = ["", "Eliminated", "Df", "statistic", "Pr"]
    degrees = "num_df" if "num_df" in table else "df"
    rows = []
    for name, row in table.iterrows():
        here = int(row["eliminated"])
        tested = bool(np.isfinite(float(row["statistic"])))
        rows.append(
            (
                str(name),
                str(here) if tested else "",
                f"{row[degrees]:.0f}" if tested else "",
                numbers.fixed(row["statistic"], 4) if tested else "",
                numbers.p_value(row["p_value"]) if tested else "",
            )
        )
    return layout.TextTable(title, tuple(header), tuple(rows), "<>>>>")
