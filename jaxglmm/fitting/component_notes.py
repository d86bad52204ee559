"""What there is to say of a model of zeros or of dispersion that cannot be told."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _errors
from jaxglmm.fitting.convergence import Note
from jaxglmm.formatting import numbers

FAR = 15.0  # logit of an added zero that is as good as infinite
NEVER, ALWAYS = 1e-4, 1 - 1e-4  # largest, and smallest, probability of an added zero


def notes(fit: Any) -> list[Note]:
    """Notes on the predictors beside the mean."""
    found = []
    if "zi" in fit.components:
        found.append(_zeros(fit))
    return [note for note in found if note is not None]


def _zeros(fit: Any) -> Note | None:
    """The probability of an added zero at an end of its range."""
    k = fit.components.index("zi")
    zeta = fit.linear_predictors[k][fit.design.counted]
    p = 1 / (1 + np.exp(-zeta))
    if not np.isfinite(p).all():
        return None
    zeros = int(np.sum(fit.design.y[fit.design.counted] == 0))
    if p.max() < NEVER:
        text = (
            f"Zero inflation is estimated as none: its probability is at most "
            f"{numbers.general(float(p.max()), 2)} in all rows, so that the family "
            f"{fit.family_name!r} explains the {zeros} zeros alone, and the zi "
            "coefficients and their standard errors mean nothing. Leave zi= out: the "
            "other estimates are the same."
        )
        return Note(_errors.ZeroInflationWarning, text)
    if p.min() > ALWAYS:
        text = (
            "Zero inflation is estimated as certain: its probability is at least "
            f"{numbers.general(float(p.min()), 6)} in all rows. Look at the response, "
            "which is next to all zeros."
        )
        return Note(_errors.ZeroInflationWarning, text)
    far = int(np.sum(np.abs(zeta) > FAR))
    if not far:
        return None
    text = (
        f"The probability of an added zero is at 0 or 1 in {far} of {len(zeta)} rows "
        f"(logits from {numbers.general(float(zeta.min()), 3)} to "
        f"{numbers.general(float(zeta.max()), 3)}): coefficients of zi run off to "
        "infinity, and their numbers say where the optimiser stopped. Leave terms out "
        "of zi=, or merge levels."
    )
    return Note(_errors.ZeroInflationWarning, text)
