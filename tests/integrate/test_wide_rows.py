"""Structures over many times, known covariances: against the same sums in full."""

import numpy as np
import pandas as pd
import pytest
from doors import (
    AlikeRows,
    Autoregressive,
    CellRows,
    ExponentialKernel,
    OneLevelRows,
    assemble,
    build_rows,
    design_from_formula,
    on_host,
    with_known,
)

import jaxglmm as jg

J, T, K = 8, 14, 15


def times(seed=2):
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(J), T), np.tile(np.arange(T), J)
    keep = rng.random(J * T) < 0.8
    g, t = g[keep], t[keep]
    again = rng.integers(0, len(g), 20)  # cells with two rows
    g, t = np.append(g, g[again]), np.append(t, t[again])
    x = rng.normal(size=len(g))
    b = 0.7 * np.cumsum(rng.normal(size=(J, T)), axis=1) / np.sqrt(np.arange(1, T + 1))
    eta = 0.4 + 0.3 * x + b[g, t]
    count = rng.poisson(np.exp(eta))
    y = eta + 0.5 * rng.normal(size=len(g))
    place = np.array([0, 1, 1.5, 3, 4, 6, 6.2, 8, 9, 11, 12, 12.5, 14, 17.0])[t]
    return pd.DataFrame(
        {"y": y, "count": count, "x": x, "g": g, "t": t, "place": place}
    ).astype({"t": "category"})


@pytest.mark.parametrize("term", ["ar1(0 + t | g)", "ou(0 + place | g)"])
@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_chains_are_their_blocks_in_full(term, kind, monkeypatch):
    """Value, estimates, standard errors, modes and their variances."""
    d = times()

    def fitted():
        if kind == "linear":
            return jg.lmm(f"y ~ x + {term}", d)
        return jg.glmm(f"count ~ x + {term}", d, family="poisson")

    chain = fitted()
    for own in (Autoregressive, ExponentialKernel):
        monkeypatch.setattr(own, "is_chain", False)
    full = fitted()
    assert chain.criterion == pytest.approx(full.criterion, abs=1e-8)
    np.testing.assert_allclose(
        list(chain.fixef.values()), list(full.fixef.values()), rtol=1e-6
    )
    a, b = chain.tidy(), full.tidy()
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-6)
    np.testing.assert_allclose(chain.ranef["g"], full.ranef["g"], atol=1e-6)


def related(seed=5):
    """Levels with a covariance, another factor, a second one by the same levels."""
    rng = np.random.default_rng(seed)
    id, site = np.repeat(np.arange(K), 6), rng.integers(0, 16, 6 * K)
    x = rng.normal(size=len(id))
    A = 0.5 * np.eye(K) + 0.5 * np.exp(-np.abs(np.subtract.outer(range(K), range(K))))
    b = np.linalg.cholesky(A) @ rng.normal(size=K)
    slope = 0.3 + 0.5 * rng.normal(size=16)[site]
    eta = 0.5 + slope * x + 0.7 * b[id] + 0.5 * rng.normal(size=16)[site]
    d = pd.DataFrame({"count": rng.poisson(np.exp(eta)), "x": x, "site": site})
    d["y"] = eta + 0.4 * rng.normal(size=len(d))
    d["id"] = [f"i{k:02d}" for k in id]
    d["other"] = d["id"].to_numpy()[rng.permutation(len(d))]
    labels = sorted(set(d["id"]))
    return d, pd.DataFrame(A, labels, labels)


UNRELATED = {
    "alone": ("(1 | id)", ["id"], OneLevelRows),
    "beside a factor": ("(1 | id) + (1 | site)", ["id"], AlikeRows),
    "beside slopes": ("(1 | id) + (x | site)", ["id"], AlikeRows),
    "two": ("(1 | id) + (1 | other)", ["id", "other"], OneLevelRows),
}


@pytest.mark.parametrize("case", UNRELATED)
@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_unrelated_levels_are_a_plain_factor(case, kind):
    random, names, _ = UNRELATED[case]
    d, A = related()
    eye = pd.DataFrame(np.eye(K), A.index, A.index)

    def fitted(**known):
        if kind == "linear":
            return jg.lmm(f"y ~ x + {random}", d, **known)
        return jg.glmm(f"count ~ x + {random}", d, family="poisson", **known)

    plain, known = fitted(), fitted(known=dict.fromkeys(names, eye))
    assert known.criterion == pytest.approx(plain.criterion, abs=1e-7)
    a, b = known.tidy(), plain.tidy()
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-4, atol=1e-6)
    for name, table in plain.ranef.items():
        np.testing.assert_allclose(known.ranef[name].loc[table.index], table, atol=1e-4)


def test_the_approximation_in_full():
    """Laplace's approximation of related levels, by a dense Newton search."""
    d, A = related()
    fit = jg.glmm("count ~ x + (1 | id)", d, family="poisson", known={"id": A})
    sd = float(fit.varcorr["id"].sd["(Intercept)"])
    Z = (d["id"].to_numpy()[:, None] == A.index.to_numpy()).astype(float)
    root = sd * np.linalg.cholesky(A)
    X = np.column_stack([np.ones(len(d)), d["x"]])
    y, u = d["count"].to_numpy(), np.zeros(K)
    fixed = X @ list(fit.fixef.values())
    for _ in range(30):
        mean = np.exp(fixed + Z @ root @ u)
        M = root.T @ Z.T @ (mean[:, None] * (Z @ root)) + np.eye(K)
        u = u - np.linalg.solve(M, u - root.T @ Z.T @ (y - mean))
    log_y = np.log(np.arange(1, y.max() + 1)).cumsum()
    log_y = np.r_[0.0, log_y][y]
    value = np.sum(y * np.log(mean) - mean - log_y) - u @ u / 2
    value -= np.linalg.slogdet(M)[1] / 2
    assert -fit.criterion / 2 == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(fit.ranef["id"].to_numpy()[:, 0], root @ u, atol=1e-7)


def test_which_rows_are_made():
    d, A = related()
    for random, names, kind in UNRELATED.values():
        design = design_from_formula(f"count ~ x + {random}", d)
        design = with_known(design, dict.fromkeys(names, A))
        assert type(build_rows(design.X, assemble.columns(design)).rows) is kind
    design = design_from_formula("count ~ x + ar1(0 + t | g)", times())
    assert type(build_rows(design.X, assemble.columns(design)).rows) is CellRows


def test_columns_are_scaled_and_not_mixed():
    design = design_from_formula("count ~ x + ar1(0 + t | g)", times())
    rows = build_rows(design.X, assemble.columns(design)).rows
    size = np.linspace(1.0, 2.0, T)
    b = (np.random.default_rng(1).normal(size=(T, 1, rows.sizes[0])),)
    scaled = (b[0] * size[:, None, None],)
    with on_host():
        got = rows.turned(0, np.diag(size)).spread(b)
        np.testing.assert_allclose(got, rows.spread(scaled), rtol=1e-14)
    with pytest.raises(NotImplementedError, match="not mixed"):
        rows.turned(0, np.ones((T, T)))
