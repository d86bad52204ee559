# %% [markdown]
# # Ordered and unordered categories
#
# Answers to 24 questions on verbal aggression (De Boeck and Wilson 2004): would you
# curse, scold or shout? "no", "perhaps" or "yes". The categories have an order and no
# distance, so the model is one of cumulative probabilities,
#
# logit P(answer <= j) = theta_j - (x'beta + person + question).

# %%
import pandas as pd

import jaxglmm as jg

data = jg.datasets.load("VerbAgg")
levels = ["no", "perhaps", "yes"]
formula = "resp ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)"
fit = jg.clmm(formula, data, levels=levels)
print(fit.summary())
assert abs(fit.log_likelihood + 6366.0) < 0.1
assert list(fit.thresholds.index) == ["no|perhaps", "perhaps|yes"]

# %% [markdown]
# ## Probabilities
#
# Of a question that nobody has seen (random effects of zero), with standard errors by
# the delta method from thresholds, coefficients and all; and the most probable answer.

# %%
new = pd.DataFrame(
    {"Anger": 20, "Gender": ["F", "M"], "btype": "curse", "situ": "other"}
)
table = fit.predict(new, re="population", type="probs", se=True)
print(table.round(3))
assert table["fit"].sum(axis=1).round(12).eq(1).all()
print(fit.predict(new, re="population", type="class"))
means = fit.predictions(by="btype", type="probs")
print(means[["btype", "category", "estimate", "std_error"]].round(3))

# %% [markdown]
# ## Does an effect depend on the threshold?
#
# Proportional odds say that a man moves "no" against the rest as he moves all against
# "yes". Partial proportional odds let that differ from threshold to threshold
# (``nominal=``). The models are nested, and a likelihood ratio compares them.

# %%
fewer = "resp ~ btype + situ + (1 | id)"
one = jg.clmm(f"{fewer.replace('~', '~ Gender +')}", data, levels=levels)
each = jg.clmm(fewer, data, levels=levels, nominal="~ Gender")
print(each.thresholds.round(3))
print(jg.anova(one, each))
assert each.log_likelihood > one.log_likelihood

# %% [markdown]
# ## Without an order
#
# A multinomial model has a linear predictor for every answer but the first, and effects
# of a person that are correlated across answers: here people who say "yes" more often
# say "perhaps" more often, too.

# %%
nominal = jg.glmm("resp ~ btype + (1 | id)", data, family=jg.Multinomial(levels=levels))
print(nominal.varcorr)
print(nominal.predict(new, re="population", type="probs").round(3))
assert nominal.varcorr["id"].corr.iloc[0, 1] > 0
