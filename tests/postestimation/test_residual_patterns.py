"""Patterns of simulated residuals: statistics by hand, and what they find."""

import numpy as np
import pandas as pd
import pytest
from doors import residual_patterns as patterns
from doors import simulated_residuals as simulated

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError

J, T = 20, 12


def table(seed, noise):
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(J), T), np.tile(np.arange(T), J)
    x = rng.normal(size=J * T)
    e = noise(rng, g, t, x)
    y = 1 + 0.5 * x + rng.normal(size=J)[g] + e
    return pd.DataFrame({"y": y, "x": x, "t": t, "g": g.astype(str)})


def plain(rng, g, t, x):
    return rng.normal(size=J * T)


def chained(rng, g, t, x):
    e = rng.normal(size=(J, T))
    for k in range(1, T):
        e[:, k] = 0.7 * e[:, k - 1] + np.sqrt(1 - 0.49) * e[:, k]
    return e.ravel()


def curved(rng, g, t, x):
    return rng.normal(size=J * T) + 0.9 * (x**2 - 1)


def spread(rng, g, t, x):
    return rng.normal(size=J * T) * np.where(g < J // 2, 0.3, 2.4)


def residuals(data):
    return jg.lmm("y ~ x + (1 | g)", data).simulated_residuals(n=250, seed=1)


TIME = np.tile(np.arange(T), J)


@pytest.fixture(scope="module")
def found():
    return residuals(table(1, plain))


def test_statistics_by_hand(found):
    z = patterns.scores(found)[0]
    steps = np.diff(z)
    order = np.arange(len(z), dtype=float)
    own = found.temporal(order)
    expected = np.sum(steps**2) / np.sum((z - z.mean()) ** 2)
    n = len(z)
    assert own.statistic == pytest.approx(expected)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(size=(2, n))
    total = weight = 0.0
    c = z - z.mean()
    for i in range(n):
        d = np.hypot(x - x[i], y - y[i])
        d[i] = np.inf
        total += np.sum(c[i] * c / d)
        weight += np.sum(1 / d)
    moran = n / weight * total / np.sum(c**2)
    assert found.spatial(x, y).statistic == pytest.approx(moran)
    part = found.quantiles(np.arange(n) % 2.0, at=[0.5])
    below = found.scaled < 0.5
    share = np.array([below[::2].mean(), below[1::2].mean()])
    assert part.loc["0.5", "observed"] == pytest.approx(
        np.sum(n / 2 * (share - 0.5) ** 2) / 0.25
    )


def test_nothing_is_found_where_the_model_holds(found):
    assert found.temporal(TIME, within="g").p_value > 0.005
    assert found.temporal(TIME).p_value > 0.005
    assert (found.quantiles()["p_value"] > 0.005).all()
    assert (found.quantiles("x")["p_value"] > 0.005).all()
    assert (found.categorical("g")["p_value"] > 0.005).all()
    rng = np.random.default_rng(0)
    assert found.spatial(*rng.uniform(size=(2, len(found)))).p_value > 0.005


def test_each_pattern_is_found_by_its_test():
    chain = residuals(table(2, chained))
    test = chain.temporal(TIME, within="g")
    assert test.statistic < 0.8 * test.expected
    assert test.p_value < 0.02
    curve = residuals(table(3, curved))
    assert curve.quantiles("x").loc["all", "p_value"] < 0.02
    data = table(4, spread)
    half = np.where(data["g"].astype(int) < J // 2, "calm", "wild")
    assert residuals(data).categorical(half).loc["homogeneity", "p_value"] < 0.02
    rng = np.random.default_rng(5)
    n = 200
    x, y = rng.uniform(size=(2, n))
    wave = np.sin(6 * x) + np.cos(6 * y)
    flat = pd.DataFrame({"z": wave + 0.5 * rng.normal(size=n), "h": np.arange(n) % 10})
    fit = jg.glmm("z ~ 1", flat, family="gaussian")
    own = fit.simulated_residuals(n=100, seed=1)
    assert own.spatial(x, y).p_value < 0.03


def test_by_limiting_distributions_where_draws_are_not_kept(monkeypatch):
    data = table(1, plain)
    whole = residuals(data)
    monkeypatch.setattr(simulated, "KEPT", 1000)
    fit = jg.lmm("y ~ x + (1 | g)", data)
    few = fit.simulated_residuals(n=250, seed=1, re="conditional")
    assert few.draws is None
    for test in (few.temporal(TIME, within="g"), few.spatial("x", TIME)):
        assert test.method == "asymptotic"
        assert 0 < test.p_value <= 1
    for frame in (few.quantiles(), few.categorical("g")):
        assert (frame["method"] == "asymptotic").all()
        assert frame["p_value"].between(0, 1).all()
    assert len(whole.quantiles()) == 4


@pytest.mark.parametrize("n", [60, 400])
def test_limits_hold_their_level(n):
    """Shares of rejections at 5 per cent of samples without pattern."""
    rng = np.random.default_rng(n)

    class Sample:
        draws, used = None, np.ones(n, bool)
        predicted = rng.normal(size=n)

        def __init__(self):
            self.scaled = rng.uniform(size=n)

        def labels(self, groups):
            return "", np.asarray(groups)

    x, y = rng.uniform(size=(2, n))
    t, f = rng.permutation(n).astype(float), np.arange(n) % 4
    p = []
    for _ in range(300):
        own = Sample()
        p.append(
            [
                patterns.temporal(own, t).p_value,
                patterns.spatial(own, x, y).p_value,
                patterns.quantiles(own, at=[0.5]).loc["0.5", "p_value"],
                patterns.categorical(own, f).loc["homogeneity", "p_value"],
            ]
        )
    rejected = (np.array(p) < 0.05).mean(axis=0)
    assert ((rejected > 0.015) & (rejected < 0.1)).all(), rejected


def test_refusals(found):
    with pytest.raises(DataError, match="numbers"):
        found.temporal(["a"] * len(found))
    with pytest.raises(DataError, match="1 values"):
        found.temporal(np.append(np.nan, np.arange(len(found) - 1.0)))
    with pytest.raises(NotApplicableError, match="nope"):
        found.spatial("nope", "t")
    with pytest.raises(DataError, match="shape"):
        found.quantiles(np.arange(3))
    with pytest.raises(NotApplicableError, match="between 0 and 1"):
        found.quantiles(at=[1.5])
    with pytest.raises(NotApplicableError, match="one alone"):
        found.categorical(np.zeros(len(found)))
    with pytest.raises(NotApplicableError, match="places"):
        found.spatial(np.zeros(len(found)), np.zeros(len(found)))
    with pytest.raises(NotApplicableError, match="neighbouring"):
        found.temporal(np.zeros(len(found)))
