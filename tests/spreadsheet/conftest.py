"""Worksheet functions make many small programs, each of them called a few times."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _in_a_hurry(in_a_hurry):
    pass
