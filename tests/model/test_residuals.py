"""Residual structures by their fixed cross-products, against dense matrices.

Two structures that the package has not: one sd in each of two strata, and neighbours in
time. The rows are read once; criterion and its slope follow theta.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics.tolerance import assert_close
from scipy.linalg import block_diag

from jaxglmm.integrate import exact
from jaxglmm.model.covariances import Unstructured
from jaxglmm.model.linear_problem import Problem
from jaxglmm.model.residuals import AbstractResiduals, IndependentResiduals
from jaxglmm.numerics.array_namespace import functions
from jaxglmm.numerics.blocks import Blocks

J, TIMES, Q = 6, 5, 2
N = J * TIMES
LAMBDA = np.array([0.9, 0.4, 0.6])


@dataclass(frozen=True, eq=False)
class TwoStrata(AbstractResiduals):
    """The second stratum's sd is e^theta times the first's."""

    second: np.ndarray
    m = 1
    names = ("log_ratio",)
    bounds = ((-np.inf, np.inf),)
    start = (0.0,)
    n_parts = 2

    def coefficients(self, theta):
        return 1.0, functions(theta[0]).exp(-2 * theta[0])

    def rows(self, k, A):
        return A * (self.second == k)[:, None]

    def log_det(self, theta):
        return 2 * theta[0] * self.second.sum()


@dataclass(frozen=True, eq=False)
class Neighbours(AbstractResiduals):
    """AR(1) over the rows of each level, in order; theta = rho."""

    level: np.ndarray
    m = 1
    names = ("rho",)
    bounds = ((-1.0, 1.0),)
    start = (0.0,)
    n_parts = 3

    def coefficients(self, theta):
        rho = theta[0]
        left = 1 - rho**2
        return 1 / left, -rho / left, rho**2 / left

    def rows(self, k, A):
        follows = np.concatenate([[False], self.level[1:] == self.level[:-1]])
        leads = np.append(follows[1:], False)
        if k == 0:
            return A
        if k == 2:
            return A * (follows & leads)[:, None]
        before = np.roll(A, 1, axis=0) * follows[:, None]
        return before + np.roll(A, -1, axis=0) * leads[:, None]

    def log_det(self, theta):
        n = len(self.level) - len(np.unique(self.level))
        return n * functions(theta[0]).log1p(-(theta[0] ** 2))


RNG = np.random.default_rng(7)
LEVEL = np.repeat(np.arange(J), TIMES)
SECOND = (RNG.uniform(size=N) < 0.4).astype(int)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Z = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = RNG.normal(size=N) + RNG.normal(size=J)[LEVEL]
WIDE = np.zeros((N, J, Q))
WIDE[np.arange(N), LEVEL] = Z
COLUMNS = np.column_stack([WIDE.reshape(N, -1), X, Y])


def dense_strata(theta):
    return jnp.diag(jnp.where(SECOND == 1, jnp.exp(2 * theta[0]), 1.0))


def dense_neighbours(theta):
    lag = np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))
    return jnp.kron(jnp.eye(J), theta[0] ** lag)


CASES = {
    "strata": (TwoStrata(SECOND), dense_strata, (0.0, 0.4, -0.7)),
    "neighbours": (Neighbours(LEVEL), dense_neighbours, (0.1, 0.6, -0.5)),
}


def problem_of(G):
    """The problem of cross-products [Z X y]'C^-1[Z X y]."""
    k = J * Q
    A = [G[j * Q : (j + 1) * Q, j * Q : (j + 1) * Q] for j in range(J)]
    B = [G[j * Q : (j + 1) * Q, k:] for j in range(J)]
    zero = jnp.zeros(())
    return Problem(
        Blocks(jnp.stack(A, axis=-1)),
        (jnp.stack(B, axis=-1),),
        G[k:, k:],
        jnp.asarray(float(N)),
        jnp.asarray(LAMBDA),
        zero,
        zero,
        (Unstructured(Q),),
    )


def criterion(residuals, products, theta, reml):
    """The profiled criterion over (theta of Lambda, theta of C), constants and all."""
    problem = problem_of(residuals.combined(products, theta[-residuals.m :]))
    lam = problem.lambdas(theta[: len(LAMBDA)])
    value = exact.profiled(problem, lam, reml)
    return value + residuals.log_det(theta[-residuals.m :])


def twin(dense, theta, reml):
    L = jnp.zeros((Q, Q)).at[[0, 1, 1], [0, 0, 1]].set(theta[: len(LAMBDA)])
    half = (WIDE @ L).reshape(N, -1)
    V = dense(theta[len(LAMBDA) :]) + half @ half.T
    inverse = jnp.linalg.inv(V)
    H = X.T @ inverse @ X
    r = Y - X @ jnp.linalg.solve(H, X.T @ inverse @ Y)
    left = N - X.shape[1] if reml else N
    out = jnp.linalg.slogdet(V)[1] + left * (
        1 + jnp.log(2 * jnp.pi) + jnp.log(r @ inverse @ r / left)
    )
    return out + jnp.linalg.slogdet(H)[1] if reml else out


@pytest.mark.parametrize("name", CASES)
def test_structures_are_sums_of_fixed_matrices(name):
    residuals, dense, values = CASES[name]
    products = residuals.products(np.eye(N), np.eye(N))
    for value in values:
        C = np.asarray(dense(jnp.array([value])))
        found = residuals.combined(products, [value])
        np.testing.assert_allclose(found, np.linalg.inv(C), atol=1e-12)
        expected = np.linalg.slogdet(C)[1]
        np.testing.assert_allclose(residuals.log_det([value]), expected, atol=1e-12)
    at_rest = residuals.combined(products, residuals.start)
    np.testing.assert_allclose(at_rest, np.eye(N), atol=1e-15)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_criterion_and_slope(name, reml):
    residuals, dense, values = CASES[name]
    products = jnp.asarray(residuals.products(COLUMNS, COLUMNS))
    ours = jax.jit(
        jax.value_and_grad(lambda x: criterion(residuals, products, x, reml))
    )
    theirs = jax.jit(jax.value_and_grad(lambda x: twin(dense, x, reml)))
    for value in values:
        theta = jnp.asarray([*LAMBDA, value])
        found, expected = ours(theta), theirs(theta)
        assert_close(found[0], expected[0], "value", 1)
        assert_close(found[1], expected[1], "slope", 2)


def test_rows_of_different_levels_stay_apart():
    """Z'W_kZ keeps the pattern of the factor."""
    k = J * Q
    blocks = block_diag(*[np.ones((Q, Q))] * J) == 1
    for residuals, _, _ in CASES.values():
        for product in residuals.products(COLUMNS, COLUMNS):
            assert not product[:k, :k][~blocks].any()


def test_a_known_ratio_is_a_weight():
    """Strata with a known ratio are prior weights of independent residuals."""
    strata, weights = TwoStrata(SECOND), np.where(SECOND == 1, 4.0, 1.0)
    known = [-np.log(2.0)]
    plain = IndependentResiduals(weights)
    assert (plain.m, plain.n_parts, plain.names) == (0, 1, ())
    np.testing.assert_allclose(
        strata.combined(strata.products(COLUMNS, COLUMNS), known),
        plain.combined(plain.products(COLUMNS, COLUMNS), []),
        rtol=1e-12,
        atol=1e-12,
    )
    np.testing.assert_allclose(strata.log_det(known), plain.log_det([]), rtol=1e-12)
    ones = IndependentResiduals()
    assert ones.rows(0, COLUMNS) is COLUMNS
    assert ones.log_det([]) == 0.0
