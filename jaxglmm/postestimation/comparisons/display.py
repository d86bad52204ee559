"""Marginal means as a page, and in units of a standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.formatting import numbers
from jaxglmm.formatting.tables import TextTable


def blocks(table: pd.DataFrame, keys: pd.DataFrame, notes: Sequence[str]) -> list:
    """The table and its notes."""
    texts = {name: [f"{v}" for v in keys[name]] for name in keys}
    est, err = numbers.with_errors(
        table["estimate"].tolist(), table["std_error"].tolist()
    )
    texts |= {"estimate": est, "std_error": err}
    if "df" in table:
        texts["df"] = numbers.df(table["df"].tolist())
    for name in ("conf_low", "conf_high"):
        texts[name] = numbers.column(table[name].tolist())
    if "p_value" in table:
        texts["statistic"] = [numbers.fixed(t, 2) for t in table["statistic"]]
        texts["p_value"] = [numbers.p_value(p) for p in table["p_value"]]
    else:
        texts["p_direction"] = [numbers.fixed(p, 3) for p in table["p_direction"]]
    align = "".join("<" if n in keys else ">" for n in texts)
    rows = tuple(zip(*texts.values(), strict=True))
    return [TextTable("", tuple(texts), rows, align, tuple(notes))]


def effect_sizes(
    table: pd.DataFrame, keys: pd.DataFrame, sigma: float, edf: float | None
) -> pd.DataFrame:
    """Differences in units of sigma; see ``MarginalMeans.effect_sizes``."""
    d = table["estimate"] / sigma
    error = table["std_error"] / sigma
    if edf is not None:
        error = np.sqrt(error**2 + d**2 / (2 * edf))
    half = (table["conf_high"] - table["conf_low"]) / (2 * table["std_error"])
    return pd.concat(
        [
            keys,
            pd.DataFrame(
                {
                    "effect_size": d,
                    "std_error": error,
                    **({"df": table["df"]} if "df" in table else {}),
                    "conf_low": d - half * error,
                    "conf_high": d + half * error,
                }
            ),
        ],
        axis=1,
    )
