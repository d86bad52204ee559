"""What ``python -m benchmarks --device`` measures, at full size and at a small one.

A line makes its data, then returns what is timed: a function without arguments whose
number (a mean log-likelihood, an estimate) must not hang on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg
from benchmarks import batches, data, posteriors

Run = Callable[[], float]
BINOMIAL = {"family": "binomial", "trials": "size"}
HERDS = "y ~ period + (1 | herd)"


@dataclass(frozen=True)
class Line:
    """One line of the table.

    make: size, device ("gpu", "cpu") -> what is timed, and bytes of its data; sizes: at
    full and small size; seconds: guess on a GPU and on its machine's CPU, None where
    the CPU would take too long; unit: what ``count`` of its size are a second; host: it
    runs on the host whatever the device is, and so once.
    """

    name: str
    title: str
    make: Callable[[int, str], tuple[Run, int]]
    sizes: tuple[int, int]
    seconds: tuple[float, float | None]
    unit: str = ""
    host: bool = False


# The lines ----------------------------------------------------------------------------


def transfer(size: int, device: str) -> tuple[Run, int]:
    """``size`` bytes to the device and back; what comes back must be what went."""
    import jax

    there = jax.local_devices(backend=device)[0]
    x = np.arange(size // 4, dtype=np.float32)

    def run() -> float:
        found = np.asarray(jax.block_until_ready(jax.device_put(x, there)) + 1)
        return float(found[0])

    return run, x.nbytes


def _many(
    formula: str, frame: pd.DataFrame, Y: np.ndarray, device: str, **options: Any
) -> tuple[Run, int]:
    """``fit_many`` of columns of Y."""

    def run() -> float:
        fits = jg.fit_many(
            formula, frame, responses=Y, devices=device, progress=False, **options
        )
        return float(np.nanmean(fits.log_likelihood))

    return run, Y.nbytes


def genes(D: int, device: str) -> tuple[Run, int]:
    """Linear models of one random intercept."""
    frame = batches.samples()
    Y = batches.genes(frame, D)
    return _many("y ~ dose + batch + (1 | donor)", frame, Y, device)


def slopes(D: int, device: str) -> tuple[Run, int]:
    """Linear models with a random slope."""
    frame = data.sleepstudy()
    Y = batches.sleepstudies(frame, D)
    return _many("y ~ Days + (Days | Subject)", frame, Y, device)


def herds(D: int, device: str) -> tuple[Run, int]:
    """Binomial models of 56 rows."""
    frame = data.cbpp()
    return _many(HERDS, frame, batches.herds(frame, D), device, **BINOMIAL)


def counted_genes(D: int, device: str) -> tuple[Run, int]:
    """Poisson models of the samples of ``genes``."""
    frame = batches.samples()
    eta = np.clip(batches.genes(frame, D), -4, 4)
    Y = np.random.default_rng(9).poisson(np.exp(0.5 * eta)).astype(float)
    formula = "y ~ dose + batch + (1 | donor)"
    return _many(formula, frame, Y, device, family="poisson")


def cells(D: int, device: str) -> tuple[Run, int]:
    """Negative binomial models of many rows each; a fiftieth of them at small size."""
    frame = batches.cells(n=6_000 if D > 100 else 600)
    Y = batches.counts(frame, D)
    options = {"family": "nbinom2", "offset": "logdepth"}
    return _many("y ~ treated + (1 | donor)", frame, Y, device, **options)


def bootstrap(D: int, device: str) -> tuple[Run, int]:
    """Refits of sleepstudy, drawn and fitted."""
    del device  # the default one
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data.sleepstudy())

    def run() -> float:
        draws = fit.bootstrap(D, seed=1, progress=False).frame()
        return float(draws["Days"].mean())

    return run, 8 * 180 * D


def million_counts(n: int, device: str) -> tuple[Run, int]:
    """One generalised model."""
    del device
    frame = data.million_counts(n, max(n // 20, 10))

    def run() -> float:
        fit = jg.glmm("y ~ x + (x | g)", frame, family="poisson")
        return fit.log_likelihood

    return run, int(frame.memory_usage().sum())


def million_rows(n: int, device: str) -> tuple[Run, int]:
    """One linear model."""
    del device
    frame = data.many_groups(n // 4, 4)

    def run() -> float:
        return jg.lmm("y ~ x1 + x2 + (x1 | g)", frame).log_likelihood

    return run, int(frame.memory_usage().sum())


def _crossed(n: int, users: int, items: int, **options: Any) -> tuple[Run, int]:
    frame = data.crossed(n, users, items)

    def run() -> float:
        fit = jg.lmm("y ~ x + (1 | u) + (1 | i)", frame, **options)
        return fit.log_likelihood

    return run, int(frame.memory_usage().sum())


def crossed(items: int, device: str) -> tuple[Run, int]:
    """The Schur complement of ``items`` columns, on the device."""
    del device
    return _crossed(100 * items, 2 * items, items, reml=False)


def crossed_exact(items: int, device: str) -> tuple[Run, int]:
    """Likewise, in place on the host."""
    del device
    return _crossed(100 * items, items, items, method=jg.ML(probes=0))


def crossed_probes(items: int, device: str) -> tuple[Run, int]:
    """Conjugate gradients and probes."""
    del device
    return _crossed(10 * items, items, items, method=jg.ML(probes=64))


def posteriors_of_many(D: int, device: str) -> tuple[Run, int]:
    """Nested Laplace of data sets from the prior."""
    frame = posteriors.cbpp()
    _, Y = posteriors.herds(frame, D)

    def run() -> float:
        fits = jg.fit_many(
            HERDS,
            frame,
            responses=Y,
            method=jg.NestedLaplace(draws=400),
            priors=jg.Priors(sd=jg.HalfNormal(1)),
            devices=device,
            progress=False,
            **BINOMIAL,
        )
        return float(fits.tidy()["estimate"].mean())

    return run, Y.nbytes


def chains(draws: int, device: str) -> tuple[Run, int]:
    """NUTS, sixteen chains side by side."""
    del device
    frame = posteriors.cbpp()
    formula = posteriors.CBPP["formula"]
    method = jg.NUTS(draws=draws, warmup=min(draws, 300), chains=16, seed=1)

    def run() -> float:
        fit = jg.glmm(formula, frame, family="binomial", method=method)
        return float(fit.coef[1])

    return run, int(frame.memory_usage().sum())


LINES = (
    Line("transfer", "256 MB there and back", transfer, (2**28, 2**16), (5, 5)),
    Line(
        "genes",
        "20,000 linear models of 200 rows",
        genes,
        (20_000, 64),
        (20, 20),
        "fits",
    ),
    Line(
        "slopes",
        "10,000 linear models, (Days | Subject)",
        slopes,
        (10_000, 64),
        (20, 20),
        "fits",
    ),
    Line(
        "herds",
        "10,000 binomial models of 56 rows",
        herds,
        (10_000, 64),
        (20, 20),
        "fits",
    ),
    Line(
        "counted-genes",
        "20,000 Poisson models of 200 rows",
        counted_genes,
        (20_000, 32),
        (30, 40),
        "fits",
    ),
    Line(
        "million-counts",
        "one Poisson model, 1,000,000 rows, (x | g)",
        million_counts,
        (1_000_000, 2_000),
        (40, 40),
    ),
    Line(
        "million-rows",
        "one linear model, 1,000,000 rows, (x1 | g)",
        million_rows,
        (1_000_000, 2_000),
        (20, 20),
    ),
    Line(
        "crossed",
        "750,000 rows, 15,000 x 7,500, exact on the device",
        crossed,
        (7_500, 60),
        (40, None),
    ),
    Line(
        "chains",
        "NUTS, 16 chains of 1,000 draws, cbpp",
        chains,
        (1_000, 10),
        (60, 30),
    ),
    Line(
        "posteriors",
        "1,000 posteriors by nested Laplace",
        posteriors_of_many,
        (1_000, 3),
        (60, 40),
        "fits",
    ),
    Line(
        "bootstrap",
        "10,000 bootstrap refits of sleepstudy",
        bootstrap,
        (10_000, 64),
        (20, 20),
        "fits",
    ),
    Line(
        "cells",
        "2,000 negative binomial models of 6,000 rows",
        cells,
        (2_000, 16),
        (40, None),
        "fits",
    ),
    Line(
        "crossed-exact",
        "2,000,000 rows, 20,000 x 20,000, exact",
        crossed_exact,
        (20_000, 80),
        (200, None),
        host=True,
    ),
    Line(
        "crossed-probes",
        "10,000,000 rows, 1,000,000 x 1,000,000, probes",
        crossed_probes,
        (1_000_000, 60),
        (400, None),
        host=True,
    ),
)
BY_NAME = {line.name: line for line in LINES}
