"""Text and tables to a ``Design``: formulas, factors, missing rows. No JAX here."""

from jaxglmm.formula.arrays import design_from_arrays as design_from_arrays
from jaxglmm.formula.checks import check_generalised as check_generalised
from jaxglmm.formula.checks import check_linear as check_linear
from jaxglmm.formula.checks import check_quadrature as check_quadrature
from jaxglmm.formula.components import design_of_components as design_of_components
from jaxglmm.formula.context import caller_context as caller_context
from jaxglmm.formula.design import Design as Design
from jaxglmm.formula.design import FixedTerm as FixedTerm
from jaxglmm.formula.design import NewRows as NewRows
from jaxglmm.formula.design import RandomTerm as RandomTerm
from jaxglmm.formula.design import Recipe as Recipe
from jaxglmm.formula.design import ResidualTerm as ResidualTerm
from jaxglmm.formula.evaluate import known_functions_only as known_functions_only
from jaxglmm.formula.recipes import recipe_from_dict as recipe_from_dict
from jaxglmm.formula.smooths import design_from_formula as design_from_formula
