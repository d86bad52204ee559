"""Responses summed in groups before they are ranked, and statistics of one's own."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(30), 6)
    x = rng.normal(size=180)
    b = np.where(np.arange(30) % 2, 0.9, -0.9)[g]  # two clumps of levels
    data = pd.DataFrame({"y": rng.poisson(np.exp(0.5 + 0.3 * x + b)), "x": x})
    data["g"] = g.astype(str)
    data["half"] = np.where(g % 2, "odd", "even")
    return jg.glmm("y ~ x + half + (1 | g)", data, family="poisson"), data


def test_sums_of_groups_are_ranked(fit):
    fit, data = fit
    found = fit.simulated_residuals(200, seed=3, by="g")
    assert len(found) == 30
    sums = data.groupby("g")["y"].sum()
    levels = found.variables["g"].tolist()
    Y = fit.simulate(200, seed=np.random.SeedSequence(3).spawn(2)[1])
    own = np.stack([Y[:, data["g"] == level].sum(axis=1) for level in levels], axis=1)
    below = (own < sums[levels].to_numpy()).sum(axis=0)
    equal = (own == sums[levels].to_numpy()).sum(axis=0)
    rank = found.scaled * 201
    assert (rank >= below).all()
    assert (rank <= below + equal + 1).all()
    # what is the same in all rows of a group can be asked about
    assert set(found.variables) == {"g", "half"}
    assert found.by("half")["n"].tolist() == [15, 15]
    assert found.tests().shape == (4, 4) or found.tests().shape == (3, 4)
    assert fit.plot.simulated_residuals(found).shape == (2,)


def test_rows_without_a_label_or_weight_are_left_out(fit):
    fit, data = fit
    labels = np.where(np.arange(180) < 60, None, data["g"].to_numpy())
    found = fit.simulated_residuals(50, by=labels)
    assert len(found) == 20
    weights = np.where(data["g"] == "0", 0.0, 1.0)
    own = jg.lmm("y ~ x + (1 | g)", data, weights=weights)
    some = own.simulated_residuals(50, by="g")
    assert some.used.sum() == 29


def test_groups_that_are_none(fit):
    fit, _ = fit
    with pytest.raises(NotApplicableError, match="no variable of the model"):
        fit.simulated_residuals(50, by="z")
    with pytest.raises(DataError, match="there are 180 rows"):
        fit.simulated_residuals(50, by=[1, 2])
    with pytest.raises(DataError, match="at least two"):
        fit.simulated_residuals(50, by=np.ones(180))


def test_a_statistic_of_the_users_own(fit):
    fit, data = fit
    found = fit.simulated_statistic(np.max, n=199, seed=1)
    assert found.statistic == data["y"].max()
    assert 0 < found.p_value <= 1
    Y = fit.simulate(199, seed=np.random.SeedSequence(1).spawn(2)[1])
    np.testing.assert_allclose(found.expected, Y.max(axis=1).mean(), rtol=1e-12)

    def far_apart(y):
        means = pd.Series(y).groupby(data["half"].to_numpy()).mean()
        return abs(means["odd"] - means["even"])

    wrong = jg.glmm("y ~ x + (1 | x)", data.iloc[:60], family="poisson")
    with pytest.raises(NotApplicableError, match="one number"):
        wrong.simulated_statistic(lambda y: y)
    # the model without the halves does not make them as far apart as they are
    none = jg.glmm("y ~ x", data, family="poisson")
    assert none.simulated_statistic(far_apart, 199).p_value <= 0.02


@pytest.mark.parametrize(
    ("of", "words"),
    [("max", "must be a function"), (lambda y: np.nan, "not finite for 51 of 51")],
)
def test_statistics_that_are_none(fit, of, words):
    with pytest.raises(NotApplicableError, match=words):
        fit[0].simulated_statistic(of, 50)


def test_means_of_the_dispersion_are_emmeans(tmp_path):
    """R: emmeans(glmmTMB(count ~ mined + (1 | site), zi = ~ mined, disp = ~ spp))."""
    data = jg.datasets.load("Salamanders")
    fit = jg.glmm(
        "count ~ mined + (1 | site)",
        data,
        family="nbinom2",
        zi="~ mined",
        dispersion="~ spp",
    )
    means = fit.means("spp", component="disp")
    want = [0.42601, -2.28435, 0.46036, -1.44477, -0.23017, 0.12769, -0.00414]
    errors = [0.518, 0.380, 0.545, 0.373, 0.326, 0.413, 0.495]
    np.testing.assert_allclose(means.table["estimate"], want, atol=2e-4)
    np.testing.assert_allclose(means.table["std_error"], errors, atol=6e-4)
    ratios = means.showing(type="response").pairs().table
    np.testing.assert_allclose(
        ratios["estimate"][:3], [15.035, 0.966, 6.493], rtol=1e-3
    )
    rows = pd.DataFrame({"spp": ["GP", "PR"], "mined": "no", "site": "R-1"})
    phi = fit.predict(rows, type="disp", re="population")
    own = fit.means("spp", component="disp", type="response").table["estimate"]
    np.testing.assert_allclose(own[:2], phi, rtol=1e-10)
    plain = jg.lmm(
        "distance ~ age + (1 | Subject)",
        jg.datasets.load("Orthodont"),
        dispersion="~ Sex",
    )
    assert len(plain.means("Sex", component="disp").table) == 2
    with pytest.raises(DataError, match="'age' has no means here; there are Sex"):
        plain.means("age", component="disp")


def test_partial_residuals():
    data = jg.datasets.load("sleepstudy")
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", data)
    found = fit.partial_residuals()
    days = data["Days"].to_numpy(float)
    want = fit.residuals + fit.coefficients[1] * (days - days.mean())
    np.testing.assert_allclose(found["Days"], want, rtol=1e-12)
    # of a generalised model they are working residuals and sum to those
    cbpp = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    counts = jg.glmm(formula, cbpp)
    own = counts.partial_residuals()["period"].to_numpy()
    share = own - counts.resid("working")
    means = pd.Series(share).groupby(cbpp["period"].to_numpy()).agg(["min", "max"])
    np.testing.assert_allclose(means["min"], means["max"], atol=1e-12)
    beta = np.append(0.0, counts.coefficients[1:])
    np.testing.assert_allclose(np.diff(means["min"]), np.diff(beta), rtol=1e-10)
    with pytest.raises(NotApplicableError, match="no term but"):
        jg.lmm("Reaction ~ 1 + (1 | Subject)", data).partial_residuals()
