"""Programs are kept on disk unasked: where, how many, and what may be in the way."""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import cache as _cache
from doors import hosted, main, store, stored
from doors import program as _program
from doors import programs as programs_in_memory
from doors import runtime_stored as _stored

import jaxglmm as jg

pytestmark = pytest.mark.usefixtures("at_full_effort")

SETTINGS = (*_cache.CHANGED, "jax_enable_compilation_cache")
X = np.arange(3.0)


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """As in a process that asked for nothing, its cache folder being ``tmp_path``."""
    before = settings()
    for name, value in (("_enabled", None), ("_off", False), ("_full", False)):
        monkeypatch.setattr(_cache, name, value)
    monkeypatch.setattr(_cache, "_before", {})
    monkeypatch.delenv("JAXGLMM_CACHE", raising=False)
    monkeypatch.setattr(_cache, "user_cache", lambda: tmp_path)
    monkeypatch.setenv("JAXGLMM_COMPILE", "always")
    jax.config.update("jax_compilation_cache_dir", None)
    _cache._forget_open_cache()  # in which a second run of the tests finds programs
    _cache._private.cache_clear()
    yield tmp_path
    _cache._private.cache_clear()
    for name, value in before.items():
        jax.config.update(name, value)
    _cache._forget_open_cache()


def double(x):
    return 2 * x, [jnp.sum(x)]


double.__module__ = "jaxglmm.nowhere"


def check():
    """A new process would make this object anew too."""
    found = stored(double)(X)
    assert np.asarray(found[0]) == pytest.approx(2 * X)
    assert float(found[1][0]) == 3.0


def programs(folder):
    return sorted(folder.rglob("*.program"))


def is_read(monkeypatch):
    """Whether ``check`` takes what is on disk."""
    with monkeypatch.context() as other:
        other.setattr(_program.Program, "make", None)
        other.setattr(_stored.Stored, "_apart", lambda *_: None)
        try:
            check()
        except TypeError:
            return False
        return True


def test_a_program_is_kept_and_jax_is_left_alone(folder, monkeypatch):
    before = settings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check()
    (path,) = programs(folder)
    here = Path(f"jax-{jax.__version__}") / _cache.processor_identity() / "jaxglmm"
    assert path.parent == folder / here
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0
    assert is_read(monkeypatch)
    assert settings() == before


@pytest.mark.parametrize("word", ["off", "0", "No"])
def test_the_environment_switches_it_off(folder, monkeypatch, word):
    monkeypatch.setenv("JAXGLMM_CACHE", word)
    check()
    assert programs(folder) == []


def test_the_environment_names_another_folder(folder, monkeypatch, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("JAXGLMM_CACHE", str(other))
    check()
    assert programs(folder) == []
    assert len(programs(other)) == 1


def test_a_call_switches_it_off_and_puts_back_what_jax_was_told(folder):
    before = settings()
    jg.enable_compilation_cache(folder / "asked")
    assert settings() != before
    jg.disable_compilation_cache()
    assert settings() == before
    check()
    assert programs(folder) == []
    jg.enable_compilation_cache(folder / "asked")
    check()
    assert len(programs(folder)) == 1


def test_where_jax_keeps_for_the_user_ours_is_read_and_not_written(
    folder, monkeypatch, tmp_path_factory
):
    check()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
    before = settings()
    assert is_read(monkeypatch)
    (path,) = programs(folder)
    path.unlink()
    check()
    assert programs(folder) == []
    assert settings() == before


def full(*_, **__):
    raise OSError(28, "No space left on device")


def read_only(*_, **__):
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("asked_for", [False, True])
@pytest.mark.parametrize(
    ("part", "error"), [("replace", full), ("mkstemp", read_only), ("mkdir", read_only)]
)
def test_what_cannot_be_written_is_no_fault(
    folder, monkeypatch, part, error, asked_for
):
    """One warning where a folder was asked for; else nobody misses it."""
    where = {"replace": os, "mkstemp": tempfile, "mkdir": Path}[part]
    if asked_for:
        monkeypatch.setenv("JAXGLMM_CACHE", str(folder))
    monkeypatch.setattr(where, part, error)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check()
        check()
        fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    assert fit.criterion == pytest.approx(319.6543, abs=1e-3)
    assert [x.category for x in seen] == [jg.CacheWarning] * asked_for
    assert programs(folder) == []


@pytest.mark.skipif(os.name != "posix", reason="owners are POSIX's")
def test_what_is_somebody_elses_is_neither_read_nor_written(folder, monkeypatch):
    check()
    (path,) = programs(folder)
    content = path.read_bytes()
    _cache._private.cache_clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert _cache.program_folder() is None
    assert not is_read(monkeypatch)
    check()
    assert path.read_bytes() == content


def test_a_user_without_a_home_has_no_cache(folder, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_cache, "user_cache", homeless)
    check()


@pytest.mark.parametrize("part", range(6))
def test_another_version_or_processor_is_another_program(folder, monkeypatch, part):
    """Source, JAX, jaxlib, processor, its number, XLA's flags."""
    check()
    facts = list(_stored.machine())
    facts[part] = "another"
    monkeypatch.setattr(_stored, "machine", lambda: tuple(facts))
    assert not is_read(monkeypatch)
    check()
    assert len(programs(folder)) == 2


def test_what_is_half_written_is_made_anew_and_swept_away(folder, monkeypatch):
    check()
    (path,) = programs(folder)
    path.write_bytes(path.read_bytes()[:-100])
    left = path.with_name("tmp1234")
    left.write_bytes(b"of a process that was killed")
    assert not is_read(monkeypatch)
    check()
    assert is_read(monkeypatch)
    store.clean(path.parent)
    assert left.exists()  # somebody may be at work on it
    os.utime(left, (time.time() - 2 * store.STALE,) * 2)
    assert store.clean(path.parent) == 1
    assert programs(folder) == [path]


def files(root, ages, version="jax-0.1"):
    """Programs of 100 bytes, by their age in days."""
    inside = root / version / "processor" / "jaxglmm"
    inside.mkdir(parents=True)
    found = []
    for k, age in enumerate(ages):
        found.append(inside / f"{k}.program")
        found[-1].write_bytes(bytes(100))
        os.utime(found[-1], (time.time() - 86_400 * age,) * 2)
    return found


def test_what_was_not_used_for_long_goes_and_then_the_least_recently_used(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "LARGEST", 400)
    old = files(tmp_path, [1, 3, 90], "jax-0.1")
    new = files(tmp_path, [0, 2, 5], "jax-0.2")
    other = tmp_path / "jax-0.1" / "processor" / "jax's own"
    other.write_bytes(bytes(1000))
    assert store.clean(new[0].parent) == 3  # one too old, then five where three may be
    assert [path.exists() for path in old] == [True, False, False]
    assert [path.exists() for path in new] == [True, True, False]
    assert other.exists()


def test_reading_a_program_makes_it_the_most_recently_used(folder, monkeypatch):
    check()
    (path,) = programs(folder)
    before = time.time() - 5 * 86_400
    os.utime(path, (before, before))
    assert is_read(monkeypatch)
    assert path.stat().st_mtime > before + 86_400


def test_numpy_gives_way_to_a_program_on_disk(monkeypatch):
    """At the moment where it begins to take long, and not to one that is not there."""
    monkeypatch.delenv("JAXGLMM_COMPILE", raising=False)
    monkeypatch.setattr(hosted, "READS", 0.02)

    def run():
        return hosted.host.while_loop(lambda k: k < 60, lambda k: k + used(0.001), 0)

    def used(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return 1

    def attempt(name, kept):
        return hosted.attempt(name, [], run, lambda: "program", kept)

    asked = []
    assert attempt("on disk", lambda: True) == "program"
    assert attempt("nowhere", lambda: asked.append(1)) == 60
    assert attempt("nowhere", lambda: asked.append(1)) == 60
    assert asked == [1]


BATCHES = ("Yield ~ 1 + (1 | Batch)", "Dyestuff")


def test_warm_makes_what_is_missing_and_leaves_the_rest(folder, monkeypatch):
    monkeypatch.delenv("JAXGLMM_COMPILE")
    programs_in_memory.drop()
    first = jg.warm(BATCHES)
    assert list(first["formula"]) == [BATCHES[0]]
    made = int(first["made"].iloc[0])
    assert made == len(programs(folder)) > 1
    programs_in_memory.drop()
    again = jg.warm(BATCHES)
    assert list(zip(again["made"], again["there"], strict=True)) == [(0, made)]


def test_warm_says_what_it_cannot_do(folder, capsys):
    with pytest.raises(jg.ArgumentError, match="tuple"):
        jg.warm("y ~ x + (1 | g)")
    assert main(["warm", "data.csv"]) == 2
    assert "a table needs a formula" in capsys.readouterr().err
    jg.disable_compilation_cache()
    with pytest.raises(jg.NotApplicableError, match="not kept"):
        jg.warm(BATCHES)


def test_warm_from_the_command_line(folder, capsys, monkeypatch):
    from doors import warm as room

    monkeypatch.setattr(room, "USUAL", ((*BATCHES, "gaussian"),))
    assert main(["warm"]) == 0
    said = capsys.readouterr()
    assert "programs made" in said.out
    assert "Dyestuff: Yield ~ 1 + (1 | Batch), gaussian ... " in said.err


@pytest.mark.slow
def test_a_second_process_reads_what_a_first_one_made(tmp_path):
    code = """
import json, jax
import jaxglmm as jg
made = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: made.append(event) if "backend_compile" in event else 0
)
fit = jg.lmm("Reaction ~ Days + (Days | Subject)", jg.datasets.load("sleepstudy"))
print(json.dumps([str(fit.summary()), len(made)]))
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"JAXGLMM_CACHE": str(tmp_path), "JAXGLMM_COMPILE": "always"}
    (first, before), (second, after) = (
        json.loads(subprocess.check_output([sys.executable, "-c", code], env=env))
        for _ in range(2)
    )
    assert first == second
    assert before > 0
    assert after == 0
