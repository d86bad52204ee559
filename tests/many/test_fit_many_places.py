"""Where it runs: several devices, several processes, a file that grows."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import PENDING, Devices
from doors import file as fits_file
from doors import many_plan as fits_engines
from doors import scheduler as fits_run

import jaxglmm as jg

SCRIPT = """
    import json, sys, warnings
    {before}
    import numpy as np, pandas as pd
    import jaxglmm as jg
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(10), 6), np.tile(np.linspace(-1, 1, 6), 10)
    data = pd.DataFrame({{"g": g, "x": x}})
    Y = 1 + x[:, None] + rng.normal(size=(10, 150))[g] + rng.normal(size=(60, 150))
    Y[:, 7], Y[3, 20] = 2.0, np.nan
    fits = jg.fit_many("y ~ x + (1 | g)", data, responses=Y)
    counts = rng.poisson(np.exp(0.4 * Y[:, 30:94]))
    more = jg.fit_many("y ~ x + (1 | g)", data, responses=counts, family="poisson")
    print(json.dumps({{
        "devices": fits.facts["devices"],
        "linear": np.nan_to_num(fits.frame().to_numpy()).tolist(),
        "poisson": more.frame().to_numpy().tolist(),
        "status": fits.status.tolist(),
    }}))
"""


def script(before="pass"):
    return textwrap.dedent(SCRIPT).format(before=before)


def started(source, *arguments, devices=1):
    env = dict(os.environ)
    if devices > 1:
        more = f"--xla_force_host_platform_device_count={devices}"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {more}"
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def answer(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    return answer(started(script()))


def test_two_devices(alone):
    found = answer(started(script(), devices=2))
    assert found["devices"] == "2 x cpu"
    assert alone["devices"] == "cpu"
    assert found["status"] == alone["status"]
    for name in ("linear", "poisson"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-11, atol=1e-11)


def test_two_processes(alone):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    before = (
        "import jax; jax.distributed.initialize("
        f"'localhost:{port}', 2, int(sys.argv[1]))"
    )
    both = [started(script(before), str(k)) for k in range(2)]
    for process in both:
        found = answer(process)
        assert found["status"] == alone["status"]
        for name in ("linear", "poisson"):
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-11, atol=1e-11)


# A file that grows --------------------------------------------------------------------

FORMULA = "y ~ x + (1 | g)"


def setting(D=150):
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(10), 6), np.tile(np.linspace(-1, 1, 6), 10)
    Y = 1 + x[:, None] + rng.normal(size=(10, D))[g] + rng.normal(size=(60, D))
    Y[3, 20 % D] = np.nan
    return pd.DataFrame({"g": g, "x": x}), Y


class _Interrupted(Exception):
    pass


def interrupted_after(monkeypatch, calls):
    """Engines that work that often, on small chunks, and then no more."""
    done = []
    plain = fits_engines.LinearLanes.fit

    def fit(self, which, steps):
        if len(done) >= calls:
            raise _Interrupted
        done.append(which)
        return plain(self, which, steps)

    monkeypatch.setattr(fits_engines.LinearLanes, "fit", fit)
    monkeypatch.setattr(fits_engines.LinearLanes, "lanes", 64, raising=False)
    return done


def test_a_run_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    data, Y = setting()
    path = tmp_path / "fits"

    def small(self, chunk, numbers, chunks=8):
        return 64

    monkeypatch.setattr(Devices, "block", small)
    expected = jg.fit_many(FORMULA, data, responses=Y)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(_Interrupted):
            jg.fit_many(FORMULA, data, responses=Y, file=path)
    header, offset = fits_file.read_header(path)
    table = np.memmap(path, np.float64, "r", offset, tuple(header["shape"]))
    assert (table[:, -1] != PENDING).sum() == 128  # two chunks are there
    del table
    part = jg.Fits.load(path)
    assert part.converged.sum() == 127  # one of them has a missing value
    with monkeypatch.context() as patch:
        done = interrupted_after(patch, 100)
        fits = jg.fit_many(FORMULA, data, responses=Y, file=path)
        # the others, and by itself the one with a missing value
    assert sum(len(set(which)) for which in done) == 150 - 128 + 1
    # other chunks than without a file: equal but for rounding
    for name in ("theta", "p_values"):
        np.testing.assert_allclose(
            getattr(fits, name), getattr(expected, name), rtol=1e-11, atol=1e-12
        )
    with monkeypatch.context() as patch:
        done = interrupted_after(patch, 0)
        again = jg.fit_many(FORMULA, data, responses=Y, file=path)
        assert done == []
    np.testing.assert_array_equal(again.theta, fits.theta)
    loaded = jg.Fits.load(path)
    assert loaded.facts["formula"] == FORMULA
    np.testing.assert_array_equal(loaded.coefficients, fits.coefficients)


def test_a_file_of_another_run_is_refused(tmp_path):
    data, Y = setting(10)
    path = tmp_path / "fits"
    jg.fit_many(FORMULA, data, responses=Y, file=path)
    with pytest.raises(jg.DataError, match=r"another run: .*data"):
        jg.fit_many(FORMULA, data, responses=Y + 1, file=path)
    with pytest.raises(jg.DataError, match="another run"):
        jg.fit_many(FORMULA, data, responses=Y[:, :5], file=path)
    with pytest.raises(jg.DataError, match=r"another run: .*formula"):
        jg.fit_many("y ~ 1 + (1 | g)", data, responses=Y, file=path)
    (tmp_path / "text").write_text("something else")
    with pytest.raises(jg.DataError, match="not a file of fits"):
        jg.fit_many(FORMULA, data, responses=Y, file=tmp_path / "text")


def test_labels_come_back_from_a_file(tmp_path):
    data, Y = setting(3)
    named = pd.DataFrame(Y, columns=["a", "b", "c"])
    jg.fit_many(FORMULA, data, responses=named, file=tmp_path / "fits")
    assert jg.Fits.load(tmp_path / "fits").labels.tolist() == ["a", "b", "c"]


def test_steps_are_not_lost_by_stages():
    """Few steps for all, more for those that need them: the same as many at once."""
    data, Y = setting(40)
    fits = jg.fit_many(FORMULA, data, responses=Y)
    first, most = fits_run.FIRST, fits_run.MOST
    try:
        fits_run.FIRST = 2
        with warnings.catch_warnings():
            warnings.simplefilter("error", jg.ConvergenceWarning)
            other = jg.fit_many(FORMULA, data, responses=Y)
    finally:
        fits_run.FIRST, fits_run.MOST = first, most
    np.testing.assert_allclose(fits.theta, other.theta, rtol=1e-9, atol=1e-9)
    assert other.converged.all()
