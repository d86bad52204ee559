"""Data sets through engines, stage by stage and all at once."""

import threading

import numpy as np
import pytest
from doors import AGAIN, MISSING, PENDING, Plan, Stage, _status
from doors import scheduler as fits_run

D = 20


class Needing:
    """An engine whose data set i converges with ``needed[i]`` steps."""

    lanes, surer_alone = 4, False

    def __init__(self, needed, fails=()):
        self.needed, self.fails = np.asarray(needed), set(fails)
        self.calls, self.lock = [], threading.Lock()

    def fit(self, which, steps):
        with self.lock:
            self.calls.append((len(which), steps))
        if self.fails & set(which.tolist()):
            raise MemoryError("too much")
        done = self.needed[which] <= steps
        return np.stack([which, np.where(done, _status.CONVERGED, AGAIN)], axis=1) * 1.0


class Stalling:
    """Fits of their own, which do not converge."""

    lanes, surer_alone = 1, False

    def fit(self, which, steps):
        return np.stack([which, np.full(len(which), _status.STALLED)], axis=1) * 1.0


class Bar:
    total = 0

    def update(self, n):
        self.total += n


def fitted(engines, threads):
    """All data sets, every other one by the second engine."""
    table = np.full((D, 2), np.nan)
    table[:, -1] = PENDING
    stages = tuple(
        Stage(engine, np.arange(D)[k :: len(engines)], threads)
        for k, engine in enumerate(engines)
    )

    plan = Plan(stages, None, Stalling(), None, D, "", "")  # type: ignore
    bar = Bar()
    fits_run.run(table, plan, bar)
    return table, bar


@pytest.mark.parametrize("threads", [1, 2])
def test_each_gets_the_steps_it_needs(threads):
    needed = np.full(D, 5)
    needed[[2, 3, 8]] = fits_run.FIRST + 1
    needed[[6, 7]] = fits_run.MORE + 1
    needed[11] = fits_run.MOST + 1
    engines = Needing(needed), Needing(needed)
    table, bar = fitted(engines, threads)
    assert bar.total == D
    assert (table[:, 0] == np.arange(D)).all()
    assert table[:, 1].tolist() == [
        _status.STALLED if i == 11 else _status.CONVERGED for i in range(D)
    ]
    for engine in engines:
        assert {n for n, _ in engine.calls} == {Needing.lanes}  # one shape
        steps = [steps for _, steps in engine.calls]
        assert steps == [fits_run.FIRST] * 3 + [fits_run.MORE, fits_run.MOST]


class Refusing(Needing):
    """An engine that takes no missing values, of which the odd ones have some."""

    def fit(self, which, steps):
        out = super().fit(which, steps)
        out[which % 2 == 1, 1] = MISSING
        return out


def test_missing_values_that_no_engine_takes_are_fitted_alone():
    engine = Refusing(np.zeros(D))
    table, bar = fitted((engine,), 1)
    assert bar.total == D
    assert len(engine.calls) == D / Needing.lanes
    odd = np.arange(D) % 2 == 1
    assert (table[odd, 1] == _status.STALLED).all()
    assert (table[~odd, 1] == _status.CONVERGED).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_engine_that_fails_ends_the_run(threads):
    first, second = Needing(np.zeros(D)), Needing(np.zeros(D), fails=[1])
    with pytest.raises(MemoryError, match="too much"):
        fitted((first, second), threads)
