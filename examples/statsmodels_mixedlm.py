# %% [markdown]
# # statsmodels' page on mixed linear models, with another import
#
# The calls of the page "Linear Mixed Effects Models" of statsmodels' documentation, in
# its order. Only the imports differ. The page's second data set is not shipped;
# orthodontic growth (Potthoff and Roy 1964) stands in under the same column names.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np

import jaxglmm.compat.statsmodels.api as sm
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels.tools.sm_exceptions import ConvergenceWarning

# %% Growth curves of pigs: a random intercept for each
data = sm.datasets.get_rdataset("dietox", "geepack").data
md = smf.mixedlm("Weight ~ Time", data, groups=data["Pig"])
mdf = md.fit(method=["lbfgs"])
print(mdf.summary())
assert abs(-2 * mdf.llf - 4809.6) < 0.1  # lme4's REML criterion

# %% ... and a random slope
md = smf.mixedlm("Weight ~ Time", data, groups=data["Pig"], re_formula="~Time")
correlated = md.fit(method=["lbfgs"])
print(correlated.summary())
assert abs(-2 * correlated.llf - 4434.1) < 0.1

# %% ... that is independent of the intercept
free = sm.regression.mixed_linear_model.MixedLMParams.from_components(
    np.ones(2), np.eye(2)
)
mdf = md.fit(free=free, method=["lbfgs"])
print(mdf.summary())
assert abs(-2 * mdf.llf - 4434.7) < 0.1

# %% Arrays instead of formulas
data = sm.datasets.get_rdataset("Orthodont", "nlme").data
data = data.rename(columns={"distance": "size", "age": "Time", "Subject": "tree"})
endog = data["size"]
data["Intercept"] = 1
exog = data[["Intercept", "Time"]]
md = sm.MixedLM(endog, exog, groups=data["tree"], exog_re=exog["Intercept"])
mdf = md.fit()
print(mdf.summary())

# %%
exog_re = exog.copy()
md = sm.MixedLM(endog, exog, data["tree"], exog_re)
mdf = md.fit()
print(mdf.summary())

# %% Profile likelihoods of the variances
with warnings.catch_warnings():
    warnings.filterwarnings("ignore")
    likev = mdf.profile_re(0, "re", dist_low=0.1, dist_high=0.1)
assert likev.shape == (11, 2)
assert likev[:, 1].argmax() == 5

plt.figure(figsize=(10, 8))
plt.plot(likev[:, 0], 2 * likev[:, 1])
plt.xlabel("Variance of random intercept", size=17)
plt.ylabel("-2 times profile log likelihood", size=17)

re = mdf.cov_re.iloc[1, 1]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    likev = mdf.profile_re(1, "re", dist_low=0.5 * re, dist_high=0.8 * re)
assert np.abs(likev[5] - [re, mdf.llf]).max() < 1e-6

# %% What statsmodels does not give: AIC under REML, degrees of freedom, zero profiled
print(f"AIC {mdf.aic:.2f}")
print(mdf.t_test("Time = 0", ddf="satterthwaite"))
zero = mdf.profile_re(1, "re", num_low=1, dist_low=re, num_high=1, dist_high=re)
assert zero[0, 0] == 0.0
assert zero[0, 1] < mdf.llf
