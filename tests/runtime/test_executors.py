"""One protocol for work in this thread and in several."""

import threading

import jax
import jax.numpy as jnp
import pytest
from doors import Serial, Threads, bar, executor, executors

BOTH = pytest.mark.parametrize("make", [Serial, lambda: Threads(2)], ids=["one", "two"])


@BOTH
def test_work_runs_in_double_precision_and_leaves_the_setting(make):
    with make() as pool:
        found = list(pool.map(lambda x: jnp.asarray(x).dtype, [1.0, 2.0, 3.0]))
        one = pool.submit(lambda: jnp.zeros(1).dtype).result()
    assert {*found, one} == {jnp.dtype("float64")}
    assert not jax.config.jax_enable_x64


@BOTH
def test_results_come_in_order(make):
    with make() as pool:
        assert list(pool.map(lambda a, b: a - b, range(9), range(0, 18, 2))) == [
            -k for k in range(9)
        ]


@BOTH
def test_the_exception_of_a_piece_is_that_of_the_whole(make):
    def work(k):
        if k == 1:
            raise ValueError("of piece 1")
        return k

    with pytest.raises(ValueError, match="of piece 1"), make() as pool:
        list(pool.map(work, range(4)))
    with make() as pool:
        assert isinstance(pool.submit(work, 1).exception(), ValueError)


def test_what_has_not_begun_when_another_fails_never_does():
    begun, go = [], threading.Event()

    def work(k):
        begun.append(k)
        go.wait(10)

    def whole():
        with Threads(2) as pool:
            for k in range(20):
                pool.submit(work, k)
            threading.Timer(0.1, go.set).start()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        whole()
    assert len(begun) == 2


def test_serial_work_is_done_when_its_result_is_asked_for():
    done = []
    results = Serial().map(done.append, range(3))
    assert done == []
    next(results)
    assert done == [0]


def test_an_interruption_ends_serial_work_at_once():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Serial().submit(interrupted)


def test_no_more_threads_than_processors(monkeypatch):
    monkeypatch.setattr(executors.os, "cpu_count", lambda: 1)
    assert executors.threads() == 1
    assert isinstance(executor(), Serial)
    assert isinstance(executor(4), Serial)
    monkeypatch.setattr(executors.os, "cpu_count", lambda: 8)
    assert executor()._max_workers == executors.THREADS


@pytest.mark.parametrize("shown", [True, False, None])
def test_a_bar_counts_and_shows_itself_where_it_is_asked_to(shown, capsys):
    with bar(3, shown, "fit", "bootstrap") as found:
        for _ in range(3):
            found.update()
    text = capsys.readouterr().err
    assert ("bootstrap: 100%" in text and "3/3" in text) == (shown is True)
