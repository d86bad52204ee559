"""Chunks of data sets through an engine, side by side, into one table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxglmm import _status
from jaxglmm.results.fits import Fits

THREADS = 2


def run(engine, Y: np.ndarray) -> Fits:
    """Fit the columns of Y (n, D)."""
    D = Y.shape[1]
    L = min(engine.lanes, max(8, 2 ** int(np.ceil(np.log2(D)))))
    table = np.empty((D, engine.columns.width))

    def work(start: int) -> None:
        stop = min(start + L, D)
        block = Y[:, start:stop]
        if stop - start < L:
            block = np.concatenate(
                [block, np.repeat(block[:, -1:], L - (stop - start), axis=1)], axis=1
            )
        table[start:stop] = engine.fit(np.ascontiguousarray(block))[: stop - start]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(0, D, L)))
    return from_table(table, engine.columns)


def from_table(table: np.ndarray, columns) -> Fits:
    """Views of the table by name."""
    parts = {name: table[:, where] for name, where in columns.slices().items()}
    status = parts["status"][:, 0].astype(int)
    return Fits(
        coefficients=parts["coefficients"],
        coefficient_names=columns.coefficients,
        sd=parts["sd"],
        sd_names=columns.sd,
        sigma=parts["sigma"][:, 0],
        theta=parts["theta"],
        log_likelihood=parts["log_likelihood"][:, 0],
        status=status,
        converged=status == _status.CONVERGED,
        singular=parts["singular"][:, 0] == 1,
        se=parts["se"],
        df=parts["df"],
        p_values=parts["p_values"],
        df_sigma=parts["df_sigma"][:, 0],
        steps=parts["steps"][:, 0],
    )
