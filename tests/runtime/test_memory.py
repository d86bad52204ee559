"""Compiled programs in memory: a bound on their number, and the oldest go first."""

import contextlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import Programs, stored
from doors import memory as _memory
from doors import runtime_stored as _stored

import jaxglmm as jg

pytestmark = pytest.mark.usefixtures("always_compiled")


@contextlib.contextmanager
def compiled():
    """The names of what is compiled meanwhile."""
    names = []

    def listen(event, seconds, fun_name="", **_):
        if event == _memory.COMPILED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def few(monkeypatch):
    """Room for six programs, none of them on disk."""
    table = Programs(most=6)
    monkeypatch.setattr(_stored, "programs", table)
    monkeypatch.setattr(_stored._cache, "_enabled", None)
    return table


def shifted(x):
    """A function that compiles quickly."""
    return jnp.cumsum(x) + 20261130.0


def call(function, n):
    found = function(np.arange(float(n), dtype="float32"))
    assert found.shape == (n,)


def test_a_loop_over_five_shapes_compiles_five_programs(few):
    function = stored(shifted)
    with compiled() as names:
        for _ in range(4):
            for n in range(1, 6):
                call(function, n)
    assert len(names) == 5


def test_the_least_recently_used_goes(few):
    function = stored(shifted)
    for n in (6, 1, 2, 3, 4, 5):
        call(function, n)
    with compiled() as names:
        for n in range(7, 30):  # new ones come, and five old ones stay in use
            call(function, n)
            for old in range(1, 6):
                call(function, old)
    assert len(names) == 23
    assert len(few) == 6
    with compiled() as names:
        call(function, 6)
    assert len(names) == 1


def test_what_was_dropped_is_free(few):
    """JAX holds on to nothing, so that the memory maps are free again."""
    if not _memory.maps_in_use():
        pytest.skip("only Linux counts memory maps")

    def many_kernels(x):
        for i in range(4):
            x = jnp.sort(jnp.cumsum(x[::-1]) * i)
        return x

    function = stored(many_kernels)
    call(function, 3)
    seen = []
    for n in range(4, 14):
        call(function, n)
        few.spare()
        seen.append(_memory.maps_in_use())
    few.drop()
    few.spare()
    a_program = (seen[4] - _memory.maps_in_use()) / 6
    assert a_program > 3
    assert max(seen[6:]) < seen[5] + 3 * a_program


def test_both_forms_of_a_call_agree(few):
    """By a program of its own, and inside another jitted function."""
    function = stored(shifted, fast=False)
    x = np.arange(5.0, dtype="float32")
    np.testing.assert_array_equal(function(x), jax.jit(function)(x))
    np.testing.assert_array_equal(function(x), function(x=x))
    assert len(few) == 1


@pytest.mark.parametrize(("left", "cleared"), [(0, 0), (100, 1)])
def test_programs_go_where_memory_maps_run_short(monkeypatch, left, cleared):
    """The older half; then, where that is not enough, everything."""
    calls = []
    table = Programs(most=8)
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append("clear"))
    monkeypatch.setattr(_memory, "give_back", lambda: calls.append("give back"))
    monkeypatch.setattr(_memory, "maps_in_use", lambda: 100 if len(table) > 4 else left)
    monkeypatch.setattr(_memory, "maps_granted", lambda: 50)
    for i in range(8):
        table.keep(i, object())
    table.spare()
    assert calls == []  # nothing was compiled
    table.compiled = _memory.OFTEN
    table.spare()
    assert calls == ["clear"] * cleared + ["give back"]
    assert len(table) == (0 if cleared else 4)
    assert table.get(7) is None if cleared else table.get(7) is not None
    assert table.get(0) is None


def test_fits_go_on_after_everything_was_dropped():
    before = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    assert _memory.programs.compiled is not None
    _memory.programs.drop()
    jax.clear_caches()
    _memory.give_back()
    after = before.refit(before.design.y)
    assert after.criterion == pytest.approx(before.criterion, rel=1e-12)


def test_the_bound_is_one_of_the_system():
    assert 0 < _memory.maps_granted() <= _memory.MAPS
    if sys.platform == "linux":
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
        assert _memory.maps_in_use() < limit


def test_the_bound_holds_without_linux(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "read_bytes", missing)
    assert _memory.maps_in_use() == 0
    assert _memory.maps_granted.__wrapped__() == _memory.MAPS
