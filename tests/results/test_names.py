"""One name for one number, in every table that has it."""

import pytest

import jaxglmm as jg

FORMULA = "Reaction ~ Days + (Days | Subject)"
PARAMETERS = [
    "sd_(Intercept)|Subject",
    "sd_Days|Subject",
    "cor_Days.(Intercept)|Subject",
    "sigma",
]
COEFFICIENTS = ["(Intercept)", "Days"]


@pytest.fixture(scope="module")
def fit():
    return jg.lmm(FORMULA, jg.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def posterior():
    return jg.lmm(FORMULA, jg.datasets.load("sleepstudy"), method="map")


def test_parameters_of_a_fit(fit):
    assert fit.tidy("ran_pars")["term"].tolist() == PARAMETERS
    assert fit.tidy("ran_pars")["group"].tolist() == [*["Subject"] * 3, "Residual"]
    assert set(fit.profile(PARAMETERS[:1]).intervals().index) == {PARAMETERS[0]}
    assert list(fit.confint().index) == COEFFICIENTS


def test_parameters_of_a_posterior(posterior):
    assert posterior.tidy("ran_pars")["term"].tolist() == PARAMETERS
    names = [*COEFFICIENTS, *PARAMETERS]
    assert list(posterior.posterior.frame().columns) == names
    assert list(posterior.confint(parameters="all").index) == names


def test_tests_have_a_statistic_and_a_p_value(fit):
    assert list(fit.anova().columns)[-2:] == ["statistic", "p_value"]
    cbpp = jg.datasets.load("cbpp")
    left = "cbind(incidence, size - incidence)"
    other = jg.glmm(f"{left} ~ period + (1 | herd)", cbpp)
    assert list(other.anova().columns) == ["statistic", "df", "p_value"]
    one = fit.test("Days")
    assert (one.statistic, one.p_value) == (one.F, one.p)


def test_level_by_either_name(fit, posterior):
    for ask in (
        fit.confint,
        lambda **k: fit.tidy(conf_int=True, **k),
        lambda **k: fit.predictions({"Days": [1]}, **k),
        lambda **k: fit.slopes("Days", **k),
        lambda **k: fit.predict(
            {"Days": [1]}, "population", interval="confidence", **k
        ),
        posterior.confint,
        lambda **k: posterior.tidy(conf_int=True, **k),
    ):
        assert ask(level=0.5).equals(ask(conf_level=0.5))
        assert not ask(level=0.5).equals(ask())
    with pytest.raises(TypeError, match="are the same"):
        fit.confint(level=0.9, conf_level=0.9)
