"""Likelihood-ratio tests of nested fits, and refusals of what cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, ComparisonError
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.model.families import Gaussian
from jaxglmm.postestimation.report.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.formula.design import Design


LINEAR = ("gaussian", "identity")
CRITERIA = ("aic", "bic", "log_likelihood", "criterion")
BOUNDARY = (
    "boundary: p-value by the mixture of chi-squared distributions that holds because "
    "the smaller model sets variances to zero."
)
LIMIT = (
    "boundary: p-value by the mixture of chi-squared distributions that holds because "
    "the smaller model has a dispersion parameter (and variances) at the limit."
)


class Comparison(Summary):
    """A table of fits, the smallest first, that shows itself.

    table: frame with npar, aic, bic, log_likelihood, criterion, statistic, df, p_value
    and p_boundary; statistic, df, p_value, p_boundary: of the last (or only) step.
    ``p_value`` is by the chi-squared distribution, as lme4 prints it; ``p_boundary`` by
    the mixture of chi-squared distributions that holds where the smaller model sets
    variances to zero, or a dispersion parameter to its limit (Self and Liang 1987;
    Stram and Lee 1994), NaN where it does not apply.
    """

    table: pd.DataFrame
    statistic: float
    df: int
    p_value: float
    p_boundary: float


def compare(fits: Sequence[FittedModel], refit: bool | None = None) -> Comparison:
    """Compare fits of the same data.

    Args:
        fits: two or more.
        refit: REML fits again by ML: always (True), never (False), or where their fixed
            effects differ (None).
    """
    refit = None if refit is None else _arguments.flag("refit", refit)
    for one in fits:
        if not hasattr(one, "design"):
            raise ArgumentError(
                f"jg.anova(one, two) compares fits of jg.lmm or jg.glmm; this is "
                f"{_what(one)}"
            )
    if len(fits) < 2:
        raise ComparisonError(
            "a comparison needs two fits or more; one fit's terms are tested by "
            "fit.anova()"
        )
    _of_likelihood(fits)
    _same_data(fits)
    _same_family(fits)
    _same_integral(fits)
    fits, note = _same_criterion(list(fits), refit)
    order = sorted(range(len(fits)), key=lambda i: fits[i].npar)
    ordered = [fits[i] for i in order]
    table = _table(ordered, order)
    return _shown(ordered, order, table, note)


def comparable(fits: Sequence[FittedModel]) -> list[FittedModel]:
    """Fits whose likelihoods can be compared; REML ones by ML where they must be.

    Raises:
        ComparisonError: of other data, posteriors, or other approximations.
    """
    for one in fits:
        if not hasattr(one, "design"):
            raise ArgumentError(f"these are to be fits of models; this is {_what(one)}")
    _of_likelihood(fits)
    _same_data(fits)
    _same_integral(fits)
    return _same_criterion(list(fits), None)[0]


def _of_likelihood(fits: Sequence[FittedModel]) -> None:
    """Maxima of likelihoods, which posteriors do not have."""
    bayesian = [i for i, fit in enumerate(fits) if not fit.has_likelihood]
    if not bayesian:
        return
    if len(bayesian) == len(fits):
        raise ComparisonError(
            "likelihood-ratio tests compare fits by maximum likelihood, and these are "
            "posteriors: compare them by .log_evidence, by fit.loo(), or by "
            "arviz.compare of fit.to_arviz(); or fit the models without a Bayesian "
            "method="
        )
    names = ", ".join(f"model{i + 1}" for i in bayesian)
    raise ComparisonError(
        f"{names} of these fits {'is a posterior' if len(bayesian) == 1 else 'are'}"
        f"{'' if len(bayesian) == 1 else ' posteriors'}, the others are by maximum "
        "likelihood: fit all of them by maximum likelihood for a likelihood-ratio "
        "test, or all by one Bayesian method and compare .log_evidence or fit.loo()"
    )


def _what(given: Any) -> str:
    if hasattr(given, "coefficients"):
        return "many fits: take one, fits[0], or test coefficients by fits.tidy()"
    name = type(given).__name__
    return f"a {name}" + (
        ": write jg.anova(*fits)" if name in ("list", "tuple") else ""
    )


def _same_data(fits: Sequence[FittedModel]) -> None:
    one = fits[0].design
    linear = all((f.family_name, f.link_name) == LINEAR for f in fits)
    for other in (f.design for f in fits[1:]):
        if other.n != one.n:
            raise ComparisonError(
                f"the fits are of different data: {one.n} and {other.n} rows. Missing "
                "values in one model's variables drop rows of that model alone: drop "
                "them from the data first"
            )
        if other.response != one.response or not one.same_response(other):
            raise ComparisonError(
                f"the fits are of different responses ({one.response} and "
                f"{other.response}, or other values): likelihoods of different data "
                "cannot be compared"
            )
        if not one.has_rows:  # of the same rows, weights among them
            continue
        if linear and np.array_equal(_precision(one), _precision(other)):
            continue
        if not _equal(one.weights, other.weights):
            raise ComparisonError(
                "the fits have different prior weights: their likelihoods are of "
                "different models of the residuals and cannot be compared"
            )
        if not np.array_equal(_trials(one), _trials(other)):
            raise ComparisonError(
                "the fits have different numbers of trials: their responses are not "
                "the same data"
            )


def _precision(design: Design) -> np.ndarray:
    """(n,) of a linear model; without random effects its weights are its trials."""
    return _trials(design) * (1.0 if design.weights is None else design.weights)


def _trials(design: Design) -> np.ndarray:
    return np.ones(design.n) if design.trials is None else design.trials


def _same_family(fits: Sequence[FittedModel]) -> None:
    """One family and link, or families of which one is a limit of the other."""
    links = list(dict.fromkeys(f.link_name for f in fits))
    if len(links) > 1:
        raise ComparisonError(
            f"the fits have different links ({', '.join(map(repr, links))}): neither "
            "model contains the other, so there is no likelihood-ratio test. Compare "
            "their .aic instead"
        )
    names = list(dict.fromkeys(f.family_name for f in fits))
    if len(names) > 2 or (len(names) == 2 and not _any_limit(fits)):
        raise ComparisonError(
            f"the fits have different families ({', '.join(map(repr, names))}), and "
            "none of them is a limit of the others, so there is no likelihood-ratio "
            "test. Compare their .aic instead (where both are densities, or both are "
            "probabilities of counts)"
        )


def _any_limit(fits: Sequence[FittedModel]) -> bool:
    return any(_is_limit(small, big) for small in fits for big in fits)


def _is_limit(small: FittedModel, big: FittedModel) -> bool:
    """Whether ``big`` is of the family of ``small`` at the end of its dispersion."""
    family = getattr(big, "family", Gaussian)  # a linear model's is this one
    return family.limit == small.family_name


def _same_integral(fits: Sequence[FittedModel]) -> None:
    """One approximation of the likelihood; models without one go with all."""
    methods = list(dict.fromkeys(f.method for f in fits if f.method))
    if len(methods) > 1:
        raise ComparisonError(
            f"the likelihoods are not by the same method ({'; '.join(methods)}): they "
            "differ for that reason already. Fit all of them by one method"
        )


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)


def _same_fixed(fits: Sequence[FittedModel]) -> bool:
    one = fits[0].design
    return all(
        f.design.x_names == one.x_names
        and np.array_equal(f.design.X, one.X)
        and _equal(f.design.offset, one.offset)
        for f in fits[1:]
    )


def _same_criterion(
    fits: list[FittedModel], refit: bool | None
) -> tuple[list[FittedModel], str]:
    """All by ML or all by REML, and what was done for it."""
    reml = [f.reml for f in fits]
    if not any(reml):
        return fits, ""
    again = refit if refit is not None else not (all(reml) and _same_fixed(fits))
    if again:
        from jaxglmm.fitting.refit import with_method

        return [with_method(f, False) if f.reml else f for f in fits], (
            "REML fits were fitted again by ML"
        )
    if not all(reml):
        raise ComparisonError(
            "one fit is by REML, another by ML: their criteria cannot be compared. Use "
            "refit=True to fit the REML ones again by ML"
        )
    if not _same_fixed(fits):
        raise ComparisonError(
            "REML likelihoods of models with different fixed effects cannot be "
            "compared: each is of other contrasts of the data. Use refit=True, or "
            "reml=False"
        )
    return fits, "restricted likelihoods"


def _table(fits: list[FittedModel], order: list[int]) -> pd.DataFrame:
    import pandas as pd
    from scipy import stats

    rows = []
    for k, fit in enumerate(fits):
        step = [np.nan] * 4
        if k:
            small = fits[k - 1]
            statistic = max(small.criterion - fit.criterion, 0.0)
            df = fit.npar - small.npar
            p = float(stats.chi2.sf(statistic, df)) if df > 0 else np.nan
            step = [statistic, df, p, boundary_p_value(small, fit, statistic, df)]
        rows.append(
            [fit.npar, fit.aic, fit.bic, fit.log_likelihood, fit.criterion, *step]
        )
    columns = [
        "npar",
        "aic",
        "bic",
        "log_likelihood",
        "criterion",
        "statistic",
        "df",
        "p_value",
        "p_boundary",
    ]
    return pd.DataFrame(rows, index=[f"model{i + 1}" for i in order], columns=columns)


def boundary_p_value(
    small: FittedModel, big: FittedModel, statistic: float, df: int
) -> float:
    """p by the mixture over how many of the tested parameters are at their limit."""
    from scipy import stats

    tested = _at_limit(small, big)
    if not tested or df < tested:
        return np.nan
    total = 0.0
    for zero in range(tested + 1):
        weight = comb(tested, zero) / 2**tested
        k = df - zero
        total += weight * (stats.chi2.sf(statistic, k) if k else float(statistic <= 0))
    return float(total)


def _at_limit(small: FittedModel, big: FittedModel) -> int:
    """How many variances and dispersions of ``big`` are at their limit in ``small``.

    0 where it is not nested.
    """

    def columns(fit: FittedModel) -> list[tuple[str, str]]:
        return [(t.factor, name) for t in fit.design.terms for name in t.names]

    few, many = set(columns(small)), set(columns(big))
    if not few <= many or not set(small.design.x_names) <= set(big.design.x_names):
        return 0
    at_limit = _is_limit(small, big)
    if small.family_name != big.family_name and not at_limit:
        return 0
    return len(many) - len(few) + at_limit


def _shown(
    fits: list[FittedModel], order: list[int], table: pd.DataFrame, note: str
) -> Comparison:
    boundary = bool(np.isfinite(table["p_boundary"].to_numpy()).any())
    header = ["npar", "AIC", "BIC", "logLik", "-2*log(L)", "Chisq", "Df", "Pr(>Chisq)"]
    rows = []
    for label, row in table.iterrows():
        cells = [str(label), f"{row['npar']:.0f}"]
        cells += [numbers.fixed(row[c], 2) for c in CRITERIA]
        cells += _step(row, boundary)
        rows.append(tuple(cells))
    if boundary:
        header.append("boundary")
    title = f"Likelihood-ratio test ({note})" if note else "Likelihood-ratio test"
    families = {fit.family_name for fit in fits}
    models = [
        f"model{i + 1}: {fit.formula}" + (f" [{fit.family_name}]" * (len(families) > 1))
        for i, fit in zip(order, fits, strict=True)
    ]
    footer = (LIMIT if len(families) > 1 else BOUNDARY,) if boundary else ()
    blocks = [
        layout.Paragraph((title, *models)),
        layout.TextTable(
            "", ("", *header), tuple(rows), "<" + ">" * len(header), footer
        ),
    ]
    last = table.iloc[-1]
    out = Comparison(layout.as_text(blocks))
    out.html = layout.as_html(blocks)
    out.table = table
    out.statistic, out.df = float(last["statistic"]), int(last["df"])
    out.p_value, out.p_boundary = float(last["p_value"]), float(last["p_boundary"])
    return out


def _step(row: pd.Series, boundary: bool) -> list[str]:
    """Chisq, Df and the p-values of one line; empty for the smallest model."""
    if not np.isfinite(row["df"]):
        return [""] * (4 if boundary else 3)
    cells = [numbers.fixed(row["statistic"], 4), f"{row['df']:.0f}"]
    cells.append(numbers.p_value(row["p_value"]))
    if boundary:
        known = np.isfinite(row["p_boundary"])
        cells.append(numbers.p_value(row["p_boundary"]) if known else "")
    return cells
