# %% [markdown]
# # Disease in herds: a generalised model from first fit to last check
#
# Contagious bovine pleuropneumonia in fifteen herds, over four periods: how many
# animals fell ill out of how many (Lesnoff et al., 2004). Herds differ, and the disease
# dies down.

# %%
import numpy as np

import jaxglmm as jg

cbpp = jg.datasets.load("cbpp")
print(cbpp.head())

# %% [markdown]
# The response is successes and failures, as in R. `(1 | herd)` gives every herd its own
# level of risk. Laplace's approximation integrates the herds out.

# %%
formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
fit = jg.glmm(formula, cbpp, family="binomial")
print(fit.summary())

assert fit.converged
assert np.isclose(fit.criterion, 184.052564, atol=1e-5)
assert np.isclose(fit.varcorr["herd"].sd.iloc[0], 0.642261, rtol=1e-4)
assert np.allclose(fit.se, [0.232472, 0.306642, 0.326638, 0.427436], rtol=1e-4)

# %% [markdown]
# Coefficients are log odds; odds ratios are easier to talk about. In the fourth period
# the odds of falling ill are a fifth of what they were in the first.

# %%
ratios = fit.tidy(exponentiate=True, conf_int=True).set_index("term")
print(ratios[["estimate", "conf_low", "conf_high", "p_value"]].round(3))

assert np.isclose(ratios.loc["period[T.4]", "estimate"], np.exp(-1.580314), rtol=1e-4)

# %% [markdown]
# How good is Laplace here? Quadrature with 25 nodes is exact for all purposes: the
# log-likelihood moves by 0.04, the standard deviation of herds by one per cent.

# %%
exact = jg.glmm(formula, cbpp, method=jg.AGQ(25))
print(round(fit.log_likelihood, 4), round(exact.log_likelihood, 4))

assert np.isclose(exact.criterion, 183.966738, atol=1e-5)

# %% [markdown]
# Two averages that differ: the risk in the average *herd*, and the average *risk* over
# herds. Herds of high risk weigh more in the second.

# %%
periods = {"period": ["1", "2", "3", "4"]}
typical = fit.predict(periods, re="population")
average = fit.predict(periods, re="marginal")
print(np.round(typical, 4), np.round(average, 4))

assert (average > typical).all()
assert np.isclose(typical[0], 1 / (1 + np.exp(1.398532)), rtol=1e-4)

# %% [markdown]
# Does the model produce data like these? Simulated residuals are uniform if it does.

# %%
check = fit.simulated_residuals(seed=1)
print(check)
print(fit.overdispersion())
