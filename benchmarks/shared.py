"""One fit shared: on one device, on two forced devices, by two processes.

``python -m benchmarks.shared --rows 1000000`` fits each model alone, then within
``jg.on_devices("all")`` on two devices of one process and on those of two processes
that ``jax.distributed`` connects, all on the same cores. It prints the seconds of the
whole call and of the search alone, beside one device's and the goal. ``--json`` keeps
the numbers, adding to a file that is there. Each of two processes has half of the
threads, as several on one machine should (``THREADS``); what a process takes to start,
its interpreter and JAX, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import machine

GOAL = 1.2  # times one device
MODELS = {
    "linear": ("lmm", "y ~ x + (x | g)", None),
    "linear-crossed": ("lmm", "y ~ x + (1 | g) + (1 | h)", None),
    "binomial": ("glmm", "event ~ x + (1 | g)", "binomial"),
    "poisson": ("glmm", "count ~ x + (1 | g)", "poisson"),
    "binomial-crossed": ("glmm", "event ~ x + (1 | g) + (1 | h)", "binomial"),
}
MODES = ("one device", "two devices", "two processes")
THREADS = "OPENBLAS_NUM_THREADS", "NPROC"  # of NumPy, of XLA
TIMES = 3
LONGEST = 280.0  # seconds of a mode


def table(n: int) -> pd.DataFrame:
    """n rows, n / 10 groups, crossed with 50."""
    rng = np.random.default_rng(1)
    g, h, x = rng.integers(0, n // 10, n), rng.integers(0, 50, n), rng.normal(size=n)
    eta = 0.3 * x + rng.normal(size=n // 10)[g] + 0.4 * rng.normal(size=50)[h]
    y = eta + 0.3 * rng.normal(size=n // 10)[g] * x + rng.normal(size=n)
    event = (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))) * 1.0
    count = rng.poisson(np.exp(0.5 * eta))
    return pd.DataFrame(
        {"x": x, "g": g, "h": h, "y": y, "event": event, "count": count}
    )


def timed(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls, the first left out."""
    run()
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def work(mode: str, n: int, names: list[str], address: str, number: int) -> None:
    """The lines of a mode, as JSON; in each of its processes."""
    import jax

    if mode == "two processes":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, 2, number)
    import jaxglmm as jg

    data, lines = table(n), []
    devices = jax.local_devices()[:1] if mode == "one device" else "all"
    with jg.on_devices(devices):
        for name in names:
            function, formula, family = MODELS[name]
            settings = {} if family is None else {"family": family}
            fit = partial(getattr(jg, function), formula, data, **settings)
            found = fit()
            said = [found.criterion, *found.coef, *found.theta, *found.se]
            lines.append(
                {
                    "model": name,
                    "mode": mode,
                    "rows": n,
                    "seconds": timed(lambda fit=fit: fit().criterion),
                    "search": timed(found.engine.fit),
                    "numbers": [float(x) for x in said],
                }
            )
    print(json.dumps(lines), flush=True)


def measured(mode: str, n: int, names: list[str]) -> list[dict[str, Any]]:
    """The lines of a mode, from processes that end in any case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    devices = 2 if mode == "two devices" else 1
    flag = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
    if mode == "two processes":
        share = str(max((os.cpu_count() or 1) // 2, 1))
        env |= dict.fromkeys(THREADS, share)
    own = [
        sys.executable,
        "-m",
        "benchmarks.shared",
        "--rows",
        str(n),
        "--only",
        *names,
    ]
    started = [
        subprocess.Popen(
            [*own, "--work", mode, address, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        for number in range(2 if mode == "two processes" else 1)
    ]
    try:
        end = time.monotonic() + LONGEST
        out = [p.communicate(timeout=end - time.monotonic())[0] for p in started]
    finally:
        for process in started:
            process.kill()
    return json.loads(out[0].splitlines()[-1])


def compared(lines: list[dict[str, Any]]) -> None:
    """Add to each line what it is beside one device's, and print it."""
    print(f"{'':<18} {'':<14} {'fit':>8} {'search':>8} {'x one':>7} {'x goal':>7}")
    alone = {x["model"]: x for x in lines if x["mode"] == MODES[0]}
    said = {name: np.array(x["numbers"]) for name, x in alone.items()}
    for line in lines:
        one, other = alone[line["model"]], said[line["model"]]
        numbers = np.array(line.pop("numbers"))
        line["difference"] = float(np.max(np.abs(numbers / other - 1)))
        line["ratio"] = line["seconds"] / one["seconds"]
        line["search_ratio"] = line["search"] / one["search"]
        line["ratio_to_goal"] = line["ratio"] / GOAL
        print(
            f"{line['model']:<18} {line['mode']:<14} {line['seconds']:8.3f} "
            f"{line['search']:8.3f} {line['ratio']:7.2f} {line['ratio_to_goal']:7.2f}"
            f"   search {line['search_ratio']:.2f}, differs by {line['difference']:.0e}"
        )


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work:
        mode, address, number = args.work
        return work(mode, args.rows, args.only, address, int(number))
    found = [line for mode in MODES for line in measured(mode, args.rows, args.only)]
    lines = sorted(found, key=lambda x: list(MODELS).index(x["model"]))
    compared(lines)
    if args.json:
        kept = json.loads(args.json.read_text())["lines"] if args.json.exists() else []
        kept = [x for x in kept if x["model"] not in args.only]
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        report = {"when": when, "machine": machine(), "lines": [*kept, *lines]}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
