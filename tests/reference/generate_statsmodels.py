"""Reference values of statsmodels (BayesMixedGLM, MixedLM). Run in this folder: python generate_statsmodels.py

Reads the data sets of the package and ../data. Writes one JSON a case: sm_*.json. For BayesMixedGLM each JSON has the whole design (fixed-effects
matrix, random-effects matrix as triplets, ident), three fixed parameter vectors with logposterior and ELBO and
their gradients there, and the results of fit_map and fit_vb run to a small gradient.
"""
import json, math, warnings
import numpy as np, pandas as pd, scipy, scipy.optimize, statsmodels
from scipy import sparse, stats
import statsmodels.formula.api as smf
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM, PoissonBayesMixedGLM

VERSION = f"statsmodels {statsmodels.__version__}, scipy {scipy.__version__}, numpy {np.__version__}"
FOLDERS = ("../../jaxglmm/datasets", "../data")
SCHEMA = {f: json.load(open(f"{f}/schema.json")) for f in FOLDERS}

def load(name):
    folder = next(f for f in FOLDERS if name in SCHEMA[f])
    d = pd.read_csv(f"{folder}/{name}.csv.gz", keep_default_na=False, na_values=[""])
    for c, kind in SCHEMA[folder][name]["columns"].items():
        if isinstance(kind, list):
            d[c] = pd.Categorical(d[c].astype(str), categories=kind)
    return d

def plain(x):
    if isinstance(x, dict): return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return [plain(v) for v in x]
    if isinstance(x, (pd.Series, pd.Index)): x = x.to_numpy()
    if isinstance(x, np.ndarray): return plain(x.tolist())
    if isinstance(x, (np.floating, float)): return None if not np.isfinite(x) else float(x)
    if isinstance(x, np.integer): return int(x)
    if isinstance(x, np.bool_): return bool(x)
    return x

def save(r):
    with open(r["name"] + ".json", "w") as f: json.dump(plain(r), f, indent=1)
    print(r["name"], {k: r[k] for k in ("loglik",) if k in r}, flush=True)

def three_points(n, kf, kv):
    """Three parameter vectors (order: fixed effects, log sds, random effects) and matching sds."""
    k = np.arange(n)
    p1 = np.zeros(n)
    p2 = 0.1 * np.sin(1.0 + k)
    p3 = np.where(k < kf, 0.3 * (-1.0) ** k, np.where(k < kf + kv, -0.5, 0.4 * np.cos(k)))
    return [(p1, np.full(n, 0.5)), (p2, 0.3 + 0.1 * np.sin(k) ** 2), (p3, np.exp(-1 + 0.2 * np.cos(k)))]

def interior_map(model, start):
    """A local maximum of the log posterior near start, by trust region and Newton; None if none is found.

    The joint density of (fixed effects, log sd, random effects) has a spurious peak where a log sd falls to about
    -(number of effects) * vcp_p**2 and its random effects vanish; BFGS of fit_map often ends there.
    """
    f, g = lambda p: -model.logposterior(p), lambda p: -model.logposterior_grad(p)
    def hess(p, h=1e-5):
        n = len(p); H = np.empty((n, n))
        for j in range(n):
            e = np.zeros(n); e[j] = h
            H[:, j] = (g(p + e) - g(p - e)) / (2 * h)
        return (H + H.T) / 2
    r = scipy.optimize.minimize(f, start, jac=g, hess=hess, method="trust-exact", options=dict(gtol=1e-8, maxiter=300, initial_trust_radius=0.2, max_trust_radius=1.0))
    p, H = r.x, hess(r.x)
    ev = np.linalg.eigvalsh(H)
    if np.abs(g(p)).max() > 1e-5 or ev.min() <= 0 or collapsed(model, p): return None
    sd = np.sqrt(np.diag(np.linalg.inv(H))); a = slice(0, model.k_fep); b = slice(model.k_fep, model.k_fep + int(model.k_vcp)); c = slice(b.stop, None)
    return dict(fe_mean=p[a], fe_sd=sd[a], vcp_mean=p[b], vcp_sd=sd[b], vc_mean=p[c], vc_sd=sd[c], logposterior=-f(p), max_grad=np.abs(g(p)).max())

def collapsed(model, p):
    """True where some log sd sits at the spurious peak."""
    k = np.bincount(model.ident); v = p[model.k_fep:model.k_fep + int(model.k_vcp)]
    return bool(np.any(v < -0.8 * k * model.vcp_p**2)) and bool(k.max() > 1)

def bayes(name, model, dataset, how, fit_map=True, note=""):
    """model: a BayesMixedGLM; how: text that says how the design was made."""
    kf, kv, n = model.k_fep, int(model.k_vcp), model.k_fep + int(model.k_vcp) + model.k_vc
    Z = sparse.coo_array(model.exog_vc)
    r = dict(name=name, dataset=dataset, how=how, kind="BayesMixedGLM", family=type(model).__name__, software=VERSION, note=note,
             k_fep=kf, k_vcp=kv, k_vc=model.k_vc, nobs=len(model.endog), fep_names=list(model.fep_names),
             vcp_names=list(model.vcp_names), vc_names=list(model.vc_names) if model.vc_names is not None else None,
             vcp_p=model.vcp_p, fe_p=model.fe_p, ident=model.ident, endog=model.endog, exog=model.exog,
             exog_vc=dict(shape=list(Z.shape), row=Z.row, col=Z.col, value=Z.data), points=[])
    for p, s in three_points(n, kf, kv):
        gm, gs = model.vb_elbo_grad(p, s)
        r["points"].append(dict(params=p, logposterior=model.logposterior(p), logposterior_grad=model.logposterior_grad(p),
                                vb_mean=p, vb_sd=s, vb_elbo=model.vb_elbo(p, s), vb_elbo_grad_mean=gm, vb_elbo_grad_sd=gs))
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        if fit_map:
            f = model.fit_map(minim_opts={"maxiter": 20000, "gtol": 1e-7}, rng=np.random.default_rng(1))
            r["fit_map"] = result(f, model); p = f.params
            r["fit_map"].update(logposterior=model.logposterior(p), max_grad=np.abs(model.logposterior_grad(p)).max(),
                                cov_first=f._cov_params[:kf + kv, :kf + kv], collapsed=collapsed(model, p))
        f = model.fit_vb(minim_opts={"maxiter": 20000, "gtol": 1e-6}, rng=np.random.default_rng(1))
        sd = np.sqrt(f._cov_params); gm, gs = model.vb_elbo_grad(f.params, sd)
        r["fit_vb"] = result(f, model)
        r["fit_vb"].update(elbo=model.vb_elbo(f.params, sd), max_grad=max(np.abs(gm).max(), np.abs(gs * sd).max()))
        g = model.fit_vb(minim_opts={"maxiter": 20000, "gtol": 1e-6}, rng=np.random.default_rng(2))
        r["fit_vb"]["elbo_seed2"] = model.vb_elbo(g.params, np.sqrt(g._cov_params))
        r["fit_vb"]["max_diff_seed2"] = np.abs(g.params - f.params).max()
        if fit_map: r["map_interior"] = interior_map(model, f.params)
        r["map_note"] = "fit_map: what statsmodels returns. collapsed true: it ended at the spurious peak of the joint density (log sd about -k vcp_p^2, random effects 0), with meaningless sds. map_interior: the local maximum near the VB mean (null: none), the one to compare with."
    r["warnings"] = sorted({str(x.message) for x in w})
    save(r)
    print("   ", {k: (r[k].get("success"), float(r[k]["max_grad"]), r[k]["nit"]) for k in ("fit_map", "fit_vb") if k in r}, r["fit_vb"]["max_diff_seed2"], r["warnings"][:3], flush=True)

def result(f, model):
    o = f.optim_retvals
    return dict(fe_mean=f.fe_mean, fe_sd=f.fe_sd, vcp_mean=f.vcp_mean, vcp_sd=f.vcp_sd, vc_mean=f.vc_mean, vc_sd=f.vc_sd,
                success=bool(o.success), message=str(o.message), nit=int(o.nit))

# ---------------------------------------------------------------- worksheet examples GLMM_POISSON, GLMM_BINOMIAL
# The functions' own designs. GLMM_POISSON: without x_random one column of ones is the only random effect (the
# groups are not used); with x_random the columns are ones and x_random, each with its own sd (groups not used).
# GLMM_BINOMIAL: one indicator column a group, one common sd; x_random is not used at all.
def col(x): return [[v] for v in x]
def seed_poisson(y, x, groups, x_random=None, fit_intercept=True):
    xd = pd.DataFrame({0: [float(v) for v in x]})
    if fit_intercept: xd.insert(0, "const", 1.0)
    n = len(y)
    if x_random is None: Z, ident = np.ones((n, 1)), np.array([0])
    else: Z, ident = np.column_stack([np.ones(n), x_random]), np.arange(2)
    return PoissonBayesMixedGLM(endog=list(y), exog=xd, exog_vc=Z, ident=ident)
def seed_binomial(y, x, groups, fit_intercept=True):
    X = np.array(col(x), float); y = np.array(y)
    if fit_intercept: X = np.hstack([np.ones((len(X), 1)), X])
    g = np.array(groups); u = np.unique(g)
    return BinomialBayesMixedGLM(endog=y, exog=X, exog_vc=(g[:, None] == u[None, :]).astype(float), ident=np.zeros(len(u), dtype=int))

def table(f, alpha, log_sd):
    """The numbers the worksheet function returns; log_sd: GLMM_POISSON reads vcp as log sd, GLMM_BINOMIAL as log variance."""
    z = f.fe_mean / f.fe_sd; c = stats.norm.ppf(1 - alpha / 2)
    fixed = [dict(coefficient=b, std_error=s, z_statistic=t, p_value=2 * (1 - stats.norm.cdf(abs(t))), ci_lower=b - c * s, ci_upper=b + c * s, ratio=math.exp(b)) for b, s, t in zip(f.fe_mean, f.fe_sd, z)]
    rand = [dict(std_dev=math.exp(v), variance=math.exp(2 * v)) if log_sd else dict(variance=math.exp(v), std_dev=math.sqrt(math.exp(v))) for v in f.vcp_mean]
    return dict(alpha=alpha, fixed_effects=fixed, random_effects=rand)

P = [((2, 3, 5, 1, 2, 4), (1, 2, 3, 1, 2, 3), (1, 1, 1, 2, 2, 2), None, True, .05),
     ((5, 7, 10, 3, 5, 8), (1, 2, 3, 1, 2, 3), (1, 1, 1, 2, 2, 2), (1, 2, 3, 1, 2, 3), True, .05),
     ((10, 12, 15, 8, 10, 13), (1, 1.5, 2, 1, 1.5, 2), (1, 1, 1, 2, 2, 2), None, True, .1),
     ((3, 6, 9, 2, 4, 6), (1, 2, 3, 1, 2, 3), (1, 1, 1, 2, 2, 2), None, False, .05)]
B = [((0, 1, 0, 1, 1, 0), (1, 2, 1.5, 2.5, 3, 1.2), (1, 1, 2, 2, 3, 3), None, True, .05),
     ((0, 1, 1, 0, 1, 1), (1, 2, 1.5, 2.5, 3, 1.2), (1, 1, 2, 2, 3, 3), (1, 1, 1.5, 1.5, 2, 2), True, .05),
     ((0, 1, 0, 1, 1, 0), (1, 2, 1.5, 2.5, 3, 1.2), (1, 1, 2, 2, 3, 3), None, False, .05),
     ((0, 1, 1, 0, 1, 1), (1, 2, 1.5, 2.5, 3, 1.2), (1, 1, 2, 2, 3, 3), (1, 1, 1.5, 1.5, 2, 2), True, .1)]

def mixedlm(name, how, model, reml):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        f = model.fit(reml=reml, method="lbfgs", maxiter=2000)
    k = model.k_fe
    save(dict(name=name, dataset="dietox", how=how, kind="MixedLM", method="REML" if reml else "ML", software=VERSION, nobs=int(f.nobs),
              fixef=dict(zip(f.fe_params.index, f.fe_params)), se=dict(zip(f.fe_params.index, f.bse_fe)), vcov=dict(names=list(f.fe_params.index), matrix=f.cov_params().iloc[:k, :k].to_numpy()),
              sigma=np.sqrt(f.scale), cov_re=dict(names=list(f.cov_re.index) if k and f.cov_re.size else [], matrix=f.cov_re.to_numpy() if f.cov_re.size else []),
              vcomp=dict(zip(model.exog_vc.names if model.k_vc else [], f.vcomp)), loglik=f.llf, converged=bool(f.converged), params=dict(zip(f.params.index, f.params)), bse=dict(zip(f.params.index, f.bse)),
              params_note="random-effect parameters in params are divided by the residual variance (statsmodels' convention)",
              ranef={str(g): dict(zip(v.index, v)) for g, v in list(f.random_effects.items())[:200]}, fitted_first20=f.fittedvalues.iloc[:20], residuals_first20=f.resid.iloc[:20], warnings=sorted({str(x.message) for x in w})))

if __name__ == "__main__":
    # ---- BayesMixedGLM
    d = load("sim_crossed")
    vc = {"a": "0 + C(a)", "b": "0 + C(b)"}
    bayes("sm_binomial_crossed", BinomialBayesMixedGLM.from_formula("y ~ x", vc, d), "sim_crossed", "from_formula('y ~ x', {'a': '0 + C(a)', 'b': '0 + C(b)'})")
    bayes("sm_poisson_crossed", PoissonBayesMixedGLM.from_formula("count ~ x", vc, d), "sim_crossed", "from_formula('count ~ x', {'a': '0 + C(a)', 'b': '0 + C(b)'})")
    bayes("sm_binomial_crossed_priors", BinomialBayesMixedGLM.from_formula("y ~ x", vc, d, vcp_p=0.5, fe_p=10), "sim_crossed", "the same with vcp_p=0.5, fe_p=10")
    d = load("cbpp_bernoulli")
    bayes("sm_binomial_cbpp", BinomialBayesMixedGLM.from_formula("y ~ C(period)", {"herd": "0 + C(herd)"}, d), "cbpp_bernoulli", "from_formula('y ~ C(period)', {'herd': '0 + C(herd)'})")
    d = load("epil2")
    bayes("sm_poisson_epil2", PoissonBayesMixedGLM.from_formula("y ~ Base * C(trt) + Age + Visit", {"subject": "0 + C(subject)"}, d), "epil2", "from_formula('y ~ Base * C(trt) + Age + Visit', {'subject': '0 + C(subject)'})")
    bayes("sm_poisson_epil2_slope", PoissonBayesMixedGLM.from_formula("y ~ Base * C(trt) + Age + Visit", {"subject": "0 + C(subject)", "visit": "0 + C(subject):Visit"}, d), "epil2", "with independent slopes: {'subject': '0 + C(subject)', 'visit': '0 + C(subject):Visit'}")
    d = load("sim_village")
    doc = {"a": "0 + C(Village)", "b": "0 + C(Village)*year_cen"}
    bayes("sm_binomial_village", BinomialBayesMixedGLM.from_formula("y ~ year_cen", doc, d), "sim_village", "the docs' example: from_formula('y ~ year_cen', {'a': '0 + C(Village)', 'b': '0 + C(Village)*year_cen'})", note="block b repeats the village columns and a main effect of year_cen, as the docs' formula does: the design is redundant, only the priors identify it")
    bayes("sm_poisson_village", PoissonBayesMixedGLM.from_formula("count ~ year_cen", doc, d), "sim_village", "the docs' example: from_formula('count ~ year_cen', {'a': '0 + C(Village)', 'b': '0 + C(Village)*year_cen'})", note="as sm_binomial_village")

    # ---- worksheet examples
    for fam, cases in (("poisson", P), ("binomial", B)):
        for i, (y, x, g, xr, fi, al) in enumerate(cases, 1):
            make = (lambda: seed_poisson(y, x, g, xr, fi)) if fam == "poisson" else (lambda: seed_binomial(y, x, g, fi))
            m = make()
            how = dict(function=f"GLMM_{fam.upper()}", example=i, y=y, x=x, groups=g, x_random=xr, fit_intercept=fi, alpha=al)
            bayes(f"sm_glmm_{fam}_ex{i}", m, None, how)
            r = json.load(open(f"sm_glmm_{fam}_ex{i}.json"))
            runs = []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for s in (42, 43, 44): runs.append(table(make().fit_vb(rng=np.random.default_rng(s)), al, fam == "poisson"))
            r["worksheet"] = runs[0]
            r["worksheet_spread"] = [max(abs(u["fixed_effects"][k][c] - runs[0]["fixed_effects"][k][c]) for u in runs) for k in range(len(runs[0]["fixed_effects"])) for c in ("coefficient",)]
            r["worksheet_note"] = "fit_vb with default options; in statsmodels 0.15 numpy's global seed has no effect on it, so the start is random: spread over three starts given"
            json.dump(plain(r), open(f"sm_glmm_{fam}_ex{i}.json", "w"), indent=1)

    # ---- MixedLM on dietox
    d = load("dietox")
    for reml in (True, False):
        t = "reml" if reml else "ml"
        mixedlm(f"sm_dietox_intercept_{t}", "mixedlm('Weight ~ Time', groups='Pig')", smf.mixedlm("Weight ~ Time", d, groups=d["Pig"].astype(str)), reml)
        mixedlm(f"sm_dietox_slope_{t}", "mixedlm('Weight ~ Time', groups='Pig', re_formula='~ Time')", smf.mixedlm("Weight ~ Time", d, groups=d["Pig"].astype(str), re_formula="~ Time"), reml)
        dd = d.assign(Pig=d["Pig"].astype(str), Litter=d["Litter"].astype(str))
        mixedlm(f"sm_dietox_vc_{t}", "mixedlm('Weight ~ Time', groups='Litter', re_formula='1', vc_formula={'Pig': '0 + C(Pig)'})", smf.mixedlm("Weight ~ Time", dd, groups=dd["Litter"], re_formula="1", vc_formula={"Pig": "0 + C(Pig)"}), reml)
