"""One positive definite matrix: on both sides of the limit of unrolling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import spd
from numerics.tolerance import assert_close

SIDES = pytest.mark.parametrize("p", [1, 2, spd.SMALL, spd.SMALL + 1, 9])


def matrix(rng, p):
    A = rng.normal(size=(p, p))
    return A @ A.T + np.eye(p)


@SIDES
@pytest.mark.parametrize("shape", [(), (3,), (2, 4)], ids=["vector", "matrix", "cube"])
def test_solves(p, shape, rng):
    M = matrix(rng, p)
    L = np.linalg.cholesky(M)
    B = rng.normal(size=(p, *shape))
    assert_close(spd.cholesky(jnp.asarray(M)), L, "cholesky")
    ours = jnp.asarray(L), jnp.asarray(B)
    flat = B.reshape(p, -1)

    def expected(A):
        return np.linalg.solve(A, flat).reshape(B.shape)

    assert_close(spd.forward(*ours), expected(L), "forward", 1)
    assert_close(spd.backward(*ours), expected(L.T), "backward", 1)
    assert_close(spd.solve(*ours), expected(M), "solve", 1)


@pytest.mark.parametrize("p", [1, 2, 9])
def test_cholesky_of_the_lower_triangle_alone(p, rng):
    """Values and both derivatives, where the upper triangle holds something else."""
    M, dM, d2 = matrix(rng, p), matrix(rng, p), matrix(rng, p)
    junk = jnp.asarray(np.triu(rng.normal(size=(p, p)), 1))

    def log_det(t, half):
        A = M + t * dM + t**2 * d2
        if half:
            L = spd.cholesky_of_lower(jnp.tril(A) + junk * (1 + t + t**2))
            return spd.log_det(L)
        return jnp.linalg.slogdet(A)[1]

    for order in range(3):
        f = log_det
        for _ in range(order):
            f = jax.jacfwd(f)
        assert_close(f(0.3, True), f(0.3, False), f"derivative {order}", 1)


@SIDES
def test_inverse_and_log_det(p, rng):
    M = matrix(rng, p)
    L = spd.cholesky(jnp.asarray(M))
    assert_close(spd.inverse(L), np.linalg.inv(M), "inverse", 1)
    assert_close(spd.log_det(L), np.linalg.slogdet(M)[1], "log_det")


def test_nothing_is_a_matrix_too():
    """A model without fixed effects."""
    L = jnp.zeros((0, 0))
    assert spd.log_det(L) == 0.0
    assert spd.inverse(L).shape == (0, 0)


@pytest.mark.parametrize("p", [2, spd.SMALL + 1])
def test_not_positive_definite_is_nan(p):
    M = -np.eye(p)
    assert np.isnan(np.asarray(spd.cholesky(jnp.asarray(M)))).any()


@pytest.mark.parametrize("shape", [(2, 3), (9, 2), (12, 12)])
def test_product(shape, rng):
    A, B = rng.normal(size=shape), rng.normal(size=shape[::-1])
    assert_close(spd.product(jnp.asarray(A), jnp.asarray(B)), A @ B, "product")


@pytest.mark.parametrize("q", [1, 2, 3, 5])
def test_positive_part(q, rng):
    for k in range(6):
        G = rng.normal(size=(q, q))
        G = (G + G.T) / 2 + (k - 2.5) * np.eye(q)  # some definite, some not
        values, vectors = np.linalg.eigh(G)
        expected = vectors * np.maximum(values, 0) @ vectors.T
        assert_close(spd.positive_part(jnp.asarray(G)), expected, f"{k}", 1)


@pytest.mark.parametrize("G", [np.zeros((2, 2)), np.eye(2), -np.eye(2)])
def test_positive_part_of_equal_eigenvalues(G):
    """The closed form divides by the distance of the two."""
    found = jax.jit(spd.positive_part)(jnp.asarray(G))
    assert_close(found, np.maximum(G, 0), "equal")
