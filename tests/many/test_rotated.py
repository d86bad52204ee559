"""Many responses of levels with a known covariance: rotated, each as by ``lmm``."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError
from jaxglmm.many.rotated import decomposed

J = 40
LABELS = [f"p{k:02d}" for k in range(J)]


def kinship():
    W = np.random.default_rng(4).normal(size=(J, 2 * J))
    K = 0.5 * W @ W.T / (2 * J) + 0.5 * np.eye(J)
    K[:, -1], K[-1] = K[:, 0], K[0]  # a clone: singular
    K[-1, -1] = K[0, 0]
    return pd.DataFrame(K, LABELS, LABELS)


def data(rows, D=4, seed=6):
    """rows: of each level; a level without any where they are one."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(J - (rows == 1)), rows)
    d = pd.DataFrame({"id": np.array(LABELS)[code], "x": rng.normal(size=len(code))})
    values, vectors = np.linalg.eigh(kinship())
    b = vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * rng.normal(size=(J, D)))
    Y = 1 + 0.4 * d["x"].to_numpy()[:, None] + b[code]
    return d, Y + 0.6 * rng.normal(size=Y.shape)


@pytest.mark.parametrize(
    ("rows", "method", "near"), [(1, "reml", 1e-2), (3, "reml", 1e-4), (3, "ml", 1e-4)]
)
def test_each_as_by_lmm(rows, method, near):
    """near: less where a row a level makes the likelihood flat."""
    d, Y = data(rows)
    known = {"id": kinship()}
    fits = jg.fit_many("y ~ x + (1 | id)", d, responses=Y, known=known, method=method)
    assert fits.converged.all()
    for i in range(2 if rows > 1 else 1):
        one = jg.lmm(
            "y ~ x + (1 | id)", d.assign(y=Y[:, i]), known=known, reml=method == "reml"
        )
        assert fits.log_likelihood[i] == pytest.approx(one.log_likelihood, abs=near**2)
        np.testing.assert_allclose(fits.coefficients[i], one.coefficients, rtol=near)
        np.testing.assert_allclose(fits.se[i], one.se, rtol=near)
        np.testing.assert_allclose(fits.df[i], one.df_satterthwaite, rtol=10 * near)
        assert fits.sigma[i] == pytest.approx(one.sigma, rel=near)
        sd = float(one.varcorr["id"].sd["(Intercept)"])
        assert fits.sd[i, 0] == pytest.approx(sd, rel=near, abs=1e-6)
        again = fits[i]
        assert again.criterion == pytest.approx(one.criterion, abs=1e-8)
        assert [*again.ranef["id"].index] == LABELS
    assert fits.frame().columns[2] == "sd_(Intercept)|id"


def test_missing_values_and_offsets():
    """A response with a missing value is fitted by its own rows."""
    d, Y = data(3)
    known = {"id": kinship()}
    Y[4, 1] = np.nan
    Y[0, 2] = np.inf
    offset = np.linspace(0, 1, len(d))
    with pytest.warns(jg.ConvergenceWarning):
        fits = jg.fit_many(
            "y ~ x + (1 | id)", d, responses=Y, known=known, offset=offset
        )
    kept = d.drop(index=4).assign(y=np.delete(Y[:, 1], 4), o=np.delete(offset, 4))
    one = jg.lmm("y ~ x + (1 | id)", kept, known=known, offset="o")
    assert fits.log_likelihood[1] == pytest.approx(one.log_likelihood, abs=1e-7)
    full = jg.lmm(
        "y ~ x + (1 | id)", d.assign(y=Y[:, 0], o=offset), known=known, offset="o"
    )
    assert fits.log_likelihood[0] == pytest.approx(full.log_likelihood, abs=1e-7)
    assert not fits.converged[2]


def test_beside_another_factor():
    """Without a rotation, one after the other."""
    d, Y = data(3)
    d["site"] = np.arange(len(d)) % 5
    Y += np.random.default_rng(1).normal(size=5)[d["site"]][:, None]
    known, formula = {"id": kinship()}, "y ~ x + (1 | id) + (1 | site)"
    fits = jg.fit_many(formula, d, responses=Y[:, :2], known=known)
    one = jg.lmm(formula, d.assign(y=Y[:, 0]), known=known)
    assert fits.log_likelihood[0] == pytest.approx(one.log_likelihood, abs=1e-7)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7), (5, 1)])
def test_the_decomposition(shape):
    R = np.random.default_rng(2).normal(size=shape)
    R[:, -1] = R[:, 0]
    Q, sizes = decomposed(R)
    np.testing.assert_allclose(Q @ Q.T, np.eye(len(R)), atol=1e-12)
    np.testing.assert_allclose((Q * sizes**2) @ Q.T, R @ R.T, atol=1e-12)


def test_what_is_refused():
    d, Y = data(3)
    d = d.assign(y=Y[:, 0], set=np.arange(len(d)) % 2)
    with pytest.raises(NotApplicableError, match="goes with responses=Y"):
        jg.fit_many("y ~ x + (1 | id)", d, by="set", known={"id": kinship()})
    smaller = kinship().iloc[1:, 1:]
    with pytest.raises(DataError, match="lacks 1 of the 40 levels"):
        jg.fit_many("y ~ x + (1 | id)", d, responses=Y, known={"id": smaller})
