"""Whole numbers, levels and seeds that users give: right, or one sentence of ours."""

import numpy as np
import pandas as pd
import pytest
from doors import _arguments, hosted

import jaxglmm as jg
from jaxglmm import JaxGLMMError, ModelError, NotApplicableError

HUGE = 10**20
NOT_WHOLE = (1.5, True, np.bool_(True), np.nan, np.inf, -np.inf, "a", "3", [3], HUGE)
NO_LEVEL = (0, 1, -0.5, 95, True, np.nan, np.inf, "a", "0.9", [0.9], None, HUGE)
NO_SEED = (-1, 1.5, True, np.nan, np.inf, "a", {"seed": 1}, [-1], [], [1.5])

LINEAR = "Yield ~ 1 + (1 | Batch)"
COUNTS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def fits():
    """One of each kind."""
    linear = jg.lmm(LINEAR, jg.datasets.load("Dyestuff"))
    generalised = jg.glmm(COUNTS, jg.datasets.load("cbpp"))
    posterior = jg.lmm(LINEAR, jg.datasets.load("Dyestuff"), method=jg.MAP(draws=50))
    return {
        "linear": linear,
        "generalised": generalised,
        "posterior": posterior,
        "many": jg.fit_many(
            LINEAR, jg.datasets.load("Dyestuff"), responses=linear.simulate(3, seed=1).T
        ),
        "draws": linear.bootstrap(20),
    }


OPTIONS = {
    "max_iter": lambda v: jg.lmm(LINEAR, jg.datasets.load("Dyestuff"), max_iter=v),
    "glmm max_iter": lambda v: jg.glmm(COUNTS, jg.datasets.load("cbpp"), max_iter=v),
    "AGQ": lambda v: jg.AGQ(v),
    "Laplace": lambda v: jg.Laplace(order=v),
    "MAP draws": lambda v: jg.MAP(draws=v),
    "MAP nodes": lambda v: jg.MAP(nodes=v),
    "VB draws": lambda v: jg.VB(draws=v),
    "NestedLaplace draws": lambda v: jg.NestedLaplace(draws=v),
    "NUTS draws": lambda v: jg.NUTS(draws=v),
    "NUTS chains": lambda v: jg.NUTS(chains=v),
    "NUTS warmup": lambda v: jg.NUTS(warmup=v),
}


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1])
@pytest.mark.parametrize("name", OPTIONS)
def test_whole_numbers_of_methods(name, value):
    with pytest.raises(ModelError, match=r"must be a whole number from \d to"):
        OPTIONS[name](value)


def test_the_bound_is_named():
    for make in (jg.NUTS, jg.MAP, jg.VB, jg.NestedLaplace):
        with pytest.raises(ModelError, match="from 1 to 1,000,000"):
            make(draws=HUGE)
    with pytest.raises(ModelError, match="from 0 to 1,000,000"):
        jg.NUTS(warmup=HUGE)
    with pytest.raises(ModelError, match="from 1 to 1,000,000,000"):
        OPTIONS["max_iter"](HUGE)


def test_whole_numbers_of_every_type_are_taken():
    for one in (np.int32(7), np.uint8(7), 7.0, np.float64(7)):
        assert jg.AGQ(one) == jg.AGQ(7)
        assert jg.NUTS(draws=one, chains=one) == jg.NUTS(draws=7, chains=7)
        assert isinstance(jg.MAP(draws=one).draws, int)
    plain = OPTIONS["max_iter"](200)
    for one in (200.0, np.int64(200), _arguments.ITERATIONS):
        found = OPTIONS["max_iter"](one).criterion
        assert found == pytest.approx(plain.criterion, rel=1e-9)


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("linear", "simulate"),
        ("generalised", "simulate"),
        ("posterior", "simulate"),
        ("linear", "bootstrap"),
        ("generalised", "bootstrap"),
        ("linear", "simulated_residuals"),
        ("generalised", "check"),
        ("posterior", "simulated_residuals"),
        ("many", "check"),
        ("generalised", "overdispersion"),
    ],
)
def test_numbers_of_data_sets(fits, kind, method, value):
    with pytest.raises(NotApplicableError, match="must be a whole number from"):
        getattr(fits[kind], method)(n=value)


def test_zero_data_sets_are_none(fits):
    for kind in ("linear", "generalised", "posterior"):
        with pytest.raises(NotApplicableError, match="n=0 must be"):
            fits[kind].simulate(0)
    assert len(fits["many"].top("(Intercept)", 0)) == 0
    with pytest.raises(NotApplicableError, match="n=-1 must be"):
        fits["many"].top("(Intercept)", -1)


def test_more_than_memory_holds_is_refused(fits, monkeypatch):
    monkeypatch.setattr(_arguments, "CELLS", 560)
    for kind, rows in (("linear", 30), ("generalised", 56), ("posterior", 30)):
        with pytest.raises(NotApplicableError, match=f"GiB for {rows} rows; at most"):
            fits[kind].simulate(100)
    assert fits["generalised"].simulate(10).shape == (10, 56)


LEVELS = {
    "lmm": lambda fits, v: jg.lmm(LINEAR, jg.datasets.load("Dyestuff"), conf_level=v),
    "confint": lambda fits, v: fits["linear"].confint(v),
    "generalised confint": lambda fits, v: fits["generalised"].confint(v),
    "posterior confint": lambda fits, v: fits["posterior"].confint(v),
    "posterior": lambda fits, v: fits["posterior"].posterior.summary(v),
    "posterior's summary": lambda fits, v: fits["posterior"].summary(level=v),
    "predict": lambda fits, v: fits["linear"].predict(interval="prediction", level=v),
    "generalised predict": lambda fits, v: fits["generalised"].predict(
        interval="confidence", level=v
    ),
    "tidy": lambda fits, v: fits["linear"].tidy(conf_int=True, level=v),
    "ran_vals": lambda fits, v: fits["linear"].tidy("ran_vals", conf_int=True, level=v),
    "many": lambda fits, v: fits["many"].tidy(conf_int=True, level=v),
    "draws": lambda fits, v: fits["draws"].confint(v),
    "target_accept": lambda fits, v: jg.NUTS(target_accept="none" if v is None else v),
}


@pytest.mark.parametrize("value", NO_LEVEL)
@pytest.mark.parametrize("name", LEVELS)
def test_levels(fits, name, value):
    with pytest.raises(JaxGLMMError, match="must lie between 0 and 1"):
        LEVELS[name](fits, value)


def test_a_level_of_a_profile_is_checked(fits):
    profile = fits["linear"].profile()
    for value in NO_LEVEL:
        with pytest.raises(jg.JaxGLMMError, match="must lie between 0 and 1"):
            profile.intervals(value)


SEEDS = {
    "simulate": lambda fits, v: fits["linear"].simulate(2, seed=v),
    "generalised simulate": lambda fits, v: fits["generalised"].simulate(2, seed=v),
    "posterior simulate": lambda fits, v: fits["posterior"].simulate(2, seed=v),
    "residuals": lambda fits, v: fits["linear"].simulated_residuals(20, seed=v).scaled,
    "quantile residuals": lambda fits, v: fits["generalised"].resid("quantile", v),
    "bootstrap": lambda fits, v: fits["linear"].bootstrap(20, seed=v).coefficients,
    "posterior predict": lambda fits, v: (
        fits["posterior"].predict(interval="prediction", seed=v).to_numpy()
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds(fits, name, monkeypatch):
    # last bits change when a shape that has been seen often becomes a program
    for setting in ("LONGEST", "PAYS", "READS"):
        monkeypatch.setattr(hosted, setting, np.inf)
    for value in NO_SEED:
        with pytest.raises(NotApplicableError, match=r"seed=.* must be a whole number"):
            SEEDS[name](fits, value)
    for value in (5, np.int64(5), HUGE, 2**128, [1, 2], np.random.SeedSequence(5)):
        first, again = (SEEDS[name](fits, value) for _ in range(2))
        np.testing.assert_array_equal(first, again)
    plain = SEEDS[name](fits, 5)
    np.testing.assert_array_equal(SEEDS[name](fits, np.int64(5)), plain)
    assert not np.array_equal(SEEDS[name](fits, 6), plain)


def test_seeds_of_methods():
    for value in NO_SEED:
        with pytest.raises(ModelError, match=r"seed=.* must be a whole number"):
            jg.NUTS(seed=value)
    assert _arguments.key_seed(2**63 - 1) == 2**63 - 1
    assert 0 <= _arguments.key_seed(2**63) < 2**63
    assert _arguments.key_seed(HUGE) != _arguments.key_seed(HUGE + 1)


@pytest.mark.parametrize("value", [0, -1e-8, np.nan, np.inf, True, "small", None, HUGE])
def test_tolerances(value):
    data = jg.datasets.load("Dyestuff")
    for call in (
        lambda: jg.lmm(LINEAR, data, tol=value),
        lambda: jg.fit_many(LINEAR, data, responses=np.eye(30)[:, :2], tol=value),
    ):
        with pytest.raises(ModelError, match=r"tol=.* must be a positive number"):
            call()


def test_infinite_trials_are_one_data_set_less():
    rng = np.random.default_rng(0)
    n = 60
    data = pd.DataFrame({"x": rng.normal(size=n), "g": np.repeat(list("abcdef"), 10)})
    Y = rng.binomial(8, 0.4, size=(n, 3)).astype(float)
    trials = np.full((n, 3), 8.0)

    def fitted(value):
        trials[2, 1] = value
        return jg.fit_many(
            "y ~ x + (1 | g)", data, responses=Y, trials=trials, family="binomial"
        )

    good = fitted(8.0)
    for value in (np.inf, -np.inf, -1.0, 2.5):
        with pytest.warns(jg.ConvergenceWarning, match="1 values that cannot be used"):
            bad = fitted(value)
        assert np.isnan(bad.coefficients[1]).all()
        assert not bad.converged[1]
        np.testing.assert_allclose(bad.coefficients[::2], good.coefficients[::2])
