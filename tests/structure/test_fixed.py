"""The orthonormal basis of the fixed effects and the residual response."""

import numpy as np
import pytest
from doors import FixedBasis, fixed, orthonormal, residual, triangle

from jaxglmm import ModelError

N = 200


def design(rng, origin=0.0, unit=1.0):
    X = np.column_stack([np.ones(N), origin + unit * rng.normal(size=(N, 2))])
    return X, rng.normal(size=N) * 3 + 100


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("origin", "unit"), [(0, 1), (1e6, 1), (0, 1e-6), (1e6, 1e6)])
def test_orthonormal_whatever_origin_and_unit(origin, unit, weighted, rng):
    X, _ = design(rng, origin, unit)
    w = rng.uniform(0.5, 2, N) if weighted else None
    R, basis = orthonormal(X, w)
    whole = basis.whole
    gram = whole.T @ (whole if w is None else whole * w[:, None])
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-8)
    np.testing.assert_allclose(whole @ R, X, rtol=1e-9)
    assert not np.tril(R, -1).any()
    assert (np.diag(R) > 0).all()
    np.testing.assert_allclose(basis.gram(w), gram, atol=1e-13)


@pytest.mark.parametrize("n", [8191, 8192, 9000, 17 * 512])
@pytest.mark.parametrize("p", [1, 5, 32, 33])
def test_triangles_of_short_runs_are_that_of_the_whole(n, p, rng):
    X = rng.normal(size=(n, p)) * np.logspace(-6, 6, p) + 3
    whole = np.linalg.qr(X, mode="r")
    whole *= np.where(np.diag(whole) < 0, -1.0, 1.0)[:, None]
    size = np.sqrt(np.sum(whole**2, axis=0))
    found = triangle(iter([X]))
    np.testing.assert_allclose(found / size, whole / size, atol=1e-12)


def test_the_basis_in_pieces_is_the_basis(rng, monkeypatch):
    """Large data are never held twice."""
    X, y = design(rng)
    w = rng.uniform(0.5, 2, N)
    R, basis = orthonormal(X, w)
    whole = basis.whole
    monkeypatch.setattr(fixed, "ROWS", 48)
    R_pieces, pieces = orthonormal(X, w)
    np.testing.assert_allclose(R_pieces, R, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(pieces.dot(y), whole.T @ y, rtol=1e-10)
    np.testing.assert_allclose(pieces.gram(w), basis.gram(w), atol=1e-12)
    np.testing.assert_allclose(pieces.times(np.arange(3.0)), whole @ np.arange(3.0))
    np.testing.assert_allclose(pieces.column(1), whole[:, 1])


@pytest.mark.parametrize("weighted", [False, True])
def test_residual_and_the_way_back(weighted, rng):
    X, y = design(rng, origin=1e6)
    w = rng.uniform(0.5, 2, N) if weighted else None
    root = np.ones(N) if w is None else np.sqrt(w)
    R, basis = orthonormal(X, w)
    rest, coefficients, scale = residual(y, basis, w)
    centred = X - [0, 1e6, 1e6]
    ols = np.linalg.lstsq(centred * root[:, None], y * root, rcond=None)[0]
    error = y - centred @ ols
    np.testing.assert_allclose(rest * scale, error, atol=1e-8)
    np.testing.assert_allclose(np.mean((rest * root) ** 2), 1.0, rtol=1e-12)
    back = FixedBasis(R, coefficients, scale)
    np.testing.assert_allclose(X @ back.beta0, centred @ ols, rtol=1e-10)
    internal = rng.normal(size=3)
    expected = y - error + scale * basis.whole @ internal
    np.testing.assert_allclose(X @ back.beta(internal), expected, rtol=1e-9)


def test_covariance_goes_back(rng):
    X, _ = design(rng)
    R, _ = orthonormal(X, None)
    A = rng.normal(size=(3, 3))
    Q = A @ A.T + np.eye(3)  # X~'V^-1X~
    back = FixedBasis(R, np.zeros(3), 1.0)
    found = back.vcov(np.linalg.cholesky(Q), 2.0)
    np.testing.assert_allclose(found, 4 * np.linalg.inv(R.T @ Q @ R), rtol=1e-9)
    np.testing.assert_allclose(back.log_det, np.linalg.slogdet(X.T @ X)[1])


def test_no_columns(rng):
    y = rng.normal(size=N)
    R, basis = orthonormal(np.zeros((N, 0)), None)
    rest, coefficients, scale = residual(y, basis, None)
    assert R.shape == (0, 0)
    assert coefficients.shape == (0,)
    np.testing.assert_allclose(rest * scale, y)


def test_a_constant_response_is_named(rng):
    X, _ = design(rng)
    _, basis = orthonormal(X, None)
    with pytest.raises(ModelError, match="constant"):
        residual(np.full(N, 7.0), basis, None)


def test_a_response_among_the_predictors_is_named(rng):
    X, _ = design(rng)
    _, basis = orthonormal(X, None)
    with pytest.raises(ModelError, match="exactly"):
        residual(X @ np.array([1.0, 2.0, 3.0]), basis, None)
