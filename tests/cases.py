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

import jaxglmm as jg
from jaxglmm.datasets import names as packaged
from jaxglmm.datasets.read import read

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One model of one data set. ``reference`` names the JSON of R or statsmodels."""

    reference: str
    data: str
    formula: str
    reml: bool = True
    weights: str | None = None
    offset: str | None = None
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
        return jg.lmm(case.formula, frame, reml=case.reml, **columns)


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
