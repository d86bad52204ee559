# %% [markdown]
# # A clinical trial: mixed models for repeated measures
#
# Two arms, four visits, patients who miss visits or leave. The analysis that regulators
# expect (MMRM) has no random effects: the covariance of a patient's visits is estimated
# as it is, and rows that are there count, whatever else is missing.

# %%
import numpy as np
import pandas as pd

import jaxglmm as jg

rng = np.random.default_rng(2024)
n, visits = 160, ["week 2", "week 4", "week 8", "week 12"]
truth = 0.7 ** np.abs(np.subtract.outer(range(4), range(4)))
sd = np.array([4.0, 4.5, 5.5, 7.0])
errors = rng.normal(size=(n, 4)) @ np.linalg.cholesky(truth).T * sd
patient, visit = np.repeat(np.arange(n), 4), np.tile(np.arange(4), n)
arm = np.where(patient % 2, "drug", "placebo")
base = np.repeat(rng.normal(30, 5, n), 4)
change = -0.2 * (base - 30) - 0.8 * visit * (arm == "drug") + errors.ravel()
trial = pd.DataFrame(
    {
        "patient": patient,
        "visit": pd.Categorical.from_codes(visit, visits, ordered=True),
        "arm": pd.Categorical(arm, ["placebo", "drug"]),
        "base": base,
        "change": change,
    }
)
stays = rng.random(n) < 0.85  # the others leave after week 4
trial = trial[stays[patient] | (visit < 2)]
print(trial.head(8))

# %% [markdown]
# `us(visit | patient)` is the covariance: four standard deviations, six correlations,
# each estimated. Degrees of freedom are Satterthwaite's; Kenward and Roger's adjust the
# standard errors as well.

# %%
formula = "change ~ base + arm * visit + us(visit | patient)"
fit = jg.mmrm(formula, trial)
print(fit.summary())
print(fit.summary("kenward-roger").coefficients.round(3))

assert fit.converged
assert len(fit.residual_parameters) == 10
assert np.isclose(fit.residual_covariance["Residual"].sd["week 12"], 7.0, rtol=0.2)

# %% [markdown]
# Least-squares means of the arms at each visit, and the difference that the trial was
# made for: drug against placebo at the last visit.

# %%
print(fit.predictions(by=["arm", "visit"], grid="equal").round(2))
last = fit.test({"arm[T.drug]": 1.0, "arm[T.drug]:visit[T.week 12]": 1.0})
print(last)

assert last.estimate[0] < 0
assert 100 < last.den_df < n

# %% [markdown]
# Do the visits need a covariance without structure? AR(1) with a standard deviation a
# visit has five parameters instead of ten.

# %%
simple = jg.mmrm(formula.replace("us(", "ar1h("), trial)
print(simple.residual_parameters.round(3))
print(jg.anova(simple, fit))

assert simple.npar == fit.npar - 5

# %% [markdown]
# A covariance that is wrong leaves the estimates right and their errors wrong; those by
# the patients' residuals are right in large trials whatever it is.

# %%
robust = jg.mmrm(formula.replace("us(", "cs("), trial, vcov="empirical-bias-reduced")
print(np.round(robust.se / fit.se, 2))

# %% [markdown]
# Hundreds of simulated trials in one program: how often is the effect found?

# %%
Y = fit.simulate(200, seed=1).T
many = jg.fit_many(
    "change ~ base + arm * visit",
    trial,
    responses=Y,
    residual="us(visit | patient)",
)
column = list(many.coefficient_names).index("arm[T.drug]:visit[T.week 12]")
found = np.mean(many.p_values[:, column] < 0.05)
print(f"found in {100 * found:.0f} % of {len(many)} trials")

assert many.converged.mean() > 0.99
