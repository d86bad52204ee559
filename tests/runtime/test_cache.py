"""The folder of compiled programs: where it is, who may read it, that it is used."""

import json
import os
import stat
import subprocess
import sys
import warnings

import jax
import pytest
from doors import cache as _cache

import jaxglmm as jg


@pytest.fixture
def settings():
    """JAX's settings as they were, afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    _cache._forget_open_cache()


def test_folder_is_private_and_named_for_version_and_processor(tmp_path, settings):
    path = jg.enable_compilation_cache(tmp_path)
    assert path == tmp_path / f"jax-{jax.__version__}" / _cache.processor_identity()
    assert jax.config.jax_compilation_cache_dir == str(path)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_programs_are_written(tmp_path, settings):
    path = jg.enable_compilation_cache(tmp_path)
    jax.jit(lambda x: x * 3.25 + 1)(2.0)
    files, size = _cache.cache_size(path)
    assert files >= 1
    assert size > 0


def test_the_environment_variable_is_taken_as_it_is(tmp_path, settings, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert jg.enable_compilation_cache() == tmp_path / "mine"
    elsewhere = tmp_path / "elsewhere"
    assert jg.enable_compilation_cache(elsewhere).is_relative_to(elsewhere)


def test_the_default_is_below_the_users_cache(monkeypatch, tmp_path):
    if sys.platform != "linux":
        pytest.skip("Linux's custom")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.user_cache() == tmp_path / "jaxglmm"


def full(path):
    raise OSError(28, "No space left on device")


def stranger(path, own):
    raise PermissionError("it belongs to another user")


@pytest.mark.parametrize(
    ("part", "change"), [("_try_writing", full), ("_prepare", stranger)]
)
def test_a_folder_that_cannot_be_used_is_one_warning(
    tmp_path, settings, monkeypatch, part, change
):
    """Read-only, full, or somebody else's: fits are right all the same."""
    monkeypatch.setattr(_cache, part, change)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        path = jg.enable_compilation_cache(tmp_path)
        fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
        jax.jit(lambda x: x * 3.5 + 20261130)(2.0)
    assert [str(x.message) for x in seen if x.category is not jg.CacheWarning] == []
    assert len(seen) == 1
    assert "fits are right" in str(seen[0].message)
    assert fit.criterion == pytest.approx(319.6543, abs=1e-3)
    assert _cache.cache_size(path)[0] == 0


def test_a_file_in_the_place_of_the_folder_is_one_warning(tmp_path, settings):
    place = tmp_path / "file"
    place.write_text("in the way")
    before = jax.config.jax_compilation_cache_dir
    with pytest.warns(jg.CacheWarning, match="not kept") as seen:
        jg.enable_compilation_cache(place)
    assert len(seen) == 1
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.skipif(os.name != "posix", reason="owners are POSIX's")
def test_a_folder_of_somebody_else_is_not_used(tmp_path, settings, monkeypatch):
    jg.enable_compilation_cache(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.warns(jg.CacheWarning, match="another user"):
        jg.enable_compilation_cache(tmp_path)


def test_what_jax_cannot_read_is_no_warning(tmp_path, settings):
    path = jg.enable_compilation_cache(tmp_path)

    def compute():
        return float(jax.jit(lambda x: x * 2.25 + 20261129)(4.0))

    expected = compute()
    files = [f for f in path.iterdir() if f.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:50])
    jax.clear_caches()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        jg.enable_compilation_cache(tmp_path)
        assert compute() == expected
    assert seen == []


def test_the_identity_is_stable():
    first = _cache.processor_identity()
    assert first == _cache.processor_identity()
    assert len(first) == 12


def test_a_second_process_finds_the_programs(tmp_path):
    code = f"""
import json, jax
import jaxglmm as jg
jg.enable_compilation_cache({str(tmp_path)!r})
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if "cache_hits" in event else None
)
jax.jit(lambda x: jax.numpy.sin(x).sum())(jax.numpy.arange(5.0))
print(json.dumps(len(hits)))
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=True,
                env=env,
            ).stdout
        )
        for _ in range(2)
    ]
    assert found[0] == 0
    assert found[1] > 0
