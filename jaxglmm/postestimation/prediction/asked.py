"""What is asked of ``predict``, the same for all kinds of fits, and how it is answered.

Here is what does not depend on the kind: words are checked, new data read, levels that
were not in the data warned of, and the answer cut to the columns that were asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.fitting.model_frame import readable
from jaxglmm.formula.design import NewRows
from jaxglmm.formula.recipe import numbers
from jaxglmm.formula.tables import as_table
from jaxglmm.postestimation.prediction import partial as _partial
from jaxglmm.postestimation.prediction import predict as _predict


@dataclass(frozen=True)
class Asked:
    """The arguments of ``predict`` by their names there."""

    newdata: Any
    re: str
    type: str
    se: bool
    interval: str | None
    level: float
    new_levels: str
    offset: Any = None
    trials: Any = None
    part: str | None = None  # the random terms, where some of them are asked for

    def read(
        self, types: tuple[str, ...] = ("response", "link"), partial: bool = False
    ) -> Self:
        """The same, checked, new data as a table.

        Args:
            types: words for ``type``.
            partial: whether some of the random effects can be asked for.

        Raises:
            NotApplicableError: an offset for the rows of the fit.
            ValueError: a word that is not among the choices.
        """
        _predict.check(
            re=self.re, se=self.se, interval=self.interval, new_levels=self.new_levels
        )
        _arguments.level(self.level)
        _arguments.choice("type", self.type, types)
        _predict.check_offset(self.newdata, self.offset)
        out = replace(self, newdata=readable(self.newdata))
        if not _predict.is_partial(self.re):
            return out
        if not partial:
            raise NotApplicableError(
                f"re={self.re!r}: predictions with some of the random effects are for "
                "linear and generalised models of one predictor; here there are "
                "'conditional', 'population' and 'marginal'"
            )
        return replace(out, re="conditional", part=self.re)

    @property
    def errors(self) -> bool:
        """Whether more than the value is asked for."""
        return self.se or self.interval is not None

    def design(self, fit: Any) -> NewRows:
        """Of the rows that a prediction is of."""
        if self.re == "marginal":
            return _predict.rows_at_random(fit, self.newdata, self.offset)
        if self.part is not None:
            own = self.part, self.new_levels, self.offset
            return _partial.rows(fit, self.newdata, *own)
        random = self.re == "conditional"
        return _predict.rows(fit, self.newdata, self.new_levels, self.offset, random)

    def rows(self, fit: Any) -> NewRows:
        """The design, NaN where the data cannot tell the mean."""
        return _predict.answerable(fit, self.design(fit))

    def warn(self, new: NewRows) -> None:
        """Of levels that were not in the data, whose effects are predicted as zero."""
        if self.re == "conditional":
            _predict.warn_of_new_levels(new, self.newdata)

    def numbers_of_trials(self, n: int) -> np.ndarray | None:
        """(n,) from a number, a column's name or an array; None where none were given.

        Raises:
            DataError: for a wrong length, or what is no whole number from 0 on.
        """
        newdata, trials = self.newdata, self.trials
        if trials is None:
            return None
        if isinstance(trials, str):
            if newdata is None:
                raise DataError(
                    f"trials={trials!r} names a column, which needs newdata; give an "
                    "array of the numbers of trials"
                )
            trials = as_table(newdata).column(trials)
        elif _arguments.is_number(trials) or getattr(trials, "ndim", None) == 0:
            trials = np.full(n, trials)
        labels = newdata.index if isinstance(newdata, pd.DataFrame) else None
        m = numbers("trials", trials, n, labels)
        bad = np.flatnonzero((m < 0) | (m != np.floor(m)) | np.isinf(m))
        bad = bad[~np.isnan(m[bad])]
        if len(bad):
            raise DataError(
                f"trials must be whole numbers from 0 on; row {bad[0]} has "
                f"{m[bad[0]]:g}"
            )
        return m

    def answer(self, table: dict[str, np.ndarray], index: Any) -> Any:
        """(n,) values, or a frame with ``fit`` and what else was asked for."""
        if not self.errors:
            return table["fit"]
        names = ["fit"] + ["se"] * bool(self.se)
        names += ["lower", "upper"] * (self.interval is not None)
        return pd.DataFrame({name: table[name] for name in names}, index=index)
