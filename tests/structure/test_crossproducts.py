"""Cross-products by level against dense indicator matrices."""

import dataclasses

import numpy as np
import pytest
from doors import Factor, join, orthonormal
from doors import structure_crossproducts as cross
from structure import designs

WEIGHTED = pytest.mark.parametrize("weighted", [False, True])
NAMES = pytest.mark.parametrize("name", ["one", "terms", "crossed", "crossed-3"])


def setting(name, weighted, padded=False):
    rows = designs.rows(designs.BY_NAME[name], padded, weighted=weighted)
    return rows, join(rows.terms), rows.weights


def dense(factor):
    """(n, J, q)."""
    n = len(factor.codes)
    Z = np.zeros((n, factor.n_levels, factor.q))
    Z[np.arange(n), factor.codes] = 1.0 if factor.values is None else factor.values
    return Z


@NAMES
@WEIGHTED
def test_gram(name, weighted):
    _, factors, w = setting(name, weighted)
    root = 1.0 if w is None else w[:, None, None]
    for f in factors:
        Z = dense(f)
        size = f.n_levels + 3
        found = cross.gram(f, w, size)
        expected = np.einsum("nji,njk->ikj", Z, Z * root)
        np.testing.assert_allclose(found[..., : f.n_levels], expected, atol=1e-12)
        assert not found[..., f.n_levels :].any()


@pytest.mark.parametrize("r", [1, 6, 7])
def test_times(r, rng):
    """Few columns one by one, many by a sparse product."""
    _, factors, _ = setting("terms", False)
    (f,) = factors
    R = rng.normal(size=(designs.N, r))
    found = cross.times(f, R, f.n_levels + 2)
    expected = np.einsum("nji,nr->irj", dense(f), R)
    np.testing.assert_allclose(found[..., : f.n_levels], expected, atol=1e-12)
    assert not found[..., f.n_levels :].any()


@WEIGHTED
@pytest.mark.parametrize("in_order", [False, True])
def test_products_by_level_are_those_by_rows(weighted, in_order, rng, monkeypatch):
    n, q, levels = 1200, 7, 4
    codes = rng.integers(0, levels, n).astype(np.int32)
    codes = np.sort(codes) if in_order else codes
    f = Factor("g", codes, rng.normal(size=(n, q)), levels, np.eye(q), None, ())
    R, w = rng.normal(size=(n, 8)), rng.random(n) if weighted else None
    assert cross._is_by_level(f, q * 8)
    found = cross.gram(f, w, levels + 2), cross.times(f, R, levels + 2)
    np.testing.assert_array_equal(found[0], np.swapaxes(found[0], 0, 1))
    monkeypatch.setattr(cross, "PRODUCTS", 1000)
    assert not cross._is_by_level(f, q * 8)
    expected = cross.gram(f, w, levels + 2), cross.times(f, R, levels + 2)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@WEIGHTED
def test_times_basis_whole_or_by_columns(weighted, monkeypatch):
    rows, factors, w = setting("crossed", weighted)
    _, basis = orthonormal(rows.X, w)
    sizes = [f.n_levels + 1 for f in factors]
    right = basis.whole if w is None else basis.whole * w[:, None]
    whole = cross.times_basis(factors, basis, w, sizes)
    monkeypatch.setattr(cross, "LARGE", 0)
    columns = cross.times_basis(factors, basis, w, sizes)
    for f, size, a, b in zip(factors, sizes, whole, columns, strict=True):
        np.testing.assert_allclose(a, cross.times(f, right, size), atol=1e-12)
        np.testing.assert_allclose(b, a, atol=1e-12)


def test_parents():
    rows = designs.rows(designs.BY_NAME["nested"])
    fine, coarse = join(rows.terms)
    found = cross.parents(fine, coarse)
    np.testing.assert_array_equal(found[fine.codes], coarse.codes)
    assert cross.parents(coarse, fine) is None
    # one row in another coarse level, and it is nested no more
    codes = coarse.codes.copy()
    codes[0] = (codes[0] + 1) % coarse.n_levels
    assert cross.parents(fine, dataclasses.replace(coarse, codes=codes)) is None


@WEIGHTED
def test_coupling_of_nested_factors(weighted):
    _, (fine, coarse), w = setting("nested", weighted)
    found = cross.coupling(fine, coarse, w, fine.n_levels)
    root = 1.0 if w is None else w[:, None, None]
    full = np.einsum("nai,nbk->aibk", dense(fine), dense(coarse) * root)
    parent = cross.parents(fine, coarse)
    expected = full[np.arange(fine.n_levels), :, parent, :]
    np.testing.assert_allclose(found, expected.transpose(1, 2, 0), atol=1e-12)
    off = full.copy()
    off[np.arange(fine.n_levels), :, parent, :] = 0
    assert not off.any()  # nothing is left out


@pytest.mark.parametrize("name", ["crossed", "crossed-3", "crossed-sparse"])
@WEIGHTED
def test_entries(name, weighted):
    """Every occupied cell once, sorted by row and column."""
    _, (first, *others), w = setting(name, weighted, padded=True)
    sizes = [f.n_levels + 2 for f in others]
    entries = cross.Entries(first, others, sizes, cross.RowCounts(w))
    root = 1.0 if w is None else w[:, None, None]
    columns = []
    for f, size in zip(others, sizes, strict=True):
        Z = np.zeros((designs.N, size, f.q))
        Z[:, : f.n_levels] = dense(f)
        columns.append((Z * root).reshape(designs.N, -1))
    full = np.einsum("nji,nm->ijm", dense(first), np.concatenate(columns, axis=1))
    assert entries.m == full.shape[-1]
    found = np.zeros_like(full)
    found[:, entries.row, entries.col] = entries.value
    np.testing.assert_allclose(found, full, atol=1e-12)
    order = entries.row.astype(int) * entries.m + entries.col
    assert (np.diff(order) > 0).all()
    degrees = np.bincount(entries.row, minlength=first.n_levels)
    np.testing.assert_array_equal(entries.degrees(first.n_levels), degrees)


def test_pairs_of_entries():
    """All pairs of one row, each once, the later first."""
    _, (first, *others), w = setting("crossed-3", False)
    entries = cross.Entries(
        first, others, [f.n_levels for f in others], cross.RowCounts(w)
    )
    e1, e2 = entries.pairs(first.n_levels)
    found = set(zip(e1.tolist(), e2.tolist(), strict=True))
    expected = {
        (a, b)
        for a in range(len(entries))
        for b in range(a + 1)
        if entries.row[a] == entries.row[b]
    }
    assert found == expected
    assert len(e1) == len(expected)
    assert (entries.col[e1] >= entries.col[e2]).all()  # the lower triangle
