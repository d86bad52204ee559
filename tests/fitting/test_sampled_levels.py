"""Of very many levels a sample leads to the maximum, which is that of all rows."""

import numpy as np
import pandas as pd
import pytest
from doors import fitting_generalised, sampled_levels

import jaxglmm as jg

LEVELS = 240


def frame(equal):
    rng = np.random.default_rng(5)
    sizes = np.full(LEVELS, 6) if equal else rng.integers(1, 30, LEVELS)
    g = rng.permutation(np.repeat(np.arange(LEVELS), sizes))
    x = rng.normal(size=len(g))
    mu = np.exp(0.8 + 0.3 * x + 0.5 * rng.normal(size=LEVELS)[g])
    y = rng.poisson(mu * rng.gamma(2.0, 0.5, len(g)))
    y = np.where(rng.random(len(g)) < 0.25, 0, y)
    return pd.DataFrame({"y": y, "x": x, "g": g})


@pytest.mark.parametrize("equal", [True, False])
def test_the_end_is_the_same(equal, monkeypatch):
    data = frame(equal)
    model = {"family": "nbinom2", "zi": "~ 1"}
    plain = jg.glmm("y ~ x + (1 | g)", data, **model)
    sizes = []

    def seen(problem, eta):
        found = sampled_levels.sampled(problem, eta)
        sizes.append(found and found[0].rows.sizes)
        return found

    monkeypatch.setattr(sampled_levels, "LARGE_ROWS", 100)
    monkeypatch.setattr(sampled_levels, "LEVELS", 56)
    monkeypatch.setattr(fitting_generalised, "sampled", seen)
    found = jg.glmm("y ~ x + (1 | g)", data, **model)
    assert sizes == [(56,)]
    assert found.converged
    assert abs(found.log_likelihood - plain.log_likelihood) < 1e-8
    for component in ("cond", "zi"):
        own, twin = found.fixef[component], plain.fixef[component]
        assert own == pytest.approx(twin, rel=1e-6, abs=1e-6)


def test_few_levels_are_not_sampled(monkeypatch):
    monkeypatch.setattr(sampled_levels, "LARGE_ROWS", 100)
    asked = []

    def seen(problem, eta):
        asked.append(sampled_levels.sampled(problem, eta))
        return asked[-1]

    monkeypatch.setattr(fitting_generalised, "sampled", seen)
    jg.glmm("y ~ x + (1 | g)", frame(True), family="nbinom2", zi="~ 1")
    assert asked == [None]
