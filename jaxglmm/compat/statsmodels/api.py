"""The names of ``statsmodels.api`` that are served.

>>> import jaxglmm.compat.statsmodels.api as sm
>>> pigs = sm.datasets.get_rdataset("dietox", "geepack").data
>>> model = sm.MixedLM.from_formula("Weight ~ Time", pigs, groups="Pig")
>>> model.n_groups
72
"""

from jaxglmm.compat.statsmodels import datasets as datasets
from jaxglmm.compat.statsmodels import load as load
from jaxglmm.compat.statsmodels import regression as regression
from jaxglmm.compat.statsmodels.mixedlm import MixedLM as MixedLM
