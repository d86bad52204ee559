"""The posterior density against dense algebra, quadrature and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import design_from_formula, integrator, log_joint, zeros
from doors import engine as posterior_engine
from doors import mode as posterior_mode
from doors import posterior_mode as _map
from scipy import integrate, stats

import jaxglmm as jg
from jaxglmm import MAP
from jaxglmm.model.families import family_from


def engine_of(formula, data, family, priors=None):
    family = family_from(family)
    design = design_from_formula(formula, data, family_kind=family.family_kind)
    return posterior_engine.build(design, family, priors)


def small(rng, q=2):
    """A Poisson model with correlated slopes, five groups of four."""
    g = np.repeat(np.arange(5), 4)
    x = rng.normal(size=20)
    y = rng.poisson(np.exp(0.3 + 0.2 * x + 0.4 * rng.normal(size=5)[g]))
    term = "(x | g)" if q == 2 else "(1 | g)"
    return f"y ~ x + {term}", {"y": y, "x": x, "g": g.astype(str)}


def test_joint_density_by_hand(rng):
    """Rows, random effects, every prior, every Jacobian."""
    formula, data = small(rng)
    priors = jg.Priors(
        coefficients=jg.Normal(0.5, 2),
        intercept=jg.Normal(1, 3),
        sd=jg.HalfNormal(0.8),
        correlation=2.0,
        centered=False,
    )
    engine = engine_of(formula, data, "poisson", priors)
    x = rng.normal(size=5) * 0.4
    u = rng.normal(size=(2, 1, 8)) * 0.5
    found = float(log_joint(engine.posterior, jnp.asarray(x), (jnp.asarray(u),)))
    # by hand, in the user's coordinates
    draws = engine.draws(x[None], (u[None, :, 0],))
    beta, sd = draws.beta[0], draws.sd["g"][0]
    b = draws.effects["g"][0]
    eta = beta[0] + beta[1] * data["x"]
    g = data["g"].astype(int)
    eta = eta + b[g, 0] + b[g, 1] * data["x"]
    value = stats.poisson(np.exp(eta)).logpmf(data["y"]).sum()
    value += stats.norm(1, 3).logpdf(beta[0]) + stats.norm(0.5, 2).logpdf(beta[1])
    value += np.log(np.abs(np.linalg.det(engine.R_inverse)))  # beta to internal
    value += (stats.halfnorm(scale=0.8).logpdf(sd) + np.log(sd)).sum()
    r = draws.corr["g"][0, 1, 0]
    # LKJ(2) of one correlation: 2 Beta(2, 2) - 1, r = tanh(y)
    value += stats.beta(2, 2).logpdf((r + 1) / 2) - np.log(2) + np.log(1 - r**2)
    value += stats.norm.logpdf(u).sum()
    assert found == pytest.approx(value, abs=1e-10)


def test_effects_have_their_covariance(rng):
    """b = Lambda u in the user's units: covariance sd_i sd_j r_ij."""
    formula, data = small(rng)
    engine = engine_of(formula, data, "poisson")
    x = np.repeat(rng.normal(size=(1, 5)) * 0.4, 40_000, axis=0)
    u = rng.normal(size=(40_000, 2, 8))
    draws = engine.draws(x, (u,))
    b = draws.effects["g"][:, 0]
    sd, R = draws.sd["g"][0], draws.corr["g"][0]
    np.testing.assert_allclose(
        np.cov(b.T), np.outer(sd, sd) * R, atol=0.03 * sd.max() ** 2
    )


def test_marginal_by_brute_force(rng):
    """Laplace and quadrature against integration over each group's effect."""
    formula, data = small(rng, q=1)
    engine = engine_of(formula, data, "poisson", jg.Priors.statsmodels())
    x = jnp.asarray([0.9, 0.3, -0.5])
    psi = engine.belief.psi(x)
    u = zeros(engine.posterior.problem)
    draws = engine.draws(np.asarray(x)[None], None)
    beta, sd = draws.beta[0], draws.sd["g"][0, 0]
    total = 0.0
    g = data["g"].astype(int)
    for k in range(5):
        rows = g == k

        def f(v, rows=rows):
            eta = beta[0] + beta[1] * data["x"][rows] + sd * v
            logs = stats.poisson(np.exp(eta)).logpmf(data["y"][rows]).sum()
            return np.exp(logs) * stats.norm.pdf(v)

        total += np.log(integrate.quad(f, -8, 8, epsabs=1e-13)[0])
    problem = engine.posterior.problem
    exact = -0.5 * float(integrator("observed", 25).value(problem, psi, u))
    laplace = -0.5 * float(integrator().value(problem, psi, u))
    assert exact == pytest.approx(total, abs=1e-7)
    assert laplace == pytest.approx(total, abs=0.05)


@pytest.mark.parametrize("nodes", [1, 9])
def test_gradient_and_hessian_of_the_marginal_posterior(rng, nodes):
    formula, data = small(rng, q=1)
    engine = engine_of(formula, data, "poisson", jg.Priors.statsmodels())
    posterior, marginal = engine.posterior, integrator("observed", nodes)
    u0 = zeros(posterior.problem)

    @jax.jit
    def both(x):
        over = posterior.problem
        value, gradient, *_ = _map.derivatives(marginal, posterior, over, x, u0)
        return value, gradient

    x = jnp.asarray([0.9, 0.3, -0.5])
    _, gradient = both(x)
    eye, h = np.eye(3), 1e-4
    numeric = [(both(x + h * e)[0] - both(x - h * e)[0]) / (2 * h) for e in eye]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6)
    mode = posterior_mode.find_mode(engine, MAP(nodes=nodes))[1]
    at = jnp.asarray(mode.x)
    columns = [(both(at + h * e)[1] - both(at - h * e)[1]) / (2 * h) for e in eye]
    np.testing.assert_allclose(mode.H, columns, rtol=1e-4, atol=1e-4)
    assert np.abs(both(at)[1]).max() < 1e-4
    # how the modes of u move with psi
    psi = engine.belief.psi(at)
    beta, theta, phi = posterior.problem.split(psi + 1e-4)
    from doors import find_mode

    lam = posterior.problem.lambdas(theta)
    (moved,) = find_mode(posterior.problem, beta, lam, phi, mode.u).u
    slope = np.tensordot(np.full(3, 1e-4), mode.slope[0], axes=1)
    np.testing.assert_allclose(moved - mode.u[0], slope, atol=1e-7)


@pytest.mark.parametrize("q", [1, 2])
def test_density_of_the_sampler(rng, q):
    """NUTS' log density is the marginal posterior's; Fisher's gradient its slope."""
    from doors import nuts as sample
    from doors import quadrature_points as fisher

    formula, data = small(rng, q=q)
    engine = engine_of(formula, data, "poisson", jg.Priors.statsmodels())
    posterior = engine.posterior
    marginal = integrator("observed", 9)
    assert fisher.suits(posterior.problem.folded(), 9)
    mode = posterior_mode.mode_of(engine, marginal)
    white = sample.whiten(posterior, mode, density="marginal")
    log_p = sample.log_density(marginal, posterior, white, "marginal")
    both = jax.jit(jax.value_and_grad(log_p))
    k = len(mode.x)
    for z in rng.normal(size=(3, k)):
        value, gradient = both(jnp.asarray(z))
        x = white.x(jnp.asarray(z))
        over, zero = posterior.problem, zeros(posterior.problem)
        exact = _map.derivatives(marginal, posterior, over, x, zero)[0]
        assert float(value) == pytest.approx(float(mode.value - exact), abs=1e-6)
        eye, h = np.eye(k), 1e-4
        numeric = [(both(z + h * e)[0] - both(z - h * e)[0]) / (2 * h) for e in eye]
        np.testing.assert_allclose(gradient, numeric, atol=2e-3)


def test_priors_do_not_depend_on_the_origin_of_a_covariate(rng):
    """Centred intercepts: shifting x moves the intercept alone."""
    formula, data = small(rng, q=1)
    shifted = data | {"x": data["x"] + 100}
    one = jg.glmm(formula, data, family="poisson", method="map")
    two = jg.glmm(formula, shifted, family="poisson", method="map")
    assert two.coefficients[1] == pytest.approx(one.coefficients[1], abs=1e-6)
    assert two.se[1] == pytest.approx(one.se[1], rel=1e-6)
    assert two.log_evidence == pytest.approx(one.log_evidence, abs=1e-6)


def test_evidence_does_not_depend_on_units(rng):
    """Scaling y and the priors of a Gaussian model moves it by n log c."""
    sleep = jg.datasets.load("sleepstudy")
    seconds = sleep.assign(Reaction=sleep["Reaction"] / 1000)
    formula = "Reaction ~ Days + (Days | Subject)"
    one = jg.lmm(formula, sleep, method="map")
    two = jg.lmm(formula, seconds, method="map")
    expected = one.log_evidence + 180 * np.log(1000)
    assert two.log_evidence == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(two.coefficients * 1000, one.coefficients, rtol=1e-4)
