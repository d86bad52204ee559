"""One name for one number, in every table that has it."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import many_correlations as correlations

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


def test_bootstrap_intervals_of_all_parameters(fit):
    draws = fit.bootstrap(40)
    assert list(draws.frame().columns) == [*COEFFICIENTS, *PARAMETERS]
    for kind in ("percentile", "basic"):
        table = draws.confint(method=kind)
        assert table.index.tolist() == [*COEFFICIENTS, *PARAMETERS]
        assert table.notna().all(axis=None)
    assert draws.summary().table.loc[PARAMETERS[2], "original"] == pytest.approx(
        fit.varcorr["Subject"].corr.iloc[1, 0]
    )
    rows = fit.tidy("ran_pars", conf_int=True, conf_method="bootstrap")
    assert rows["term"].tolist() == PARAMETERS
    assert rows[["conf_low", "conf_high"]].notna().all(axis=None)


def test_correlations_of_many_fits(tmp_path):
    sleep = jg.datasets.load("sleepstudy")
    noise = np.random.default_rng(1).normal(size=(180, 3))
    Y = sleep["Reaction"].to_numpy()[:, None] + noise
    Y[:, 2] = np.tile(np.arange(10.0), 18)  # no variance between subjects
    Y[:, 2] += noise[:, 2]
    formula = "y ~ Days + (Days | Subject)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        fits = jg.fit_many(formula, sleep, responses=Y)
        jg.fit_many(formula, sleep, responses=Y, file=tmp_path / "table")
    assert fits.correlation_names == (PARAMETERS[2],)
    for i in range(2):
        alone = fits[i].varcorr["Subject"].corr.iloc[1, 0]
        assert fits.correlations[i, 0] == pytest.approx(alone, abs=1e-6)
    terms = fits.tidy("ran_pars")["term"].tolist()
    assert terms[:4] == PARAMETERS
    assert len(fits.tidy()) == 3 * 6
    fits.save(tmp_path / "fits")
    for other in (jg.Fits.load(tmp_path / "fits"), jg.Fits.load(tmp_path / "table")):
        np.testing.assert_allclose(other.correlations, fits.correlations, rtol=1e-9)
    assert fits[:2].frame().shape == (2, 6)
    assert fits.summary().table.index.tolist() == [*COEFFICIENTS, *PARAMETERS]


@pytest.mark.parametrize("q", [2, 3, 4])
def test_correlations_are_those_of_the_covariance(q):
    rng = np.random.default_rng(q)
    lam = np.tril(rng.normal(size=(5, q, q)))
    theta = np.array([np.concatenate([x[j:, j] for j in range(q)]) for x in lam])
    names = tuple("abcd"[:q])
    terms = (("d", ("x", "y"), "diag"), ("g", names, "us"))
    found = correlations.values(terms, np.hstack([np.ones((5, 2)), theta]))
    labels = correlations.names(terms)
    for k, label in enumerate(labels):
        later, earlier = (names.index(x) for x in label[4:7].split("."))
        for d in range(5):
            cov = lam[d] @ lam[d].T
            expected = cov[later, earlier] / np.sqrt(
                cov[later, later] * cov[earlier, earlier]
            )
            assert found[d, k] == pytest.approx(expected, abs=1e-12)
    assert len(labels) == q * (q - 1) // 2


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
        pd.testing.assert_frame_equal(ask(level=0.5), ask(conf_level=0.5), rtol=1e-9)
        assert not ask(level=0.5).equals(ask())
    with pytest.raises(TypeError, match="are the same"):
        fit.confint(level=0.9, conf_level=0.9)
