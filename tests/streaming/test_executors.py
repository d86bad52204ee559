"""Executors that make the sums of data in batches: the same numbers."""

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from doors import streaming_parts
from streaming_cases import table, written

import jaxglmm as jg
from jaxglmm import ArgumentError, ModelError

pytest.importorskip("pyarrow")

LINEAR = "y ~ x * f + (x | g) + (1 | h)"
COUNTS = "over ~ x + (1 + x | g)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    data = table(2000, 40)
    rng = np.random.default_rng(3)
    data["over"] = rng.poisson(np.exp(0.2 * (data["x"] - 5) + rng.normal(size=2000)))
    data["yes"] = (rng.uniform(size=2000) < 0.4).astype(int)
    return written(data, tmp_path_factory.mktemp("rows") / "all", 5)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(streaming_parts, "PART_ROWS", 300)


def fits(folder, **how):
    linear = jg.lmm(LINEAR, folder, weights="w", reml=False, **how)
    counts = jg.glmm(COUNTS, folder, family="nbinom2", **how)
    return linear, counts


def assert_same(found, alone):
    for one, other in zip(found, alone, strict=True):
        assert one.criterion == pytest.approx(other.criterion, abs=1e-9)
        np.testing.assert_allclose(one.coef, other.coef, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(one.se, other.se, rtol=1e-8)
        np.testing.assert_allclose(one.ranef["g"], other.ranef["g"], atol=1e-8)


class Forgetful(Executor):
    """Loses every third piece of work, as engines do whose workers end."""

    def __init__(self):
        self.asked = 0

    def submit(self, fn, /, *args, **kwargs):
        self.asked += 1
        out = Future()
        if self.asked % 3:
            out.set_result(fn(*args, **kwargs))
        else:
            out.set_exception(OSError("a worker ended"))
        return out


def test_threads_and_lost_work(folder, small_parts):
    alone = fits(folder)
    with ThreadPoolExecutor(2) as pool:
        assert_same(fits(folder, executor=pool), alone)
    lossy = Forgetful()
    assert_same(fits(folder, executor=lossy), alone)
    assert lossy.asked > 10


@pytest.mark.slow
def test_processes(folder, small_parts):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        assert_same(fits(folder, executor=pool), fits(folder))


def test_an_executor_that_is_shut_down_loses_nothing(folder):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    found = jg.lmm(LINEAR, folder, executor=pool)
    assert found.criterion == pytest.approx(jg.lmm(LINEAR, folder).criterion, abs=1e-9)


def test_crossed_factors_take_one_for_their_first_passes(folder):
    formula = "yes ~ x + (1 | g) + (1 | h)"
    alone = jg.glmm(formula, folder, family="binomial")
    with ThreadPoolExecutor(2) as pool:
        found = jg.glmm(formula, folder, family="binomial", executor=pool)
    assert found.criterion == pytest.approx(alone.criterion, abs=1e-9)


def test_refusals(folder):
    with pytest.raises(ArgumentError, match=r"executor=.* is needed"):
        jg.lmm(LINEAR, folder, executor=4)
    with pytest.raises(ModelError, match="executor= is for files"):
        jg.lmm("y ~ x + (1 | g)", table(100, 5), executor=ThreadPoolExecutor(1))
    with pytest.raises(ModelError, match="executor= is for files"):
        jg.glmm("k ~ x + (1 | g)", table(100, 5), executor=ThreadPoolExecutor(1))

    def own(x):
        return x + 1

    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
        pytest.raises(ArgumentError, match="one of a module"),
    ):
        jg.lmm("y ~ own(x) + (1 | g)", folder, executor=pool)
