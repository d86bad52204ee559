"""A plugin of pytest: pystatistics' lmm and glmm replaced by jaxglmm's, names only.

pystatistics' test modules import both by name, and the class of its refusals; loaded
before them, this puts ours there.
"""

import pystatistics.core.exceptions
import pystatistics.mixed

import jaxglmm as jg

jg.enable_compilation_cache()
pystatistics.mixed.lmm, pystatistics.mixed.glmm = jg.lmm, jg.glmm
pystatistics.core.exceptions.ValidationError = jg.JaxGLMMError
