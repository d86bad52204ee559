"""Summary of a posterior: parameters with intervals, priors, how far to trust it."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm.fitting.kinds import is_ordinal
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formatting.tables import Paragraph, TextTable
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.postestimation.report.summary import WIDTH, Summary, modelled

SHOWN = 12  # priors listed in a summary


def summarise(fit: FittedPosterior, level: float) -> Summary:
    """The summary with central intervals of ``level``."""
    table = fit.posterior.summary(level)
    fixed = table.loc[list(fit.design.x_names)]
    rest = table.drop(index=fixed.index)
    percent = f"{100 * level:g}%"
    blocks = [Paragraph(_heading(fit))]
    if is_ordinal(fit) and not fit.design.parts:
        own = rest.loc[list(fit.family.phi_names)]
        rest = rest.drop(index=own.index)
        blocks.append(_table("Thresholds:", own, percent))
    if len(rest):
        blocks.append(_table("Random effects and dispersion:", rest, percent))
    if len(fixed):
        blocks.append(_table("Coefficients:", fixed, percent))
    blocks += [Paragraph(("Priors:", *_priors(fit))), Paragraph(_trust(fit))]
    found = fit.warnings
    if found:
        lines = [textwrap.wrap(f"Note: {text}", WIDTH) for text in found]
        blocks.append(Paragraph(tuple(x for note in lines for x in note)))
    out = Summary(layout.as_text(blocks))
    out.html, out.latex = layout.as_html(blocks), layout.as_latex(blocks)
    out.coefficients, out.notes = fit.coefficient_table(), found
    out.varcorr, out.sigma = fit.varcorr, fit.sigma
    out.criteria = {
        key: value
        for key, value in (
            ("log_evidence", fit.posterior.log_evidence),
            ("elbo", fit.posterior.elbo),
            ("khat", fit.posterior.khat),
            ("ess", fit.posterior.ess),
        )
        if value is not None
    }
    return out


def _heading(fit: FittedPosterior) -> tuple[str, ...]:
    groups = ", ".join(f"{name} {n}" for name, n in fit.ngroups.items())
    return (
        "Bayesian mixed model" if fit.design.terms else "Bayesian regression",
        f"Posterior by {fit.method}",
        f"Family: {fit.family_name} ({fit.link_name})",
        f"Formula: {fit.formula}",
        *_categories(fit),
        f"Number of obs: {fit.nobs}" + (f"; groups: {groups}" if groups else ""),
    )


def _categories(fit: FittedPosterior) -> tuple[str, ...]:
    """Ordered ones in their order, others as a fit by maximum likelihood has them."""
    if not is_ordinal(fit):
        return modelled(fit.design)
    levels = fit.design.response_levels
    assert levels is not None
    return (f"Categories: {' < '.join(map(str, levels))}",)


def _table(title: str, frame: pd.DataFrame, percent: str) -> TextTable:
    columns = ["mean", "sd", "lower", "upper"]
    header = ["", "Mean", "SD", f"lower {percent}", f"upper {percent}"]
    cells = [numbers.column(frame[c].tolist()) for c in columns]
    if "rhat" in frame:
        header += ["ESS bulk", "ESS tail", "R-hat"]
        cells += [[f"{x:.0f}" for x in frame[c]] for c in ("ess_bulk", "ess_tail")]
        cells.append([f"{x:.3f}" for x in frame["rhat"]])
    rows = tuple(zip(map(str, frame.index), *cells, strict=True))
    return TextTable(title, tuple(header), rows, "<" + ">" * (len(header) - 1))


def _priors(fit: FittedPosterior) -> tuple[str, ...]:
    lines = str(fit.priors).splitlines()
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more: fit.priors"]
    return tuple(f"  {line}" for line in lines)


def _trust(fit: FittedPosterior) -> tuple[str, ...]:
    p = fit.posterior
    lines = [f"Draws: {p.n_draws}" + (f" in {p.chains} chains" if p.chains > 1 else "")]
    if p.khat is not None and p.ess is not None:
        lines.append(f"Pareto k-hat {p.khat:.2f}, effective sample size {p.ess:.0f}")
    if p.log_evidence is not None:
        error = p.log_evidence_error
        plus = "" if error is None else f" (standard error {error:.2g})"
        lines.append(f"Log marginal likelihood {p.log_evidence:.3f}{plus}")
    if p.elbo is not None:
        lines.append(f"Evidence lower bound {p.elbo:.3f}")
    if "diverging" in p.sample_stats:
        stats = p.sample_stats
        lines.append(
            f"Divergences {int(stats['diverging'].sum())}, mean acceptance "
            f"{stats['acceptance_rate'].mean():.2f}, leapfrog steps a draw "
            f"{stats['n_steps'].mean():.1f}"
        )
    return tuple(lines)


def glance(fit: FittedPosterior) -> pd.DataFrame:
    """One row about the whole posterior; what the method does not find is NaN."""
    p = fit.posterior
    found = {"log_evidence": p.log_evidence, "elbo": p.elbo, "khat": p.khat}
    row = {
        "nobs": fit.nobs,
        "npar": fit.npar,
        "family": fit.family_name,
        "link": fit.link_name,
        "method": fit.method,
        "sigma": fit.sigma,
        "dispersion": fit.dispersion,
        **{k: np.nan if v is None else float(v) for k, v in found.items()},
        "n_draws": p.n_draws,
        "ess": np.nan if p.ess is None else float(p.ess),
        "converged": fit.converged,
    }
    return pd.DataFrame([row])


def tidy(
    fit: FittedPosterior, effects: Any, conf_int: bool, level: float, exponentiate: bool
) -> pd.DataFrame:
    """One row a parameter, with the columns of R's broom.mixed."""
    _arguments.level(level)
    from jaxglmm.postestimation.report import frames

    conf_int = _arguments.flag("conf_int", conf_int)
    if _arguments.flag("exponentiate", exponentiate):
        frames.check_ratios(fit, "tidy(exponentiate=True)")
    asked = frames.effects_asked(effects)
    makers = {"fixed": _fixed, "ran_pars": _ran_pars, "ran_vals": _ran_vals}
    parts = [makers[name](fit, level) for name in asked]
    if exponentiate:
        parts = [
            frames.exponentiated(part) if name == "fixed" else part
            for name, part in zip(asked, parts, strict=True)
        ]
    out = pd.concat(parts, ignore_index=True)
    unused = set() if conf_int else {"conf_low", "conf_high"}
    unused |= set() if "ran_vals" in asked else {"level"}
    columns = ("effect", "group", "level", "term", "estimate", "std_error")
    kept = [c for c in (*columns, "conf_low", "conf_high") if c not in unused]
    return out.reindex(columns=kept)


def _rows(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    numbers = {
        "estimate": table["mean"].to_numpy(),
        "std_error": table["sd"].to_numpy(),
        "conf_low": table["lower"].to_numpy(),
        "conf_high": table["upper"].to_numpy(),
    }
    return pd.DataFrame({**columns, **numbers})


def _fixed(fit: FittedPosterior, level: float) -> pd.DataFrame:
    table = fit.posterior.summary(level).loc[list(fit.design.x_names)]
    return _rows(table, effect="fixed", group=None, term=list(table.index))


def _ran_pars(fit: FittedPosterior, level: float) -> pd.DataFrame:
    table = fit.posterior.summary(level).drop(index=list(fit.design.x_names))
    own = fit.family.phi_names if is_ordinal(fit) else ()
    group = ["Thresholds" if n in own else _group(n) for n in table.index]
    return _rows(table, effect="ran_pars", group=group, term=list(table.index))


def _group(name: str) -> str:
    """The term that a parameter belongs to, as in ``Fit.tidy``."""
    label = name.partition("|")[2]
    return label or ("Residual" if name == "sigma" else "Dispersion")


def _ran_vals(fit: FittedPosterior, level: float) -> pd.DataFrame:
    tails = [(1 - level) / 2, (1 + level) / 2]
    m, parts = fit.posterior.moments, []
    for term in fit.design.terms:
        b = fit.posterior.effects(term.label)
        low, high = np.quantile(b, tails, axis=0)
        mean, sd = m.effects[term.label], m.effects_sd[term.label]
        columns, levels = list(term.names), term.levels
        if term.known is not None:
            mean, sd = b.mean(axis=0), b.std(axis=0, ddof=1)
            columns, levels = [str(x) for x in term.levels], term.known.labels
        for i, name in enumerate(columns):
            table = pd.DataFrame(
                {
                    "mean": mean[:, i],
                    "sd": sd[:, i],
                    "lower": low[:, i],
                    "upper": high[:, i],
                }
            )
            parts.append(
                _rows(
                    table,
                    effect="ran_vals",
                    group=term.factor,
                    level=list(levels),
                    term=name,
                )
            )
    return pd.concat(parts, ignore_index=True)
