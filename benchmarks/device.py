"""The lines that matter on one device: ``python -m benchmarks --device gpu``.

At most ten minutes in all. Each line is fitted in a process of its own on the device,
then, as long as the time lasts, once more on the CPU of the same machine: a first call,
which compiles, and warm ones. What does not fit into the time is skipped, and said. All
is written as JSON after each line. Without such a device: exit code 2, and nothing is
done.

``python -m benchmarks --device cpu --quick`` runs all of it at small sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.device_lines import BY_NAME, LINES, Line
from benchmarks.measure import machine, peak_rss, repeat, timed

RESULTS = Path(__file__).parent / "results"
NO_DEVICE = 2  # exit code
WARM = 2.0  # seconds of warm calls
LEAST = 10.0  # seconds left that a line is still begun with
SLACK = 4.0  # times the guess that a line may take, where there is time
QUICK = 3.0  # seconds of a line of small size, about
PROBE = """
import json, jax
kind = {kind!r}
try:
    found = jax.local_devices(backend=kind)
    said = [str(d.device_kind) for d in found]
except RuntimeError as error:
    said, found = [], []
default = jax.devices()[0].platform
print(json.dumps({{"found": said, "default": default, "all": str(jax.devices())}}))
"""


def main(args: argparse.Namespace) -> int:
    """All lines; 1 where one failed, 2 without the device."""
    there = probe(args.device)
    if not there["found"]:
        print(
            f"--device {args.device}: JAX sees no {args.device.upper()} here, only "
            f"{there['all']}. Nothing was measured. Install JAX for the device first "
            "(pip install 'jaxglmm[cuda13]'); `jaxglmm doctor` says what JAX sees.",
            file=sys.stderr,
        )
        return NO_DEVICE
    report = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": there["found"][0],
        "devices": len(there["found"]),
        "quick": args.quick,
        "budget": args.seconds,
        "machine": machine(),
        "lines": [],
    }
    path = output(args, report["device"])
    print(f"{report['device']}; {report['machine']['processor']}")
    print(", ".join(f"{k} {v}" for k, v in report["machine"]["packages"].items()))
    print(HEADER, flush=True)
    begun = time.monotonic()
    for line, device in order(args):
        left = args.seconds - (time.monotonic() - begun)
        found = measured(line, device, args.quick, left)
        report["lines"].append(found)
        print(text(found), flush=True)
        report["seconds"] = round(time.monotonic() - begun, 1)
        if path is not None:
            path.write_text(json.dumps(report, indent=1) + "\n")
    compared = differences(report["lines"])
    for name, (one, other) in compared.items():
        print(f"  {name}: {one:.10g} on the device, {other:.10g} on the CPU")
    skipped = [x for x in report["lines"] if x["skipped"]]
    print(f"{report['seconds']:.0f} s; {len(skipped)} lines skipped")
    if path is not None:
        print(f"written to {path}")
    return 1 if any(x["error"] for x in report["lines"]) or compared else 0


def probe(kind: str) -> dict[str, Any]:
    """What JAX sees, asked in another process, which lets the device go again."""
    out = subprocess.run(
        [sys.executable, "-c", PROBE.format(kind=kind)], capture_output=True, text=True
    )
    if out.returncode:
        last = (out.stderr.strip() or "nothing").splitlines()[-1]
        return {"found": [], "all": f"an error: {last}"}
    return json.loads(out.stdout.splitlines()[-1])


def output(args: argparse.Namespace, device: str) -> Path | None:
    """The file; none of a quick run unless it is named."""
    if args.output is not None or args.quick:
        return args.output
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"device-{name}.json"


def order(args: argparse.Namespace) -> list[tuple[Line, str]]:
    """Lines on the device, those on its CPU afterwards; on the host once."""
    chosen = [x for x in LINES if not args.only or x.name in args.only]
    there = [(x, args.device) for x in chosen]
    if args.device == "cpu":
        return there
    twins = [x for x in chosen if x.seconds[1] is not None and not x.host]
    first = [pair for pair in there if not pair[0].host]
    last = [pair for pair in there if pair[0].host]
    return first + [(x, "cpu") for x in twins] + last


def measured(line: Line, device: str, quick: bool, left: float) -> dict[str, Any]:
    """One line in a process of its own, or why there is none."""
    out: dict[str, Any] = {
        "problem": line.name,
        "engine": "host" if line.host else device,
        "title": line.title,
        "size": line.sizes[quick],
        "error": None,
        "skipped": None,
    }
    guess = line.seconds[device == "cpu"] or 4 * line.seconds[0]
    needed = QUICK if quick else guess
    if left < max(needed, 0 if quick else LEAST):
        return {
            **out,
            "skipped": f"{max(left, 0):.0f} s left, about {needed:.0f} needed",
        }
    env = {
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAXGLMM_CACHE": "off",
        # a large array is not worth a pool that takes three quarters of the memory,
        # and its peak is what is asked for
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if device == "cpu":
        env["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-m", "benchmarks.device", line.name, device]
    try:
        done = subprocess.run(
            [*command, str(line.sizes[quick])],
            capture_output=True,
            text=True,
            env=env,
            timeout=left if quick else min(left, max(SLACK * needed, 120)),
        )
    except subprocess.TimeoutExpired as error:
        return {**out, "skipped": f"not done after {error.timeout:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip() or "failed").splitlines()[-1]
        return {**out, "error": last}
    found = json.loads(done.stdout.splitlines()[-1])
    warm = min(found["times"])
    return {**out, **found, "warm": warm, "compile": found["first"] - warm}


def worker(name: str, device: str, size: str) -> None:
    """Measure a line here, and print it."""
    import warnings

    warnings.simplefilter("ignore")
    import jax

    import jaxglmm as jg

    line = BY_NAME[name]
    # a fit that is small would choose the host
    with contextlib.nullcontext() if line.host else jg.on_devices(device):
        (run, nbytes), prepared = timed(lambda: line.make(int(size), device))
        value, first = timed(run)
        times = [first]
        if first < 60:  # else it counts as warm too: what is compiled is little of it
            value, times = repeat(run, WARM, least=2)
    used = jax.local_devices(backend=device)[0]
    stats = used.memory_stats() or {}
    print(
        json.dumps(
            {
                "first": first,
                "times": times,
                "prepare": prepared,
                "value": value,
                "data": nbytes,
                "memory": {
                    "host_peak": peak_rss(),
                    "device_peak": stats.get("peak_bytes_in_use"),
                    "device": stats.get("bytes_limit"),
                },
                "device": str(used.device_kind),
                "default": jax.devices()[0].platform,
            }
        )
    )


def differences(lines: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Numbers that hang on the device, beyond 1e-8; draws of chains may."""
    values: dict[str, dict[str, float]] = {}
    for line in lines:
        if "value" in line and line["problem"] not in ("chains", "posteriors"):
            values.setdefault(line["problem"], {})[line["engine"]] = line["value"]
    out = {}
    for name, each in values.items():
        if {"cpu", "gpu"} <= set(each):
            one, other = each["gpu"], each["cpu"]
            if not abs(one - other) <= 1e-8 * max(1.0, abs(other)):
                out[name] = (one, other)
    return out


HEADER = f"  {'':<16}{'':<6}{'first':>9}{'warm':>10}{'memory':>11}"


def text(found: dict[str, Any]) -> str:
    """A line as text."""
    head = f"  {found['problem']:<16}{found['engine']:<6}"
    if found["error"] or found["skipped"]:
        why = found["error"] or f"skipped: {found['skipped']}"
        return head + why[:100]
    held = found["memory"]["device_peak"] or found["memory"]["host_peak"]
    out = f"{head}{found['first']:>7.2f} s{found['warm']:>8.3f} s"
    out += f"{held / 2**30:>7.2f} GiB"
    if unit := BY_NAME[found["problem"]].unit:
        out += f"  {found['size'] / found['warm']:,.0f} {unit}/s"
    if found["problem"] == "transfer":
        out += f"  {2 * found['data'] / found['warm'] / 1e9:.2g} GB/s"
    return out


if __name__ == "__main__":
    worker(*sys.argv[1:])
