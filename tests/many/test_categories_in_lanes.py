"""Many responses of categories: lanes are single fits, whatever is missing in them."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

J, ROWS = 10, 6
X = np.random.default_rng(2).normal(size=J * ROWS)
G = np.repeat(np.arange(J), ROWS)
DATA = pd.DataFrame({"x": X, "g": G})
FORMULA = "y ~ x + (1 | g)"
ORDINAL = jg.Cumulative()


def ratings(seed):
    rng = np.random.default_rng(seed)
    latent = X + rng.normal(size=J)[G] + rng.logistic(size=len(X))
    return np.digitize(latent, [-1.5, 0.0, 1.5]) + 1


Y = np.stack([ratings(k) for k in range(3)], axis=1)


@pytest.fixture(scope="module")
def fits():
    return jg.fit_many(FORMULA, DATA, responses=Y, family=ORDINAL)


def agrees(fits, i, **options):
    one = fits[i]
    found = fits.coefficients[i], fits.se[i], fits.log_likelihood[i]
    for own, alone in zip(
        found, (one.coefficients, one.se, one.log_likelihood), strict=True
    ):
        np.testing.assert_allclose(own, alone, rtol=1e-7, atol=1e-8)
    return one


def test_ordinal_lanes_are_single_fits(fits):
    assert fits.status_names.tolist() == ["converged"] * 3
    for i in range(3):
        one = agrees(fits, i)
        table = one.threshold_coefficients
        np.testing.assert_allclose(fits.dispersion[i], table["estimate"], atol=1e-8)
        np.testing.assert_allclose(fits.dispersion_se[i], table["std_error"], rtol=1e-7)
        np.testing.assert_allclose(fits.thresholds.iloc[i], one.thresholds, atol=1e-8)
    assert [*fits.thresholds.columns] == ["1|2", "2|3", "3|4"]
    assert [*fits.frame().columns] == ["x", "sd_(Intercept)|g", "1|2", "2|3", "3|4"]


def test_tables_have_thresholds_with_errors(fits):
    table = fits.tidy().query("dataset == 1 and term == '2|3'").iloc[0]
    own = fits[1].threshold_coefficients.loc["2|3"]
    assert table["effect"] == "fixed"
    assert table["std_error"] == pytest.approx(own["std_error"], rel=1e-6)
    assert "2|3" in str(fits.summary())


def test_probabilities_are_those_of_the_single_fit(fits):
    new = {"x": [-1.0, 0.0, 2.0]}
    one = fits[2]
    P = fits.predict(new, type="probs")
    assert P.shape == (3, 3, 4)
    np.testing.assert_allclose(
        P[2], one.predict(new, re="population", type="probs"), atol=1e-8
    )
    own = one.predict(new, re="population", type="mean_class")
    np.testing.assert_allclose(fits.predict(new)[2], own, atol=1e-8)
    assert fits.predict(type="class").shape == (3, len(X))
    assert set(fits.predict(type="class")[0]) <= {1, 2, 3, 4}


def test_an_empty_category_has_no_probability(fits):
    own = Y.astype(float)
    own[own == 4] = 3
    own[:4, 1] = np.nan
    own[0, 2] = 4
    own[:, 0] = np.where(own[:, 0] == 2, 1, own[:, 0])
    found = jg.fit_many(FORMULA, DATA, responses=own, family=ORDINAL)
    assert found.converged.all()
    first, second, third = found.thresholds.to_numpy()
    assert np.isposinf(first[2])
    assert first[0] == pytest.approx(first[1], abs=1e-12)
    assert np.isposinf(second[2])
    assert np.isfinite(third).all()
    for i in range(2):
        with pytest.warns(jg.JaxGLMMWarning, match="no row of"):
            agrees(found, i)
    with pytest.warns(jg.JaxGLMMWarning, match="no row of 4, which is left out"):
        one = found[1]
    np.testing.assert_allclose(second[:2], one.thresholds, atol=1e-7)
    P = found.predict({"x": [0.0]}, type="probs")[0, 0]
    assert P[1] == pytest.approx(0.0, abs=1e-12)
    assert P[3] == 0.0


def test_labels_in_any_form_are_the_same_categories(fits):
    names = np.array(["low", "middle", "high", "top"])
    text = names[Y - 1]
    order = [*names]
    frames = [
        (text, jg.Cumulative(levels=order)),
        (
            pd.DataFrame(
                {k: pd.Categorical(text[:, k], order, ordered=True) for k in range(3)}
            ),
            ORDINAL,
        ),
    ]
    for given, family in frames:
        found = jg.fit_many(FORMULA, DATA, responses=given, family=family)
        np.testing.assert_allclose(found.coefficients, fits.coefficients, rtol=1e-9)
        assert [*found.thresholds.columns] == ["low|middle", "middle|high", "high|top"]
    with pytest.raises(jg.DataError, match="no order"):
        jg.fit_many(FORMULA, DATA, responses=text, family=ORDINAL)


def test_bad_data_sets_say_so_alone():
    own = np.concatenate([Y.astype(float), np.full((len(X), 3), 2.0)], axis=1)
    own[3, 4] = 2.5
    own[3, 5] = np.nan
    with pytest.warns(jg.ConvergenceWarning, match="constant response"):
        found = jg.fit_many(FORMULA, DATA, responses=own, family=ORDINAL)
    assert found.status_names.tolist() == [
        *["converged"] * 3,
        "constant response",
        "values that cannot be used",
        "constant response",
    ]
    assert np.isnan(found.predict({"x": [0.0]})[3:]).all()


def test_data_sets_of_their_own_rows(fits):
    long = pd.concat([DATA.assign(y=Y[:, k], k=f"d{k}") for k in range(3)])
    found = jg.fit_many(FORMULA, long, by="k", family=ORDINAL)
    np.testing.assert_allclose(found.coefficients, fits.coefficients, rtol=1e-7)
    np.testing.assert_allclose(found.dispersion_se, fits.dispersion_se, rtol=1e-7)
    less = jg.fit_many(FORMULA, long.iloc[3:], by="k", family=ORDINAL)
    agrees(less, 0)
    assert found["d1"].thresholds.shape == (3,)


def test_structured_thresholds(fits):
    family = jg.Cumulative("probit", "symmetric")
    found = jg.fit_many(FORMULA, DATA, responses=Y[:, :2], family=family)
    one = agrees(found, 1)
    np.testing.assert_allclose(found.thresholds.iloc[1], one.thresholds, atol=1e-7)
    assert found.dispersion_names == tuple(one.threshold_coefficients.index)


def nominal_effects(found, **options):
    for i in range(2):
        agrees(found, i)
        one = jg.clmm(FORMULA, WITH.assign(y=FEW[:, i]), **options)
        assert found.log_likelihood[i] == pytest.approx(one.log_likelihood, abs=1e-8)
        assert found.coefficient_names == tuple(one.coefficient_names)
    names = [n for n in found.coefficient_names if n.endswith("z")]
    table = found.tidy().query("dataset == 1").set_index("term").loc[names]
    np.testing.assert_allclose(
        table["std_error"], one.coefficient_table().loc[names, "std_error"], rtol=1e-6
    )
    assert one.threshold_coefficients.loc[names].shape == (len(names), 3)


FEW = np.minimum(Y, 3)[:, :2]
WITH = DATA.assign(z=np.arange(len(X)) % 2)


@pytest.mark.slow
def test_nominal_effects_in_lanes():
    """Thresholds with predictors of their own: partial proportional odds."""
    own = {"responses": FEW, "family": ORDINAL, "nominal": "~ z"}
    nominal_effects(jg.fit_many(FORMULA, WITH, **own), nominal="~ z")


@pytest.mark.slow
def test_more_thresholds_with_effects_one_after_the_other():
    own = {"nominal": "~ z", "dispersion": "~ x"}
    found = jg.fit_many(FORMULA, WITH, responses=Y[:, :2], family=ORDINAL, **own)
    for i in range(2):
        agrees(found, i)
    assert found.coefficients.shape == (2, 8)


def test_multinomial_lanes_are_single_fits():
    rng = np.random.default_rng(3)
    eta = 1.5 * rng.normal(size=(2, J, 3))[:, G] + rng.gumbel(size=(2, len(X), 3))
    labels = np.array(["bus", "car", "walk"])[np.argmax(eta, axis=-1).T]
    found = jg.fit_many(FORMULA, DATA, responses=labels, family="multinomial")
    one = agrees(found, 1)
    assert found.coefficient_names == tuple(one.coefficient_names)
    new = {"x": [0.0, 1.0]}
    np.testing.assert_allclose(
        found.predict(new, type="probs")[1],
        one.predict(new, re="population", type="probs"),
        atol=1e-8,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"),
    [("poisson", {"zi": "~ 1"}), ("nbinom2", {"dispersion": "~ x"})],
)
def test_several_predictors_of_own_rows(family, options):
    rng = np.random.default_rng(5)
    mean = np.exp(1 + rng.normal(size=(2, J))[:, G])
    drawn = rng.negative_binomial(3, 3 / (3 + mean))
    counts = np.where(rng.random(drawn.shape) < 0.2, 0, drawn)
    long = pd.concat([DATA.assign(y=counts[k], k=k) for k in range(2)]).iloc[:-2]
    found = jg.fit_many(FORMULA, long, by="k", family=family, **options)
    for i in range(2):
        agrees(found, i)


def test_offsets_of_several_predictors_one_after_the_other():
    """Each predictor has an offset; a missing value is a row less of all."""
    rng = np.random.default_rng(6)
    off = rng.normal(0.0, 0.3, len(X))
    mean = np.exp(1 + off + 0.5 * rng.normal(size=(2, J))[:, G])
    counts = np.where(rng.random(mean.shape) < 0.3, 0, rng.poisson(mean)).T.astype(
        float
    )
    counts[5, 1] = np.nan
    own = {"family": "poisson", "zi": "~ 1", "method": jg.MAP(draws=16)}
    frame = DATA.assign(off=off)
    found = jg.fit_many(FORMULA, frame, responses=counts, offset="off", **own)
    there = ~np.isnan(counts[:, 1])
    alone = frame.assign(y=counts[:, 1])[there]
    one = jg.glmm(FORMULA, alone, offset="off", **own)
    np.testing.assert_allclose(found.coefficients[1], one.coefficients, rtol=1e-6)


def test_fits_of_categories_are_kept_in_files(fits, tmp_path):
    fits.save(tmp_path / "fits.zip", data=True)
    read = jg.load(tmp_path / "fits.zip")
    pd.testing.assert_frame_equal(read.thresholds, fits.thresholds)
    new = {"x": [0.5]}
    np.testing.assert_array_equal(
        read.predict(new, type="probs"), fits.predict(new, type="probs")
    )
    agrees(read, 0)


def test_what_is_not_offered_is_refused_by_name(fits):
    with pytest.raises(jg.NotApplicableError, match="profiles of many models"):
        fits.confint(method="profile")
    with pytest.raises(jg.NotApplicableError, match="checks of many models"):
        fits.check()
