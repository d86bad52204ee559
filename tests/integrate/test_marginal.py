"""Joint and marginal log-densities against SciPy, and against each other."""

import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import integrate_marginal as marginal_module
from integrate import oracle
from scipy.stats import multivariate_normal, norm
from structure import designs

import jaxglmm as jg
from jaxglmm import density, integrate
from jaxglmm.density import Params, log_joint, zeros
from jaxglmm.integrate import log_marginal

NAMES = ("slopes", "wide", "nested", "crossed", "crossed-sparse")


@functools.cache
def setting(name, p=2):
    layout = designs.BY_NAME[name]
    rows = designs.rows(layout, padded=True, p=p, weighted=True)
    moments = rows.moments(layout.structure)
    problem = designs.on_device(moments)
    rng = np.random.default_rng(7)
    theta = designs.thetas(problem.covariances, rng, 1)
    params = Params(jnp.asarray(theta), jnp.asarray(rng.normal(size=p)), jnp.log(0.7))
    return rows, moments, problem, params


def random_effects(problem, moments, rng):
    """u of all levels, those of the padding too."""
    return tuple(jnp.asarray(rng.normal(size=x.shape)) for x in zeros(problem))


def mean_and_covariance(rows, moments, problem, params):
    """Of the response as given: mean of X beta, and Z Lambda."""
    data = oracle.dense(moments, rows.y, rows.X)
    lam = [np.asarray(x) for x in problem.lambdas(params.theta)]
    s, root = moments.fixed.scale, np.sqrt(rows.weights)
    sigma = s * np.exp(float(params.log_sigma))
    mean = rows.X @ moments.fixed.beta(np.asarray(params.beta))
    half = data.flat @ oracle.big_lambda(data, lam) / root[:, None]
    return mean, sigma, half


@pytest.mark.parametrize("name", NAMES)
def test_marginal_is_the_normal_density(name):
    rows, moments, problem, params = setting(name)
    mean, sigma, half = mean_and_covariance(rows, moments, problem, params)
    V = sigma**2 * (half @ half.T + np.diag(1 / rows.weights))
    expected = multivariate_normal(mean, V).logpdf(rows.y)
    found = jax.jit(log_marginal)(params, problem)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_joint_is_likelihood_times_prior(name, rng):
    rows, moments, problem, params = setting(name)
    u = random_effects(problem, moments, rng)
    mean, sigma, half = mean_and_covariance(rows, moments, problem, params)
    flat = np.concatenate(
        [
            np.asarray(x)[:, 0, : f.n_levels].T.ravel()
            for x, f in zip(u, moments.factors, strict=True)
        ]
    )
    sd = sigma / np.sqrt(rows.weights)
    expected = norm(mean + sigma * half @ flat, sd).logpdf(rows.y).sum()
    expected += sum(norm().logpdf(np.asarray(x)).sum() for x in u)
    found = jax.jit(log_joint)(params, u, problem)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["slopes", "nested"])
def test_the_joint_integrates_to_the_marginal(name):
    """It is Gaussian in u, so that its mode and its curvature there say it all.

    log p(y) = log p(y, u^) + k/2 log(2 pi) - 1/2 log|-Hessian|.
    """
    _, _, problem, params = setting(name)
    shapes = [x.shape for x in zeros(problem)]
    sizes = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]

    def joint(flat):
        parts = jnp.split(flat, sizes)
        u = tuple(x.reshape(s) for x, s in zip(parts, shapes, strict=True))
        return log_joint(params, u, problem)

    start = jnp.zeros(int(sum(np.prod(s) for s in shapes)))
    slope = jax.jit(jax.grad(joint))
    H = jax.jit(jax.jacfwd(jax.grad(joint)))(start)
    mode = start - np.linalg.solve(np.asarray(H), np.asarray(slope(start)))
    curvature = np.linalg.slogdet(-np.asarray(H))[1]
    found = jax.jit(joint)(mode) + len(start) / 2 * np.log(2 * np.pi) - curvature / 2
    expected = jax.jit(log_marginal)(params, problem)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_marginal(name):
    """By central differences of fourth order along a random direction."""
    _, _, problem, params = setting(name)
    value = jax.jit(log_marginal)
    found = jax.jit(jax.grad(log_marginal))(params, problem)
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    direction = [jnp.asarray(rng.normal(size=x.shape)) for x in leaves]

    def at(step):
        moved = [x + step * d for x, d in zip(leaves, direction, strict=True)]
        return float(value(jax.tree.unflatten(structure, moved), problem))

    h = 1e-4
    numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    pairs = zip(jax.tree.leaves(found), direction, strict=True)
    exact = sum(float(jnp.sum(g * d)) for g, d in pairs)
    np.testing.assert_allclose(exact, numeric, rtol=1e-7)


def test_vmap_over_parameters_and_padding():
    _, _, problem, params = setting("slopes")
    many = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x, 0 * x]), params)
    found = jax.jit(jax.vmap(log_marginal, in_axes=(0, None)))(many, problem)
    for k in range(3):
        own = jax.tree.map(lambda x, k=k: x[k], many)
        alone = jax.jit(log_marginal)(own, problem)
        np.testing.assert_allclose(found[k], alone, rtol=1e-12)


def test_padding_adds_standard_normal_coordinates():
    """Effects of levels that do not exist have their prior and touch nothing else."""
    _, moments, problem, params = setting("slopes")
    (u,) = zeros(problem)
    (f,) = moments.factors
    moved = u.at[:, :, f.n_levels :].set(1.0)
    change = log_joint(params, (moved,), problem) - log_joint(params, (u,), problem)
    extra = moved.size - f.q * f.n_levels
    np.testing.assert_allclose(change, -extra / 2, rtol=1e-10)


def test_constants_follow_the_response(rng):
    """The problem of a refit knows the scale of its own response."""
    level = np.repeat(rng.normal(size=8), 5)
    data = {"y": rng.normal(size=40) + 2 * level, "g": np.repeat(np.arange(8), 5)}
    fit = jg.lmm("y ~ 1 + (1 | g)", data, reml=False)
    for other in (fit, fit.refit(1e3 * (rng.normal(size=40) + level))):
        found, _ = other.engine.fit()
        params = Params.of(found.theta, found.beta, found.sigma2)
        value = jax.jit(log_marginal)(params, other.engine.problem)
        np.testing.assert_allclose(value, other.log_likelihood, rtol=1e-10)


def test_without_fixed_effects():
    rows, moments, problem, params = setting("slopes", p=0)
    mean, sigma, half = mean_and_covariance(rows, moments, problem, params)
    V = sigma**2 * (half @ half.T + np.diag(1 / rows.weights))
    expected = multivariate_normal(mean, V).logpdf(rows.y)
    found = jax.jit(log_marginal)(params, problem)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize(
    "module", [density, density.joint, integrate, marginal_module], ids=str
)
def test_examples(module):
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried or module is integrate
