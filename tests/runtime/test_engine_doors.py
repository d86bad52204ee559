"""Dask, Ray, Spark and MPI run ``fit_many``: the table of threads in one process."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

J, ROWS, D = 8, 5, 40
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def long_table():
    rng = np.random.default_rng(3)
    g = np.tile(np.repeat(np.arange(J), ROWS), D)
    x = np.tile(np.arange(float(ROWS)), J * D)
    own = np.repeat(np.arange(D), J * ROWS)
    y = 1 + x + rng.normal(size=(D, J))[own, g] + rng.normal(size=len(g))
    y[own == 7] = 3.0  # constant: a status
    return pd.DataFrame({"y": y, "x": x, "g": g, "id": own})


def fitted(executor=None):
    with pytest.warns(jg.ConvergenceWarning):
        return jg.fit_many(
            "y ~ x + (1 | g)",
            long_table(),
            by="id",
            devices="cpu",
            executor=executor,
        )


@pytest.fixture(scope="module")
def here():
    return fitted()


def same(one, two):
    np.testing.assert_array_equal(one.status, two.status)
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-9)
    np.testing.assert_allclose(one.log_likelihood, two.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-7, atol=1e-9)


@pytest.fixture
def nothing_here(monkeypatch):
    """What an engine loses is not made up for by this process."""
    from doors import shipping

    def lost(piece):
        raise AssertionError("a piece was fitted here")

    monkeypatch.setattr(shipping, "rows", lost)


@pytest.mark.extras
@pytest.mark.usefixtures("nothing_here")
def test_dask(dask_here, here):
    same(fitted(jg.executors.dask(dask_here)), here)
    same(fitted(jg.executors.dask()), here)  # the current one
    same(fitted(dask_here), here)


@pytest.mark.extras
@pytest.mark.usefixtures("nothing_here", "ray_here")
def test_ray(here):
    same(fitted(jg.executors.ray(num_cpus=1)), here)


@pytest.mark.extras
@pytest.mark.usefixtures("nothing_here")
def test_spark(spark_here, here):
    with jg.executors.spark(spark_here) as pool:
        same(fitted(pool), here)


@pytest.mark.extras
def test_mpi(tmp_path):
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which(
        "mpiexec", path=os.path.dirname(sys.executable)
    ) or shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np, jaxglmm as jg\n"
        "if __name__ == '__main__':\n"
        "    sleep = jg.datasets.load('sleepstudy')\n"
        "    f = 'Reaction ~ Days + (1 | Subject)'\n"
        "    Y = jg.lmm(f, sleep).simulate(20, seed=1).T\n"
        "    given = dict(responses=Y, devices='cpu')\n"
        "    here = jg.fit_many('y ~ Days + (1 | Subject)', sleep, **given)\n"
        "    with jg.executors.mpi() as pool:\n"
        "        given['executor'] = pool\n"
        "        there = jg.fit_many('y ~ Days + (1 | Subject)', sleep, **given)\n"
        "    assert np.allclose(here.coefficients, there.coefficients, rtol=1e-9)\n"
        "    print('equal', len(there))\n"
    )
    command = [mpiexec, "--oversubscribe", "--allow-run-as-root", "-n", "2"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "mpi4py.futures", str(program)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "equal 20" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("door", "module"),
    [("dask", "distributed"), ("ray", "ray"), ("spark", "pyspark"), ("mpi", "mpi4py")],
)
def test_an_engine_that_is_not_installed(door, module, monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(jg.ArgumentError, match=rf"pip install 'jaxglmm\[{door}\]'"):
        getattr(jg.executors, door)()


@pytest.mark.extras
def test_what_is_no_client():
    pytest.importorskip("distributed")
    with pytest.raises(jg.ArgumentError, match=r"distributed\.Client"):
        jg.executors.dask(4)
