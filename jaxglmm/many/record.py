"""Many fitted models of one shape, as arrays with the data sets first.

The record below ``Fits``: what ``fit_many`` and a parametric bootstrap find. A data set
that failed has its status and NaN, and the others are untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import NotApplicableError
from jaxglmm._hints import Hinted
from jaxglmm._pandas import pd
from jaxglmm.fitting.kinds import Kinds
from jaxglmm.fitting.kinds import record as records
from jaxglmm.many import correlations as _correlations
from jaxglmm.many.columns import KeptColumns
from jaxglmm.model.families import _thresholds

A_ROW = (  # fields with one row a data set
    "coefficients",
    "sd",
    "sigma",
    "theta",
    "log_likelihood",
    "status",
    "converged",
    "singular",
    "se",
    "df",
    "p_values",
    "dispersion",
    "dispersion_se",
    "separated",
    "df_sigma",
    "steps",
    "labels",
    "positions",
)


@dataclass(frozen=True, repr=False, eq=False)
class FittedModels(Hinted):
    """Estimates of D data sets, as a record; ``results.fits.Fits`` says its fields."""

    coefficients: np.ndarray
    coefficient_names: tuple[str, ...]
    sd: np.ndarray
    sd_names: tuple[str, ...]
    sigma: np.ndarray
    theta: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    original: Mapping[str, float] = field(default_factory=dict)
    se: np.ndarray | None = None
    df: np.ndarray | None = None
    p_values: np.ndarray | None = None
    dispersion: np.ndarray | None = None
    dispersion_names: tuple[str, ...] = ()
    dispersion_se: np.ndarray | None = None
    separated: np.ndarray | None = None
    df_sigma: np.ndarray | None = None
    steps: np.ndarray | None = None
    labels: np.ndarray | None = None
    positions: np.ndarray | None = None
    source: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    terms: _correlations.Terms = ()

    @classmethod
    def from_table(
        cls,
        table: np.ndarray,
        columns: KeptColumns,
        labels: np.ndarray | None = None,
        **more,
    ) -> Self:
        """Views of a table (D, columns) by name."""
        part = {name: table[:, where] for name, where in columns.slices().items()}
        status = part["status"][:, 0].astype(int)
        return cls(
            coefficients=part["coefficients"],
            coefficient_names=columns.coefficients,
            sd=part["sd"],
            sd_names=columns.sd,
            sigma=part["sigma"][:, 0],
            theta=part["theta"],
            log_likelihood=part["log_likelihood"][:, 0],
            status=status,
            converged=status == _status.CONVERGED,
            singular=part["singular"][:, 0] == 1,
            se=part["se"],
            df=part["df"],
            p_values=part["p_values"],
            dispersion=part["dispersion"] if columns.dispersion else None,
            dispersion_names=columns.dispersion,
            dispersion_se=part["dispersion_se"] if columns.errors else None,
            separated=part["separated"][:, 0] == 1,
            df_sigma=part["df_sigma"][:, 0],
            steps=part["steps"][:, 0],
            labels=labels,
            terms=columns.terms,
            **more,
        )

    # One, or some of them ------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.sigma)

    def one(self, which: Any, kinds: Kinds = records) -> Any:
        """The fit of one data set, by position or label.

        Raises:
            NotApplicableError: the data are not at hand.
        """
        i = self.place(which)
        if self.source is None:
            raise NotApplicableError(
                "the data of these fits are not at hand (they were drawn, or came from "
                "a file saved without data): fit the data set with lmm or glmm, or "
                "save with data=True"
            )
        own = i if self.positions is None else int(self.positions[i])
        return self.source.fit(own, kinds)

    def place(self, which: Any) -> int:
        """The position of a data set, given by position or label."""
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"there are {len(self)} fits, no number {which}")
            return int(which) % len(self)
        if self.labels is not None:
            found = np.flatnonzero(self.labels == which)
            if len(found) > 1:
                raise KeyError(
                    f"{len(found)} data sets are called {which!r}, at the positions "
                    f"{', '.join(map(str, found[:5]))}: use one of these"
                )
            if len(found):
                return int(found[0])
        raise KeyError(f"no data set {which!r}: see .labels")

    def part(self, rows: np.ndarray) -> Self:
        """Some of the data sets."""
        changes = {
            name: getattr(self, name)[rows]
            for name in A_ROW
            if getattr(self, name) is not None
        }
        if self.positions is None:
            changes["positions"] = rows
        return replace(self, **changes)

    # Names ---------------------------------------------------------------------------

    @property
    def status_names(self) -> np.ndarray:
        """(D,) what became of each data set, in words such as "converged"."""
        return np.array(_status.names(self.status), object)

    @property
    def names(self) -> list[str]:
        """Names of everything that has an interval."""
        sigma = (
            []
            if self.dispersion is not None or np.isnan(self.sigma).all()
            else ["sigma"]
        )
        effects = [*self.sd_names, *self.correlation_names]
        return [*self.coefficient_names, *effects, *self.dispersion_names, *sigma]

    @property
    def thresholds(self) -> pd.DataFrame:
        """Thresholds of ordinal models, one row a data set, one column ``1|2``.

        A category that a data set does not have has no probability: between others its
        two thresholds are one number, beyond all others they are infinite.

        Raises:
            NotApplicableError: not ordinal models.
        """
        levels = self.facts.get("levels")
        if levels is None or self.dispersion is None:
            raise NotApplicableError(
                "thresholds belong to ordinal models, one number each; with nominal= "
                "or dispersion= they are coefficients: ask fits[i].thresholds"
            )
        structure = self.facts["thresholds"]
        found = _thresholds.of_reported(structure, len(levels) - 1, self.dispersion)
        index = None if self.labels is None else pd.Index(self.labels, name="dataset")
        return pd.DataFrame(found, index, list(_thresholds.names(levels)))

    @property
    def correlation_names(self) -> tuple[str, ...]:
        """Names of the correlations, ``cor_Days.(Intercept)|Subject``."""
        return _correlations.names(self.terms)

    @property
    def correlations(self) -> np.ndarray:
        """(D, c) correlations of random effects; NaN beside a variance of zero."""
        return _correlations.values(self.terms, self.theta)

    def frame(self) -> pd.DataFrame:
        """One row a data set, one column a parameter."""
        parts = [self.coefficients, self.sd, self.correlations]
        if self.dispersion is not None:
            parts.append(self.dispersion)
        elif "sigma" in self.names:
            parts.append(self.sigma[:, None])
        index = None if self.labels is None else pd.Index(self.labels, name="dataset")
        return pd.DataFrame(np.concatenate(parts, axis=1), index, self.names)


assert set(A_ROW) <= {f.name for f in fields(FittedModels)}
