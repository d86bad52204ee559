"""Ways to fit, what is held, what is asked of the results; dense twins and limits."""

import io
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxglmm as jg
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels import MixedLM, MixedLMParams, MixedLMResults, VCSpec


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def pigs():
    return jg.datasets.load("dietox")


@pytest.fixture(scope="module")
def slope_model(sleep):
    return smf.mixedlm("Reaction ~ Days", sleep, groups="Subject", re_formula="~Days")


@pytest.fixture(scope="module")
def slopes(slope_model):
    return slope_model.fit()


@pytest.fixture(scope="module")
def nested(pigs):
    return smf.mixedlm(
        "Weight ~ Time",
        pigs,
        groups="Litter",
        re_formula="1",
        vc_formula={"pig": "0 + C(Pig)"},
    )


@pytest.fixture(scope="module")
def nested_fit(nested):
    return nested.fit(reml=False)


def dense(results):
    """V in full, of the fitted model."""
    model = results.model
    n = model.nobs
    V = np.zeros((n, n))
    same = model._group[:, None] == model._group[None]
    if model.k_re:
        Z = model.exog_re
        V += same * (Z @ results.cov_re_array @ Z.T)
    for k, variance in enumerate(results.vcomp):
        for rows, mat in zip(model._rows, model.exog_vc.mats[k], strict=True):
            mat = np.asarray(mat.toarray() if hasattr(mat, "toarray") else mat)
            V[np.ix_(rows, rows)] += variance * mat @ mat.T
    w = np.ones(n) if model.weights is None else model.weights
    return V + np.diag(results.scale / w)


def dense_loglike(results, reml):
    model = results.model
    V, X = dense(results), model.exog
    r = model.endog - X @ results.params_object.fe_params
    value = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)
    n = len(r)
    if reml:
        value += np.linalg.slogdet(X.T @ np.linalg.solve(V, X))[1]
        n -= X.shape[1]
    return -(value + n * np.log(2 * np.pi)) / 2


# Against a dense twin -----------------------------------------------------------------


def test_likelihood_and_effects_are_the_dense_ones(slopes, nested_fit):
    for f in (slopes, nested_fit):
        assert abs(f.llf - dense_loglike(f, f.reml)) < 1e-7
        V, X = dense(f), f.model.exog
        rest = f.model.endog - X @ f.params_object.fe_params
        smooth = (V - f.scale * np.eye(len(V))) @ np.linalg.solve(V, rest)
        np.testing.assert_allclose(
            f.fitted_array, X @ f.params_object.fe_params + smooth, rtol=1e-8
        )


def test_conditional_covariances_are_the_dense_ones(nested_fit):
    f = nested_fit
    i = 3
    rows = f.model._rows[i]
    Z = np.concatenate([np.ones((len(rows), 1)), f.model.exog_vc.mats[0][i]], axis=1)
    prior = np.diag([f.cov_re_array[0, 0], *[f.vcomp[0]] * (Z.shape[1] - 1)])
    V = Z @ prior @ Z.T + f.scale * np.eye(len(rows))
    cov = prior - prior @ Z.T @ np.linalg.solve(V, Z @ prior)
    found = f.random_effects_cov[f.model.group_labels[i]]
    np.testing.assert_allclose(found, cov, atol=1e-8)
    assert found.index[0] == "Litter"
    assert found.index[1].startswith("pig[C(Pig)[")
    more = f.random_effects_covariance(with_beta=True)[f.model.group_labels[i]]
    K = prior @ Z.T @ np.linalg.solve(V, f.model.exog[rows])
    fe = f.covariance[:2, :2]
    np.testing.assert_allclose(more, cov + K @ fe @ K.T, atol=1e-8)


def test_errors_of_variances_are_those_of_the_information(slopes):
    """bse_re by finite differences of the dense restricted likelihood."""
    f = slopes
    model = f.model
    at = np.concatenate([f.natural_variances, [f.scale]])

    def loglike(v):
        cov = np.array([[v[0], v[1]], [v[1], v[2]]])
        p = MixedLMParams.from_components(
            f.params_object.fe_params, cov / v[3], vcomp=np.zeros(0)
        )
        log_det, K, _ = model._evaluator.ground(p.cov_re, p.vcomp)
        beta = model._evaluator.gls(K)
        return model._evaluator.value(
            log_det, K, model._evaluator.direction(beta), True, v[3]
        )

    h = 1e-3 * np.abs(at) + 1e-3
    H = np.zeros((4, 4))
    for a in range(4):
        for b in range(4):
            ea, eb = np.eye(4)[a] * h[a], np.eye(4)[b] * h[b]
            H[a, b] = (
                loglike(at + ea + eb)
                - loglike(at + ea - eb)
                - loglike(at - ea + eb)
                + loglike(at - ea - eb)
            ) / (4 * h[a] * h[b])
    expected = np.sqrt(np.diagonal(np.linalg.inv(-H)))
    np.testing.assert_allclose(f.bse_re, expected[:3], rtol=1e-3)


def test_errors_of_variances_follow_the_unit(sleep):
    """506 for a variance of 1378 in ms; in seconds a millionth of both."""
    ms = smf.mixedlm("Reaction ~ Days", sleep, groups="Subject").fit()
    assert ms.bse_re["Subject Var"] == pytest.approx(505.77, abs=0.1)
    s = smf.mixedlm("I(Reaction / 1000) ~ Days", sleep, groups="Subject")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # small numbers are no boundary
        s = s.fit()
    np.testing.assert_allclose(s.bse_re, ms.bse_re / 1e6, rtol=1e-6)
    np.testing.assert_allclose(s.params[2:], ms.params[2:], rtol=1e-6)


def test_cluster_robust_is_the_sandwich(slope_model, slopes):
    f = slope_model.fit(cov_type="cluster")
    V, X = dense(f), f.model.exog
    W = np.linalg.inv(V)
    A = np.linalg.inv(X.T @ W @ X)
    r = f.model.endog - X @ f.params_object.fe_params
    meat = sum(
        np.outer(s, s) for s in (X[rows].T @ (W @ r)[rows] for rows in f.model._rows)
    )
    np.testing.assert_allclose(f.cov_params().iloc[:2, :2], A @ meat @ A, rtol=1e-6)
    assert not np.allclose(f.bse_fe, slopes.bse_fe, rtol=1e-3)
    with pytest.warns(FutureWarning, match="Argument cov_type not used"):
        assert slope_model.fit(cov_type="HC3").cov_type == "nonrobust"


# Ways to fit --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bfgs", ["lbfgs", "cg"], "powell", "nm"])
def test_scipys_optimisers_lead_to_the_same(slope_model, slopes, method):
    f = slope_model.fit(method=method, full_output=True)
    assert abs(f.llf - slopes.llf) < 1e-8
    assert f.converged
    assert f.mle_retvals["scipy"].nfev > 1
    assert f.hist[0]["allvecs"]


def test_start_params_of_both_kinds(slope_model, slopes):
    packed = slopes.params_object.get_packed(True, has_fe=True)
    for start in (packed, packed[2:], slopes.params_object):
        f = slope_model.fit(start_params=start)
        assert abs(f.llf - slopes.llf) < 1e-8
        assert f.mle_retvals["iterations"] <= 3


def test_do_cg_false_is_the_start(slope_model):
    start = MixedLMParams.from_components(
        np.zeros(2), np.array([[1.0, 0.0], [0.0, 0.1]])
    )
    f = slope_model.fit(start_params=start, do_cg=False)
    assert f.converged is False
    np.testing.assert_allclose(f.cov_re_unscaled, start.cov_re)
    assert f.llf == pytest.approx(slope_model.loglike(start))
    assert "not optimised" in f.mle_retvals["message"]
    assert "No" in str(f.summary()).split("Converged:")[1].splitlines()[0]
    default = slope_model.fit(do_cg=False)  # UnboundLocalError in statsmodels
    assert np.isfinite(default.llf)


@pytest.mark.parametrize("reml", [True, False])
def test_em_steps_are_monotone(slope_model, nested, reml):
    for model in (slope_model, nested):
        f = model.fit(reml=reml, em_steps=15, do_cg=False, full_output=True)
        values = f.hist[0]["allvecs"][0]["em"]
        assert len(values) == 16
        assert (np.diff(values) > -1e-8).all()
        assert values[-1] == pytest.approx(f.llf)
        done = model.fit(reml=reml, niter_sa=5)
        assert abs(done.llf - model.fit(reml=reml).llf) < 1e-7
        assert done.llf >= values[-1]


def test_em_holds_at_the_optimum(slope_model, slopes):
    f = slope_model.fit(start_params=slopes.params_object, em_steps=3, do_cg=False)
    np.testing.assert_allclose(f.cov_re, slopes.cov_re, rtol=1e-5)


def test_elements_instead_of_roots(sleep, slopes):
    model = smf.mixedlm(
        "Reaction ~ Days", sleep, groups="Subject", re_formula="~Days", use_sqrt=False
    )
    start = MixedLMParams.from_components(np.zeros(2), np.diag([1.0, 0.1]))
    f = model.fit(start_params=start)
    assert abs(f.llf - slopes.llf) < 1e-8
    mask = MixedLMParams.from_components(np.ones(2), np.array([[1.0, 1], [1, 0]]))
    start.cov_re = np.array([[0.9, 0.01], [0.01, 0.05]])
    f = model.fit(start_params=start, free=mask)
    assert f.params_object.cov_re[1, 1] == 0.05
    assert f.llf < slopes.llf
    assert f.bse.iloc[-1] == 0.0


def test_held_variances_and_covariances(slope_model, slopes, sleep):
    ratio = 0.7
    start = MixedLMParams.from_components(np.zeros(2), np.diag([ratio, 0.05]))
    mask = MixedLMParams.from_components(np.ones(2), np.array([[0.0, 0], [0, 1]]))
    f = slope_model.fit(start_params=start, free=mask)
    assert f.params_object.cov_re[0, 0] == pytest.approx(ratio)
    assert f.params_object.cov_re[1, 0] == 0.0
    assert f.k_estimated == 4
    # the natural variance is ratio times the scale: it is known as well as the scale is
    se = np.sqrt(f.natural_covariance[-1, -1])
    assert f.bse_re.iloc[0] == pytest.approx(ratio * se)
    f = slope_model.fit(fix={"Subject Var": 400.0})
    assert f.cov_re.iloc[0, 0] == pytest.approx(400.0)
    assert f.llf < slopes.llf
    assert abs(f.llf - dense_loglike(f, True)) < 1e-7
    assert f.bse_re.iloc[0] == pytest.approx(0.0, abs=1e-9)
    f = slope_model.fit(fix={"Subject Var": 0.0})
    other = jg.lmm("Reaction ~ Days + (0 + Days | Subject)", sleep)
    assert abs(f.llf - other.log_likelihood) < 1e-6


def test_held_components(nested, nested_fit):
    f = nested.fit(reml=False, fix={"pig Var": 20.0})
    assert f.vcomp[0] == pytest.approx(20.0)
    assert f.llf < nested_fit.llf
    assert abs(f.llf - dense_loglike(f, False)) < 1e-7
    mask = MixedLMParams.from_components(np.ones(2), np.eye(1), vcomp=np.zeros(1))
    start = MixedLMParams.from_components(np.zeros(2), np.eye(1), vcomp=np.zeros(1))
    f = nested.fit(reml=False, free=mask, start_params=start)
    assert f.vcomp[0] == 0.0
    alone = jg.lmm("Weight ~ Time + (1 | Litter)", f.model.data.frame, reml=False)
    assert abs(f.llf - alone.log_likelihood) < 1e-6


def test_held_fixed_effects(slope_model, sleep):
    mask = MixedLMParams.from_components(np.array([1.0, 0.0]), np.ones((2, 2)))
    start = MixedLMParams.from_components(np.array([0.0, 10.0]), np.eye(2))
    f = slope_model.fit(reml=False, free=mask, start_params=start)
    assert f.fe_params["Days"] == 10.0
    assert f.bse_fe["Days"] == 0.0
    rest = sleep.assign(y=sleep["Reaction"] - 10.0 * sleep["Days"])
    same = jg.lmm("y ~ 1 + (Days | Subject)", rest, reml=False)
    assert abs(f.llf - same.log_likelihood) < 1e-7
    np.testing.assert_allclose(f.bse_fe["Intercept"], same.se[0], rtol=0.02)
    np.testing.assert_allclose(
        f.fitted_array, same.fitted_values + 10.0 * sleep["Days"], rtol=1e-5
    )


class Ridge:
    """A penalty of the fixed effects."""

    alpha = 1.0

    def __init__(self, weights):
        self.weights = np.asarray(weights, float)

    def func(self, params):
        return self.alpha * np.sum(self.weights * params**2)

    def deriv(self, params):
        return 2 * self.alpha * self.weights * params


class LogDet:
    """Minus the log-determinant, which keeps a covariance from the boundary."""

    def func(self, cov_re, cov_re_inv):
        return -np.linalg.slogdet(cov_re)[1]

    def deriv(self, cov_re, cov_re_inv):
        out = -2 * cov_re_inv
        out[np.diag_indices(len(out))] /= 2
        return out[np.tril_indices(len(out))]


def test_penalties_are_paid(slope_model, slopes):
    pen = Ridge([0.0, 0.05])
    f = slope_model.fit(reml=False, fe_pen=pen)
    plain = slope_model.fit(reml=False)
    assert 0 < f.fe_params["Days"] < plain.fe_params["Days"]
    assert f.llf < plain.llf
    assert f.llf - pen.func(f.params_object.fe_params) > plain.llf - pen.func(
        plain.params_object.fe_params
    )
    slope_model.fit(reml=False, fe_pen=pen)  # the model knows of its last penalty
    gradient = slope_model.score(f.params_object, profile_fe=False)
    assert np.abs(gradient).max() < 1e-3
    same = slope_model.fit_regularized(method=Ridge([0.0, 1.0]), alpha=0.05, reml=False)
    np.testing.assert_allclose(same.fe_params, f.fe_params, rtol=1e-4)
    with pytest.raises(TypeError, match="func and deriv"):
        slope_model.fit(fe_pen=object())


def test_a_penalty_keeps_covariances_regular():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(8), 4)
    data = pd.DataFrame({"y": rng.normal(size=32), "g": g})
    model = smf.mixedlm("y ~ 1", data, groups="g")
    with pytest.warns(jg.SingularFitWarning, match="g Var is estimated as 0"):
        plain = model.fit()
    assert plain.cov_re.iloc[0, 0] == 0.0
    f = model.fit(cov_pen=LogDet())
    assert f.cov_re.iloc[0, 0] > 0.01
    assert np.abs(model.score(f.params_object)).max() < 1e-3


def test_l1_shrinks_to_zero_and_a_path(slope_model, slopes):
    f = slope_model.fit_regularized(alpha=[0.0, 1e4])
    assert f.fe_params["Days"] == 0.0
    assert np.isnan(f.bse_fe["Days"])
    np.testing.assert_allclose(f.cov_re, slopes.cov_re)
    path = slope_model.regularization_path([0.0, 1.0, 1e4])
    np.testing.assert_allclose(path.loc[0.0], slopes.fe_params, rtol=1e-5)
    assert path.loc[1e4, "Days"] == 0.0
    with pytest.raises(ValueError, match="Invalid regularization method"):
        slope_model.fit_regularized(method="l2")


# Trouble that statsmodels' users report -----------------------------------------------


def test_singular_fits_have_effects_and_errors():
    """Dyestuff2: a variance of zero. statsmodels raises, or gives beta = 0."""
    data = jg.datasets.load("Dyestuff2")
    model = smf.mixedlm("Yield ~ 1", data, groups="Batch")
    with pytest.warns(jg.SingularFitWarning) as seen:
        f = model.fit()
    assert len(seen) == 1
    assert "drop one" in str(seen[0].message)
    assert f.fe_params["Intercept"] == pytest.approx(data["Yield"].mean())
    assert all(v.iloc[0] == 0 for v in f.random_effects.values())
    assert all(v.iloc[0, 0] == 0 for v in f.random_effects_cov.values())
    assert np.isnan(f.bse_re.iloc[0])
    assert f.bse_fe.iloc[0] == pytest.approx(data["Yield"].std(ddof=1) / np.sqrt(30))
    np.testing.assert_allclose(f.fittedvalues, data["Yield"].mean())
    beta, singular = model.get_fe_params(np.zeros((1, 1)), np.zeros(0))
    assert singular
    assert beta[0] == pytest.approx(data["Yield"].mean())
    drawn = model.get_distribution(f.params, f.scale).rvs(rng=1, draws=3)
    assert drawn.shape == (3, 30)
    assert np.isfinite(f.aic)


def test_profiles_reach_zero_and_change_nothing(slopes, sleep):
    before = slopes.model.loglike(slopes.params_object)
    found = slopes.profile_re("Days", "re", 2, slopes.cov_re.iloc[1, 1], 1, 30.0)
    assert found.shape == (4, 2)
    assert found[0, 0] == 0.0
    alone = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    assert found[0, 1] == pytest.approx(alone.log_likelihood, abs=1e-7)
    assert found[2, 1] == pytest.approx(slopes.llf, abs=1e-8)
    assert (np.diff(found[:3, 1]) > 0).all()
    assert found[3, 1] < slopes.llf
    assert slopes.freepat is None
    after = slopes.model.loglike(slopes.params_object)
    assert after == pytest.approx(before, rel=1e-10)
    with pytest.raises(ValueError, match="dist_low is too large"):
        slopes.profile_re(0, "re", dist_low=1e4)
    with pytest.raises(ValueError, match="re_ix='nothing'"):
        slopes.profile_re("nothing", "re")
    with pytest.raises(ValueError, match="vtype"):
        slopes.profile_re(0, "both")


def test_profiles_of_components(nested_fit):
    zero = nested_fit.profile_re("pig", "vc", 1, nested_fit.vcomp[0], 1, 10.0)
    data = nested_fit.model.data.frame
    alone = jg.lmm("Weight ~ Time + (1 | Litter)", data, reml=False)
    assert zero[0, 1] == pytest.approx(alone.log_likelihood, abs=1e-6)
    assert zero[1, 1] == pytest.approx(nested_fit.llf, abs=1e-8)


def test_crossed_effects_make_no_dense_group(sleep):
    data = jg.datasets.load("Penicillin")
    ones = np.ones(len(data))
    model = smf.mixedlm(
        "diameter ~ 1",
        data,
        groups=ones,
        vc_formula={"plate": "0 + C(plate)", "sample": "0 + C(sample)"},
    )
    f = model.fit()
    same = jg.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    assert f.llf == pytest.approx(same.log_likelihood, abs=1e-8)
    assert type(model._evaluator.engine.problem.system).__name__ == "Arrow"
    assert "exog_vc" not in model.__dict__  # no matrix was made
    np.testing.assert_allclose(
        np.sqrt(f.vcomp),
        [same.varcorr["plate"].sd.iloc[0], same.varcorr["sample"].sd.iloc[0]],
        rtol=1e-5,
    )
    effects = f.random_effects[1.0]
    assert effects.index[0] == "plate[C(plate)[a]]"
    np.testing.assert_allclose(
        effects[effects.index.str.startswith("sample")],
        same.ranef["sample"].iloc[:, 0],
        atol=1e-5,
    )
    two = MixedLM(
        data["diameter"], ones, {"plate": data["plate"], "sample": data["sample"]}
    )
    assert two.fit().llf == pytest.approx(f.llf, abs=1e-9)
    bars = smf.mixedlm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    assert bars.fit().llf == pytest.approx(f.llf, abs=1e-9)


def test_lme4s_formulas_are_translated(pigs, slopes, sleep, nested_fit):
    bars = smf.mixedlm("Reaction ~ Days + (Days | Subject)", sleep)
    assert bars.fit().llf == pytest.approx(slopes.llf, abs=1e-9)
    bars = smf.mixedlm("Reaction ~ Days + (Days || Subject)", sleep)
    same = jg.lmm("Reaction ~ Days + (Days || Subject)", sleep)
    assert bars.fit().llf == pytest.approx(same.log_likelihood, abs=1e-8)
    bars = smf.mixedlm("Weight ~ Time + (1 | Litter) + (1 | Pig)", pigs)
    f = bars.fit(reml=False)
    assert f.llf == pytest.approx(nested_fit.llf, abs=1e-8)
    assert bars.n_groups == nested_fit.model.n_groups
    with pytest.raises(jg.NotApplicableError, match=r"jg\.lmm"):
        smf.mixedlm("Weight ~ Time + (Time | Pig) + (Time | Litter)", pigs)
    with pytest.raises(jg.FormulaError, match="either in the formula"):
        smf.mixedlm("Weight ~ Time + (Time | Pig)", pigs, re_formula="1", groups="Pig")


def test_components_as_matrices(pigs, nested_fit):
    labels, group = np.unique(pigs["Litter"], return_inverse=True)
    mats, colnames = [], []
    for i in range(len(labels)):
        own = pigs["Pig"][group == i].astype(str)
        levels = sorted(set(own))
        mats.append((own.to_numpy()[:, None] == np.array(levels)[None]).astype(float))
        colnames.append(levels)
    spec = VCSpec(["pig"], [colnames], [mats])
    X = np.column_stack([np.ones(len(pigs)), pigs["Time"]])
    model = MixedLM(
        pigs["Weight"].to_numpy(), X, group, exog_re=np.ones(len(pigs)), exog_vc=spec
    )
    f = model.fit(reml=False)
    assert f.llf == pytest.approx(nested_fit.llf, abs=1e-9)
    assert f.random_effects[0].index[1] == f"pig[{colnames[0][0]}]"
    old = {"pig": {i: m for i, m in enumerate(mats)}}
    with pytest.warns(FutureWarning, match="VCSpec"):
        again = MixedLM(pigs["Weight"].to_numpy(), X, group, np.ones(len(pigs)), old)
    assert again.exog_vc.names == ["pig"]
    with pytest.raises(jg.DataError, match="designs for 2 groups"):
        MixedLM(pigs["Weight"], X, group, exog_vc=VCSpec(["p"], [[[], []]], [mats[:2]]))


def test_dense_components_share_one_variance(sleep):
    """Columns of one component in the same rows: independent effects, one variance."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 6)
    mats = [rng.normal(size=(6, 2)) for _ in range(30)]
    y = rng.normal(size=180)
    for i in range(30):
        y[6 * i : 6 * i + 6] += mats[i] @ rng.normal(size=2) * 1.5 + rng.normal()
    spec = VCSpec(["a"], [[["u", "v"]] * 30], [mats])
    f = MixedLM(y, np.ones(180), group, exog_re=np.ones(180), exog_vc=spec).fit()
    assert f.converged
    assert f.jg_fit is None
    assert abs(f.llf - dense_loglike(f, True)) < 1e-8
    gradient = f.model.score(f.params_object)
    assert np.abs(gradient).max() < 1e-4
    assert list(f.random_effects[4].index) == ["x_re1", "a[u]", "a[v]"]
    with pytest.raises(jg.NotApplicableError, match="without held, tied"):
        f.t_test(np.eye(1), ddf="satterthwaite")


def test_weights_are_prior_weights(sleep):
    w = np.linspace(0.5, 2.0, len(sleep))
    f = smf.mixedlm(
        "Reaction ~ Days", sleep, groups="Subject", re_formula="~Days", weights=w
    ).fit()
    same = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, weights=w)
    assert f.llf == pytest.approx(same.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(f.scale, same.sigma**2, rtol=1e-6)
    assert abs(f.llf - dense_loglike(f, True)) < 1e-7
    assert (
        smf.mixedlm(
            "Reaction ~ Days", sleep.assign(w=w), groups="Subject", weights="w"
        ).weights
        is not None
    )


def test_subset_and_missing_values(sleep):
    part = sleep[sleep["Days"] < 5]
    expected = smf.mixedlm("Reaction ~ Days", part, groups="Subject").fit().llf
    mask = sleep["Days"] < 5
    f = smf.mixedlm("Reaction ~ Days", sleep, groups="Subject", subset=mask).fit()
    assert f.llf == pytest.approx(expected)
    assert f.nobs == len(part)
    holes = sleep.assign(Reaction=sleep["Reaction"].where(mask))
    with pytest.raises(jg.DataError, match="90 of 180 rows"):
        smf.mixedlm("Reaction ~ Days", holes, groups="Subject")
    model = smf.mixedlm("Reaction ~ Days", holes, groups="Subject", missing="drop")
    assert model.n_missing == 90
    assert model.fit().llf == pytest.approx(expected)
    y, X = holes["Reaction"].to_numpy(), np.column_stack([np.ones(180), sleep["Days"]])
    with pytest.raises(jg.DataError, match="missing='drop'"):
        MixedLM(y, X, sleep["Subject"])
    model = MixedLM(y, X, sleep["Subject"], missing="drop")
    assert model.fit().llf == pytest.approx(expected)


# Tests, predictions, bootstrap, files -------------------------------------------------


def test_hypotheses_in_words_and_degrees_of_freedom(slopes, sleep):
    text = slopes.t_test("Days = 10")
    matrix = slopes.t_test((np.array([[0.0, 1.0]]), 10.0))
    np.testing.assert_allclose(text.statistic, matrix.statistic)
    assert text.distribution == "norm"
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    exact = slopes.t_test("Days = 0", ddf="satterthwaite")
    assert exact.df_denom[0] == pytest.approx(17.0, abs=1e-3)
    assert exact.pvalue[0] == pytest.approx(fit.p_values[1], rel=1e-4)
    assert slopes.f_test(np.eye(2), ddf="kenward-roger").distribution == "F"
    assert slopes.t_test(np.eye(2), use_t=True).df_denom == 178
    low, high = slopes.conf_int(ddf="satterthwaite").loc["Days"]
    assert high - low == pytest.approx(2 * stats.t(17).ppf(0.975) * fit.se[1], rel=1e-3)
    assert slopes.wald_test("Subject Var = 0").df_num == 1
    assert "Test for Constraints" in str(text)
    with pytest.raises(ValueError, match="r_matrix for t-test should have 2 columns"):
        slopes.t_test(np.eye(3))
    with pytest.raises(ValueError, match="cannot read"):
        slopes.t_test("Weeks = 0")
    with pytest.raises(jg.NotApplicableError, match="fixed effects alone"):
        slopes.t_test("Subject Var = 0", ddf="satterthwaite")


def test_terms_and_pairs(pigs):
    f = smf.mixedlm("Weight ~ Time + C(Evit)", pigs, groups="Pig").fit()
    table = f.wald_test_terms().table
    assert table.index.tolist() == ["Intercept", "C(Evit)", "Time"]  # as patsy
    assert table.loc["C(Evit)", "df_constraint"] == 2
    pairs = f.t_test_pairwise("C(Evit)").result_frame
    assert len(pairs) == 3
    names = f.model.exog_names
    np.testing.assert_allclose(
        pairs["coef"].iloc[:2], [f.fe_params[n] for n in names if "Evit" in n]
    )
    p = np.sort(pairs.iloc[:, 3].to_numpy())
    expected = np.maximum.accumulate(1 - (1 - p) ** np.array([3, 2, 1]))
    np.testing.assert_allclose(np.sort(pairs["pvalue-hs"]), np.minimum(expected, 1))
    with pytest.raises(ValueError, match="no term 'Evit'"):
        f.t_test_pairwise("Evit")


def test_tests_read_as_statsmodels(pigs):
    """Line by line what statsmodels 0.15.0 prints of the same fit."""
    f = smf.mixedlm("Weight ~ Time", pigs, groups="Pig").fit()
    lines = str(f.t_test(np.eye(2))).splitlines()
    assert lines[1] == "=" * 78
    assert lines[2] == (
        "                 coef    std err          z      P>|z|      [0.025      0.975]"
    )
    assert lines[4] == (
        "c0            15.7235      0.788     19.952      0.000      14.179      17.268"
    )
    assert re.fullmatch(
        r"<Wald test \(chi2\): statistic=43238\.4\d+, p-value=0\.0, df_denom=1>",
        str(f.wald_test("Time = 0")),
    )
    assert re.fullmatch(
        r"<F test: F=43238\.4\d+, p=0\.0, df_denom=859, df_num=1>",
        str(f.f_test("Time = 0")),
    )
    terms = f.wald_test_terms()
    names = ["chi2", "P>chi2", "df constraint"]
    assert terms.summary_frame().columns.tolist() == names
    assert terms.table.columns.tolist() == ["statistic", "pvalue", "df_constraint"]
    assert isinstance(f.predict(), np.ndarray)
    assert all(isinstance(v, np.float64) for v in (f.llf, f.scale, f.aic, f.bic))
    assert f.normalized_cov_params.index.tolist() == f.params.index.tolist()


def test_predictions(slopes):
    new = pd.DataFrame({"Days": [0.0, 20.0]}, index=["a", "b"])
    found = slopes.predict(new)
    b = slopes.fe_params
    np.testing.assert_allclose(found, b["Intercept"] + b["Days"] * new["Days"])
    assert found.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(slopes.predict(np.array([[1.0, 20.0]])), found.iloc[1])
    np.testing.assert_allclose(slopes.predict(), slopes.model.exog @ b)
    with pytest.raises(jg.DataError, match="3 columns, expected 2"):
        slopes.predict(np.ones((1, 3)))


def test_parametric_bootstrap(slopes, slope_model):
    mean, sd, draws = slopes.bootstrap(nrep=200, rng=1)
    assert draws.shape == (200, 5)
    assert slopes.bootstrap_results is draws
    np.testing.assert_allclose(sd[:2], slopes.bse_fe, rtol=0.2)
    np.testing.assert_allclose(mean[:2], slopes.fe_params, rtol=0.05)
    again = slopes.bootstrap(nrep=200, rng=1)[2]  # by a program, where NumPy was first
    np.testing.assert_allclose(again, draws, rtol=1e-9, atol=1e-9)
    free = MixedLMParams.from_components(np.ones(2), np.eye(2))
    held = slope_model.fit(fix={"Subject Var": 500.0})
    few = held.bootstrap(nrep=2, rng=3, store=0)[2]
    assert held.bootstrap_results is None
    assert few.shape == (2, 5)
    independent = slope_model.fit(free=free).bootstrap(nrep=4, rng=3)[2]
    assert (independent[:, 3] == 0).all()


def test_files(slopes, tmp_path):
    slopes.save(tmp_path / "fit.pickle")
    back = MixedLMResults.load(tmp_path / "fit.pickle")
    assert str(back.summary()) == str(slopes.summary())
    np.testing.assert_allclose(
        back.t_test("Days = 0").pvalue, slopes.t_test("Days = 0").pvalue
    )
    assert back.model.loglike(back.params_object) == pytest.approx(slopes.llf)
    buffer = io.BytesIO()
    back.save(buffer, remove_data=True)
    small = MixedLMResults.load(io.BytesIO(buffer.getvalue()))
    assert small.model.endog is None
    assert str(small.summary()) == str(slopes.summary())
    assert len(small.random_effects) == 18
    assert small.f_test(np.eye(2)).pvalue == pytest.approx(
        slopes.f_test(np.eye(2)).pvalue
    )


def test_files_of_components(nested_fit):
    """Names of their columns are made when needed, and are in the file all the same."""
    names = nested_fit.model.exog_vc.colnames[0][0]
    buffer = io.BytesIO()
    nested_fit.save(buffer)
    back = MixedLMResults.load(io.BytesIO(buffer.getvalue()))
    assert str(back.summary()) == str(nested_fit.summary())
    assert back.model.exog_vc.colnames[0][0] == names
    first = next(iter(nested_fit.random_effects))
    assert back.random_effects[first].equals(nested_fit.random_effects[first])


def test_summary_options(slopes):
    page = slopes.summary(
        yname="ms", xname_fe=["a", "b"], xname_re=["u", "v", "w"], title="T", alpha=0.1
    )
    text = page.as_text()
    assert text.splitlines()[0].strip() == "T"
    assert "[0.05" in text
    assert page.tables[1].index.tolist() == ["a", "b", "u", "v", "w"]
    assert "<table" in page.as_html()
    assert r"\begin{tabular}" in page.as_latex()
    with pytest.raises(ValueError, match="xname_fe should be a list of length 2"):
        slopes.summary(xname_fe=["a"])
    with pytest.raises(ValueError, match="xname_re should be a list of length 3"):
        slopes.summary(xname_re=["a"])


# Texts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"method": "newton"}, ValueError, "method newton not available for MixedLM"),
        ({"method": ["bfgs", "ncg"]}, ValueError, "method ncg not available"),
        ({"start_params": [1.0]}, ValueError, "invalid start_params"),
        ({"start_params": "identity"}, ValueError, "invalid start_params"),
        ({"method": "guess"}, ValueError, "method guess not available"),
        ({"em_steps": -1}, ValueError, "must not be negative"),
        ({"fix": {"Days": 1.0}}, ValueError, "is none of"),
        ({"fix": {"Days Var": -1.0}}, ValueError, "not a variance"),
        (
            {"fix": {"Days Var": 1.0, "Subject Var": 1.0}},
            jg.NotApplicableError,
            "one of the correlated variances",
        ),
        ({"free": MixedLMParams(2, 1, 0)}, ValueError, "the model has"),
    ],
)
def test_arguments_are_checked(slope_model, arguments, error, text):
    with pytest.raises(error, match=text):
        slope_model.fit(**arguments)


def test_constructors_are_checked(sleep):
    y, X, g = sleep["Reaction"], np.ones((180, 1)), sleep["Subject"]
    with pytest.raises(ValueError, match="argument offset not permitted for MixedLM"):
        MixedLM(y, X, g, offset=1)
    with pytest.raises(AttributeError, match="'groups' is a required keyword argument"):
        MixedLM.from_formula("Reaction ~ Days", sleep)
    with pytest.raises(jg.DataError, match="groups has shape"):
        MixedLM(y, X, g[:5])
    with pytest.raises(jg.ModelError, match="rank deficient: x1"):
        MixedLM(y, np.ones((180, 2)), g).fit()
    with pytest.raises(jg.DataError, match="infinite"):
        MixedLM(y.where(sleep["Days"] > 0, np.inf), X, g)
    with pytest.raises(jg.DataError, match="no such column; did you mean 'Subject'"):
        smf.mixedlm("Reaction ~ Days", sleep, groups="Subjekt")
    with pytest.raises(jg.FormulaError, match="no column 'Weeks'"):
        smf.mixedlm("Reaction ~ Weeks", sleep, groups="Subject")
    with pytest.raises(ValueError, match="missing='pairwise'"):
        MixedLM(y, X, g, missing="pairwise")


def test_users_functions_in_formulas(sleep):
    def fortnights(x):
        return x / 14

    f = smf.mixedlm(
        "np.log(Reaction) ~ fortnights(Days)", sleep, groups="Subject"
    ).fit()
    assert f.fe_params.index[1] == "fortnights(Days)"
    with pytest.raises(jg.FormulaError):
        smf.mixedlm("Reaction ~ fortnights(Days)", sleep, groups="Subject", eval_env=-1)
