"""Reference values of statsmodels' MixedLM at given parameters. Run in this folder: python generate_mixedlm.py

Writes sm_mixedlm_points.json: for several models of shipped data loglike, score and hessian at fixed parameters (packed as statsmodels packs them), and for some fits their summary, tests, profile and random effects.
"""
import json, warnings
import numpy as np, pandas as pd, scipy, statsmodels
import statsmodels.formula.api as smf
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

VERSION = f"statsmodels {statsmodels.__version__}, scipy {scipy.__version__}, numpy {np.__version__}"
FOLDER = "../../jaxglmm/datasets"
SCHEMA = json.load(open(f"{FOLDER}/schema.json"))

def load(name):
    d = pd.read_csv(f"{FOLDER}/{name}.csv.gz", keep_default_na=False, na_values=[""])
    for c, kind in SCHEMA[name]["columns"].items():
        if isinstance(kind, list): d[c] = d[c].astype(str)
    return d

def plain(x):
    if isinstance(x, dict): return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return [plain(v) for v in x]
    if isinstance(x, (pd.Series, pd.Index, pd.DataFrame)): x = x.to_numpy()
    if isinstance(x, np.ndarray): return plain(x.tolist())
    if isinstance(x, (np.floating, float)): return None if not np.isfinite(x) else float(x)
    if isinstance(x, np.integer): return int(x)
    if isinstance(x, np.bool_): return bool(x)
    return x

def models():
    d = load("dietox"); s = load("sleepstudy")
    yield "sleep_intercept", dict(data="sleepstudy", formula="Reaction ~ Days", groups="Subject"), smf.mixedlm("Reaction ~ Days", s, groups="Subject"), [([251., 10.], [[1.5]], []), ([200., 5.], [[0.01]], [])]
    yield "sleep_slope", dict(data="sleepstudy", formula="Reaction ~ Days", groups="Subject", re_formula="~Days"), smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days"), [([251., 10.], [[1., .02], [.02, .05]], []), ([240., 12.], [[3., -.3], [-.3, .4]], [])]
    yield "dietox_vc", dict(data="dietox", formula="Weight ~ Time", groups="Litter", re_formula="~Time", vc_formula={"pig": "0 + C(Pig)", "slope": "0 + C(Pig):Time"}), smf.mixedlm("Weight ~ Time", d, groups="Litter", re_formula="~Time", vc_formula={"pig": "0 + C(Pig)", "slope": "0 + C(Pig):Time"}), [([15., 7.], [[2., .3], [.3, .5]], [1.5, .2])]
    yield "dietox_tied", dict(data="dietox", formula="Weight ~ Time", groups="Litter", re_formula="1", vc_formula={"both": "1 + Time", "pig": "0 + C(Pig)"}), smf.mixedlm("Weight ~ Time", d, groups="Litter", re_formula="1", vc_formula={"both": "1 + Time", "pig": "0 + C(Pig)"}), [([15., 7.], [[2.]], [.3, 1.5])]

def points(m, given):
    out = []
    for fe, cov, vc in given:
        p = MixedLMParams.from_components(np.array(fe), np.array(cov), vcomp=np.array(vc))
        for reml in (True, False):
            m.reml = reml; m.cov_pen = m.fe_pen = m._freepat = None; m._cov_sing = 0
            at = dict(fe_params=fe, cov_re=cov, vcomp=vc, reml=reml, packed_sqrt=p.get_packed(use_sqrt=True), packed_full=p.get_packed(use_sqrt=False, has_fe=True))
            for profile in (True, False):
                t = "profiled" if profile else "given"
                at[f"loglike_{t}"] = m.loglike(p.copy(), profile_fe=profile)
                for sq in (True, False):
                    m.use_sqrt = sq
                    at[f"score_{t}_{'sqrt' if sq else 'full'}"] = m.score(p.copy(), profile_fe=profile)
            m.use_sqrt = True
            at["hessian"] = m.hessian(p)[0]
            b, _ = m.get_fe_params(p.cov_re, p.vcomp); at["gls"] = b; at["scale"] = m.get_scale(b, p.cov_re, p.vcomp)
            at["rvs_seed1"] = m.get_distribution(p.get_packed(use_sqrt=False, has_fe=True), 2.0, None).rvs(m.nobs, rng=np.random.default_rng(1))[:10]
            out.append(at)
    return out

def tight(m, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return m.fit(method="lbfgs", maxiter=5000, gtol=1e-12, ftol=1e-15, maxls=100, **kw)

def fitted(m, reml):
    f = tight(m, reml=reml)
    k = m.k_fe
    out = dict(reml=reml, llf=f.llf, params=f.params, bse=f.bse, tvalues=f.tvalues, pvalues=f.pvalues, conf_int=f.conf_int(), scale=f.scale, fe_params=f.fe_params, cov_re=f.cov_re, vcomp=f.vcomp, aic=f.aic, bic=f.bic,
               cov_params=f.cov_params(), df_resid=f.df_resid, df_modelwc=f.df_modelwc, summary=f.summary().as_text(),
               ranef={str(g): dict(zip(v.index, v)) for g, v in list(f.random_effects.items())[:5]}, ranef_cov={str(g): v for g, v in list(f.random_effects_cov.items())[:3]},
               fitted=f.fittedvalues[:10], resid=f.resid[:10], predict=f.predict()[:5])
    t = f.t_test(np.eye(k)); out["t_test"] = dict(effect=t.effect, sd=t.sd, tvalue=t.tvalue, pvalue=t.pvalue, conf_int=t.conf_int())
    R = np.eye(len(f.params))[:k]
    w = f.wald_test(R, scalar=True); out["wald_test"] = dict(statistic=w.statistic, pvalue=w.pvalue)
    w = f.f_test(R); out["f_test"] = dict(statistic=float(np.squeeze(w.fvalue)), pvalue=float(np.squeeze(w.pvalue)), df_num=w.df_num, df_denom=w.df_denom)
    return out

if __name__ == "__main__":
    out = dict(name="sm_mixedlm_points", software=VERSION, cases=[])
    for name, how, m, given in models():
        case = dict(name=name, how=how, points=points(m, given), fits=[fitted(m, r) for r in (True, False)])
        out["cases"].append(case); print(name, [f["llf"] for f in case["fits"]], flush=True)
    s = load("sleepstudy")
    m = smf.mixedlm("Reaction ~ Days", s, groups="Subject", re_formula="~Days")
    free = MixedLMParams.from_components(np.ones(2), np.eye(2))
    f = tight(m, free=free); out["free"] = dict(llf=f.llf, cov_re=f.cov_re, bse=f.bse, params=f.params, scale=f.scale)
    f = tight(m); r = f.profile_re(0, "re", num_low=2, dist_low=200., num_high=2, dist_high=300., method="lbfgs", gtol=1e-12, ftol=1e-15, maxiter=5000); out["profile_re"] = dict(index=0, num_low=2, dist_low=200., num_high=2, dist_high=300., values=r)
    y, X = np.asarray(s["Reaction"], float), np.column_stack([np.ones(len(s)), s["Days"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = MixedLM(y, X, np.asarray(s["Subject"]), exog_re=X).fit_regularized(alpha=np.array([0., 5.]), method="l1", ptol=1e-10)  # with a formula statsmodels raises KeyError: 0
    out["regularized"] = dict(alpha=[0., 5.], fe_params=f.fe_params)
    d = load("dietox")
    X = np.column_stack([np.ones(len(d)), d["Time"]])
    f = tight(MixedLM(np.asarray(d["Weight"]), X, np.asarray(d["Pig"])))
    out["arrays"] = dict(summary=f.summary().as_text(), params=f.params, first_ranef={str(g): dict(zip(v.index, v)) for g, v in list(f.random_effects.items())[:1]})
    json.dump(plain(out), open("sm_mixedlm_points.json", "w"), indent=1)
