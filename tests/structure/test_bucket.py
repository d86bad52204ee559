"""Sizes in few steps, and zeros where nothing is."""

import numpy as np
import pytest
from doors import bucket, pad


@pytest.mark.parametrize("steps", [8, 16])
def test_buckets_hold_what_they_are_for(steps):
    sizes = np.arange(1, 5000)
    found = np.array([bucket(int(s), steps) for s in sizes])
    assert (found >= sizes).all()
    assert (np.diff(found) >= 0).all()
    assert (found[sizes > 8] <= sizes[sizes > 8] * (1 + 2 / steps)).all()
    assert all(bucket(int(b), steps) == b for b in np.unique(found))
    per_double = np.sum((np.unique(found) > 1024) & (np.unique(found) <= 2048))
    assert per_double == steps


def test_similar_sizes_share_a_bucket():
    assert bucket(17) == bucket(18) == 18
    assert bucket(1) == bucket(8) == 8
    assert bucket(1000) == bucket(1024)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pad(axis, rng):
    x = rng.normal(size=(2, 3, 4))
    size = x.shape[axis] + 2
    out = pad(x, size, axis)
    assert out.shape[axis] == size
    np.testing.assert_array_equal(np.take(out, range(size - 2), axis), x)
    assert not np.take(out, range(size - 2, size), axis).any()


def test_pad_of_nothing_is_contiguous(rng):
    x = np.asfortranarray(rng.normal(size=(3, 4)))
    out = pad(x, 4)
    np.testing.assert_array_equal(out, x)
    assert out.flags.c_contiguous
