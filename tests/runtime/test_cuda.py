"""What a GPU would be asked to do, where there is none: programs lowered for CUDA.

Each group of models runs in a process of its own (``cuda_programs.py``), so that every
program is made there. What a program calls that is not XLA's own must be in ``KNOWN``:
a call of LAPACK, or back to Python, has no place on a GPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "cuda_programs.py"
KNOWN = {
    "cu_lu_pivots_to_permutation",
    "cu_threefry2x32_ffi",
    "cusolver_getrf_ffi",
    "cusolver_potrf_ffi",
    "cusolver_syevd_ffi",
}
NUMPY = {"residuals, ar1", "repeated measures"}  # which no program is ever made for
PROGRAMS = {  # of a group, and the programs that must have been met there
    "linear": "fit_numbers curvature components",
    "structures": "fit_numbers curvature",
    "generalised": "fit_numbers hessian",
    "families": "fit_numbers",
    "predictors": "fit_numbers hessian",
    "posteriors": "find_from_rows evaluate _fit climb",
    "chains": "find_from_rows begin advance positions_to_parameters",
    "many linear": "local fit_lanes curvatures _lanes",
    "many generalised": "local fit_numbers find_from_rows evaluate",
    "shared": "everywhere fit_numbers",
    "streams": "fit_numbers looked hessian",
    "other doors": "_ground fit_mean_field",
    "questions": "fit_numbers fit_lanes local hessian",
}


def programs(group):
    """What the models of a group lower to, model by model."""
    root = Path(__file__).parent.parent.parent
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    out = subprocess.run(
        [sys.executable, str(SCRIPT), group],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads(out.stdout.splitlines()[-1])


def unknown(found):
    """(model, program, target) of all that a GPU does not have."""
    return [
        (model, name, target)
        for model, some in found.items()
        for name, targets in some.items()
        for target in targets
        if target not in KNOWN
    ]


def test_what_a_gpu_lacks_is_found():
    found = unknown(programs("unfit"))
    assert [(model, name) for model, name, _ in found] == [
        ("callback", "asks"),
        ("cpu alone", "schur"),
    ]


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(g, marks=() if g == "linear" else pytest.mark.slow)
        for g in PROGRAMS
    ],
)
def test_programs_have_all_they_call_on_a_gpu(group):
    found = programs(group)
    assert not unknown(found)
    met = {name for some in found.values() for name in some}
    assert met >= set(PROGRAMS[group].split())
    assert {model for model, some in found.items() if not some} <= NUMPY
