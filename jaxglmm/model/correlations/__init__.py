"""Correlations of positions by few numbers: random effects and residuals share them."""

from jaxglmm.model.correlations.base import AbstractByDistance as AbstractByDistance
from jaxglmm.model.correlations.base import AbstractCorrelation as AbstractCorrelation
from jaxglmm.model.correlations.kernels import AbstractKernel as AbstractKernel
from jaxglmm.model.correlations.kernels import ExponentialKernel as ExponentialKernel
from jaxglmm.model.correlations.kernels import GaussianKernel as GaussianKernel
from jaxglmm.model.correlations.kernels import MaternKernel as MaternKernel
from jaxglmm.model.correlations.steps import Antedependence as Antedependence
from jaxglmm.model.correlations.steps import Autoregressive as Autoregressive
from jaxglmm.model.correlations.steps import Exchangeable as Exchangeable
from jaxglmm.model.correlations.steps import MovingAverage as MovingAverage
from jaxglmm.model.correlations.steps import Toeplitz as Toeplitz
