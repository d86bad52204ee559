"""Priors: distributions as users write them, and the joint priors made of them."""

from jaxglmm.model.priors.distributions import LKJ as LKJ
from jaxglmm.model.priors.distributions import Exponential as Exponential
from jaxglmm.model.priors.distributions import Fixed as Fixed
from jaxglmm.model.priors.distributions import HalfNormal as HalfNormal
from jaxglmm.model.priors.distributions import HalfT as HalfT
from jaxglmm.model.priors.distributions import LogNormal as LogNormal
from jaxglmm.model.priors.distributions import Normal as Normal
from jaxglmm.model.priors.distributions import Priors as Priors
