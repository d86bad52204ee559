"""Residual structures of linear models: correlations, scales, and the table of them."""

from jaxglmm.model.residuals.correlations import Correlation as Correlation
from jaxglmm.model.residuals.correlations import Pairs as Pairs
from jaxglmm.model.residuals.structures import correlation as correlation
from jaxglmm.model.residuals.structures import title as title
