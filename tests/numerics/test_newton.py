"""Newton's method on functions whose minima are known, and on ones that have none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import _status, newton

TOL = 1e-10


def derivatives(f):
    """(value, gradient, Hessian, scale) of a scalar function."""

    def evaluate(x):
        H = jax.hessian(f)(x)
        return f(x), jax.grad(f)(x), H, 1 + jnp.diagonal(H)

    return evaluate


def quadratic(x):
    A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    return 0.5 * x @ A @ x - x @ jnp.array([1.0, -1.0])


@functools.partial(jax.jit, static_argnums=0)
def run(f, start, tol=TOL, max_steps=200):
    return newton.minimise(derivatives(f), start, tol, max_steps)


def test_quadratic():
    found = run(quadratic, jnp.array([5.0, -7.0]))
    assert found.status == _status.CONVERGED
    np.testing.assert_allclose(found.x, [0.6, -0.8], atol=1e-6)
    assert 0 <= found.decrement < 1e-4
    assert found.steps < 8


def test_started_at_the_minimum():
    found = run(quadratic, jnp.array([0.6, -0.8]))
    assert found.status == _status.CONVERGED
    assert found.steps <= 2


def test_a_step_never_raises_the_value():
    """A valley with a bend: undamped steps would overshoot."""

    def bent(x):
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    def evaluate(x):
        f, g, H, _ = derivatives(bent)(x)
        values, vectors = jnp.linalg.eigh(H)
        return f, g, (vectors * jnp.abs(values)) @ vectors.T, 1 + jnp.diagonal(H)

    found = jax.jit(lambda x: newton.minimise(evaluate, x, TOL, 200))(
        jnp.array([-1.2, 1.0])
    )
    assert found.status == _status.CONVERGED
    np.testing.assert_allclose(found.x, [1.0, 1.0], atol=1e-5)


def even(x):
    """In a parameter of which only the square matters, pushed to its boundary."""
    return jnp.log(1 + x[0] ** 2) + (x[1] - 1) ** 2


def test_minimum_on_the_boundary():
    """As a variance of zero: the gradient vanishes there for every function."""
    found = run(even, jnp.array([0.5, 0.0]))
    assert found.status == _status.CONVERGED
    np.testing.assert_allclose(found.x, [0.0, 1.0], atol=1e-5)


def test_noise_below_the_slack_does_not_stop_it():
    """Rounding of a criterion of 1e5."""

    def noisy(x):
        f, g, H, D = derivatives(quadratic)(x)
        wiggle = 1e-10 * jnp.sin(1e9 * x[0])
        return f + 1e5 + wiggle, g, H, D

    start = jnp.array([5.0, -7.0])
    found = jax.jit(lambda x: newton.minimise(noisy, x, 1e-9, 200))(start)
    assert found.status == _status.CONVERGED
    np.testing.assert_allclose(found.x, [0.6, -0.8], atol=1e-5)
    assert found.steps < 20


def test_start_that_is_not_finite():
    def log(x):
        return jnp.sum(jnp.log(x))

    found = run(log, jnp.array([-1.0]))
    assert found.status == _status.NOT_FINITE
    assert found.x == -1.0
    assert found.steps == 1


def test_a_wall_on_the_way_is_stepped_back_from():
    """Not finite beyond zero: damped until inside."""

    def barrier(x):
        return x[0] - 1e-2 * jnp.log(x[0])

    def evaluate(x):
        f, g, _, _ = derivatives(barrier)(x)
        return f, g, jnp.array([[1e-4]]), jnp.ones(1)

    found = jax.jit(lambda x: newton.minimise(evaluate, x, 1e-8, 500))(jnp.ones(1))
    assert found.x > 0
    assert np.isfinite(found.value)


def test_out_of_steps():
    found = run(quadratic, jnp.array([5e6, -7e6]), TOL, 2)
    assert found.status == _status.MAX_STEPS
    assert found.steps == 2
    assert found.decrement > TOL


def test_stalled():
    """A gradient that lies: every step goes up."""

    def lying(x):
        return jnp.sum(x**2), -1e3 * jnp.ones(1), jnp.eye(1), jnp.ones(1)

    found = jax.jit(lambda x: newton.minimise(lying, x, TOL, 200))(jnp.ones(1))
    assert found.status == _status.STALLED
    assert found.x == 1.0


def test_lanes_are_independent():
    """One that fails and one that is done do not touch the others."""

    def f(x):
        return (x[0] - 2) ** 2 + jnp.where(x[0] < -50, jnp.nan, 0.0)

    starts = jnp.array([[-100.0], [2.0], [1e3]])
    many = jax.jit(jax.vmap(lambda x: newton.minimise(derivatives(f), x, TOL, 50)))
    found = many(starts)
    assert list(found.status) == [
        _status.NOT_FINITE,
        _status.CONVERGED,
        _status.CONVERGED,
    ]
    for k, start in enumerate(starts):
        alone = run(f, start, TOL, 50)
        np.testing.assert_allclose(found.x[k], alone.x, rtol=1e-12)
        assert found.steps[k] == alone.steps


@pytest.mark.parametrize("secant", [False, True])
def test_a_poor_hessian_is_learnt(secant):
    """A stand-in at twice the curvature: linear without the secant, fast with it."""

    def evaluate(x, count):
        f, g, H, D = derivatives(quadratic)(x)
        return f, g, 2 * H, D, count + 1

    found = jax.jit(
        lambda x: newton.minimise_carrying(
            evaluate, x, jnp.asarray(0), TOL, 200, secant=secant
        )
    )(jnp.array([2.0, -2.0]))
    assert found.status == _status.CONVERGED
    # both stop on an estimate of what is left, which is rougher here
    np.testing.assert_allclose(found.x, [0.6, -0.8], atol=2e-3)
    assert found.aux == found.steps  # carried along the accepted points
    assert found.steps < (12 if secant else 40)
