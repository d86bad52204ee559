"""Names, arguments and shapes that code written for statsmodels counts on."""

import importlib
import inspect
import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
import jaxglmm.compat.statsmodels.api as sm
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM
from jaxglmm.compat.statsmodels.regression.mixed_linear_model import (
    MixedLM,
    MixedLMResultsWrapper,
)
from jaxglmm.compat.statsmodels.tools import sm_exceptions


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def model(sleep):
    return smf.mixedlm("Reaction ~ Days", sleep, groups="Subject", re_formula="~Days")


@pytest.fixture(scope="module")
def fit(model):
    return model.fit()


# Paths --------------------------------------------------------------------------------


def test_paths_and_names(fit):
    assert isinstance(fit, MixedLMResultsWrapper)
    assert sm.BinomialBayesMixedGLM is BinomialBayesMixedGLM
    assert sm.formula.mixedlm is smf.mixedlm
    assert sm.genmod.PoissonBayesMixedGLM is sm.PoissonBayesMixedGLM
    assert sm.load_pickle is sm.load
    for name in (
        *("ModelWarning", "ValueWarning", "HessianInversionWarning"),
        *("MissingDataError", "SingularMatrixWarning", "ConvergenceWarning"),
    ):
        assert inspect.isclass(getattr(sm_exceptions, name))
    assert issubclass(sm_exceptions.ConvergenceWarning, sm_exceptions.ModelWarning)


MODULES = ["api", "formula.api", "regression.mixed_linear_model", "tools.sm_exceptions"]
MODULES += ["genmod.api", "genmod.bayes_mixed_glm", "regression", "tools", "datasets"]


@pytest.mark.parametrize("module", MODULES)
def test_other_names_are_statsmodels_or_say_so(module, monkeypatch):
    ours = importlib.import_module(f"jaxglmm.compat.statsmodels.{module}")
    with pytest.raises((ImportError, AttributeError), match="NoSuchName"):
        _ = ours.NoSuchName
    monkeypatch.setitem(__import__("sys").modules, f"statsmodels.{module}", None)
    with pytest.raises(ImportError, match="pip install statsmodels"):
        _ = ours.OLS_or_another


@pytest.mark.extras
@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_of_statsmodels_is_there(module):
    theirs = pytest.importorskip(f"statsmodels.{module}")
    ours = importlib.import_module(f"jaxglmm.compat.statsmodels.{module}")
    names = [n for n in getattr(theirs, "__all__", dir(theirs)) if n[0] != "_"]
    assert [n for n in names if not hasattr(ours, n)] == []


@pytest.mark.parametrize("prepend", [True, False])
def test_add_constant(prepend):
    X = np.array([[2.0, 1.0], [3.0, 1.0]])
    assert sm.add_constant(X, prepend) is X  # has one already
    added = sm.add_constant(X, prepend, has_constant="add")
    assert added.tolist() == (
        [[1, 2, 1], [1, 3, 1]] if prepend else [[2, 1, 1], [3, 1, 1]]
    )
    frame = pd.DataFrame({"x": [2.0, 3.0]}, index=["p", "q"])
    out = sm.add_constant(frame, prepend)
    assert list(out) == (["const", "x"] if prepend else ["x", "const"])
    assert list(out.index) == ["p", "q"]
    assert list(frame) == ["x"]
    with pytest.raises(ValueError, match=r"Column\(s\) 1 are constant"):
        sm.add_constant(X, prepend, has_constant="raise")


# Row labels ---------------------------------------------------------------------------


def test_row_labels_are_heeded_or_refused(sleep):
    y, X, g = sleep["Reaction"], sm.add_constant(sleep[["Days"]]), sleep["Subject"]
    back = slice(None, None, -1)
    with pytest.raises(ValueError, match="indices for endog and exog are not aligned"):
        MixedLM(y, X.iloc[back], groups=g)
    plain = MixedLM(y, X, groups=g, exog_re=X, weights=y)
    for given in (
        {"groups": g.iloc[back], "exog_re": X, "weights": y},
        {"groups": g, "exog_re": X.iloc[back], "weights": y.iloc[back]},
    ):
        m = MixedLM(y, X, **given)
        assert list(m.groups) == list(plain.groups)
        np.testing.assert_array_equal(m.exog_re, plain.exog_re)
        np.testing.assert_array_equal(m.weights, plain.weights)
    m = smf.mixedlm("Reaction ~ Days", sleep, groups=g.iloc[back])
    assert list(m.groups) == list(plain.groups)
    few = sleep[sleep["Days"] > 1]  # fresh labels say nothing: rows go by position
    fresh = few["Subject"].reset_index(drop=True)
    m = MixedLM(few["Reaction"], few[["Days"]], groups=fresh)
    assert list(m.groups) == list(few["Subject"])
    other = few["Subject"].set_axis(range(500, 500 + len(few)))
    with pytest.raises(jg.DataError, match="groups: its row labels are not those"):
        MixedLM(few["Reaction"], few[["Days"]], groups=other)
    late = (sleep["Days"] > 4) * 1.0
    Z, ident = pd.get_dummies(g).astype(float), np.zeros(18, int)
    with pytest.raises(ValueError, match="endog and exog are not aligned"):
        BinomialBayesMixedGLM(late, X.iloc[back], Z, ident)
    m = BinomialBayesMixedGLM(late, X, Z.iloc[back], ident)
    np.testing.assert_array_equal(m.exog_vc.toarray(), Z.to_numpy())


# Arguments ----------------------------------------------------------------------------


def test_options_of_fit(model, fit):
    found = model.fit(gtol=1e-7, ftol=1e-9, eps=1e-8, maxcor=5, maxls=20)
    assert found.llf == pytest.approx(fit.llf)
    for name, value in {"pgtol": 1e-5, "skip_hessian": True, "cov_type": "hc1"}.items():
        with pytest.warns(FutureWarning, match=f"Argument {name} not used by MixedLM"):
            found = model.fit(**{name: value})
        assert found.llf == pytest.approx(fit.llf)
    with pytest.warns(FutureWarning, match="Arguments epsilon, xtol not used"):
        model.fit(xtol=1, epsilon=1)
    for method in ("minimize", "basinhopping", "BFGS", ["lbfgs", "cg"]):
        assert model.fit(method=method).llf == pytest.approx(fit.llf, abs=1e-6)


def test_profiles_take_an_optimiser(fit):
    plain = fit.profile_re(0, "re", num_low=1, dist_low=1.0, num_high=1)
    found = fit.profile_re(
        0, "re", num_low=1, dist_low=1.0, num_high=1, method="lbfgs", gtol=1e-6
    )
    np.testing.assert_allclose(found, plain)


def test_boundaries_are_seen_by_either_filter():
    d = jg.datasets.load("Dyestuff2")
    m = smf.mixedlm("Yield ~ 1", d, groups="Batch")
    for name in ("ConvergenceWarning", "SingularMatrixWarning"):
        with pytest.warns(getattr(sm_exceptions, name), match="boundary of the"):
            assert m.fit().converged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", sm_exceptions.ConvergenceWarning)
        m.fit()


# Shapes -------------------------------------------------------------------------------


def test_predictions_have_row_labels(model, fit, sleep):
    expected = fit.fe_params["Intercept"] + fit.fe_params["Days"] * np.array([1, 2])
    design = pd.DataFrame({"Intercept": [1, 1], "Days": [1, 2]}, index=["p", "q"])
    for given, options in (
        ({"Days": [1, 2]}, {}),
        (design[["Days"]], {}),
        (design["Days"], {}),
        (design, {"transform": False}),
    ):
        found = fit.predict(given, **options)
        assert isinstance(found, pd.Series)
        np.testing.assert_allclose(found, expected)
    assert list(fit.predict(design).index) == ["p", "q"]
    assert isinstance(fit.predict(), np.ndarray)


def test_what_the_model_knows_of_its_data(model, sleep):
    data = model.data
    assert data.orig_endog.shape == (180, 1)
    assert data.row_labels.equals(sleep.index)
    assert data.cov_names == data.param_names
    assert (data.k_constant, data.const_idx) == (1, 0)
    assert data.formula == model.formula == "Reaction ~ Days"
    assert data.model_spec.names == model.exog_names
    at = model.fit().params_object
    np.testing.assert_allclose(model.information(at), -model.hessian(at)[0])


def test_shapes_of_tests(fit):
    assert np.ndim(fit.cov_params(r_matrix=np.array([0, 1, 0, 0, 0]))) == 0
    assert fit.cov_params(r_matrix=np.eye(5)[:2]).shape == (2, 2)
    with pytest.raises(ValueError, match="r_matrix for t-test should have 2 columns"):
        fit.t_test(np.eye(5))
    assert fit.t_test("Subject Var = 0").effect.shape == (1,)
    both = np.eye(5)[:2]
    matrix = fit.wald_test(both, scalar=False)
    assert matrix.statistic.shape == (1, 1)
    assert matrix.pvalue == fit.wald_test(both).pvalue


def test_hypotheses_in_words_with_any_names(sleep):
    d = sleep.assign(f=list("abc") * 60, **{"a b": np.sqrt(sleep["Days"])})
    text = 'C(f, Treatment(reference="b"))[T.a]'
    m = smf.mixedlm(
        'Reaction ~ C(f, Treatment(reference="b")) * Days + Q("a b")',
        d,
        groups="Subject",
    )
    fit = m.fit()
    assert text in fit.params.index
    one = fit.t_test(f"{text} = 1")
    assert one.effect[0] == pytest.approx(fit.params[text] - 1)
    several = fit.t_test(
        f'2*{text}/4 - Days, Q("a b") = Days = 3, -{text}:Days + 1 = 2'
    )
    b = fit.params
    np.testing.assert_allclose(
        several.effect,
        [
            b[text] / 2 - b["Days"],
            b['Q("a b")'] - b["Days"],
            b["Days"] - 3,
            -b[f"{text}:Days"] - 1,
        ],
    )
    for bad, why in (
        ("Weeks = 0", "no parameter 'Weeks'"),
        ("Days * Intercept = 0", "not linear"),
        ("Days ==", "no sum of parameters"),
        ("", "empty"),
    ):
        with pytest.raises(ValueError, match=why):
            fit.t_test(bad)


def test_simulations_ignore_n_as_statsmodels_does(model, fit):
    law = model.get_distribution(fit.params, fit.scale)
    for n in (0, 3, None, 180):
        assert law.rvs(n, rng=1).shape == (180,)
    with pytest.warns(FutureWarning, match="rng="):
        old = law.rvs(0, random_state=1)
    np.testing.assert_array_equal(old, law.rvs(0, rng=1))
    same = [law.rvs(0, rng=np.random.RandomState(4)) for _ in range(2)]
    np.testing.assert_array_equal(*same)


def test_summaries_can_be_added_to(fit):
    page = fit.summary()
    page.add_text("from a pilot")
    page.add_df(pd.DataFrame({"value": [0.25]}, index=["share"]))
    page.add_dict({"site": "north", "year": 2001})
    text = page.as_text()
    assert text.splitlines()[-1] == "from a pilot"
    assert "0.2500" in text
    assert "north" in text
    assert page.as_html().startswith("<table")
    assert 'class="simpletable"' in page.as_html()
    assert page._repr_latex_().startswith("\\begin{table}")


def test_arrays_of_a_bayesian_model(rng):
    Z = (np.arange(60)[:, None] % 6 == np.arange(6)) * 1.0
    y, X = rng.integers(0, 2, 60), np.column_stack([np.ones(60), rng.normal(size=60)])
    m = BinomialBayesMixedGLM(y, X, Z, np.zeros(6, int))
    assert m.exog_names == ["const", "x1"]
    assert m.fep_names == ["FE_1", "FE_2"]
    assert m.data.endog is m.endog
    assert m.k_constant == 1
    assert m.fit_vb().random_effects().index.tolist() == list(range(6))


@pytest.mark.extras
def test_mediation_of_statsmodels(sleep):
    mediation = pytest.importorskip("statsmodels.stats.mediation")
    rng = np.random.default_rng(0)
    d = sleep.assign(treat=np.arange(180) % 2)
    by_subject = np.repeat(rng.normal(0, 4, (2, 18)), 10, axis=1)
    d["med"] = d["treat"] + by_subject[0] + rng.normal(size=180)
    d["y"] = d["med"] + 0.5 * d["treat"] + by_subject[1] + rng.normal(size=180)
    theirs = pytest.importorskip("statsmodels.formula.api").mixedlm
    effects = []
    for mixedlm in (theirs, smf.mixedlm):
        outcome = mixedlm("y ~ med + treat", d, groups="Subject")
        mediator = mixedlm("med ~ treat", d, groups="Subject")
        found = mediation.Mediation(outcome, mediator, "treat", "med")
        table = found.fit(n_rep=20, rng=1).summary()
        effects.append(table["Estimate"].astype(float).to_numpy())
    np.testing.assert_allclose(*effects, rtol=0.02, atol=0.02)  # the same draws
