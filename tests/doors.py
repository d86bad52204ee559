"""The doors by which tests reach below jaxglmm's public modules.

``from doors import Maximise``: where a name lives is said here and nowhere else in the
tests, so that a move is one edit. What stands under TYPE_CHECKING is never run; it is
read as a table, and a door opens when it is first asked for: a file loads what it uses.
"""

# ruff: noqa: F401 -- opened by name, below

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxglmm import _arguments, _brief, _errors, _status, formula
    from jaxglmm._errors import UnboundedLikelihoodError
    from jaxglmm.api import warm
    from jaxglmm.api.sources import _datasets
    from jaxglmm.cli import demo, report
    from jaxglmm.cli.fit import FAMILIES as cli_FAMILIES
    from jaxglmm.cli.fit import LINKS as cli_LINKS
    from jaxglmm.cli.main import main, parser
    from jaxglmm.cli.tables import read_table
    from jaxglmm.compat.statsmodels.bayes import results
    from jaxglmm.compat.statsmodels.bayes.model import PoissonBayesMixedGLM
    from jaxglmm.compat.statsmodels.mixedlm import formula as mixedlm_formula
    from jaxglmm.compat.statsmodels.mixedlm.params import root
    from jaxglmm.compat.statsmodels.patsy import learn, variables
    from jaxglmm.compat.statsmodels.patsy import parse as patsy_parse
    from jaxglmm.datasets.read import read as datasets_read
    from jaxglmm.density.posterior import log_joint, log_rows
    from jaxglmm.estimate import generalised as estimate_generalised
    from jaxglmm.estimate import (
        generalised_lanes,
        hessian,
        information,
        linear_lanes,
        maximise,
        nuts,
        posterior_mode,
        response_lanes,
        search_steps,
        skewed,
        start,
        start_generalised,
        stochastic,
        variational,
    )
    from jaxglmm.estimate.base import AbstractEstimator, Fitted
    from jaxglmm.estimate.effect_draws import effects_given, noise_of_effects
    from jaxglmm.estimate.generalised import zeros
    from jaxglmm.estimate.maximise import Maximise, fit_compiled, fit_numbers
    from jaxglmm.estimate.posterior_mode import Mode
    from jaxglmm.estimate.proposal import SplitT, log_mixture, tempered, uniform
    from jaxglmm.export.arviz import to_arviz
    from jaxglmm.export.maps import equivalent as equivalent_z
    from jaxglmm.fitting import (
        blocks,
        convergence,
        empirical,
        fit_design,
        large_crossed,
        large_generalised,
        sampled_levels,
        separation,
        storage,
    )
    from jaxglmm.fitting import generalised as fitting_generalised
    from jaxglmm.fitting import linear as fitting_linear
    from jaxglmm.fitting.coefficients import t_p_values
    from jaxglmm.fitting.components import parameters as components_parameters
    from jaxglmm.fitting.conditional_variance import (
        conditional_covariance,
        effects_variance,
    )
    from jaxglmm.fitting.empirical import Empirical
    from jaxglmm.fitting.estimates import Estimates
    from jaxglmm.fitting.generalised import estimates, inverse_hessian
    from jaxglmm.fitting.linear import lambdas
    from jaxglmm.fitting.packing import pack as packing_pack
    from jaxglmm.fitting.packing import unpack as packing_unpack
    from jaxglmm.fitting.refit import with_method
    from jaxglmm.fitting.residual_parameters import parameters as residual_parameters
    from jaxglmm.fitting.residual_parameters import parameters_of
    from jaxglmm.formatting import numbers, tables
    from jaxglmm.formula import (
        check_generalised,
        check_linear,
        check_quadrature,
        design_from_arrays,
        design_from_formula,
        jsonable,
        known,
        known_functions_only,
        rank,
        recipe_from_dict,
        smooth_bases,
    )
    from jaxglmm.formula import parse as formula_parse
    from jaxglmm.formula import residual as formula_residual
    from jaxglmm.formula import structures as formula_structures
    from jaxglmm.formula.groups import GroupCoding, combine, find
    from jaxglmm.formula.jsonable import pack as jsonable_pack
    from jaxglmm.formula.jsonable import unpack as jsonable_unpack
    from jaxglmm.formula.known import with_known
    from jaxglmm.formula.labels import Coder, Growing
    from jaxglmm.formula.levels import factorize, match
    from jaxglmm.formula.parse import expand_dot, parse
    from jaxglmm.formula.rank import dependent_columns, drop_dependent
    from jaxglmm.formula.raw import read_column
    from jaxglmm.formula.recipe import FormulaRecipe, pack_group, unpack_group
    from jaxglmm.formula.residual import BY_VISIT
    from jaxglmm.formula.residual import PLACES as residual_PLACES
    from jaxglmm.formula.smooth_terms import learned, read_smooth
    from jaxglmm.formula.smooths import taken_apart
    from jaxglmm.formula.splines import natural_spline
    from jaxglmm.formula.strata import MOST, strata
    from jaxglmm.formula.tables import as_table
    from jaxglmm.formula.terms import read_terms
    from jaxglmm.formula.text import quoted
    from jaxglmm.integrate import (
        exact,
        exact_blocks,
        exact_one_factor,
        exact_rotated,
        laplace,
        laplace_derivatives,
        laplace_derivatives_lanes,
        laplace_shared,
        pieces,
        quadrature,
        quadrature_points,
        row_terms,
        working_model,
    )
    from jaxglmm.integrate import marginal as integrate_marginal
    from jaxglmm.integrate import marginals as integrate_marginals
    from jaxglmm.integrate.base import Laplace
    from jaxglmm.integrate.exact_marginal import Exact, conditional, crossproducts
    from jaxglmm.integrate.exact_one_factor import marginal
    from jaxglmm.integrate.laplace import find_mode
    from jaxglmm.integrate.laplace_derivatives_lanes import Split
    from jaxglmm.integrate.marginals import REGISTRY, from_facts, integrator
    from jaxglmm.integrate.rows_lanes import LaneRows
    from jaxglmm.integrate.working_model import mode_at
    from jaxglmm.many import (
        bootstrap_responses,
        file,
        level_sums,
        ragged_residuals,
        response_rows,
        rotated,
        scheduler,
        shipping,
    )
    from jaxglmm.many import combinations as many_combinations
    from jaxglmm.many import correlations as many_correlations
    from jaxglmm.many import generalised as many_generalised
    from jaxglmm.many import plan as many_plan
    from jaxglmm.many.collection import ModelSource, row_of
    from jaxglmm.many.collection import alone as collection_alone
    from jaxglmm.many.columns import AGAIN, MISSING, PENDING, KeptColumns
    from jaxglmm.many.coordinates import coordinates
    from jaxglmm.many.correlations import terms_of
    from jaxglmm.many.linear import CompleteResponses, LinearLanes, Settings
    from jaxglmm.many.linear import columns as linear_columns
    from jaxglmm.many.pieces import OnHost, Piece, placed, rows
    from jaxglmm.many.plan import Plan, Stage, plan
    from jaxglmm.many.responses import Responses
    from jaxglmm.many.rotated import LastDecomposition, decomposed
    from jaxglmm.many.subset import subset
    from jaxglmm.many.values import apart, distinct
    from jaxglmm.model import assemble, covariances
    from jaxglmm.model import correlations as model_correlations
    from jaxglmm.model.assemble import columns as assemble_columns
    from jaxglmm.model.correlations import (
        Autoregressive,
        Exchangeable,
        ExponentialKernel,
        Toeplitz,
    )
    from jaxglmm.model.covariances import (
        AbstractCovariance,
        Diagonal,
        FactorAnalytic,
        Homogeneous,
        base,
        named,
        names,
    )
    from jaxglmm.model.covariances.base import SideBySide
    from jaxglmm.model.covariances.host import host_curves, host_lambdas
    from jaxglmm.model.covariances.unstructured import Unstructured
    from jaxglmm.model.families._base import AbstractFamily
    from jaxglmm.model.families._interval import Ends, logit, upper
    from jaxglmm.model.families.composed import Composed
    from jaxglmm.model.generalised_problem import GeneralisedProblem
    from jaxglmm.model.links import LINKS, Link, Logit, link_from
    from jaxglmm.model.marginal_problem import BlockEffect, MarginalProblem, Stack
    from jaxglmm.model.predictors import Predictors
    from jaxglmm.model.priors import thresholds
    from jaxglmm.model.priors.build import resolve
    from jaxglmm.model.residuals import Pairs
    from jaxglmm.model.residuals import correlation as residuals_correlation
    from jaxglmm.model.residuals import correlations as residuals_correlations
    from jaxglmm.model.residuals import structures as residuals_structures
    from jaxglmm.numerics import (
        mcmc_diagnostics,
        multiplicity,
        newton,
        pareto_smoothing,
        probed_schur,
        simultaneous,
        small_matrices,
        spd,
        student_t,
    )
    from jaxglmm.numerics import packed_schur as numerics_packed_schur
    from jaxglmm.numerics import special as numerics_special
    from jaxglmm.numerics import summed_schur as numerics_summed_schur
    from jaxglmm.numerics.array_namespace import functions
    from jaxglmm.numerics.arrow import DenseCoupling, SparseCoupling
    from jaxglmm.numerics.bijections import correlation as bijections_correlation
    from jaxglmm.numerics.bijections import log_lkj
    from jaxglmm.numerics.chains import ChainSystem
    from jaxglmm.numerics.dense import DenseSystem
    from jaxglmm.numerics.difference_steps import stencil
    from jaxglmm.numerics.jets import gradients
    from jaxglmm.numerics.local_regression import lowess
    from jaxglmm.numerics.scales import FISHER, LOG, PLAIN
    from jaxglmm.numerics.scales import between as scales_between
    from jaxglmm.numerics.system import (
        AbstractFactor,
        AbstractSystem,
        at_least,
        scale,
        scale_transposed,
    )
    from jaxglmm.numerics.wide import Wide
    from jaxglmm.plots import (
        bands,
        labels,
        marginals,
        profiles,
        simulated,
        style,
        volcano,
    )
    from jaxglmm.plots.residual import best
    from jaxglmm.plots.smooth import local_linear
    from jaxglmm.plots.style import SECOND
    from jaxglmm.posterior import engine, loo, mode
    from jaxglmm.posterior import predictive as posterior_predictive
    from jaxglmm.posterior.certificate import importance_corrected
    from jaxglmm.posterior.loo import group_log_likelihood
    from jaxglmm.posterior.mode import curved
    from jaxglmm.posterior.mode import find_mode as find_posterior_mode
    from jaxglmm.posterior.vb import _fit
    from jaxglmm.postestimation import bootstrap
    from jaxglmm.postestimation.checking import (
        generalised_variance_explained,
        refits,
        residual_patterns,
        simulated_residuals,
    )
    from jaxglmm.postestimation.checking.checks import _outliers
    from jaxglmm.postestimation.checking.generalised_variance_explained import (
        GeneralisedICC,
    )
    from jaxglmm.postestimation.checking.simulated_residuals import SimulatedResiduals
    from jaxglmm.postestimation.choice.dropping import contrasts
    from jaxglmm.postestimation.collection import moderation
    from jaxglmm.postestimation.comparisons.letters import letters_of
    from jaxglmm.postestimation.inference.hypotheses import WaldTest, contrast_matrix
    from jaxglmm.postestimation.power.simulation import clopper_pearson
    from jaxglmm.postestimation.prediction import (
        averages,
        correlated_draws,
        grids,
        marginal_effects,
        predict,
    )
    from jaxglmm.postestimation.prediction import predictive as prediction_predictive
    from jaxglmm.postestimation.prediction.generalised_means import (
        between as means_between,
    )
    from jaxglmm.postestimation.prediction.joint_draws import JointDraws
    from jaxglmm.postestimation.profile import generalised as profile_generalised
    from jaxglmm.postestimation.profile import linear as profile_linear
    from jaxglmm.postestimation.profile import root_search
    from jaxglmm.postestimation.profile.curves import Curve, Profile, in_lanes
    from jaxglmm.postestimation.profile.curves import alone as curves_alone
    from jaxglmm.postestimation.profile.profile import profile
    from jaxglmm.postestimation.profile.residual import least, reordered
    from jaxglmm.postestimation.report import summary
    from jaxglmm.postestimation.report.summary import abbreviate
    from jaxglmm.results.fits_plotting import FitsPlots
    from jaxglmm.results.generalised_fit import GeneralisedFit
    from jaxglmm.results.plotting import PlotAccessor
    from jaxglmm.results.posterior_fit import PosteriorFit
    from jaxglmm.results.posteriors import Posteriors
    from jaxglmm.results.posteriors_plotting import PosteriorsPlots
    from jaxglmm.runtime import (
        announce,
        arrays,
        cache,
        devices,
        executors,
        host,
        hosted,
        jax_internals,
        memory,
        placement,
        program,
        shares,
        store,
    )
    from jaxglmm.runtime import stored as runtime_stored
    from jaxglmm.runtime.arrays import jnp, jvp_rows, lax, nn, special
    from jaxglmm.runtime.compile import stored
    from jaxglmm.runtime.devices import Devices, _like, choose
    from jaxglmm.runtime.executors import Serial, Threads, executor
    from jaxglmm.runtime.host import on_host
    from jaxglmm.runtime.memory import Programs, programs
    from jaxglmm.runtime.precision import double_precision
    from jaxglmm.runtime.program import Unsuitable
    from jaxglmm.runtime.progress import bar
    from jaxglmm.runtime.shares import Share
    from jaxglmm.runtime.stored import Stored
    from jaxglmm.runtime.trees import Module, field, filter_jit, tree_at
    from jaxglmm.spreadsheet import libreoffice, moments
    from jaxglmm.spreadsheet.formulas import (
        Call,
        Named,
        Reference,
        Unreadable,
        mentions,
    )
    from jaxglmm.spreadsheet.formulas import read as formulas_read
    from jaxglmm.spreadsheet.likelihood import laplace_at
    from jaxglmm.spreadsheet.sheets import FUNCTIONS, arguments_of, call
    from jaxglmm.streaming import checkpoint as streaming_checkpoint
    from jaxglmm.streaming import crossed as streaming_crossed
    from jaxglmm.streaming import crossed_search as streaming_crossed_search
    from jaxglmm.streaming import fleet as streaming_fleet
    from jaxglmm.streaming import parts as streaming_parts
    from jaxglmm.streaming import passes as streaming_passes
    from jaxglmm.streaming import searching as streaming_searching
    from jaxglmm.streaming import sources as streaming_sources
    from jaxglmm.streaming.sources import StreamSource
    from jaxglmm.streaming.sources import source_of as streaming_source_of
    from jaxglmm.streaming.whole import (
        RowGroups,
        RowsNotHereError,
        names_in,
        row_groups,
        together,
    )
    from jaxglmm.structure import (
        alike,
        factors,
        fixed,
        level_types,
        moments_of_design,
        per_dataset_design,
        row_layout,
        rows_of_design,
        shared_design,
    )
    from jaxglmm.structure import crossproducts as structure_crossproducts
    from jaxglmm.structure.factors import (
        ColumnMaps,
        Factor,
        TermColumns,
        by_level,
        join,
        to_user,
    )
    from jaxglmm.structure.fixed import FixedBasis, orthonormal, residual, triangle
    from jaxglmm.structure.moments_of_design import Moments, build
    from jaxglmm.structure.padding import bucket, pad
    from jaxglmm.structure.patterns import BlockRows, arrange, fewest
    from jaxglmm.structure.rotated_design import PLACES as rotated_PLACES
    from jaxglmm.structure.rotated_design import RotatedDesign, _places
    from jaxglmm.structure.rows import PaddedRows
    from jaxglmm.structure.rows_of_design import build_rows
    from jaxglmm.structure.wide_rows import AlikeRows, CellRows, OneLevelRows


def places(source):
    """Door -> (module, name in it), of the imports in a file's source."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("jaxglmm")
        for alias in node.names
    }


PLACES = places(Path(__file__).read_text())


def __getattr__(door):
    """What lies behind a door: a value of a module, or a module of a package."""
    if door not in PLACES:
        raise AttributeError(f"tests/doors.py has no door {door!r}")
    module, name = PLACES[door]
    try:
        return getattr(import_module(module), name)
    except AttributeError:
        return import_module(f"{module}.{name}")
