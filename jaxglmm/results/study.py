"""A study that is planned: a model with assumed parameters, its rows, its power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jaxglmm.postestimation.power import assumed as _assumed
from jaxglmm.postestimation.power import curve as _curve
from jaxglmm.postestimation.power import extend as _extend
from jaxglmm.postestimation.power import simulation as _simulation


class DrawnPowerCurve(_curve.PowerCurve):
    """Power at several sizes; see ``jg.power_curve``.

    along: what varies; sizes: (k,); powers: a ``Power`` each
    """

    def plot(self, **options: Any):
        """The curve with its exact limits.

        Args:
            **options: ``level`` of the limits, ``wanted`` (0.8) that is marked, ``ax``.

        Returns:
            Axes.
        """
        from jaxglmm.plots import power_curve

        return power_curve(self, **options)


@dataclass(frozen=True, repr=False)
class Study:
    """A model with its rows and assumed parameters, of which data can be drawn.

    What ``fit.extend(...)`` and ``jg.design(...)`` give. ``model`` holds design and
    parameters; it was not fitted to these rows.

    Example:
        >>> import jaxglmm as jg
        >>> data = jg.datasets.load("sleepstudy")
        >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
        >>> fit.extend("Subject", 40)
        <Study of Reaction ~ Days + (Days | Subject): 400 rows, 40 Subject>
    """

    model: Any

    @classmethod
    def of(cls, given: Any) -> Study:
        """A fit, or a study as it is.

        Raises:
            NotApplicableError: a posterior, or what is no model.
        """
        if isinstance(given, Study):
            return given
        if not getattr(given, "has_likelihood", False):
            from jaxglmm._errors import NotApplicableError

            raise NotApplicableError(
                "power is simulated from fits by maximum likelihood or REML, or from "
                "jg.design(...) with assumed parameters"
            )
        return cls(given)

    def assume(self, values: Mapping[str, float]) -> Study:
        """The same with some parameters at other values, by name."""
        return Study(_assumed.with_values(self.model, values))

    def extend(
        self,
        along: str | None = None,
        n: int | None = None,
        *,
        within: str | None = None,
        data: Any = None,
    ) -> Study:
        """More rows or fewer; see ``Fit.extend``."""
        from jaxglmm._errors import NotApplicableError

        given = [x for x in (along, within, data) if x is not None]
        if len(given) != 1 or (data is None) == (n is None):
            raise NotApplicableError(
                "extend() takes along= or within= (a grouping factor) with n=, or data="
            )
        design = self.model.design
        if along is not None:
            design = _extend.along_factor(design, along, n)
        elif within is not None:
            design = _extend.within_levels(design, within, n)
        else:
            design = _extend.to_rows(design, data)
        return Study(_assumed.for_rows(self.model, design))

    def simulate(self, n: int = 1, seed: Any = None) -> np.ndarray:
        """(n, rows) responses, random effects anew in each."""
        return self.model.drawn(n, seed, None)

    def power(self, test: str, n_simulations: int = 1000, **options: Any):
        """Of a test, by simulation; see ``Fit.power``."""
        values = options.pop("assume", None)
        model = _assumed.with_values(self.model, values)
        return _simulation.power(model, test, n_simulations=n_simulations, **options)

    def power_curve(
        self,
        test: str,
        along: str | None = None,
        sizes: Sequence[float] | None = None,
        **options: Any,
    ) -> DrawnPowerCurve:
        """Power at several sizes; see ``jg.power_curve``."""
        values = options.pop("assume", None)
        model = _assumed.with_values(self.model, values)
        found = _curve.power_curve(model, test, along, sizes, **options)
        return DrawnPowerCurve(
            **{f.name: getattr(found, f.name) for f in fields(found)}
        )

    def __repr__(self) -> str:
        design = self.model.design
        groups = [f"{t.n_levels} {t.factor}" for t in design.terms]
        rows = ", ".join([f"{design.n} rows", *dict.fromkeys(groups)])
        return f"<Study of {self.model.formula}: {rows}>"
