"""Estimators with scikit-learn's interface: its own checks, and jaxglmm's fits."""

import pickle

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

sklearn = pytest.importorskip("sklearn")
from sklearn import config_context  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GroupKFold, cross_validate  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from jaxglmm.sklearn import GLMMClassifier, GLMMRegressor, LMMRegressor  # noqa: E402

pytestmark = pytest.mark.extras

WIDE = "thirty coefficients of fifteen rows have no unique maximum likelihood"
SAME = "the response among the predictors is refused"
NOT_HERE = {
    "gamma": {
        "check_sample_weight_equivalence_on_dense_data": WIDE,
        "check_regressors_no_decision_function": SAME,
    },
    "classifier": {"check_sample_weight_equivalence_on_dense_data": WIDE},
    "multinomial": {"check_sample_weight_equivalence_on_dense_data": WIDE},
}


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [LMMRegressor(), GLMMRegressor("gaussian")])
def test_scikit_learns_checks(estimator):
    check_estimator(estimator, on_skip=None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "failing"),
    [
        (GLMMClassifier(), NOT_HERE["classifier"]),
        (GLMMClassifier(family="multinomial"), NOT_HERE["multinomial"]),
        (GLMMRegressor("gamma"), NOT_HERE["gamma"]),
    ],
)
def test_scikit_learns_checks_that_apply(estimator, failing):
    check_estimator(estimator, on_skip=None, expected_failed_checks=failing)


def test_groups_as_a_column(sleep):
    X, y = sleep[["Days", "Subject"]], sleep["Reaction"]
    model = LMMRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    np.testing.assert_allclose(model.coef_, fit.coefficients[1:], rtol=1e-8)
    assert model.intercept_ == pytest.approx(fit.coefficients[0])
    np.testing.assert_allclose(model.predict(X), fit.fitted_values, rtol=1e-7)
    assert model.random_effects_["Subject"].shape == (18, 2)
    assert model.feature_names_in_.tolist() == ["Days", "Subject"]
    assert model.score(X, y) == pytest.approx(
        1 - np.sum(fit.residuals**2) / np.sum((y - y.mean()) ** 2)
    )
    arrays = np.column_stack([sleep["Days"], sleep["Subject"].astype(int)])
    by_place = LMMRegressor(groups=-1, random_slopes=[0]).fit(arrays, y)
    np.testing.assert_allclose(by_place.coef_, model.coef_, rtol=1e-8)


def test_unknown_groups_are_at_the_population(sleep):
    X, y = sleep[["Days", "Subject"]], sleep["Reaction"]
    model = LMMRegressor(groups="Subject").fit(X, y)
    new = pd.DataFrame({"Days": [3.0], "Subject": ["nobody"]})
    assert model.predict(new)[0] == pytest.approx(model.intercept_ + 3 * model.coef_[0])


def test_groups_beside_x(sleep):
    X, y, g = sleep[["Days"]], sleep["Reaction"], sleep["Subject"]
    model = LMMRegressor().fit(X, y, groups=g)
    same = LMMRegressor(groups="Subject").fit(sleep[["Days", "Subject"]], y)
    np.testing.assert_allclose(
        model.predict(X, groups=g), same.predict(sleep[["Days", "Subject"]])
    )
    assert model.factors_ == ["group"]
    with pytest.warns(jg.SingularFitWarning):
        both = LMMRegressor().fit(X, y, groups={"a": g, "b": sleep["Days"] % 5})
    assert set(both.random_effects_) == {"a", "b"}
    with pytest.warns(jg.JaxGLMMWarning, match="without groups has no random effects"):
        alone = LMMRegressor().fit(X, y)
    with pytest.raises(ValueError, match="groups were not given to fit"):
        alone.predict(X, groups=g)


def test_metadata_routing_through_a_pipeline(sleep):
    X, y, g = sleep[["Days"]], sleep["Reaction"], sleep["Subject"].astype(str)
    with config_context(enable_metadata_routing=True):
        model = LMMRegressor().set_fit_request(groups=True)
        model = model.set_score_request(groups=True)
        pipe = make_pipeline(StandardScaler(), model)
        found = cross_validate(
            pipe, X, y, params={"groups": g}, cv=GroupKFold(3), error_score="raise"
        )
    assert found["test_score"].shape == (3,)
    assert np.isfinite(found["test_score"]).all()


def test_clones_pickles_and_parameters(sleep):
    model = LMMRegressor(groups="Subject", method="ml", correlated=False)
    again = clone(model)
    assert again.get_params() == model.get_params()
    again.set_params(method="reml")
    X, y = sleep[["Days", "Subject"]], sleep["Reaction"]
    again.fit(X, y)
    back = pickle.loads(pickle.dumps(again))
    np.testing.assert_allclose(back.predict(X), again.predict(X))
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_counts():
    ticks = jg.datasets.load("grouseticks")
    X = ticks[["HEIGHT", "BROOD"]].assign(HEIGHT=ticks["HEIGHT"] / 100)
    model = GLMMRegressor("poisson", groups="BROOD").fit(X, ticks["TICKS"])
    data = X.assign(TICKS=ticks["TICKS"])
    fit = jg.glmm("TICKS ~ HEIGHT + (1 | BROOD)", data, family="poisson")
    np.testing.assert_allclose(model.coef_, fit.coefficients[1:], rtol=1e-6)
    np.testing.assert_allclose(model.predict(X), fit.fitted_values, rtol=1e-5)
    with pytest.warns(jg.JaxGLMMWarning, match="without groups has no random effects"):
        alone = GLMMRegressor("poisson").fit(X[["HEIGHT"]], ticks["TICKS"])
    assert (alone.predict(X[["HEIGHT"]]) > 0).all()
    assert alone.random_effects_ == {}


def test_classes():
    ohio = jg.datasets.load("ohio")
    X = ohio[["age", "smoke", "id"]]
    y = np.where(ohio["resp"] == 1, "wheeze", "none")
    model = GLMMClassifier(groups="id").fit(X, y)
    fit = jg.glmm("resp ~ age + smoke + (1 | id)", ohio)
    assert model.classes_.tolist() == ["none", "wheeze"]
    np.testing.assert_allclose(model.coef_[0], fit.coefficients[1:], rtol=1e-5)
    p = model.predict_proba(X)
    np.testing.assert_allclose(p[:, 1], fit.fitted_values, rtol=1e-4)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert ((model.predict(X) == "wheeze") == (p[:, 1] > 0.5)).all()
    assert model.score(X, y) == pytest.approx(np.mean(model.predict(X) == y))
    with pytest.raises(ValueError, match="Only binary classification"):
        GLMMClassifier().fit(X[["age"]], np.arange(len(X)) % 3)


def test_weights_multiply_rows(sleep):
    X, y = sleep[["Days", "Subject"]], sleep["Reaction"]
    w = np.linspace(0.5, 2, len(y))
    model = LMMRegressor(groups="Subject").fit(X, y, sample_weight=w)
    fit = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep, weights=w)
    np.testing.assert_allclose(model.coef_, fit.coefficients[1:], rtol=1e-8)


TEXTS = {
    "category": lambda c: c.astype("category"),
    "objects": lambda c: c.astype(str).astype(object),
    "string": lambda c: c.astype("string"),
}


@pytest.mark.parametrize("kind", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("estimator", [LMMRegressor(), GLMMClassifier()])
def test_text_is_no_number(sleep, kind, estimator):
    """The text 308 is a label: it has no slope, whether or not it reads as a number."""
    X = sleep[["Days"]].assign(Subject=kind(sleep["Subject"].astype(str)))
    y = (sleep["Reaction"] > 300).astype(int)
    with pytest.raises(ValueError, match=r"'Subject' is text with 18 .* groups="):
        estimator.fit(X, y)


def test_masked_values_are_missing(sleep):
    X, y = sleep[["Days"]].to_numpy(float), sleep["Reaction"].to_numpy()
    mask = np.arange(len(y)) == 3
    with pytest.raises(ValueError, match="contains NaN"):
        LMMRegressor().fit(np.ma.array(X, mask=mask[:, None]), y)
    with pytest.raises(ValueError, match="contains NaN"):
        LMMRegressor().fit(X, np.ma.array(y, mask=mask))
    groups = np.ma.array(sleep["Subject"].astype(int).to_numpy(), mask=mask)
    with pytest.warns(jg.MissingRowsWarning, match="1 of 180 rows"):
        model = LMMRegressor().fit(X, y, groups=groups)
    fit = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep[~mask])
    np.testing.assert_allclose(model.coef_, fit.coefficients[1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"groups": "School"}, "no column 'School'"),
        ({"groups": 7}, "none at 7"),
        ({"groups": "Subject", "random_slopes": ["Weeks"]}, "no column 'Weeks'"),
        ({"groups": "Subject", "random_slopes": ["Subject"]}, "is no number"),
        ({"groups": "Subject", "random_intercept": False}, "must be random_slopes"),
        ({"random_slopes": [0]}, "there are none"),
    ],
)
def test_what_is_wrong_is_said(sleep, options, text):
    X = sleep[["Days", "Subject"]]
    if options.get("groups") is None:
        X = sleep[["Days"]]
    with pytest.raises(ValueError, match=text):
        LMMRegressor(**options).fit(X, sleep["Reaction"])


@pytest.fixture(scope="module")
def wards():
    """X with names that formulas could not read, a latent variable, counts."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(10), 6)
    x, z = rng.normal(size=(2, 60)).round(2)
    X = pd.DataFrame({"dose": x, "ward": g.astype(str), "age (y)": z})
    latent = x + rng.normal(size=10)[g] + rng.logistic(size=60)
    rates = np.exp(1 + 0.5 * rng.normal(size=10)[g])
    counts = np.where(rng.random(60) < 0.3, 0, rng.poisson(rates))
    table = {"x": x, "z": z, "g": g, "counts": counts, "latent": latent}
    return X, pd.DataFrame(table)


LEVELS = ["low", "mid", "high"]


def test_ordered_classes(wards):
    X, table = wards
    codes = np.digitize(table["latent"], [-1, 1])
    y = pd.Series(pd.Categorical.from_codes(codes, LEVELS, ordered=True))
    fit = jg.clmm("y ~ x + z + (1 | g)", table.assign(y=codes))
    model = GLMMClassifier(groups="ward", family="cumulative").fit(X, y)
    assert model.classes_.tolist() == LEVELS
    np.testing.assert_allclose(model.coef_, [fit.coefficients], rtol=1e-6)
    np.testing.assert_allclose(model.intercept_, fit.thresholds, rtol=1e-6)
    expected = fit.predict(type="probs").to_numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-6)
    best = np.array(LEVELS)[expected.argmax(axis=1)]
    assert model.predict(X).tolist() == best.tolist()
    assert model.score(X, y) == np.mean(best == y)
    assert list(model.random_effects_) == ["ward"]
    new = X.head(1).assign(ward="nobody")
    p = np.exp(fit.thresholds - X[["dose", "age (y)"]].iloc[0] @ fit.coefficients)
    assert model.predict_proba(new)[0, 0] == pytest.approx(p.iloc[0] / (1 + p.iloc[0]))
    family = jg.Cumulative(levels=LEVELS)
    text = clone(model).set_params(family=family).fit(X, y.astype(str))
    np.testing.assert_allclose(text.coef_, model.coef_, rtol=1e-8)
    assert not hasattr(model, "decision_function")


def test_classes_without_an_order(wards):
    X, table = wards
    y = np.array(LEVELS)[np.digitize(table["latent"], [-1, 1])]
    model = GLMMClassifier(family="multinomial")
    with pytest.warns(jg.JaxGLMMWarning, match="without groups"):
        model.fit(X[["dose"]], y)
    fit = jg.glmm("y ~ x", table.assign(y=y), family="multinomial")
    assert model.classes_.tolist() == ["high", "low", "mid"]
    found = np.column_stack([model.intercept_, model.coef_[:, 0]])
    np.testing.assert_allclose(found.ravel(), list(fit.fixef.values()), rtol=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(X[["dose"]]), fit.predict(type="probs"), rtol=1e-6
    )


def test_added_zeros_and_a_dispersion(wards):
    X, table = wards
    model = GLMMRegressor("poisson", groups="ward", zi="~ dose").fit(X, table["counts"])
    formula = "counts ~ x + z + (1 | g)"
    fit = jg.glmm(formula, table, family="poisson", zi="~ x")
    np.testing.assert_allclose(model.coef_, fit.coefficients[1:3], rtol=1e-6)
    assert model.intercept_ == pytest.approx(fit.coefficients[0])
    np.testing.assert_allclose(model.predict(X), fit.predict(), rtol=1e-6)
    arrays = X.assign(ward=table["g"]).to_numpy(float)
    by_place = GLMMRegressor("gaussian", groups=1, dispersion="~ x1")
    w = np.linspace(0.5, 2, 60)
    by_place.fit(arrays, table["latent"], sample_weight=w)
    formula = "latent ~ x + z + (1 | g)"
    fit = jg.lmm(formula, table, reml=False, dispersion="~ z", weights=w)
    np.testing.assert_allclose(by_place.coef_, fit.coefficients[1:3], rtol=1e-5)
    assert by_place.fit_.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-7)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (GLMMClassifier(), "Say which model: family='cumulative' where they have an"),
        (GLMMClassifier(family="cumulative"), "the classes are text, which has no ord"),
        (GLMMClassifier(family="poisson"), "family='poisson' has no classes"),
        (
            GLMMClassifier(family=jg.Cumulative(levels=["low", "mid"])),
            "class 'high', which is not among the levels",
        ),
        (
            GLMMClassifier(family="multinomial", fit_intercept=False),
            "have intercepts or thresholds of their own",
        ),
    ],
)
def test_what_classes_need(wards, model, text):
    X, table = wards
    y = np.array(LEVELS)[np.digitize(table["latent"], [-1, 1])]
    with pytest.raises(ValueError, match=text):
        model.fit(X[["dose"]], y)
    with pytest.raises(NotFittedError):
        model.predict(X[["dose"]])


def test_categories_have_no_mean(wards):
    with pytest.raises(ValueError, match=r"use GLMMClassifier\(family="):
        GLMMRegressor("multinomial").fit(wards[0][["dose"]], wards[1]["counts"])


@pytest.mark.filterwarnings("ignore:Singular fit")
@pytest.mark.parametrize(
    ("made", "ask"),
    [
        (GLMMRegressor(family="poisson"), "predict"),
        (GLMMRegressor(family="poisson", zi="~ 1"), "predict"),
        (GLMMRegressor(family="nbinom2", dispersion="~ 1"), "predict"),
        (GLMMClassifier(family="cumulative"), "predict_proba"),
        (GLMMClassifier(family="multinomial"), "predict_proba"),
    ],
    ids=["plain", "zeros", "dispersion", "ordered", "categories"],
)
def test_rows_without_groups_are_of_levels_not_seen(made, ask):
    rng = np.random.default_rng(5)
    g, X = np.repeat(np.arange(8), 12), rng.normal(size=(96, 1))
    spread = rng.gamma(2.0, 0.5, 96)
    y = rng.poisson(spread * np.exp(1 + 0.3 * X[:, 0] + np.linspace(-1.5, 1.5, 8)[g]))
    if isinstance(made, GLMMClassifier):
        y = np.digitize(y, (2, 5))
    fitted = made.fit(X, y, groups=g)
    rows = X[:3]
    without = getattr(fitted, ask)(rows)
    new = getattr(fitted, ask)(rows, groups=["a", "b", "c"])
    np.testing.assert_allclose(without, new, rtol=1e-12)
