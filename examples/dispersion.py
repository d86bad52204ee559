# %% [markdown]
# # A dispersion of its own for each row
#
# The spread may say as much as the mean: which treatment makes results less reliable?
# ``dispersion=`` gives the logarithm of the residual sd (of the family's dispersion
# parameter otherwise) a formula.

# %%
import numpy as np

import jaxglmm as jg

rng = np.random.default_rng(1)
n, groups = 400, 40
group = np.repeat(np.arange(groups), n // groups)
arm = np.where(rng.random(n) < 0.5, "new", "old")
x = rng.normal(size=n)
sd = np.exp(-0.3 + 0.6 * (arm == "new"))
y = 1 + 0.5 * x + 0.7 * rng.normal(size=groups)[group] + sd * rng.normal(size=n)
data = {"y": y, "x": x, "arm": arm, "group": group}

plain = jg.glmm("y ~ x + (1 | group)", data, family="gaussian")
fit = jg.glmm("y ~ x + (1 | group)", data, family="gaussian", dispersion="~ arm")
print(fit.summary())
assert fit.aic < plain.aic - 40
print(jg.anova(plain, fit))

# %%
# the residual sd of each arm, with its limits
new = {"x": [0.0, 0.0], "arm": ["new", "old"]}
limits = fit.predict(new, re="population", type="disp", se=True, interval="confidence")
print(limits.round(3))

# %%
# counts: the size of a negative binomial by the day of the year
salamanders = jg.datasets.load("Salamanders")
counts = jg.glmm(
    "count ~ spp + mined + (1 | site)",
    salamanders,
    family="nbinom2",
    dispersion="~ DOY",
)
print(counts.tidy(conf_int=True).query("component == 'disp'").round(3))
