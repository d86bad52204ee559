"""A Gaussian with skewness along its axes: exact where a density is a product."""

import numpy as np
import pytest
from doors import skewed, uniform
from scipy import stats
from scipy.special import gammaln

import jaxglmm as jg


def log_gamma(shape):
    """log of a gamma variable: a long left tail, as logs of variances have."""
    return lambda y: shape * y - np.exp(y)


@pytest.mark.parametrize("shape", [1.0, 2.5, 20.0])
@pytest.mark.parametrize(
    ("nodes", "allowed"), [(skewed.NODES, 0.003), (skewed.FEW, 0.02)]
)
def test_one_axis_is_the_density_itself(shape, nodes, allowed):
    """Quantiles and volume, by many nodes and by few."""
    mode, sd, f = np.log(shape), shape**-0.5, log_gamma(shape)
    axes = skewed.Axes.through(nodes, f(mode + sd * nodes)[None])
    u = np.array([0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.98])
    held = stats.loggamma(shape).cdf(mode + sd * axes.quantiles(u[:, None])[:, 0])
    np.testing.assert_allclose(held, u, atol=allowed)
    volume = axes.log_volume[0] + f(mode) + np.log(sd)
    assert volume == pytest.approx(gammaln(shape), abs=3 * allowed)
    # the density that importance weights divide by
    here = axes.log_density_at(np.array([[-1.0], [0.7]])) - np.log(sd)
    exact = stats.loggamma(shape).logpdf(mode + sd * np.array([-1.0, 0.7]))
    np.testing.assert_allclose(here, exact, atol=8 * allowed)


def test_the_mode_of_a_gaussian_is_the_gaussian(rng):
    """Nothing is corrected, whatever the correlations; draws have its moments."""
    B = rng.normal(size=(4, 4))
    H = B @ B.T + np.eye(4)
    mode = np.arange(4.0)
    frame = skewed.Frame.at(mode, H, 2)
    at = skewed.points(frame) - mode
    law = skewed.SkewGaussian.fitted(frame, -np.einsum("si,ij,sj->s", at, H, at) / 2)
    x, density = law.draws(uniform(4, 4096, 1))
    np.testing.assert_allclose(x.mean(axis=0), mode, atol=0.01)
    np.testing.assert_allclose(np.cov(x.T), np.linalg.inv(H), atol=0.02)
    exact = stats.multivariate_normal(mode, np.linalg.inv(H)).logpdf(x)
    np.testing.assert_allclose(density, exact, atol=0.01)


def test_coefficients_follow_the_variance():
    """beta ~ N(0, v), log v log-gamma: the marginal of beta has its heavy tails."""
    shape = 4.0

    def log_density(x):
        beta, y = x[:, 0], x[:, 1]  # y: log of the precision, with beta integrated in
        return log_gamma(shape)(y) + y / 2 - np.exp(y) * beta**2 / 2

    y0 = np.log(shape + 0.5)
    frame = skewed.Frame.at(np.array([0.0, y0]), np.diag([np.exp(y0), np.exp(y0)]), 1)
    law = skewed.SkewGaussian.fitted(frame, log_density(skewed.points(frame)))
    x, density = law.draws(uniform(2, 8192, 2))
    t = stats.t(2 * shape, scale=np.sqrt(1 / shape))  # in closed form
    for p in (0.025, 0.5, 0.975):
        assert (x[:, 0] < t.ppf(p)).mean() == pytest.approx(p, abs=0.006)
    ratio = log_density(x) - density
    assert np.std(ratio - ratio.mean()) < 0.1


def test_values_that_are_not_finite_end_an_axis():
    """A likelihood that overflows far out is nowhere, not an error."""
    values = -(skewed.NODES**2) / 2
    values = np.where(
        skewed.NODES > 2.5, [np.nan, np.inf, -np.inf] * 3 + [np.nan] * 2, values
    )
    axes = skewed.Axes.through(skewed.NODES, values[None])
    t = axes.quantiles(np.array([[0.001], [0.5], [0.999]]))[:, 0]
    assert t[0] == pytest.approx(-3.09, abs=0.05)
    assert t[1] == pytest.approx(0.0, abs=0.03)
    assert t[2] < 3.1


def test_many_coefficients_keep_their_law_at_the_mode():
    """Values are dear: above a number of them only the axes are looked at."""
    p = 400
    frame = skewed.Frame.at(np.zeros(p + 2), np.eye(p + 2), p)
    at = skewed.points(frame)
    assert len(at) == 2 * len(skewed.NODES)
    law = skewed.SkewGaussian.fitted(frame, -np.sum(at**2, axis=1) / 2)
    x, density = law.draws(np.full((1, p + 2), 0.5))
    np.testing.assert_allclose(x, 0, atol=0.01)
    assert density[0] == pytest.approx(-(p + 2) / 2 * np.log(2 * np.pi), abs=0.01)


def test_star():
    np.testing.assert_array_equal(
        skewed.star(2, np.array([-1.0, 0.0, 2.0])),
        [[0, 0], [-1, 0], [2, 0], [0, -1], [0, 2]],
    )
    assert skewed.star(0).shape == (1, 0)


def test_symmetric_is_the_gaussian_whatever_the_axes_said(rng):
    """What is left where values along the axes cannot be trusted."""
    B = rng.normal(size=(3, 3))
    H = B @ B.T + np.eye(3)
    frame = skewed.Frame.at(np.zeros(3), H, 1)
    law = skewed.SkewGaussian.fitted(frame, rng.normal(size=len(skewed.points(frame))))
    x, density = law.symmetric().draws(uniform(3, 2048, 3))
    exact = stats.multivariate_normal(np.zeros(3), np.linalg.inv(H)).logpdf(x)
    np.testing.assert_allclose(density, exact, atol=0.01)


def test_no_likelihood_from_modes_that_were_not_found():
    """Counts whose likelihood far along the axis is nonsense: sd is not 11."""
    data = np.random.default_rng(0)
    g, x = np.arange(40) % 6, data.normal(size=40)
    y = data.poisson(3, 40)
    frame = {"y": y, "x": x, "g": g, "f": np.array(list("abc"))[np.arange(40) % 3]}
    options = {"family": "poisson"}
    fit = jg.glmm("y ~ x + f + (1 | g)", frame, method=jg.MAP(draws=500), **options)
    exact = jg.glmm("y ~ x + f + (1 | g)", frame, method="nested-laplace", **options)
    a, b = fit.posterior.summary(), exact.posterior.summary()
    assert a.loc["sd_(Intercept)|g", "upper"] < 3 * b.loc["sd_(Intercept)|g", "upper"]
    assert fit.khat < 0.7
