"""Log-densities as plain functions, to jit, differentiate, vmap and put into a loss.

``log_joint(params, u, problem)`` is the joint log-density of the response and of the
random effects of a linear mixed model, all constants included;
``jaxglmm.integrate.log_marginal(params, problem)`` is the same with the random effects
integrated out. Both read the cross-products of a ``Problem`` and cost nothing in n.

Parameters are in the problem's own coordinates, where columns have been standardised
(``jaxglmm.structure``). Values are those of the response as given: differences between
models mean what they mean in ``Fit.log_likelihood``. The dtype is the caller's;
differences of log-likelihoods need float64.

>>> import jax
>>> import jaxglmm as jg
>>> from jaxglmm.density import Params, log_joint, zeros
>>> from jaxglmm.integrate import log_marginal
>>> sleep = jg.datasets.load("sleepstudy")
>>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
>>> fitted, _ = fit.engine.fit()
>>> with jax.enable_x64(True):
...     problem = fit.engine.problem
...     params = Params.of(fitted.theta, fitted.beta, fitted.sigma2)
...     at_optimum = jax.jit(log_marginal)(params, problem)
...     slope = jax.grad(log_marginal)(params, problem)
...     joint = log_joint(params, zeros(problem), problem)
>>> round(float(at_optimum - fit.log_likelihood), 6)
0.0
>>> round(float(abs(slope.theta).max()), 3), bool(joint < at_optimum)
(0.0, True)
"""

from jaxglmm.density.joint import effects as effects
from jaxglmm.density.joint import log_joint as log_joint
from jaxglmm.density.joint import zeros as zeros
from jaxglmm.density.params import Params as Params

__all__ = ["Params", "effects", "log_joint", "zeros"]
