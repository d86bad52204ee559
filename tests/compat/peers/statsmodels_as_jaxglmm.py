"""A plugin of pytest: statsmodels' mixed models replaced by jaxglmm's, names only.

statsmodels' own test modules import their classes by name; loaded before them, this
puts ours there. With ``JAXGLMM_JOINT=1`` the Bayesian classes' ``fit_map`` is the joint
mode by default, which is statsmodels' meaning of it.
"""

import os
from functools import partialmethod

import statsmodels.api
import statsmodels.formula.api
import statsmodels.genmod.bayes_mixed_glm
import statsmodels.regression.mixed_linear_model
import statsmodels.tools.sm_exceptions

import jaxglmm as jg
from jaxglmm.compat.statsmodels.formula import api as formula
from jaxglmm.compat.statsmodels.genmod import bayes_mixed_glm
from jaxglmm.compat.statsmodels.regression import mixed_linear_model
from jaxglmm.compat.statsmodels.tools import sm_exceptions

jg.enable_compilation_cache()


def put(ours, *places):
    for name in ours.__all__:
        for theirs in places:
            if hasattr(theirs, name):
                setattr(theirs, name, getattr(ours, name))


put(
    mixed_linear_model,
    statsmodels.regression.mixed_linear_model,
    statsmodels.api,
)
put(bayes_mixed_glm, statsmodels.genmod.bayes_mixed_glm, statsmodels.api)
put(formula, statsmodels.formula.api)
put(sm_exceptions, statsmodels.tools.sm_exceptions)

if os.environ.get("JAXGLMM_JOINT"):
    model = bayes_mixed_glm._BayesMixedGLM
    model.fit_map = partialmethod(model.fit_map, joint=True)
