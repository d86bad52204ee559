"""What a fit says when the likelihood has no maximum, and that it says nothing else."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import inverse_hessian, separation

import jaxglmm as jg

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp():
    return jg.datasets.load("cbpp")


def warned(category, formula, data, **options):
    """The fit and the one warning that it gave."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = jg.glmm(formula, data, **options)
    (one,) = [w for w in found if w.category is category]
    assert one.filename == __file__
    assert str(one.message) in fit.warnings
    return fit, str(one.message)


def quietly(formula, data, **options):
    """A fit that has nothing to say but, perhaps, that a variance is zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        return jg.glmm(formula, data, **options)


def made(seed=3, n=120):
    """Covariates, groups, and counts that a model with all of them would give."""
    rng = np.random.default_rng(seed)
    g, x = np.arange(n) % 12, rng.normal(size=n)
    f = np.array(list("abc"))[np.arange(n) * 3 // n]
    mu = np.exp(0.8 + 0.4 * x + 0.4 * rng.normal(size=12)[g])
    return rng, {"x": x, "g": g, "f": f, "y": rng.poisson(mu).astype(float), "mu": mu}


# Separation --------------------------------------------------------------------------


def test_a_level_without_successes(cbpp):
    data = cbpp.copy()
    data.loc[data["period"] == "4", "incidence"] = 0
    fit, text = warned(jg.SeparationWarning, CBPP, data)
    found = fit.separation
    assert found.coefficients == ("period[T.4]",)
    assert found.cells == ("period = 4",)
    assert found.zeros is True
    np.testing.assert_array_equal(found.rows, np.flatnonzero(data["period"] == "4"))
    direction = found.directions[:, 0] / found.directions[3, 0]
    np.testing.assert_allclose(direction, [0, 0, 0, 1], atol=1e-12)
    assert "coefficient of period[T.4] is infinite" in text
    assert "13 rows with period = 4 (of 56) have no success" in text
    assert "period[T.4] = -" in text
    assert "other coefficients are not affected" in text
    assert "method='map'" in text
    # as they are without the level
    rest = quietly(CBPP, data[data["period"] != "4"])
    np.testing.assert_allclose(fit.coefficients[:3], rest.coefficients, atol=1e-5)
    np.testing.assert_allclose(fit.se[:3], rest.se, rtol=1e-4)
    assert fit.se[3] > 1e3
    assert fit.converged


def test_a_reference_level_without_successes(cbpp):
    data = cbpp.copy()
    data.loc[data["period"] == "1", "incidence"] = data["size"][data["period"] == "1"]
    fit, text = warned(jg.SeparationWarning, CBPP, data)
    assert set(fit.separation.coefficients) == set(fit.coefficient_names)
    assert fit.separation.zeros is False
    assert "nothing but successes" in text
    assert "not affected" not in text
    assert (fit.se > 1e2).all()  # each alone may be anything; their differences not
    assert fit.test({"period[T.2]": 1, "period[T.3]": -1}).std_error[0] < 1


def test_two_levels_and_a_cell_of_two_factors():
    rng, data = made()
    y = (rng.uniform(size=120) < 0.5).astype(float)
    k = np.array(list("uv"))[rng.integers(0, 2, 120)]
    y[(data["f"] == "b") & (k == "v")] = 1.0
    data |= {"y": y, "k": k}
    fit, _ = warned(jg.SeparationWarning, "y ~ f * k + (1 | g)", data)
    assert fit.separation.cells == ("f = b and k = v",)
    data["y"] = np.where(np.isin(data["f"], ["b", "c"]), 0.0, y)
    fit, text = warned(jg.SeparationWarning, "y ~ f + x + (1 | g)", data)
    assert fit.separation.coefficients == ("f[T.b]", "f[T.c]")
    assert "with f = b or f = c" in text


@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_a_level_of_zero_counts(family):
    _, data = made()
    data["y"] = np.where(data["f"] == "b", 0.0, data["y"])
    fit, text = warned(jg.SeparationWarning, "y ~ f + x + (1 | g)", data, family=family)
    assert fit.separation.coefficients == ("f[T.b]",)
    assert "40 rows with f = b (of 120) have a count of zero" in text
    assert fit.se[1] > 1e2


@pytest.mark.parametrize("link", ["logit", "probit", "cauchit"])
@pytest.mark.parametrize("random", ["", " + (1 | g)"])
def test_a_line_that_parts_the_responses(link, random):
    _, data = made()
    data["y"] = (data["x"] > 0.2).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        fit, text = warned(
            jg.SeparationWarning, "y ~ x" + random, data, family=jg.Bernoulli(link)
        )
    assert fit.separation.coefficients == ("(Intercept)", "x")
    assert "All rows are told apart by the fixed effects alone" in text


def test_in_the_form_of_arrays():
    _, data = made()
    X = np.column_stack([np.ones(120), data["x"], data["f"] == "b"]).astype(float)
    y = np.where(data["f"] == "b", 0.0, data["y"])
    with pytest.warns(jg.SeparationWarning, match="X2 = 1"):
        fit = jg.glmm(y, X, {"g": data["g"]}, family="poisson")
    assert fit.separation.coefficients == ("X2",)


def test_after_pickling_and_saving(cbpp, tmp_path):
    data = cbpp.copy()
    data.loc[data["period"] == "4", "incidence"] = 0
    fit, text = warned(jg.SeparationWarning, CBPP, data)
    fit.save(tmp_path / "fit")
    for again in (pickle.loads(pickle.dumps(fit)), jg.load(tmp_path / "fit")):
        assert again.separation.coefficients == fit.separation.coefficients
        assert again.warnings == (text,)
    assert "Separation" in fit.summary()


# Healthy fits ------------------------------------------------------------------------


def test_rare_events_are_not_separation():
    rng = np.random.default_rng(1)
    n = 4000
    x, f = rng.normal(size=n), rng.integers(0, 3, n)
    p = 1 / (1 + np.exp(7.0 - 0.8 * x - 0.2 * f))
    data = {"y": (rng.uniform(size=n) < p).astype(float), "x": x, "f": f.astype(str)}
    data["y"][:3], data["f"][:3] = 1.0, ["0", "1", "2"]
    assert 3 < data["y"].sum() < 40
    assert quietly("y ~ x + f", data).warnings == ()


def test_rows_far_out_are_not_separation():
    rng = np.random.default_rng(2)
    x = rng.normal(size=400) * 8
    y = (rng.uniform(size=400) < 1 / (1 + np.exp(-2 * x))).astype(float)
    fit = quietly("y ~ x", {"y": y, "x": x})
    assert np.abs(fit.linear_predictor).max() > 30
    assert separation.possible(fit.family, fit.linear_predictor)
    assert fit.separation is None


def test_tiny_exposures_are_not_separation():
    rng, data = made()
    exposure = 10.0 ** rng.integers(-9, 3, 120)
    y = rng.poisson(exposure * data["mu"]).astype(float)
    y[[10, 50, 90]] = np.maximum(y[[10, 50, 90]], 1.0)
    data |= {"y": y, "off": np.log(exposure)}
    fit = quietly("y ~ x + f", data, family="poisson", offset="off")
    assert fit.separation is None


def test_zero_counts_at_the_end_of_a_finite_link():
    """With a square root link a mean of zero is a finite coefficient."""
    _, data = made()
    data["y"] = np.where(data["f"] == "b", 0.0, data["y"])
    fit = quietly("y ~ 0 + f", data, family=jg.Poisson("sqrt"))
    assert fit.separation is None
    assert abs(fit.coefficients[1]) < 1e-3


def test_levels_of_zeros_of_a_random_effect(cbpp):
    """Herds without a case are nothing special: their effects are shrunk."""
    data = cbpp[~cbpp["herd"].isin(["1", "2"])].copy()
    data.loc[data["herd"] == "5", "incidence"] = 0
    assert quietly(CBPP, data).warnings == ()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_badly_scaled_covariates(cbpp, scale):
    """Neither warnings nor other fits."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=len(cbpp))
    one = quietly(CBPP.replace("(1", "x + (1"), cbpp.assign(x=x))
    for shift in (0.0, 1e3):
        data = cbpp.assign(x=scale * (x + shift))
        other = quietly(CBPP.replace("(1", "x + (1"), data)
        np.testing.assert_allclose(other.criterion, one.criterion, rtol=1e-10)
        np.testing.assert_allclose(other.coefficients[4] * scale, one.coefficients[4])
        np.testing.assert_allclose(other.se[4] * scale, one.se[4], rtol=1e-4)


def test_flat_directions_of_the_hessian():
    """Flat in beta: a large variance; flat in theta: known; pinned: zero."""
    a = np.array([1.0, -1.0, 0.0, 0.0]) / np.sqrt(2)
    H = np.eye(4) - np.outer(a, a)
    out = inverse_hessian(H, np.zeros(4, bool), 2)
    assert out[0, 0] > 1e6
    np.testing.assert_allclose(np.array([1, 1, 0, 0]) @ out @ [1, 1, 0, 0], 4, rtol=0.1)
    out = inverse_hessian(H[::-1, ::-1], np.zeros(4, bool), 2)
    np.testing.assert_allclose(out, 2 * H[::-1, ::-1], atol=1e-7)
    pinned = np.array([False, False, False, True])
    assert not inverse_hessian(np.eye(4), pinned, 2)[3].any()


# Random effects ----------------------------------------------------------------------


def test_levels_that_separate_the_responses():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 5)
    data = {"y": (rng.uniform(size=20) < 0.5)[g] * 1.0, "g": g}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        fit, text = warned(jg.SeparationWarning, "y ~ 1 + (1 | g)", data)
    assert fit.separation is None
    assert "random effects of g" in text
    assert "20 of 20 levels have no success or nothing but successes" in text


def test_a_large_variance_is_not_infinite():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(40), 30)
    eta = 4 * rng.normal(size=40)[g]
    y = (rng.uniform(size=1200) < 1 / (1 + np.exp(-eta))).astype(float)
    fit = quietly("y ~ 1 + (1 | g)", {"y": y, "g": g})
    assert fit.theta[0] > 2.5
    assert fit.warnings == ()


# Dispersion --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["nbinom2", "nbinom1"])
def test_no_overdispersion_in_counts(family):
    rng, data = made()
    data["y"] = rng.binomial(10, 0.8, 120).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        fit, text = warned(jg.DispersionWarning, "y ~ x + (1 | g)", data, family=family)
        poisson = jg.glmm("y ~ x + (1 | g)", data, family="poisson")
    assert "no overdispersion" in text
    assert "Use family='poisson'" in text
    np.testing.assert_allclose(fit.criterion, poisson.criterion, atol=1e-6)
    np.testing.assert_allclose(fit.coefficients, poisson.coefficients, atol=1e-6)
    np.testing.assert_allclose(fit.se, poisson.se, rtol=1e-4)


def test_no_overdispersion_in_trials():
    rng, data = made()
    data |= {"y": rng.integers(3, 5, 120).astype(float), "m": np.full(120, 10)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        _, text = warned(
            jg.DispersionWarning,
            "y ~ x + (1 | g)",
            data,
            family="betabinomial",
            trials="m",
        )
    assert "Use family='binomial'" in text


def test_nothing_left_to_disperse():
    _, data = made()
    data["y"] = data["mu"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        _, text = warned(jg.DispersionWarning, "y ~ x + (1 | g)", data, family="gamma")
    assert "reproduce the response" in text


@pytest.mark.parametrize("family", ["nbinom2", "nbinom1", "gamma", "beta"])
def test_ordinary_dispersion(family):
    rng, data = made()
    mu = data["mu"]
    data["y"] = {
        "nbinom2": lambda: rng.poisson(rng.gamma(2.0, mu / 2)).astype(float),
        "nbinom1": lambda: rng.poisson(rng.gamma(mu, 1.0)).astype(float),
        "gamma": lambda: rng.gamma(3.0, mu / 3),
        "beta": lambda: rng.beta(2.0, 3.0, 120),
    }[family]()
    fit = quietly("y ~ x + (1 | g)", data, family=family)
    assert all(re.search("Singular", text) for text in fit.warnings)


def test_a_frame_of_pandas_with_categories():
    _, data = made()
    frame = pd.DataFrame(data).assign(f=lambda d: d["f"].astype("category"))
    frame["y"] = np.where(frame["f"] == "c", 0.0, frame["y"])
    with pytest.warns(jg.SeparationWarning, match="f = c"):
        jg.glmm("y ~ f", frame, family="poisson")


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_one_separated_row_leaves_the_summary_whole(family):
    """It is fitted to within nothing, and nothing over nothing is no residual."""
    rng = np.random.default_rng(5)
    n = 1000
    f, g = np.where(np.arange(n) == 17, "b", "a"), np.arange(n) % 20
    x = rng.normal(size=n)
    y = rng.random(n) < 0.4 if family == "binomial" else rng.poisson(1.0, n)
    y = np.where(np.arange(n) == 17, 0, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        fit = jg.glmm(
            "y ~ x + f + (1 | g)", {"y": y, "x": x, "f": f, "g": g}, family=family
        )
        for kind in ("pearson", "deviance", "working", "scaled", "response"):
            assert np.isfinite(fit.resid(kind)).all()
        assert "nan" not in str(fit.summary()).lower()
        assert np.isfinite(fit.deviance)
    assert fit.separation.cells == ("f = b",)
