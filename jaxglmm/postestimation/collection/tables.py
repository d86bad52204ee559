"""Tables of many fits: one row an estimate, one row a parameter, who is first."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import ArgumentError, DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import Block, Paragraph, TextTable
from jaxglmm.numerics import multiplicity
from jaxglmm.postestimation.report.summary import Summary

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

FALSE_DISCOVERIES = 0.05

FAR = 1000.0  # times the median, from which a dispersion is as good as infinite


def adjusted(fits: FittedModels) -> np.ndarray:
    """(D, p), each coefficient over the data sets."""
    p = tested(fits)
    return np.stack([multiplicity.adjusted(x, "fdr_bh") for x in p.T], axis=1)


def tested(fits: FittedModels) -> np.ndarray:
    """(D, p) p-values, NaN where a fit did not converge: these are no tests.

    Raises:
        NotApplicableError: the fits are draws.
    """
    if fits.p_values is None:
        raise NotApplicableError("these fits have no p-values: they are draws")
    return np.where(np.asarray(fits.converged)[:, None], fits.p_values, np.nan)


def tidy(
    fits: FittedModels, effects: str, conf_int: bool, level: float
) -> pd.DataFrame:
    """One row a data set and parameter."""
    conf_int = _arguments.flag("conf_int", conf_int)
    if not _arguments.is_among(effects, ("fixed", "ran_pars", "all")):
        raise NotApplicableError(
            f"tidy(effects={_arguments.shown(effects)}): there are 'fixed', 'ran_pars' "
            "and 'all'"
        )
    values = fits.frame().to_numpy()
    p = len(fits.coefficient_names)
    kind = np.array(["fixed"] * p + ["ran_pars"] * (values.shape[1] - p))
    if fits.dispersion_se is not None:
        kind[[fits.names.index(name) for name in fits.dispersion_names]] = "fixed"
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
        if fits.dispersion_se is not None:
            _of_thresholds(fits, table, keep)
    table["status"] = np.repeat(_status.names(fits.status), k)
    return pd.DataFrame(table)


def _tests(
    fits: FittedModels, width: int, keep: np.ndarray, conf_int: bool, level: float
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
            "p_value": wide(np.asarray(fits.p_values)),
            "p_adjusted": wide(adjusted(fits)),
        }
        if conf_int:
            half = t_quantile(level, df) * se
            found["conf_low"] = wide(fits.coefficients - half)
            found["conf_high"] = wide(fits.coefficients + half)
    return found


def _of_thresholds(
    fits: FittedModels, table: dict[str, np.ndarray], keep: np.ndarray
) -> None:
    """Standard errors of thresholds, which are tested against nothing."""
    error = table["std_error"].reshape(len(fits), len(keep))
    assert fits.dispersion_se is not None
    for k, name in enumerate(fits.dispersion_names):
        error[:, keep == fits.names.index(name)] = fits.dispersion_se[:, k, None]
    table["statistic"] = table["estimate"] / table["std_error"]


def column(fits: FittedModels, term: str) -> int:
    """The place of a coefficient.

    Raises:
        NotApplicableError: there is none of this name.
    """
    return place("coefficient", term, fits.coefficient_names)


def place(kind: str, term: str, names: tuple[str, ...]) -> int:
    """Where a term stands among all of its kind.

    Raises:
        NotApplicableError: there is none of this name.
    """
    if not _arguments.is_among(term, names):
        known, what = ", ".join(map(repr, names)), _arguments.shown(term)
        raise NotApplicableError(f"no {kind} {what}; there are {known}")
    return names.index(term)


def top(fits: FittedModels, term: str, n: int) -> pd.DataFrame:
    """The rows of one coefficient with the smallest p-values of fits that converged."""
    k = column(fits, term)
    p = tested(fits)[:, k]
    most = _arguments.DATASETS
    n = _arguments.whole("n", n, 0, most, error=NotApplicableError)
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
            "p_adjusted": multiplicity.adjusted(p, "fdr_bh")[order],
        },
        index=pd.Index(labels[order], name="dataset"),
    )


def finite(fits: FittedModels) -> np.ndarray:
    """Estimates of the data sets that have them, (k, parameters).

    Raises:
        NotApplicableError: fewer than two.
    """
    values = fits.frame().to_numpy()
    unknown = fits.correlation_names
    if fits.dispersion_se is not None:  # infinite beyond the categories that there are
        unknown = (*unknown, *fits.dispersion_names)
    whole = [k for k, n in enumerate(fits.names) if n not in unknown]
    values = values[np.isfinite(values[:, whole]).all(axis=1)]
    if len(values) < 2:
        raise NotApplicableError(
            f"{len(values)} of {len(fits)} data sets have finite estimates: see .status"
        )
    return values


def original(fits: FittedModels) -> np.ndarray:
    """Estimates that the draws came from.

    Raises:
        NotApplicableError: these are no draws.
    """
    if not fits.original:
        raise NotApplicableError(
            "Basic intervals need the estimates that the draws came from; use "
            "method='percentile'"
        )
    return np.array([fits.original.get(name, np.nan) for name in fits.names])


def quantiles(values: np.ndarray, at: list[float]) -> np.ndarray:
    """(len(at), k) quantiles of each column where it is known, NaN where it never is.

    A correlation beside a variance of zero is not known.
    """
    columns = [x[~np.isnan(x)] for x in values.T]
    found = [
        np.quantile(x, at) if len(x) else np.full(len(at), np.nan) for x in columns
    ]
    return np.array(found).T


def limits(fits: FittedModels, level: float, kind: str) -> pd.DataFrame:
    """lower and upper of bootstrap intervals, by quantiles of the draws.

    kind: "percentile", or "basic": twice the estimate minus the opposite quantile
    (Davison and Hinkley 1997, 5.2).
    """
    values = finite(fits)
    tail = (1 - level) / 2
    lower, upper = quantiles(values, [tail, 1 - tail])
    if kind == "basic":
        centre = original(fits)
        lower, upper = 2 * centre - upper, 2 * centre - lower
    return pd.DataFrame({"lower": lower, "upper": upper}, index=fits.names)


def counts(fits: FittedModels) -> tuple[str, ...]:
    """How many there are, converged, are singular; what went wrong with the others."""
    failed = collections.Counter(map(int, np.sort(fits.status[~fits.converged])))
    words = zip(failed.values(), _status.names(failed), strict=True)
    reasons = [f"{count} {name}" for count, name in words]
    text = f"{len(fits)} fits, {int(fits.converged.sum())} converged"
    text += f", {int(fits.singular.sum())} singular"
    if fits.separated is not None and fits.separated.any():
        text += f", {int(fits.separated.sum())} separated"
    return (text, *([f"not converged: {', '.join(reasons)}"] if reasons else []))


def summarise(fits: FittedModels) -> Summary:
    """Counts, and a table: of draws by parameter, of models by coefficient."""
    blocks: list[Block] = []
    if fits.facts:
        blocks.append(Paragraph(_heading(fits)))
    blocks.append(Paragraph(fits._counts()))
    if fits.p_values is None:
        frame, notes = _draws(fits), _far(fits, finite(fits))
        tables = [frame]
    else:
        values, left = _of_good_fits(fits)
        frame, notes = _quantiles(fits, values), left + _far(fits, values)
        tables = [frame, _significant(fits)] if len(fits.coefficient_names) else [frame]
    if notes:
        blocks.append(Paragraph(notes))
    blocks += [block(t) for t in tables]
    out = Summary(layout.as_text(blocks))
    out.html, out.latex = layout.as_html(blocks), layout.as_latex(blocks)
    out.table = frame
    if len(tables) > 1:
        out.tests = tables[1]
    return out


def _heading(fits: FittedModels) -> tuple[str, ...]:
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


def _of_good_fits(fits: FittedModels) -> tuple[np.ndarray, tuple[str, ...]]:
    """Estimates of fits that converged and are not separated; a note on the others."""
    values = fits.frame().to_numpy(float)
    good = np.array(fits.converged, bool)
    if fits.separated is not None:
        good &= ~fits.separated
    known = np.isfinite(values).any(axis=1) & ~good
    if not known.any():
        return values[good], ()
    note = f"Below are the {good.sum():,} fits that converged and are not separated."
    return values[good], (note,)


def _near(x: np.ndarray, dispersion: bool) -> np.ndarray:
    """Values (n,) that a mean can be taken of: a dispersion can run off to infinity."""
    x = x[np.isfinite(x)]
    return x[x <= FAR * np.median(x)] if dispersion and len(x) else x


def _may_run_off(fits: FittedModels) -> tuple[str, ...]:
    """Dispersion parameters, which are positive; thresholds are not."""
    return fits.dispersion_names if fits.dispersion_se is None else ()


def _far(fits: FittedModels, values: np.ndarray) -> tuple[str, ...]:
    """A note on dispersion parameters that are left out of mean and sd."""
    lines = []
    for name in _may_run_off(fits):
        x = values[:, fits.names.index(name)]
        count = int(np.isfinite(x).sum()) - len(_near(x, True))
        if count:
            lines.append(
                f"{name}: mean and sd without {count:,} estimates beyond "
                f"{FAR:,.0f} times the median, as good as infinite."
            )
    return tuple(lines)


def _moments(fits: FittedModels, values: np.ndarray) -> dict[str, list[float]]:
    """Mean and sd of each parameter (columns of ``values``), NaN where unknown."""
    parts = [
        _near(x, name in _may_run_off(fits))
        for name, x in zip(fits.names, values.T, strict=True)
    ]
    return {
        "mean": [float(x.mean()) if len(x) else np.nan for x in parts],
        "sd": [float(x.std(ddof=1)) if len(x) > 1 else np.nan for x in parts],
    }


def _draws(fits: FittedModels) -> pd.DataFrame:
    """Mean, sd, bias and quantiles of every parameter."""
    values = finite(fits)
    shown = {
        **_moments(fits, values),
        **dict(
            zip(
                ["2.5%", "50%", "97.5%"],
                quantiles(values, [0.025, 0.5, 0.975]),
                strict=True,
            )
        ),
    }
    table = pd.DataFrame(shown, index=fits.names)
    if fits.original:
        table.insert(0, "original", original(fits))
        table.insert(2, "bias", table["mean"] - table["original"])
    return table


def _quantiles(fits: FittedModels, values: np.ndarray) -> pd.DataFrame:
    """Of each parameter over the data sets where it is known."""
    parts = [x[np.isfinite(x)] for x in values.T]
    unknown = [np.nan] * 3
    found = [np.quantile(x, [0.05, 0.5, 0.95]) if len(x) else unknown for x in parts]
    quantiles = dict(zip(["5%", "50%", "95%"], np.array(found).T, strict=True))
    return pd.DataFrame({**_moments(fits, values), **quantiles}, index=fits.names)


def _significant(fits: FittedModels) -> pd.DataFrame:
    """Of each coefficient: tests, p below 0.05, found at the false discovery rate."""
    p, q = tested(fits), adjusted(fits)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "tests": np.sum(~np.isnan(p), axis=0),
                "p < 0.05": np.sum(p < 0.05, axis=0),
                "adjusted p < 0.05": np.sum(q < FALSE_DISCOVERIES, axis=0),
            },
            index=list(fits.coefficient_names),
        )


def block(table: pd.DataFrame) -> TextTable:
    """Every row to as many decimals as its sd deserves; counts as they are."""
    rows = []
    for name, values in zip(table.index, table.to_numpy(), strict=True):
        if "sd" in table:
            sd = float(table.loc[name, "sd"])  # type: ignore[arg-type]
            shown = [numbers.with_errors([v], [sd])[0][0] for v in values.tolist()]
        else:
            shown = [f"{int(v)}" for v in values]
        rows.append((str(name), *shown))
    return TextTable("", ("", *table.columns), tuple(rows), "<" + ">" * table.shape[1])


def wide(fits: FittedModels) -> pd.DataFrame:
    """A row a data set: each coefficient with its error and p-values, the variances."""
    out: dict[str, Any] = {}
    known = fits.se is not None and fits.p_values is not None
    p_adjusted = adjusted(fits) if known else None
    for k, name in enumerate(fits.coefficient_names):
        out[name] = fits.coefficients[:, k]
        if known:
            out[f"{name}_se"] = fits.se[:, k]  # type: ignore[index]
            out[f"{name}_p"] = tested(fits)[:, k]
            out[f"{name}_p_adjusted"] = p_adjusted[:, k]  # type: ignore[index]
    out |= {name: fits.sd[:, k] for k, name in enumerate(fits.sd_names)}
    if fits.dispersion is not None:
        pairs = enumerate(fits.dispersion_names)
        out |= {name: fits.dispersion[:, k] for k, name in pairs}
    elif np.isfinite(fits.sigma).any():
        out["sigma"] = fits.sigma
    out["status"] = fits.status_names
    return pd.DataFrame(out, index=fits.labels)


def annotate(fits: FittedModels, adata: Any, prefix: str) -> None:
    """See ``Fits.annotate``."""
    if not isinstance(prefix, str):
        raise ArgumentError(f"prefix={_arguments.shown(prefix)} must be a text")
    if not hasattr(adata, "var") or not hasattr(adata, "var_names"):
        raise DataError(
            f"annotate({_arguments.shown(adata)}): an AnnData has var and var_names"
        )
    names = [str(x) for x in adata.var_names]
    own = None if fits.labels is None else [str(x) for x in fits.labels]
    if names != own:
        same = own is not None and sorted(names) == sorted(own)
        raise DataError(
            f"the {len(names)} variables are not those of these {len(fits)} fits"
            f"{', but for their order' if same else ''}: annotate the AnnData that "
            "fit_many was given"
        )
    for name, values in wide(fits).items():
        adata.var[f"{prefix}{name}"] = values.to_numpy()
