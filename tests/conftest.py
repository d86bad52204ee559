"""What every test may count on: no screen, one generator, compiled programs kept."""

import os
from importlib.metadata import version

os.environ.setdefault("MPLBACKEND", "Agg")
# Programs of tests run on a few numbers, once or twice, and most of the time would go
# into compiling them: the compiler takes half the effort, here and in processes that
# are started. Nothing else differs. What is compared with numbers from elsewhere or of
# before, and programs on disk, is compiled ``at_full_effort``; everything is, where the
# environment says JAX_DISABLE_MOST_OPTIMIZATIONS=0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from pathlib import Path

import numpy as np
import pytest
from doors import hosted
from long_tests import LONG

import jaxglmm as jg

pytest_plugins = ["small_fits", "engines_here"]

HERE = Path(__file__).parent
HALF = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0"
# Half of what remains goes into the code of fused loops; XLA's plain way to write it
# takes a third of that. (It ends the process at a flag that it does not know.)
PLAIN = "xla_cpu_use_fusion_emitters"
PLAINLY = HALF and version("jaxlib").startswith(("0.9.", "0.10."))
FLAGS = os.environ.get("XLA_FLAGS", "")
if PLAINLY and PLAIN not in FLAGS:
    os.environ["XLA_FLAGS"] = f"{FLAGS} --{PLAIN}=false"  # read at the first program

# Kept on disk between runs, for the processes that tests start as well: a second run
# spends its time on tests and not on compiling.
CACHE = jg.enable_compilation_cache()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# What runs in NumPy here does not hang on the speed of the machine: seconds that calls
# of ordinary tests do not reach. Where a test is about the switch, it sets its own.
hosted.READS = hosted.PAYS = 2.0
hosted.LONGEST = 20.0


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also tests of long_tests.py")


@pytest.hookimpl(tryfirst=True)  # before -k and -m
def pytest_collection_modifyitems(config, items):
    """Files with slow tests come first: no process waits for another's last one.

    Those of ``long_tests`` run where they are asked for, by ``--long`` or by name.
    """
    if not any("::" in x for x in config.args):
        long = [item for item in items if item.name in LONG.get(_file(item), ())]
        known = {(_file(item), item.name) for item in items}
        files = {file for file, _ in known} & LONG.keys()
        gone = {(file, name) for file in files for name in LONG[file]} - known
        if gone:
            raise pytest.UsageError(f"long_tests.py names what is no test: {gone}")
        if long and not config.option.long:
            config.hook.pytest_deselected(items=long)
            left = set(map(id, long))
            items[:] = [item for item in items if id(item) not in left]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _file(item):
    return item.path.relative_to(HERE).as_posix()


@pytest.fixture
def rng():
    """The same numbers in every run."""
    return np.random.default_rng(20260101)


@pytest.fixture
def always_compiled(monkeypatch):
    """No call is made in NumPy first: a fit is a program from its first call on."""
    monkeypatch.setenv("JAXGLMM_COMPILE", "always")


@pytest.fixture(scope="module")
def at_full_effort():
    """Programs are compiled as users have them."""
    import jax
    from jax._src import compiler

    def as_by_default(*args, env_options_overrides=None, **kwargs):
        given = {PLAIN: True} | dict(env_options_overrides or {})
        return original(*args, env_options_overrides=given, **kwargs)

    original = compiler.get_compile_options
    with pytest.MonkeyPatch.context() as patch:
        if PLAINLY:
            patch.setattr(compiler, "get_compile_options", as_by_default)
        jax.config.update("jax_disable_most_optimizations", False)
        yield
    jax.config.update("jax_disable_most_optimizations", HALF)


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_them(request):
    """What is compared with numbers from elsewhere."""
    if request.path.parent.name in {"agreement", "golden"}:
        request.getfixturevalue("at_full_effort")


@pytest.fixture
def double():
    """Below the entry points, which do this themselves."""
    import jax

    with jax.enable_x64(True):
        yield


CORE = {"density", "estimate", "integrate", "model", "numerics", "structure"}  # folders


@pytest.fixture(autouse=True)
def _as_below_the_entry_points(request):
    """The core runs in double precision."""
    if request.path.parent.name in CORE:
        request.getfixturevalue("double")


@pytest.fixture(autouse=True)
def _close_figures():
    """Figures of a test end with it."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
