"""Programs on disk that a fresh process need not trace: found, trusted, or left."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import Fitted, Module, Stored, Unsuitable, integrator, stored
from doors import cache as _cache
from doors import jax_internals as _internals
from doors import program as _program
from doors import runtime_stored as _stored

import jaxglmm as jg
from jaxglmm.model.families import family_from

pytestmark = pytest.mark.usefixtures("always_compiled", "at_full_effort")


@pytest.fixture
def folder(tmp_path):
    """The cache in use, and JAX's settings as they were afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jg.enable_compilation_cache(tmp_path)
    yield _cache.program_folder()
    for name, value in before.items():
        jax.config.update(name, value)
    _cache._forget_open_cache()


def double(x, scale):
    """A function as those of the package."""
    return 2 * x, [jnp.sum(x) * scale]


double.__module__ = "jaxglmm.nowhere"
X = np.arange(3.0)


def programs(folder):
    return sorted(folder.glob("*.program"))


def check(found, scale=2.0):
    assert np.asarray(found[0]) == pytest.approx(2 * X)
    assert float(found[1][0]) == pytest.approx(scale * X.sum())


def test_a_program_is_written_and_found(folder, monkeypatch):
    check(stored(double)(X, 2.0))
    (path,) = programs(folder)
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
        assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(_program.Program, "make", None)
    again = stored(double)
    monkeypatch.setattr(again, "_apart", lambda *_: None)  # nothing else would do
    check(again(X, 2.0))
    check(again(X, 3.0), 3.0)
    assert programs(folder) == [path]


def test_other_shapes_types_and_settings_are_other_programs(folder):
    function = stored(double)
    function(X, 2.0)
    function(X[:2], 2.0)
    function(X, np.float32(2.0))
    with jax.enable_x64(True):
        function(X, 2.0)
    assert len(programs(folder)) == 4


def flipped(content):
    """One bit of the code is another."""
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(flipped(path.read_bytes())),
        lambda path: path.chmod(0o622),
    ],
)
def test_a_damaged_or_open_file_is_not_read(folder, damage):
    check(stored(double)(X, 2.0))
    (path,) = programs(folder)
    damage(path)
    with pytest.raises((ValueError, PermissionError)):
        _program.Program.read(path)
    check(stored(double)(X, 2.0))  # made again
    _program.Program.read(path)


def test_a_file_of_another_program_is_not_read(folder):
    """The shapes agree and the result would be wrong."""
    check(stored(double)(X, 2.0))
    (path,) = programs(folder)
    other = path.with_name("0" * 64 + ".program")
    shutil.copy(path, other)
    with pytest.raises(ValueError, match="for something else"):
        _program.Program.read(other)


def test_two_writers_and_a_reader_see_whole_files(folder):
    check(stored(double)(X, 2.0))
    (path,) = programs(folder)
    content, seen = path.read_bytes(), set()
    writers = [
        threading.Thread(
            target=lambda: [_program._write_whole(path, content) for _ in range(200)]
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    assert seen <= {content}
    assert list(folder.iterdir()) == [path]


def cholesky(x):
    """Calls LAPACK by pointer."""
    return jnp.linalg.cholesky(x @ x.T + 9 * jnp.eye(9))


cholesky.__module__ = "jaxglmm.nowhere"
SQUARE = np.random.default_rng(0).normal(size=(9, 9))


def check_cholesky(found):
    with jax.enable_x64(True):
        half = np.asarray(found)
    assert half @ half.T == pytest.approx(SQUARE @ SQUARE.T + 9 * np.eye(9), rel=1e-4)


def test_what_a_program_calls_is_written_and_asked_for(folder, monkeypatch):
    """Null pointers end a process, so code that would follow one is not read."""
    check_cholesky(stored(cholesky)(SQUARE))
    (path,) = programs(folder)
    head = json.loads(path.read_bytes().split(b"\n", 2)[1])
    assert head["calls"]
    assert all(re.fullmatch(r"lapack_s\w+_ffi", name) for name in head["calls"])
    asked = []
    ready = _internals.lapack_ready
    monkeypatch.setattr(
        _internals,
        "lapack_ready",
        lambda names: asked.append(list(names)) or ready(names),
    )
    _program.Program.read(path)
    assert asked == [head["calls"]]


@pytest.mark.parametrize("part", ["registrations", "_lapack"])
def test_a_jaxlib_of_another_make_reads_no_program_that_calls(
    folder, monkeypatch, part
):
    from jaxlib import lapack

    check_cholesky(stored(cholesky)(SQUARE))
    (path,) = programs(folder)
    with monkeypatch.context() as other:
        other.delattr(lapack, part)
        other.setattr(_internals, "_lapack", _internals._lapack.__wrapped__)
        assert not _internals.lapack_ready(["lapack_dpotrf_ffi"])
        with pytest.raises(Unsuitable, match="cannot be called"):
            _program.Program.read(path)
    path.unlink()
    monkeypatch.setattr(_internals, "_lapack", frozenset)
    check_cholesky(stored(cholesky)(SQUARE))
    assert programs(folder) == []  # nor is one written
    check(stored(double)(X, 2.0))  # others are
    assert len(programs(folder)) == 1


def test_what_jaxlib_offers_is_what_is_asked_for():
    """The private part of jaxlib is still where it is looked for."""
    assert _internals.lapack_ready(["lapack_dpotrf_ffi", "lapack_dtrsm_ffi"])
    assert not _internals.lapack_ready(["lapack_dpotrf_ffi", "somebody_elses"])


@pytest.mark.parametrize("part", ["_trace_context", "load", "execute"])
def test_a_jax_without_what_is_behind_its_interface_computes_all_the_same(
    folder, monkeypatch, part
):
    """Found on disk, called again, and other numbers: ``jax.jit`` does it then."""

    def lacking(*_):
        raise _internals.Missing(part)

    check(stored(double)(X, 2.0))
    monkeypatch.setattr(
        _internals, part, (lambda: None) if part == "_trace_context" else lacking
    )
    again = stored(double)
    check(again(X, 2.0))
    check(again(X, 3.0), 3.0)


def test_what_lies_behind_the_interface_of_this_jax_is_there():
    known = _internals.trace_settings()
    with jax.enable_x64(True):
        assert known is not None
        assert known != _internals.trace_settings()
    with _cache.set_aside():
        compiled = jax.jit(jnp.sin).lower(X).compile().runtime_executable()
    device = jax.devices()[0]
    (found,) = _internals.execute(_internals.load(compiled.serialize(), device), [X])
    assert np.asarray(found) == pytest.approx(np.sin(X))


def called_back(x):
    """Calls into Python: by a pointer that is good in this process alone."""
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


called_back.__module__ = "jaxglmm.nowhere"


def test_a_program_that_calls_back_is_not_written(folder):
    x = X.astype("float32")
    assert np.asarray(stored(called_back)(x)) == pytest.approx(np.sin(x))
    assert programs(folder) == []


def test_a_disk_that_fills_up_is_said_once(folder, monkeypatch):
    made = []

    def full(*_):
        raise OSError(28, "No space left on device")

    make = _program.Program.make
    monkeypatch.setattr(
        _program.Program, "make", lambda *args: made.append(1) or make(*args)
    )
    monkeypatch.setattr(os, "replace", full)
    function = stored(double)
    with pytest.warns(jg.CacheWarning, match="No space left") as seen:
        check(function(X, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(function(X, 2.0))
        stored(fused)(X)
        jax.jit(lambda x: x * 20261130.0)(2.0)
    assert len(seen) == 1
    assert list(folder.iterdir()) == []
    assert len(made) == 2  # each compiled once


def fused(x):
    """Several kernels, each a function in the executable."""
    order = jnp.argsort(x)
    return jnp.cumsum(jnp.where(x[order] > 1.0, x, 0.0)), jnp.sum(jnp.exp(x) > 2.0)


fused.__module__ = "jaxglmm.nowhere"


def test_a_program_that_jax_keeps_is_not_serialised_twice(folder):
    """An executable from JAX's own cache would lose functions on the way."""
    jitted = stored(fused)
    expected = jax.device_get(jitted._jitted(X))  # now in JAX's cache
    jax.clear_caches()
    stored(fused)(X)
    (path,) = programs(folder)
    found = jax.device_get(_program.Program.read(path)(X))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_program_that_does_not_run_is_made_again(folder, monkeypatch):
    check(stored(double)(X, 2.0))
    (path,) = programs(folder)
    run, read = _program.Program.__call__, []

    def fails_once(self, *leaves):
        read.append(self)
        if len(read) == 1:
            raise RuntimeError("Function not found")
        return run(self, *leaves)

    monkeypatch.setattr(_program.Program, "__call__", fails_once)
    check(stored(double)(X, 2.0))
    assert len(read) == 2
    assert programs(folder) == [path]


def test_without_the_cache_nothing_is_kept(folder):
    function = stored(double)
    jax.config.update("jax_compilation_cache_dir", None)
    assert _cache.program_folder() is None
    check(function(X, 2.0))
    assert programs(folder) == []


@pytest.mark.parametrize("kept", [True, False])
def test_programs_of_large_arguments_give_back_what_compiling_took(
    folder, kept, monkeypatch
):
    """Before they run, once; and run again as others do."""
    if not kept:
        jax.config.update("jax_compilation_cache_dir", None)
    given = []
    monkeypatch.setattr(_stored, "give_back", lambda: given.append(True))
    monkeypatch.setattr(_stored, "LARGE", X.nbytes - 1)
    function = stored(double)
    for scale in (2.0, 3.0):
        check(function(X, scale), scale)
    assert given == [True]


def test_a_call_inside_another_program_is_the_ordinary_one(folder):
    function = stored(double, fast=False)  # no options of the compiler inside
    check(jax.jit(function)(X, 2.0))
    rows = jax.vmap(lambda x: function(x, 2.0)[1][0])(np.stack([X, X + 1]))
    assert np.asarray(rows) == pytest.approx([6.0, 12.0])
    assert programs(folder) == []


def test_what_is_not_of_the_package_is_not_kept(folder):
    """A user's function or family may change and keep its name."""

    class Mine(Module):
        x: np.ndarray

    def own(x):
        return jnp.sum(x)

    assert float(stored(own)(X)) == 3.0
    function = stored(double)
    with pytest.raises(Unsuitable):
        _stored.describe([Mine(X)])
    assert float(jax.jit(lambda m: m.x.sum())(Mine(X))) == 3.0
    check(function(X, 2.0))
    assert len(programs(folder)) == 1


def test_arguments_are_described_by_structure_and_type():
    with jax.enable_x64(True):
        logit, probit = (
            _stored.describe(family_from(x))
            for x in ("binomial", jg.Binomial(link="probit"))
        )
        assert logit != probit
        assert _stored.describe([X]) == _stored.describe([X + 1])
        assert _stored.describe([X]) != _stored.describe([X.astype(int)])
    a = _stored.describe([integrator("observed", 5)], static=True)
    assert a != _stored.describe([integrator("observed", 7)], static=True)
    with pytest.raises(Unsuitable):
        _stored.describe([X], static=True)
    with pytest.raises(Unsuitable):
        _stored.describe([object()])


def test_results_go_through_text():
    result = Fitted(0, 1, 2, 3, (4, 5), 6, 7, 8, 9)
    back = _program.decode(json.loads(json.dumps(_program.encode(result))))
    assert jax.tree.structure(back) == jax.tree.structure(result)
    assert jax.tree.leaves(back) == list(range(10))
    with pytest.raises(Unsuitable):
        _program.encode(integrator())
    with pytest.raises(Unsuitable):
        _program.decode({"kind": "os:stat_result", "fields": {}})


def test_the_hot_functions_are_kept():
    from doors import estimate_generalised as laplace
    from doors import hessian, information, maximise

    kept = (laplace.fit_numbers, hessian.hessian, maximise.fit_numbers)
    assert all(isinstance(f, Stored) for f in (*kept, information.curvature))


def test_a_second_process_traces_nothing(tmp_path):
    """Fit, standard errors and summary of both kinds of models."""
    code = f"""
import json, jax
import jaxglmm as jg
jg.enable_compilation_cache({str(tmp_path)!r})
traced = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: traced.append(event) if "jaxpr_to_mlir" in event else 0
)
sleep, cbpp = jg.datasets.load("sleepstudy"), jg.datasets.load("cbpp")
fits = (
    jg.lmm("Reaction ~ Days + (Days | Subject)", sleep),
    jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp),
)
print(json.dumps([[f.summary() for f in fits], len(traced)]))
"""
    (first, before), (second, after) = (fresh("-c", code) for _ in range(2))
    assert first == second
    assert before > 0
    assert after == 0


@pytest.mark.slow
@pytest.mark.parametrize("asked_for", [True, False])
def test_programs_of_every_kind_are_read_by_a_second_process(
    tmp_path, monkeypatch, asked_for
):
    """Nothing that is read ends the process, and the numbers are the same."""
    monkeypatch.setenv("JAXGLMM_CACHE", str(tmp_path))
    words = [str(Path(__file__).with_name("programs.py"))]
    words += [str(tmp_path)] * asked_for
    first, second = (fresh(*words) for _ in range(2))
    assert first == second
    assert all(np.isfinite(number) for _, number in first)
    assert list(tmp_path.glob("*/*/jaxglmm/*.program"))


def fresh(*words):
    """What a process without this one's cache prints, as JSON."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run([sys.executable, *words], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)
