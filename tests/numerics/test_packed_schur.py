"""A sum of pieces, its Schur complement and the inverse, in one array."""

import numpy as np
import pytest
from doors import numerics_packed_schur as packed
from scipy.linalg import block_diag

SIDES = ((5, 1), (4, 2))
LAMS = [np.array([[0.7]]), np.array([[0.5, 0.0], [0.2, 0.3]])]


@pytest.mark.parametrize("piece", [40, packed.PIECE])
def test_all_that_it_tells(monkeypatch, piece):
    monkeypatch.setattr(packed, "PIECE", piece)
    rng, schur = np.random.default_rng(0), packed.PackedSchur(SIDES)
    m = schur.m
    Z, N, x = (rng.normal(size=(k, m)) for k in (30, 2, 3))
    own = Z.T @ Z
    G = own - N.T @ N
    i, j = np.tril_indices(m)
    schur.add(i, j, own[i, j])
    schur.subtract(N)
    schur.close()
    assert np.allclose(schur.times(x.T), G @ x.T)
    Lam = block_diag(*[LAMS[0]] * 5, *[LAMS[1]] * 4)
    assert np.allclose(packed.scaled(LAMS, SIDES, x.T), Lam @ x.T)
    S = np.eye(m) + Lam.T @ G @ Lam
    assert schur.factor(LAMS)
    assert schur.log_det == pytest.approx(np.linalg.slogdet(S)[1])
    assert np.allclose(schur.solve(x.T), np.linalg.solve(S, x.T))
    sums = schur.invert(LAMS)
    inverse = np.linalg.inv(S)
    assert np.allclose(schur.A, inverse)
    whole = G @ Lam @ inverse
    own = [whole[k : k + 1, k : k + 1] for k in range(5)]
    assert np.allclose(sums[0], sum(own))
    own = [whole[k : k + 2, k : k + 2] for k in range(5, m, 2)]
    assert np.allclose(sums[1], sum(own))


def test_what_is_not_positive_definite():
    schur = packed.PackedSchur(((3, 1),))
    schur.subtract(2.0 * np.eye(3))
    schur.close()
    assert not schur.factor([np.eye(1)])
