"""One linear mixed model of Parquet files that are larger than memory should hold.

``python -m benchmarks.streaming --rows 100000000 --groups 1000000`` writes the rows
once (under the user's cache, or ``--folder``), fits ``y ~ x1 + x2 + (x1 | g)`` by
maximum likelihood in a process of its own, and prints seconds by stage and the peak of
its memory as a line of JSON. ``--duckdb`` fits the same through a DuckDB relation;
``--check`` compares the fit of the first tenth of the files with that of the same rows
in memory.
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

import numpy as np

FORMULA = "y ~ x1 + x2 + (x1 | g)"
PART = 1_000_000
BETA, SIGMA = (1.0, 0.5, -0.25), 1.5
LAMBDA = np.array([[0.8, 0.0], [0.2, 0.4]])


def folder_of(rows: int, groups: int, given: str | None) -> Path:
    """Where the files lie."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    base = Path(given or Path(cache) / "jaxglmm-benchmarks")
    return base / f"rows{rows}_groups{groups}"


def written(rows: int, groups: int, folder: Path) -> Path:
    """The files, a million rows each; groups at random among the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    b = np.random.default_rng(1).normal(size=(groups, 2)) @ LAMBDA.T
    for k, start in enumerate(range(0, rows, PART)):
        path = folder / f"part{k:05d}.parquet"
        if path.exists():
            continue
        n = min(PART, rows - start)
        rng = np.random.default_rng([2, k])
        g = rng.integers(0, groups, n).astype(np.int32)
        x1, x2 = rng.normal(3.0, 2.0, n), rng.normal(size=n)
        y = BETA[0] + BETA[1] * x1 + BETA[2] * x2 + b[g, 0] + b[g, 1] * x1
        y += SIGMA * rng.normal(size=n)
        columns = {"y": y, "x1": x1, "x2": x2}
        table = {name: x.astype(np.float32) for name, x in columns.items()}
        part = path.with_suffix(".part")
        pq.write_table(pa.table(table | {"g": g}), part)
        part.rename(path)
    return folder


def source_of(folder: Path, duckdb: bool, parts: int | None):
    """The files as the fit is given them."""
    paths = sorted(folder.glob("*.parquet"))[:parts]
    if not duckdb:
        return paths
    import duckdb as engine

    return engine.read_parquet([str(p) for p in paths])


def fit(folder: Path, duckdb: bool = False, parts: int | None = None) -> dict:
    """Fit in this process."""
    import jaxglmm as jg

    started = time.perf_counter()
    found = jg.lmm(FORMULA, source_of(folder, duckdb, parts), reml=False)
    seconds = time.perf_counter() - started
    return {
        "rows": found.nobs,
        "groups": found.ngroups["g"],
        "through": found.plan.method,
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


def compared(folder: Path, parts: int) -> dict:
    """The first files, in batches and in memory."""
    import pyarrow.dataset as ds

    import jaxglmm as jg

    paths = sorted(folder.glob("*.parquet"))[:parts]
    streamed = jg.lmm(FORMULA, paths, reml=False)
    inside = jg.lmm(FORMULA, ds.dataset(paths).to_table(), reml=False)
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
    read.add_argument("--check", action="store_true")
    read.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = read.parse_args()
    folder = folder_of(given.rows, given.groups, given.folder)
    if given.inside:
        parts = max(1, -(-given.rows // PART) // 10)
        found = compared(folder, parts) if given.check else fit(folder, given.duckdb)
        print(json.dumps(found))
        return
    written(given.rows, given.groups, folder)
    command = [sys.executable, "-m", "benchmarks.streaming", "--inside", *sys.argv[1:]]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
