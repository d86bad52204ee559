# %% [markdown]
# # Counts with too many zeros
#
# Salamanders on streams with and without mining (Price et al. 2016): most visits saw
# none. Either a site may have none to be seen (zero inflation), or whether any is seen
# and how many are two questions (a hurdle).

# %%
import jaxglmm as jg

data = jg.datasets.load("Salamanders")
formula = "count ~ mined + (1 | site)"

poisson = jg.glmm(formula, data, family="poisson")
print("more zeros than a Poisson model makes:", poisson.zero_inflation(100))

zip_fit = jg.glmm(formula, data, family="poisson", zi="~ mined")
print(zip_fit.summary())
assert zip_fit.aic < poisson.aic - 300
print(jg.anova(poisson, zip_fit))

# %%
# the mean with zeros, without them, and the probability of an added zero
new = {"mined": ["yes", "no"]}
for what in ("response", "conditional", "zprob"):
    table = zip_fit.predict(
        new, re="population", type=what, se=True, interval="confidence"
    )
    print(what, table.round(3), sep="\n")

# %%
# a hurdle: zeros by one model, positive counts by another
hurdle = jg.glmm(formula, data, family="truncated_poisson", zi="~ mined")
print("hurdle:", hurdle.fixef["zi"], "AIC", round(hurdle.aic, 1))

# %%
# or the same zeros by more dispersion
negative_binomial = jg.glmm(formula, data, family="nbinom2")
both = jg.glmm(formula, data, family="nbinom2", zi="~ mined")
for name, fit in {"nbinom2": negative_binomial, "with zi": both}.items():
    print(f"{name}: AIC {fit.aic:.1f}")
print(both.check(100))

# %%
# many responses of one design at once
Y = zip_fit.simulate(20, seed=1).T
fits = jg.fit_many(
    "y ~ mined + (1 | site)", data, responses=Y, family="poisson", zi="~ mined"
)
print(fits.frame().describe().round(2))
