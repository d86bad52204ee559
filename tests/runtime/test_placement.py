"""Which device a fit is on, where one of two forced CPUs plays the GPU."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from doors import Devices, choose, devices, large_crossed, placement

SCRIPT = """
    import json, os, sys
    import jax
    import numpy as np
    import pandas as pd
    from doors import hosted, placement

    gpu, cpu = jax.devices()
    if sys.argv[1] == "gpu":  # the default device plays it
        placement.platform = lambda device: "gpu" if device == gpu else "cpu"
        placement.host = lambda: cpu
    import jaxglmm as jg

    placement.WORTH_ONE = int(sys.argv[2])
    run = {"always": 0}
    plain = hosted.attempt

    def attempt(key, leaves, numpy, otherwise, kept=lambda: False):
        run["always"] += hosted.suits(key, leaves, kept)
        return plain(key, leaves, numpy, otherwise, kept)

    hosted.attempt = attempt
    rng = np.random.default_rng(3)
    n, J = 240, 12
    g, h = np.repeat(np.arange(J), n // J), rng.integers(0, 6, n)
    x = rng.normal(size=n)
    eta = 0.3 * x + (rng.normal(size=J) + rng.normal(size=J) * 0.1)[g]
    y = eta + 0.4 * rng.normal(size=6)[h] + rng.normal(size=n)
    c = rng.poisson(np.exp(0.5 * eta)) * 1.0
    data = pd.DataFrame({"x": x, "g": g, "h": h, "y": y, "c": c})

    def fits():
        yield jg.lmm("y ~ x + (x | g)", data), y
        yield jg.lmm("y ~ x + (1 | g) + (1 | h)", data), y
        yield jg.glmm("c ~ x + (1 | g)", data, family="poisson"), c

    def on(fit):
        leaves = [x for x in jax.tree.leaves(fit.engine.base) if hasattr(x, "devices")]
        found = {d.id for x in leaves for d in x.devices()}
        return sorted(found)

    def answers(fit, y):
        again = fit.refit(np.roll(y, 1))
        return [fit.criterion, *fit.coef.tolist(), *fit.se.tolist(), again.criterion]

    def all_of():
        made = list(fits())
        return {"on": [on(f) for f, _ in made], "found": [answers(*f) for f in made]}

    out = {"by size": all_of()}
    with jg.on_devices(gpu):
        out["gpu"] = all_of()
    with jg.on_devices(cpu):
        out["cpu"] = all_of()
    out["in numpy"] = run["always"]
    Y = np.column_stack([y, np.roll(y, 1)])
    many = jg.fit_many("y ~ x + (1 | g)", data, responses=Y)
    out["many"] = [many.facts["devices"], many.log_likelihood.tolist()]
    print(json.dumps(out))
"""


def run(kind, worth, **extra):
    root = Path(__file__).parent.parent
    flag = "--xla_force_host_platform_device_count=2"
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}",
        "PYTHONPATH": os.pathsep.join([str(root), str(root.parent)]),
        **extra,
    }
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), kind, str(worth)],
        capture_output=True,
        text=True,
        env=env,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads(out.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plain():
    """Without a GPU."""
    return run("none", 10**6)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_small_fits_are_on_the_host_beside_a_gpu(plain, compiled):
    more = {"JAXGLMM_COMPILE": "always"} if compiled else {}
    found = run("gpu", 10**6, **more)
    assert found["by size"]["on"] == [[1]] * 3
    assert found["cpu"]["on"] == [[1]] * 3
    assert found["gpu"]["on"] == [[0]] * 3  # where the user says so
    assert (found["in numpy"] > 0) == (not compiled)
    same(found, plain)


@pytest.mark.slow
def test_large_fits_are_on_the_gpu(plain):
    found = run("gpu", 1)
    assert found["by size"]["on"] == [[0]] * 3
    assert found["cpu"]["on"] == [[1]] * 3
    same(found, plain)


def test_without_a_gpu_nothing_is_moved(plain):
    assert plain["by size"]["on"] == [[0]] * 3
    assert plain["in numpy"] > 0
    same(plain, plain)


def same(found, plain):
    """The numbers of all three are those of a fit without a GPU."""
    for kind in ("by size", "gpu", "cpu"):
        for one, other in zip(
            found[kind]["found"], plain["by size"]["found"], strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found["many"][1], plain["many"][1], rtol=1e-9)


# Many models --------------------------------------------------------------------------


class Pretended:
    """A device of some kind, as far as choosing asks."""

    def __init__(self, platform, kind="NVIDIA H200"):
        self.platform, self.device_kind = platform, kind


@pytest.fixture
def beside(monkeypatch):
    """A GPU and a CPU."""
    gpu, cpu = Pretended("gpu"), Pretended("cpu", "cpu")
    known = {None: [gpu], "gpu": [gpu], "cpu": [cpu]}
    monkeypatch.setattr(
        devices.jax, "local_devices", lambda backend=None: known[backend]
    )
    return gpu, cpu


def test_many_models_go_to_the_gpu_by_size(beside):
    gpu, cpu = beside
    assert choose("all", devices.WORTH).devices == (gpu,)
    assert choose("all", devices.WORTH - 1).devices == (cpu,)
    assert choose("gpu", 1.0).devices == (gpu,)
    assert choose("cpu", 1e12).devices == (cpu,)
    assert choose(gpu, 1.0).devices == (gpu,)


def test_little_work_is_done_in_numpy_on_a_cpu_alone(beside):
    assert choose("cpu", devices.LITTLE)._on_host
    assert not choose("cpu", devices.LITTLE + 1)._on_host
    assert not choose("gpu", 1.0)._on_host


def test_chunks_and_threads_of_a_gpu():
    one = Devices((Pretended("gpu"),))
    assert one.threads == 1
    assert one.describe() == "NVIDIA H200"
    assert Devices((Pretended("gpu"),) * 2).describe() == "2 x NVIDIA H200"
    least, most = devices.ACCELERATOR_LANES
    assert one.chunk(10, 8192, (8, 512)) == most  # not those of a CPU's cache
    assert one.chunk(10**5, 8192, (8, 512)) == 256
    assert one.chunk(10**9, 8192, (8, 512)) == least
    assert one.block(4096, 10) == 4096  # a chunk at a time


# One model ----------------------------------------------------------------------------


@pytest.fixture
def accelerated(monkeypatch):
    """As where JAX's default device is a GPU."""
    monkeypatch.setattr(placement, "accelerated", lambda: True)
    monkeypatch.setattr(placement, "platform", lambda device: device)
    monkeypatch.setattr(placement, "host", lambda: "cpu")


def test_one_model_is_on_the_host_below_a_size(accelerated):
    small = [np.zeros(placement.WORTH_ONE - 2), 1.0]
    assert placement.on_host(small)
    assert not placement.on_host([*small, 1.0])


def test_large_crossed_factors_are_on_a_gpu_whose_memory_takes_them(monkeypatch):
    plain = large_crossed.most_on_device(20_000)
    assert plain == large_crossed.LARGE
    monkeypatch.setattr(placement, "memory", lambda: 139 * 2.0**30)
    assert large_crossed.most_on_device(20_000) == 20_000  # exact ones, all of them
    assert large_crossed.most_on_device(10**6) < 2_000
    monkeypatch.setattr(placement, "memory", lambda: 8 * 2.0**30)
    m = large_crossed.most_on_device(20_000)
    used = 8 * large_crossed.MATRICES * m * (m + 20_000)
    assert 0.79 < used / (8 * 2.0**30) <= 0.8


def test_memory_is_that_of_the_device_in_use(accelerated, monkeypatch):
    class Stats:
        def memory_stats(self):
            return {"bytes_limit": 5}

    monkeypatch.setattr(placement, "first", Stats)
    assert placement.memory() == 5
    with placement.chosen(None):
        assert placement.memory() == 5
    monkeypatch.setattr(placement.jax, "default_device", lambda d: nullcontext())
    with placement.chosen("cpu"):
        assert placement.memory() is None


def test_without_the_cpu_all_is_on_the_gpu(accelerated, monkeypatch):
    monkeypatch.setattr(placement, "host", lambda: None)
    assert not placement.on_host([1.0])
