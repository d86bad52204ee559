"""Fits of every kind and what they answer, through the public surface alone.

``CASES`` is name -> function that gives name -> answer. Small tables with shapes that
several cases share, so that few programs are compiled. Samples of NUTS are not here: a
chain doubles a rounding error at every step, so that no two machines agree on it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import jaxglmm as jg

DATA = Path(__file__).parent.parent / "data"
CASES = {}

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
SLEEP = "Reaction ~ Days + (Days | Subject)"


def case(function):
    """List a function as a case."""
    CASES[function.__name__] = function
    return function


def simulated(name):
    """A table of tests/data, its groups as texts."""
    table = pd.read_csv(DATA / f"sim_{name}.csv.gz")
    return table.assign(g=table["g"].astype(str))


def basics(fit):
    """What every fit answers."""
    return {
        "log_likelihood": fit.log_likelihood,
        "aic_bic": [fit.aic, fit.bic],
        "coefficients": fit.coefficients,
        "se": fit.se,
        "vcov": fit.vcov,
        "theta": fit.theta,
        "sigma": fit.sigma,
        "varcorr": varcorr(fit),
        "ranef": {factor: table.head(40) for factor, table in fit.ranef.items()},
        "fitted": fit.fitted_values[:12],
        "residuals": fit.residuals[:12],
        "facts": [
            f"{fit.formula}",
            f"{fit.status} converged={fit.converged} singular={fit.is_singular}",
            f"npar={fit.npar} nobs={fit.nobs} groups={fit.ngroups} {fit.method}",
            " ".join(fit.coefficient_names),
        ],
    }


def varcorr(fit):
    """Standard deviations and correlations as they are listed."""
    return [
        part.std_dev if part.corr is None else part.corr for part in fit.var_components
    ]


def linear(fit):
    """What linear fits answer cheaply."""
    return basics(fit) | {
        "df_satterthwaite": fit.df_satterthwaite,
        "p_values": fit.p_values,
        "wald": fit.conf_int,
    }


def generalised(fit):
    """What generalised fits answer cheaply."""
    return basics(fit) | {
        "p_values": fit.p_values,
        "wald": fit.conf_int,
        "dispersion": fit.dispersion,
        "deviance": fit.deviance,
    }


@case
def sleep_reml():
    sleep = jg.datasets.load("sleepstudy")
    fit = jg.lmm(SLEEP, sleep)
    new = {"Days": [0.5, 12, 3], "Subject": ["308", "309", "372"]}
    boot = fit.bootstrap(6, seed=3)
    return linear(fit) | {
        "summary": str(fit.summary()),
        "kenward_roger": fit.coefficient_table("kenward-roger"),
        "kenward_roger_covariance": fit.coefficient_covariance("kenward-roger"),
        "anova": fit.anova(),
        "anova_kenward_roger": fit.anova(ddf="kenward-roger"),
        "profile": fit.confint(method="profile"),
        "ranef_cov": fit.ranef_cov["Subject"][:3],
        "coef_by": fit.coef_by("Subject"),
        "predict_confidence": fit.predict(new, interval="confidence"),
        "predict_prediction": fit.predict(new, interval="prediction"),
        "predict_population": fit.predict(new, re="population", se=True),
        "predictions": fit.predictions(by="Days"),
        "slopes": fit.slopes("Days"),
        "simulate": fit.simulate(2, seed=5)[:, :8],
        "simulate_conditional": fit.simulate(1, seed=5, re="conditional")[:, :8],
        "bootstrap": np.column_stack([boot.coefficients, boot.theta, boot.sigma]),
        "pearson": fit.resid("pearson")[:12],
        "r2": [fit.r2().marginal, fit.r2().conditional, fit.icc.adjusted],
        "glance": fit.glance(),
        "tidy": list(fit.tidy()["term"]),
        "refit": fit.refit(sleep["Reaction"] + sleep["Days"]).coefficients,
        "simulated_residuals": fit.simulated_residuals(40, seed=2).scaled[:12],
    }


@case
def sleep_ml():
    sleep = jg.datasets.load("sleepstudy")
    fit = jg.lmm(SLEEP, sleep, reml=False)
    less = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False)
    return linear(fit) | {
        "less": less.log_likelihood,
        "compare": jg.anova(less, fit).table,
        "test": test(fit.test([[0, 1]], rhs=8.0)),
    }


def test(wald):
    """Numbers of a Wald test."""
    return [wald.statistic, wald.num_df, wald.den_df, wald.p]


@case
def sleep_intercept():
    return linear(
        jg.lmm("Reaction ~ Days + (1 | Subject)", jg.datasets.load("sleepstudy"))
    )


@case
def sleep_independent():
    return linear(
        jg.lmm("Reaction ~ Days + (Days || Subject)", jg.datasets.load("sleepstudy"))
    )


def weighted():
    """Sleep study with weights and an offset."""
    sleep = jg.datasets.load("sleepstudy")
    k = np.arange(len(sleep))
    return sleep.assign(w=1.0 + k % 4, off=np.cos(k) * 10)


@case
def sleep_weights_offset():
    fit = jg.lmm(SLEEP, weighted(), weights="w", offset="off")
    return linear(fit) | {"pearson": fit.resid("pearson")[:12]}


@case
def sleep_arrays():
    sleep = weighted()
    days = sleep["Days"].to_numpy(float)
    return linear(
        jg.lmm(
            sleep["Reaction"],
            np.column_stack([np.ones(180), days]),
            groups={"Subject": sleep["Subject"]},
            random_effects={"Subject": ["1", "Days"]},
            random_data={"Days": days},
            weights=sleep["w"],
        )
    )


@case
def sleep_missing_rows():
    sleep = jg.datasets.load("sleepstudy")
    sleep.loc[[3, 50, 51, 99], "Reaction"] = np.nan
    sleep.loc[[7, 120], "Days"] = np.nan
    return linear(jg.lmm(SLEEP, sleep))


@case
def sleep_no_random_effects():
    sleep = jg.datasets.load("sleepstudy")
    return generalised(jg.glmm("Reaction ~ Days", sleep, family="gaussian"))


@case
def dyestuff():
    fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    return linear(fit) | {"profile": fit.confint(method="profile")}


@case
def dyestuff2_singular():
    return linear(jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff2")))


@case
def penicillin_crossed():
    fit = jg.lmm(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", jg.datasets.load("Penicillin")
    )
    return linear(fit) | {
        "summary": str(fit.summary()),
        "kenward_roger": fit.coefficient_table("kenward-roger"),
    }


@case
def pastes_nested():
    fit = jg.lmm("strength ~ 1 + (1 | batch/cask)", jg.datasets.load("Pastes"))
    return linear(fit)


@case
def machines_nested():
    fit = jg.lmm("score ~ Machine + (1 | Worker/Machine)", jg.datasets.load("Machines"))
    return linear(fit) | {
        "contrasts": fit.contrasts("Machine", adjust="tukey"),
        "predictions": fit.predictions(by="Machine", grid="equal"),
        "anova": fit.anova(),
        "kenward_roger": fit.anova(ddf="kenward-roger"),
    }


@case
def machines_slopes():
    return linear(
        jg.lmm("score ~ Machine + (0 + Machine | Worker)", jg.datasets.load("Machines"))
    )


@case
def orthodont_interaction():
    fit = jg.lmm(
        "distance ~ age * Sex + (age | Subject)", jg.datasets.load("Orthodont")
    )
    return linear(fit) | {
        "anova_2": fit.anova(type=2),
        "anova_3": fit.anova(type=3),
        "slopes": fit.slopes("age", by="Sex"),
    }


@case
def dietox_nested_ml():
    pigs = jg.datasets.load("dietox")
    return linear(
        jg.lmm("Weight ~ Cu * Time + (1 | Litter) + (1 | Pig)", pigs, reml=False)
    )


def wide_table():
    """Thirty groups of twelve rows, five covariates that all vary by group."""
    rng = np.random.default_rng(20)
    g = np.repeat(np.arange(30), 12)
    x = rng.normal(size=(360, 4))
    effects = rng.normal(size=(30, 5)) @ np.diag([1.0, 0.8, 1.2, 0.7, 0.9])
    effects[:, 1] += 0.5 * effects[:, 0]
    y = 1 + x[:, 0] + effects[g, 0] + (x * effects[g, 1:]).sum(1)
    table = {f"x{i}": x[:, i] for i in range(4)}
    return pd.DataFrame(table | {"y": y + 0.5 * rng.normal(size=360), "g": g})


@case
def wide_term():
    return linear(jg.lmm("y ~ x0 + (x0 + x1 + x2 + x3 | g)", wide_table()))


@case
def cbpp_laplace():
    cbpp = jg.datasets.load("cbpp")
    fit = jg.glmm(CBPP, cbpp)
    less = jg.glmm("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", cbpp)
    new = {"period": ["1", "4"], "herd": ["1", "7"]}
    boot = fit.bootstrap(4, seed=3)
    return generalised(fit) | {
        "summary": str(fit.summary()),
        "profile": fit.confint(method="profile"),
        "predict_confidence": fit.predict(new, interval="confidence"),
        "predict_prediction": fit.predict(new, interval="prediction", trials=20),
        "predict_marginal": fit.predict(new, re="marginal", interval="confidence"),
        "predict_link": fit.predict(new, type="link", se=True),
        "predictions": fit.predictions(by="period", re="marginal"),
        "contrasts": fit.contrasts("period", type="link", ratio=True),
        "contrasts_response": fit.contrasts("period", adjust="holm"),
        "simulate": fit.simulate(2, seed=5)[:, :12],
        "bootstrap": np.column_stack([boot.coefficients, boot.theta]),
        "residuals_pearson": fit.resid("pearson")[:12],
        "residuals_quantile": fit.resid("quantile", seed=1)[:12],
        "ranef_cov": fit.ranef_cov["herd"][:3],
        "compare": jg.anova(less, fit).table,
        "anova": fit.anova(),
        "test": test(fit.test([[0, 1, 0, 0], [0, 0, 1, 0]])),
        "r2": [fit.r2().marginal, fit.r2().conditional, fit.icc.adjusted],
        "glance": fit.glance(),
        "simulated_residuals": fit.simulated_residuals(40, seed=2).scaled[:12],
    }


@case
def cbpp_quadrature():
    fit = jg.glmm(CBPP, jg.datasets.load("cbpp"), method=jg.AGQ(9))
    return generalised(fit)


@case
def cbpp_probit():
    fit = jg.glmm(CBPP, jg.datasets.load("cbpp"), family=jg.Binomial(link="probit"))
    return generalised(fit)


@case
def cbpp_cloglog():
    fit = jg.glmm(CBPP, jg.datasets.load("cbpp"), family=jg.Binomial(link="cloglog"))
    return generalised(fit)


@case
def cbpp_observation_level():
    return generalised(jg.glmm(CBPP + " + (1 | obs)", jg.datasets.load("cbpp")))


@case
def cbpp_no_random_effects():
    return generalised(jg.glmm(CBPP.split(" + (")[0], jg.datasets.load("cbpp")))


@case
def ohio_bernoulli():
    ohio = jg.datasets.load("ohio")
    fit = jg.glmm("resp ~ age * smoke + (1 | id)", ohio, family="bernoulli")
    return generalised(fit) | {"slopes": fit.slopes("age", by="smoke")}


@case
def owls_poisson_offset():
    fit = jg.glmm(
        "SiblingNegotiation ~ FoodTreatment + offset(logBroodSize) + (1 | Nest)",
        jg.datasets.load("Owls"),
        family="poisson",
    )
    return generalised(fit) | {
        "overdispersion": fit.overdispersion().chisq,
        "quantile": fit.resid("quantile", seed=1)[:12],
    }


@case
def ticks_several_terms():
    fit = jg.glmm(
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION) + (1 | INDEX)",
        jg.datasets.load("grouseticks"),
        family="poisson",
    )
    return generalised(fit)


@case
def salamanders_nbinom2_crossed():
    fit = jg.glmm(
        "count ~ mined + (1 | site) + (1 | spp)",
        jg.datasets.load("Salamanders"),
        family="nbinom2",
    )
    return generalised(fit) | {"summary": str(fit.summary())}


@case
def epil_poisson_slope():
    fit = jg.glmm(
        "y ~ Base * trt + Age + Visit + (Visit | subject)",
        jg.datasets.load("epil2"),
        family="poisson",
    )
    return generalised(fit)


def of_family(name, family, formula="y ~ x + trt + (1 | g)"):
    """A simulated table under its family."""
    fit = jg.glmm(formula, simulated(name), family=family)
    return generalised(fit) | {
        "predict": fit.predict(re="population", interval="confidence").head(8),
        "quantile": fit.resid("quantile", seed=1)[:8],
        "simulate": fit.simulate(1, seed=4)[:, :8],
    }


@case
def family_gamma():
    return of_family("gamma", jg.Gamma(link="log"))


@case
def family_inverse_gaussian():
    return of_family("invgauss", jg.InverseGaussian(link="log"))


@case
def family_beta():
    return of_family("beta", "beta")


@case
def family_beta_binomial():
    return of_family(
        "betabinomial", "betabinomial", "cbind(succ, size - succ) ~ x + (1 | g)"
    )


@case
def family_nbinom1():
    return of_family("nbinom1", "nbinom1")


@case
def family_gaussian_log():
    return of_family("gamma", jg.Gaussian(link="log"))


@case
def family_student():
    fit = jg.glmm(
        "Reaction ~ Days + (1 | Subject)",
        jg.datasets.load("sleepstudy"),
        family=jg.StudentT(df=4),
    )
    return generalised(fit)


def posterior(fit):
    """What posteriors answer."""
    return {
        "summary": fit.posterior.summary(),
        "text": str(fit.priors),
        "coefficients": fit.coefficients,
        "se": fit.se,
        "varcorr": varcorr(fit),
        "ranef": {factor: table.head(40) for factor, table in fit.ranef.items()},
        "fitted": fit.fitted_values[:12],
        "predict": fit.predict(interval="confidence").head(6),
        "facts": [fit.status, fit.method],
    }


@case
def cbpp_map():
    return posterior(jg.glmm(CBPP, jg.datasets.load("cbpp"), method="map"))


@case
def cbpp_vb():
    return posterior(jg.glmm(CBPP, jg.datasets.load("cbpp"), method="vb"))


@case
def cbpp_nested_laplace():
    belief = jg.Priors(coefficients=1.5, sd=jg.HalfNormal(1))
    method = jg.NestedLaplace(draws=400, seed=7)
    fit = jg.glmm(CBPP, jg.datasets.load("cbpp"), method=method, priors=belief)
    loo = fit.loo()
    return posterior(fit) | {
        "evidence": fit.log_evidence,
        "khat": fit.khat,
        "loo": [loo.elpd, loo.se, loo.p],
        "confint": fit.confint(),
        "draws": fit.posterior.frame().iloc[:5],
        "contrasts": fit.contrasts("period"),
    }


@case
def sleep_nested_laplace():
    method = jg.NestedLaplace(draws=400, seed=7)
    fit = jg.lmm(SLEEP, jg.datasets.load("sleepstudy"), method=method)
    return posterior(fit) | {"evidence": fit.log_evidence, "khat": fit.khat}


def many(fits):
    """Arrays of many fits."""
    out = {
        name: np.asarray(getattr(fits, name))
        for name in ("coefficients", "se", "p_values", "sd", "theta", "sigma")
    }
    return out | {
        "log_likelihood": fits.log_likelihood,
        "df": fits.df,
        "status": [str(name) for name in fits.status_names],
    }


def responses(n=5):
    """Responses of the sleep study, one with missing values, one constant."""
    rng = np.random.default_rng(4)
    reaction = jg.datasets.load("sleepstudy")["Reaction"].to_numpy()
    Y = reaction[:, None] + 10 * rng.normal(size=(180, n))
    Y[[3, 77], 1] = np.nan
    Y[:, 2] = 5.0
    return Y


@case
def many_shared():
    fits = jg.fit_many(
        "y ~ Days + (Days | Subject)",
        jg.datasets.load("sleepstudy"),
        responses=responses(),
        progress=False,
    )
    return many(fits) | {
        "one": fits[0].log_likelihood,
        "adjusted": fits.p_adjusted,
        "profile": fits.confint(method="profile"),
    }


@case
def many_ragged():
    pigs = jg.datasets.load("dietox")
    some = pigs[pigs["Litter"].astype(int) <= 24]
    some = some.assign(part=some["Litter"].astype(int) // 7)
    return many(
        jg.fit_many("Weight ~ Time + (1 | Pig)", some, by="part", progress=False)
    )


@case
def many_poisson():
    rng = np.random.default_rng(6)
    sleep = jg.datasets.load("sleepstudy")
    means = np.exp(0.5 + 0.1 * sleep["Days"].to_numpy())
    level = np.exp(0.5 * rng.normal(size=(18, 4)))
    Y = rng.poisson(means[:, None] * np.repeat(level, 10, axis=0))
    return many(
        jg.fit_many(
            "y ~ Days + (1 | Subject)",
            sleep,
            responses=Y,
            family="poisson",
            progress=False,
        )
    )


@case
def many_binomial_ragged():
    cbpp = jg.datasets.load("cbpp")
    rng = np.random.default_rng(8)
    tables = []
    for part in range(3):
        sick = rng.binomial(
            cbpp["size"], 0.2 + 0.1 * (cbpp["obs"].astype(int) % 3 == 0)
        )
        tables.append(cbpp.assign(incidence=sick, part=part).iloc[: 56 - 4 * part])
    return many(
        jg.fit_many(
            CBPP, pd.concat(tables), by="part", family="binomial", progress=False
        )
    )


@case
def statsmodels_mixedlm():
    from jaxglmm.compat.statsmodels import MixedLM

    model = MixedLM.from_formula(
        "Reaction ~ Days",
        jg.datasets.load("sleepstudy"),
        groups="Subject",
        re_formula="~Days",
    )
    fit = model.fit()
    wald = fit.t_test(np.eye(2))
    return {
        "log_likelihood": fit.llf,
        "params": np.asarray(fit.params),
        "bse": np.asarray(fit.bse),
        "p_values": np.asarray(fit.pvalues),
        "cov_re": np.asarray(fit.cov_re),
        "scale": fit.scale,
        "conf_int": np.asarray(fit.conf_int()),
        "t_test": [*wald.effect, *wald.sd, *np.ravel(wald.tvalue)],
        "random_effects": np.array([list(e) for e in fit.random_effects.values()]),
        "fitted": np.asarray(fit.fittedvalues)[:10],
        "loglike_at_start": model.loglike(fit.params_object, profile_fe=False),
    }


def bayes_mixed(cls, y):
    """MAP and mean field of statsmodels' classes, and their functions at a point."""
    from scipy import sparse

    rng = np.random.default_rng(9)
    exog = np.column_stack([np.ones(180), rng.normal(size=180)])
    Z = sparse.csr_array(np.kron(np.eye(18), np.ones((10, 1))))
    model = cls(y, exog, Z, np.zeros(18, int), vcp_p=0.5, fe_p=2)
    point = 0.1 * np.sin(1.0 + np.arange(21))
    out = {
        "logposterior": model.logposterior(point),
        "gradient": model.logposterior_grad(point),
        "elbo": model.vb_elbo(point, np.full(21, 0.3)),
    }
    for how, fit in (("map", model.fit_map()), ("vb", model.fit_vb())):
        for part in ("fe", "vcp", "vc"):
            for kind in ("mean", "sd"):
                name = f"{part}_{kind}"
                value = getattr(fit, name, None)
                if value is not None:
                    out[f"{how}_{name}"] = np.asarray(value)
    return out


@case
def statsmodels_bayes_binomial():
    from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM

    rng = np.random.default_rng(10)
    p = 1 / (1 + np.exp(-np.repeat(rng.normal(size=18), 10)))
    return bayes_mixed(BinomialBayesMixedGLM, rng.binomial(1, p).astype(float))


@case
def statsmodels_bayes_poisson():
    from jaxglmm.compat.statsmodels import PoissonBayesMixedGLM

    rng = np.random.default_rng(11)
    means = np.exp(0.5 + np.repeat(0.6 * rng.normal(size=18), 10))
    return bayes_mixed(PoissonBayesMixedGLM, rng.poisson(means).astype(float))


def sheet(table):
    """Cells of a worksheet function: texts and numbers apart."""
    cells = [cell for row in table for cell in row]
    number = [isinstance(cell, int | float) for cell in cells]
    return {
        "texts": [
            "#" if n else str(cell) for cell, n in zip(cells, number, strict=True)
        ],
        "numbers": [float(c) for c, n in zip(cells, number, strict=True) if n],
    }


def column(values, head=None):
    """A range of one column."""
    return ([[head]] if head else []) + [[value] for value in values]


@case
def sheet_lmm():
    sleep = jg.datasets.load("sleepstudy")
    return sheet(
        jg.spreadsheet.lmm(
            column(sleep["Reaction"].tolist()),
            column(sleep["Days"].tolist(), "Days"),
            column(sleep["Subject"].tolist()),
            extended=True,
        )
    )


@case
def sheet_poisson():
    epil = jg.datasets.load("epil2")
    arguments = (
        column(epil["y"].tolist()),
        column(epil["Base"].tolist(), "Base"),
        column(epil["subject"].tolist()),
    )
    likelihood = sheet(jg.spreadsheet.glmm_poisson(*arguments, method="laplace"))
    belief = sheet(jg.spreadsheet.glmm_poisson(*arguments))
    return likelihood | {f"posterior_{name}": cells for name, cells in belief.items()}


@case
def sheet_binomial():
    ohio = jg.datasets.load("ohio").head(400)
    return sheet(
        jg.spreadsheet.glmm_binomial(
            column(ohio["resp"].tolist()),
            column(ohio["age"].tolist(), "age"),
            column(ohio["id"].tolist()),
            method="laplace",
        )
    )
