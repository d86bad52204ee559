"""Variance components: what the relative factors mean in the units of the response.

A term's covariance is Sigma = sigma^2 Lambda Lambda'. Three views of the same numbers:
by term (``VarCorr``), flat records (``VarianceComponent``), and names for every
standard deviation and correlation (``sd_(Intercept)|g``, ``cor_x.(Intercept)|g``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formatting import numbers
from jaxglmm.formatting import tables as layout
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.model.covariances import named, of
from jaxglmm.model.covariances import names as words


def covariances(estimates: Estimates) -> tuple[np.ndarray, ...]:
    """Sigma = sigma^2 Lambda Lambda', a (q, q) array a term."""
    return tuple(_square(estimates.sigma * lam) for lam in estimates.lam)


def _square(half: np.ndarray) -> np.ndarray:
    return half @ half.T


def sd_and_correlation(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(q,) standard deviations and (q, q) correlations; NaN beside a zero variance."""
    sd = np.sqrt(np.diagonal(cov))
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = np.clip(cov / np.outer(sd, sd), -1.0, 1.0)
    np.fill_diagonal(corr, 1.0)
    return sd, corr


@dataclass(frozen=True)
class TermCovariance:
    """One term's covariance with its names.

    factor: grouping factor; sd: (q,) Series; corr and cov: (q, q) frames
    structure: name of its covariance, as in a formula
    parameters: what a structure has in their place, ``{"sd": 1.2, "cor": 0.5}``;
        empty where all standard deviations and correlations are parameters
    """

    factor: str
    sd: pd.Series
    corr: pd.DataFrame
    cov: pd.DataFrame
    structure: str = "us"
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def correlated(self) -> bool:
        """Whether correlations are not zero by assumption."""
        return len(self.sd) > 1 and bool(named(self.structure, len(self.sd)).pairs)

    def __repr__(self) -> str:
        return repr(VarCorr({self.factor: self}, None))


class VarCorr(dict):
    """Term label -> ``TermCovariance``, with the residual sd in ``sigma``.

    sigma is None in a generalised model, which has no residual on this scale.
    """

    def __init__(self, terms: dict[str, TermCovariance], sigma: float | None):
        super().__init__(terms)
        self.sigma = sigma

    def table(self) -> layout.TextTable:
        return layout.random_effects(self, self.sigma)

    def __repr__(self) -> str:
        return layout.as_text([self.table()])

    def _repr_html_(self) -> str:
        return layout.as_html([self.table()])

    def __reduce__(self):
        return VarCorr, (dict(self), self.sigma)


def varcorr(design: Design, estimates: Estimates, residual: bool = True) -> VarCorr:
    """The covariance of every term, by label."""
    terms = {
        term.label: _named(term, cov)
        for term, cov in zip(design.terms, covariances(estimates), strict=True)
    }
    return VarCorr(terms, float(estimates.sigma) if residual else None)


def _named(term: RandomTerm, cov: np.ndarray) -> TermCovariance:
    names = list(term.names)
    if term.known is not None:  # of a level whose own known variance is one
        cov, names = cov[:1, :1], list(term.levels)
    sd, corr = sd_and_correlation(cov)
    return TermCovariance(
        factor=term.factor,
        sd=pd.Series(sd, index=names, name="sd"),
        corr=pd.DataFrame(corr, index=names, columns=names),
        cov=pd.DataFrame(cov, index=names, columns=names),
        structure=term.covariance,
        parameters=_own(term, cov),
    )


def _own(term: RandomTerm, cov: np.ndarray) -> dict[str, float]:
    """What a structure has in place of all sds and correlations."""
    own = of(term)
    if not own.has_own or term.known is not None:
        return {}
    sds, others = own.parameters(term.names)
    sd, value = own.natural(cov)
    keys = ["sd"] if len(sds) == 1 else [f"sd_{name}" for (name,) in sds]
    keys += [".".join((kind, *w[1:])) for kind, w in others]
    return dict(zip(keys, map(float, (*sd, *value)), strict=True))


@dataclass(frozen=True)
class VarianceComponent:
    """One variance: its group and column, and the correlation with the first column.

    corr is None for a term's first column and the residual, and zero where the columns
    of a term are independent by assumption.
    """

    group: str
    name: str
    variance: float
    std_dev: float
    corr: float | None = None

    def __str__(self) -> str:
        text = f"{self.group} {self.name}: variance {numbers.general(self.variance)}"
        return text if self.corr is None else f"{text}, corr {self.corr:.2f}"


def flat(
    design: Design, estimates: Estimates, residual: bool = True
) -> tuple[VarianceComponent, ...]:
    """All variances in order, the residual last (where there is one)."""
    rows = []
    for term, cov in zip(design.terms, covariances(estimates), strict=True):
        sd, corr = sd_and_correlation(cov)
        own = of(term)
        shown = term.names if term.known is None else term.levels
        for k, name in enumerate(shown):
            with_first = float(corr[k, 0]) if own.pairs else 0.0
            with_first = None if k == 0 else with_first
            variance = float(cov[k, k])
            rows.append(
                VarianceComponent(term.label, name, variance, float(sd[k]), with_first)
            )
    sigma = float(estimates.sigma)
    if residual:
        rows.append(VarianceComponent("Residual", "", sigma**2, sigma))
    return tuple(rows)


@dataclass(frozen=True)
class VarianceParameter:
    """One sd or correlation: ``kind`` ("sd" or "cor"), its term's label and columns.

    Of a structure the names are its word, and the kind may be "range" or "nu". A
    dispersion parameter has the kind "dispersion" and its own name.
    """

    kind: str
    group: str
    names: tuple[str, ...]
    value: float

    @property
    def label(self) -> str:
        """Its one name, in every table: ``sd_Days|Subject``, ``sigma``, ``phi``."""
        if self.kind == "dispersion":
            return self.names[0]
        if self.group == "Residual":
            return "sigma"
        return words.parameter(self.kind, self.names, self.group)


def parameters(
    design: Design, estimates: Estimates, residual: bool = True
) -> tuple[VarianceParameter, ...]:
    """Standard deviations and correlations, term by term, the residual sd last.

    Within a term the standard deviations come first, then the correlations column by
    column of the lower triangle, (later column, earlier column).
    """
    out = []
    for term, cov in zip(design.terms, covariances(estimates), strict=True):
        own = of(term)
        sds, others = own.parameters(term.names)
        sd, value = own.natural(cov)
        words = [("sd", name) for name in sds] + others
        out += [
            VarianceParameter(kind, term.label, name, float(x))
            for (kind, name), x in zip(words, (*sd, *value), strict=True)
        ]
    if residual:
        sigma = float(estimates.sigma)
        out.append(VarianceParameter("sd", "Residual", ("Observation",), sigma))
    return tuple(out)
