"""Timing, memory, and a description of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

COMPILES = 0.3  # seconds that a call takes at least where it compiles
PACKAGES = (
    "jaxglmm",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "pandas",
    "formulaic",
    "glmm",
    "mixedlm",
    "pystatistics",
    "gpboost",
    "statsmodels",
)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` returns, and its seconds."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def repeat(
    run: Callable[[], Any], budget: float, least: int = 3, most: int = 200
) -> tuple[Any, list[float]]:
    """Call ``run`` until ``budget`` seconds are used; its last result and the times.

    At least ``least`` times; once where one call takes four times the budget. A call
    that compiles what ran in NumPy before begins the budget anew.
    """
    times: list[float] = []
    begun = 0
    while True:
        result, seconds = timed(run)
        times.append(seconds)
        since = times[begun:]
        if len(since) > 1 and seconds > max(COMPILES, 8 * statistics.median(since)):
            begun = len(times)
            continue
        used, n = sum(since), len(since)
        if n >= most or used > 4 * budget or (n >= least and used > budget):
            return result, times


def peak_rss() -> float:
    """The largest memory this process has held, in bytes; nan where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def machine() -> dict[str, Any]:
    """What the times depend on."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {p: v for p in PACKAGES if (v := version(p)) is not None},
    }


def version(package: str) -> str | None:
    """The installed version, None without."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return round(pages / 2**30, 1)
