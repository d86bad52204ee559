"""Unrolled algebra against LAPACK, for stacks of matrices along trailing axes."""

import numpy as np
import pytest
from doors import small_matrices as small
from numerics.tolerance import assert_close

SIDES = pytest.mark.parametrize("q", range(1, 9))
LEVELS = 5


def positive(rng, q):
    """(q, q, LEVELS) positive definite matrices."""
    A = rng.normal(size=(LEVELS, q, q))
    return (A @ A.transpose(0, 2, 1) + np.eye(q)).transpose(1, 2, 0)


def each(x):
    return np.moveaxis(np.asarray(x), -1, 0)


@SIDES
def test_cholesky_and_solves(q, rng):
    M = positive(rng, q)
    L = small.cholesky(small.rows(M))
    expected = np.linalg.cholesky(each(M))
    assert_close(each(small.stack(L, M[0, 0])), expected, "L")
    assert [L[i][j] for i in range(q) for j in range(i + 1, q)] == [0.0] * (
        q * (q - 1) // 2
    )
    b = rng.normal(size=(q, 3, LEVELS))  # three vectors a matrix
    for name, ours, theirs in [
        ("forward", small.forward(L, list(b)), np.linalg.solve(expected, each(b))),
        (
            "backward",
            small.backward(L, list(b)),
            np.linalg.solve(expected.transpose(0, 2, 1), each(b)),
        ),
        ("solve", small.solve(L, list(b)), np.linalg.solve(each(M), each(b))),
    ]:
        assert_close(each(np.stack(ours)), theirs, name, 1)
    log_det = np.linalg.slogdet(expected)[1]
    assert_close(small.log_diagonal(L), log_det, "log_diagonal")
    B = rng.normal(size=(q, 2, LEVELS))
    found = small.stack(small.forward_matrix(L, small.rows(B)), M[0, 0])
    assert_close(each(found), np.linalg.solve(expected, each(B)), "forward_matrix", 1)


@SIDES
def test_products(q, rng):
    A, B = rng.normal(size=(2, q, q + 1, LEVELS))
    C = rng.normal(size=(q + 1, 2, LEVELS))
    product = small.stack(small.matmul(small.rows(A), small.rows(C)), A[0, 0])
    assert_close(each(product), each(A) @ each(C), "matmul")
    vector = small.apply(small.rows(A), list(C))
    assert_close(each(np.stack(vector)), each(A) @ each(C), "apply")
    gram = small.symmetric(small.rows(A), small.transpose(small.rows(A)))
    expected = each(A) @ each(A).transpose(0, 2, 1)
    assert_close(each(small.stack(gram, A[0, 0])), expected, "symmetric")
    assert gram[q - 1][0] is gram[0][q - 1]  # half of the work
    less = small.subtract(small.rows(A), small.rows(B))
    assert_close(small.stack(less, A[0, 0]), A - B, "subtract")
    more = small.plus_identity(small.rows(A[:, :q]))
    expected = A[:, :q] + np.eye(q)[..., None]
    assert_close(small.stack(more, A[0, 0]), expected, "plus_identity")


def test_structural_zeros_cost_nothing_and_change_nothing(rng):
    x, y = rng.normal(size=(2, LEVELS))
    assert small.dot([0.0, 0.0], [x, y]) == 0.0
    assert small.dot([x, 0.0], [y, y]) is not None
    np.testing.assert_array_equal(small.dot([x, 0.0], [y, y]), x * y)
    np.testing.assert_array_equal(small.dot([0.0, x], [y, 0.0]), 0.0)
    L = small.lower(np.tril(rng.normal(size=(3, 3))) + 3 * np.eye(3))
    assert L[0][2] == 0.0
    # a right-hand side that begins with zeros stays zero there
    z = small.forward(L, [0.0, 0.0, x])
    assert z[:2] == [0.0, 0.0]
    np.testing.assert_allclose(z[2], x / L[2][2])
    u = small.backward(L, [x, 0.0, 0.0])
    assert u[1:] == [0.0, 0.0]
    np.testing.assert_allclose(u[0], x / L[0][0])
    kept = small.subtract([[x]], [[0.0]])[0][0]
    assert kept is x


def test_cholesky_of_an_indefinite_matrix_is_nan():
    """Failure is a value, found later by who asks for it."""
    L = small.cholesky(small.rows(np.array([[1.0, 2.0], [2.0, 1.0]])))
    assert np.isnan(L[1][1])
