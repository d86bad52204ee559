"""Chunks, blocks and devices."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from doors import Devices, choose

from jaxglmm import ModelError


def test_the_device_is_chosen_and_said():
    found = choose("all", 1e3)
    assert found.kind == "cpu"
    assert "cpu" in found.describe()
    assert choose(jax.devices()[0], 1.0).devices == (jax.devices()[0],)
    assert choose(jax.devices()[:1], 1.0).devices == tuple(jax.devices()[:1])


@pytest.mark.parametrize(
    ("wanted", "text"),
    [("tpu9", "is not one of"), (3, "pass 'all'"), ([], "pass 'all'")],
)
def test_what_is_no_device(wanted, text):
    with pytest.raises(ModelError, match=text):
        choose(wanted, 1.0)


def test_a_gpu_that_is_not_there():
    if any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("there is one")
    with pytest.raises(ModelError, match="sees no GPU"):
        choose("gpu", 1.0)


def test_chunks_fit_cache_and_memory():
    one = choose("cpu", 1.0)
    assert one.chunk(1, 8192, (8, 512)) == 512
    assert one.chunk(100, 8192, (8, 512)) == 64
    assert one.chunk(10**9, 8192, (8, 512)) == 8
    assert one.block(64, 100) > 64
    assert one.block(64, 10**9) == 64  # never less than a chunk


def _double(shared, lanes):
    return lanes * shared + lanes.shape[-1]


def test_chunks_are_put_together_in_order():
    one = Devices((jax.devices("cpu")[0],))
    x = np.arange(24.0).reshape(2, 12)
    out = one.run(_double, np.float64(2.0), x, 4)
    np.testing.assert_array_equal(out, 2 * x + 4)


def test_threads_compile_a_program_once():
    traced = []

    def program(shared, lanes):
        traced.append(lanes.shape)
        return shared + lanes

    one = Devices((jax.devices("cpu")[0],))
    blocks = [np.full(8, k, np.float32) for k in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda x: one.run(program, np.float32(1), x, 8), blocks))
    np.testing.assert_array_equal(found, np.stack(blocks) + 1)
    assert len(traced) == 1
