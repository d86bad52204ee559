# %% [markdown]
# # A family of one's own
#
# A family needs a name and a log density in JAX; its derivatives follow by automatic
# differentiation. Here counts whose zeros were never recorded: a Poisson distribution
# that is cut off at zero, P(y) = Poisson(y) / (1 - exp(-mu)), y = 1, 2, ...

# %%
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

import jaxglmm as jg
from jaxglmm.model.families import AbstractFamily


class TruncatedPoisson(AbstractFamily):
    """Counts from one on."""

    name: ClassVar[str] = "truncated-poisson"
    default_link: ClassVar[str] = "log"
    padding: ClassVar[float] = 1.0

    def log_density(self, y, eta, phi, trials=1.0):
        mu = jnp.exp(eta)
        return y * eta - mu - gammaln(y + 1) - jnp.log(-jnp.expm1(-mu))


# %% [markdown]
# The optimiser asks for value, score, weight and the slope of the weight, a row at a
# time. They are right: the score is y - E y, the weight is the variance.

# %%
family = TruncatedPoisson()
with jax.enable_x64(True):
    y, eta = jnp.array([1.0, 2.0, 5.0]), jnp.array([-1.0, 0.3, 1.2])
    density, score, weight, slope = (
        np.asarray(v) for v in family.derivatives(y, eta, jnp.zeros(0))
    )
    mu = np.exp(np.asarray(eta))
mean = mu / (1 - np.exp(-mu))
assert np.allclose(score, np.asarray(y) - mean)
assert np.allclose(weight, mean * (1 + mu - mean))
print("score ", score.round(4))
print("weight", weight.round(4))

# %% [markdown]
# It fits like any other. Litters of 60 sows, their sizes never zero: what a Poisson
# model makes of them is biased, the truncated one finds the truth.

# %%
rng = np.random.default_rng(7)
sow = np.repeat(np.arange(60), 10)
x = rng.normal(size=600)
mean = np.exp(0.2 + 0.5 * x + 0.4 * rng.normal(size=60)[sow])
y = rng.poisson(mean)
seen = y > 0
data = {"y": y[seen], "x": x[seen], "sow": sow[seen]}

fit = jg.glmm("y ~ x + (1 | sow)", data, family=TruncatedPoisson())
naive = jg.glmm("y ~ x + (1 | sow)", data, family="poisson")
print(fit.summary())
assert fit.converged
assert abs(fit.fixef["x"] - 0.5) < 3 * fit.se[1]
assert naive.fixef["(Intercept)"] > 0.2 + 3 * naive.se[0]

# %% [markdown]
# What results need beyond that (variances, draws, distribution functions) is one method
# each, in NumPy: `variance`, `simulate`, `cdf`. Without them the family fits, and the
# parts of the results that need them say which method is missing.

# %%
try:
    family.cdf(np.array([1.0]), np.array([1.0]), np.zeros(0))
except ValueError as message:
    print(message)
