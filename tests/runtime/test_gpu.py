"""On a GPU: fits of every kind have the numbers that they have on the CPU.

Each of these skips itself where JAX sees no GPU. None has been run on one by those who
wrote it: what a GPU is asked to do is looked at in ``test_cuda.py``, where it is
decided in ``test_placement.py``.
"""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

GPUS = [d for d in jax.devices() if d.platform == "gpu"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),  # singular fits are as good here
    pytest.mark.skipif(not GPUS, reason="needs a GPU"),
]
SMALL = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(scope="module")
def table():
    """Two crossed factors, one inside another, responses of several kinds."""
    rng = np.random.default_rng(20261202)
    n = 600
    g, h = np.repeat(np.arange(30), 20), rng.integers(0, 12, n)
    data = pd.DataFrame(rng.normal(size=(n, 6)), columns=[f"x{i}" for i in range(6)])
    data["g"], data["h"] = g, h
    data["k"] = [f"{a}.{b}" for a, b in zip(g, np.arange(n) % 4, strict=True)]
    data["set"] = np.repeat(np.arange(6), n // 6)
    eta = 0.3 * data["x0"] + 0.7 * rng.normal(size=30)[g] + 0.5 * rng.normal(size=12)[h]
    eta += 0.4 * rng.normal(size=30)[g] * data["x0"]
    data["y"] = eta + rng.normal(size=n)
    data["count"] = rng.poisson(np.exp(eta)).astype(float)
    data["over"] = rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, n)).astype(float)
    data["yes"] = rng.binomial(1, 1 / (1 + np.exp(-eta))).astype(float)
    data["positive"] = np.exp(0.3 * eta + 0.3 * rng.normal(size=n))
    grade = np.clip(np.digitize(eta + rng.logistic(size=n), [-1, 0.5]), 0, 2)
    data["grade"] = pd.Categorical.from_codes(grade, list("abc"), ordered=True)
    return data


FITS = {
    "one factor": lambda d: jg.lmm("y ~ x0 + (1 | g)", d),
    "slopes, ml": lambda d: jg.lmm("y ~ x0 + (x0 | g)", d, reml=False),
    "many columns": lambda d: jg.lmm("y ~ x0 + (x0 + x1 + x2 + x3 + x4 | g)", d),
    "nested": lambda d: jg.lmm("y ~ x0 + (1 | g) + (1 | k)", d),
    "crossed": lambda d: jg.lmm("y ~ x0 + (1 | g) + (1 | h)", d),
    "smooth": lambda d: jg.lmm("y ~ s(x1, k=6) + (1 | g)", d),
    "Laplace": lambda d: jg.glmm("yes ~ x0 + (1 | g)", d, family="bernoulli"),
    "quadrature": lambda d: jg.glmm(
        "yes ~ x0 + (1 | g)", d, family="bernoulli", method=jg.AGQ(9)
    ),
    "generalised, slopes": lambda d: jg.glmm(
        "count ~ x0 + (x0 | g)", d, family="poisson"
    ),
    "generalised, crossed": lambda d: jg.glmm(
        "count ~ x0 + (1 | g) + (1 | h)", d, family="poisson"
    ),
    "negative binomial": lambda d: jg.glmm("over ~ x0 + (1 | g)", d, family="nbinom2"),
    "gamma": lambda d: jg.glmm("positive ~ x0 + (1 | g)", d, family=jg.Gamma("log")),
    "added zeros": lambda d: jg.glmm(
        "over ~ x0 + (1 | g)", d, family="poisson", zi="~ x1"
    ),
    "ordered": lambda d: jg.clmm("grade ~ x0 + (1 | g)", d),
}


@pytest.mark.parametrize("name", FITS)
def test_fits(table, name):
    found = {}
    for kind in ("gpu", "cpu"):
        with jg.on_devices(kind):
            fit = FITS[name](table)
            found[kind] = [fit.criterion, *np.ravel(fit.coef), *np.ravel(fit.se)]
    np.testing.assert_allclose(found["gpu"][0], found["cpu"][0], rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-6, atol=1e-7)


def test_one_fit_is_where_it_is_told(table):
    with jg.on_devices("gpu"):
        fit = jg.lmm("y ~ x0 + (1 | g)", table)
    here = {x.devices().pop().platform for x in jax.tree.leaves(fit.engine.base)}
    assert here == {"gpu"}
    small = jg.lmm("y ~ x0 + (1 | g)", table)
    here = {x.devices().pop().platform for x in jax.tree.leaves(small.engine.base)}
    assert here == {"cpu"}


MANY = {
    "linear": ("y ~ x0 + (1 | g)", "y", {}),
    "linear, slopes": ("y ~ x0 + (x0 | g)", "y", {"method": "ml"}),
    "linear, nested": ("y ~ x0 + (1 | g) + (1 | k)", "y", {}),
    "linear, crossed": ("y ~ x0 + (1 | g) + (1 | h)", "y", {}),
    "linear, sets": ("y ~ x0 + (1 | g)", None, {"by": "set"}),
    "Poisson": ("y ~ x0 + (1 | g)", "count", {"family": "poisson"}),
    "negative binomial": ("y ~ x0 + (1 | g)", "over", {"family": "nbinom2"}),
    "quadrature": (
        "y ~ x0 + (1 | g)",
        "yes",
        {"family": "bernoulli", "method": jg.AGQ(9)},
    ),
    "Poisson, sets": ("count ~ x0 + (1 | g)", None, {"by": "set", "family": "poisson"}),
}


@pytest.mark.parametrize("name", MANY)
def test_many(table, name):
    formula, response, options = MANY[name]
    given = dict(options)
    if response is not None:
        y = table[response].to_numpy()
        given["responses"] = np.column_stack([np.roll(y, 7 * k) for k in range(40)])
    one = jg.fit_many(formula, table, devices="gpu", **given)
    other = jg.fit_many(formula, table, devices="cpu", **given)
    np.testing.assert_allclose(one.log_likelihood, other.log_likelihood, **SMALL)
    estimates = [x.tidy("fixed")["estimate"] for x in (one, other)]
    np.testing.assert_allclose(*estimates, rtol=1e-6, atol=1e-7)


def test_nested_laplace(table):
    found = {}
    for kind in ("gpu", "cpu"):
        with jg.on_devices(kind):
            fit = jg.glmm(
                "yes ~ x0 + (1 | g)", table, family="bernoulli", method="nested-laplace"
            )
            found[kind] = fit.coef
    np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-6)


@pytest.mark.mcmc
@pytest.mark.slow
def test_chains(table):
    means, errors = [], []
    for kind in ("gpu", "cpu"):
        with jg.on_devices(kind):
            fit = jg.glmm(
                "yes ~ x0 + (1 | g)", table, family="bernoulli", method=jg.NUTS()
            )
            summary = fit.posterior.summary()
            means.append(summary["mean"].to_numpy())
            errors.append(summary["sd"].to_numpy() / np.sqrt(1_000))
    assert np.all(np.abs(means[0] - means[1]) < 4 * np.hypot(*errors))


def test_the_bootstrap(table):
    found = {}
    for kind in ("gpu", "cpu"):
        with jg.on_devices(kind):
            fit = jg.lmm("y ~ x0 + (1 | g)", table)
            found[kind] = fit.bootstrap(200, seed=1).log_likelihood
    np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-7)
