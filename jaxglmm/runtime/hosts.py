"""Several processes that work together (``jax.distributed``): who fits what.

Each process fits its share of the data sets on its own devices; the rows are exchanged
once, at the end. With one process all of this is nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglmm.runtime.precision import double_precision


def share(which: np.ndarray) -> np.ndarray:
    """The part of ``which`` that this process fits."""
    count = jax.process_count()
    if count == 1:
        return which
    return np.array_split(which, count)[jax.process_index()]


def own_path(path: Any) -> Any:
    """A file of this process alone."""
    return path if jax.process_count() == 1 else f"{path}.{jax.process_index()}"


@double_precision
def gather(table: np.ndarray, mine: np.ndarray) -> None:
    """Fill the rows of ``table`` that other processes have; ``mine`` (D,) are ours."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    tables, owned = multihost_utils.process_allgather((table, mine))
    for rows, own in zip(np.asarray(tables), np.asarray(owned), strict=True):
        table[own] = rows[own]
