"""Generalised fits fitted again: another response, simulated ones, their intervals."""

import pickle
import warnings

import numpy as np
import pytest
from doors import _status, bootstrap

import jaxglmm as jg

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp():
    return jg.datasets.load("cbpp")


@pytest.fixture(scope="module")
def fit(cbpp):
    return jg.glmm(CBPP, cbpp)


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


def counts(n=120):
    rng = np.random.default_rng(3)
    g, x = np.arange(n) % 12, rng.normal(size=n)
    y = rng.poisson(
        rng.gamma(2, np.exp(0.8 + 0.4 * x + 0.4 * rng.normal(size=12)[g]) / 2)
    )
    return {"y": y, "x": x, "g": g, "f": np.array(list("abc"))[np.arange(n) * 3 // n]}


# Another response --------------------------------------------------------------------


def test_refit_is_a_new_fit(cbpp, fit):
    y = np.minimum(cbpp["incidence"] + (np.arange(56) % 3 == 0), cbpp["size"])
    new = jg.glmm(CBPP, cbpp.assign(incidence=y))
    for given in (
        y,
        y.to_numpy(float),
        np.column_stack([y, cbpp["size"] - y]),
    ):
        again = fit.refit(given)
        np.testing.assert_allclose(again.criterion, new.criterion, rtol=1e-10)
        np.testing.assert_allclose(again.coefficients, new.coefficients, atol=1e-6)
        np.testing.assert_allclose(again.se, new.se, rtol=1e-6)
        np.testing.assert_array_equal(again.design.y, y)
    assert fit.design.y is not again.design.y
    np.testing.assert_array_equal(fit.design.y, cbpp["incidence"])


def test_refit_with_other_trials(cbpp, fit):
    pair = np.column_stack([cbpp["incidence"], cbpp["size"]])
    again = fit.refit(pair)
    new = jg.glmm("cbind(incidence, size) ~ period + (1 | herd)", cbpp)
    np.testing.assert_allclose(again.criterion, new.criterion, rtol=1e-10)
    np.testing.assert_array_equal(again.design.trials, cbpp["incidence"] + cbpp["size"])


def test_refit_warns_as_a_fit_does(cbpp, fit):
    y = np.where(cbpp["period"] == "3", 0, cbpp["incidence"])
    with pytest.warns(jg.SeparationWarning, match="period = 3") as found:
        again = fit.refit(y)
    assert found[0].filename == __file__
    assert again.separation.coefficients == ("period[T.3]",)


def test_refit_of_text():
    data = counts() | {"y": np.where(counts()["x"] + counts()["y"] > 2, "yes", "no")}
    fit = quiet("y ~ f + (1 | g)", data)
    again = fit.refit(data["y"])
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-9)
    with pytest.raises(jg.DataError, match="'maybe'"):
        fit.refit(np.where(np.arange(120) == 4, "maybe", data["y"]))


def test_what_cannot_be_refitted(fit):
    with pytest.raises(jg.DataError, match=r"shape \(56,\).*\(56, 2\)"):
        fit.refit(np.zeros(3))
    with pytest.raises(jg.DataError, match="trials"):
        fit.refit(np.full(56, 100.0))
    with pytest.raises(jg.DataError, match="must be numbers"):
        fit.refit(np.full(56, "a"))


# Many --------------------------------------------------------------------------------


def test_every_data_set_is_a_fit(fit):
    fits = fit.bootstrap(6, seed=2)
    again = fit.bootstrap(6, seed=2)
    np.testing.assert_allclose(fits.coefficients, again.coefficients, rtol=1e-9)
    assert abs(fits.coefficients - fit.bootstrap(6, seed=3).coefficients).max() > 0.01
    (seed,) = np.random.SeedSequence(2).spawn(1)
    for i, y in enumerate(fit.simulate(6, seed)):
        own = fit.refit(y)
        np.testing.assert_allclose(fits.coefficients[i], own.coefficients, atol=1e-8)
        np.testing.assert_allclose(fits.sd[i], own.theta, atol=1e-8)
        np.testing.assert_allclose(fits.theta[i], own.theta, atol=1e-8)
        np.testing.assert_allclose(fits.log_likelihood[i], own.log_likelihood)
        assert fits.singular[i] == own.is_singular
    assert fits.converged.all()
    assert fits.names == [*fit.coefficient_names, "sd_(Intercept)|herd"]


def test_means_and_spreads(fit):
    """Within Monte Carlo error of the standard errors; a table of both."""
    fits = fit.bootstrap(200, seed=1)
    spread = fits.coefficients.std(axis=0, ddof=1)
    np.testing.assert_allclose(spread, fit.se, rtol=0.2)
    table = fits.summary().table
    np.testing.assert_allclose(table["original"].iloc[:4], fit.coefficients)
    limits = fit.confint(method="bootstrap", n=200, seed=1)
    np.testing.assert_allclose(
        limits.loc["period[T.2]"],
        np.quantile(fits.coefficients[:, 1], [0.025, 0.975]),
    )
    basic = fit.confint(method="bootstrap", n=200, seed=1, kind="basic")
    np.testing.assert_allclose(
        basic["lower"] + limits["upper"], 2 * table["original"], atol=1e-10
    )


def test_slopes_and_dispersion():
    data = counts()
    fit = quiet("y ~ x + (x | g)", data, family="nbinom2")
    fits = fit.bootstrap(5)
    assert fits.names == [
        "(Intercept)",
        "x",
        "sd_(Intercept)|g",
        "sd_x|g",
        "cor_x.(Intercept)|g",
        "phi",
    ]
    (seed,) = np.random.SeedSequence(0).spawn(1)
    for i, y in enumerate(fit.simulate(5, seed)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.JaxGLMMWarning)
            own = fit.refit(y)
        np.testing.assert_allclose(fits.dispersion[i, 0], own.dispersion, rtol=1e-6)
        np.testing.assert_allclose(fits.sd[i], own.varcorr["g"].sd, atol=1e-8)
        np.testing.assert_allclose(fits.theta[i], own.theta, atol=1e-8)
        rho = own.varcorr["g"].corr.iloc[1, 0]
        np.testing.assert_allclose(fits.correlations[i, 0], rho, atol=1e-6)
    original = fits.summary().table["original"]
    np.testing.assert_allclose(original["phi"], fit.dispersion)
    np.testing.assert_allclose(original["sd_x|g"], fit.varcorr["g"].sd["x"])


def test_without_random_effects_and_in_chunks(monkeypatch):
    data = counts()
    fit = jg.glmm("y ~ x", data, family="poisson", offset=np.full(120, 0.1))
    monkeypatch.setattr(bootstrap, "RESPONSES", 8 * 120 * 4)
    fits = fit.bootstrap(10)
    assert fits.names == ["(Intercept)", "x"]
    assert fits.coefficients.shape == (10, 2)
    assert len(np.unique(fits.coefficients[:, 0])) == 10
    np.testing.assert_allclose(
        fits.coefficients.mean(axis=0), fit.coefficients, atol=0.2
    )
    assert fits.theta.shape == (10, 0)


def test_data_sets_that_separate_are_marked(cbpp):
    """A rare event: some of the levels have none in some of the data sets."""
    data = cbpp.copy()
    data["incidence"] = (np.arange(56) % 7 == 0) * 1
    fit = quiet("cbind(incidence, size - incidence) ~ period", data)
    fits = fit.bootstrap(60, seed=5)
    marked = fits.separated
    assert 3 < marked.sum() < 57
    levels = data["period"].to_numpy()
    (seed,) = np.random.SeedSequence(5).spawn(1)
    Y = fit.simulate(60, seed)
    empty = np.array([(Y[:, levels == k].sum(axis=1) == 0) for k in "1234"]).any(axis=0)
    np.testing.assert_array_equal(marked, empty)
    assert "separated" in repr(fits)


def test_a_failure_is_a_status_and_stops_nothing(fit, monkeypatch):
    (seed,) = np.random.SeedSequence(0).spawn(1)
    Y = fit.simulate(3, seed)
    Y[1] = np.nan
    out = bootstrap.RefitsFound.empty(3, 5)
    for _ in bootstrap.fit_responses(fit.engine, fit.design, Y, out, 0):
        pass
    assert out.status[1] != _status.CONVERGED
    assert (out.status[[0, 2]] == _status.CONVERGED).all()


def test_after_pickling_and_saving(fit, tmp_path):
    fit.save(tmp_path / "fit")
    here = fit.bootstrap(3).coefficients
    for again in (pickle.loads(pickle.dumps(fit)), jg.load(tmp_path / "fit")):
        np.testing.assert_allclose(again.bootstrap(3).coefficients, here, atol=1e-7)
        y = fit.design.y
        np.testing.assert_allclose(again.refit(y).criterion, fit.criterion, rtol=1e-10)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_number_of_data_sets(fit, n):
    with pytest.raises(jg.NotApplicableError, match="a whole number from 1 to"):
        fit.bootstrap(n)


def test_bootstrap_in_lanes_is_the_loop(fit, monkeypatch):
    """Many data sets go through the program of ``fit_many``: same draws, same fits."""
    loop = fit.bootstrap(24, seed=3)
    monkeypatch.setattr(bootstrap, "WORTH_LANES", 0)
    lanes = fit.bootstrap(24, seed=3)
    assert lanes.names == loop.names
    assert lanes.original == loop.original
    assert lanes.p_values is None
    for name in ("status", "singular", "separated"):
        np.testing.assert_array_equal(getattr(lanes, name), getattr(loop, name))
    np.testing.assert_allclose(lanes.log_likelihood, loop.log_likelihood, rtol=1e-10)
    kept = ~loop.separated
    assert kept.sum() > 20
    np.testing.assert_allclose(
        lanes.frame()[kept], loop.frame()[kept], rtol=1e-6, atol=1e-6
    )
    assert "bias" in lanes.summary()
