"""The front doors: the only files that know all layers."""

from jaxglmm.api.models import anova as anova
from jaxglmm.api.models import glmm as glmm
from jaxglmm.api.models import lmm as lmm
from jaxglmm.api.models import load as load

__all__ = ["anova", "glmm", "lmm", "load"]
