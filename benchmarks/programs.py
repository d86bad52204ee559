"""What a first call costs: tracing, lowering, compiling and size, program by program.

``python -m benchmarks.programs [DATASET ...]`` fits the usual models of those data sets
(all by default) with nothing run in NumPy and nothing read from disk, and prints a line
for each program that is made.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from benchmarks.measure import machine, timed
from jaxglmm.api.warm import USUAL, warm
from jaxglmm.runtime.cache import OWN_ENVIRONMENT
from jaxglmm.runtime.program import Program

EVENTS = {  # JAX's names
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
COLUMNS = ("trace", "lower", "compile", "write", "read", "equations", "kB")


def main() -> int:
    """Make the programs, print the table, keep it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs")
    parser.add_argument("datasets", nargs="*", help="of the usual models")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    args = parser.parse_args()
    lines: list[dict[str, Any]] = []
    make = Program.make
    with tempfile.TemporaryDirectory() as folder:
        os.environ[OWN_ENVIRONMENT] = folder
        Program.make = staticmethod(measured(make, lines))  # type: ignore[method-assign]
        for model in USUAL:
            if not args.datasets or model[1] in args.datasets:
                before = len(lines)
                warm(model, progress=False)
                show(f"{model[1]}: {model[0]}, {model[2]}", lines[before:])
    show("all", [total(lines)])
    if args.json:
        report = {"machine": machine(), "lines": lines}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def measured(
    make: Callable[..., Program], lines: list[dict[str, Any]]
) -> Callable[..., Program]:
    """``Program.make``, which also notes what it took."""
    seconds: Counter[str] = Counter()

    def note(event: str, duration: float, **_: Any) -> None:
        if event in EVENTS:
            seconds[EVENTS[event]] += duration

    jax.monitoring.register_event_duration_secs_listener(note)

    def with_times(jitted: Any, leaves: list[Any], path: Path) -> Program:
        seconds.clear()
        program, whole = timed(lambda: make(jitted, leaves, path))
        line = {name: seconds[name] for name in EVENTS.values()}
        line["write"] = max(whole - sum(line.values()), 0.0)
        line["read"] = timed(lambda: Program.read(path))[1]
        line["equations"] = equations(jitted.trace(*leaves).jaxpr.jaxpr)
        line["kB"] = path.stat().st_size / 1e3
        lines.append({"program": jitted.__wrapped__.__qualname__, **line})
        return program

    return with_times


def equations(jaxpr: Any) -> int:
    """Equations of a program, those of loops and of called functions included."""
    return sum(1 + sum(map(equations, jaxprs_in_params(e.params))) for e in jaxpr.eqns)


def total(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of all lines."""
    sums = {name: sum(line[name] for line in lines) for name in COLUMNS}
    return {"program": f"{len(lines)} programs", **sums}


def show(title: str, lines: list[dict[str, Any]]) -> None:
    """A table: seconds with two places, counts without."""
    print(f"\n{title}")
    print(f"  {'':<22}" + "".join(f"{name:>10}" for name in COLUMNS))
    for line in lines:
        cells = (
            f"{line[name]:10.0f}"
            if name in ("equations", "kB")
            else f"{line[name]:10.2f}"
            for name in COLUMNS
        )
        print(f"  {line['program']:<22}" + "".join(cells), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
