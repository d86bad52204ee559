"""``python -m benchmarks``: measure, print the table, keep the numbers as JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import device
from benchmarks.device_lines import BY_NAME as LINES
from benchmarks.engines import available
from benchmarks.measure import machine
from benchmarks.problem import Problem
from benchmarks.problems import BY_NAME, PROBLEMS

HEADER = ("", "first", "warm", "warm/goal", "log-likelihood", "")
WIDTHS = (14, 10, 10, 10, 18, 0)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="PROBLEM")
    parser.add_argument("--engines", nargs="+", metavar="ENGINE", help="default: all")
    parser.add_argument("--slow", action="store_true", help="peers that take minutes")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds a line")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds an engine"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    group = parser.add_argument_group(
        "on one device", "what matters there, see device.py"
    )
    group.add_argument("--device", choices=("gpu", "cpu"), help="in ten minutes")
    group.add_argument("--quick", action="store_true", help="at small sizes")
    group.add_argument("--seconds", type=float, default=600.0, help="for all lines")
    group.add_argument(
        "--output", type=Path, metavar="FILE", help="in place of results"
    )
    parser.add_argument(
        "--list", action="store_true", help="name the problems and stop"
    )
    args = parser.parse_args(argv)
    known = LINES if args.device else BY_NAME
    for name in args.only or ():
        if name not in known:
            parser.error(f"--only {name}: there are {', '.join(known)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run all lines; 1 where jaxglmm failed on one, 2 without the device."""
    args = arguments(argv)
    if args.device:
        return device.main(args)
    problems = [p for p in PROBLEMS if not args.only or p.name in args.only]
    if args.list:
        for p in problems:
            print(f"{p.name:<14} {p.title}")
        return 0
    facts, lines = machine(), []
    print(f"{facts['processor']}, {facts['processors']} processors, {facts['system']}")
    print(", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    for problem in problems:
        print(f"\n{problem.title}; goal {duration(problem.goal)}")
        print(row(HEADER))
        for engine in asked(problem, args):
            line = measure(problem, engine, args)
            lines.append(line)
            print(row(cells(problem, line)), flush=True)
        if problem.note:
            print(f"  ({problem.note})")
    if args.json:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        report = {"when": when, "machine": facts, "lines": lines}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    failed = [x for x in lines if x["engine"] == "jaxglmm" and x["error"]]
    return 1 if failed else 0


def asked(problem: Problem, args: argparse.Namespace) -> Iterator[str]:
    """Engines for a problem that are wanted and installed."""
    for engine in problem.engines + (problem.slow if args.slow else ()):
        if (not args.engines or engine in args.engines) and available(engine):
            yield engine


def measure(problem: Problem, engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """One line, in a process of its own without programs from the disk cache."""
    line: dict[str, Any] = {
        "problem": problem.name,
        "engine": engine,
        "goal": problem.goal,
        "error": None,
    }
    patience = max(args.timeout, problem.patience)
    command = [sys.executable, "-m", "benchmarks.worker", problem.name, engine]
    env = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if problem.work.endswith("cached"):
        env.pop("JAX_ENABLE_COMPILATION_CACHE")
    try:
        out = subprocess.run(
            [*command, str(args.budget)],
            capture_output=True,
            text=True,
            env=env,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return {**line, "error": f"over {patience:g} s"}
    if out.returncode:
        last = (out.stderr.strip() or "failed").splitlines()[-1]
        return {**line, "error": last}
    result = json.loads(out.stdout.splitlines()[-1])
    best = max if problem.work == "another" else min  # there no two are the same
    warm = best(result["times"])
    if problem.goal_gpu and any("gpu" in d for d in result.get("devices") or ()):
        line["goal"] = problem.goal_gpu
    return {**line, **result, "warm": warm, "compile": result["first"] - warm}


def cells(problem: Problem, line: dict[str, Any]) -> tuple[str, ...]:
    """A line as text."""
    if line["error"]:
        return (line["engine"], "", "", "", "", line["error"][:90])
    ll, note = line["log_likelihood"], ""
    if problem.work == "build" or problem.name == "million-counts":
        memory = line["memory"]
        used = memory["peak"] - memory["before"]
        note = f"memory {used / memory['data']:.1f} times the data"
        note += f", {used / memory['data'] / 6:.2f} of 6" * (problem.work != "build")
    fits = 10_000 if problem.work == "bootstrap" else problem.fits
    if fits:
        note = f"{fits / line['warm']:,.0f} fits/s"
    if problem.name == "batch-million":
        note += f", memory {line['memory']['peak'] / 2**30:.1f} GiB"
    if problem.memory_goal:
        held = line["memory"]["peak"] / 2**30
        part = held / problem.memory_goal
        note = f"memory {held:.2f} GiB, {part:.2f} of {problem.memory_goal:g} GiB"
    return (
        line["engine"],
        duration(line["first"]),
        duration(line["warm"]),
        f"{line['warm'] / line['goal']:.2f}",
        "" if ll is None else f"{ll:.6f}",
        note,
    )


def row(values: tuple[str, ...]) -> str:
    """Columns: the first to the left, numbers to the right."""
    first, *rest = values
    text = f"  {first:<{WIDTHS[0]}}"
    for value, width in zip(rest, WIDTHS[1:], strict=True):
        text += f" {value:>{width}}" if width else f"  {value}"
    return text.rstrip()


def duration(seconds: float) -> str:
    """A time with a unit that suits it."""
    if seconds < 0.001:
        return f"{1e6 * seconds:.0f} us"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    raise SystemExit(main())
