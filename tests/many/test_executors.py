"""``fit_many`` in somebody's executor: the same table, whatever becomes of workers."""

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from doors import shipping

import jaxglmm as jg

J, ROWS, D = 8, 5, 40


def long_table():
    rng = np.random.default_rng(3)
    g = np.tile(np.repeat(np.arange(J), ROWS), D)
    x = np.tile(np.arange(float(ROWS)), J * D)
    own = np.repeat(np.arange(D), J * ROWS)
    y = 1 + x + rng.normal(size=(D, J))[own, g] + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": g, "id": own})


@pytest.fixture(scope="module")
def here():
    return jg.fit_many("y ~ x + (1 | g)", long_table(), by="id", devices="cpu")


def same(one, two):
    assert one.converged.all()
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-9)
    np.testing.assert_allclose(one.log_likelihood, two.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-7, atol=1e-9)


def fitted(executor):
    given = {"by": "id", "devices": "cpu", "executor": executor}
    return jg.fit_many("y ~ x + (1 | g)", long_table(), **given)


class Dying(Executor):
    """Runs nothing: each worker is dead before it begins."""

    def __init__(self):
        self.asked = 0

    def submit(self, fn, /, *args, **kwargs):
        self.asked += 1
        out: Future = Future()
        out.set_exception(OSError("the worker has gone"))
        return out


class Elsewhere(Executor):
    """A machine that does not see the files of this one."""

    def __init__(self):
        self.carried = []

    def submit(self, fn, ticket, /):
        out: Future = Future()
        self.carried.append(ticket.content is not None)
        kept = dict(shipping._kept)
        shipping._kept.clear()
        hidden = ticket.__class__(**{**vars(ticket), "path": "/nowhere/at/all"})
        try:
            out.set_result(fn(hidden))
        except Exception as error:
            out.set_exception(error)
        shipping._kept.update(kept)
        return out


def test_threads_of_somebody(here):
    with ThreadPoolExecutor(2) as pool:
        same(fitted(pool), here)
        assert pool.submit(abs, -1).result() == 1  # it is left open


def test_workers_that_die(here):
    pool = Dying()
    same(fitted(pool), here)
    assert pool.asked >= 1


def test_machines_without_a_shared_disk(here):
    pool = Elsewhere()
    same(fitted(pool), here)
    assert not pool.carried[0]
    again = fitted(pool)
    same(again, here)


def test_a_pool_that_is_shut(here):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    same(fitted(pool), here)


def test_what_is_no_executor():
    with pytest.raises(jg.ArgumentError, match=r"executor=builtins\.int"):
        fitted(4)


def test_a_client_that_has_an_executor(here):
    class Client:
        def get_executor(self):
            return ThreadPoolExecutor(1)

    same(fitted(Client()), here)


def test_nothing_is_left_behind(here, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        fitted(pool)
    assert os.listdir(tmp_path) == []
    assert not shipping._kept


@pytest.mark.slow
def test_processes(here):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        same(fitted(pool), here)
