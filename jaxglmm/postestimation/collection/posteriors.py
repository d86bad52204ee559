"""Tables of many posteriors: who is surest of a sign, and all in a summary."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import Block, Paragraph
from jaxglmm.postestimation.collection.tables import block, place
from jaxglmm.postestimation.report.summary import Summary

if TYPE_CHECKING:
    from jaxglmm.many.posteriors import FittedPosteriors

GOOD = 0.7  # Pareto k-hat


def labels(posteriors: FittedPosteriors) -> np.ndarray:
    """(D,) names of the data sets, or their positions."""
    own = posteriors.labels
    return np.arange(len(posteriors)) if own is None else np.asarray(own)


def column(posteriors: FittedPosteriors, term: str) -> int:
    """The place of a parameter.

    Raises:
        NotApplicableError: there is none of this name.
    """
    return place("parameter", term, posteriors.names)


def direction(posteriors: FittedPosteriors, k: int) -> np.ndarray:
    """(D,) probability of the likelier sign, by the draws; normal where none are kept.

    NaN where a data set failed.
    """
    if posteriors.draws is None:
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.abs(posteriors.mean[:, k] / posteriors.sd[:, k])
        from scipy import special  # slow to import

        return special.ndtr(z)
    x = posteriors.draws[:, :, k]
    share = np.maximum((x > 0).mean(axis=1), (x < 0).mean(axis=1))
    return np.where(np.isnan(posteriors.mean[:, k]), np.nan, share)


def top(posteriors: FittedPosteriors, term: str, n: int) -> pd.DataFrame:
    """The data sets that are surest of the sign of a parameter."""
    k = column(posteriors, term)
    most = _arguments.DATASETS
    n = _arguments.whole("n", n, 0, most, error=NotApplicableError)
    p = direction(posteriors, k)
    mean, sd = posteriors.mean[:, k], posteriors.sd[:, k]
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(mean / sd)
    known = np.flatnonzero(posteriors.converged & np.isfinite(mean))
    order = known[np.lexsort((-size[known], -p[known]))][:n]
    return pd.DataFrame(
        {
            "estimate": mean[order],
            "std_error": sd[order],
            "conf_low": posteriors.lower[order, k],
            "conf_high": posteriors.upper[order, k],
            "p_direction": p[order],
        },
        index=pd.Index(labels(posteriors)[order], name="dataset"),
    )


def counts(posteriors: FittedPosteriors) -> tuple[str, ...]:
    """How many converged, what became of the others, how many k-hats are high."""
    lines = [
        f"{len(posteriors):,} posteriors, {int(posteriors.converged.sum()):,} converged"
    ]
    failed = collections.Counter(map(int, posteriors.status[~posteriors.converged]))
    if failed:
        words = zip(failed.values(), _status.names(failed), strict=True)
        lines.append("not converged: " + ", ".join(f"{n} {name}" for n, name in words))
    known = posteriors.khat[np.isfinite(posteriors.khat)]
    if len(known):
        lines.append(f"k-hat above {GOOD} in {int((known > GOOD).sum()):,}")
    return tuple(lines)


def summarise(posteriors: FittedPosteriors) -> Summary:
    """Counts; posterior means over the data sets; intervals that leave out zero."""
    good = posteriors.converged
    mean, sd = posteriors.mean[good], posteriors.sd[good]
    facts = posteriors.facts
    heading = [f"{facts['method']}, {facts['seconds']:.3g} s"] if facts else []
    blocks: list[Block] = [Paragraph((*heading, *counts(posteriors)))]
    blocks.append(Paragraph(("Posterior means over the data sets that converged:",)))
    frame = pd.DataFrame(
        [_spread(x, s) for x, s in zip(mean.T, sd.T, strict=True)],
        index=list(posteriors.names),
        columns=["mean", "sd", "5%", "50%", "95%", "posterior sd"],
    )
    p = len(posteriors.coefficient_names)
    low, high = posteriors.lower[good, :p], posteriors.upper[good, :p]
    with np.errstate(invalid="ignore"):
        found = {
            "intervals": np.sum(np.isfinite(low), axis=0),
            "95% above 0": np.sum(low > 0, axis=0),
            "95% below 0": np.sum(high < 0, axis=0),
        }
    signs = pd.DataFrame(found, index=list(posteriors.coefficient_names))
    blocks += [block(frame)] + ([block(signs)] if p else [])
    out = Summary(layout.as_text(blocks))
    out.html, out.latex = layout.as_html(blocks), layout.as_latex(blocks)
    out.table, out.tests = frame, signs
    return out


def _spread(mean: np.ndarray, sd: np.ndarray) -> list[float]:
    """Mean, sd and quantiles of posterior means; the typical posterior sd."""
    x, s = mean[np.isfinite(mean)], sd[np.isfinite(sd)]
    if not len(x):
        return [np.nan] * 6
    own = x.std(ddof=1) if len(x) > 1 else np.nan
    quantiles = np.quantile(x, [0.05, 0.5, 0.95])
    return [x.mean(), own, *quantiles, float(np.median(s)) if len(s) else np.nan]
