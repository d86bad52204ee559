"""Generalised models on data that break programs: an answer that is right, or words.

The reference values of links with a domain are glmmTMB's (started near the optimum:
it fails from its own start); rescalings must not change the likelihood.
"""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

FORMULA = "y ~ x + (1 | g)"


# Links with a domain ------------------------------------------------------------------


@pytest.fixture(scope="module")
def domain():
    """Means that a straight line would let fall below zero for some groups."""
    rng = np.random.default_rng(11)
    n = 240
    g, x = np.arange(n) % 16, rng.uniform(0, 1, n)
    mu = 2 * (1 + x) + 0.9 * rng.normal(size=16)[g]
    return {"x": x, "g": g, "count": rng.poisson(mu), "amount": rng.gamma(4, mu / 4)}


@pytest.mark.parametrize(
    ("response", "family", "log_likelihood", "estimates"),
    [
        (
            "count",
            jg.Poisson("identity"),
            -459.5754930804,
            (2.0008817390, 1.6707422711, 0.5004682903),
        ),
        (
            "count",
            jg.Poisson("sqrt"),
            -459.5245156237,
            (1.4152640547, 0.5087605374, 0.1575761108),
        ),
        (
            "amount",
            jg.Gamma("inverse"),
            -415.75127486723,
            (0.49930630150, -0.23847804722, 0.08575051437),
        ),
        (
            "amount",
            jg.Gamma("identity"),
            -406.7540866540,
            (1.8361820275, 2.1277682748, 0.7583845622),
        ),
    ],
    ids=["poisson-identity", "poisson-sqrt", "gamma-inverse", "gamma-identity"],
)
def test_links_with_a_domain(domain, response, family, log_likelihood, estimates):
    fit = jg.glmm(f"{response} ~ x + (1 | g)", domain, family=family)
    assert fit.converged
    assert fit.log_likelihood >= log_likelihood - 1e-6
    np.testing.assert_allclose(fit.log_likelihood, log_likelihood, atol=1e-5)
    found = [*fit.coefficients, fit.theta[0]]
    np.testing.assert_allclose(found, estimates, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("base", [0.3, 2.0, 20.0])
def test_small_and_large_means(base):
    """Starting values leave the domain here, and are drawn back into it."""
    rng = np.random.default_rng(3)
    n = 240
    g, x = np.arange(n) % 16, rng.uniform(0, 1, n)
    mu = np.maximum(base * (1 + x + 0.15 * rng.normal(size=16)[g]), 1e-3)
    data = {"x": x, "g": g, "y": rng.gamma(4, mu / 4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        for link in ("identity", "inverse"):
            fit = jg.glmm(FORMULA, data, family=jg.Gamma(link))
            assert fit.converged, link
            again = jg.glmm(FORMULA, {**data, "y": data["y"] / base}, family=fit.family)
            shift = -n * np.log(base)
            np.testing.assert_allclose(
                fit.log_likelihood - again.log_likelihood, shift, atol=1e-6
            )


# Scales -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    n = 240
    g, x = np.arange(n) % 16, rng.normal(size=n)
    eta = 0.5 + 0.5 * x + 0.5 * rng.normal(size=16)[g]
    return {"x": x, "g": g, "y": rng.poisson(np.exp(eta)).astype(float)}


@pytest.fixture(scope="module")
def plain(counts):
    return jg.glmm(FORMULA, counts, family="poisson")


@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_units_of_a_covariate(counts, plain, factor):
    fit = jg.glmm(FORMULA, {**counts, "x": counts["x"] * factor}, family="poisson")
    assert fit.converged
    np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood, atol=1e-7)
    np.testing.assert_allclose(
        fit.coefficients * [1, factor], plain.coefficients, rtol=1e-6
    )
    np.testing.assert_allclose(fit.se * [1, factor], plain.se, rtol=1e-5)


def test_a_covariate_far_from_zero(counts, plain):
    """A year, a time stamp: the intercept moves, and nothing else."""
    fit = jg.glmm(FORMULA, {**counts, "x": counts["x"] + 1e6}, family="poisson")
    np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood, atol=1e-7)
    np.testing.assert_allclose(fit.coefficients[1], plain.coefficients[1], rtol=1e-6)


@pytest.mark.parametrize("offset", [300.0, -300.0])
def test_a_large_offset(counts, plain, offset):
    data = {**counts, "o": np.full(240, offset)}
    fit = jg.glmm("y ~ x + offset(o) + (1 | g)", data, family="poisson")
    np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood, atol=1e-7)
    np.testing.assert_allclose(
        fit.coefficients + np.array([offset, 0]), plain.coefficients, rtol=1e-6
    )


def test_an_outlier_of_ten_million(counts):
    y = counts["y"].copy()
    y[5] = 1e7
    fit = jg.glmm(FORMULA, {**counts, "y": y}, family="poisson")
    assert fit.converged
    mu = fit.fitted_values
    assert mu.max() > 1e5
    # the score of the intercept, which is zero at the maximum but for Laplace's term
    assert abs(np.sum(y - mu)) < 1e-6 * y.sum()


# Odd shapes ---------------------------------------------------------------------------


def test_a_level_a_row(counts):
    """An effect of every row: overdispersion, and not an error."""
    fit = jg.glmm(FORMULA, {**counts, "g": np.arange(240)}, family="poisson")
    assert fit.converged
    assert 0.3 < fit.theta[0] < 1


# Near a variance of zero, and between two maxima --------------------------------------


def test_a_nested_variance_that_goes_to_zero():
    """The value keeps up with the score as an inner factor's variance vanishes.

    (glmmTMB's log-likelihood; the search used to go on to its last step.)
    """
    rng = np.random.default_rng(0)
    n = 240
    g, x = np.arange(n) % 20, rng.normal(size=n)
    b = g * 3 + (np.arange(n) // 20) % 3
    eta = 1 + 0.5 * x + 0.3 * rng.normal(size=20)[g]
    data = {"y": rng.poisson(np.exp(eta)), "x": x, "g": g, "b": b}
    with pytest.warns(jg.SingularFitWarning):
        fit = jg.glmm("y ~ x + (1 | g/b)", data, family="poisson")
    assert fit.converged
    assert fit.n_iter < 20
    assert min(fit.theta) == 0
    outer = jg.glmm("y ~ x + (1 | g)", data, family="poisson")
    np.testing.assert_allclose(fit.log_likelihood, outer.log_likelihood, atol=1e-7)


@pytest.mark.parametrize("seed", [2, 5])
def test_effects_of_rows_and_overdispersion(seed):
    """Both explain the same excess, and the better of two maxima is found.

    Seed 2: no overdispersion beside the effects (-263.2348, the other maximum is
    -263.8835); seed 5: overdispersion alone (-254.4711 against -255.3231).
    """
    rng = np.random.default_rng(seed)
    n = 120
    x = rng.normal(size=n)
    y = rng.poisson(np.exp(0.7 + 0.5 * x + 0.8 * rng.normal(size=n)))
    data = {"y": y, "x": x, "g": np.arange(n)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = jg.glmm(FORMULA, data, family="nbinom2")
    assert fit.converged
    best = {2: -263.2347635268, 5: -254.4711489718}[seed]
    np.testing.assert_allclose(fit.log_likelihood, best, atol=1e-6)
    assert (fit.theta[0] > 0.5) == (seed == 2)


def test_labels_of_any_type(counts, plain):
    for g in (counts["g"].astype(str), [f"level {v}" for v in counts["g"]]):
        fit = jg.glmm(FORMULA, {**counts, "g": g}, family="poisson")
        np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood, rtol=1e-12)


def test_a_column_twice(counts, plain):
    with pytest.warns(UserWarning, match="rank deficient: dropped 1 column"):
        fit = jg.glmm(
            "y ~ x + z + (1 | g)", {**counts, "z": 2 * counts["x"]}, family="poisson"
        )
    np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood, atol=1e-7)


def test_a_missing_response_is_a_missing_row(counts):
    y = counts["y"].copy()
    y[3] = np.nan
    with pytest.warns(UserWarning, match="1 of 240 rows"):
        fit = jg.glmm(FORMULA, {**counts, "y": y}, family="poisson")
    rest = {k: np.delete(v, 3) for k, v in counts.items()}
    again = jg.glmm(FORMULA, rest, family="poisson")
    np.testing.assert_allclose(fit.log_likelihood, again.log_likelihood, rtol=1e-12)


REFUSED = {
    "infinite": ({3: np.inf}, "poisson", "'y' is infinite in 1 row"),
    "negative": ({3: -1.0}, "poisson", r"negative values: one value, -1 \(row 3\)"),
    "fraction": ({3: 1.5}, "poisson", r"fractions: one value, 1.5 \(row 3\)"),
    "zeros": (0.0, "poisson", "every count is zero"),
    "successes": (1.0, "bernoulli", "all successes"),
    "constant": (2.0, "gamma", r"constant \(2\)"),
    "zero amount": ({3: 0.0}, "gamma", "positive"),
    "edge": ({0: 1.0}, "beta", "strictly between 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_responses_that_are_refused(counts, case):
    change, family, text = REFUSED[case]
    y = counts["y"] + (family == "gamma")
    y = np.full(240, 0.5) + 0.1 * np.sin(np.arange(240)) if family == "beta" else y
    if isinstance(change, dict):
        for row, value in change.items():
            y[row] = value
    else:
        y = np.full(240, change)
    with pytest.raises((jg.DataError, jg.ModelError), match=text):
        jg.glmm(FORMULA, {**counts, "y": y}, family=family)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": np.zeros(240)}, "all weights are zero"),
        ({"weights": -np.ones(240)}, "must not be negative; 240 are"),
        ({"trials": np.ones(240), "family": "binomial"}, "more successes than trials"),
        ({"family": "poison"}, "did you mean 'poisson'"),
    ],
)
def test_options_that_are_refused(counts, options, text):
    with pytest.raises((jg.DataError, jg.ModelError), match=text):
        jg.glmm(FORMULA, counts, **{"family": "poisson", **options})


def test_few_rows_and_few_levels(counts):
    with pytest.raises(jg.DataError, match="no rows"):
        jg.glmm(FORMULA, {k: v[:0] for k, v in counts.items()}, family="poisson")
    with pytest.raises(jg.ModelError, match="leave nothing to estimate"):
        jg.glmm(FORMULA, {k: v[:2] for k, v in counts.items()}, family="poisson")
    with pytest.raises(jg.ModelError, match="only 1 level"):
        jg.glmm(FORMULA, {**counts, "g": np.zeros(240, int)}, family="poisson")


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_inverse_link_of_a_covariate_far_from_zero(formula):
    """The origin of x is no part of the model; R's glmmTMB 1.1.5 starts outside it."""
    rng = np.random.default_rng(1)
    g, x = np.arange(200) % 20, rng.normal(size=200)
    mean = 1 / (0.5 + 0.02 * x + 0.05 * rng.normal(size=20)[g])
    data = {"y": mean * rng.gamma(5, 0.2, 200), "g": g, "x": x}
    options = {"family": jg.Gamma("inverse")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        near = jg.glmm(formula, data, **options)
        far = jg.glmm(formula, data | {"x": 50 + x}, **options)
    assert near.converged
    assert far.converged
    np.testing.assert_allclose(far.log_likelihood, near.log_likelihood, atol=1e-8)
    np.testing.assert_allclose(far.coef[1], near.coef[1], rtol=1e-4)
