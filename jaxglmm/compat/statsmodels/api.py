"""The names of ``statsmodels.api``: mixed models are jaxglmm's.

All others (``OLS``, ``GLM``, ``stats``, ...) are statsmodels' own, where it is
installed.

>>> import jaxglmm.compat.statsmodels.api as sm
>>> pigs = sm.datasets.get_rdataset("dietox", "geepack").data
>>> model = sm.MixedLM.from_formula("Weight ~ Time", pigs, groups="Pig")
>>> model.n_groups
72
"""

from jaxglmm.compat.statsmodels import datasets as datasets
from jaxglmm.compat.statsmodels import load as load
from jaxglmm.compat.statsmodels import load as load_pickle
from jaxglmm.compat.statsmodels import regression as regression
from jaxglmm.compat.statsmodels import tools as tools
from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.bayes.model import (
    BinomialBayesMixedGLM as BinomialBayesMixedGLM,
)
from jaxglmm.compat.statsmodels.bayes.model import (
    PoissonBayesMixedGLM as PoissonBayesMixedGLM,
)
from jaxglmm.compat.statsmodels.formula import api as formula
from jaxglmm.compat.statsmodels.genmod import api as genmod
from jaxglmm.compat.statsmodels.mixedlm.model import MixedLM as MixedLM
from jaxglmm.compat.statsmodels.mixedlm.structure import VCSpec as VCSpec
from jaxglmm.compat.statsmodels.tools.tools import add_constant as add_constant

__all__ = [
    "BinomialBayesMixedGLM",
    "MixedLM",
    "PoissonBayesMixedGLM",
    "VCSpec",
    "add_constant",
    "datasets",
    "formula",
    "genmod",
    "load",
    "load_pickle",
    "regression",
    "tools",
]

__getattr__ = falling_through(__name__, "statsmodels.api")
