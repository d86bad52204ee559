"""Likelihoods that are hard to climb: observed information below zero, flat ends.

Reference values: glmmTMB 1.1.5, and a dense optimiser over Laplace's approximation.
"""

import pathlib
import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

DATA = pathlib.Path(__file__).parent.parent / "data"
TEXT = {"dtype": dict.fromkeys("ghf", object)}
LOG = jg.Gaussian(link="log")


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


@pytest.mark.parametrize(
    ("file", "formula", "options", "expected"),
    [
        (
            "gaussian_log_far_origin",
            "y ~ x + z + offset(off) + (x | g) + (1 | h)",
            {"family": LOG, "weights": "wt"},
            -360.1930,
        ),
        (
            "gaussian_log_small_scale",
            "y ~ x:f + z + (x + z | g)",
            {"family": LOG},
            -289.7779,
        ),
        (
            "inverse_gaussian_edge",
            "y ~ x + z + (x | g) + offset(off)",
            {"family": jg.InverseGaussian(link="1/mu^2"), "weights": "wt"},
            -172.3687,
        ),
    ],
)
@pytest.mark.slow
def test_rows_whose_information_is_negative(file, formula, options, expected):
    """They made the curvature indefinite, or led modes out of the link's domain."""
    fit = quiet(formula, pd.read_csv(DATA / f"{file}.csv", **TEXT), **options)
    assert fit.converged, fit.status
    assert fit.log_likelihood > expected - 1e-3


@pytest.fixture(scope="module")
def near_poisson():
    return pd.read_csv(DATA / "counts_near_poisson.csv")


COUNTS = "count ~ cond + offset(logdepth) + (1 | donor)"


def test_a_flat_dispersion_converges(near_poisson):
    """phi near 6,400 changes the deviance by 1e-5 a unit of its logarithm."""
    fit = quiet(COUNTS, near_poisson, family="nbinom2")
    assert fit.converged, fit.status
    np.testing.assert_allclose(fit.criterion, 322.9675032, atol=2e-6)
    assert 5e3 < fit.dispersion < 8e3


def test_many_near_the_poisson_limit(near_poisson):
    """All converge, and none runs to a dispersion that is no number to work with."""
    rng = np.random.default_rng(11)
    off = near_poisson["logdepth"].to_numpy()
    level = rng.uniform(0, 5, 64)[:, None]
    donor = pd.factorize(near_poisson["donor"])[0]
    shift = rng.normal(0, 0.3, (64, donor.max() + 1))[:, donor]
    mu = np.exp(off - off.mean() + level + shift)
    size = 10 ** rng.uniform(2, 6, (64, 1))
    Y = rng.poisson(mu * rng.gamma(size, 1 / size, mu.shape)).T
    fits = jg.fit_many(COUNTS, near_poisson, responses=Y, family="nbinom2")
    assert fits.converged.all()
    phi = fits.frame()["phi"]
    assert phi.max() < 1e16
    assert (phi > 1e10).any()
    poisson = jg.fit_many(COUNTS, near_poisson, responses=Y, family="poisson")
    gain = fits.log_likelihood - poisson.log_likelihood
    assert (gain > -1e-6).all()  # the smaller model is nested
    np.testing.assert_allclose(gain[phi > 1e10], 0, atol=1e-6)


def yes_or_no(seed):
    r = np.random.default_rng(seed)
    g = np.repeat(np.arange(50), 4)
    u, x, z = r.normal(0, 1.5, 50), r.normal(size=200), r.normal(size=200)
    y = r.random(200) < 1 / (1 + np.exp(-(0.3 + 0.8 * x + u[g])))
    return pd.DataFrame({"y": y.astype(int), "x": x, "z": z, "g": g.astype(str)})


@pytest.mark.parametrize("nodes", [2, 3])
def test_few_nodes_have_an_optimum_too(nodes):
    """Their value moves with the point that they are centred at to first order."""
    for seed in (2, 3, 4):
        fit = quiet("y ~ x + z + (1 | g)", yes_or_no(seed), method=jg.AGQ(nodes))
        assert fit.converged, fit.status
        assert fit.n_iter < 20
    # the criterion itself, by the nodes' definition, at points around the end
    best = by_hand(fit, fit.coefficients, fit.estimates.lam[0][0, 0], nodes)
    np.testing.assert_allclose(best, fit.criterion, atol=1e-7)
    rng = np.random.default_rng(0)
    for _ in range(10):
        beta = fit.coefficients + 1e-3 * rng.normal(size=3)
        theta = fit.estimates.lam[0][0, 0] + 1e-3 * rng.normal()
        assert by_hand(fit, beta, theta, nodes) > best - 1e-9


def by_hand(fit, beta, theta, nodes):
    """-2 log-likelihood by adaptive quadrature, level by level."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    X, y, codes = fit.design.X, fit.design.y, fit.design.terms[0].codes
    total = 0.0
    for g in range(codes.max() + 1):
        rows = codes == g
        fixed, own = X[rows] @ beta, y[rows]

        def log_joint(u, fixed=fixed, own=own):
            eta = fixed + theta * u
            return np.sum(own * eta - np.logaddexp(0, eta)) - u**2 / 2

        u = 0.0
        for _ in range(60):
            p = 1 / (1 + np.exp(-(fixed + theta * u)))
            M = 1 + theta**2 * np.sum(p * (1 - p))
            u += (theta * np.sum(own - p) - u) / M
        s = M**-0.5
        terms = [log_joint(u + s * k) + k**2 / 2 for k in z]
        total += np.log(np.sum(w * np.exp(terms))) + np.log(s)
    return -2 * total


@pytest.mark.slow
def test_a_rough_surface_is_searched_from_several_starts():
    """Two rows a level: yes-or-no, and levels far apart."""
    rng = np.random.default_rng(3)
    level = np.repeat(np.arange(80), 2)
    u = rng.normal(0, 9, 80) + rng.normal(0, 9, 40)[np.arange(80) // 2]
    x = rng.normal(size=160)
    y = rng.random(160) < 1 / (1 + np.exp(-(u[level] + x)))
    data = {"y": y * 1, "x": x, "f": level // 2, "m": level}
    fit = quiet("y ~ x + (1 | f) + (1 | m)", data)
    assert fit.converged
    assert fit.criterion < 150.62276
    found = fit.certificate["spread"]
    assert found.value > 5
    assert found.level > 0
    assert "no guide" in str(fit.certificate)
