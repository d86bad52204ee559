"""Mixed models on JAX: formulas in, lme4-like results out.

>>> import jaxglmm as jg
>>> sleep = jg.datasets.load("sleepstudy")
>>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
>>> round(fit.criterion, 4)
1743.6283

Every name below is imported when it is first used, so that ``import jaxglmm`` is quick
and leaves JAX's global settings and devices alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from jaxglmm._version import __version__ as __version__

if TYPE_CHECKING:  # what the table below says, for editors and type checkers
    from jaxglmm import datasets as datasets
    from jaxglmm import executors as executors
    from jaxglmm._errors import ArgumentError as ArgumentError
    from jaxglmm._errors import CacheWarning as CacheWarning
    from jaxglmm._errors import ComparisonError as ComparisonError
    from jaxglmm._errors import ConvergenceWarning as ConvergenceWarning
    from jaxglmm._errors import DataError as DataError
    from jaxglmm._errors import DispersionWarning as DispersionWarning
    from jaxglmm._errors import FormulaError as FormulaError
    from jaxglmm._errors import JaxGLMMError as JaxGLMMError
    from jaxglmm._errors import JaxGLMMWarning as JaxGLMMWarning
    from jaxglmm._errors import MissingRowsWarning as MissingRowsWarning
    from jaxglmm._errors import ModelError as ModelError
    from jaxglmm._errors import NewLevelsWarning as NewLevelsWarning
    from jaxglmm._errors import NotApplicableError as NotApplicableError
    from jaxglmm._errors import NotEstimableWarning as NotEstimableWarning
    from jaxglmm._errors import PosteriorWarning as PosteriorWarning
    from jaxglmm._errors import PriorWeightsWarning as PriorWeightsWarning
    from jaxglmm._errors import RankDeficientWarning as RankDeficientWarning
    from jaxglmm._errors import ScaleWarning as ScaleWarning
    from jaxglmm._errors import SeparationWarning as SeparationWarning
    from jaxglmm._errors import SingularFitWarning as SingularFitWarning
    from jaxglmm._errors import ZeroInflationWarning as ZeroInflationWarning
    from jaxglmm.api.comparing import compare_models as compare_models
    from jaxglmm.api.comparing import pool as pool
    from jaxglmm.api.genomics import voom as voom
    from jaxglmm.api.many import fit_many as fit_many
    from jaxglmm.api.meta import meta as meta
    from jaxglmm.api.mmrm import mmrm as mmrm
    from jaxglmm.api.models import anova as anova
    from jaxglmm.api.models import glmm as glmm
    from jaxglmm.api.models import lmm as lmm
    from jaxglmm.api.models import load as load
    from jaxglmm.api.ordinal import clm as clm
    from jaxglmm.api.ordinal import clmm as clmm
    from jaxglmm.api.planning import design as design
    from jaxglmm.api.planning import power_curve as power_curve
    from jaxglmm.api.warm import warm as warm
    from jaxglmm.estimate.methods import MAP as MAP
    from jaxglmm.estimate.methods import NUTS as NUTS
    from jaxglmm.estimate.methods import VB as VB
    from jaxglmm.estimate.methods import NestedLaplace as NestedLaplace
    from jaxglmm.estimate.presets import AGQ as AGQ
    from jaxglmm.estimate.presets import ML as ML
    from jaxglmm.estimate.presets import REML as REML
    from jaxglmm.estimate.presets import Laplace as Laplace
    from jaxglmm.formula.known import KnownPrecision as KnownPrecision
    from jaxglmm.formula.relatedness import pedigree as pedigree
    from jaxglmm.formula.relatedness import phylogeny as phylogeny
    from jaxglmm.model.families import Bernoulli as Bernoulli
    from jaxglmm.model.families import Beta as Beta
    from jaxglmm.model.families import BetaBinomial as BetaBinomial
    from jaxglmm.model.families import Binomial as Binomial
    from jaxglmm.model.families import ConwayMaxwellPoisson as ConwayMaxwellPoisson
    from jaxglmm.model.families import Cumulative as Cumulative
    from jaxglmm.model.families import Gamma as Gamma
    from jaxglmm.model.families import Gaussian as Gaussian
    from jaxglmm.model.families import GeneralisedPoisson as GeneralisedPoisson
    from jaxglmm.model.families import InverseGaussian as InverseGaussian
    from jaxglmm.model.families import LognormalFamily as LognormalFamily
    from jaxglmm.model.families import Multinomial as Multinomial
    from jaxglmm.model.families import NegativeBinomial as NegativeBinomial
    from jaxglmm.model.families import OneInflatedBeta as OneInflatedBeta
    from jaxglmm.model.families import OrderedBeta as OrderedBeta
    from jaxglmm.model.families import Poisson as Poisson
    from jaxglmm.model.families import SkewNormal as SkewNormal
    from jaxglmm.model.families import StudentT as StudentT
    from jaxglmm.model.families import (
        TruncatedNegativeBinomial1 as TruncatedNegativeBinomial1,
    )
    from jaxglmm.model.families import (
        TruncatedNegativeBinomial2 as TruncatedNegativeBinomial2,
    )
    from jaxglmm.model.families import TruncatedPoisson as TruncatedPoisson
    from jaxglmm.model.families import Tweedie as Tweedie
    from jaxglmm.model.priors.distributions import LKJ as LKJ
    from jaxglmm.model.priors.distributions import Exponential as Exponential
    from jaxglmm.model.priors.distributions import Fixed as Fixed
    from jaxglmm.model.priors.distributions import HalfNormal as HalfNormal
    from jaxglmm.model.priors.distributions import HalfT as HalfT
    from jaxglmm.model.priors.distributions import LogNormal as LogNormal
    from jaxglmm.model.priors.distributions import Normal as Normal
    from jaxglmm.model.priors.distributions import Priors as Priors
    from jaxglmm.model.priors.distributions import Uniform as Uniform
    from jaxglmm.postestimation.report.side_by_side import table as table
    from jaxglmm.results.fit import Fit as Fit
    from jaxglmm.results.fits import Fits as Fits
    from jaxglmm.runtime.cache import (
        disable_compilation_cache as disable_compilation_cache,
    )
    from jaxglmm.runtime.cache import (
        enable_compilation_cache as enable_compilation_cache,
    )
    from jaxglmm.runtime.levels import on_devices as on_devices

_ERRORS = (
    "ArgumentError",
    "CacheWarning",
    "ComparisonError",
    "ConvergenceWarning",
    "DataError",
    "DispersionWarning",
    "FormulaError",
    "JaxGLMMError",
    "JaxGLMMWarning",
    "MissingRowsWarning",
    "ModelError",
    "NewLevelsWarning",
    "NotApplicableError",
    "NotEstimableWarning",
    "PosteriorWarning",
    "PriorWeightsWarning",
    "RankDeficientWarning",
    "ScaleWarning",
    "SeparationWarning",
    "SingularFitWarning",
    "ZeroInflationWarning",
)

_FAMILIES = (
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "ConwayMaxwellPoisson",
    "Cumulative",
    "Gamma",
    "Gaussian",
    "GeneralisedPoisson",
    "InverseGaussian",
    "LognormalFamily",
    "Multinomial",
    "NegativeBinomial",
    "OneInflatedBeta",
    "OrderedBeta",
    "Poisson",
    "SkewNormal",
    "StudentT",
    "TruncatedNegativeBinomial1",
    "TruncatedNegativeBinomial2",
    "TruncatedPoisson",
    "Tweedie",
)

_BAYES = ("MAP", "NUTS", "VB", "NestedLaplace")

_PRIORS = (
    "LKJ",
    "Exponential",
    "Fixed",
    "HalfNormal",
    "HalfT",
    "LogNormal",
    "Normal",
    "Priors",
    "Uniform",
)

_WHERE = {  # public name -> module that holds it
    "AGQ": "jaxglmm.estimate.presets",
    "Laplace": "jaxglmm.estimate.presets",
    "ML": "jaxglmm.estimate.presets",
    "REML": "jaxglmm.estimate.presets",
    "Fit": "jaxglmm.results.fit",
    "Fits": "jaxglmm.results.fits",
    "anova": "jaxglmm.api.models",
    "clm": "jaxglmm.api.ordinal",
    "clmm": "jaxglmm.api.ordinal",
    "compare_models": "jaxglmm.api.comparing",
    "disable_compilation_cache": "jaxglmm.runtime.cache",
    "enable_compilation_cache": "jaxglmm.runtime.cache",
    "on_devices": "jaxglmm.runtime.levels",
    "fit_many": "jaxglmm.api.many",
    "glmm": "jaxglmm.api.models",
    "lmm": "jaxglmm.api.models",
    "load": "jaxglmm.api.models",
    "table": "jaxglmm.postestimation.report.side_by_side",
    "warm": "jaxglmm.api.warm",
    "mmrm": "jaxglmm.api.mmrm",
    "meta": "jaxglmm.api.meta",
    "pedigree": "jaxglmm.formula.relatedness",
    "pool": "jaxglmm.api.comparing",
    "design": "jaxglmm.api.planning",
    "power_curve": "jaxglmm.api.planning",
    "voom": "jaxglmm.api.genomics",
    "phylogeny": "jaxglmm.formula.relatedness",
    "KnownPrecision": "jaxglmm.formula.known",
    **dict.fromkeys(_ERRORS, "jaxglmm._errors"),
    **dict.fromkeys(_FAMILIES, "jaxglmm.model.families"),
    **dict.fromkeys(_BAYES, "jaxglmm.estimate.methods"),
    **dict.fromkeys(_PRIORS, "jaxglmm.model.priors.distributions"),
}

_SUBMODULES = (
    "compat",
    "datasets",
    "density",
    "estimate",
    "executors",
    "integrate",
    "plots",
    "sklearn",
    "spreadsheet",
    "structure",
)

__all__ = [
    "AGQ",
    "LKJ",
    "MAP",
    "ML",
    "NUTS",
    "REML",
    "VB",
    "ArgumentError",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "CacheWarning",
    "ComparisonError",
    "ConvergenceWarning",
    "ConwayMaxwellPoisson",
    "Cumulative",
    "DataError",
    "DispersionWarning",
    "Exponential",
    "Fit",
    "Fits",
    "Fixed",
    "FormulaError",
    "Gamma",
    "Gaussian",
    "GeneralisedPoisson",
    "HalfNormal",
    "HalfT",
    "InverseGaussian",
    "JaxGLMMError",
    "JaxGLMMWarning",
    "KnownPrecision",
    "Laplace",
    "LogNormal",
    "LognormalFamily",
    "MissingRowsWarning",
    "ModelError",
    "Multinomial",
    "NegativeBinomial",
    "NestedLaplace",
    "NewLevelsWarning",
    "Normal",
    "NotApplicableError",
    "NotEstimableWarning",
    "OneInflatedBeta",
    "OrderedBeta",
    "Poisson",
    "PosteriorWarning",
    "PriorWeightsWarning",
    "Priors",
    "RankDeficientWarning",
    "ScaleWarning",
    "SeparationWarning",
    "SingularFitWarning",
    "SkewNormal",
    "StudentT",
    "TruncatedNegativeBinomial1",
    "TruncatedNegativeBinomial2",
    "TruncatedPoisson",
    "Tweedie",
    "Uniform",
    "ZeroInflationWarning",
    "anova",
    "clm",
    "clmm",
    "compare_models",
    "datasets",
    "design",
    "disable_compilation_cache",
    "enable_compilation_cache",
    "executors",
    "fit_many",
    "glmm",
    "lmm",
    "load",
    "meta",
    "mmrm",
    "on_devices",
    "pedigree",
    "phylogeny",
    "pool",
    "power_curve",
    "table",
    "voom",
    "warm",
]


def __getattr__(name: str) -> object:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # found once
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES, "__all__", "__doc__", "__version__"})
