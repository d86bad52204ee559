"""A second data set of similar size compiles nothing, and neither does a refit."""

import warnings

import jax
import numpy as np
import pytest
from doors import fit_numbers

import jaxglmm as jg

pytestmark = pytest.mark.usefixtures("always_compiled")

COMPILED = "/jax/core/compile/backend_compile_duration"
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


class Counter:
    def __init__(self):
        self.events = []

    def __call__(self, event, duration, **_):
        if event in (COMPILED, LOWERED):
            self.events.append(event)

    def reset(self):
        self.events.clear()


@pytest.fixture(scope="module", autouse=True)
def room():
    """Nothing is dropped for want of memory maps in the middle of a count."""
    jax.clear_caches()


@pytest.fixture
def compiled():
    counter = Counter()
    jax.monitoring.register_event_duration_secs_listener(counter)
    yield counter
    jax.monitoring.unregister_event_duration_listener(counter)


def crossed_data(n, g, h, seed=0):
    rng = np.random.default_rng(seed)
    code_g, code_h = np.arange(n) % g, rng.permutation(np.arange(n) % h)
    x = rng.normal(size=n)
    y = x + 2 * rng.normal(size=g)[code_g] + rng.normal(size=h)[code_h]
    y = y + rng.normal(size=g)[code_g] * x + 0.5 * rng.normal(size=n)
    return {"y": y, "x": x, "g": code_g, "h": code_h}


ONE = "y ~ x + (1 + x | g)"
CASES = [
    (ONE, (180, 18, 5), (171, 17, 5)),
    ("y ~ x + (x || g)", (180, 18, 5), (171, 17, 5)),
    ("y ~ x + (1 | g) + (1 | h)", (180, 18, 8), (171, 17, 7)),
]


def everything(formula, columns, **options):
    """A fit with what a summary needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        fit = jg.lmm(formula, columns, **options)
    fit.summary()
    return fit


def test_the_counter_counts(compiled):
    """The test can fail: a new program is seen."""
    jax.jit(lambda x: x * 3.7 + 0.123)(np.ones(3, np.float32))
    assert compiled.events


@pytest.mark.parametrize(("formula", "first", "second"), CASES)
@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_a_second_data_set_compiles_nothing(compiled, formula, first, second, reml):
    """18 levels and 17, 180 rows and 171: one bucket."""
    everything(formula, crossed_data(*first), reml=reml)
    compiled.reset()
    fit = everything(formula, crossed_data(*second, seed=1), reml=reml)
    assert compiled.events == []
    assert fit.converged
    assert fit.ngroups["g"] == 17


def test_a_refit_compiles_nothing(compiled, rng):
    columns = crossed_data(180, 18, 5)
    fit = everything(ONE, columns)
    fit.refit(columns["y"] + 1.0).summary()
    compiled.reset()
    for _ in range(2):
        y = columns["y"] + rng.normal(size=180)
        again = fit.refit(y)
        assert again.summary()
        assert again.ranef["g"].shape == (18, 2)
    assert compiled.events == []


def test_tolerances_and_steps_are_values(compiled):
    """Not part of the program."""
    columns = crossed_data(180, 18, 5)
    everything(ONE, columns)
    compiled.reset()
    everything(ONE, columns, tol=1e-6, max_iter=50)
    assert compiled.events == []


def test_names_and_units_are_not_part_of_the_program(compiled):
    columns = crossed_data(180, 18, 5)
    everything(ONE, columns)
    compiled.reset()
    renamed = {"z": 1e3 * columns["y"], "t": columns["x"], "s": columns["g"]}
    everything("z ~ t + (1 + t | s)", renamed)
    assert compiled.events == []


def test_many_levels_share_few_programs(compiled):
    """Sizes in eight steps a doubling."""
    everything("y ~ x + (1 | g)", crossed_data(1200, 130, 5))
    compiled.reset()
    for levels in (129, 135, 144):
        everything("y ~ x + (1 | g)", crossed_data(1200, levels, 5))
    assert compiled.events == []


def data(levels, rows, seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    a, b = rng.normal(size=(2, levels))
    y = x + a[g] + b[g] * x + rng.normal(size=len(g))
    return {"y": y, "x": x, "g": g}


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_similar_sizes_share_one_program(formula):
    first = jg.lmm(formula, data(29, 6, 0))
    programs = fit_numbers._cache_size()
    other = jg.lmm(formula, data(30, 9, 1))  # other rows, one level more
    other.refit(other.design.y[::-1].copy())
    assert fit_numbers._cache_size() == programs
    assert first.converged
    assert other.converged
