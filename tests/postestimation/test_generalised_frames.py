"""Tables of generalised fits: ratios, variance parameters, one row about the fit."""

import pickle

import numpy as np
import pytest
from postestimation import generalised_cases as cases

import jaxglmm as jg
from jaxglmm import NotApplicableError


def test_odds_ratios():
    fit = cases.cbpp()
    plain = fit.tidy(conf_int=True, conf_level=0.9)
    ratios = fit.tidy(conf_int=True, conf_level=0.9, exponentiate=True)
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(ratios[name], np.exp(plain[name]))
    np.testing.assert_allclose(ratios["std_error"], np.exp(fit.coefficients) * fit.se)
    for name in ("statistic", "p_value"):
        np.testing.assert_array_equal(ratios[name], plain[name])


def test_the_level_of_conf_int_is_the_fits(tmp_path):
    """pystatistics' ``conf_level``, as an argument and as a property."""
    cbpp = jg.datasets.load("cbpp")
    fit = jg.glmm(cases.cbpp().formula, cbpp, conf_level=0.8)
    assert (fit.conf_level, cases.cbpp().conf_level) == (0.8, 0.95)
    limits = fit.confint(0.8).to_numpy()
    fit.save(tmp_path / "fit")
    for same in (fit, pickle.loads(pickle.dumps(fit)), jg.load(tmp_path / "fit")):
        assert same.conf_level == 0.8
        np.testing.assert_allclose(same.conf_int, limits, rtol=1e-12)
    assert fit.refit(fit.design.y).conf_level == 0.8
    linear = jg.lmm(
        "Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"), conf_level=0.9
    )
    np.testing.assert_allclose(linear.conf_int, linear.confint(0.9).to_numpy())


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, "high", np.nan])
def test_levels_outside_their_range(level):
    for fit in (jg.glmm, jg.lmm):
        with pytest.raises(jg.JaxGLMMError, match="must lie between 0 and 1"):
            fit("y ~ x + (1 | g)", {}, conf_level=level)


def test_only_fixed_effects_become_ratios():
    fit = cases.cbpp()
    table = fit.tidy("all", exponentiate=True).set_index("effect")
    other = fit.tidy("all").set_index("effect")
    for effect in ("ran_pars", "ran_vals"):
        np.testing.assert_array_equal(
            table.loc[[effect], "estimate"], other.loc[[effect], "estimate"]
        )


@pytest.mark.parametrize("link", ["probit", "cauchit"])
def test_links_without_ratios(link):
    fit = jg.glmm("y ~ x", cases.logit_data(), family=jg.Binomial(link=link))
    with pytest.raises(NotApplicableError, match=r"'logit' \(odds ratios\)"):
        fit.tidy(exponentiate=True)


def test_a_linear_model_has_no_ratios():
    fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    with pytest.raises(NotApplicableError, match="'identity'"):
        fit.tidy(exponentiate=True)


def test_variance_parameters_and_dispersion():
    fit = cases.gamma()
    table = fit.tidy("ran_pars")
    assert table["term"].tolist() == ["sd_(Intercept)|g", "sd_(Intercept)|h", "phi"]
    assert table["group"].tolist() == ["g", "h", "Dispersion"]
    assert table["estimate"].iloc[-1] == pytest.approx(fit.dispersion)
    assert cases.cbpp().tidy("ran_pars")["term"].tolist() == ["sd_(Intercept)|herd"]
    assert len(cases.logit().tidy("ran_pars")) == 0
    assert cases.logit().tidy("all")["effect"].unique().tolist() == ["fixed"]


@pytest.mark.parametrize("case", [cases.cbpp, cases.slopes, cases.gamma])
def test_standard_errors_of_variance_parameters(case):
    """Numeric derivatives of sds and correlations made from Sigma."""
    fit = case()

    def values(psi):
        out = []
        for sigma in cases.user_parameters(fit, psi)[1]:
            sd = np.sqrt(np.diag(sigma))
            corr = sigma / np.outer(sd, sd)
            out += [*sd, *corr[np.tril_indices(len(sd), -1)]]
        return np.array([*out, *np.exp(fit.engine.base.split(psi)[2])])

    psi = np.asarray(fit.internal()[0])
    J = cases.derivative(values, psi)
    error = np.sqrt(np.diagonal(J @ fit.parameter_covariance @ J.T))
    table = fit.tidy("ran_pars")
    np.testing.assert_allclose(table["estimate"], values(psi), rtol=1e-8)
    np.testing.assert_allclose(table["std_error"], error, rtol=1e-6)


def test_no_standard_errors_on_the_boundary():
    data = cases.logit_data().assign(g=np.arange(150) % 5, h=np.arange(150) % 2)
    data["y"] = data["h"]  # no difference between the groups
    data.loc[:4, "y"] = 1 - data.loc[:4, "h"]
    with pytest.warns(UserWarning, match="Singular"):
        fit = jg.glmm("y ~ 1 + (1 | g)", data, family="binomial")
    table = fit.tidy("ran_pars")
    assert table["estimate"].tolist() == [0.0]
    assert np.isnan(table["std_error"]).all()
    found = fit.predict(re="marginal", se=True)
    np.testing.assert_allclose(found, fit.predict(re="population", se=True))


def test_one_row_about_the_fit():
    row = cases.gamma().glance()
    assert len(row) == 1
    fit = cases.gamma()
    assert row.loc[0, ["family", "link"]].tolist() == ["gamma", "log"]
    assert row.loc[0, "method"] == "Laplace approximation"
    assert row.loc[0, "dispersion"] == fit.dispersion
    assert row.loc[0, "deviance"] == fit.deviance
    assert row.loc[0, "log_likelihood"] == fit.log_likelihood
    assert cases.logit().glance().loc[0, "method"] == "maximum likelihood"


def test_rows_with_their_predictors():
    fit = cases.cbpp()
    out = fit.augment()
    np.testing.assert_array_equal(out["fitted"], fit.fitted_values)
    np.testing.assert_array_equal(out["linear_predictor"], fit.linear_predictor)
    np.testing.assert_array_equal(out["fixed"], fit.fixed_part)
    share = out["incidence"] / out["size"]
    np.testing.assert_allclose(out["fitted"] + out["resid"], share)


def test_coefficients():
    table = cases.cbpp().coefficient_table()
    np.testing.assert_allclose(
        table["statistic"], table["estimate"] / table["std_error"]
    )
    assert (table["df"] == np.inf).all()
