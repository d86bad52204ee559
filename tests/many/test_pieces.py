"""A piece of the work of ``fit_many`` is a record: another process does it as well."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest
from doors import OnHost, Piece, placed, plan, rows

import jaxglmm as jg

J, ROWS, D = 8, 5, 3
PLAIN, SLOPE = "y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)"


def data():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"g": np.repeat(np.arange(J), ROWS)})
    table["x"] = np.tile(np.arange(float(ROWS)), J)
    table["h"] = np.tile(np.arange(ROWS), J)
    Y = 1 + table["x"].to_numpy()[:, None] + rng.normal(size=(J, D))[table["g"]]
    return table, Y + rng.normal(size=(J * ROWS, D))


def long_table(table, Y):
    parts = [table.assign(y=y, id=k) for k, y in enumerate(Y.T)]
    return pd.concat(parts, ignore_index=True)


def engines():
    """Each kind of engine once, by name."""
    table, Y = data()
    counts = np.random.default_rng(4).poisson(np.exp(0.3 * Y)).astype(float)
    fits = (
        jg.fit_many(PLAIN, table, responses=Y),
        jg.fit_many(SLOPE, table, responses=Y),
        jg.fit_many(PLAIN, long_table(table, Y), by="id"),
        jg.fit_many(PLAIN, table, responses=counts, family="poisson"),
        jg.fit_many(PLAIN, long_table(table, counts), by="id", family="poisson"),
    )
    found = {}
    for each in fits:
        whole = plan(each.source, "cpu")
        for engine in (*(s.engine for s in whole.stages), whole.missing, whole.alone):
            if engine is not None:
                kind = type(getattr(engine, "data", engine)).__name__
                found.setdefault(kind, engine)
    return found


@pytest.mark.slow
def test_pieces_give_the_same_numbers_in_another_process():
    kinds = engines()
    assert set(kinds) == {
        "Alone",
        "CompleteResponses",
        "GenericLinear",
        "LongRows",
        "LongTable",
        "ResponseRows",
        "WeightedResponses",
    }
    pieces = [Piece(e, np.arange(D), 8, 30, True) for e in kinds.values()]
    pieces[list(kinds).index("Alone")] = Piece(
        kinds["Alone"], np.arange(D), D, 30, True
    )
    here = list(map(rows, pieces))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        there = list(pool.map(rows, pieces))
    for name, a, b in zip(kinds, here, there, strict=True):
        # another process may be the first to compile; p-values have large exponents
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-14, err_msg=name)
        assert np.isfinite(a[:, 0]).all(), name
        assert (a[:, -1] == 0).all(), name


class Held(OnHost):
    def __init__(self):
        self.host = np.arange(3.0)
        self.made = 0
        assert self.there is self.there

    @placed
    def there(self):
        self.made += 1
        return self.host + 1


def test_what_lies_on_a_device_is_made_again_elsewhere():
    engine = Held()
    assert engine.made == 1
    again = pickle.loads(pickle.dumps(engine))
    assert "there" not in again.__dict__
    np.testing.assert_array_equal(again.there, engine.there)
    assert again.made == 2


@pytest.mark.parametrize("kind", ["cpu", "a kind that is not there"])
def test_devices_of_another_process_are_like_these(kind):
    from doors import _like, choose

    assert _like(kind, 1) == pickle.loads(pickle.dumps(choose("cpu", 0.0)))
