"""The core runs in double precision, as it does below every public entry point.

Compiled in a hurry: every program here runs on a few numbers, once or twice.
"""

import jax
import pytest


@pytest.fixture(autouse=True)
def _double_and_in_a_hurry():
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _programs(always_compiled):
    """Here the programs of lanes are looked at, not what NumPy makes of them."""
