"""One problem by one engine: ``python -m benchmarks.worker crossed glmm 2``.

Prints one line of JSON: times of the calls (the first one compiles), log-likelihood,
memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import components, engines
from benchmarks.measure import peak_rss, repeat, timed
from benchmarks.problems import BY_NAME, Problem

# fresh processes read bytecode, as those of an installed package do
NOT_FRESH = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")

FRESH = """
import jaxglmm as jg
data = jg.datasets.load("sleepstudy")
fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
fit.summary()
print(fit.log_likelihood)
"""
FRESH_GLMM = """
import jaxglmm as jg
data = jg.datasets.load("cbpp")
fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
fit.summary()
print(fit.log_likelihood)
"""
IMPORT = """
import time
import jax, numpy
start = time.perf_counter()
import jaxglmm
jaxglmm.lmm
print(time.perf_counter() - start)
"""
FRESH_R = """
suppressMessages(library(lmerTest))
m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
s <- capture.output(print(summary(m)))
cat(sprintf("%.9f", as.numeric(logLik(m))))
"""
FRESH_GLMM_R = """
suppressMessages(library(lme4))
m <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
s <- capture.output(print(summary(m)))
cat(sprintf("%.9f", as.numeric(logLik(m))))
"""


def main(name: str, engine: str, budget: str) -> None:
    """Measure and print."""
    engines.quiet()
    problem, seconds = BY_NAME[name], float(budget)
    if problem.work.startswith("fresh"):
        result = fresh(problem, engine, seconds)
    elif engine in components.PACKAGES:
        result = components.in_r(problem, engine, seconds)
    elif engine == "lme4":
        result = in_r(problem, seconds)
    else:
        result = in_python(problem, engine, seconds)
    print(json.dumps(result))


def in_python(problem: Problem, engine: str, budget: float) -> dict[str, Any]:
    """An engine that is a Python package."""
    frame = problem.data()
    size = int(frame.memory_usage(deep=True).sum())
    start = time.perf_counter()
    run = engines.adapter(engine, problem.work)(problem, frame)
    prepared, before = time.perf_counter() - start, peak_rss()
    found, first = timed(run)
    memory = {"data": size, "peak": peak_rss(), "before": before}
    times = [first]
    if hasattr(run, "times"):  # each of its own, measured by it
        times = run.times
    elif not getattr(run, "once", False):
        with _warm(problem, engine, run):
            found, times = repeat(run, budget)
    scale = getattr(run, "scale", 1.0)  # peers fit some of many
    return {
        "first": scale * first,
        "times": [scale * t for t in times],
        "prepare": prepared,
        "log_likelihood": found,
        "memory": memory,
        "devices": devices() if engine == "jaxglmm" else None,
    }


def _warm(problem: Problem, engine: str, run: Any) -> Any:
    """Where the program of a small fit has been compiled, as after many such fits.

    Until then such fits run in NumPy, and more of them than a budget allows.
    """
    if engine != "jaxglmm" or problem.work != "component" or problem.fits:
        return contextlib.nullcontext()
    from jaxglmm.runtime import hosted

    with hosted.always_compiled():
        run()
    return hosted.always_compiled()


def in_r(problem: Problem, budget: float) -> dict[str, Any]:
    """R's lme4, timed inside R."""
    frame = problem.data()
    factors = [c for c in frame if isinstance(frame[c].dtype, pd.CategoricalDtype)]
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "data.csv"
        frame.to_csv(csv, index=False)
        script = Path(__file__).parent / "lme4.R"
        facts = [problem.formula, problem.reml, ",".join(factors), problem.work, budget]
        facts += [problem.family, problem.nodes, problem.weights or ""]
        facts += [problem.fits]
        command = ["Rscript", str(script), str(csv), *map(str, facts)]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def fresh(problem: Problem, engine: str, budget: float) -> dict[str, Any]:
    """A new process each time, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        cached = problem.work.endswith("cached")
        linear = problem.family == "gaussian"
        env = {k: v for k, v in os.environ.items() if k not in NOT_FRESH}
        env["JAXGLMM_CACHE"] = folder if cached else "off"
        command = [sys.executable, "-c", FRESH if linear else FRESH_GLMM]
        if engine == "lme4":
            command = ["Rscript", "-e", FRESH_R if linear else FRESH_GLMM_R]
        if "session" in problem.work:
            here = Path(__file__).parent
            command = [sys.executable, "-c", (here / "first_session.py").read_text()]
            if engine == "lme4":
                command = ["Rscript", str(here / "first_session.R")]
        if problem.work == "fresh_import":
            command = [sys.executable, "-c", IMPORT]

        def run():
            out = subprocess.run(command, capture_output=True, text=True, env=env)
            if out.returncode:
                raise RuntimeError(out.stderr.strip().splitlines()[-1])
            return float(out.stdout.split()[-1])

        if problem.work == "fresh_import":  # it times itself
            first, *times = (run() for _ in range(6))
            return {"first": first, "times": times, "log_likelihood": None}
        _, first = timed(run)
        found, times = repeat(run, budget)
    return {"first": first, "times": times, "log_likelihood": found}


def devices() -> list[str]:
    """What JAX sees."""
    import jax

    return [f"{d.platform}: {d.device_kind}" for d in jax.devices()]


if __name__ == "__main__":
    main(*sys.argv[1:])
