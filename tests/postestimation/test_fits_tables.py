"""Tables of many fits: adjustment, moderation, one row an estimate, files."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import KeptColumns
from doors import moderation as fits_moderation
from scipy import stats
from scipy.special import digamma, polygamma

import jaxglmm as jg
from jaxglmm import DataError, Fits, NotApplicableError, SingularFitWarning


def made(D=300, seed=1):
    """Tests of two coefficients, the first without any effect."""
    rng = np.random.default_rng(seed)
    df = rng.uniform(8, 20, size=(D, 2))
    truth = np.column_stack([np.zeros(D), np.where(np.arange(D) < D // 5, 5.0, 0.0)])
    beta = truth + rng.normal(size=(D, 2))
    se = np.sqrt(rng.chisquare(df) / df)
    columns = KeptColumns(("(Intercept)", "x"), ("sd_(Intercept)|g",), 1)
    d, d0 = 15.0, 6.0
    true_variance = 2.0 * d0 / rng.chisquare(d0, D)
    sigma = np.sqrt(true_variance * rng.chisquare(d, D) / d)
    table = columns.table(
        D,
        coefficients=beta,
        se=se,
        df=df,
        p_values=2 * stats.t.sf(np.abs(beta / se), df),
        sd=np.abs(rng.normal(size=D)),
        theta=np.abs(rng.normal(size=D)),
        sigma=sigma,
        log_likelihood=np.zeros(D),
        df_sigma=np.full(D, d),
        decrement=np.zeros(D),
        steps=np.full(D, 5.0),
        singular=np.zeros(D),
        separated=np.zeros(D),
        status=np.zeros(D),
    )
    table[7, :-1] = np.nan
    table[7, -1] = 5
    labels = np.array([f"gene{k}" for k in range(D)], object)
    return Fits.from_table(table, columns, labels, facts={"formula": "y ~ x"})


def test_tidy():
    fits = made()
    table = fits.tidy()
    assert len(table) == 4 * len(fits)
    row = table[(table["dataset"] == "gene4") & (table["term"] == "x")].iloc[0]
    assert row["estimate"] == fits.coefficients[4, 1]
    assert row["std_error"] == fits.se[4, 1]
    assert row["statistic"] == pytest.approx(fits.coefficients[4, 1] / fits.se[4, 1])
    assert row["p_adjusted"] == fits.p_adjusted()[4, 1]
    variances = table[table["effect"] == "ran_pars"]
    assert variances["std_error"].isna().all()
    assert set(variances["term"]) == {"sd_(Intercept)|g", "sigma"}
    fixed = fits.tidy("fixed", conf_int=True)
    assert len(fixed) == 2 * len(fits)
    half = stats.t.ppf(0.975, fits.df[4, 1]) * fits.se[4, 1]
    line = fixed[(fixed["dataset"] == "gene4") & (fixed["term"] == "x")].iloc[0]
    assert line["conf_low"] == pytest.approx(fits.coefficients[4, 1] - half)
    assert "p_value" not in fits.tidy("ran_pars")
    with pytest.raises(NotApplicableError, match="'ran_pars'"):
        fits.tidy("random")


def test_top_and_its_names():
    fits = made()
    top = fits.top("x", 5)
    assert len(top) == 5
    assert top["p_value"].is_monotonic_increasing
    assert top["p_value"].iloc[0] == np.nanmin(fits.p_values[:, 1])
    with pytest.raises(NotApplicableError, match=r"there are '\(Intercept\)', 'x'"):
        fits.top("z")


def test_summary_counts_tests_and_failures():
    fits = made()
    text = fits.summary()
    assert "300 fits, 299 converged" in text
    assert "1 constant response" in text
    assert "Formula: y ~ x" in text
    assert text.tests.loc["x", "tests"] == 299
    found = int(np.sum(fits.p_adjusted()[:, 1] < 0.05))
    assert text.tests.loc["x", "adjusted p < 0.05"] == found
    assert found > 20
    assert "<table" in text.html


def test_summaries_are_of_fits_that_found_their_estimates():
    """Estimates that run away are in no mean; those of phi at its end neither."""
    usual = made().summary().table
    fits = made()
    fits.coefficients[[10, 11], 1] = [-79.0, 1e12]
    fits.separated[10], fits.converged[11] = True, False
    text = fits.summary()
    np.testing.assert_allclose(text.table.loc["x"], usual.loc["x"], atol=0.1)
    assert "the 297 fits that converged and are not separated" in text
    phi = np.random.default_rng(0).gamma(4, size=(300, 1))
    kept = dataclasses.replace(fits, dispersion=phi, dispersion_names=("phi",))
    assert "as good as infinite" not in kept.summary()
    phi = phi.copy()
    phi[[20, 30]] = [[9.7e93], [7e4]]
    kept = dataclasses.replace(fits, dispersion=phi, dispersion_names=("phi",))
    text = kept.summary()
    assert text.table.loc["phi", "mean"] == pytest.approx(4, abs=0.5)
    assert text.table.loc["phi", "sd"] == pytest.approx(2, abs=0.5)
    assert "phi: mean and sd without 2 estimates beyond 1,000 times" in text


def test_status_in_words():
    fits = made()
    bad = int(np.flatnonzero(~fits.converged)[0])
    assert fits.status_names[bad] == "constant response"
    table = fits.tidy().set_index("dataset")["status"]
    assert (table[fits.labels[bad]] == "constant response").all()
    assert (table == "converged").sum() == 4 * 299


def test_parts():
    fits = made()
    good = fits[fits.converged]
    assert len(good) == 299
    assert good.labels[7] == "gene8"
    assert good.positions[7] == 8
    assert len(fits[2:5]) == 3
    assert fits[[5, 1]].labels.tolist() == ["gene5", "gene1"]
    assert good[2:9].positions.tolist() == [2, 3, 4, 5, 6, 8, 9]
    with pytest.raises(IndexError, match="no number 300"):
        fits[300]
    with pytest.raises(NotApplicableError, match="not at hand"):
        fits["gene1"]


# Moderation ---------------------------------------------------------------------------


def test_prior_of_variances():
    """Draws from the model give back its parameters; equal variances an infinite d0."""
    rng = np.random.default_rng(2)
    d0, s02, D = 8.0, 3.0, 40_000
    d = rng.choice([5.0, 20.0], D)
    true_variance = s02 * d0 / rng.chisquare(d0, D)
    s2 = true_variance * rng.chisquare(d) / d
    found, centre = fits_moderation.prior(s2, d)
    assert found == pytest.approx(d0, rel=0.08)
    assert centre == pytest.approx(s02, rel=0.03)
    flat = s02 * rng.chisquare(d) / d
    found, centre = fits_moderation.prior(flat, d)
    assert found > 100
    assert centre == pytest.approx(s02, rel=0.02)


def test_prior_meets_its_moments():
    """The two equations of Smyth (2004), section 6.2, hold at the estimate."""
    fits = made()
    keep = np.isfinite(fits.sigma)
    s2, d = fits.sigma[keep] ** 2, fits.df_sigma[keep]
    d0, s02 = fits_moderation.prior(s2, d)
    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    assert np.log(s02) - digamma(d0 / 2) + np.log(d0 / 2) == pytest.approx(e.mean())
    spread = np.mean((e - e.mean()) ** 2 * len(e) / (len(e) - 1) - polygamma(1, d / 2))
    assert polygamma(1, d0 / 2) == pytest.approx(spread)


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.7, 3.0, 1e5])
def test_inverse_of_trigamma(x):
    assert polygamma(1, fits_moderation.inverse_trigamma(x)) == pytest.approx(x)


def test_moderated_tests():
    fits = made()
    new = fits.moderate()
    d0 = new.facts["moderation"]["df_prior"]
    s02 = new.facts["moderation"]["variance_prior"]
    k = 11
    s2 = (d0 * s02 + 15.0 * fits.sigma[k] ** 2) / (d0 + 15.0)
    assert new.sigma[k] ** 2 == pytest.approx(s2)
    scale = new.sigma[k] / fits.sigma[k]
    np.testing.assert_allclose(new.se[k], fits.se[k] * scale)
    np.testing.assert_allclose(new.df[k], fits.df[k] + d0)
    t = new.coefficients[k] / new.se[k]
    np.testing.assert_allclose(new.p_values[k], 2 * stats.t.sf(np.abs(t), new.df[k]))
    assert np.std(np.log(new.sigma[fits.converged])) < np.std(
        np.log(fits.sigma[fits.converged])
    )
    assert np.isnan(new.p_values[7]).all()
    assert "moderated: prior variance" in new.summary()
    with pytest.raises(NotApplicableError, match="already"):
        new.moderate()
    with pytest.raises(NotApplicableError, match="at least 3"):
        fits[:2].moderate()
    with pytest.raises(NotApplicableError, match="linear mixed models"):
        dataclasses.replace(fits, df_sigma=None).moderate()


# Files --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_save_and_load(tmp_path, family):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 6), "x": rng.normal(size=60)})
    Y = rng.poisson(3.0, size=(60, 3)).astype(float)
    Y += 0.0 if family == "poisson" else rng.normal(size=Y.shape)
    named = pd.DataFrame(Y, columns=["a", "b", "c"])
    fits = jg.fit_many("y ~ x + (1 | g)", data, responses=named, family=family)
    fits.save(tmp_path / "without")
    fits.save(tmp_path / "with", data=True)
    without, full = (Fits.load(tmp_path / name) for name in ("without", "with"))
    for loaded in (without, full):
        assert loaded.labels.tolist() == ["a", "b", "c"]
        assert loaded.facts["formula"] == "y ~ x + (1 | g)"
        np.testing.assert_array_equal(loaded.frame(), fits.frame())
        np.testing.assert_array_equal(loaded.p_values, fits.p_values)
        np.testing.assert_array_equal(loaded.status, fits.status)
    with pytest.raises(NotApplicableError, match="data=True"):
        without["b"]
    with pytest.raises(NotApplicableError, match="have no data"):
        without.save(tmp_path / "again", data=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        np.testing.assert_allclose(
            full["b"].coefficients, fits["b"].coefficients, rtol=1e-10
        )
    with pytest.raises(DataError, match="no file"):
        Fits.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("something")
    with pytest.raises(DataError, match=r"fits\.save"):
        Fits.load(tmp_path / "text")


def test_data_sets_of_a_table_come_back(tmp_path):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "e": np.repeat(["one", "two"], 60),
            "g": np.tile(np.repeat(np.arange(10), 6), 2),
            "x": rng.normal(size=120),
        }
    )
    table["y"] = table["x"] + rng.normal(size=120) + rng.normal(size=10)[table["g"]]
    fits = jg.fit_many("y ~ x + (1 | g)", table, by="e")
    fits.save(tmp_path / "fits", data=True)
    loaded = Fits.load(tmp_path / "fits")
    assert loaded["two"].sigma == pytest.approx(fits.sigma[1], rel=1e-10)
    assert [fit.nobs for fit in loaded] == [60, 60]
