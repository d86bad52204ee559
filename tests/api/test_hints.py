"""What newcomers type: other packages' words, and arguments of the wrong kind."""

import inspect

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (1 | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep):
    return jg.lmm(SLEEP, sleep)


# argument -> (value, a part of the message)
MODELS = {
    "REML": (False, "reml="),
    "Reml": (False, "reml="),
    "nAGQ": (7, "jg.AGQ(7)"),
    "control": ({}, "max_iter="),
    "verbose": (1, "fit.timing"),
    "start": ([1], "starting values"),
    "start_params": ([1], "starting values"),
    "link": ("probit", "jg.Binomial(link='probit')"),
    "subset": ("x > 0", "data[data['x'] > 0]"),
    "na_action": ("na.omit", "missing='drop'"),
    "weight": ("w", "weights="),
    "random": ("~1|g", "(1 + x | g)"),
    "vc_formula": ({}, "(1 + x | g)"),
    "maxit": (10, "max_iter="),
    "alpha": (0.1, "conf_level=0.95"),
    "chains": (4, "jg.NUTS("),
    "prior": (None, "priors="),
    "exposure": ("t", "offset(log(exposure))"),
    "sd": (1, "it takes formula"),
}


CALLS = [
    (function, name)
    for function in (jg.lmm, jg.glmm, jg.fit_many)
    for name in MODELS
    if name != "start" or function is jg.fit_many  # which the others have
]


@pytest.mark.parametrize(("function", "name"), CALLS)
def test_words_of_other_packages(sleep, function, name):
    value, part = MODELS[name]
    with pytest.raises(jg.ArgumentError) as caught:
        function(SLEEP, sleep, **{name: value})
    message = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert f"{function.__name__}() has no argument {name}=" in message
    if not (name == "REML" and function is not jg.lmm):
        assert part in message


ASKED = [
    ("predict", "re_form", "re='population'"),
    ("predict", "allow_new_levels", "population level"),
    ("predict", "se_fit", "se=True"),
    ("predict", "exog", "first argument"),
    ("predict", "new_data", "newdata="),
    ("confint", "parm", ".loc["),
    ("confint", "alpha", "level="),
    ("summary", "corr", "it takes ddf"),
    ("summary", "alpha", "confint"),
    ("simulate", "nsim", "write n="),
    ("simulate", "use_u", "re='conditional'"),
    ("anova", "test", "type="),
    ("anova", "typ", "type="),
    ("tidy", "conf.int", "conf_int="),
    ("predictions", "confidence_level", "it takes"),
    ("slopes", "vcov", "covariances"),
    ("contrasts", "adj", "it takes"),
]


@pytest.mark.parametrize(("method", "name", "part"), ASKED)
def test_words_of_other_packages_for_methods(fit, method, name, part):
    with pytest.raises(jg.ArgumentError) as caught:
        getattr(fit, method)(**{name: 1})
    assert part in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_words_for_many_fits(sleep):
    Y = np.random.default_rng(0).normal(size=(180, 2))
    fits = jg.fit_many("y ~ Days + (1 | Subject)", sleep, responses=Y)
    with pytest.raises(jg.ArgumentError, match="level="):
        fits.tidy(alpha=0.1)
    tables = fits.tidy(conf_level=0.9), fits.tidy(level=0.9)
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
    with pytest.raises(jg.ArgumentError, match=r"jg\.anova"):
        jg.anova(fits, fits)


def test_words_of_lmertest_for_degrees_of_freedom(fit):
    for word in ("Satterthwaite", "residual"):
        assert str(fit.summary(ddf=word)) == str(fit.summary(ddf=word.lower()))
    with pytest.raises(jg.NotApplicableError, match="satterthwaite"):
        fit.summary(ddf=3)


def test_signatures_are_not_hidden(fit):
    assert next(iter(inspect.signature(fit.predict).parameters)) == "newdata"
    assert fit.predict.__doc__


WRONG = [
    (lambda f: f.contrasts(["a", "b"]), "one factor"),
    (lambda f: f.contrasts(3), "one$|factor"),
    (lambda f: f.slopes(["Days"]), "one variable"),
    (lambda f: f.confint("Days"), "level"),
    (lambda f: f.confint(["Days"]), "level"),
    (lambda f: f.confint(95), "0 and 1"),
    (lambda f: f.confint(level=None), "level"),
    (lambda f: f.anova(type="III"), "1, 2 and 3"),
    (lambda f: f.anova(type=None), "1, 2 and 3"),
    (lambda f: f.anova(type=2.5), "1, 2 and 3"),
    (lambda f: f.anova(f), r"jg\.anova"),
    (lambda f: jg.anova(f, "x"), r"jg\.anova"),
    (lambda f: jg.anova([f, f]), r"jg\.anova"),
    (lambda f: jg.Priors(coefficients=jg.StudentT(3)), r"a family .*jg\.Normal"),
    (lambda f: jg.Poisson(3), "link"),
]


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_arguments_of_the_wrong_kind(fit, i):
    ask, part = WRONG[i]
    with pytest.raises(jg.JaxGLMMError, match=part):
        ask(fit)


def test_missing_columns_are_named_without_a_wrong_guess():
    cbpp = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    g = jg.glmm(formula, cbpp)
    with pytest.raises(jg.DataError) as caught:
        g.predict({"period": ["4"]})
    assert "lack the column 'herd'" in str(caught.value)
    assert "did you mean" not in str(caught.value)
    assert "re='population'" in str(caught.value)
    with pytest.raises(jg.DataError, match="'herd'; did you mean 'Herd'"):
        g.predict({"period": ["4"], "Herd": ["1"]})
    assert np.isfinite(g.predict({"period": ["4"]}, re="population")).all()


def test_contrasts_as_in_r():
    data = jg.datasets.load("Machines")
    named = jg.lmm("score ~ Machine + (1 | Worker)", data, contrasts={"Machine": "sum"})
    written = jg.lmm("score ~ C(Machine, Sum) + (1 | Worker)", data)
    assert list(named.fixef) == ["(Intercept)", "Machine[S.A]", "Machine[S.B]"]
    np.testing.assert_allclose(named.coefficients, written.coefficients)
    np.testing.assert_allclose(named.predict(data), written.predict(data))
    for name in ("contr.sum", "Sum", "helmert", "poly", "diff", "treatment"):
        again = jg.lmm(
            "score ~ Machine + (1 | Worker)",
            data,
            contrasts={"Machine": name},
            method="ml",
        )
        assert np.isfinite(again.predict(data.iloc[:3])).all()
    for wrong, part in (
        ({"Machine": "nonsense"}, "'sum'"),
        ({"machine": "sum"}, "did you mean 'Machine'"),
        ({"score": "sum"}, "no factor of that name"),
        ("sum", "by column"),
    ):
        with pytest.raises(jg.FormulaError, match=part):
            jg.lmm("score ~ Machine + (1 | Worker)", data, contrasts=wrong)


FAMILIES = [
    ("binomial(link='probit')", r"jg\.Binomial\(link='probit'\)"),
    ("Gamma(log)", r"jg\.Gamma\(link='log'\)"),
    ("quasipoisson", "nbinom2"),
    ("poison", "'poisson'"),
    (None, "must be a name"),
    (3, "must be a name"),
]


@pytest.mark.parametrize(("family", "part"), FAMILIES)
def test_families_as_others_write_them(sleep, family, part):
    with pytest.raises(jg.ModelError, match=part):
        jg.glmm(SLEEP, sleep, family=family)


def test_families_of_statsmodels(sleep):
    families = pytest.importorskip("statsmodels.api").families
    for family, part in (
        (families.Binomial(), r"jg\.Binomial\(link='logit'\)"),
        (families.Binomial(families.links.Probit()), r"jg\.Binomial\(link='probit'\)"),
        (families.Poisson(), r"jg\.Poisson\(link='log'\)"),
        (families.Poisson, r"jg\.Poisson"),
        (families.Tweedie(), "'poisson'"),
    ):
        with pytest.raises(jg.ModelError, match=part):
            jg.glmm(SLEEP, sleep, family=family)


def test_what_the_package_shows():
    shown = dir(jg)
    assert {"spreadsheet", "sklearn", "compat", "plots", "density"} <= set(shown)
    assert {"integrate", "structure", "lmm", "load"} <= set(shown)
    assert not [n for n in shown if n.startswith("_") and not n.startswith("__")]
    assert not {"TYPE_CHECKING", "import_module"} & set(shown)
    assert jg.compat.__name__ == "jaxglmm.compat"
