"""Every question of every kind of fit has an answer, or says why there is none."""

import contextlib
import functools
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from doors import build_rows, subset

import jaxglmm as jg

matplotlib.use("Agg")
N, J = 120, 10


@functools.cache
def table():
    rng = np.random.default_rng(11)
    g, x = np.arange(N) % J, rng.normal(size=N)
    u, v = rng.normal(size=(2, J)) * [[0.5], [1.5]]
    y = rng.poisson(np.exp(0.8 + 0.4 * x + u[g]) * rng.gamma(2, 0.5, N))
    y = np.where(rng.uniform(size=N) < 0.25, 0, y)
    latent = x + u[g] + rng.logistic(size=N)
    kind = np.column_stack([np.zeros(N), 0.5 * x + 3 * u[g], v[g] - 0.3 * x])
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "f": np.array(list("ab"))[np.arange(N) // J % 2],
            "g": [f"g{k}" for k in g],
            "z": 1
            + 0.5 * x
            + u[g]
            + rng.normal(size=N) * np.where(np.arange(N) % 2, 2, 1),
            "r": np.digitize(latent, [-1, 0.5, 1.5]) + 1,
            "k": np.array(["c1", "c2", "c3"])[
                np.argmax(kind + rng.gumbel(size=(N, 3)), axis=1)
            ],
        }
    )


KINDS = {
    "linear": lambda d: jg.lmm("z ~ x + f + (1 | g)", d),
    "residual sd": lambda d: jg.lmm("z ~ x + f + (1 | g)", d, dispersion="~ f"),
    "repeated": lambda d: jg.lmm(
        "z ~ x + f", d.assign(t=np.arange(N) // J), residual="ar1(t | g)"
    ),
    "counts": lambda d: jg.glmm("y ~ x + f + (1 | g)", d, family="nbinom2"),
    "zeros": lambda d: jg.glmm("y ~ x + f + (1 | g)", d, family="poisson", zi="~ x"),
    "zeros and dispersion": lambda d: jg.glmm(
        "y ~ x + (1 | g)", d, family="nbinom2", zi="~ 1", dispersion="~ f"
    ),
    "hurdle": lambda d: jg.glmm(
        "y ~ x + f + (1 | g)", d, family="truncated_poisson", zi="~ x"
    ),
    "ordered": lambda d: jg.clmm("r ~ x + f + (1 | g)", d),
    "nominal": lambda d: jg.clmm("r ~ x + (1 | g)", d, nominal="~ f"),
    "scale": lambda d: jg.clmm("r ~ x + (1 | g)", d, dispersion="~ f"),
    "categories": lambda d: jg.glmm("k ~ x + f + (1 | g)", d, family="multinomial"),
}
AT = {"x": [0, 1]}
QUESTIONS = {
    "bootstrap": lambda m: m.bootstrap(3).converged,
    "check": lambda m: m.check(20),
    "confint": lambda m: m.confint(),
    "certificate": lambda m: m.certificate,
    "cross_validate": lambda m: m.cross_validate(by="g", k=3),
    "draws": lambda m: m.draws(5).frame,
    "drop1": lambda m: m.drop1("chisq"),
    "icc": lambda m: m.icc,
    "influence": lambda m: m.influence("g").table,
    "joint_tests": lambda m: m.joint_tests(),
    "means": lambda m: m.means("x", at=AT).pairs().table,
    "regrid": lambda m: m.means("x", at=AT, regrid=True).table,
    "overdispersion": lambda m: m.overdispersion(20),
    "overdispersion, fitted": lambda m: m.overdispersion(3, refit=True),
    "zeros, fitted": lambda m: m.zero_inflation(20, refit=True),
    "partial_residuals": lambda m: m.partial_residuals(),
    "plot": lambda m: [m.plot.residuals(), m.plot.qq(), m.plot.ranef()],
    "predict": lambda m: m.predict(table().head(2), se=True, re="population"),
    "predictions": lambda m: m.predictions(by="f"),
    "r2": lambda m: m.r2(),
    "ranova": lambda m: m.ranova(),
    "robust": lambda m: m.with_vcov("CR0").se,
    "simulate": lambda m: m.simulate(2, seed=1),
    "simulated": lambda m: m.simulated_residuals(20).tests(),
    "slopes": lambda m: m.slopes("x"),
    "summary": lambda m: (str(m.summary()), m.tidy("all"), m.glance(), m.augment()),
    "test": lambda m: m.test("x"),
    "vif": lambda m: m.vif(),
}
OF_COUNTS = ("overdispersion", "overdispersion, fitted", "zeros, fitted")


@functools.cache
def made(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KINDS[kind](table())


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_or_a_reason(kind, question):
    fit = made(kind)
    if question in OF_COUNTS and not hasattr(fit, "overdispersion"):
        pytest.skip("linear models have a residual variance")
    with warnings.catch_warnings(), contextlib.suppress(jg.JaxGLMMError):
        warnings.simplefilter("ignore")
        assert QUESTIONS[question](fit) is not None
    plt.close("all")


# What had no answer, or a wrong one ---------------------------------------------------


def test_a_term_of_categories_goes_from_all_of_them_and_effects_stay():
    """Without x the fit had no random effects either, and a term was a category's."""
    whole = made("categories")
    found = whole.drop1("chisq")
    assert found.index.tolist() == ["<none>", "x", "f"]
    less = jg.glmm("k ~ f + (1 | g)", table(), family="multinomial")
    expected = less.criterion - whole.criterion
    np.testing.assert_allclose(found.loc["x", "statistic"], expected, atol=1e-6)
    assert found.loc["x", "df"] == 2
    none = jg.glmm("k ~ x + f", table(), family="multinomial")
    row = whole.ranova().iloc[1]
    np.testing.assert_allclose(row["log_likelihood"], none.log_likelihood, atol=1e-6)


def test_categories_without_a_level_are_the_same_model():
    whole = made("categories")
    some = subset(whole.design, np.flatnonzero((table()["g"] != "g3").to_numpy()))
    assert some.x_names == whole.design.x_names
    assert [t.names for t in some.terms] == [t.names for t in whole.design.terms]
    left = whole.influence("g")
    own = table()[table()["g"] != "g3"]
    fit = jg.glmm("k ~ x + f + (1 | g)", own, family="multinomial")
    at = list(left.table.index).index("g3")
    moved = fit.coefficients - whole.coefficients
    np.testing.assert_allclose(np.abs(left.dfbeta)[at], np.abs(moved), atol=1e-4)


def test_pearson_of_refits_is_that_of_the_fit():
    """Of a refit to the data themselves it is the statistic of the fit."""
    fit = made("zeros")
    again = fit.refit(fit.design.y)
    np.testing.assert_allclose(again.resid("pearson"), fit.resid("pearson"), rtol=1e-5)
    found = fit.overdispersion(8, refit=True)
    assert found.simulated.method == "refits"
    np.testing.assert_allclose(
        found.simulated.statistic, np.sum(fit.resid("pearson") ** 2), rtol=1e-10
    )
    # what draws have on average after fitting is of the size of their rows
    assert 0.5 * N < found.simulated.expected < 1.5 * N


def test_rows_go_to_their_places_and_back():
    d = table()
    rows = build_rows(made("zeros").design.X[:, :1], [])
    assert rows.back(rows.place(d["x"].to_numpy())).tolist() == d["x"].tolist()
    two = d[["x", "z"]].to_numpy().T
    np.testing.assert_array_equal(rows.back(rows.place(two)), two)
