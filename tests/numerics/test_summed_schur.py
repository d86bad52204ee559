"""A sparse sum of pieces, solved by conjugate gradients, against dense algebra."""

import numpy as np
import pytest
from doors import numerics_packed_schur as packed
from doors import numerics_summed_schur as summed
from scipy.linalg import block_diag

SIDES = ((5, 1), (4, 2))
LAMS = [np.array([[0.7]]), np.array([[0.5, 0.0], [0.2, 0.3]])]
LAM = block_diag(*[LAMS[0]] * 5, *[LAMS[1]] * 4)


def made():
    """A sum of both kinds of pieces, what it is, and S."""
    rng, schur = np.random.default_rng(0), summed.SummedSchur(SIDES)
    Z, N = (rng.normal(size=(k, schur.m)) for k in (30, 2))
    own = Z.T @ Z
    i, j = np.tril_indices(schur.m)
    for piece in np.array_split(np.arange(len(i)), 3):
        schur.add(i[piece], j[piece], own[i[piece], j[piece]])
    schur.subtract(N)
    schur.close()
    G = own - N.T @ N
    return schur, G, np.eye(schur.m) + LAM.T @ G @ LAM


def trace(whole):
    """Sums of the diagonal blocks of both factors."""
    one = sum(whole[k : k + 1, k : k + 1] for k in range(5))
    return one, sum(whole[k : k + 2, k : k + 2] for k in range(5, len(whole), 2))


@pytest.mark.parametrize("buffer", [10, summed.BUFFER])
def test_products_and_solutions(monkeypatch, buffer):
    monkeypatch.setattr(summed, "BUFFER", buffer)
    schur, G, S = made()
    x = np.random.default_rng(1).normal(size=(schur.m, 3))
    x[:, 1] = 0.0
    assert np.allclose(schur.times(x), G @ x)
    assert schur.factor(LAMS)
    expected = np.linalg.solve(S, x)
    assert np.allclose(schur.solve(x), expected, rtol=1e-10, atol=1e-12)
    near = expected + 1e-3
    assert np.allclose(schur.solve(x, near), expected, rtol=1e-10, atol=1e-12)
    dense = schur.packed()
    assert np.allclose(dense.times(x), G @ x)
    assert dense.factor(LAMS)
    assert dense.log_det == pytest.approx(np.linalg.slogdet(S)[1])
    assert np.allclose(dense.invert(LAMS)[1], trace(G @ LAM @ np.linalg.inv(S))[1])


def test_a_factor_where_conjugate_gradients_come_to_no_end(monkeypatch):
    monkeypatch.setattr(summed, "LONGEST", 2)
    factors, factor = [], packed.PackedSchur.factor

    def counted(self, lams):
        factors.append(self.m)
        return factor(self, lams)

    monkeypatch.setattr(packed.PackedSchur, "factor", counted)
    schur, _, S = made()
    x = np.random.default_rng(1).normal(size=(schur.m, 3))
    assert schur.factor(LAMS)
    assert np.allclose(schur.solve(x), np.linalg.solve(S, x), rtol=1e-10, atol=1e-12)
    assert factors == [schur.m]


def test_as_many_signs_as_columns_are_exact():
    schur, G, S = made()
    assert schur.factor(LAMS)
    inverse, sums = schur.probed(LAMS, summed.probes(schur.m, 20))
    known = np.linalg.inv(S)
    i, j = np.indices((schur.m, schur.m))
    assert np.allclose(inverse.entries(i, j), known)
    assert np.allclose(inverse.after(S), np.eye(schur.m))
    both = np.array([[0, 3], [7, 5]])
    other = summed.KnownInverse(known)
    assert np.allclose(inverse.blocks(both, both), other.blocks(both, both))
    assert np.allclose(inverse.entries(both, both), other.entries(both, both))
    for found, own in zip(sums, trace(G @ LAM @ known), strict=True):
        assert np.allclose(found, own)


def test_few_signs_estimate_the_inverse():
    schur, _, S = made()
    assert schur.factor(LAMS)
    one = [
        schur.probed(LAMS, signs)[0].entries(np.arange(schur.m), np.arange(schur.m))
        for signs in np.random.default_rng(0).choice([-1.0, 1.0], (400, schur.m, 8))
    ]
    error = np.std(one, axis=0) / np.sqrt(len(one))
    apart = np.mean(one, axis=0) - np.diagonal(np.linalg.inv(S))
    assert (np.abs(apart) < 5 * error + 1e-12).all()
    assert (summed.probes(500, 8) == summed.probes(500, 8)).all()


@pytest.mark.parametrize("entry", [-3.0, np.nan])
def test_what_is_not_positive_definite(entry):
    schur = summed.SummedSchur(((3, 1),))
    schur.add(np.arange(3), np.arange(3), np.full(3, entry))
    schur.close()
    assert not schur.factor([np.eye(1)])


def test_what_is_not_although_its_diagonal_is():
    schur = summed.SummedSchur(((2, 1),))
    schur.add(np.array([1]), np.array([0]), np.array([5.0]))
    schur.close()
    assert schur.factor([np.eye(1)])
    assert np.isnan(schur.solve(np.array([[1.0], [-1.0]]))).all()
    assert not schur.packed().factor([np.eye(1)])
