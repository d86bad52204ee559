"""Cross-products of which each of several processes reads some rows."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jax
import numpy as np
import pytest
from doors import Share, build, by_level, shares
from structure import designs

import jaxglmm as jg


class Exchange:
    """Sums of vectors that threads bring in the place of processes."""

    def __init__(self, count):
        self.parts, self.met = [None] * count, Barrier(count, timeout=60)

    def total(self, number, flat):
        self.parts[number] = flat
        self.met.wait()
        out = sum(self.parts)
        self.met.wait()
        return out


class Known(Share):
    """A share whose exchange is between threads; ``mesh`` is an ``Exchange``."""

    def _total(self, flat):
        return self.mesh.total(self.number, flat)


def together(rows, count, structure):
    """The moments that each of some threads has of its rows and the others' sums."""
    exchange, ends = Exchange(count), np.linspace(0, len(rows.y), count + 1).astype(int)

    def one(k):
        with jax.enable_x64(True):
            share = Known(slice(ends[k], ends[k + 1]), k, count, exchange)
            own = rows.y, rows.X, rows.terms, rows.weights
            return build(*own, structure, share)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("layout", designs.LAYOUTS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_process_has_the_sums_of_all(layout, weighted):
    rows = designs.rows(layout, weighted=weighted)
    alone = rows.moments(layout.structure)
    count = 3 if weighted else 2
    found = together(rows, count, layout.structure)
    for other in found[1:]:  # to the last bit, or decisions would differ
        jax.tree.map(np.testing.assert_array_equal, _numbers(other), _numbers(found[0]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11),
        _numbers(found[0]),
        _numbers(alone),
    )
    assert found[0].n == alone.n
    # the rows are still there, whole, for what is asked of them later
    again = found[0].respond(rows.y).Xy
    np.testing.assert_allclose(again, alone.Xy, atol=1e-9)


def _numbers(m):
    return m.system, m.ZX, m.XX, m.Zy, m.Xy, m.yy, m.fixed.R, m.fixed.scale


def test_an_origin_far_away():
    rows = designs.rows(designs.BY_NAME["slopes"])
    far = dataclasses.replace(
        rows, X=rows.X + np.r_[0.0, [1e9] * (rows.X.shape[1] - 1)]
    )
    alone, found = far.moments(None), together(far, 2, None)[0]
    np.testing.assert_allclose(found.fixed.R, alone.fixed.R, rtol=1e-11)
    np.testing.assert_allclose(found.XX, np.eye(len(found.XX)), atol=1e-12)


def test_rows_of_weight_zero_are_read_by_all():
    rows = designs.rows(designs.BY_NAME["slopes"], weighted=True)
    weights = rows.weights.copy()
    weights[:5] = 0.0
    some = dataclasses.replace(rows, weights=weights)
    alone, found = some.moments(None), together(some, 2, None)[1]
    np.testing.assert_array_equal(found.yy, alone.yy)


def test_one_process_reads_all_rows():
    with jg.on_devices("all"):
        assert shares.of_rows(10**6, 3) is None


@pytest.mark.parametrize("J", [1, 7, 70_000, 2**31 - 1])
@pytest.mark.parametrize("n", [0, 1, 5000])
def test_rows_sorted_by_counting(n, J):
    codes = np.random.default_rng(n).integers(0, J, n).astype(np.int32)
    expected = np.argsort(codes, kind="stable")
    np.testing.assert_array_equal(by_level(codes), expected)
