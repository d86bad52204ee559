"""Table of cases: data set -> formula -> arguments -> reference values, with loaders.

R and formulas on top of formulaic spell names differently: ``MachineB`` is our
``Machine[T.B]``, and R writes nested factors inside out (``cask:batch``). The helpers
below bring our names to R's, so that tests compare by name.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from doors import datasets_read as read

import jaxglmm as jg
from jaxglmm.datasets import names as packaged
from jaxglmm.model.families import family_from

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One model of one data set. ``reference`` names the JSON of R or statsmodels.

    A family makes it a generalised model; nodes: of quadrature, 1 is Laplace.
    """

    reference: str
    data: str
    formula: str
    reml: bool = True
    weights: str | None = None
    offset: str | None = None
    family: str | None = None
    link: str | None = None
    nodes: int = 1
    marks: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return self.reference


SLEEP = "Reaction ~ Days + (Days | Subject)"

LME4 = (
    Case("dyestuff_reml", "Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    Case("dyestuff_ml", "Dyestuff", "Yield ~ 1 + (1 | Batch)", reml=False),
    Case("dyestuff2_reml", "Dyestuff2", "Yield ~ 1 + (1 | Batch)"),
    Case("sleepstudy_intercept_reml", "sleepstudy", "Reaction ~ Days + (1 | Subject)"),
    Case("sleepstudy_slope_reml", "sleepstudy", SLEEP),
    Case("sleepstudy_slope_ml", "sleepstudy", SLEEP, reml=False),
    Case("sleepstudy_uncorr_reml", "sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    Case("sleepstudy_weights_reml", "sleepstudy_wo", SLEEP, weights="w"),
    Case("sleepstudy_offset_reml", "sleepstudy_wo", SLEEP, offset="off"),
    Case("penicillin_reml", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    Case("pastes_nested_reml", "Pastes", "strength ~ 1 + (1 | batch/cask)"),
    Case("machines_nested_reml", "Machines", "score ~ Machine + (1 | Worker/Machine)"),
    Case(
        "machines_slopes_reml", "Machines", "score ~ Machine + (0 + Machine | Worker)"
    ),
    Case("orthodont_slope_reml", "Orthodont", "distance ~ age * Sex + (age | Subject)"),
    Case("dietox_intercept_reml", "dietox", "Weight ~ Time + (1 | Pig)"),
    Case("dietox_slope_reml", "dietox", "Weight ~ Time + (Time | Pig)"),
    Case(
        "dietox_nested_ml",
        "dietox",
        "Weight ~ Cu * Time + (1 | Litter) + (1 | Pig)",
        reml=False,
    ),
    Case(
        "insteval_ml",
        "InstEval",
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
        reml=False,
    ),
    Case(
        "insteval_reml",
        "InstEval",
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
    ),
    Case(
        "insteval_fixed_ml",
        "InstEval",
        "y ~ service * dept + (1 | s) + (1 | d)",
        reml=False,
    ),
)

_WEIGHT = "Weight ~ Time + "
STATSMODELS = tuple(
    Case(
        f"sm_dietox_{name}_{method}", "dietox", _WEIGHT + random, reml=method == "reml"
    )
    for (name, random), method in itertools.product(
        [
            ("intercept", "(1 | Pig)"),
            ("slope", "(Time | Pig)"),
            ("vc", "(1 | Litter) + (1 | Litter:Pig)"),
        ],
        ["ml", "reml"],
    )
)

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
EPIL = "y ~ Base * trt + Age + Visit + (Visit | subject)"
OHIO = "resp ~ age * smoke + (1 | id)"
SALAMANDERS = "count ~ spp + mined + (1 | site)"
SIMULATED = "y ~ x + trt + (1 | g)"

GENERALISED = (
    Case(
        "arabidopsis_laplace",
        "Arabidopsis",
        "total_fruits ~ nutrient * amd + rack + status + (1 | reg/popu/gen) + "
        "(1 | obs)",
        family="poisson",
    ),
    Case("cbpp_laplace", "cbpp", CBPP, family="binomial"),
    Case("cbpp_agq9", "cbpp", CBPP, family="binomial", nodes=9),
    Case("cbpp_agq25", "cbpp", CBPP, family="binomial", nodes=25),
    Case("cbpp_obs_laplace", "cbpp", CBPP + " + (1 | obs)", family="binomial"),
    Case("cbpp_probit_laplace", "cbpp", CBPP, family="binomial", link="probit"),
    Case("epil2_poisson_slope", "epil2", EPIL, family="poisson"),
    Case("epil2_nbinom2_slope", "epil2", EPIL, family="nbinom2"),
    Case(
        "grouseticks_laplace",
        "grouseticks",
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION) + (1 | INDEX)",
        family="poisson",
    ),
    Case("ohio_laplace", "ohio", OHIO, family="binomial"),
    Case("ohio_agq25", "ohio", OHIO, family="binomial", nodes=25),
    Case("salamanders_poisson", "Salamanders", SALAMANDERS, family="poisson"),
    Case("salamanders_nbinom2", "Salamanders", SALAMANDERS, family="nbinom2"),
    Case("sim_beta", "sim_beta", SIMULATED, family="beta"),
    Case(
        "sim_betabinomial",
        "sim_betabinomial",
        "cbind(succ, size - succ) ~ x + (1 | g)",
        family="betabinomial",
    ),
    Case("sim_gamma", "sim_gamma", SIMULATED, family="gamma", link="log"),
    Case(
        "sim_invgauss",
        "sim_invgauss",
        SIMULATED,
        family="inverse_gaussian",
        link="log",
    ),
    Case("sim_nbinom1", "sim_nbinom1", SIMULATED, family="nbinom1"),
    Case(
        "verbagg_laplace",
        "VerbAgg",
        "y ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        family="binomial",
    ),
)

# numerical integration of the same models; sim_invgauss under "exact"
EXACT = (
    Case("cbpp_exact", "cbpp", CBPP, family="binomial", nodes=25),
    Case(
        "sim_invgauss",
        "sim_invgauss",
        SIMULATED,
        family="inverse_gaussian",
        link="log",
        nodes=25,
    ),
)

LRT_GENERALISED = {  # reference -> data, (formula, family) in R's order
    "lrt_cbpp": (
        "cbpp",
        (
            (CBPP.replace("period", "1"), "binomial"),
            (CBPP, "binomial"),
        ),
    ),
    "lrt_salamanders": (
        "Salamanders",
        ((SALAMANDERS, "poisson"), (SALAMANDERS, "nbinom2")),
    ),
}

LRT = {  # reference -> formulas, in R's order
    "lrt_sleepstudy": (
        "sleepstudy",
        (
            "Reaction ~ Days + (1 | Subject)",
            "Reaction ~ Days + (Days || Subject)",
            "Reaction ~ Days + (Days | Subject)",
        ),
    ),
    "lrt_pastes": (
        "Pastes",
        (
            "strength ~ 1 + (1 | sample)",
            "strength ~ 1 + (1 | batch) + (1 | sample)",
        ),
    ),
}


@functools.cache
def data(name: str):
    """A data set of the package or of ``tests/data``; do not change it."""
    return jg.datasets.load(name) if name in packaged() else read(HERE / "data", name)


@functools.cache
def reference(name: str) -> dict:
    """Values that another program gave."""
    return json.loads((HERE / "reference" / f"{name}.json").read_text())


@functools.cache
def fit(case: Case):
    """The case fitted by jaxglmm, once a run; its expected warnings are not shown."""
    frame = data(case.data)
    columns = {
        k: frame[v].to_numpy()
        for k, v in {"weights": case.weights, "offset": case.offset}.items()
        if v is not None
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        warnings.simplefilter("ignore", jg.MissingRowsWarning)
        if case.family is None:
            return jg.lmm(case.formula, frame, reml=case.reml, **columns)
        return jg.glmm(
            case.formula, frame, family=family(case), method=method(case), **columns
        )


def family(case: Case):
    """The case's family with its link."""
    made = family_from(case.family)
    return made if case.link is None else type(made)(case.link)


def method(case: Case):
    """Laplace or quadrature."""
    return jg.Laplace() if case.nodes == 1 else jg.AGQ(case.nodes)


def r_name(name: str) -> str:
    """R's name of one of our coefficients or columns.

    >>> r_name("age:Sex[T.Female]"), r_name("Machine[A]"), r_name("(Intercept)")
    ('age:SexFemale', 'MachineA', '(Intercept)')
    """
    return re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", name)


def r_factor(name: str, theirs) -> str:
    """The one of R's factor names that is ours up to the order of ``a:b``.

    >>> r_factor("batch:cask", ["cask:batch", "batch"])
    'cask:batch'
    """
    parts = sorted(name.split(":"))
    return next(r for r in theirs if sorted(r.split(":")) == parts)


def r_levels(levels, ours: str, theirs: str) -> list[str]:
    """Labels of the levels of ``ours`` in R's order of parts.

    >>> r_levels(["A:a"], "batch:cask", "cask:batch")
    ['a:A']
    """
    order = [ours.split(":").index(part) for part in theirs.split(":")]
    if len(order) == 1:
        return [str(level) for level in levels]
    return [":".join(np.array(str(x).split(":"))[order]) for x in levels]
