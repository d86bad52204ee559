"""Tables of many fits: one row an estimate, one row a parameter, who is first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm import _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.results import layout, numbers
from jaxglmm.results.coefficients import t_quantile
from jaxglmm.results.layout import Block, Paragraph, Table
from jaxglmm.results.summary import Summary

if TYPE_CHECKING:
    from jaxglmm.results.fits.fits import Fits

FALSE_DISCOVERIES = 0.05

REASONS = {
    _status.MAX_STEPS: "out of steps",
    _status.NOT_FINITE: "not finite",
    _status.STALLED: "stalled",
    _status.NO_RESIDUAL: "no residual variance",
    _status.CONSTANT: "constant response",
    _status.BAD_VALUES: "values that cannot be used",
    _status.TOO_FEW: "too few rows or levels",
    _status.EXACT: "fixed effects reproduce the response",
}


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values (D,): the false discovery rate at which each is found.

    Benjamini and Hochberg (1995); p-values that are NaN stay so and are not counted.
    """
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if len(known) == 0:
        return out
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


def adjusted(fits: Fits) -> np.ndarray:
    """(D, p), each coefficient over the data sets."""
    p = _tested(fits)
    return np.stack([benjamini_hochberg(column) for column in p.T], axis=1)


def _tested(fits: Fits) -> np.ndarray:
    if fits.p_values is None:
        raise NotApplicableError("these fits have no p-values: they are draws")
    return fits.p_values


def tidy(fits: Fits, effects: str, conf_int: bool, level: float) -> pd.DataFrame:
    """One row a data set and parameter."""
    if effects not in ("fixed", "ran_pars", "all"):
        raise NotApplicableError(
            f"tidy(effects={effects!r}): there are 'fixed', 'ran_pars' and 'all'"
        )
    values = fits.frame().to_numpy()
    p = len(fits.coefficient_names)
    kind = np.array(["fixed"] * p + ["ran_pars"] * (values.shape[1] - p))
    keep = np.flatnonzero((kind == effects) | (effects == "all"))
    D, k = len(fits), len(keep)
    labels = np.arange(D) if fits.labels is None else fits.labels
    table = {
        "dataset": np.repeat(labels, k),
        "effect": np.tile(kind[keep], D),
        "term": np.tile(np.array(fits.names)[keep], D),
        "estimate": values[:, keep].ravel(),
    }
    if fits.se is not None and effects != "ran_pars":
        table |= _tests(fits, values.shape[1], keep, conf_int, level)
    return pd.DataFrame(table)


def _tests(
    fits: Fits, width: int, keep: np.ndarray, conf_int: bool, level: float
) -> dict[str, np.ndarray]:
    se, df = fits.se, fits.df
    assert se is not None
    assert df is not None

    def wide(x: np.ndarray) -> np.ndarray:
        out = np.full((len(fits), width), np.nan)
        out[:, : x.shape[1]] = x
        return out[:, keep].ravel()

    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "std_error": wide(se),
            "statistic": wide(fits.coefficients / se),
            "df": wide(df),
            "p_value": wide(_tested(fits)),
            "p_adjusted": wide(adjusted(fits)),
        }
        if conf_int:
            half = t_quantile(level, df) * se
            found["conf_low"] = wide(fits.coefficients - half)
            found["conf_high"] = wide(fits.coefficients + half)
    return found


def column(fits: Fits, term: str) -> int:
    """The place of a coefficient.

    Raises:
        NotApplicableError: there is none of this name.
    """
    if term not in fits.coefficient_names:
        names = ", ".join(map(repr, fits.coefficient_names))
        raise NotApplicableError(f"no coefficient {term!r}; there are {names}")
    return fits.coefficient_names.index(term)


def top(fits: Fits, term: str, n: int) -> pd.DataFrame:
    """The rows of one coefficient with the smallest p-values."""
    k = column(fits, term)
    p = _tested(fits)[:, k]
    order = np.argsort(p, kind="stable")[:n]
    order = order[~np.isnan(p[order])]
    assert fits.se is not None
    assert fits.df is not None
    labels = np.arange(len(fits)) if fits.labels is None else fits.labels
    return pd.DataFrame(
        {
            "estimate": fits.coefficients[order, k],
            "std_error": fits.se[order, k],
            "statistic": fits.coefficients[order, k] / fits.se[order, k],
            "df": fits.df[order, k],
            "p_value": p[order],
            "p_adjusted": benjamini_hochberg(p)[order],
        },
        index=pd.Index(labels[order], name="dataset"),
    )


def finite(fits: Fits) -> np.ndarray:
    """Estimates of the data sets that have them, (k, parameters).

    Raises:
        NotApplicableError: fewer than two.
    """
    values = fits.frame().to_numpy()
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        raise NotApplicableError(
            f"{len(values)} of {len(fits)} data sets have finite estimates: see .status"
        )
    return values


def original(fits: Fits) -> np.ndarray:
    """Estimates that the draws came from.

    Raises:
        NotApplicableError: these are no draws.
    """
    if not fits.original:
        raise NotApplicableError(
            "Basic intervals need the estimates that the draws came from; use "
            "method='percentile'"
        )
    return np.array([fits.original[name] for name in fits.names])


def counts(fits: Fits) -> tuple[str, ...]:
    """How many there are, converged, are singular; what went wrong with the others."""
    failed = fits.status[~fits.converged]
    reasons = [
        f"{int(np.sum(failed == code))} {name}"
        for code, name in REASONS.items()
        if np.any(failed == code)
    ]
    text = f"{len(fits)} fits, {int(fits.converged.sum())} converged"
    text += f", {int(fits.singular.sum())} singular"
    if fits.separated is not None and fits.separated.any():
        text += f", {int(fits.separated.sum())} separated"
    return (text, *([f"not converged: {', '.join(reasons)}"] if reasons else []))


def summarise(fits: Fits) -> Summary:
    """Counts, and a table: of draws by parameter, of models by coefficient."""
    blocks: list[Block] = []
    if fits.facts:
        blocks.append(Paragraph(_heading(fits)))
    blocks.append(Paragraph(fits._counts()))
    if fits.p_values is None:
        frame = _draws(fits)
        tables = [frame]
    else:
        values = fits.frame()
        frame = _quantiles(values)
        tables = [frame, _significant(fits)] if len(fits.coefficient_names) else [frame]
    blocks += [_block(t) for t in tables]
    out = Summary(layout.as_text(blocks))
    out.html, out.table = layout.as_html(blocks), frame
    if len(tables) > 1:
        out.tests = tables[1]
    return out


def _heading(fits: Fits) -> tuple[str, ...]:
    f = fits.facts
    lines = [str(f[k]) for k in ("title",) if k in f]
    if "formula" in f:
        lines.append(f"Formula: {f['formula']}")
    if "devices" in f and "seconds" in f:
        rate = len(fits) / max(f["seconds"], 1e-9)
        lines.append(f"{f['devices']}, {f['seconds']:.3g} s, {rate:,.0f} fits/s")
    if "moderation" in f:
        d0, s2 = f["moderation"]["df_prior"], f["moderation"]["variance_prior"]
        lines.append(
            f"Residual variances moderated: prior variance {s2:.4g} with {d0:.3g} "
            "degrees of freedom"
        )
    return tuple(lines)


def _draws(fits: Fits) -> pd.DataFrame:
    """Mean, sd, bias and quantiles of every parameter."""
    values = finite(fits)
    table = pd.DataFrame(
        {
            "mean": values.mean(axis=0),
            "sd": values.std(axis=0, ddof=1),
            "2.5%": np.quantile(values, 0.025, axis=0),
            "50%": np.quantile(values, 0.5, axis=0),
            "97.5%": np.quantile(values, 0.975, axis=0),
        },
        index=fits.names,
    )
    if fits.original:
        table.insert(0, "original", original(fits))
        table.insert(2, "bias", table["mean"] - table["original"])
    return table


def _quantiles(values: pd.DataFrame) -> pd.DataFrame:
    """Of each parameter over the data sets where it is known."""
    array = values.to_numpy()
    array = np.where(np.isfinite(array), array, np.nan)
    rows = {}
    for name, x in zip(values.columns, array.T, strict=True):
        x = x[~np.isnan(x)]
        sd = x.std(ddof=1) if len(x) > 1 else np.nan
        quantiles = np.quantile(x, [0.05, 0.5, 0.95]) if len(x) else [np.nan] * 3
        rows[name] = [x.mean() if len(x) else np.nan, sd, *quantiles]
    columns = ["mean", "sd", "5%", "50%", "95%"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _significant(fits: Fits) -> pd.DataFrame:
    """Of each coefficient: tests, p below 0.05, found at the false discovery rate."""
    p, q = _tested(fits), adjusted(fits)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "tests": np.sum(~np.isnan(p), axis=0),
                "p < 0.05": np.sum(p < 0.05, axis=0),
                "adjusted p < 0.05": np.sum(q < FALSE_DISCOVERIES, axis=0),
            },
            index=list(fits.coefficient_names),
        )


def _block(table: pd.DataFrame) -> Table:
    """Every row to as many decimals as its sd deserves; counts as they are."""
    rows = []
    for name, values in zip(table.index, table.to_numpy(), strict=True):
        if "sd" in table:
            sd = float(table.loc[name, "sd"])  # type: ignore[arg-type]
            shown = [numbers.with_errors([v], [sd])[0][0] for v in values.tolist()]
        else:
            shown = [f"{int(v)}" for v in values]
        rows.append((str(name), *shown))
    return Table("", ("", *table.columns), tuple(rows), "<" + ">" * table.shape[1])
