# %% [markdown]
# # Structured and known covariances of random effects, and a meta-analysis

# %%
import numpy as np
import pandas as pd

import jaxglmm as jg

rng = np.random.default_rng(7)

# %% [markdown]
# 40 subjects at 6 unequal times: an Ornstein-Uhlenbeck process and noise

# %%
times = np.array([0.0, 1.0, 2.0, 4.0, 6.0, 9.0])
R = np.exp(-np.abs(times[:, None] - times[None]) / 2.5)
process = rng.normal(size=(40, 6)) @ np.linalg.cholesky(R).T
data = pd.DataFrame(
    {
        "subject": np.repeat(np.arange(40), 6),
        "time": np.tile(times, 40),
        "x": rng.normal(size=240),
    }
)
data["y"] = 1 + 0.5 * data["x"] + process.ravel() + 0.3 * rng.normal(size=240)
data["visit"] = pd.Categorical(data["time"])

ou = jg.lmm("y ~ x + ou(0 + time | subject)", data)
print(ou.varcorr)
assert ou.varcorr["subject"].parameters["range"] > 1
print(ou.confint(method="profile").round(3))

# %% [markdown]
# the structure says how like its neighbours a time is that nobody was seen at

# %%
new = pd.DataFrame({"x": 0.0, "time": [1.0, 1.5, 2.0, 30.0], "subject": 0})
print(ou.predict(new, interval="prediction").round(3))

# %% [markdown]
# visits one step apart, glmmTMB's and lme4's words; one sd, or one a visit

# %%
for term in ("ar1(0 + visit | subject)", "ar1(visit | subject, het=True)"):
    fit = jg.lmm(f"y ~ x + {term}", data)
    print(term, round(fit.aic, 1), fit.varcorr["subject"].parameters["cor"])

# %% [markdown]
# known relationships: full sibs share half of their genes

# %%
A = jg.pedigree(
    animal=[f"a{i}" for i in range(60)],
    sire=[None] * 20 + [f"a{i // 2 % 10}" for i in range(40)],
    dam=[None] * 20 + [f"a{10 + i // 2 % 10}" for i in range(40)],
)
b = np.linalg.cholesky(A.to_numpy()) @ rng.normal(size=60)
herd = pd.DataFrame({"id": np.repeat(A.index, 3)})
herd["weight"] = 5 + np.repeat(b, 3) + 0.7 * rng.normal(size=180)
animal = jg.lmm("weight ~ 1 + (1 | id)", herd, known={"id": A})
print(animal.varcorr)

# %% [markdown]
# known sampling variances

# %%
studies = pd.DataFrame({"yi": [0.12, 0.41, 0.33, 0.9, 0.05], "vi": [4, 2, 5, 3, 4]})
studies["vi"] /= 100
print(jg.meta("yi ~ 1", studies, "vi", test="knha"))
