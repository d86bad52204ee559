"""Data sets that live in a Parquet table, through Dask, Ray and Spark.

``python -m benchmarks.fleet --sets 100000 --json FILE`` writes the table once (under
the user's cache, or ``--folder``) and fits ``y ~ x + (1 | g)`` to each data set: in
threads of one process, from memory and from the table, and by each engine that is
installed, two workers each, from the table (``dask``) and from a frame of the engine's
own (``dask-frame``). ``--mixed`` spreads every data set over all files. A cluster that
runs is what users have, so its start stands apart, and so does the first call, in which
workers import and compile; ``seconds`` is the best of the two calls after that. Engines
do it once more with a worker killed on the way. ``ratio`` is to threads that read the
table. Lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

FORMULA = "y ~ x + (1 | g)"
LEVELS, EACH, PART = 8, 5, 10_000
ENGINES = ("memory", "threads", "dask", "ray", "spark")
FRAMES = ("dask-frame", "ray-frame", "spark-frame")
SIGNS = {"dask": "multiprocessing", "ray": "ray::", "spark": "pyspark.daemon"}


def written(sets: int, given: str | None, mixed: bool = False) -> Path:
    """The table, the rows of ten thousand data sets a file."""
    import pandas as pd

    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    folder = Path(given or Path(cache) / "jaxglmm-benchmarks") / f"sets{sets}"
    if mixed:
        apart, folder = written(sets, given), folder.with_name(f"mixed{sets}")
        if not folder.exists():
            folder.mkdir()
            rows = pd.read_parquet(apart).sample(frac=1, random_state=1)
            size = LEVELS * EACH * PART
            for k, start in enumerate(range(0, len(rows), size)):
                own = rows.iloc[start : start + size]
                own.to_parquet(folder / f"part{k:04d}.parquet", index=False)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for k, start in enumerate(range(0, sets, PART)):
        path = folder / f"part{k:04d}.parquet"
        if path.exists():
            continue
        n = min(PART, sets - start)
        rng = np.random.default_rng([1, k])
        own = np.repeat(np.arange(n), LEVELS * EACH)
        g = np.tile(np.repeat(np.arange(LEVELS), EACH), n)
        x = rng.normal(size=len(g))
        y = 1 + x + rng.normal(size=(n, LEVELS))[own, g] + rng.normal(size=len(g))
        rows = pd.DataFrame({"id": start + own, "g": g, "x": x, "y": y})
        rows.sample(frac=1, random_state=k).to_parquet(path, index=False)
    return folder


def dask_frame(folder: Path):
    import dask.dataframe
    from distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    return dask.dataframe.read_parquet(folder), client


def ray_frame(folder: Path):
    import ray
    import ray.data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data.read_parquet(str(folder)), None


def spark_frame(folder: Path):
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = (
        SparkSession.builder.master("local[2,3]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "3g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "16")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    return session.read.parquet(str(folder)), None


def executor_of(engine: str, client):
    """The door to a cluster that runs."""
    import jaxglmm as jg

    if engine == "dask":
        return jg.executors.dask(client)
    return jg.executors.ray(num_cpus=1) if engine == "ray" else jg.executors.spark()


def kill_one(engine: str, after: float) -> threading.Timer:
    """A worker's end, some seconds from now."""
    import psutil

    def kill() -> None:
        found = []
        for child in psutil.Process().children(recursive=True):
            try:
                line = " ".join(child.cmdline())
                # the parent of Spark's workers is called as they are
                inner = engine != "spark" or "daemon" in " ".join(
                    child.parent().cmdline()
                )
                if SIGNS[engine] in line and inner and "IDLE" not in line:
                    found.append(child)
            except psutil.Error:
                continue
        busy = sorted(found, key=lambda p: -p.memory_info().rss)
        if busy:
            os.kill(busy[0].pid, signal.SIGKILL)
            killed.append(busy[0].pid)

    killed: list[int] = []
    timer = threading.Timer(after, kill)
    timer.killed = killed  # type: ignore[attr-defined]
    timer.start()
    return timer


def run(name: str, folder: Path, out: Path) -> dict:
    """In this process: three times and once more, and the answer to ``out``."""
    import pandas as pd

    import jaxglmm as jg

    jg.enable_compilation_cache()
    warnings.simplefilter("ignore")
    engine, _, framed = name.partition("-")
    started = time.perf_counter()
    data, client, pool = folder, None, None
    if engine == "memory":
        data = pd.read_parquet(folder)
    elif engine in SIGNS:
        frame, client = globals()[f"{engine}_frame"](folder)
        data = frame if framed else folder
        pool = None if framed else executor_of(engine, client)
    found: dict = {"engine": name, "start": round(time.perf_counter() - started, 2)}

    def fit():
        started = time.perf_counter()
        fits = jg.fit_many(FORMULA, data, by="id", progress=False, executor=pool)
        return fits, time.perf_counter() - started

    fits, first = fit()
    seconds = min(fit()[1] for _ in range(2))
    found |= {"first": round(first, 2), "seconds": round(seconds, 2)}
    if engine in SIGNS:
        timer = kill_one(engine, seconds / 2)
        fits, after = fit()
        timer.join()
        found["with a worker killed"] = round(after, 2)
        found["killed"] = len(timer.killed)  # type: ignore[attr-defined]
    np.savez(out, coefficients=fits.coefficients, sd=fits.sd, labels=fits.labels)
    found |= {"fits": len(fits), "converged": int(fits.converged.sum())}
    if client is not None:
        client.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES + FRAMES)
    parser.set_defaults(engines=ENGINES + FRAMES)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = written(args.sets, args.folder, args.mixed)
    if args.alone:
        engine, out = args.alone
        print(json.dumps(run(engine, folder, Path(out))))
        return
    lines, answers = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for engine in args.engines:
            out = Path(scratch) / f"{engine}.npz"
            command = [sys.executable, "-m", "benchmarks.fleet"]
            command += ["--sets", str(args.sets), "--alone", engine, str(out)]
            command += ["--folder", args.folder] if args.folder else []
            command += ["--mixed"] if args.mixed else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                line = {"engine": engine, "error": done.stderr[-800:]}
            else:
                line = json.loads(done.stdout.splitlines()[-1])
                answers[engine] = dict(np.load(out))
                line |= against(answers)
                threads = [x["seconds"] for x in lines if x["engine"] == "threads"]
                if threads:
                    line["ratio"] = round(line["seconds"] / threads[0], 2)
            lines.append(line)
            print(json.dumps(line), flush=True)
    if args.json:
        facts = {"formula": FORMULA, "sets": args.sets, "rows": LEVELS * EACH}
        facts["files"] = "every data set in all" if args.mixed else "data sets whole"
        facts["processors"] = os.cpu_count()
        args.json.write_text(json.dumps(facts | {"lines": lines}, indent=1) + "\n")


def against(answers: dict) -> dict:
    """The last answer compared with the first."""
    one, *_, two = [*answers.values()] * 2
    if not np.array_equal(one["labels"], two["labels"]):
        return {"difference": "other data sets"}
    apart = [np.abs(one[k] - two[k]).max() for k in ("coefficients", "sd")]
    return {"difference": float(max(apart))}


if __name__ == "__main__":
    main()
