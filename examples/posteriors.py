# %% [markdown]
# # One posterior, four ways to it
#
# Disease in fifteen herds once more (Lesnoff et al., 2004), now with priors. The same
# formula and the same data; `method=` says how the posterior is found.

# %%
import numpy as np

import jaxglmm as jg

cbpp = jg.datasets.load("cbpp")
formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
belief = jg.Priors(coefficients=1.5, sd=jg.HalfNormal(1))

# %% [markdown]
# The default to start from: importance sampling around the mode, the herds integrated
# out. Every prior that was not given has a default, and all of them are printed.

# %%
fit = jg.glmm(formula, cbpp, method="nested-laplace", priors=belief)
print(fit.summary())

assert fit.khat < 0.5
assert "default" in str(fit.priors)

# %% [markdown]
# The certificate says how far this can be trusted, with numbers: what the search left,
# what the weights of the draws are like, and what finer quadrature would change.

# %%
print(fit.certificate)

assert fit.certificate.verdict == "trust"

# %% [markdown]
# Any question about parameters is one about draws: how likely is it that herds differ
# by more than half a logit?

# %%
draws = fit.posterior.frame()
share = (draws["sd_(Intercept)|herd"] > 0.5).mean()
print(f"P(sd > 0.5) = {share:.2f}")

assert 0.85 < share < 0.93

# %% [markdown]
# Three other ways: the mode and its Gaussian, variational Bayes, and NUTS, which takes
# nothing about the shape for granted. They agree.

# %%
for method in ("map", "vb", jg.NUTS(draws=500)):
    other = jg.glmm(formula, cbpp, method=method, priors=belief)
    shift = np.abs(other.coefficients - fit.coefficients) / fit.se
    print(f"{shift.max():.3f} sds away; {other.method}")
    assert shift.max() < 0.15
    assert np.abs(other.se / fit.se - 1).max() < 0.1

# %% [markdown]
# The prior matters where data are few: with a tight one herds are pulled together.

# %%
tight = jg.Priors(coefficients=1.5, sd=jg.Exponential.tail(0.5, 0.01))
pulled = jg.glmm(formula, cbpp, method="nested-laplace", priors=tight)
spread = [f.ranef["herd"].to_numpy().std() for f in (fit, pulled)]
print(np.round(spread, 3))

assert spread[1] < spread[0]
