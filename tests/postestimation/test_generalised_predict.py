"""Predictions of generalised fits against integration, statsmodels and simulation."""

import warnings

import numpy as np
import pandas as pd
import pytest
from postestimation import generalised_cases as cases
from scipy import integrate, special, stats

import jaxglmm as jg
from jaxglmm import DataError, NewLevelsWarning, NotApplicableError

NEW = pd.DataFrame({"period": ["1", "4"], "herd": ["1", "99"]}, index=["a", "b"])


def integral(function, eta, sd):
    value = integrate.quad(
        lambda z: function(eta + sd * z) * stats.norm.pdf(z), -10, 10, epsabs=1e-13
    )
    return value[0]


# Means -------------------------------------------------------------------------------


def test_means_of_the_fits_own_rows():
    fit = cases.cbpp()
    np.testing.assert_array_equal(fit.predict(), fit.fitted_values)
    np.testing.assert_array_equal(fit.predict(type="link"), fit.linear_predictor)
    population = special.expit(fit.fixed_part)
    np.testing.assert_allclose(fit.predict(re="population"), population)
    sd = fit.varcorr["herd"].sd.iloc[0]
    exact = [integral(special.expit, eta, sd) for eta in fit.fixed_part[:4]]
    np.testing.assert_allclose(fit.predict(re="marginal")[:4], exact, rtol=1e-10)
    link = fit.predict(re="marginal", type="link")[:4]
    np.testing.assert_allclose(link, special.logit(exact), rtol=1e-9)


def test_means_of_new_rows():
    fit = cases.cbpp()
    b = fit.ranef["herd"].loc["1", "(Intercept)"]
    at = fit.coefficients[0] + b, fit.coefficients[[0, 3]].sum()
    with pytest.warns(NewLevelsWarning, match="herd 99 in 1 rows"):
        found = fit.predict(NEW)
    np.testing.assert_allclose(found, special.expit(at))
    rows = NEW.to_dict("records")
    with pytest.warns(NewLevelsWarning):
        np.testing.assert_array_equal(fit.predict(rows), found)


def test_marginal_means_of_random_slopes_are_log_normal():
    fit = cases.slopes()
    data = cases.slopes_data().head(6)
    z = np.column_stack([np.ones(6), data.x])
    spread = np.einsum("ij,jk,ik->i", z, fit.varcorr["g"].cov.to_numpy(), z)
    mean = np.exp(fit.fixed_part[:6] + spread / 2)
    np.testing.assert_allclose(fit.predict(re="marginal")[:6], mean, rtol=1e-10)
    without = data.drop(columns=["g", "y"])  # levels drawn at random need no names
    np.testing.assert_allclose(fit.predict(without, re="marginal"), mean, rtol=1e-10)
    drawn = fit.simulate(4000, seed=1)[:, :6]
    error = drawn.std(axis=0) / np.sqrt(4000)
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * error).all()


# Standard errors ---------------------------------------------------------------------


@pytest.mark.parametrize("case", [cases.cbpp, cases.slopes])
def test_standard_errors_of_marginal_means(case):
    """The delta method with numeric derivatives of means made the long way."""
    fit = case()
    term = fit.design.terms[0]
    rows = np.arange(4)
    X, offset = fit.design.X[rows], fit.fixed_part[rows] - fit.design.X[rows] @ fit.coef
    z = term.values[rows]

    def means(psi):
        beta, (sigma,) = cases.user_parameters(fit, psi)
        sd = np.sqrt(np.einsum("ij,jk,ik->i", z, sigma, z))
        eta = X @ beta + offset
        inverse = fit.family.mean
        return np.array(
            [
                integral(lambda t: float(inverse(t)), *at)
                for at in zip(eta, sd, strict=True)
            ]
        )

    psi, _ = fit.internal()
    J = cases.derivative(means, psi, 1e-4)
    variance = np.einsum("ij,jk,ik->i", J, fit.parameter_covariance, J)
    table = fit.predict(re="marginal", se=True).iloc[:4]
    np.testing.assert_allclose(table["fit"], means(psi), rtol=1e-8)
    np.testing.assert_allclose(table["se"] ** 2, variance, rtol=1e-6)


def test_standard_errors_on_both_scales():
    fit = cases.cbpp()
    link = fit.predict(re="population", type="link", se=True)
    x = fit.design.X
    variance = np.einsum("ij,jk,ik->i", x, fit.vcov.to_numpy(), x)
    np.testing.assert_allclose(link["se"] ** 2, variance)
    response = fit.predict(re="population", se=True)
    p = response["fit"]
    np.testing.assert_allclose(response["se"], p * (1 - p) * link["se"])


def test_conditional_errors_are_those_of_the_modes():
    """With an intercept alone: Var(x'beta + b) has b's variance and beta's in it."""
    fit = cases.cbpp()
    table = fit.predict(type="link", se=True)
    given = np.sqrt(fit.ranef_cov["herd"][:, 0, 0])[fit.design.terms[0].codes]
    assert (table["se"] > 0.9 * given).all()
    with pytest.warns(NewLevelsWarning):
        new = fit.predict(NEW, type="link", se=True)
    x = np.array([1.0, 0, 0, 1.0])
    alone = x @ fit.vcov.to_numpy() @ x + fit.varcorr["herd"].cov.iloc[0, 0]
    np.testing.assert_allclose(new.loc["b", "se"] ** 2, alone, rtol=1e-8)


# Intervals ---------------------------------------------------------------------------


def test_confidence_limits_are_made_on_the_link_scale():
    fit = cases.cbpp()
    for re in ("conditional", "population", "marginal"):
        link = fit.predict(re=re, type="link", interval="confidence", level=0.9)
        table = fit.predict(re=re, interval="confidence", level=0.9)
        np.testing.assert_allclose(table["lower"], special.expit(link["lower"]))
        np.testing.assert_allclose(table["upper"], special.expit(link["upper"]))
        assert ((table["lower"] > 0) & (table["upper"] < 1)).all()
        half = (link["upper"] - link["fit"]) / special.ndtri(0.95)
        se = fit.predict(re=re, type="link", se=True)["se"]
        np.testing.assert_allclose(half, se)


def test_prediction_limits_by_hand():
    """Binomial counts whose probability varies by herd and is uncertain."""
    fit = cases.cbpp()
    new = {"period": ["1", "4"]}
    table = fit.predict(new, "marginal", interval="prediction", level=0.9, trials=20)
    link = fit.predict(new, re="population", type="link", se=True)
    sd = np.hypot(link["se"], fit.varcorr["herd"].sd.iloc[0])
    z = np.linspace(-9, 9, 2001)
    w = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    for row in range(2):
        p = special.expit(link["fit"][row] + sd[row] * z)
        below = np.array([stats.binom.cdf(k, 20, p) @ w for k in range(21)])
        assert table.loc[row, "lower"] == np.argmax(below >= 0.05)
        assert table.loc[row, "upper"] == np.argmax(below >= 0.95)
    np.testing.assert_allclose(table["fit"], 20 * fit.predict(new, "marginal"))


def test_prediction_limits_cover_new_observations():
    fit = cases.slopes()
    table = fit.predict(re="marginal", interval="prediction", level=0.8)
    y = fit.simulate(400, seed=3)
    inside = (y >= table["lower"].to_numpy()) & (y <= table["upper"].to_numpy())
    assert 0.78 < inside.mean() < 0.9
    narrow = fit.predict(interval="prediction", level=0.8)
    assert (narrow["upper"] - narrow["lower"]).mean() < (
        table["upper"] - table["lower"]
    ).mean()


def test_trials():
    fit = cases.cbpp()
    own = fit.predict(interval="prediction")  # proportions of the herds' own sizes
    assert (own[["lower", "upper"]].to_numpy() <= 1).all()
    counts = fit.predict(interval="prediction", trials=fit.design.trials)
    np.testing.assert_allclose(counts["upper"], own["upper"] * fit.design.trials)
    new = NEW.assign(herd="1", m=[10, 20])
    table = fit.predict(new, trials="m", se=True, interval="confidence")
    plain = fit.predict(new, se=True, interval="confidence")
    np.testing.assert_allclose(table, plain * np.array([[10], [20]]))
    turned = fit.predict(new, trials=new.m[::-1], se=True, interval="confidence")
    np.testing.assert_allclose(turned, table)
    with pytest.raises(NotApplicableError, match="pass trials="):
        fit.predict(new, interval="prediction")
    for wrong, message in ((2.5, "row 0 has 2.5"), ([1, 2, 3], "3 values for 2 rows")):
        with pytest.raises(DataError, match=message):
            fit.predict(new, trials=wrong)
    with pytest.raises(DataError, match="needs newdata"):
        fit.predict(trials="size")


def test_words_that_do_not_fit_together():
    fit = cases.slopes()
    with pytest.raises(NotApplicableError, match="not 'poisson'"):
        fit.predict(trials=3)
    with pytest.raises(NotApplicableError, match="scale of the response"):
        fit.predict(type="link", interval="prediction")
    with pytest.raises(NotApplicableError, match="'response'"):
        fit.predict(type="mu")
    with pytest.raises(NotApplicableError, match="counts"):
        cases.cbpp().predict(type="link", trials=3)


# Without random effects --------------------------------------------------------------


def test_a_model_without_random_effects_is_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    fit, data = cases.logit(), cases.logit_data()
    model = sm.GLM(data.y, fit.design.X, family=sm.families.Binomial()).fit(tol=1e-12)
    known = model.get_prediction(fit.design.X).summary_frame(alpha=0.1)
    for re in ("conditional", "population", "marginal"):
        table = fit.predict(re=re, se=True, interval="confidence", level=0.9)
        np.testing.assert_allclose(table["fit"], known["mean"], rtol=1e-6)
        np.testing.assert_allclose(table["se"], known["mean_se"], rtol=1e-5)
        np.testing.assert_allclose(table["lower"], known["mean_ci_lower"], rtol=1e-5)
        np.testing.assert_allclose(table["upper"], known["mean_ci_upper"], rtol=1e-5)
    outcome = fit.predict(interval="prediction")
    assert set(outcome[["lower", "upper"]].to_numpy().ravel()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("Binomial", "probit"),
        ("Binomial", "cloglog"),
        ("Binomial", "cauchit"),
        ("Binomial", "log"),
        ("Binomial", "identity"),
        ("Poisson", "sqrt"),
        ("Poisson", "identity"),
        ("NegativeBinomial", "log"),
        ("Gamma", "inverse"),
        ("Gamma", "identity"),
        ("InverseGaussian", "1/mu^2"),
        ("Beta", "logit"),
        ("StudentT", "identity"),
        ("Gaussian", "log"),
    ],
)
def test_families_and_links(family, link):
    """Estimates put in by hand: no fit, and everything that predict offers."""
    from doors import Estimates, GeneralisedFit, design_from_formula, integrator

    kind = getattr(jg, family)(link=link)
    data = cases.logit_data().assign(y=0.5).head(20)
    design = design_from_formula("y ~ x", data)
    beta = np.array([0.5, 0.1]) if link not in ("log",) else np.array([-1.0, 0.1])
    estimates = Estimates(
        beta, 0.01 * np.eye(2), 1.0, (), np.zeros(0), (), 0.0, False, True, False, 0, 1,
        0.0, phi=np.zeros(kind.n_phi),
    )  # fmt: skip
    fit = GeneralisedFit(design, estimates, kind, integrator())
    eta = design.X @ beta
    table = fit.predict(se=True, interval="confidence")
    np.testing.assert_allclose(table["fit"], kind.mean(eta))
    slope = (kind.mean(eta + 1e-6) - kind.mean(eta - 1e-6)) / 2e-6
    se = np.sqrt(0.01 * (1 + data.x.to_numpy() ** 2))
    np.testing.assert_allclose(table["se"], np.abs(slope) * se, rtol=1e-6)
    half = special.ndtri(0.975) * se
    ends = np.sort([kind.mean(eta - half), kind.mean(eta + half)], axis=0)
    inside = (eta - half > 0) | (link not in ("sqrt", "inverse", "1/mu^2"))
    np.testing.assert_allclose(table["lower"][inside], ends[0][inside])
    np.testing.assert_allclose(table["upper"][inside], ends[1][inside])
    assert (table["lower"] <= table["fit"]).all()
    assert (table["fit"] <= table["upper"]).all()
    limits = fit.predict(interval="prediction")
    assert np.isfinite(limits.to_numpy()).all()
    assert (limits["lower"] <= limits["upper"]).all()


def test_limits_where_a_link_ends():
    from doors import means_between as between

    inverse = jg.Gamma(link="inverse")
    low, high = between(inverse.mean, inverse.link, np.array([-0.1]), np.array([0.5]))
    np.testing.assert_array_equal([low[0], high[0]], [2.0, np.inf])
    root = jg.Poisson(link="sqrt")
    low, high = between(root.mean, root.link, np.array([-1.0]), np.array([2.0]))
    np.testing.assert_array_equal([low[0], high[0]], [0.0, 4.0])


# Hostile input -----------------------------------------------------------------------


def test_missing_values_give_missing_predictions():
    fit = cases.slopes()
    new = cases.slopes_data().head(3).drop(columns="y")
    new.loc[1, "x"] = np.nan
    for re in ("conditional", "population", "marginal"):
        for interval in ("confidence", "prediction"):
            table = fit.predict(new, re=re, se=True, interval=interval)
            assert table.iloc[1].isna().all()
            assert table.iloc[[0, 2]].notna().all(axis=None)


def test_no_rows():
    for fit, data in (
        (cases.slopes(), cases.slopes_data()),
        (cases.logit(), cases.logit_data()),
        (cases.gamma(), pd.DataFrame({"x": [1.0], "g": ["1"], "h": ["1"]})),
    ):
        for re in ("conditional", "population", "marginal"):
            table = fit.predict(data.iloc[:0], re=re, se=True, interval="prediction")
            assert table.shape == (0, 4)
            assert len(fit.predict(data.iloc[:0], re=re)) == 0


def test_levels_and_columns_that_are_not_there():
    fit = cases.cbpp()
    with pytest.raises(DataError, match="'7'"):
        fit.predict({"period": ["7"]}, re="population")
    with pytest.raises(DataError, match="herd"):
        fit.predict({"period": ["1"]})
    with pytest.raises(DataError, match="99"):
        fit.predict(NEW, new_levels="error")
    with pytest.raises(DataError, match="table"):
        fit.predict([1, 2, 3])
    numbers = {"period": [1, 4], "herd": [1, 2]}  # whole numbers for labels
    labels = {"period": ["1", "4"], "herd": ["1", "2"]}
    np.testing.assert_array_equal(fit.predict(numbers), fit.predict(labels))
    with pytest.warns(NewLevelsWarning):
        missing = fit.predict({"period": ["1"], "herd": [None]}, se=True)
    assert np.isfinite(missing.to_numpy()).all()


def test_arrays_with_an_offset_and_a_slope():
    data = cases.slopes_data()
    X = np.column_stack([np.ones(160), data.kind == "b"]).astype(float)
    fit = jg.glmm(
        data.y,
        X,
        {"g": data.g},
        family="poisson",
        random_effects={"g": ["1", "x"]},
        random_data={"x": data.x},
        offset=np.log(data.area),
    )
    new = {"X": X[:3], "offset": np.log(data.area[:3])}
    with pytest.raises(DataError, match="slope 'x'"):
        fit.predict(new, re="marginal")
    new["random_data"] = {"x": data.x[:3]}
    np.testing.assert_allclose(
        fit.predict(new, re="marginal"), fit.predict(re="marginal")[:3]
    )
    new["groups"] = {"g": data.g[:3]}
    np.testing.assert_allclose(fit.predict(new), fit.fitted_values[:3])
    with pytest.raises(DataError, match="offset"):
        fit.predict({"X": X[:3]}, re="population")


def test_predictions_of_the_data_never_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fit in (cases.cbpp(), cases.slopes(), cases.gamma(), cases.logit()):
            for re in ("conditional", "population", "marginal"):
                fit.predict(re=re, se=True, interval="prediction")
                fit.predict(re=re, se=True, interval="confidence")
