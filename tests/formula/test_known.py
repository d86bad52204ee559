"""Known covariances between levels: pedigrees, trees, what is refused."""

import numpy as np
import pandas as pd
import pytest
from doors import known as known_factors
from scipy import sparse

import jaxglmm as jg
from jaxglmm import DataError, ModelError

J = 12


def kinship():
    sire = [None, None, None, None, "a0", "a0", "a2", "a2", "a4", "a6", "a4", "a8"]
    dam = [None, None, None, None, "a1", "a1", "a3", "a3", "a6", "a5", "a7", "a9"]
    return jg.pedigree([f"a{i}" for i in range(J)], sire, dam)


def data(seed=1, K=None):
    K = kinship() if K is None else K
    rng = np.random.default_rng(seed)
    b = np.linalg.cholesky(K.to_numpy()) @ rng.normal(size=len(K))
    g = np.repeat(np.arange(len(K)), 4)
    x = rng.normal(size=len(g))
    y = 1 + 0.5 * x + b[g] + 0.5 * rng.normal(size=len(g))
    count = rng.poisson(np.exp(0.3 + 0.4 * b[g]))
    id = K.index.to_numpy()[g]
    return pd.DataFrame({"y": y, "x": x, "id": id, "count": count})


def test_a_pedigree():
    """Half sibs, inbreeding, founders that have no row: by hand."""
    A = jg.pedigree(["d", "c", "e"], ["b", "a", "c"], ["a", "b", "d"])
    assert list(A.index) == ["d", "c", "e", "b", "a"]
    assert A.loc["c", "d"] == 0.5
    assert A.loc["e", "e"] == 1.25  # of full sibs
    assert A.loc["a", "e"] == 0.5
    with pytest.raises(DataError, match="its own ancestors"):
        jg.pedigree(["a", "b"], ["b", "a"], [None, None])
    with pytest.raises(DataError, match="twice: 'a'"):
        jg.pedigree(["a", "a"], [None, None], [None, None])


def test_a_tree():
    C = jg.phylogeny("((a:1,b:1)x:2,'c d':3.5[note])r:0.5;")
    assert list(C.index) == ["a", "b", "c d"]
    expected = [[3.5, 2.5, 0.5], [2.5, 3.5, 0.5], [0.5, 0.5, 4.0]]
    np.testing.assert_allclose(C, expected)
    scaled = jg.phylogeny("((a:1,b:1):2,c:3);", correlation=True)
    np.testing.assert_allclose(np.diagonal(scaled), 1.0)
    for text, message in [
        ("(a:1,b:1)", "ends in ';'"),
        ("((a:1,b):2,c:3);", "no length"),
        ("((a:1,a:1):2,c:3);", "twice"),
        ("((a:1,b:1):2,c:3;", "bracket open"),
        ("(a:1,b:x);", "no length of a branch"),
    ]:
        with pytest.raises(DataError, match=message):
            jg.phylogeny(text)


def dense(d, K, reml):
    """The best criterion over two variances, by brute force."""
    from scipy.optimize import minimize

    X = np.column_stack([np.ones(len(d)), d["x"]])
    Z = (d["id"].to_numpy()[:, None] == K.index.to_numpy()[None]).astype(float)

    def criterion(log_sd):
        s, e = np.exp(2 * np.asarray(log_sd))
        V = s * Z @ K.to_numpy() @ Z.T + e * np.eye(len(d))
        W = np.linalg.inv(V)
        beta = np.linalg.solve(X.T @ W @ X, X.T @ W @ d["y"])
        r = d["y"].to_numpy() - X @ beta
        out = (
            np.linalg.slogdet(V)[1]
            + r @ W @ r
            + (len(d) - 2 * reml) * np.log(2 * np.pi)
        )
        return out + reml * np.linalg.slogdet(X.T @ W @ X)[1]

    return minimize(criterion, [0.0, -0.5], method="BFGS", options={"gtol": 1e-7})


@pytest.mark.parametrize("reml", [True, False])
def test_the_dense_likelihood(reml):
    d, K = data(), kinship()
    best = dense(d, K, reml)
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": K}, reml=reml)
    assert fit.criterion == pytest.approx(best.fun, abs=1e-6)
    found = fit.varcorr["id"]
    assert float(found.sd["(Intercept)"]) == pytest.approx(np.exp(best.x[0]), rel=1e-4)
    assert found.cov.shape == (1, 1)
    assert fit.ngroups == {"id": J}
    assert fit.ranef["id"].index.tolist() == K.index.tolist()


def test_unrelated_levels_are_the_plain_model():
    d = data()
    eye = pd.DataFrame(np.eye(J), kinship().index, kinship().index)
    plain = jg.lmm("y ~ x + (1 | id)", d)
    known = jg.lmm("y ~ x + (1 | id)", d, known={"id": eye})
    assert known.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(known.coefficients, plain.coefficients, rtol=1e-6)
    a, b = known.ranef["id"], plain.ranef["id"].loc[known.ranef["id"].index]
    np.testing.assert_allclose(a, b, atol=1e-6)
    a, b = known.confint(method="profile"), plain.confint(method="profile")
    assert [*a.index] == [*b.index]
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_other_ways_to_give_it():
    d, K = data(), kinship()
    base = jg.lmm("y ~ x + (1 | id)", d, known={"id": K}).criterion
    other = K.iloc[::-1, ::-1]
    for given in (
        other,
        (K.to_numpy(), K.index),
        (sparse.csr_matrix(K.to_numpy()), K.index),
        jg.KnownPrecision(pd.DataFrame(np.linalg.inv(K), K.index, K.index)),
        jg.KnownPrecision(sparse.csc_matrix(np.linalg.inv(K)), K.index),
    ):
        found = jg.lmm("y ~ x + (1 | id)", d, known={"id": given}).criterion
        assert found == pytest.approx(base, abs=1e-7)


def test_levels_without_rows_are_predicted():
    """And what they get is their expectation given those that have rows."""
    d, K = data(), kinship()
    some = d[d["id"] != "a11"]
    fit = jg.lmm("y ~ x + (1 | id)", some, known={"id": K})
    b = fit.ranef["id"]["(Intercept)"]
    seen = K.index[:-1]
    weights = np.linalg.solve(K.loc[seen, seen], K.loc[seen, "a11"])
    assert b["a11"] == pytest.approx(weights @ b[seen], abs=1e-8)
    row = pd.DataFrame({"x": [0.0], "id": ["a11"]})
    expected = fit.fixef["(Intercept)"] + b["a11"]
    assert float(np.asarray(fit.predict(row))[0]) == pytest.approx(expected)
    smaller = K.loc[seen, seen]
    again = jg.lmm("y ~ x + (1 | id)", some, known={"id": smaller})
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-8)


def test_a_singular_matrix():
    """Clones: two levels with the same effect."""
    K = kinship().to_numpy()
    P = np.eye(J)[[*range(J - 1), 0]]
    clones = pd.DataFrame(P @ K @ P.T, kinship().index, kinship().index)
    d = data()
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": clones})
    b = fit.ranef["id"]["(Intercept)"]
    assert b["a0"] == pytest.approx(b["a11"], abs=1e-8)


def test_what_is_refused():
    d, K = data(), kinship()
    wrong = K.copy()
    wrong.iloc[0, 1] = 0.3
    negative = K.copy()
    negative.iloc[0, 0] = -1.0
    formula = "y ~ x + (1 | id)"
    for known, error, message in [
        ({"id": K.iloc[:-1, :-1]}, DataError, "lacks 1 of the 12 levels"),
        ({"id": wrong}, DataError, "not symmetric: 0.3"),
        ({"id": negative}, ModelError, "smallest eigenvalue is"),
        ({"dog": K}, ModelError, "there are 'id'"),
        ({"id": K.to_numpy()[:, :3]}, ModelError, "square matrix"),
        ({"id": np.eye(5)}, ModelError, "no labels"),
        ({"id": (K.to_numpy(), ["a"] * J)}, DataError, f"stands there {J} times"),
        ([K], ModelError, "known= is a dict"),
    ]:
        with pytest.raises(error) as caught:
            jg.lmm(formula, d, known=known)
        assert message in str(caught.value)
    with pytest.raises(ModelError, match="which is for one"):
        jg.lmm("y ~ x + (x | id)", d, known={"id": K})
    once = d.drop_duplicates("id")
    eye = pd.DataFrame(np.eye(J), K.index, K.index)
    with pytest.raises(ModelError, match="levels are unrelated"):
        jg.lmm(formula, once, known={"id": eye})
    assert np.isfinite(jg.lmm(formula, once, known={"id": K}).criterion)


def test_files_and_simulation(tmp_path):
    d, K = data(), kinship()
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": K})
    fit.save(tmp_path / "fit.jg")
    again = jg.load(tmp_path / "fit.jg")
    assert again.criterion == fit.criterion
    assert again.ranef["id"].equals(fit.ranef["id"])
    row = pd.DataFrame({"x": [0.5], "id": ["a3"]})
    assert float(np.asarray(again.predict(row))[0]) == pytest.approx(
        float(np.asarray(fit.predict(row))[0])
    )
    drawn = np.asarray(fit.simulate(3, seed=1))
    assert drawn.shape in ((3, len(d)), (len(d), 3))
    assert "(Intercept)" in str(fit.summary())


def test_a_generalised_model():
    d = data()
    eye = pd.DataFrame(np.eye(J), kinship().index, kinship().index)
    plain = jg.glmm("count ~ x + (1 | id)", d, family="poisson")
    known = jg.glmm("count ~ x + (1 | id)", d, family="poisson", known={"id": eye})
    assert known.criterion == pytest.approx(plain.criterion, abs=1e-6)
    np.testing.assert_allclose(known.coefficients, plain.coefficients, rtol=1e-4)


@pytest.mark.parametrize("given", ["text", [["a", "b"], ["b", "a"]], np.eye(0), None])
def test_what_is_no_matrix(given):
    with pytest.raises((DataError, ModelError), match=r"known=\{'id': \.\.\.\}"):
        jg.lmm("y ~ x + (1 | id)", data(), known={"id": given})


def test_conditional_variances_are_those_of_the_levels():
    K = kinship()
    d = data(K=K)
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": K})
    s2 = fit.varcorr["id"].sd.iloc[0] ** 2
    Z = (d["id"].to_numpy()[:, None] == K.index.to_numpy()[None]).astype(float)
    A = K.to_numpy()
    V = s2 * Z @ A @ Z.T + fit.sigma**2 * np.eye(len(d))
    own = np.diagonal(s2 * A - s2 * A @ Z.T @ np.linalg.solve(V, Z @ A * s2))
    np.testing.assert_allclose(fit.ranef_cov["id"][:, 0, 0], own, rtol=1e-8)
    errors = fit.tidy("ran_vals").std_error
    np.testing.assert_allclose(errors, np.sqrt(own), rtol=1e-8)


def deep(generations=5, each=9):
    """Names and parents of a population that is inbred after some generations."""
    rng = np.random.default_rng(3)
    names = [f"b{i}" for i in range(generations * each)]
    parents = [(None, None)] * each
    for g in range(1, generations):
        last = names[(g - 1) * each : g * each]
        sires = rng.choice(last[:3], each)
        parents += list(zip(sires, rng.choice(last, each), strict=True))
    parents[-1] = (parents[-1][0], None)
    return names, [s for s, _ in parents], [d for _, d in parents]


def test_a_large_pedigree_by_its_sparse_inverse():
    """Some animals' relationships, and the inverse, are those of the whole."""
    names, sire, dam = deep()
    A = jg.pedigree(names, sire, dam)
    assert np.diagonal(A).max() > 1.2
    some = [names[40], names[3], names[22]]
    kept = jg.pedigree(names, sire, dam, keep=some)
    np.testing.assert_allclose(kept, A.loc[some, some], rtol=0, atol=1e-13)
    inverse = jg.pedigree(names, sire, dam, inverse=True)
    assert sparse.issparse(inverse.matrix)
    assert inverse.matrix.nnz < 6 * len(names)
    product = inverse.matrix @ A.to_numpy()
    np.testing.assert_allclose(product, np.eye(len(names)), rtol=0, atol=1e-12)
    with pytest.raises(DataError, match="the pedigree lacks: 'z'"):
        jg.pedigree(names, sire, dam, keep=["z"])
    with pytest.raises(DataError, match="leave keep= out"):
        jg.pedigree(names, sire, dam, keep=some, inverse=True)


def test_of_many_levels_those_with_rows_take_part(monkeypatch):
    """A precision and a covariance of more levels than are made dense."""
    names, sire, dam = deep()
    A = jg.pedigree(names, sire, dam)
    own = names[-J:]
    d = data(K=A.loc[own, own])
    d["w"] = np.linspace(0.5, 2.0, len(d))
    whole = jg.lmm("y ~ x + (1 | id)", d, known={"id": A}, weights="w")
    assert whole.diagnostics["system"] == "ChainSystem"  # columns turned
    monkeypatch.setattr(known_factors, "MOST", 2 * J)
    inverse = jg.pedigree(names, sire, dam, inverse=True)
    for known in (inverse, (sparse.csr_array(A), names), A):
        fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": known}, weights="w")
        assert fit.criterion == pytest.approx(whole.criterion, abs=1e-8)
        assert fit.se == pytest.approx(whole.se, rel=1e-5)
        assert fit.denominator_df == pytest.approx(whole.denominator_df, rel=1e-4)
        spread = whole.ranef_cov["id"][[names.index(x) for x in own]]
        assert fit.ranef_cov["id"].shape == (J, 1, 1)
        np.testing.assert_allclose(fit.ranef_cov["id"], spread, rtol=1e-4)
        assert list(fit.ranef["id"].index) == own
        same = whole.ranef["id"].loc[own]
        np.testing.assert_allclose(fit.ranef["id"], same, rtol=0, atol=1e-6)
    monkeypatch.setattr(known_factors, "MOST", J - 1)
    with pytest.raises(ModelError, match="45 levels, of which 12 have rows"):
        jg.lmm("y ~ x + (1 | id)", d, known={"id": inverse})


def test_an_autoregression_of_neighbours():
    """A proper one is a precision; an intrinsic one has its generalised inverse."""
    K = kinship()
    d, names = data(K=K), list(K.index)
    W = sparse.diags_array([np.ones(J - 1)] * 2, offsets=[-1, 1]).tocsr()
    D = sparse.diags_array(W.sum(axis=1))
    proper = jg.KnownPrecision(D - 0.9 * W, names)
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": proper})
    cov = pd.DataFrame(np.linalg.inv((D - 0.9 * W).toarray()), names, names)
    same = jg.lmm("y ~ x + (1 | id)", d, known={"id": cov})
    assert fit.criterion == pytest.approx(same.criterion, abs=1e-8)
    with pytest.raises(ModelError, match="ICAR"):
        jg.lmm("y ~ x + (1 | id)", d, known={"id": jg.KnownPrecision(D - W, names)})
    inverse = np.linalg.pinv((D - W).toarray())
    fit = jg.lmm("y ~ x + (1 | id)", d, known={"id": (inverse, names)})
    assert abs(fit.ranef["id"].to_numpy().sum()) < 1e-6


def test_a_matrix_without_labels():
    """Texts in another order than the data's are refused, numbers are not."""
    names = [f"a{i}" for i in range(8, 8 + J)]
    d = data().assign(id=np.repeat(names, 4), number=np.repeat(np.arange(J), 4))
    K = kinship().to_numpy()
    with pytest.raises(ModelError, match="or of the data"):
        jg.lmm("y ~ x + (1 | id)", d, known={"id": K})
    fit = jg.lmm("y ~ x + (1 | number)", d, known={"number": K})
    named = jg.lmm("y ~ x + (1 | id)", d, known={"id": (K, names)})
    assert fit.criterion == pytest.approx(named.criterion, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_all_of_the_variance_may_be_of_the_known_effects(seed):
    """One level a row and no noise: a maximum at the end, not a likelihood without."""
    rng = np.random.default_rng(100)
    n = 60
    A = rng.normal(size=(n, 200))
    K = A @ A.T / 200 + 0.01 * np.eye(n)
    names = [f"i{k}" for k in range(n)]
    y = 1 + np.linalg.cholesky(K) @ np.random.default_rng(seed).normal(size=n)

    def restricted(share):
        V = share * K + (1 - share) * np.eye(n)
        X = np.ones((n, 1))
        inverse = np.linalg.inv(V)
        XVX = X.T @ inverse @ X
        r = y - X @ np.linalg.solve(XVX, X.T @ inverse @ y)
        scale = r @ inverse @ r / (n - 1)
        log_det = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XVX)[1]
        return -0.5 * ((n - 1) * (np.log(2 * np.pi * scale) + 1) + log_det)

    best = max(restricted(share) for share in np.linspace(0, 1, 401))
    data, known = {"y": y, "id": names}, {"id": pd.DataFrame(K, names, names)}
    fit = jg.lmm("y ~ 1 + (1 | id)", data, known=known)
    assert fit.converged
    assert fit.log_likelihood == pytest.approx(best, abs=2e-3)
    assert fit.log_likelihood > best - 1e-4
