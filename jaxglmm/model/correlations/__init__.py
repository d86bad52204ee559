"""Correlations of positions by few numbers: random effects and residuals share them."""

from jaxglmm.model.correlations.base import AbstractByDistance as AbstractByDistance
from jaxglmm.model.correlations.base import AbstractCorrelation as AbstractCorrelation
from jaxglmm.model.correlations.kernels import AbstractKernel as AbstractKernel
from jaxglmm.model.correlations.kernels import Exponential as Exponential
from jaxglmm.model.correlations.kernels import Gaussian as Gaussian
from jaxglmm.model.correlations.kernels import Matern as Matern
from jaxglmm.model.correlations.steps import Antedependence as Antedependence
from jaxglmm.model.correlations.steps import Autoregressive as Autoregressive
from jaxglmm.model.correlations.steps import Exchangeable as Exchangeable
from jaxglmm.model.correlations.steps import MovingAverage as MovingAverage
from jaxglmm.model.correlations.steps import Toeplitz as Toeplitz
