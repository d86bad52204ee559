"""Text and tables to a ``Design``: formulas, factors, missing rows. No JAX here."""

from jaxglmm.formula.build import design_from_formula as design_from_formula
from jaxglmm.formula.checks import check_linear as check_linear
from jaxglmm.formula.design import Design as Design
from jaxglmm.formula.design import FixedTerm as FixedTerm
from jaxglmm.formula.design import NewRows as NewRows
from jaxglmm.formula.design import RandomTerm as RandomTerm
from jaxglmm.formula.design import Recipe as Recipe
