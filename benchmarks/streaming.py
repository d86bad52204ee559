"""One mixed model of Parquet files that are larger than memory should hold.

``python -m benchmarks.streaming --rows 100000000 --groups 1000000`` writes the rows
once (under the user's cache, or ``--folder``), fits ``y ~ x1 + x2 + (x1 | g)`` by
maximum likelihood in a process of its own, and prints seconds by stage and the peak of
its memory as a line of JSON. ``--duckdb`` fits the same through a DuckDB relation;
``--check`` compares the fit of the first tenth of the files with that of the same rows
in memory. ``--bernoulli`` has a response of 0 and 1, ``y ~ x1 + (1 + x1 | g)``, by
Laplace's approximation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FORMULA = "y ~ x1 + x2 + (x1 | g)"
PART = 1_000_000
BETA, SIGMA = (1.0, 0.5, -0.25), 1.5
LAMBDA = np.array([[0.8, 0.0], [0.2, 0.4]])
BERNOULLI = "y ~ x1 + (1 + x1 | g)"
BETA_BERNOULLI = (-0.5, 0.4)
LAMBDA_BERNOULLI = np.array([[0.8, 0.0], [0.1, 0.3]])


def folder_of(
    rows: int, groups: int, given: str | None, bernoulli: bool = False
) -> Path:
    """Where the files lie."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    base = Path(given or Path(cache) / "jaxglmm-benchmarks")
    return base / f"{'bernoulli_' * bernoulli}rows{rows}_groups{groups}"


def gaussian(rng: np.random.Generator, b: np.ndarray, g: np.ndarray) -> dict:
    """Columns of the linear model."""
    x1, x2 = rng.normal(3.0, 2.0, len(g)), rng.normal(size=len(g))
    y = BETA[0] + BETA[1] * x1 + BETA[2] * x2 + b[g, 0] + b[g, 1] * x1
    y += SIGMA * rng.normal(size=len(g))
    return {
        "y": y.astype(np.float32),
        "x1": x1.astype(np.float32),
        "x2": x2.astype(np.float32),
    }


def events(rng: np.random.Generator, b: np.ndarray, g: np.ndarray) -> dict:
    """Columns of the model of 0 and 1."""
    x1 = rng.normal(size=len(g))
    eta = BETA_BERNOULLI[0] + b[g, 0] + (BETA_BERNOULLI[1] + b[g, 1]) * x1
    y = rng.uniform(size=len(g)) < 1 / (1 + np.exp(-eta))
    return {"y": y.astype(np.int8), "x1": x1.astype(np.float32)}


def written(rows: int, groups: int, folder: Path, bernoulli: bool = False) -> Path:
    """The files, a million rows each; groups at random among the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    root = LAMBDA_BERNOULLI if bernoulli else LAMBDA
    b = np.random.default_rng(1).normal(size=(groups, 2)) @ root.T
    for k, start in enumerate(range(0, rows, PART)):
        path = folder / f"part{k:05d}.parquet"
        if path.exists():
            continue
        n = min(PART, rows - start)
        rng = np.random.default_rng([2, k])
        g = rng.integers(0, groups, n).astype(np.int32)
        columns = (events if bernoulli else gaussian)(rng, b, g)
        part = path.with_suffix(".part")
        pq.write_table(pa.table(columns | {"g": g}), part)
        part.rename(path)
    return folder


def source_of(folder: Path, duckdb: bool, parts: int | None):
    """The files as the fit is given them."""
    paths = sorted(folder.glob("*.parquet"))[:parts]
    if not duckdb:
        return paths
    import duckdb as engine

    return engine.read_parquet([str(p) for p in paths])


def model(data: Any, bernoulli: bool) -> Any:
    """The fit of a source or a table."""
    import jaxglmm as jg

    if bernoulli:
        return jg.glmm(BERNOULLI, data)
    return jg.lmm(FORMULA, data, reml=False)


def fit(folder: Path, duckdb: bool = False, bernoulli: bool = False) -> dict:
    """Fit in this process."""
    started = time.perf_counter()
    found = model(source_of(folder, duckdb, None), bernoulli)
    seconds = time.perf_counter() - started
    return {
        "rows": found.nobs,
        "groups": found.ngroups["g"],
        "through": found.plan.method,
        "passes": found.plan.passes,
        "seconds": round(seconds, 2),
        "stages": {k: round(v, 2) for k, v in found.timing.items()},
        "peak_GiB": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
        "criterion": found.criterion,
        "beta": found.coef.tolist(),
        "sd": found.varcorr["g"].sd.tolist(),
        "sigma": found.sigma,
        "converged": found.converged,
    }


def compared(folder: Path, parts: int, bernoulli: bool) -> dict:
    """The first files, in batches and in memory."""
    import pyarrow.dataset as ds

    paths = sorted(folder.glob("*.parquet"))[:parts]
    streamed = model(paths, bernoulli)
    inside = model(ds.dataset(paths).to_table(), bernoulli)
    own = [np.concatenate([f.coef, f.theta, [f.sigma]]) for f in (streamed, inside)]
    return {
        "rows": streamed.nobs,
        "largest relative difference": float(np.max(np.abs(own[0] / own[1] - 1))),
        "criterion": streamed.criterion - inside.criterion,
    }


def main() -> None:
    """The command."""
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--rows", type=int, default=10_000_000)
    read.add_argument("--groups", type=int, default=1_000_000)
    read.add_argument("--folder")
    read.add_argument("--duckdb", action="store_true")
    read.add_argument("--bernoulli", action="store_true")
    read.add_argument("--check", action="store_true")
    read.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = read.parse_args()
    is_events = given.bernoulli
    folder = folder_of(given.rows, given.groups, given.folder, is_events)
    if given.inside:
        parts = max(1, -(-given.rows // PART) // 10)
        if given.check:
            print(json.dumps(compared(folder, parts, is_events)))
        else:
            print(json.dumps(fit(folder, given.duckdb, is_events)))
        return
    written(given.rows, given.groups, folder, is_events)
    command = [sys.executable, "-m", "benchmarks.streaming", "--inside", *sys.argv[1:]]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
