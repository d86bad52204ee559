"""Terms joined into factors, columns standardised, and the way back."""

import numpy as np
import pytest
from doors import Diagonal, SideBySide, TermColumns, Unstructured, join, named, to_user

N, J = 60, 7


def columns(rng, q, covariance="us", factor="g", n_levels=J):
    values = rng.normal(size=(N, q)) * 10.0 ** rng.uniform(-3, 3, q) + 5
    codes = (np.arange(N) % n_levels).astype(np.int32)
    return TermColumns(factor, codes, values, n_levels, named(covariance, q))


def with_intercept(term):
    values = term.values.copy()
    values[:, 0] = 1.0
    return TermColumns(term.factor, term.codes, values, term.n_levels, term.covariance)


@pytest.mark.parametrize("covariance", ["us", "diag"])
@pytest.mark.parametrize("q", [1, 2, 4])
def test_standardised_columns(covariance, q, rng):
    """Z = Z~ T; mean square one; uncorrelated where the covariance is free."""
    term = columns(rng, q, covariance)
    (factor,) = join([term])
    np.testing.assert_allclose(factor.values @ factor.T, term.values, rtol=1e-9)
    assert not np.tril(factor.T, -1).any()
    assert (np.diag(factor.T) > 0).all()
    gram = factor.values.T @ factor.values / N
    expected = np.eye(q) if covariance == "us" else None
    if expected is None:
        np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-12)
        assert not (factor.T - np.diag(np.diag(factor.T))).any()
    else:
        np.testing.assert_allclose(gram, expected, atol=1e-8)
    np.testing.assert_allclose(factor.T_inverse @ factor.T, np.eye(q), atol=1e-9)


def test_an_intercept_stays_as_it_is(rng):
    (one,) = join([with_intercept(columns(rng, 1))])
    assert one.values is None
    assert one.column(0) is None
    np.testing.assert_array_equal(one.T, [[1.0]])
    (two,) = join([with_intercept(columns(rng, 3))])
    np.testing.assert_array_equal(two.column(0), np.ones(N))
    assert two.T[0, 0] == 1.0


def test_collinear_columns_are_scaled_only(rng):
    term = columns(rng, 2)
    values = np.column_stack([term.values[:, 0], 3 * term.values[:, 0]])
    (factor,) = join([TermColumns("g", term.codes, values, J, term.covariance)])
    assert not np.triu(factor.T, 1).any()
    np.testing.assert_allclose(np.mean(factor.values**2, axis=0), 1.0)


def test_a_column_of_zeros_is_left_alone(rng):
    term = columns(rng, 2, "diag")
    values = term.values.copy()
    values[:, 1] = 0.0
    (factor,) = join([TermColumns("g", term.codes, values, J, term.covariance)])
    assert np.isfinite(factor.values).all()
    assert factor.T[1, 1] == 1.0


def test_terms_on_one_factor_are_joined(rng):
    us, diag = with_intercept(columns(rng, 2)), columns(rng, 2, "diag")
    other = columns(rng, 1, factor="h", n_levels=20)
    h, g = join([us, other, diag])
    assert (h.name, g.name) == ("h", "g")  # most levels first
    assert (h.q, g.q) == (1, 4)
    assert g.spans == ((0, 0, 2), (2, 2, 4))
    assert h.spans == ((1, 0, 1),)
    assert g.covariance == SideBySide((Unstructured(2), Diagonal(2)))
    assert g.covariance.entries == ((0, 0), (1, 0), (1, 1), (2, 2), (3, 3))
    assert not g.T[:2, 2:].any()
    joined = np.column_stack([us.values, diag.values])
    np.testing.assert_allclose(g.values @ g.T, joined, rtol=1e-9)


def test_ties_stay_in_the_order_of_the_formula(rng):
    terms = [columns(rng, 1, factor=name) for name in ("b", "a", "c")]
    assert [f.name for f in join(terms)] == ["b", "a", "c"]


@pytest.mark.parametrize("rank", [3, 2, 1, 0])
def test_to_user_keeps_the_covariance(rank, rng):
    """Triangular, diagonal >= 0, and T^-1 Sigma~ T^-T, of full rank or not."""
    (factor,) = join([with_intercept(columns(rng, 3))])
    lam = np.tril(rng.normal(size=(3, 3)))
    lam[:, rank:] = 0.0
    found = to_user(lam, factor)
    back = factor.T_inverse @ lam
    sd = np.sqrt(np.maximum(np.diag(back @ back.T), 1e-300))
    ours = found @ found.T / np.outer(sd, sd)
    np.testing.assert_allclose(ours, back @ back.T / np.outer(sd, sd), atol=1e-9)
    assert not np.triu(found, 1).any()
    assert (np.diag(found) >= 0).all()
    assert np.linalg.matrix_rank(found / sd[:, None], tol=1e-9) == rank


def test_to_user_of_an_exact_zero_is_an_exact_zero(rng):
    """A pinned variance is printed as 0, not as 1e-17."""
    (factor,) = join([with_intercept(columns(rng, 2))])
    found = to_user(np.array([[0.7, 0.0], [0.3, 0.0]]), factor)
    assert found[1, 1] == 0.0
    assert found[0, 0] > 0
