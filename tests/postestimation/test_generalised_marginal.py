"""Predictions, slopes and contrasts of generalised fits, by refits and algebra."""

import numpy as np
import pandas as pd
import pytest
from postestimation import generalised_cases as cases
from scipy import special

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError


def test_average_marginal_effects_are_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    fit, data = cases.logit(), cases.logit_data()
    model = sm.Logit(data.y, fit.design.X).fit(disp=0, tol=1e-12)
    known = model.get_margeff(at="overall", method="dydx")
    rows = pd.concat([fit.slopes(name) for name in ("x", "z")])
    at = [fit.coefficient_names.index(name) - 1 for name in ("x", "z")]
    np.testing.assert_allclose(rows["estimate"], known.margeff[at], rtol=1e-6)
    np.testing.assert_allclose(rows["std_error"], known.margeff_se[at], rtol=1e-5)
    np.testing.assert_allclose(rows["p_value"], known.pvalues[at], rtol=1e-3)
    assert (rows["df"] == np.inf).all()


def test_predictions_of_rows():
    fit = cases.logit()
    new = pd.DataFrame({"x": [0.0, 1.0], "z": [0.5, 0.5], "kind": ["u", "w"]})
    table = fit.predictions(new, level=0.9)
    asked = fit.predict(new, se=True, interval="confidence", level=0.9)
    np.testing.assert_allclose(table["estimate"], asked["fit"])
    np.testing.assert_allclose(table["std_error"], asked["se"])
    np.testing.assert_allclose(table["conf_low"], asked["lower"], rtol=1e-9)
    np.testing.assert_allclose(table["conf_high"], asked["upper"], rtol=1e-9)
    link = fit.predictions(new, type="link")
    np.testing.assert_allclose(link["estimate"], fit.predict(new, type="link"))
    assert len(fit.predictions()) == 150


@pytest.mark.parametrize("re", ["population", "marginal"])
@pytest.mark.parametrize("type", ["response", "link"])
def test_averages_of_predictions(re, type):
    """Means over groups of rows, their errors by numeric derivatives of the means."""
    fit = cases.slopes()
    table = fit.predictions(by="kind", type=type, re=re).set_index("kind")
    rows = cases.slopes_data()["kind"].to_numpy() == "b"
    values = fit.predict(re=re, type=type)[rows]
    assert table.loc["b", "estimate"] == pytest.approx(values.mean())
    z, X = fit.design.terms[0].values[rows], fit.design.X[rows]
    offset = fit.design.offset[rows]

    def mean(psi):
        beta, (sigma,) = cases.user_parameters(fit, psi)
        eta = X @ beta + offset
        if re == "marginal":
            eta = eta + np.einsum("ij,jk,ik->i", z, sigma, z) / 2
        return np.mean(eta if type == "link" else np.exp(eta), keepdims=True)

    J = cases.derivative(mean, fit.internal()[0])
    error = np.sqrt(J @ fit.parameter_covariance @ J.T)[0, 0]
    assert table.loc["b", "std_error"] == pytest.approx(error, rel=1e-6)
    low, high = table.loc["b", ["conf_low", "conf_high"]]
    if type == "response":  # made on the scale of the logarithm
        assert np.sqrt(low * high) == pytest.approx(values.mean())


def test_errors_follow_what_refits_do():
    """Parametric bootstrap: the spread of the estimate over data of the fit itself."""
    fit, data = cases.logit(), cases.logit_data()
    table = fit.contrasts("kind", grid="observed").set_index("contrast")
    found = []
    for y in fit.simulate(60, seed=4):
        again = jg.glmm("y ~ x + z + kind", data.assign(y=y), family="binomial")
        found.append(again.contrasts("kind", grid="observed").loc[1, "estimate"])
    error = table.loc["u - w", "std_error"]
    assert np.std(found) == pytest.approx(error, rel=0.3)
    assert np.mean(found) == pytest.approx(table.loc["u - w", "estimate"], abs=0.05)


def test_slopes_on_the_link_scale_are_coefficients():
    fit = cases.slopes()
    row = fit.slopes("x", type="link").iloc[0]
    assert row["estimate"] == pytest.approx(fit.fixef["x"], rel=1e-9)
    assert row["std_error"] == pytest.approx(fit.se[1], rel=1e-9)


def test_slopes_of_marginal_means_have_the_variance_in_them():
    """d exp(eta + z'Sigma z / 2) / dx, z = (1, x)."""
    fit = cases.slopes()
    x = cases.slopes_data()["x"].to_numpy()
    sigma = fit.varcorr["g"].cov.to_numpy()
    rate = fit.fixef["x"] + sigma[0, 1] + sigma[1, 1] * x
    exact = np.mean(fit.predict(re="marginal") * rate)
    row = fit.slopes("x", re="marginal").iloc[0]
    assert row["estimate"] == pytest.approx(exact, rel=1e-7)


def test_a_variable_in_the_offset_has_a_slope():
    fit = cases.slopes()
    area = cases.slopes_data()["area"].to_numpy()
    exact = np.mean(fit.predict(re="population") / area)
    assert fit.slopes("area").loc[0, "estimate"] == pytest.approx(exact, rel=1e-7)


def test_contrasts_of_probabilities():
    """Counterfactual rows, averaged; the Jacobian written out."""
    fit, data = cases.logit(), cases.logit_data()
    table = fit.contrasts("kind", grid="observed").set_index("contrast")
    p, J = {}, {}
    for level in "uvw":
        rows = fit.design.recipe.new_rows(data.assign(kind=level))
        p[level] = special.expit(rows.X @ fit.coef)
        J[level] = np.mean((p[level] * (1 - p[level]))[:, None] * rows.X, axis=0)
    J = J["u"] - J["w"]
    assert table.loc["u - w", "estimate"] == pytest.approx(np.mean(p["u"] - p["w"]))
    error = np.sqrt(J @ fit.vcov.to_numpy() @ J)
    assert table.loc["u - w", "std_error"] == pytest.approx(error)
    ratio = fit.contrasts("kind", grid="observed", ratio=True).set_index("contrast")
    risk = p["u"].mean() / p["w"].mean()
    assert ratio.loc["u / w", "estimate"] == pytest.approx(risk)


def test_odds_ratios():
    fit = cases.logit()
    table = fit.contrasts("kind", type="link", ratio=True).set_index("contrast")
    b, se = fit.coefficient_table().loc["kind[T.v]", ["estimate", "std_error"]]
    row = table.loc["u / v"]
    assert row["estimate"] == pytest.approx(np.exp(-b))
    assert row["std_error"] == pytest.approx(np.exp(-b) * se)
    assert row["statistic"] == pytest.approx(-b / se)
    assert row["conf_high"] == pytest.approx(np.exp(-b + 1.959964 * se), rel=1e-6)
    plain = fit.contrasts("kind", type="link")
    np.testing.assert_allclose(np.log(table["estimate"]), plain["estimate"])
    np.testing.assert_allclose(table["p_value"], plain["p_value"])


def test_population_averaged_odds_ratios_are_smaller():
    fit = cases.cbpp()
    conditional = fit.contrasts("period", type="link", ratio=True)
    averaged = fit.contrasts("period", type="link", re="marginal", ratio=True)
    mean = fit.predict({"period": ["1", "2"]}, re="marginal")
    odds = mean / (1 - mean)
    assert averaged.loc[0, "estimate"] == pytest.approx(odds[0] / odds[1])
    assert 1 < averaged.loc[0, "estimate"] < conditional.loc[0, "estimate"]


def test_ratios_of_a_linear_model():
    fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    assert fit.predictions(type="link", re="marginal", by=[]).shape == (1, 5)
    machines = jg.lmm("score ~ Machine + (1 | Worker)", jg.datasets.load("Machines"))
    table = machines.contrasts("Machine", ratio=True)
    mean = machines.predict({"Machine": ["A", "B"]}, re="population")
    assert table.loc[0, "estimate"] == pytest.approx(mean[0] / mean[1])
    with pytest.raises(NotApplicableError, match="'identity'"):
        machines.contrasts("Machine", ratio=True, type="link")


def test_offsets_given_beside_the_formula():
    data = cases.slopes_data()
    given = jg.glmm(
        "y ~ x + kind + (1 + x | g)",
        data,
        family="poisson",
        offset=np.log(data.area).to_numpy(),
    )
    named = cases.slopes()
    for ask in (
        lambda fit: fit.predictions(by="kind"),
        lambda fit: fit.slopes("x", re="marginal"),
        lambda fit: fit.contrasts("kind", grid="observed", ratio=True),
    ):
        np.testing.assert_allclose(
            ask(given)["estimate"], ask(named)["estimate"], rtol=1e-6
        )
    new = data.head(5)
    with pytest.raises(DataError, match="offset="):
        given.predictions(new)
    found = given.predictions(new, offset=np.log(new.area))
    np.testing.assert_allclose(found["estimate"], named.predictions(new)["estimate"])
    rates = given.predictions(new, offset=np.zeros(5))["estimate"] * new.area
    np.testing.assert_allclose(rates, found["estimate"])


def test_messages():
    fit = cases.slopes()
    with pytest.raises(NotApplicableError, match="'marginal'"):
        fit.predictions(re="conditional")
    with pytest.raises(NotApplicableError, match="'response'"):
        fit.slopes("x", type="odds")
    with pytest.raises(DataError, match="no rows"):
        fit.slopes("x", cases.slopes_data().iloc[:0])
    with pytest.raises(DataError, match="not a variable"):
        fit.contrasts("species")
    assert fit.predictions(cases.slopes_data().iloc[:0]).shape[0] == 0
    for ask in (fit.predict, fit.predictions, lambda **o: fit.slopes("x", **o)):
        with pytest.raises(NotApplicableError, match="belongs to new data"):
            ask(offset=np.zeros(160))


def test_missing_values_and_lists_of_dicts():
    fit = cases.logit()
    rows = [{"x": 0.0, "z": 0.1, "kind": "u"}, {"x": None, "z": 0.1, "kind": "v"}]
    table = fit.predictions(rows)
    assert table["estimate"].isna().tolist() == [False, True]
    assert fit.slopes("x", rows, by="kind")["estimate"].isna().tolist() == [False, True]
