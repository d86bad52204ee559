"""Posteriors: many posteriors of one model's shape, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import listed
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formula.matrix import as_numbers
from jaxglmm.many.posteriors import FittedPosteriors
from jaxglmm.postestimation.collection import posteriors as _tables
from jaxglmm.results import faces
from jaxglmm.results.posteriors_plotting import PosteriorsPlots

if TYPE_CHECKING:
    from jaxglmm.postestimation.report.summary import Summary
    from jaxglmm.results.posterior_fit import PosteriorFit

GOOD = 0.7  # Pareto k-hat


@dataclass(frozen=True, repr=False, eq=False)
class Posteriors(FittedPosteriors):
    """Posteriors of D data sets.

    names: k parameters, coefficients first, then ``sd_Days|Subject``, correlations,
        dispersion; coefficient_names: the first p of them
    mean, sd, lower, upper: (D, k) posterior means, standard deviations and central 95
        per cent intervals, NaN where a data set failed
    draws: (D, S, k), or None where they would be more than fifty million numbers
    khat, ess: (D,) Pareto k-hat and effective sample size, NaN where there are none
    log_evidence: (D,) log marginal likelihood, for ``VB`` its lower bound
    status: (D,) codes, in words ``status_names``; converged: (D,) bool; errors:
        position -> what was wrong
    labels: (D,) names of the data sets, or None
    """

    @classmethod
    def showing(cls, found: FittedPosteriors) -> Self:
        """The face of a record."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(found)})

    def __iter__(self) -> Iterator[PosteriorFit]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, which: Any) -> Any:
        """``posteriors[i]`` or ``[label]``: the whole fit; a slice or mask: some.

        Raises:
            NotApplicableError: the data are not at hand, as after ``load``.
        """
        if isinstance(which, slice | np.ndarray | list | pd.Series):
            rows = np.asarray(which) if not isinstance(which, slice) else which
            return self.part(np.arange(len(self))[rows])
        return self.one(which, faces.face(self.facts.get("kind", "posterior")))

    def tidy(self, conf_int: bool = False) -> pd.DataFrame:
        """One row a data set and parameter: posterior mean, sd, interval.

        Args:
            conf_int: also conf_low and conf_high, central 95 per cent.

        Returns:
            dataset, effect, term, estimate, std_error, status in words.
        """
        conf_int = _arguments.flag("conf_int", conf_int)
        D, k = self.mean.shape
        labels = np.arange(D) if self.labels is None else self.labels
        p = len(self.coefficient_names)
        table = {
            "dataset": np.repeat(labels, k),
            "effect": np.tile(["fixed"] * p + ["ran_pars"] * (k - p), D),
            "term": np.tile(np.array(self.names), D),
            "estimate": self.mean.ravel(),
            "std_error": self.sd.ravel(),
        }
        if conf_int:
            table |= {"conf_low": self.lower.ravel(), "conf_high": self.upper.ravel()}
        table["status"] = np.repeat(self.status_names, k)
        return pd.DataFrame(table)

    def top(self, term: str, n: int = 10) -> pd.DataFrame:
        """The ``n`` data sets that are surest of the sign of one parameter.

        Args:
            term: name of a parameter.
            n: how many.

        Returns:
            estimate (posterior mean), std_error, conf_low, conf_high, p_direction, the
            posterior probability of the likelier sign.
        """
        return _tables.top(self, term, n)

    def summary(self) -> Summary:
        """How many converged, posterior means over data sets, signs of coefficients."""
        return _tables.summarise(self)

    @property
    def plot(self) -> PosteriorsPlots:
        """Figures: ``plot.intervals(term)``."""
        return PosteriorsPlots(self)

    def to_arviz(self) -> Any:
        """The draws for ArviZ, with a ``model`` dimension.

        Returns:
            ``arviz.InferenceData`` or ``xarray.DataTree``, see ``export.posteriors``.
        """
        from jaxglmm.export.posteriors import to_arviz

        return to_arviz(self)

    def save(self, path: Any, draws: bool = True) -> None:
        """Write to a file that ``jaxglmm.load`` reads; no pickle in it.

        Args:
            path: the file.
            draws: with the draws.
        """
        from jaxglmm.many.storage import save_posteriors

        save_posteriors(self, path, draws)

    @staticmethod
    def load(path: Any) -> Posteriors:
        """Read what ``save`` wrote; single fits are not in a file."""
        from jaxglmm.many.storage import load_posteriors

        return load_posteriors(path, Posteriors)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def ranks(self, truth: np.ndarray) -> np.ndarray:
        """(D, k) shares of draws below the truth; uniform where all is well.

        Simulation-based calibration (Talts, Betancourt, Simpson, Vehtari and Gelman
        2018): parameters drawn from the prior, data from them, and the rank of each
        among the draws of its posterior.

        Args:
            truth: (D, k) parameters that the data sets were drawn with.

        Raises:
            DataError: of another shape; NotApplicableError: draws were not kept.
        """
        if self.draws is None:
            raise NotApplicableError(
                "draws are not kept: there are too many of them. Ask for fewer, such "
                "as NestedLaplace(draws=500)"
            )
        truth = as_numbers("truth", truth, "give the parameters as numbers, (D, k)")
        if truth.shape != self.mean.shape:
            raise DataError(
                f"truth has the shape {truth.shape}; there are {self.mean.shape} data "
                f"sets and parameters ({', '.join(self.names)})"
            )
        out = (self.draws < truth[:, None]).mean(axis=1)
        out[np.isnan(self.mean)] = np.nan
        return out

    def __repr__(self) -> str:
        good = f"{self.converged.sum():,} of {len(self):,} converged"
        bits = [good, str(self.facts.get("method", ""))]
        known = self.khat[np.isfinite(self.khat)]
        if len(known):
            bits.append(f"k-hat above {GOOD} in {(known > GOOD).sum():,}")
        return f"<Posteriors {'; '.join(bits)} | {listed(self.names)}>"
