"""Zero inflation, hurdles and dispersion through glmm: estimates and questions."""

import pickle
import warnings

import numpy as np
import pytest

import jaxglmm as jg

ZIP = {  # glmmTMB 1.1.5: count ~ spp + mined + (1 | site), zi ~ spp + mined, Poisson
    "loglik": -875.746880169685,
    "cond": {"(Intercept)": (-0.311455111564832, 0.285467053557199)},
    "zi": {
        "(Intercept)": (0.974977628594963, 0.420176062786307),
        "mined[T.no]": (-1.91560678361949, 0.314721042166984),
    },
}


@pytest.fixture(scope="module")
def salamanders():
    return jg.datasets.load("Salamanders")


@pytest.fixture(scope="module")
def zip_fit(salamanders):
    formula = "count ~ spp + mined + (1 | site)"
    return jg.glmm(formula, salamanders, family="poisson", zi="~ spp + mined")


@pytest.fixture(scope="module")
def full(salamanders):
    formula = "count ~ mined + (1 | site)"
    return jg.glmm(
        formula, salamanders, family="nbinom2", zi="~ mined", dispersion="~ DOY"
    )


def test_a_zero_inflated_model_is_glmmtmbs(zip_fit):
    assert zip_fit.converged
    np.testing.assert_allclose(zip_fit.log_likelihood, ZIP["loglik"], atol=1e-6)
    names = list(zip_fit.fixef)
    for component, numbers in (("cond", ZIP["cond"]), ("zi", ZIP["zi"])):
        for name, (estimate, se) in numbers.items():
            assert abs(zip_fit.fixef[component][name] - estimate) < 1e-5 * se
            mark = "" if component == "cond" else "zi~"
            own = zip_fit.se[names.index(mark + name)]
            np.testing.assert_allclose(own, se, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "loglik"),
    [
        ({"family": "truncated_poisson", "zi": "~ spp + mined"}, -878.0834),
        ({"family": "nbinom2", "dispersion": "~ DOY"}, -825.4973),
        ({"family": "nbinom2", "zi": "~ mined"}, -822.4184),
    ],
    ids=["hurdle", "dispersion", "zinb"],
)
def test_log_likelihoods_are_glmmtmbs(salamanders, options, loglik):
    fit = jg.glmm("count ~ spp + mined + (1 | site)", salamanders, **options)
    assert fit.converged
    assert abs(fit.log_likelihood - loglik) < 1e-4


def test_other_spellings_and_nothing_to_model(salamanders):
    formula = "count ~ mined + (1 | site)"
    ours = jg.glmm(formula, salamanders, family="nbinom2", zi="~ mined")
    theirs = jg.glmm(formula, salamanders, family="nbinom2", ziformula="~ mined")
    np.testing.assert_allclose(ours.criterion, theirs.criterion, rtol=1e-12)
    plain = jg.glmm(formula, salamanders, family="nbinom2")
    none = jg.glmm(formula, salamanders, family="nbinom2", zi="~ 0", dispersion="~ 1")
    np.testing.assert_allclose(none.criterion, plain.criterion, rtol=1e-12)
    assert type(none) is type(plain)
    with pytest.raises(jg.ArgumentError, match="two names of one argument"):
        jg.glmm(formula, salamanders, family="nbinom2", zi="~ 1", ziformula="~ 1")


def test_a_constant_dispersion_is_the_plain_model(salamanders):
    """A covariate that is nearly constant apart: the intercept alone is the same."""
    formula = "count ~ mined + (1 | site)"
    plain = jg.glmm(formula, salamanders, family="nbinom2")
    data = salamanders.assign(one=1.0)
    fit = jg.glmm(formula, data, family="nbinom2", dispersion="~ 0 + one")
    np.testing.assert_allclose(fit.criterion, plain.criterion, atol=1e-8)
    found = np.exp(fit.fixef["disp"]["one"])
    np.testing.assert_allclose(found, plain.dispersion, rtol=1e-4)


def test_zero_inflation_that_is_none_says_so():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), 15)
    y = rng.poisson(np.exp(1.5 + 0.3 * rng.normal(size=20))[g])
    data = {"y": np.where(y == 0, 1, y), "g": g}
    with pytest.warns(jg.ZeroInflationWarning, match="Leave zi= out"):
        fit = jg.glmm("y ~ 1 + (1 | g)", data, family="poisson", zi="~ 1")
    plain = jg.glmm("y ~ 1 + (1 | g)", data, family="poisson")
    np.testing.assert_allclose(fit.criterion, plain.criterion, atol=1e-3)


# Questions ------------------------------------------------------------------------


def test_tables_name_the_component(full):
    table = full.tidy(effects=["fixed", "ran_pars"])
    components = ["cond", "cond", "zi", "zi", "disp", "disp", "cond"]
    assert table["component"].tolist() == components
    assert table["term"].tolist()[2:4] == ["(Intercept)", "mined[T.no]"]
    text = str(full.summary())
    for line in ("Zero inflation: ~ mined", "Dispersion: ~ DOY", "dispersion model:"):
        assert line in text
    assert full.vcov.index.tolist()[2] == "zi~(Intercept)"
    assert full.fixef["zi"]["mined[T.no]"] == full.fixef["zi~mined[T.no]"]
    with pytest.raises(KeyError):
        full.fixef["other"]


def test_predictions_fit_together(full):
    mean, p = (full.predict(type=t) for t in ("conditional", "zprob"))
    np.testing.assert_allclose(full.predict(), (1 - p) * mean, rtol=1e-12)
    np.testing.assert_allclose(full.predict(), full.fitted_values, rtol=1e-12)
    np.testing.assert_allclose(np.exp(full.predict(type="link")), mean, rtol=1e-12)
    zlink = full.predict(type="zlink", se=True)
    prob = full.predict(type="zprob", se=True)
    np.testing.assert_allclose(prob["se"], zlink["se"] * p * (1 - p), rtol=1e-6)
    new = {"mined": ["yes", "no"], "DOY": [0.3, -1.0]}
    dispersion = full.predict(new, re="population", type="disp")
    own = full.fixef["disp"]
    by_hand = np.exp(own["(Intercept)"] + own["DOY"] * np.array(new["DOY"]))
    np.testing.assert_allclose(dispersion, by_hand, rtol=1e-12)


def test_standard_errors_of_the_population_are_those_of_the_coefficients(full):
    """Of a function of two predictors by hand, at one row."""
    new = {"mined": ["no"], "DOY": [0.0]}
    table = full.predict(new, re="population", se=True, interval="confidence")
    names, vcov = list(full.fixef), full.vcov.to_numpy()
    eta = full.fixef["(Intercept)"] + full.fixef["mined[T.no]"]
    zeta = full.fixef["zi~(Intercept)"] + full.fixef["zi~mined[T.no]"]
    p, mu = 1 / (1 + np.exp(-zeta)), np.exp(eta)
    slope = {"(Intercept)": 1, "mined[T.no]": 1}
    J = np.array([(1 - p) * mu * slope.get(name, 0) for name in names])
    own = np.array([name.startswith("zi~") for name in names])
    J -= p * (1 - p) * mu * own
    np.testing.assert_allclose(table["se"], np.sqrt(J @ vcov @ J), rtol=1e-5)
    row = table.iloc[0]
    assert row["lower"] < row["fit"] < row["upper"]
    np.testing.assert_allclose(
        np.log(row["fit"] / row["lower"]), np.log(row["upper"] / row["fit"]), rtol=1e-9
    )


def test_means_over_random_effects_are_averages_of_draws(full):
    new = {"mined": ["yes"], "DOY": [0.0]}
    found = full.predict(new, re="marginal")[0]
    sd = full.varcorr["site"].sd.iloc[0]
    p = full.predict(new, re="population", type="zprob")[0]
    by_hand = (1 - p) * np.exp(full.fixef["(Intercept)"] + sd**2 / 2)
    np.testing.assert_allclose(found, by_hand, rtol=1e-8)


def test_prediction_intervals_hold_new_observations(full):
    limits = full.predict(interval="prediction")
    y = full.simulate(20, seed=1, re="conditional")
    inside = (y >= limits["lower"].to_numpy()) & (y <= limits["upper"].to_numpy())
    assert 0.95 <= inside.mean() <= 1.0


def test_quantile_residuals_are_standard_normal_under_the_model(full):
    y = full.simulate(1, seed=6)[0]
    again = full.refit(y)
    found = again.resid("quantile", seed=1)
    assert abs(found.mean()) < 0.12
    assert abs(found.std() - 1) < 0.1
    pearson = again.resid("pearson")
    np.testing.assert_allclose(np.mean(pearson**2), 1.0, atol=0.35)


def test_files_and_pickles_keep_the_model(full, tmp_path):
    path = tmp_path / "fit.jaxglmm"
    full.save(path)
    for other in (jg.load(path), pickle.loads(pickle.dumps(full))):
        assert type(other) is type(full)
        np.testing.assert_array_equal(other.predict(), full.predict())
        new = {"mined": ["no"], "DOY": [0.1]}
        kept = other.predict(new, re="population", type="zprob")
        np.testing.assert_array_equal(
            kept, full.predict(new, re="population", type="zprob")
        )


def test_tests_contrasts_and_averages(full):
    table = full.anova()
    assert table.index.tolist() == ["mined", "zi~mined", "disp~DOY"]
    z = full.fixef["zi~mined[T.no]"] / full.se[3]
    np.testing.assert_allclose(table.loc["zi~mined", "statistic"], z**2, rtol=1e-6)
    apart = full.contrasts("mined", type="zlink")
    np.testing.assert_allclose(
        apart["estimate"].abs(), abs(full.fixef["zi~mined[T.no]"]), rtol=1e-9
    )
    np.testing.assert_allclose(apart["std_error"], full.se[3], rtol=1e-9)
    means = full.predictions(by="mined")
    assert (means["std_error"] > 0).all()


def test_what_has_no_meaning_is_refused(full, salamanders):
    for question in (lambda: full.icc, full.r2, lambda: full.resid("deviance")):
        with pytest.raises(jg.NotApplicableError, match="several linear predictors"):
            question()
    plain = jg.glmm("count ~ 1 + (1 | site)", salamanders, family="poisson", zi="~ 1")
    with pytest.raises(jg.NotApplicableError, match="no dispersion parameter"):
        plain.predict(type="disp")
    formula = "count ~ mined + (1 | site)"
    with pytest.raises(jg.ModelError, match="no dispersion parameter"):
        jg.glmm(formula, salamanders, family="poisson", dispersion="~ mined")
    with pytest.raises(jg.DataError, match="has no zeros"):
        jg.glmm(formula, salamanders, family="truncated_poisson")
    with pytest.raises(jg.FormulaError, match="zi formula"):
        jg.glmm(formula, salamanders, family="poisson", zi="~ nothing")


def test_rows_that_miss_a_value_of_any_formula_are_dropped(salamanders):
    data = salamanders.assign(z=np.arange(len(salamanders)) / 100.0)
    data.loc[[3, 9], "z"] = np.nan
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit = jg.glmm("count ~ 1 + (1 | site)", data, family="poisson", zi="~ z")
    assert fit.nobs == len(data) - 2
    assert sum(w.category is jg.MissingRowsWarning for w in said) == 1


def test_many_responses_in_lanes_are_the_single_fits(salamanders):
    formula, options = "y ~ mined + (1 | site)", {"family": "poisson", "zi": "~ mined"}
    data = salamanders.rename(columns={"count": "y"})
    one = jg.glmm(formula, data, **options)
    Y = one.simulate(3, seed=1).T
    fits = jg.fit_many(formula, data, responses=Y, **options)
    for j, single in enumerate(one.refit(y) for y in Y.T):
        np.testing.assert_allclose(
            fits.log_likelihood[j], single.log_likelihood, atol=1e-6
        )
        np.testing.assert_allclose(fits.coefficients[j], single.coefficients, atol=1e-4)
        np.testing.assert_allclose(fits.se[j], single.se, rtol=1e-3)
    assert fits.frame().columns.tolist()[2] == "zi~(Intercept)"


def test_a_linear_model_with_a_dispersion_is_the_gaussian_family():
    sleep = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    one = jg.lmm(formula, sleep, reml=False, dispersion="~ Days")
    two = jg.glmm(formula, sleep, family="gaussian", dispersion="~ Days")
    np.testing.assert_allclose(one.criterion, two.criterion, rtol=1e-12)
    plain = jg.lmm(formula, sleep, reml=False)
    assert one.criterion < plain.criterion
    same = jg.lmm(formula, sleep.assign(a=1.0), reml=False, dispersion="~ 0 + a")
    np.testing.assert_allclose(same.criterion, plain.criterion, atol=1e-6)
    np.testing.assert_allclose(np.exp(same.fixef["disp"]["a"]), plain.sigma, rtol=1e-5)
    with pytest.raises(jg.ModelError, match="reml=False"):
        jg.lmm(formula, sleep, dispersion="~ Days + (1 | Subject)")
