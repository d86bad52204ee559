"""Crossed factors with many levels: ``y ~ x + (1 | a) + (1 | b)``.

``python -m benchmarks.crossed`` runs the lines, each in a process of its own, and
prints seconds, the peak of memory and their ratios to the goals (of two cores):

    probes     2,000,000 rows, 20,000 x 20,000 levels, by 64 fixed random vectors
    exact      the same by a dense Schur complement; with ``probes`` in the same run,
               how far apart they are in errors that the probes state
    million    10,000,000 rows, 1,000,000 x 1,000,000 levels, by probes; how far from
               the truth, in standard errors
    events     1,000,000 rows of 0 and 1 in a Parquet file, 50,000 x 2,000 levels
    wide       400,000 rows of 0 and 1 in a Parquet file, 40,000 x 20,000 levels, whose
               20,000 shared effects take a dense matrix of 3.2 GB; its standard
               deviations by Laplace's approximation, of so few rows a level, are
               some per cent below the truth
    memory     500,000 rows of 0 and 1 in memory, 50,000 x 30,000 levels, by probes

``--scale 100`` divides rows and levels, for a quick look without goals; ``--json FILE``
keeps the numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine

FORMULA = "y ~ x + (1 | a) + (1 | b)"
BETA, SDS, SIGMA = (1.0, 0.5), (0.8, 0.5), 1.0
EVENT = 6.0  # variance of a row of 0 or 1 about its effects: 1 / mean of p (1 - p)
PROBES = 64
EVENTS = ("events", "wide")  # streamed


@dataclass(frozen=True)
class Line:
    """rows, levels: of the data; goal in seconds, memory in GiB."""

    rows: int
    levels: tuple[int, int]
    goal: float
    memory: float = 8.0

    def divided(self, scale: int) -> Line:
        """Less of everything."""
        a, b = (max(J // scale, 10) for J in self.levels)
        return Line(max(self.rows // scale, 1000), (a, b), self.goal, self.memory)


LINES = {
    "probes": Line(2_000_000, (20_000, 20_000), 60.0),
    "exact": Line(2_000_000, (20_000, 20_000), 600.0),
    "million": Line(10_000_000, (1_000_000, 1_000_000), 1200.0),
    "events": Line(1_000_000, (50_000, 2_000), 600.0),
    "wide": Line(400_000, (40_000, 20_000), 1800.0),
    "memory": Line(500_000, (50_000, 30_000), 120.0),
}


def rows(line: Line, events: bool) -> Any:
    """The data, levels at random."""
    import pandas as pd

    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, J, line.rows, dtype=np.int32) for J in line.levels)
    x = rng.normal(size=line.rows)
    eta = BETA[0] + BETA[1] * x
    for codes, J, sd in zip((a, b), line.levels, SDS, strict=True):
        eta += sd * rng.normal(size=J)[codes]
    if events:
        y = (rng.uniform(size=line.rows) < 1 / (1 + np.exp(-eta))).astype(np.int8)
    else:
        y = eta + SIGMA * rng.normal(size=line.rows)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


def fitted(name: str, line: Line) -> tuple[Any, float]:
    """The fit and its seconds."""
    import jaxglmm as jg

    data = rows(line, name in (*EVENTS, "memory"))
    if name in EVENTS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            data.to_parquet(path)
            del data
            began = time.perf_counter()
            fit = jg.glmm(FORMULA, path, family="binomial")
            return fit, time.perf_counter() - began
    if name == "memory":
        began = time.perf_counter()
        method = jg.Laplace(probes=PROBES)
        fit = jg.glmm(FORMULA, data, family="binomial", method=method)
        return fit, time.perf_counter() - began
    method = jg.REML(probes=0 if name == "exact" else PROBES)
    began = time.perf_counter()
    fit = jg.lmm(FORMULA, data, method=method)
    return fit, time.perf_counter() - began


def measured(name: str, line: Line) -> dict[str, Any]:
    """A line, in this process."""
    fit, seconds = fitted(name, line)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.perf_counter()
    errors = fit.se.tolist()
    se_seconds = time.perf_counter() - began
    sds = [float(fit.varcorr[label].sd.iloc[0]) for label in ("a", "b")]
    return {
        "line": name,
        **asdict(line),
        "seconds": round(seconds, 2),
        "se_seconds": round(se_seconds, 2),
        "peak_GiB": round(peak, 2),
        "plan": repr(fit.plan),
        "criterion": fit.criterion,
        "beta": fit.coef.tolist(),
        "beta_se": errors,
        "sd": sds,
        "sigma": fit.sigma,
        "monte_carlo": fit.diagnostics.get("monte_carlo"),
        "step_left": fit.diagnostics.get("step_left"),
        "converged": fit.converged,
    }


def compared(found: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """What the numbers are next to: those by probes, or the truth."""
    if found["line"] == "exact" and earlier is not None:
        errors = earlier["monte_carlo"]
        apart = np.subtract(earlier["sd"], np.add(found["sd"], found["step_left"]))
        gap = abs(earlier["criterion"] - found["criterion"])
        return {
            "sd_in_errors": (np.abs(apart) / errors["sd"]).tolist(),
            "criterion_in_errors": gap / errors["criterion"],
        }
    # a standard deviation of J effects, known to an error each of its own
    out = []
    total = found["rows"]
    for sd, true, J in zip(found["sd"], SDS, found["levels"], strict=True):
        row = EVENT if found["line"] in (*EVENTS, "memory") else SIGMA**2
        own = true**2 + row * J / total
        out.append((sd - true) / (own / true / np.sqrt(2 * J)))
    beta = np.subtract(found["beta"], BETA) / found["beta_se"]
    return {
        "sd_from_truth_in_errors": out,
        "beta_from_truth_in_errors": beta.tolist(),
    }


def told(found: dict[str, Any], goals: bool) -> str:
    """A line as text."""
    out = f"{found['line']:<8} {found['seconds']:>9.4g} s {found['peak_GiB']:>6.2f} GiB"
    if goals:
        part = found["seconds"] / found["goal"]
        held = found["peak_GiB"] / found["memory"]
        out += f", {part:.2f} of {found['goal']:g} s, {held:.2f} of "
        out += f"{found['memory']:g} GiB"
    for name, value in found["compared"].items():
        shown = np.array2string(np.atleast_1d(value), precision=2)
        out += f"; {name.replace('_', ' ')} {shown}"
    return out if found["converged"] else f"{out}; not converged"


def main() -> None:
    """The command."""
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("lines", nargs="*", default=list(LINES), metavar="LINE")
    read.add_argument("--scale", type=int, default=1)
    read.add_argument("--json", type=Path, metavar="FILE")
    read.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = read.parse_args()
    unknown = [name for name in given.lines if name not in LINES]
    if unknown:
        read.error(f"no line {unknown[0]!r}; lines are {', '.join(LINES)}")
    if given.inside:
        (name,) = given.lines
        print(json.dumps(measured(name, LINES[name].divided(given.scale))))
        return
    done: dict[str, dict[str, Any]] = {}
    for name in given.lines:
        command = [sys.executable, "-m", "benchmarks.crossed", name, "--inside"]
        command += ["--scale", str(given.scale)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(out.stdout.splitlines()[-1])
        done[name] = found | {"compared": compared(found, done.get("probes"))}
        print(told(done[name], given.scale == 1), flush=True)
    if given.json:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        report = {"when": when, "machine": machine(), "lines": list(done.values())}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
