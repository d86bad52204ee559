"""Generalised fits compared: likelihood-ratio tests, refusals, tables of terms."""

import warnings

import numpy as np
import pandas as pd
import pytest
from cases import reference
from scipy import stats

import jaxglmm as jg

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
TICKS = "TICKS ~ YEAR + (1 | BROOD)"


@pytest.fixture(scope="module")
def cbpp():
    return jg.datasets.load("cbpp")


@pytest.fixture(scope="module")
def fit(cbpp):
    return jg.glmm(CBPP, cbpp)


@pytest.fixture(scope="module")
def agq(cbpp):
    return jg.glmm(CBPP, cbpp, method=jg.AGQ(9))


@pytest.fixture(scope="module")
def counts():
    """Two crossed factors and a covariate that interact, in 90 rows."""
    i = np.arange(90)
    f = np.array(list("abc"))[i % 3]
    k = np.array(list("uv"))[(i // 3 + i // 7) % 2]
    x, g = ((i * 37) % 23) / 10, i % 10
    eta = 0.5 + 0.3 * x + 0.4 * (f == "b") - 0.5 * (f == "c") * (k == "v")
    y = np.random.default_rng(6).poisson(np.exp(eta + 0.3 * np.cos(g)))
    return pd.DataFrame({"y": y, "x": x, "f": f, "k": k, "g": g})


# Likelihood-ratio tests --------------------------------------------------------------


@pytest.mark.reference
def test_fixed_effects_against_lme4(cbpp, fit):
    ref = reference("lrt_cbpp")
    small = jg.glmm(CBPP.replace("period", "1"), cbpp)
    for found in (jg.anova(fit, small), fit.compare(small), small.compare(fit)):
        np.testing.assert_allclose(found.statistic, ref["chisq"][0], rtol=1e-6)
        np.testing.assert_allclose(found.p_value, ref["p"][0], rtol=1e-5)
        assert found.df == ref["df"][0]
        assert np.isnan(found.p_boundary)
        np.testing.assert_allclose(
            found.table["log_likelihood"],
            [m["loglik"] for m in ref["models"]],
            rtol=1e-8,
        )


@pytest.mark.reference
def test_poisson_in_negative_binomial_against_glmmtmb():
    """The limit of a dispersion parameter: half the mass is at zero."""
    ref = reference("lrt_salamanders")
    data = jg.datasets.load("Salamanders")
    formula = "count ~ spp + mined + (1 | site)"
    fits = [jg.glmm(formula, data, family=f) for f in ("nbinom2", "poisson")]
    found = jg.anova(*fits)
    np.testing.assert_allclose(found.statistic, ref["chisq"][0], rtol=1e-6)
    assert found.df == 1
    np.testing.assert_allclose(found.p_value, ref["p"][0], rtol=1e-3)
    np.testing.assert_allclose(found.p_boundary, found.p_value / 2)
    assert "[nbinom2]" in found
    assert "dispersion parameter" in found


def test_a_variance_against_a_model_without(cbpp, fit, agq):
    none = jg.glmm(CBPP.replace(" + (1 | herd)", ""), cbpp)
    found = jg.anova(none, fit)
    chisq = none.criterion - fit.criterion
    np.testing.assert_allclose(found.statistic, chisq)
    np.testing.assert_allclose(found.p_value, stats.chi2.sf(chisq, 1))
    np.testing.assert_allclose(found.p_boundary, stats.chi2.sf(chisq, 1) / 2)
    # the likelihood without random effects needs no approximation: it goes with all
    assert jg.anova(none, agq).statistic > 0


def test_a_variance_and_a_dispersion_at_once():
    data = jg.datasets.load("grouseticks")
    small = jg.glmm("TICKS ~ YEAR", data, family="poisson")
    big = jg.glmm(TICKS, data, family="nbinom2")
    found = small.compare(big)
    x = found.statistic
    mixture = stats.chi2.sf(x, 2) / 4 + stats.chi2.sf(x, 1) / 2
    assert found.df == 2
    np.testing.assert_allclose(found.p_boundary, mixture, atol=1e-300)


def test_linear_models_by_maximum_likelihood_and_without_random_effects():
    data = jg.datasets.load("sleepstudy")
    mixed = jg.lmm("Reaction ~ Days + (1 | Subject)", data)
    same = jg.glmm("Reaction ~ Days + (1 | Subject)", data, family="gaussian")
    without = jg.glmm("Reaction ~ Days", data, family="gaussian")
    found = jg.anova(without, same)
    assert found.df == 1
    n, X = 180, np.column_stack([np.ones(180), data["Days"]])
    rss = np.linalg.lstsq(X, data["Reaction"], rcond=None)[1][0]
    plain = n * (np.log(2 * np.pi * rss / n) + 1)
    np.testing.assert_allclose(without.criterion, plain)
    np.testing.assert_allclose(found.statistic, plain - same.criterion)
    np.testing.assert_allclose(jg.anova(without, mixed).statistic, found.statistic)
    np.testing.assert_allclose(found.p_boundary, found.p_value / 2)


def test_models_that_cannot_be_compared(cbpp, fit, agq):
    plain = CBPP.replace(" + (1 | herd)", "")
    probit = jg.glmm(plain, cbpp, family=jg.Binomial("probit"))
    with pytest.raises(jg.ComparisonError, match=r"different links.*aic"):
        fit.compare(probit)
    with pytest.raises(jg.ComparisonError, match=r"not by the same method.*Gauss"):
        fit.compare(agq)
    data = jg.datasets.load("grouseticks")
    one = jg.glmm("TICKS ~ YEAR", data, family="nbinom2")
    with pytest.raises(jg.ComparisonError, match="'nbinom2', 'nbinom1'"):
        one.compare(jg.glmm("TICKS ~ YEAR", data, family="nbinom1"))
    with pytest.raises(jg.ComparisonError, match=r"of different data|responses"):
        fit.compare(one)
    more = cbpp.assign(size=cbpp["size"] + 1)
    formula = "incidence ~ period"
    a, b = (jg.glmm(formula, d, trials="size") for d in (cbpp, more))
    with pytest.raises(jg.ComparisonError, match="numbers of trials"):
        a.compare(b)
    with pytest.raises(jg.ComparisonError, match="prior weights"):
        a.compare(jg.glmm(formula, cbpp, trials="size", weights=np.full(56, 2.0)))


# Wald tests of terms -----------------------------------------------------------------


def by_hand(fit, L):
    """(Lb)'(L V L')^-1 Lb."""
    d = L @ fit.coefficients
    return d @ np.linalg.solve(L @ fit.coefficient_covariance() @ L.T, d)


@pytest.mark.parametrize("random", ["", " + (1 | g)"])
def test_tables_of_terms(counts, random):
    """Type 3 by sum-to-zero contrasts, type 2 by the model without the interaction."""
    fit = quiet("y ~ x + f * k" + random, counts)
    names = list(fit.coefficient_names)
    unit = np.eye(len(names))
    of = {
        "x": [names.index("x")],
        "f:k": [i for i, n in enumerate(names) if ":" in n],
    }
    table = fit.anova(type=3)
    assert list(table.columns) == ["statistic", "df", "p_value"]
    assert table["df"].to_dict() == {"x": 1, "f": 2, "k": 1, "f:k": 2}
    for name, rows in of.items():
        found = table.loc[name]
        np.testing.assert_allclose(found["statistic"], by_hand(fit, unit[rows]))
        np.testing.assert_allclose(
            found["p_value"], stats.chi2.sf(found["statistic"], found["df"])
        )
    # main effects of a model with interactions: averages over the other factor
    v = [i for i, n in enumerate(names) if n.startswith("f[") and ":" not in n]
    inter = of["f:k"]
    np.testing.assert_allclose(
        table.loc["f", "statistic"], by_hand(fit, unit[v] + unit[inter] / 2), rtol=1e-8
    )
    k = names.index("k[T.v]")
    L = unit[[k]] + unit[inter].sum(axis=0) / 3
    np.testing.assert_allclose(table.loc["k", "statistic"], by_hand(fit, L), rtol=1e-8)


def test_type_two_and_one(counts):
    """Without interactions type 2 is type 3; the last term is the same in all."""
    fit = quiet("y ~ x + f + k + (1 | g)", counts)
    one, two, three = (fit.anova(type=t) for t in (1, 2, 3))
    np.testing.assert_allclose(two, three, rtol=1e-8)
    np.testing.assert_allclose(one.loc["k"], two.loc["k"], rtol=1e-8)
    # one after the other: what is explained adds up to a test of all
    V = fit.coefficient_covariance()[1:, 1:]
    b = fit.coefficients[1:]
    np.testing.assert_allclose(one["statistic"].sum(), b @ np.linalg.solve(V, b))


def test_type_two_respects_marginality(counts):
    """As car: the test of f in the space of the model without f:k."""
    fit = quiet("y ~ x + f * k + (1 | g)", counts)
    table = fit.anova(type=2)
    names = list(fit.coefficient_names)
    V, b = fit.coefficient_covariance(), fit.coefficients
    for term, others in (("f[", "f"), ("k[", "k")):
        own = [i for i, n in enumerate(names) if n.startswith(term) and ":" not in n]
        inter = [i for i, n in enumerate(names) if ":" in n]
        keep = [*own, *inter]
        # chi-squared of both together less that of the interaction
        both = b[keep] @ np.linalg.solve(V[np.ix_(keep, keep)], b[keep])
        alone = b[inter] @ np.linalg.solve(V[np.ix_(inter, inter)], b[inter])
        found = table.loc[others, "statistic"]
        np.testing.assert_allclose(found, both - alone, rtol=1e-8)


def test_one_hypothesis(counts):
    fit = quiet("y ~ x + f * k + (1 | g)", counts)
    found = fit.test("x")
    z = fit.coefficients[1] / fit.se[1]
    np.testing.assert_allclose([found.t, found.chisq], [z, z**2])
    np.testing.assert_allclose(found.p, 2 * stats.norm.sf(abs(z)))
    assert np.isinf(found.den_df)
    L = np.eye(7)[[1, 2]]
    found = fit.test(L, rhs=[0.1, 0.2])
    d = L @ fit.coefficients - [0.1, 0.2]
    V = L @ fit.coefficient_covariance() @ L.T
    np.testing.assert_allclose(found.chisq, d @ np.linalg.solve(V, d))
    np.testing.assert_allclose(found.p, stats.chi2.sf(found.chisq, 2))
    assert "chisq(2)" in repr(found)
    with pytest.raises(jg.NotApplicableError, match="asymptotic"):
        fit.anova(ddf="satterthwaite")


def quiet(formula, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        return jg.glmm(formula, data, family="poisson")
