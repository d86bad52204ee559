"""Cross-products of the data sets of a long table, against one data set at a time."""

import numpy as np
import pandas as pd
import pytest
from doors import coordinates, design_from_formula, factors, level_sums
from doors import many_plan as engines

D = 7
EMPTY = 3


def table(shuffled):
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 7, size=(D, 5))
    sizes[EMPTY] = 0
    e, g = np.indices(sizes.shape).reshape(2, -1).repeat(sizes.ravel(), axis=1)
    n = len(e)
    x = 2000 + rng.integers(0, 12, n)
    y = 1e3 + x + rng.normal(size=n) + rng.normal(size=(D, 5))[e, g]
    out = pd.DataFrame({"e": e, "g": g, "x": x.astype(float), "y": y})
    out["z"], out["o"] = rng.normal(size=n), rng.normal(size=n)
    out["w"] = rng.choice([0.0, 0.5, 1.0, 2.0], n)
    return out.sample(frac=1, random_state=1) if shuffled else out


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (x | g)",
        "y ~ 1 + (1 | g)",
        "y ~ z + (0 + x | g)",
        "y ~ x + z + (z || g)",
        "y ~ x + (x + z | g)",
        "y ~ 0 + (x | g)",
    ],
)
def test_sums_of_each_data_set(formula, weighted, shuffled, monkeypatch):
    monkeypatch.setattr(level_sums, "NUMBERS", 0)
    monkeypatch.setattr(level_sums, "LEAST", 40)
    data = table(shuffled)
    options = {"weights": "w", "offset": "o"} if weighted else {}
    design = design_from_formula(formula, data, **options)
    split = engines.split(design, data["e"].to_numpy(), D)
    where = coordinates(design)
    (factor,) = where.factors
    sums = level_sums.LevelSums(design, where, split, 2)
    J = 6
    raw = sums.raw(np.array([5, EMPTY, 0, 6]), J)
    Z = np.concatenate([t.values for t in design.terms], axis=1) @ factor.T_inverse
    X = design.X @ where.fixed.R_inverse
    assert (raw.n[1], raw.J[1]) == (0, 0)
    assert not raw.A[..., 1].any()
    codes = design.terms[0].codes
    for lane, k in ((0, 5), (2, 0), (3, 6)):
        w = np.ones(len(data)) if design.weights is None else design.weights
        mine = (data["e"].to_numpy() == k) & (w > 0)
        root = np.sqrt(w[mine])[:, None]
        y = design.y - (0 if design.offset is None else design.offset)
        Xk, Zk, yk = root * X[mine], root * Z[mine], root[:, 0] * y[mine]
        b, *_ = np.linalg.lstsq(Xk, yk)
        e = yk - Xk @ b
        scale = np.sqrt(np.mean(e**2))
        dense = (codes[mine] == np.unique(codes[mine])[:, None]).astype(float)
        dense = np.concatenate([dense, np.zeros((J - len(dense), len(e)))])
        expected = {
            "A": np.einsum("jn,ni,nk->ikj", dense, Zk, Zk),
            "X": np.einsum("jn,ni,nk->ikj", dense, Zk, Xk),
            "y": np.einsum("jn,ni,n->ij", dense, Zk, e / scale),
            "XX": Xk.T @ Xk,
            "ZZ": Zk.T @ Zk / len(e),
            "b": b,
            "scale": scale,
            "n": len(e),
            "rr": len(e),
            "J": len(np.unique(codes[mine])),
            "log_weights": np.log(w[mine]).sum(),
            "Xy": np.zeros(len(b)),
        }
        for name, value in expected.items():
            size = np.abs(value).max(initial=1e-3)
            found = getattr(raw, name)[..., lane]
            np.testing.assert_allclose(
                found, value, rtol=1e-8, atol=1e-8 * size, err_msg=f"{name} of {k}"
            )
        flags = raw.constant, raw.exact, raw.dependent
        assert not any(flag[lane] for flag in flags)


def test_a_basis_that_is_well_conditioned():
    design = design_from_formula("y ~ x + (x | g)", table(False))
    where = coordinates(design)
    assert where.extra.shape[1] == 0  # the columns of Z are those of X
    X = design.X @ where.fixed.R_inverse
    np.testing.assert_allclose(X.T @ X, np.eye(2), atol=1e-9)
    Z = design.terms[0].values @ where.factors[0].T_inverse
    np.testing.assert_allclose(Z.T @ Z / len(Z), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(np.sqrt(len(X)) * X @ where.B, Z, atol=1e-9)


def test_triangles_of_two_by_two():
    x = np.random.default_rng(1).normal(size=(6, 2, 2))
    x[0], x[1, 0], x[2, 0] = 0.0, 0.0, [-1.0, 0.0]
    found = factors.triangular(x)
    assert not found[:, 0, 1].any()
    np.testing.assert_allclose(
        found @ np.swapaxes(found, 1, 2), x @ np.swapaxes(x, 1, 2), atol=1e-14
    )
