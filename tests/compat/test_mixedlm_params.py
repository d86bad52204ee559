"""Packing and unpacking, in every parameterisation, there and back."""

import numpy as np
import pytest
from doors import root

import jaxglmm as jg
from jaxglmm.compat.statsmodels import MixedLMParams

COVARIANCES = {
    "one": np.array([[2.5]]),
    "two": np.array([[4.0, -1.0], [-1.0, 0.5]]),
    "three": np.array([[4.0, 1.0, 0.2], [1.0, 2.0, -0.3], [0.2, -0.3, 1.5]]),
    "singular": np.array([[4.0, 2.0], [2.0, 1.0]]),
    "zero": np.zeros((2, 2)),
    "none": np.zeros((0, 0)),
}
REGULAR = ["one", "two", "three", "none"]


def made(name, vcomp=(0.3, 1.7)):
    return MixedLMParams.from_components(
        np.array([1.0, -2.0]), COVARIANCES[name], vcomp=np.array(vcomp)
    )


def same(a, b, fe=True):
    if fe:
        np.testing.assert_allclose(a.fe_params, b.fe_params)
    np.testing.assert_allclose(a.cov_re, b.cov_re, atol=1e-12)
    np.testing.assert_allclose(a.vcomp, b.vcomp, atol=1e-14)


@pytest.mark.parametrize("name", COVARIANCES)
@pytest.mark.parametrize("use_sqrt", [True, False])
@pytest.mark.parametrize("has_fe", [True, False])
def test_packed_there_and_back(name, use_sqrt, has_fe):
    p = made(name)
    k = len(p.cov_re)
    packed = p.get_packed(use_sqrt, has_fe)
    assert len(packed) == 2 * has_fe + k * (k + 1) // 2 + 2
    back = MixedLMParams.from_packed(packed, 2, k, use_sqrt, has_fe)
    same(p, back, fe=has_fe)
    if not has_fe:
        assert not back.fe_params.any()


def test_the_triangle_is_row_by_row():
    p = made("three", vcomp=())
    S = COVARIANCES["three"]
    expected = [S[0, 0], S[1, 0], S[1, 1], S[2, 0], S[2, 1], S[2, 2]]
    assert p.get_packed(False).tolist() == expected


@pytest.mark.parametrize("name", COVARIANCES)
def test_roots_of_singular_covariances_keep_correlations(name):
    L = root(COVARIANCES[name])
    np.testing.assert_allclose(L @ L.T, COVARIANCES[name], atol=1e-12)
    assert not np.triu(L, 1).any()
    assert (np.diagonal(L) >= 0).all()


def test_what_is_no_covariance_is_refused():
    with pytest.raises(jg.ModelError, match="smallest eigenvalue is -1"):
        root(np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(jg.ModelError, match="no roots"):
        made("one", vcomp=(-1.0,)).get_packed(True)
    with pytest.raises(jg.ModelError, match="at least 3 numbers"):
        MixedLMParams.from_packed([1.0, 2.0], 0, 2, True, False)


@pytest.mark.parametrize("name", COVARIANCES)
def test_theta_there_and_back(name):
    p = made(name)
    back = MixedLMParams.from_theta(p.theta, p.k_re, p.fe_params)
    same(p, back)


def test_theta_is_lme4s():
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", jg.datasets.load("sleepstudy"))
    S = fit.varcorr["Subject"].cov.to_numpy() / fit.sigma**2
    p = MixedLMParams.from_components(cov_re=S)
    np.testing.assert_allclose(p.theta, fit.theta, rtol=1e-10)


@pytest.mark.parametrize("name", REGULAR)
def test_log_cholesky_there_and_back(name):
    p = made(name)
    back = MixedLMParams.from_log_cholesky(p.log_cholesky, p.k_re, p.fe_params)
    same(p, back)


def test_log_cholesky_has_no_zero():
    with pytest.raises(jg.ModelError, match="infinity"):
        made("singular").log_cholesky  # noqa: B018


@pytest.mark.parametrize("name", COVARIANCES)
def test_sd_and_correlation_there_and_back(name):
    p = made(name)
    sd, corr, vc = p.sd_correlation
    assert (np.abs(corr) <= 1 + 1e-12).all()
    same(p, MixedLMParams.from_sd_correlation(sd, corr, vc, p.fe_params))


def test_components_from_a_root_and_copies():
    L = np.array([[2.0, 0.0], [1.0, 0.5]])
    p = MixedLMParams.from_components(cov_re_sqrt=L)
    np.testing.assert_allclose(p.cov_re, L @ L.T)
    q = p.copy()
    q.cov_re[0, 0] = -1
    assert p.cov_re[0, 0] == 4.0
    assert "cov_re=[[4.0" in repr(p)
    assert MixedLMParams.from_components(np.ones(2)).k_tot == 2
