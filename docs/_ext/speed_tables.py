"""``speed`` directive: a table of measured times from ``benchmarks/results/*.json``.

Its body names problems of ``python -m benchmarks --list``; of each engine the newest
measurement counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
UNITS = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "µs", 1e6))
HEADER = ("work", "first call", "warm", "fits a second", "others, warm", "measured")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, to two digits."""
    unit, factor = next((u, f) for least, u, f in UNITS if seconds >= least)
    value = seconds * factor
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def newest() -> dict[str, dict[str, dict[str, Any]]]:
    """Lines of all reports, by problem and engine, the newest of each."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    reports = [json.loads(p.read_text("utf-8")) for p in RESULTS.glob("*.json")]
    for report in sorted(reports, key=lambda r: r["when"]):
        for line in report["lines"]:
            if line["error"] is None:
                kept = {**line, "when": report["when"][:10]}
                found.setdefault(line["problem"], {})[line["engine"]] = kept
    return found


def problems() -> dict[str, Any]:
    """Problems by name, from the benchmarks themselves."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from benchmarks.problems import BY_NAME

    return BY_NAME


def row(problem: Any, lines: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """One problem: the cells of ``HEADER``."""
    ours = lines["jaxglmm"]
    others = [
        f"{engine} {duration(line['warm'])}"
        for engine, line in sorted(lines.items())
        if engine != "jaxglmm"
    ]
    many = f"{problem.fits / ours['warm']:,.0f}" if problem.fits > 1 else ""
    first, warm = duration(ours["first"]), duration(ours["warm"])
    return (problem.title, first, warm, many, ", ".join(others), ours["when"])


def table(rows: list[tuple[str, ...]]) -> nodes.table:
    """A docutils table; columns without a single entry are left out."""
    kept = [j for j in range(len(HEADER)) if any(r[j] for r in rows)]
    group = nodes.tgroup(cols=len(kept))
    group += [nodes.colspec(colwidth=5 if j == 0 else 1) for j in kept]
    head, body = nodes.thead(), nodes.tbody()
    for part, cells in [(head, HEADER), *((body, r) for r in rows)]:
        line = nodes.row()
        for j in kept:
            line += nodes.entry("", nodes.paragraph(text=cells[j]))
        part += line
    group += [head, body]
    made = nodes.table(classes=["speed"])
    made += group
    return made


class Speed(Directive):
    """``speed``: names of problems, one or more a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        names, measured, known = " ".join(self.content).split(), newest(), problems()
        missing = [n for n in names if n not in measured or n not in known]
        if missing:
            raise self.error(f"no measurement of {', '.join(missing)}")
        return [table([row(known[n], measured[n]) for n in names])]


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("speed", Speed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
