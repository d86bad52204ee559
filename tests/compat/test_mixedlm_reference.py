"""``MixedLM`` against statsmodels: evaluations at points, attributes of fits."""

import inspect
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
import jaxglmm.compat.statsmodels.api as sm
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels import MixedLM, MixedLMParams, MixedLMResults, VCSpec

REFERENCE = Path(__file__).parent.parent / "reference"
POINTS = json.loads((REFERENCE / "sm_mixedlm_points.json").read_text())
CASES = {c["name"]: c for c in POINTS["cases"]}
DIETOX = [f"{m}_{t}" for m in ("intercept", "slope", "vc") for t in ("reml", "ml")]

pytestmark = pytest.mark.reference


def close(found, expected, rtol):
    """Relative to the largest of what is compared."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert found.shape == expected.shape
    size = np.abs(expected).max(initial=0.0)
    assert np.abs(found - expected).max(initial=0.0) <= rtol * max(size, 1e-300)


@pytest.fixture(scope="module")
def models():
    out = {}
    for name, case in CASES.items():
        how = case["how"]
        out[name] = smf.mixedlm(
            how["formula"],
            jg.datasets.load(how["data"]),
            groups=how["groups"],
            re_formula=how.get("re_formula"),
            vc_formula=how.get("vc_formula"),
        )
    return out


# At given parameters ------------------------------------------------------------------

AT = [(name, k) for name, case in CASES.items() for k in range(len(case["points"]))]


@pytest.mark.parametrize(("name", "k"), AT)
def test_evaluations_are_statsmodels(models, name, k):
    model, at = models[name], CASES[name]["points"][k]
    p = MixedLMParams.from_components(
        np.array(at["fe_params"]), np.array(at["cov_re"]), vcomp=np.array(at["vcomp"])
    )
    model.reml, model._freepat = at["reml"], None
    close(p.get_packed(True), at["packed_sqrt"], 1e-14)
    close(p.get_packed(False, True), at["packed_full"], 1e-14)
    for profile, word in ((True, "profiled"), (False, "given")):
        close(model.loglike(p, profile), at[f"loglike_{word}"], 1e-11)
        for use_sqrt, how in ((True, "sqrt"), (False, "full")):
            model.use_sqrt = use_sqrt
            close(model.score(p, profile), at[f"score_{word}_{how}"], 1e-9)
    model.use_sqrt = True
    close(model.loglike(np.array(at["packed_sqrt"])), at["loglike_profiled"], 1e-11)
    matrix, singular = model.hessian(p)
    close(matrix, at["hessian"], 1e-9)
    assert singular is False
    beta, singular = model.get_fe_params(p.cov_re, p.vcomp)
    close(beta, at["gls"], 1e-10)
    assert singular is False
    close(model.get_scale(beta, p.cov_re, p.vcomp), at["scale"], 1e-10)
    law = model.get_distribution(at["packed_full"], 2.0, None)
    drawn = law.rvs(model.nobs, rng=np.random.default_rng(1))
    close(drawn[:10], at["rvs_seed1"], 1e-12)


# Fits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [0, 1])
def test_fits_are_statsmodels_or_better(models, name, k):
    expected, model = CASES[name]["fits"][k], models[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        f = model.fit(reml=expected["reml"])
    assert f.converged
    # statsmodels stops where its gradient is small: never above ours, and close
    assert expected["llf"] - 1e-8 <= f.llf + 1e-7 * abs(f.llf)
    assert f.llf - expected["llf"] < 1e-4
    close(f.fe_params, expected["fe_params"], 1e-5)
    close(f.scale, expected["scale"], 1e-4)
    close(f.params, expected["params"], 2e-3)
    if f.k_re:
        close(f.cov_re, expected["cov_re"], 2e-3 if f.params_object.cov_re.any() else 2)
    if f.k_vc:
        close(f.vcomp, expected["vcomp"], 1e-3)
    interior = not np.isnan(f.bse).any()
    rtol = 2e-3 if interior else 1e-2
    close(f.bse_fe, expected["bse"][: f.k_fe], rtol)
    close(
        np.asarray(f.cov_params())[:2, :2],
        np.array(expected["cov_params"])[:2, :2],
        rtol,
    )
    if interior:
        close(f.bse, expected["bse"], 2e-3)
        close(f.tvalues, expected["tvalues"], 2e-3)
        close(f.conf_int(), expected["conf_int"], 2e-3)
        close(f.pvalues, expected["pvalues"], 5e-3)
    assert (f.df_resid, f.df_modelwc) == (expected["df_resid"], expected["df_modelwc"])
    close(f.fittedvalues[:10], expected["fitted"], 1e-3)
    close(f.resid[:10], expected["resid"], 1e-2)
    close(f.predict()[:5], expected["predict"], 1e-5)
    for group, values in expected["ranef"].items():
        own = f.random_effects[group]
        assert list(own.index) == list(values)
        assert np.abs(own - np.array(list(values.values()))).max() < 3e-3
    for group, values in expected["ranef_cov"].items():
        close(f.random_effects_cov[group], values, 3e-3)
    t = f.t_test(np.eye(f.k_fe))
    close(t.effect, expected["t_test"]["effect"], 1e-5)
    close(t.sd, expected["t_test"]["sd"], 5e-3)
    close(t.conf_int(), expected["t_test"]["conf_int"], 5e-3)
    w = f.wald_test(np.eye(len(f.params))[: f.k_fe])
    close(w.statistic, expected["wald_test"]["statistic"], 5e-3)
    F = f.f_test(np.eye(f.k_fe))
    close(F.statistic, expected["f_test"]["statistic"], 5e-3)
    assert (F.df_num, F.df_denom) == (
        expected["f_test"]["df_num"],
        expected["f_test"]["df_denom"],
    )
    if not expected["reml"] and interior:
        close(f.aic, expected["aic"], 1e-6)
        close(f.bic, expected["bic"], 1e-6)
    assert np.isfinite([f.aic, f.bic]).all()  # NaN in statsmodels under REML


@pytest.mark.parametrize("name", DIETOX)
def test_dietox(name):
    expected = json.loads((REFERENCE / f"sm_dietox_{name}.json").read_text())
    d = jg.datasets.load("dietox")
    d = d.assign(Pig=d["Pig"].astype(str), Litter=d["Litter"].astype(str))
    if name.startswith("vc"):
        model = smf.mixedlm(
            "Weight ~ Time",
            d,
            groups=d["Litter"],
            re_formula="1",
            vc_formula={"Pig": "0 + C(Pig)"},
        )
    else:
        re = "~Time" if name.startswith("slope") else None
        model = smf.mixedlm("Weight ~ Time", d, groups=d["Pig"], re_formula=re)
    f = model.fit(reml=expected["method"] == "REML")
    assert f.llf >= expected["loglik"] - 1e-7
    assert f.llf - expected["loglik"] < 1e-5
    assert f.method == expected["method"]
    assert f.nobs == expected["nobs"]
    assert f.fe_params.index.tolist() == list(expected["fixef"])
    close(f.fe_params, list(expected["fixef"].values()), 1e-6)
    close(f.bse_fe, list(expected["se"].values()), 5e-4)
    close(f.cov_params().iloc[:2, :2], expected["vcov"]["matrix"], 1e-3)
    close(np.sqrt(f.scale), expected["sigma"], 1e-4)
    assert f.cov_re.index.tolist() == expected["cov_re"]["names"]
    close(f.cov_re, expected["cov_re"]["matrix"], 1e-3)
    close(f.vcomp, list(expected["vcomp"].values()), 1e-3)
    assert f.params.index.tolist() == list(expected["params"])
    close(f.params, list(expected["params"].values()), 1e-3)
    close(f.bse, list(expected["bse"].values()), 1e-3)
    close(f.fittedvalues[:20], expected["fitted_first20"], 1e-3)
    close(f.resid[:20], expected["residuals_first20"], 1e-2)
    for group, values in expected["ranef"].items():
        own = f.random_effects[group]
        assert list(own.index) == list(values)
        assert np.abs(own - np.array(list(values.values()))).max() < 2e-3


def words(line):
    """Numbers to as many digits as statsmodels has of them."""
    out = []
    for word in line.split():
        try:
            out.append(pytest.approx(float(word), rel=2e-4))
        except ValueError:
            out.append(word)
    return out


def test_the_summary_is_laid_out_as_statsmodels():
    """Cell by cell but for the errors of variances, which statsmodels has wrong."""
    expected = CASES["sleep_slope"]["fits"][0]["summary"].splitlines()
    model = smf.mixedlm(
        "Reaction ~ Days",
        jg.datasets.load("sleepstudy"),
        groups="Subject",
        re_formula="~Days",
    )
    found = str(model.fit().summary()).splitlines()
    variances = [
        i for i, line in enumerate(expected) if " Var " in line or " Cov " in line
    ]
    assert len(found) == len(expected)
    # a standard error of 293.7 makes its column, and so the page, no wider here
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if i in variances:
            assert words(a)[:-1] == words(b)[:-1]
        else:
            assert words(a) == words(b)
    arrays = POINTS["arrays"]
    d = jg.datasets.load("dietox")
    X = np.column_stack([np.ones(len(d)), d["Time"]])
    f = sm.MixedLM(np.asarray(d["Weight"]), X, np.asarray(d["Pig"])).fit()
    for a, b in zip(
        str(f.summary()).splitlines(), arrays["summary"].splitlines(), strict=True
    ):
        assert a == b or "Group Var" in a
    assert isinstance(f.params, np.ndarray)
    assert isinstance(f.cov_re, np.ndarray)
    for group, values in arrays["first_ranef"].items():
        own = f.random_effects[group]
        assert list(own.index) == list(values)
        close(own, list(values.values()), 1e-4)


def test_free_identity_is_independent_effects():
    expected = POINTS["free"]
    s = jg.datasets.load("sleepstudy")
    model = smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days")
    free = MixedLMParams.from_components(np.ones(2), np.eye(2))
    f = model.fit(free=free)
    assert abs(f.llf - expected["llf"]) < 1e-6
    close(f.cov_re, expected["cov_re"], 1e-4)
    close(f.params, expected["params"], 1e-4)
    close(f.bse, expected["bse"], 1e-4)
    same = jg.lmm("Reaction ~ Days + (Days || Subject)", s)
    assert abs(f.llf - same.log_likelihood) < 1e-8
    assert f.k_estimated == 5


def test_profile_with_the_ratio_held_is_statsmodels():
    expected = POINTS["profile_re"]
    s = jg.datasets.load("sleepstudy")
    f = smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days").fit()
    found = f.profile_re(
        expected["index"],
        "re",
        expected["num_low"],
        expected["dist_low"],
        expected["num_high"],
        expected["dist_high"],
        hold="ratio",
    )
    values = np.array(expected["values"])
    close(found[:, 0], values[:, 0], 1e-5)
    assert np.abs(found[:, 1] - values[:, 1]).max() < 1e-5


def test_l1_is_statsmodels():
    expected = POINTS["regularized"]
    s = jg.datasets.load("sleepstudy")
    f = smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days")
    f = f.fit_regularized(alpha=expected["alpha"], ptol=1e-10)
    close(f.fe_params, expected["fe_params"], 1e-5)


# Signatures, texts --------------------------------------------------------------------

SIGNATURES = [  # as in statsmodels 0.15.0; more arguments may follow by keyword
    (
        MixedLM,
        "endog exog groups exog_re=None exog_vc=None use_sqrt=True missing='none'",
    ),
    (
        MixedLM.from_formula,
        "formula data re_formula=None vc_formula=None subset=None use_sparse=False "
        "missing='none'",
    ),
    (
        MixedLM.fit,
        "self start_params=None reml=True niter_sa=0 do_cg=True fe_pen=None "
        "cov_pen=None free=None full_output=False method=None",
    ),
    (
        MixedLM.fit_regularized,
        "self start_params=None method='l1' alpha=0 ceps=0.0001 ptol=1e-06 maxit=200",
    ),
    (MixedLM.predict, "self params exog=None"),
    (MixedLM.group_list, "self array"),
    (MixedLM.loglike, "self params profile_fe=True"),
    (MixedLM.score, "self params profile_fe=True"),
    (MixedLM.score_full, "self params calc_fe"),
    (MixedLM.score_sqrt, "self params calc_fe=True"),
    (MixedLM.hessian, "self params"),
    (MixedLM.get_fe_params, "self cov_re vcomp tol=1e-10"),
    (MixedLM.get_scale, "self fe_params cov_re vcomp"),
    (MixedLMParams, "k_fe k_re k_vc"),
    (MixedLMParams.from_packed, "params k_fe k_re use_sqrt has_fe"),
    (
        MixedLMParams.from_components,
        "fe_params=None cov_re=None cov_re_sqrt=None vcomp=None",
    ),
    (MixedLMParams.get_packed, "self use_sqrt has_fe=False"),
    (MixedLMResults, "model params cov_params=None"),
    (MixedLMResults.t_test, "self r_matrix use_t=None"),
    (
        MixedLMResults.wald_test,
        "self r_matrix cov_p=None invcov=None use_f=None df_constraints=None "
        "scalar=True",
    ),
    (MixedLMResults.f_test, "self r_matrix cov_p=None invcov=None"),
    (
        MixedLMResults.wald_test_terms,
        "self skip_single=False extra_constraints=None combine_terms=None scalar=True",
    ),
    (
        MixedLMResults.t_test_pairwise,
        "self term_name method='hs' alpha=0.05 factor_labels=None",
    ),
    (
        MixedLMResults.profile_re,
        "self re_ix vtype num_low=5 dist_low=1.0 num_high=5 dist_high=1.0",
    ),
    (
        MixedLMResults.summary,
        "self yname=None xname_fe=None xname_re=None title=None alpha=0.05",
    ),
    (MixedLMResults.conf_int, "self alpha=0.05 cols=None"),
    (MixedLMResults.save, "self fname remove_data=False"),
    (VCSpec, "names colnames mats"),
]


@pytest.mark.parametrize(
    ("function", "expected"),
    SIGNATURES,
    ids=lambda x: getattr(x, "__qualname__", "expected"),
)
def test_signatures(function, expected):
    found = [
        str(p).split(": ")[0].split(" = ")[0].split("=")[0]
        + ("" if p.default is p.empty else f"={p.default!r}")
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert found == expected.split()


ATTRIBUTES = """
params fe_params bse bse_fe bse_re tvalues pvalues cov_re cov_re_unscaled vcomp scale
params_object normalized_cov_params llf aic bic fittedvalues resid random_effects
random_effects_cov converged hist method reml freepat use_sqrt k_fe k_re k_re2 k_vc nobs
df_resid df_modelwc cov_pen mle_retvals model use_t k_constant hessv
"""
OF_THE_MODEL = """
endog exog groups exog_re exog_vc endog_li exog_li exog_re_li group_labels n_groups
row_indices nobs n_totobs k_fe k_re k_re2 k_vc endog_names exog_names use_sqrt reml
exog_re2_li k_constant initialize
"""


def test_every_attribute_is_there():
    s = jg.datasets.load("sleepstudy")
    model = smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days")
    f = model.fit()
    for name in ATTRIBUTES.split():
        getattr(f, name)
    for name in OF_THE_MODEL.split():
        getattr(model, name)
    assert model.n_groups == len(model.group_labels) == len(model.endog_li) == 18
    assert model.group_labels == sorted(model.group_labels)
    assert model.row_indices["308"] == list(range(10))
    np.testing.assert_array_equal(model.endog_li[0], s["Reaction"][:10])
    assert model.exog_li[3].shape == model.exog_re_li[3].shape == (10, 2)
    assert isinstance(f.params, pd.Series)
    assert f.cov_re.index.tolist() == ["Subject", "Days"]
    assert model.group_list(None) is None
    Z = model.exog_re_li[4]
    np.testing.assert_allclose(model.exog_re2_li[4], Z.T @ Z)
    assert (model.k_constant, f.k_constant, model.initialize()) == (1, 1, None)
    no_constant = smf.mixedlm("Reaction ~ Days - 1", s, groups="Subject")
    assert (no_constant.k_constant, no_constant.exog_re2_li[0].item()) == (0, 10)
    matrix, singular = f.hessv
    precision = np.linalg.inv(f.cov_params().iloc[:2, :2])
    np.testing.assert_allclose(-matrix[:2, :2], precision, rtol=1e-6)
    assert matrix.shape == (5, 5)
    assert not singular
