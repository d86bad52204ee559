"""Fits from several threads at once, and fits that are interrupted."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import jaxglmm as jg


def test_fits_from_several_threads_agree():
    """Double precision is a setting of each thread, and programs are shared."""
    dyestuff, cbpp = jg.datasets.load("Dyestuff"), jg.datasets.load("cbpp")
    counts = "cbind(incidence, size - incidence) ~ period + (1 | herd)"

    def fits(_):
        linear = jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff)
        generalised = jg.glmm(counts, cbpp)
        draws = linear.bootstrap(20, seed=1).coefficients.sum()
        return linear.criterion, generalised.criterion, draws

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fits, range(8)))
    # a program takes over from NumPy after some of them: the last digits are others
    np.testing.assert_allclose(together, [fits(0)] * 8, rtol=1e-9)
    assert not jax.config.jax_enable_x64


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_an_interrupted_process_goes_on_and_ends_well():
    code = """
import os, signal, threading
import jaxglmm as jg

dyestuff = jg.datasets.load("Dyestuff")
before = jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff)
jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff, method=jg.NUTS(draws=200, warmup=50))
for call in (
    lambda: before.bootstrap(5_000_000),
    lambda: jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff, method=jg.NUTS(draws=900_000)),
):
    timer = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted")
after = jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff)
print(after.criterion == before.criterion)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode not in (-signal.SIGSEGV, 128 + signal.SIGSEGV)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["interrupted", "interrupted", "True"]
