"""Missing values: once, over all variables of the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import DataError, MissingRowsWarning
from jaxglmm.formula.notices import warn
from jaxglmm.formula.tables import Column


def complete_rows(
    columns: Mapping[str, Column], n: int, missing: str, quiet: bool = False
) -> np.ndarray | None:
    """Positions of the rows in which nothing is missing; None where that is all.

    Args:
        columns: every variable of the model, weights and offset included.
        n: rows of the data.
        missing: ``"drop"`` (with one warning) or ``"raise"``.
        quiet: without the warning.
    """
    if not _arguments.is_among(missing, ("drop", "raise")):
        what = _arguments.shown(missing)
        raise DataError(f"missing must be 'drop' or 'raise', not {what}")
    if n == 0:
        raise DataError("the data have no rows", status=_status.TOO_FEW)
    counts: dict[str, int] = {}
    lost = None
    for name, column in columns.items():
        mask = column.missing
        if mask is not None:
            counts[name] = int(mask.sum())
            lost = mask if lost is None else lost | mask
    if lost is None:
        return None
    kept = np.flatnonzero(~lost)
    where = ", ".join(f"{name} ({count})" for name, count in counts.items())
    if missing == "raise":
        raise DataError(
            f"{n - len(kept)} of {n} rows have missing values: {where}. Fill them, or "
            "use missing='drop'"
        )
    if len(kept) == 0:
        raise DataError(
            f"no row is complete; missing values: {where}", status=_status.TOO_FEW
        )
    if quiet:
        return kept
    warn(
        f"{n - len(kept)} of {n} rows were dropped because of missing values: {where}",
        MissingRowsWarning,
    )
    return kept
