"""The face of a fit whose data were read in batches."""

from __future__ import annotations

from typing import Any

from jaxglmm.fitting import linear as engines
from jaxglmm.results.fit import Fit
from jaxglmm.streaming.linear import StreamedModel
from jaxglmm.streaming.plan import Plan


class StreamedFit(Fit):
    """A linear mixed model of data that were not in memory; see ``Fit``.

    All that needs the model alone is answered as by other fits: summary, tests,
    intervals, random effects, means of a table of new rows. What needs the rows is
    written to a file (``predict(source, to=)``, ``ranef_to``), or refused.

    Example:
        >>> import jaxglmm as jg, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "sleep.parquet"
        >>> jg.datasets.load("sleepstudy").to_parquet(path)
        >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", path)
        >>> round(fit.criterion, 4), fit.plan.passes
        (1743.6283, 2)
    """

    _streamed: StreamedModel

    @property
    def plan(self) -> Plan:
        """What was read, and what was said of it before."""
        return self._streamed.plan

    def with_model(self, model: StreamedModel) -> StreamedFit:
        """This fit, with what the passes found."""
        self._streamed = model
        return self

    def _rebuilt(self) -> Any:
        from jaxglmm.estimate.maximise import Maximise

        return engines.of_moments(self._streamed.moments, Maximise(self.reml))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_streamed": self._streamed}
