# %% [markdown]
# # statsmodels' page on variance components, with another import
#
# The models of the page "Variance Component Analysis" of statsmodels' documentation:
# nested and crossed, by formula and by matrices. The crossed one is a group with all
# rows; its levels are codes here, so that it is fitted in milliseconds.

# %%
import numpy as np
import pandas as pd

import jaxglmm.compat.statsmodels.api as sm
from jaxglmm.compat.statsmodels.regression.mixed_linear_model import VCSpec

rng = np.random.default_rng(3123)

# %% Schools (group 2) in districts (group 1), ten pupils each
districts, schools, pupils = 60, 20, 10
group1 = np.repeat(np.arange(districts), schools * pupils)
group2 = np.tile(np.repeat(np.arange(schools), pupils), districts)
effects1 = 2 * rng.normal(size=districts)[group1]
effects2 = 3 * rng.normal(size=(districts, schools))[group1, group2]
y = effects1 + effects2 + 4 * rng.normal(size=len(group1))
df = pd.DataFrame({"y": y, "group1": group1, "group2": group2})

model1 = sm.MixedLM.from_formula(
    "y ~ 1",
    re_formula="1",
    vc_formula={"group2": "0 + C(group2)"},
    groups="group1",
    data=df,
)
result1 = model1.fit()
print(result1.summary())
assert 6 < result1.vcomp[0] < 12  # 3 squared
assert 15 < result1.scale < 17  # 4 squared


# %% The same by matrices
def indicators(labels):
    levels = np.unique(labels)
    matrix = (np.asarray(labels)[:, None] == levels[None, :]).astype(float)
    return matrix, [str(level) for level in levels]


made = [indicators(own["group2"]) for _, own in df.groupby("group1")]
mats = [matrix for matrix, _ in made]
colnames = [names for _, names in made]
vcs = VCSpec(["group2"], [colnames], [mats])
oo = np.ones(df.shape[0])
model2 = sm.MixedLM(df.y, oo, exog_re=oo, groups=df.group1, exog_vc=vcs)
result2 = model2.fit()
print(result2.summary())
assert abs(result1.llf - result2.llf) < 1e-8

# %% Crossed: every level of one factor may meet every level of the other
n = 100
group1 = rng.permutation(np.repeat(np.arange(n), n * 4))
group2 = rng.permutation(np.repeat(np.arange(n), n * 4))
y = 2 * rng.normal(size=n)[group1] + 3 * rng.normal(size=n)[group2]
y = y + 4 * rng.normal(size=len(y))
df = pd.DataFrame({"y": y, "group1": group1, "group2": group2})

vc = {"g1": "0 + C(group1)", "g2": "0 + C(group2)"}
oo = np.ones(df.shape[0])
model3 = sm.MixedLM.from_formula("y ~ 1", groups=oo, vc_formula=vc, data=df)
result3 = model3.fit()
print(result3.summary())

# %%
made = [indicators(df.group1), indicators(df.group2)]
vcs = VCSpec(
    ["group1", "group2"], [[names] for _, names in made], [[m] for m, _ in made]
)
model4 = sm.MixedLM(df.y, oo[:, None], exog_re=None, groups=oo, exog_vc=vcs)
result4 = model4.fit()
print(result4.summary())
assert abs(result3.llf - result4.llf) < 1e-7
assert np.allclose(result3.vcomp, result4.vcomp)
