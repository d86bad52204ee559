"""``fit_many`` is a loop of ``glmm``, family by family."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import _status

import jaxglmm as jg

J, ROWS, D = 12, 5, 200
N = J * ROWS
BAD = range(0, D, 10)


@functools.cache
def frame():
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "g": np.repeat(np.arange(J), ROWS),
            "x": rng.normal(size=N).round(2),
            "size": rng.integers(3, 12, N),
        }
    )


def drawn(name, eta, rng):
    mu = np.exp(eta)
    if name == "binomial":
        return rng.binomial(frame()["size"].to_numpy()[:, None], mu / (1 + mu))
    if name == "bernoulli":
        return rng.binomial(1, mu / (1 + mu))
    if name == "poisson":
        return rng.poisson(mu)
    if name == "nbinom2":
        return rng.negative_binomial(3.0, 3.0 / (3.0 + mu))
    return rng.gamma(4.0, mu / 4.0)


FAMILIES = {
    "binomial": ({"family": "binomial", "trials": "size"}, -0.3),
    "bernoulli": ({"family": "binomial"}, 0.2),
    "poisson": ({"family": "poisson"}, 0.8),
    "nbinom2": ({"family": "nbinom2"}, 1.2),
    "gamma": ({"family": jg.Gamma("log")}, 0.5),
}


@functools.cache
def responses(name):
    """200 data sets, variances from nothing to large; one in ten is bad."""
    rng = np.random.default_rng(5)
    sd = rng.choice([0.0, 0.3, 1.0], size=D)
    effects = rng.normal(size=(J, D)) * sd
    x = frame()["x"].to_numpy()[:, None]
    eta = FAMILIES[name][1] + 0.4 * x + effects[frame()["g"]]
    Y = drawn(name, eta, rng).astype(float)
    Y[:, 0] = 2.0 if name == "gamma" else 0.0
    Y[4, 10] = -1.0
    Y[7, 20] = np.inf
    Y[:, 30] = np.nan
    Y[3:, 40] = np.nan
    Y[:ROWS, 50] = np.nan  # a level less: not bad, but different
    Y[::7, 60] = np.nan
    return Y


WHY = {
    0: _status.CONSTANT,
    10: _status.BAD_VALUES,
    20: _status.BAD_VALUES,
    30: _status.TOO_FEW,
    40: _status.TOO_FEW,
}


@functools.cache
def together(name):
    options, _ = FAMILIES[name]
    with pytest.warns(jg.ConvergenceWarning, match=r"See \.status"):
        return jg.fit_many(
            "y ~ x + (1 | g)", frame(), responses=responses(name), **options
        )


def alone(name, y, formula="y ~ x + (1 | g)", **more):
    options, _ = FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(formula, frame().assign(y=y), **options, **more)


def assert_same(fits, k, fit, rtol=1e-8):
    at = [fits.coefficient_names.index(name) for name in fit.coefficient_names]
    pairs = {
        "log_likelihood": (fits.log_likelihood[k], fit.log_likelihood, 1.0),
        "coefficients": (fits.coefficients[k, at], fit.coefficients, fit.se),
        "se": (fits.se[k, at], fit.se, fit.se),
        "p": (fits.p_values[k, at], fit.p_values, 1.0),
        "sd": (
            fits.sd[k],
            np.concatenate([v.sd.to_numpy() for v in fit.varcorr.values()]),
            1.0,
        ),
    }
    if fits.dispersion is not None:
        phi = fit.estimates.phi
        pairs["dispersion"] = (np.log(fits.dispersion[k]), phi, 1.0 + np.abs(phi))
    for name, (ours, theirs, size) in pairs.items():
        error = np.max(np.abs(ours - theirs) / size)
        assert error < rtol, f"{name} of {k}: {ours} {theirs} ({error:.1e})"
    assert fits.singular[k] == fit.is_singular, k
    assert fits.separated[k] == (fit.separation is not None), k


@pytest.mark.parametrize("name", FAMILIES)
def test_two_hundred_data_sets(name):
    fits, Y = together(name), responses(name)
    for k, why in WHY.items():
        assert fits.status[k] == why, k
        assert np.isnan(fits.coefficients[k]).all()
        with pytest.raises(jg.JaxGLMMError):
            alone(name, Y[:, k])
    good = np.setdiff1d(np.arange(D), list(WHY))
    assert fits.converged[good].mean() > 0.98
    assert 0.1 < fits.singular[good].mean() < 0.9
    step = 1 if name == "binomial" else 5
    for k in good[::step]:
        fit = alone(name, Y[:, k])
        if not (fit.converged and fits.converged[k]):
            assert fits.log_likelihood[k] > fit.log_likelihood - 1e-6
            continue
        # without excess variance phi runs off, and nothing but the likelihood is known
        runs_off = name == "nbinom2" and fits.dispersion[k, 0] > 1e3
        if runs_off:
            assert fits.log_likelihood[k] == pytest.approx(fit.log_likelihood, abs=1e-6)
            continue
        assert_same(fits, k, fit)


def test_neighbours_do_not_matter():
    fits, Y = together("binomial"), responses("binomial")
    order = np.random.default_rng(1).permutation(D)
    options, _ = FAMILIES["binomial"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        other = jg.fit_many(
            "y ~ x + (1 | g)", frame(), responses=Y[:, order], **options
        )
    for name in ("coefficients", "se", "theta", "log_likelihood"):
        a, b = getattr(fits, name), getattr(other, name)
        np.testing.assert_allclose(b, a[order], rtol=1e-12, atol=1e-12, err_msg=name)


def test_values_that_settle_late():
    """A first value that is too low, away from the mode, must not stop the search."""
    data = jg.datasets.load("cbpp")
    fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    Y = fit.simulate(1520, seed=1).T[:, 1500:]
    fits = jg.fit_many(
        "y ~ period + (1 | herd)", data, responses=Y, family="binomial", trials="size"
    )
    assert fits.converged.all()


def test_quadrature():
    Y = responses("bernoulli")[:, 61:69]
    fits = jg.fit_many(
        "y ~ x + (1 | g)",
        frame(),
        responses=Y,
        family="binomial",
        method=jg.AGQ(7),
    )
    assert "7-point quadrature" in fits.facts["title"]
    for k in range(0, 8, 2):
        assert_same(fits, k, alone("bernoulli", Y[:, k], method=jg.AGQ(7)), 1e-7)


def test_slopes():
    Y = responses("poisson")[:, 61:67]
    formula = "y ~ x + (x | g)"
    fits = jg.fit_many(formula, frame(), responses=Y, family="poisson")
    for k in (0, 3, 5):
        assert_same(fits, k, alone("poisson", Y[:, k], formula), 1e-7)


@pytest.mark.parametrize("own", [False, True])
def test_weights_offsets_and_trials(own):
    rng = np.random.default_rng(6)
    Y = responses("binomial")[:, 61:65]
    shape = Y.shape if own else (N,)
    w, o = rng.uniform(0.5, 2, size=shape), 0.3 * rng.normal(size=shape)
    w[2] = 0.0
    m = frame()["size"].to_numpy(float)
    fits = jg.fit_many(
        "y ~ x + (1 | g)",
        frame(),
        responses=Y,
        family="binomial",
        weights=w,
        offset=o,
        trials=np.repeat(m[:, None], 4, axis=1) if own else m,
    )
    for k in range(4):
        mine = {"weights": w[:, k] if own else w, "offset": o[:, k] if own else o}
        assert_same(fits, k, alone("binomial", Y[:, k], **mine))


def test_by():
    rng = np.random.default_rng(7)
    parts = []
    for e in range(6):
        part = frame().iloc[: 25 + 5 * e].assign(e=e)
        eta = 0.5 + 0.3 * part["x"] + rng.normal(size=J)[part["g"]]
        parts.append(part.assign(y=rng.poisson(np.exp(eta)).astype(float)))
    parts[2]["y"] = 0.0
    table = pd.concat(parts).sample(frac=1, random_state=1)
    with pytest.warns(jg.ConvergenceWarning, match="1 constant"):
        fits = jg.fit_many("y ~ x + (1 | g)", table, by="e", family="poisson")
    for e, part in enumerate(parts):
        if e == 2:
            assert fits.status[e] == _status.CONSTANT
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.JaxGLMMWarning)
            fit = jg.glmm("y ~ x + (1 | g)", part, family="poisson")
        assert_same(fits, e, fit)


def test_separation_is_flagged():
    data = frame().assign(f=np.where(np.arange(N) % ROWS == 0, "a", "b"))
    Y = responses("binomial")[:, 61:64].copy()
    Y[np.arange(N) % ROWS == 0, 1] = 0.0
    fits = jg.fit_many(
        "y ~ f + (1 | g)", data, responses=Y, family="binomial", trials="size"
    )
    assert fits.separated.tolist() == [False, True, False]
    assert "1 separated" in fits.summary()


def test_crossed_factors_in_a_loop():
    data = frame().assign(h=np.arange(N) % ROWS)
    Y = responses("poisson")[:, 61:63]
    fits = jg.fit_many("y ~ x + (1 | g) + (1 | h)", data, responses=Y, family="poisson")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        fit = jg.glmm(
            "y ~ x + (1 | g) + (1 | h)",
            data.assign(y=Y[:, 1]),
            family="poisson",
        )
    assert fits.log_likelihood[1] == pytest.approx(fit.log_likelihood, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"trials": "sise"}, jg.DataError, "no column 'sise'"),
        ({"trials": np.ones(3)}, jg.DataError, "3 values for 60 rows"),
        ({"trials": np.ones((N, 9))}, jg.DataError, "9 columns for 2"),
        ({"family": "poisson"}, jg.DataError, "no number of trials"),
        ({"method": "reml"}, jg.ModelError, "'laplace'"),
        ({"formula": "cbind(y, n) ~ x + (1 | g)"}, jg.FormulaError, "pass trials="),
    ],
)
def test_what_cannot_be_done_is_refused(change, error, text):
    options = {
        "formula": "y ~ x + (1 | g)",
        "data": frame(),
        "responses": responses("binomial")[:, 61:63],
        "family": "binomial",
        "trials": "size",
    } | change
    with pytest.raises(error, match=text):
        jg.fit_many(options.pop("formula"), options.pop("data"), **options)


def test_links_with_a_domain():
    """Where the first trial leaves the domain the search starts again, closer."""
    rng = np.random.default_rng(3)
    x = np.tile(np.linspace(0, 1, ROWS), J).round(2)
    data = pd.DataFrame({"x": x, "g": np.repeat(np.arange(J), ROWS)})
    b = rng.normal(size=(J, 40)) * rng.uniform(0.05, 0.6, 40)
    eta = np.maximum(2.0 + 0.8 * x[:, None] + np.repeat(b, ROWS, axis=0), 0.15)
    Y = rng.gamma(8.0, 1 / (8.0 * eta))
    family = jg.Gamma("inverse")
    fits = jg.fit_many("y ~ x + (1 | g)", data, responses=Y, family=family)
    for k in (0, 8, 17, 29):  # 17 starts outside
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = data.assign(y=Y[:, k])
            fit = jg.glmm("y ~ x + (1 | g)", own, family=family)
        assert fits.status[k] == _status.CONVERGED
        assert_same(fits, k, fit)


@pytest.mark.slow
def test_lanes_that_run_out_of_steps_get_what_a_fit_alone_gets():
    """Restarts from smaller effects, and the exact Hessian's word on what is left."""
    rng = np.random.default_rng(5)
    n, D = 40, 300
    g, x = np.arange(n) % 8, rng.normal(size=n)
    b = 0.3 * rng.normal(size=(8, D))[g]
    mean = 1 / np.maximum(1 + 0.3 * x[:, None] + b, 0.05)
    hard = (mean * rng.gamma(2, 0.5, (n, D)))[:, [29, 85, 90, 136]]
    options = {"family": jg.Gamma("inverse")}
    fits = jg.fit_many("y ~ x + (x | g)", {"x": x, "g": g}, responses=hard, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        alone = [
            jg.glmm("y ~ x + (x | g)", {"x": x, "g": g, "y": y}, **options)
            for y in hard.T
        ]
    assert [f.converged for f in alone] == [True] * 4
    assert fits.converged.all()
    expected = [f.log_likelihood for f in alone]
    np.testing.assert_allclose(fits.log_likelihood, expected, atol=1e-6)
