"""Many responses of levels with a known covariance: rotated, each as by ``lmm``."""

import numpy as np
import pandas as pd
import pytest
from doors import (
    CompleteResponses,
    LastDecomposition,
    LinearLanes,
    Responses,
    Settings,
    _status,
    assemble,
    choose,
    decomposed,
    rotated,
)

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError

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


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.filterwarnings("ignore:30 fits, 20 converged")
def test_the_same_as_lanes_of_levels(rows, reml):
    """A row a level of the general lanes: the same criterion, another program."""
    d, Y = data(rows, D=30)
    method = "reml" if reml else "ml"
    options = {"known": {"id": kinship()}, "method": method, "tol": 1e-11}
    fits = jg.fit_many("y ~ x + (1 | id)", d, responses=Y, **options)
    turned, Q = rotated.rotated(fits.source.design)
    given = assemble.moments(turned), Responses(Q.T @ Y, len(Y)), None, len(Y)
    settings = Settings(reml, 1e-11)
    lanes = LinearLanes(turned, CompleteResponses(*given), settings, choose("cpu", 9e9))
    table = lanes.fit(np.arange(30), 200)
    where = lanes.columns.slices()
    log_likelihood = table[:, where["log_likelihood"]].ravel()
    # where sigma goes to zero the general lanes lose digits, and do not get to the end
    assert (fits.log_likelihood > log_likelihood - 1e-6).all()
    same = fits.converged & (fits.sd[:, 0] > 1e-3) & (fits.sigma > 1e-3)
    assert same.sum() > 8
    np.testing.assert_allclose(
        fits.log_likelihood[same], log_likelihood[same], rtol=0, atol=1e-8
    )
    for name in ("coefficients", "se", "df"):
        found, values = getattr(fits, name)[same], table[same][:, where[name]]
        np.testing.assert_allclose(found, values, rtol=1e-4)


def test_both_ends():
    """Responses without effects, without residuals, constant ones, perfect fits."""
    d, Y = data(1, D=6)
    rng = np.random.default_rng(3)
    K = kinship().iloc[: J - 1, : J - 1]
    Q = np.linalg.eigh(K)[1]
    small, large = Q[:, :13], Q[:, -13:]
    Y[:, 0] = 5 * small @ rng.normal(size=13) + 0.1 * rng.normal(size=J - 1)
    Y[:, 1] = 50 * large @ rng.normal(size=13) + 0.1 * Y[:, 2]
    Y[:, 3] = 7.0
    Y[:, 4] = 2 * d["x"] - 1
    Y[:, 5] *= 1e6
    with pytest.warns(jg.ConvergenceWarning):
        fits = jg.fit_many("y ~ x + (1 | id)", d, responses=Y, known={"id": K})
    assert fits.sd[0, 0] == 0
    assert fits.singular[0]
    X = np.column_stack([np.ones(J - 1), d["x"]])
    rest = np.linalg.lstsq(X, Y[:, 0])[1][0]
    assert fits.sigma[0] == pytest.approx(np.sqrt(rest / (J - 3)), rel=1e-6)
    assert fits.status[[1, 3, 4]].tolist() == [
        _status.NO_RESIDUAL,
        _status.CONSTANT,
        _status.EXACT,
    ]
    alone = jg.lmm("y ~ x + (1 | id)", d.assign(y=Y[:, 5]), known={"id": K})
    assert fits.log_likelihood[5] == pytest.approx(alone.log_likelihood, abs=1e-6)


def test_the_last_decomposition():
    held, R = LastDecomposition(), np.random.default_rng(2).normal(size=(6, 9))
    first = held.of(R)
    assert held.of(R.copy()) is first
    other = held.of(R + 1)
    assert other is not first
    np.testing.assert_array_equal(other[1], decomposed(R + 1)[1])
