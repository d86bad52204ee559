# %% [markdown]
# # Reaction times and sleep: a mixed model from first plot to last test
#
# Eighteen subjects slept three hours a night and were tested every day (Belenky et al.,
# 2003). How much slower do people get, and how much do they differ? The cells can be
# run one by one in an editor that knows `# %%`, or all at once: `python sleepstudy.py`.

# %%
import numpy as np

import jaxglmm as jg

sleep = jg.datasets.load("sleepstudy")
print(sleep.head())

# %% [markdown]
# Each subject gets a line of their own: `(Days | Subject)` is a random intercept and a
# random slope, correlated. The fixed effects are the average line.

# %%
fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
print(fit.summary())

assert fit.converged
assert not fit.is_singular
assert np.isclose(fit.criterion, 1743.628272, atol=1e-5)
assert np.isclose(fit.fixef["Days"], 10.467286, atol=1e-4)
assert np.allclose(fit.varcorr["Subject"].sd, [24.740448, 5.922133], rtol=1e-4)
assert np.allclose(fit.df_satterthwaite, 17, rtol=1e-4)

# %% [markdown]
# Where does each subject lie? The conditional modes are deviations from the average
# line. Subject 335 does not slow down at all; 308 does so twice as fast as the average.

# %%
modes = fit.ranef["Subject"]
print(modes.sort_values("Days").round(2))

assert str(modes["Days"].idxmin()) == "335"
assert np.isclose(modes.loc["308", "Days"], 9.198972, rtol=1e-4)

# %% [markdown]
# Is the slope's variation real? A likelihood-ratio test against a model in which all
# subjects slow down alike. Both differ only in random effects, and are fitted by ML.

# %%
alike = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False)
lines = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
comparison = jg.anova(alike, lines)
print(comparison)

assert np.isclose(comparison.table["statistic"].iloc[1], 42.1393, rtol=1e-4)

# %% [markdown]
# Two weeks without sleep, for someone new and for subject 308. The interval for a new
# observation is wide: it holds the subject's own line and the scatter around it.

# %%
new = {"Days": [0, 7, 14], "Subject": ["308", "308", "308"]}
average = fit.predict(new, re="population", interval="confidence")
subject = fit.predict(new, re="conditional", interval="prediction")
print(average.round(1), subject.round(1), sep="\n")

assert np.allclose(average["fit"], [251.4051, 324.6761, 397.9471], rtol=1e-5)
assert (subject["upper"] - subject["lower"] > average["upper"] - average["lower"]).all()

# %% [markdown]
# Everything is a data frame where that helps.

# %%
print(fit.tidy(conf_int=True).round(3).to_string())
print(fit.glance().round(3).to_string())
