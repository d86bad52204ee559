"""Worksheet functions: lists of rows in, a list of rows out, never an exception.

>>> from jaxglmm.spreadsheet import glmm_poisson
>>> y = [[2], [3], [5], [1], [2], [4]]
>>> x = [[1], [2], [3], [1], [2], [3]]
>>> groups = [[1], [1], [1], [2], [2], [2]]
>>> table = glmm_poisson(y, x, groups)
>>> len(table), table[1][:2]
(8, ['fixed_effects', 'Intercept'])
>>> glmm_poisson(y, x, [[1], [2]])
'Invalid input: y and groups must have the same number of rows.'

``jaxglmm serve`` offers them to spreadsheets over HTTP, ``jaxglmm calc`` evaluates the
formulas of a workbook, and ``jaxglmm libreoffice`` makes an extension of LibreOffice
Calc.
"""

from jaxglmm.spreadsheet.functions import clmm as clmm
from jaxglmm.spreadsheet.functions import glmm_binomial as glmm_binomial
from jaxglmm.spreadsheet.functions import glmm_gaussian as glmm_gaussian
from jaxglmm.spreadsheet.functions import glmm_negbin as glmm_negbin
from jaxglmm.spreadsheet.functions import glmm_poisson as glmm_poisson
from jaxglmm.spreadsheet.functions import glmm_zinb as glmm_zinb
from jaxglmm.spreadsheet.functions import lmm as lmm
from jaxglmm.spreadsheet.functions import mmrm as mmrm

__all__ = [
    "clmm",
    "glmm_binomial",
    "glmm_gaussian",
    "glmm_negbin",
    "glmm_poisson",
    "glmm_zinb",
    "lmm",
    "mmrm",
]
