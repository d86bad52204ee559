"""The benchmark of large crossed factors, on little data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_lines_of_crossed_factors(tmp_path):
    report = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.crossed", "--scale", "400"]
    command += ["--json", str(report)]
    out = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    )
    names = ["probes", "exact", "million", "events", "wide", "memory"]
    assert [line.split()[0] for line in out.stdout.splitlines()] == names
    lines = json.loads(report.read_text())["lines"]
    assert [line["line"] for line in lines] == names
    assert all(line["converged"] for line in lines)
    apart = lines[1]["compared"]
    assert max(apart["sd_in_errors"]) < 4
    assert apart["criterion_in_errors"] < 4
    for line in lines[2:]:
        assert np.abs(line["compared"]["sd_from_truth_in_errors"]).max() < 5
