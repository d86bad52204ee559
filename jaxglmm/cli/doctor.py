"""Say what is installed, which devices there are, and whether a small fit works."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

from jaxglmm.cli.progress import keep_compiled_programs
from jaxglmm.runtime.cache import cache_size

CORE = (
    "jax",
    "jaxlib",
    "jaxtyping",
    "numpy",
    "scipy",
    "pandas",
    "formulaic",
    "narwhals",
    "matplotlib",
    "optax",
    "blackjax",
    "arviz",
)
OPTIONAL = ("polars", "h5netcdf", "h5py")
SLEEPSTUDY_REML = 1743.62827  # the REML criterion of the fit below, from lme4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm doctor``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Gather, print; 1 where a check failed."""
    report = gather()
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(as_text(report))
    return 0 if all(check["ok"] for check in report["checks"].values()) else 1


def gather() -> dict[str, Any]:
    """Everything the report says, as JSON values."""
    cache = keep_compiled_programs()
    files, size = (0, 0) if cache is None else cache_size(cache)
    fit, seconds = _timed_fit()
    return {
        "jaxglmm": _version("jaxglmm"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}, {os.cpu_count()} processors",
        "packages": {name: _version(name) for name in (*CORE, *OPTIONAL)},
        "devices": _devices(),
        "cache": {"folder": cache and str(cache), "files": files, "bytes": size},
        "seconds": seconds,
        "checks": {
            "double precision inside, the user's setting outside": _precision(),
            "a fit of sleepstudy": {
                "ok": abs(fit.criterion - SLEEPSTUDY_REML) < 1e-4,
                "found": f"REML criterion {fit.criterion:.5f}, lme4 {SLEEPSTUDY_REML}",
            },
        },
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for a reader."""
    cache, seconds = report["cache"], report["seconds"]
    versions = [
        f"  {name:<12} {version or 'not installed'}"
        for name, version in report["packages"].items()
    ]
    checks = [
        f"  {'ok    ' if check['ok'] else 'FAILED'} {name}: {check['found']}"
        for name, check in report["checks"].items()
    ]
    return "\n".join(
        [
            f"jaxglmm {report['jaxglmm']}",
            f"Python {report['python']}",
            report["system"],
            "",
            "Packages",
            *versions,
            "",
            "Devices",
            *[f"  {device}" for device in report["devices"]],
            "",
            "Compiled programs are kept in",
            f"  {cache['folder'] or 'no folder (switched off, or it cannot be used)'}",
            f"  {cache['files']} files, {cache['bytes'] / 1e6:.1f} MB",
            "",
            "Time of a small fit",
            f"  first, with its imports             {seconds['first']:8.2f} s",
            f"  again                              {1e3 * seconds['again']:8.2f} ms",
            "",
            "Checks",
            *checks,
        ]
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import jax

    return [f"{d.platform} {d.id}: {d.device_kind}" for d in jax.devices()]


def _precision() -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from jaxglmm.runtime.precision import double_precision

    flag = jax.config.jax_enable_x64
    inside = double_precision(lambda: str(jnp.ones(1).dtype))()
    outside = str(jnp.ones(1).dtype)
    expected = "float64" if flag else "float32"
    unchanged = jax.config.jax_enable_x64 == flag
    return {
        "ok": inside == "float64" and outside == expected and unchanged,
        "found": f"{inside} inside, {outside} outside",
    }


def _timed_fit() -> tuple[Any, dict[str, float]]:
    import jaxglmm as jg

    data = jg.datasets.load("sleepstudy")
    times = []
    for _ in range(6):
        start = time.perf_counter()
        fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
        fit.p_values  # noqa: B018 - computed when asked for
        times.append(time.perf_counter() - start)
    return fit, {"first": times[0], "again": min(times[1:])}
