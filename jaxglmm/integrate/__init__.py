"""Variables taken out of a density: what is left is a function of the parameters.

``log_marginal(params, problem)`` is the exact marginal log-density of a linear mixed
model, a plain function to jit, differentiate and vmap (``jaxglmm.density`` has the
joint density and an example). ``exact`` holds the profiled criterion with its analytic
score and average information, on which fits run; ``laplace`` and ``quadrature`` the
approximations for models that are not Gaussian.
"""

from jaxglmm.integrate.marginal import log_marginal as log_marginal

__all__ = ["log_marginal"]
