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
