"""Profiles of ordinal models: thresholds are coefficients, one after the other.

A threshold is held as a coefficient of the same model, in which the others are spacings
from it (``FittedOrdinal.about``); all other parameters are those of such a model, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxglmm.postestimation.profile.curves import Curve

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal


def curves(
    fit: FittedOrdinal, of: Callable[[FittedGeneralised], list[Curve]]
) -> list[Curve]:
    """Random effects, thresholds where they are flexible, fixed effects.

    of: the curves of a model without thresholds.
    """
    family = fit.cumulative
    middle = (family.L - 1) // 2
    first = of(fit.about(middle if family.located else None))
    spacing = set(family.about(None).phi_names)
    fixed = set(fit.design.x_names)
    names = family.threshold_names
    random = [c for c in first if c.name not in {*spacing, *fixed, *names}]
    found = []
    if family.thresholds == "flexible":
        for j, name in enumerate(names):
            own = first if j == middle else of(fit.about(j))
            found += [c for c in own if c.name == name]
    return [*random, *found, *(c for c in first if c.name in fixed)]
