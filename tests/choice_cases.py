"""Fits whose model choice and influence R's lme4 and lmerTest have answered."""

import json
import warnings
from pathlib import Path

import numpy as np

import jaxglmm as jg

KNOWN = json.loads(
    (Path(__file__).parent / "reference/choice_influence.json").read_text()
)


def sleep():
    data = jg.datasets.load("sleepstudy")
    extra = np.round(np.sin(np.arange(1, 181)), 3)
    return data.assign(extra=extra, part=np.tile(["a", "b", "c"], 60))


FITS = {
    "sleepstudy": lambda: jg.lmm("Reaction ~ Days + (Days | Subject)", sleep()),
    "sleep_extra": lambda: jg.lmm(
        "Reaction ~ Days * extra + part + (Days + extra || Subject)", sleep()
    ),
    "machines": lambda: jg.lmm(
        "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
        jg.datasets.load("Machines"),
        reml=False,
    ),
    "machines_slopes": lambda: jg.lmm(
        "score ~ Machine + (Machine | Worker)", jg.datasets.load("Machines")
    ),
    "orthodont": lambda: jg.lmm(
        "distance ~ age * Sex + (1 | Subject)", jg.datasets.load("Orthodont")
    ),
    "pastes": lambda: jg.lmm(
        "strength ~ 1 + (1 | batch) + (1 | sample)", jg.datasets.load("Pastes")
    ),
    "penicillin": lambda: jg.lmm(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", jg.datasets.load("Penicillin")
    ),
    "dyestuff2": lambda: jg.lmm(
        "Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff2")
    ),
    "cbpp": lambda: jg.glmm(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        jg.datasets.load("cbpp"),
    ),
}
MADE = {}


def made(name):
    if name not in MADE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.SingularFitWarning)
            MADE[name] = FITS[name]()
    return MADE[name]


LINEAR = [name for name in FITS if name != "cbpp"]


def quiet(question, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        return question(*args, **options)
