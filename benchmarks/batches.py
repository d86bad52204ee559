"""Many models at once: data sets made from fixed seeds, and who fits them how.

A peer that takes one model after the other fits the first ``PEERS`` of them, and its
time is scaled to all. The log-likelihood of a line is the mean over those.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

PEERS = 100
MILLION = 1_000_000

Run = Callable[[], "float | None"]


# Data ---------------------------------------------------------------------------------


def sleepstudies(frame: pd.DataFrame, D: int = 10_000) -> np.ndarray:
    """(180, D) reaction times drawn from the model of sleepstudy."""
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", frame)
    return np.ascontiguousarray(fit.simulate(D, seed=1).T)


def million_sleepstudies(frame: pd.DataFrame) -> np.ndarray:
    """The same, a million of them, in a file."""
    folder = tempfile.mkdtemp()
    path = Path(folder) / "responses.npy"
    out = np.lib.format.open_memmap(path, "w+", np.float64, (len(frame), MILLION))
    some = sleepstudies(frame)
    for start in range(0, MILLION, some.shape[1]):
        out[:, start : start + some.shape[1]] = some
    return out


def herds(frame: pd.DataFrame, D: int = 10_000) -> np.ndarray:
    """(56, D) counts drawn from the model of cbpp."""
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = jg.glmm(formula, frame)
    return np.ascontiguousarray(fit.simulate(D, seed=1).T)


def samples(donors: int = 40, each: int = 5) -> pd.DataFrame:
    """200 samples of 40 donors, a dose, and four batches."""
    rng = np.random.default_rng(4)
    n = donors * each
    return pd.DataFrame(
        {
            "donor": np.repeat([f"d{k}" for k in range(donors)], each),
            "dose": rng.uniform(0, 2, n).round(2),
            "batch": rng.choice(list("abcd"), n),
        }
    )


def genes(frame: pd.DataFrame, D: int = 20_000) -> np.ndarray:
    """(200, D) expression, one gene in ten with an effect of the dose."""
    rng = np.random.default_rng(5)
    codes = pd.factorize(frame["donor"])[0]
    Y = rng.normal(size=(len(frame), D))
    Y += rng.normal(size=(codes.max() + 1, D))[codes] * rng.gamma(2, 0.3, D)
    effect = np.where(rng.uniform(size=D) < 0.1, rng.normal(size=D), 0.0)
    return Y + frame["dose"].to_numpy()[:, None] * effect


def cells(donors: int = 30, n: int = 6_000) -> pd.DataFrame:
    """6,000 cells of 30 donors, half of them treated, with library sizes."""
    rng = np.random.default_rng(6)
    donor = np.sort(rng.choice(donors, n, p=rng.dirichlet(np.full(donors, 8.0))))
    depth = rng.lognormal(0, 0.4, n)
    return pd.DataFrame(
        {
            "donor": donor.astype(str),
            "treated": (donor % 2).astype(float),
            "logdepth": np.log(depth),
        }
    )


def counts(frame: pd.DataFrame, D: int = 2_000) -> np.ndarray:
    """(6000, D) counts, overdispersed, most of them small."""
    rng = np.random.default_rng(7)
    codes = pd.factorize(frame["donor"])[0]
    level, size = rng.normal(-0.5, 1.0, D), rng.lognormal(0.5, 0.7, D)
    effect = np.where(rng.uniform(size=D) < 0.1, rng.normal(size=D), 0.0)
    eta = level + frame["treated"].to_numpy()[:, None] * effect
    eta = eta + 0.4 * rng.normal(size=(codes.max() + 1, D))[codes]
    mu = np.exp(eta + frame["logdepth"].to_numpy()[:, None])
    return rng.poisson(mu * rng.gamma(size, 1 / size, size=mu.shape)).astype(np.uint16)


def experiments(D: int = 10_000) -> pd.DataFrame:
    """10,000 experiments of 5 to 30 subjects, 4 to 20 rows each, in one table."""
    rng = np.random.default_rng(8)
    subjects = rng.integers(5, 31, D)
    J = int(subjects.sum())
    rows = rng.integers(4, 21, J)
    level = np.repeat(np.arange(J), rows)
    day = np.arange(len(level)) - np.repeat(np.cumsum(rows) - rows, rows)
    b = rng.normal(size=(J, 2)) * [25.0, 6.0]
    y = 250 + 10 * day + b[level, 0] + b[level, 1] * day
    first = np.repeat(np.cumsum(subjects) - subjects, subjects)
    return pd.DataFrame(
        {
            "experiment": np.repeat(np.repeat(np.arange(D), subjects), rows),
            "subject": (np.arange(J) - first)[level],
            "day": day.astype(float),
            "y": y + 25.0 * rng.normal(size=len(level)),
        }
    )


RESPONSES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "batch": sleepstudies,
    "batch-compiled": sleepstudies,
    "batch-million": million_sleepstudies,
    "batch-cbpp": herds,
    "batch-cbpp-c": herds,
    "batch-genes": genes,
    "batch-cells": counts,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "batch-cbpp": {"family": "binomial", "trials": "size"},
    "batch-cbpp-c": {"family": "binomial", "trials": "size"},
    "batch-cells": {"family": "nbinom2", "offset": "logdepth"},
}


def _options(problem: Any, frame: pd.DataFrame) -> dict[str, Any]:
    """What ``fit_many`` is told beside formula and data."""
    if problem.name.startswith("batch-ragged"):
        return {"by": "experiment"}
    given = OPTIONS.get(problem.name, {})
    return {"responses": RESPONSES[problem.name](frame), **given}


# jaxglmm ------------------------------------------------------------------------------


def jaxglmm_many(problem: Any, frame: pd.DataFrame) -> Run:
    """The whole call."""
    options = _options(problem, frame)
    if problem.name == "batch-million":
        options["file"] = Path(tempfile.mkdtemp()) / "fits"

    def run() -> float:
        if "file" in options:  # else the second run would find all done
            options["file"].unlink(missing_ok=True)
        fits = jg.fit_many(problem.formula, frame, **options)
        return float(np.nanmean(fits.log_likelihood[:PEERS]))

    return run


def jaxglmm_compiled(problem: Any, frame: pd.DataFrame) -> Run:
    """The compiled programs of the call alone, their arguments at hand."""
    import jax

    from jaxglmm.many import plan as fits_engines
    from jaxglmm.runtime.devices import Devices

    calls = []

    class Recorder(Devices):
        def run(
            self, program: Any, shared: Any, lanes: Any, chunk: int, apart: bool = False
        ) -> Any:
            given = lanes if apart else jax.device_put(lanes)
            calls.append((program, shared, given, chunk, apart))
            # not by super(): a call that goes chunk by chunk calls itself, and its
            # parts are no calls of their own
            return Devices(self.devices).run(program, shared, lanes, chunk, apart)

    chosen: list[Devices] = []
    plain = fits_engines.choose

    def choose(wanted: Any, cells: float) -> Devices:
        chosen.append(Recorder(plain(wanted, cells).devices))
        return chosen[0]

    fits_engines.choose = choose
    fits = jg.fit_many(problem.formula, frame, **_options(problem, frame))
    fits_engines.choose = plain
    found = float(np.nanmean(fits.log_likelihood[:PEERS]))
    devices = Devices(chosen[0].devices)

    def one(call: tuple) -> None:
        with jax.enable_x64(True):
            jax.block_until_ready(devices.run(*call))

    def run() -> float:
        with ThreadPoolExecutor(devices.threads) as pool:
            list(pool.map(one, calls))
        return found

    return run


# Peers --------------------------------------------------------------------------------


class Scaled:
    """Some of the fits, one after the other; ``scale`` times as many are asked for."""

    def __init__(self, one: Callable[[int], float], fits: int):
        self.one, self.scale = one, fits / PEERS

    def __call__(self) -> float:
        return float(np.mean([self.one(k) for k in range(PEERS)]))


def glmm_many(problem: Any, frame: pd.DataFrame) -> Run:
    """The Rust package, a call for every data set."""
    import glmm

    if problem.name == "batch-ragged":
        few = frame[frame["experiment"] < PEERS]
        parts = [part for _, part in few.groupby("experiment")]
        return Scaled(
            lambda k: glmm.fit(parts[k], problem.formula, satterthwaite=False).loglik,
            problem.fits,
        )
    Y = np.asarray(RESPONSES[problem.name](frame)[:, :PEERS], float)
    columns = {c: frame[c] for c in frame}
    if problem.family == "binomial":
        sizes = frame["size"].to_numpy(float)

        def one(k: int) -> float:
            new = pd.DataFrame({**columns, "y": Y[:, k] / sizes})
            return glmm.fit(
                new, problem.formula, family="binomial", weights=sizes
            ).loglik

        return Scaled(one, problem.fits)
    return Scaled(
        lambda k: (
            glmm.fit(
                pd.DataFrame({**columns, problem.response: Y[:, k]}),
                problem.formula,
                satterthwaite=problem.name == "batch-genes",
            ).loglik
        ),
        problem.fits,
    )
