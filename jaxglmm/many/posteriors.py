"""Many posteriors of one model's shape: what ``fit_many`` finds by Bayesian methods.

Data sets of the same shape share one compiled program, and those of one design its rows
as well; each is fitted by itself, one after the other and not in lanes, whatever its
family and its linear predictors, so that a data set that fails leaves the others what
they are. Equal seeds give equal draws.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import (
    ConvergenceWarning,
    DataError,
    JaxGLMMError,
    JaxGLMMWarning,
    NotApplicableError,
)
from jaxglmm._pandas import pd
from jaxglmm.estimate.methods import NUTS, BayesMethod
from jaxglmm.fitting.kinds import posterior_kind
from jaxglmm.fitting.ordinal import settled
from jaxglmm.formula import notices
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.distributions import Priors
from jaxglmm.posterior.fit import check_response, fit_posterior
from jaxglmm.posterior.fitted_posterior import FittedPosterior

if TYPE_CHECKING:
    from jaxglmm.many.collection import ModelSource

P = TypeVar("P", bound=FittedPosterior)

MOST = 50_000_000  # draws x parameters x data sets that are kept
A_ROW = (  # fields with one row a data set
    "mean",
    "sd",
    "lower",
    "upper",
    "draws",
    "khat",
    "ess",
    "log_evidence",
    "status",
    "converged",
    "labels",
)
TAILS = (0.025, 0.975)


@dataclass(frozen=True, repr=False, eq=False)
class FittedPosteriors:
    """Posteriors of D data sets, as a record; ``Posteriors`` says its fields."""

    names: tuple[str, ...]
    coefficient_names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    draws: np.ndarray | None
    khat: np.ndarray
    ess: np.ndarray
    log_evidence: np.ndarray
    status: np.ndarray
    converged: np.ndarray
    errors: dict[int, str] = field(default_factory=dict)
    labels: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., FittedPosterior] | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def one(self, which: Any, make: Callable[..., P] = FittedPosterior) -> P:
        """The whole fit of one data set, by position or label.

        Raises:
            NotApplicableError: the data are not at hand, as after ``load``.
        """
        if self.labels is not None and not isinstance(which, int | np.integer):
            found = np.flatnonzero(self.labels == which)
            if not len(found):
                raise KeyError(f"no data set {which!r}: see .labels")
            which = int(found[0])
        if not isinstance(which, int | np.integer):
            raise KeyError(f"{which!r} is neither a position nor a label")
        if not -len(self) <= which < len(self):
            raise IndexError(f"there are {len(self)} fits, no number {which}")
        if self.make is None:
            raise NotApplicableError(
                "the data of these posteriors are not at hand (they came from a file): "
                "fit the data set with lmm or glmm"
            )
        return self.make(int(which) % len(self), make)

    def part(self, rows: np.ndarray) -> Self:
        """Some of the data sets."""
        whole = {name: getattr(self, name) for name in A_ROW}
        place = {int(row): i for i, row in enumerate(rows)}
        errors = {place[i]: text for i, text in self.errors.items() if i in place}
        make = None if self.make is None else _Some(self.make, rows)
        parts = {name: x if x is None else x[rows] for name, x in whole.items()}
        return replace(self, **parts, errors=errors, make=make)

    @property
    def status_names(self) -> np.ndarray:
        """(D,) what became of each data set, in words such as "converged"."""
        return np.array(_status.names(self.status), object)

    @property
    def coefficients(self) -> np.ndarray:
        """(D, p) posterior means of the coefficients."""
        return self.mean[:, : len(self.coefficient_names)]

    @property
    def se(self) -> np.ndarray:
        """(D, p) posterior standard deviations of the coefficients."""
        return self.sd[:, : len(self.coefficient_names)]

    def frame(self) -> pd.DataFrame:
        """Posterior means, one row a data set, one column a parameter."""
        index = None if self.labels is None else pd.Index(self.labels, name="dataset")
        return pd.DataFrame(self.mean, index, list(self.names))


def fit_posteriors(
    source: ModelSource,
    family: AbstractFamily,
    method: BayesMethod,
    priors: Priors | None,
    labels: np.ndarray | None,
    D: int,
    bar: Any,
) -> FittedPosteriors:
    """One data set after the other through the same programs.

    Raises:
        NotApplicableError: NUTS, whose chains need looking at one by one.
    """
    if isinstance(method, NUTS):
        raise NotApplicableError(
            "fit_many(method=NUTS()): chains want to be looked at one model at a time. "
            "Use NestedLaplace(), and jg.glmm(..., method='nuts') where its k-hat is "
            "above 0.7"
        )
    began = time.perf_counter()
    maker = _Maker(source, family, method, priors)
    rows: list[_Row | None] = []
    errors: dict[int, str] = {}
    kept = 0
    for i in range(D):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", JaxGLMMWarning)
                row = _row(maker(i))
            kept += row.draws.size
            if kept > MOST:
                row = replace(row, draws=row.draws[:0])
            rows.append(row)
        except JaxGLMMError as error:
            errors[i] = str(error)
            rows.append(None)
        bar.update(1)
    facts = {
        "method": type(method).__name__,
        "kind": posterior_kind(family.name),
        "seconds": time.perf_counter() - began,
    }
    return _joined(rows, errors, labels, facts, maker, kept <= MOST)


@dataclass(frozen=True)
class _Some:
    """Fits of some of the data sets."""

    make: Callable[..., FittedPosterior]
    rows: np.ndarray

    def __call__(self, i: int, make: Callable[..., P]) -> P:
        return self.make(int(self.rows[i]), make)


class _Maker:
    """The fit of one data set; rows that are built serve all that share a design."""

    def __init__(
        self,
        source: ModelSource,
        family: AbstractFamily,
        method: BayesMethod,
        priors: Priors | None,
    ):
        self.source, self.family = source, family
        self.method, self.priors = method, priors
        self.data: Any = None

    def __repr__(self) -> str:
        return f"<Maker of posteriors by {type(self.method).__name__}>"

    def __call__(self, i: int, make: Callable[..., P] = FittedPosterior) -> P:
        design = self.source.design_of(i)
        if not np.isfinite(design.y).all():
            raise DataError(f"data set {i}: the response has infinite values")
        design, family = settled(design, self.family)
        check_response(design, family, self.priors)
        whole = self.source.responses is not None and design.n == self.source.design.n
        fit = fit_posterior(
            design,
            family,
            self.method,
            self.priors,
            data=self.data if whole else None,
            make=make,
        )
        if whole and self.data is None:
            self.data = fit.density.data
        return fit


@dataclass(frozen=True)
class _Row:
    """What is kept of a fit."""

    names: tuple[str, ...]
    coefficients: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    draws: np.ndarray
    khat: float
    ess: float
    log_evidence: float
    status: int


def _row(fit: FittedPosterior) -> _Row:
    p = fit.posterior
    table = p.summary()
    draws = np.stack(list(p.parameters.values()), axis=1)
    evidence = p.elbo if p.log_evidence is None else p.log_evidence

    def number(value: float | None) -> float:
        return np.nan if value is None else float(value)

    return _Row(
        names=tuple(table.index),
        coefficients=tuple(fit.design.x_names),
        mean=table["mean"].to_numpy(),
        sd=table["sd"].to_numpy(),
        lower=table["lower"].to_numpy(),
        upper=table["upper"].to_numpy(),
        draws=draws,
        khat=number(p.khat),
        ess=number(p.ess),
        log_evidence=number(evidence),
        status=int(fit.estimates.status),
    )


def _joined(
    rows: list[_Row | None],
    errors: dict[int, str],
    labels: np.ndarray | None,
    facts: dict[str, Any],
    maker: _Maker,
    keep: bool,
) -> FittedPosteriors:
    there = [row for row in rows if row is not None]
    if not there:
        first = next(iter(errors.values()), "there are none")
        raise DataError(f"no data set could be fitted; the first: {first}")
    whole = max(there, key=lambda row: len(row.names))
    # a data set without one of the categories has a threshold of its own
    every = dict.fromkeys((*whole.names, *(n for row in there for n in row.names)))
    place = {name: k for k, name in enumerate(every)}

    def column(name: str) -> np.ndarray:
        """(D, ...) by the names of all, those of the fullest data set first."""
        shape = getattr(whole, name).shape[:-1]
        out = np.full((len(rows), *shape, len(every)), np.nan)
        for i, row in enumerate(rows):
            if row is not None:
                at = [place[n] for n in row.names]
                out[i, ..., at] = np.moveaxis(getattr(row, name), -1, 0)
        return out

    def number(name: str) -> np.ndarray:
        return np.array([np.nan if r is None else getattr(r, name) for r in rows])

    status = np.array([_status.BAD_VALUES if r is None else r.status for r in rows])
    found = {f.name: column(f.name) for f in fields(_Row) if f.name in _ARRAYS}
    out = FittedPosteriors(
        tuple(every),
        whole.coefficients,
        **found,
        draws=column("draws") if keep else None,
        khat=number("khat"),
        ess=number("ess"),
        log_evidence=number("log_evidence"),
        status=status,
        converged=status == _status.CONVERGED,
        errors=errors,
        labels=labels,
        facts=facts,
        make=maker,
    )
    if not out.converged.all():
        bad = int((~out.converged).sum())
        notices.warn(
            f"{bad:,} of {len(out):,} posteriors did not converge or could not be "
            "found. See .status and .errors",
            ConvergenceWarning,
        )
    return out


_ARRAYS = ("mean", "sd", "lower", "upper")
