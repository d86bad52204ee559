"""The faces of fits whose data were read in batches."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import large_crossed
from jaxglmm.formula.absent import WHERE
from jaxglmm.results.fit import Fit
from jaxglmm.results.generalised_fit import GeneralisedFit
from jaxglmm.streaming.generalised import StreamedGeneralisedModel
from jaxglmm.streaming.linear import StreamedModel
from jaxglmm.streaming.plan import PassPlan
from jaxglmm.streaming.sources import is_source


class OfBatches(Fit):
    """What fits of data that were not in memory have in common.

    All that needs the model alone is answered as by other fits: summary, tests,
    intervals, random effects, means of a table of new rows. What needs the rows is
    written to a file (``predict(source, to=)``, ``ranef_to``), or refused.
    """

    _streamed: Any

    @property
    def plan(self) -> PassPlan:
        """What was read, and what was said of it before."""
        return self._streamed.plan

    @property
    def root(self) -> np.ndarray | None:
        """(p, p) with the inner products of X."""
        return self._streamed.design.root

    def like(self, *args: Any, **options: Any) -> Self:
        """Another fit of the same sums."""
        return super().like(*args, **options).with_model(self._streamed)

    def with_model(self, model: Any) -> Self:
        """This fit, with what the passes found."""
        self._streamed = model
        return self

    def predict(self, newdata=None, re="conditional", *args, **options):
        """Predicted means of new rows, in memory or written to a file.

        Args:
            newdata: a table, or a source of batches (files, a lazy frame, ...).
            re: as for ``Fit.predict``, as are all others but these two.
            args: type, se, interval, level, new_levels, offset, as for ``Fit.predict``.
            options: the same by name; ``to``, the Parquet file that the means of a
                source are written to, with residuals where the response is there; and
                ``keep``, the columns that go with them (default: those of the model).

        Returns:
            As ``Fit.predict`` does; the number of rows written with ``to``.

        Raises:
            NotApplicableError: neither a table nor ``to``.
        """
        to, keep = options.pop("to", None), options.pop("keep", None)
        if newdata is None:
            raise NotApplicableError(
                "predict() of data that were read in batches needs the source again: "
                "fit.predict(source, to='out.parquet')"
            )
        if to is None and is_source(newdata):
            raise NotApplicableError(
                "the means of data in batches are written to a file: fit.predict("
                "source, to='out.parquet')"
            )
        if to is None:
            return super().predict(newdata, re, *args, **options)
        from jaxglmm.streaming.writing import write_predictions

        known = super().predict
        return write_predictions(
            self, newdata, to, lambda table: known(table, re, *args, **options), keep
        )

    def save(self, path) -> None:
        """Refused: a file of ``Fit.save`` holds the rows; ``pickle`` keeps the sums."""
        raise NotApplicableError(
            "a fit of data that were read in batches has no rows to save with it: keep "
            "it by pickle.dump(fit, file), its numbers by fit.tidy('all') and "
            "fit.ranef_to(path)"
        )

    def ranef_to(self, to, se: bool = False) -> int:
        """Write the random effects to a Parquet file, a row a level.

        Args:
            to: path of the file: factor, level, a column a random effect.
            se: also conditional standard deviations, ``se_(Intercept)``.

        Returns:
            How many levels were written.
        """
        from jaxglmm.streaming.writing import write_ranef

        return write_ranef(self, to, se)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_streamed": self._streamed}


class StreamedFit(OfBatches):
    """A linear mixed model of data that were not in memory; see ``Fit``.

    Example:
        >>> import jaxglmm as jg, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "sleep.parquet"
        >>> jg.datasets.load("sleepstudy").to_parquet(path)
        >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", path)
        >>> round(fit.criterion, 4), fit.plan.passes
        (1743.6283, 2)
    """

    _streamed: StreamedModel

    def _rebuilt(self) -> Any:
        from jaxglmm.estimate.maximise import Maximise

        return large_crossed.of_moments(self._streamed.moments, Maximise(self.reml))


class StreamedGeneralisedFit(OfBatches, GeneralisedFit):
    """A generalised mixed model of data that were not in memory; see ``Fit``.

    Standard errors are those of the exact Hessian at the maximum, as of a table in
    memory. Conditional standard deviations of the random effects, profiles and
    bootstraps need the rows and are refused.

    Example:
        >>> import jaxglmm as jg, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "cbpp.parquet"
        >>> jg.datasets.load("cbpp").to_parquet(path)
        >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> fit = jg.glmm(formula, path)
        >>> round(fit.criterion, 4), round(fit.varcorr["herd"].sd.iloc[0], 4)
        (184.0526, 0.6423)
    """

    _streamed: StreamedGeneralisedModel

    def _rebuilt(self) -> Any:
        return self._streamed.engine

    @property
    def certificate(self) -> Any:
        """Refused: what Laplace's method leaves out is computed from the rows."""
        raise NotApplicableError(WHERE)
