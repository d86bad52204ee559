"""What emmeans was asked, asked here: the queries of ``tests/reference/emm_*.json``.

One entry a query, under its name there, in the order of the file's.
"""

import functools
import math
import re
import warnings

import numpy as np
import pandas as pd
from cases import HERE, data

import jaxglmm as jg

KR = {"ddf": "kenward-roger"}
SATT = {"ddf": "satterthwaite"}
CUSTOM = {"C vs A, B": [-0.5, -0.5, 1], "B - A": [-1, 1, 0]}
ADJUSTED = ("holm", "sidak", "bonferroni", "none", "mvt")
SICK = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
# rows less parameters, glmmTMB's degrees of freedom
NB = {"df": 644 - 17}
ZI = {"df": 633}


@functools.cache
def fit(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.RankDeficientWarning)
        return FITS[case]()


FITS = {
    "cbpp": lambda: jg.glmm(SICK, data("cbpp")),
    "dietox": lambda: jg.lmm("Weight ~ Evit * Cu + Time + (1 | Pig)", data("dietox")),
    "machines": lambda: jg.lmm(
        "score ~ Machine + (1 | Worker/Machine)", data("Machines")
    ),
    "nested": lambda: jg.lmm(
        "y ~ class/variety + x + (1 | block)",
        pd.read_csv(HERE / "data" / "sim_nested.csv.gz"),
    ),
    "orthodont": lambda: jg.lmm(
        "distance ~ age * Sex + (age | Subject)", data("Orthodont")
    ),
    "salamanders": lambda: jg.glmm(
        "count ~ spp * mined + DOY + (1 | site)", data("Salamanders"), family="nbinom2"
    ),
    "salamanders_zi": lambda: jg.glmm(
        "count ~ spp + mined + (1 | site)",
        data("Salamanders"),
        family="poisson",
        zi="~ mined",
    ),
}


def back(means):
    return means.showing(type="response")


def adjusted(variable, **options):
    """Pairs by each of the adjustments, by name."""
    return {
        f"pairs_{how}": lambda f, how=how: f.means(variable, **options).pairs(how)
        for how in ADJUSTED
    }


QUESTIONS = {
    "cbpp": {
        "link": lambda f: f.means("period"),
        "response": lambda f: f.means("period", type="response"),
        "pairs_response": lambda f: back(f.means("period")).pairs(),
        "pairs_regrid": lambda f: f.means("period").regrid().pairs(),
        "ctrl": lambda f: back(f.means("period")).contrast("trt.vs.ctrl"),
        "ctrl_last": lambda f: f.means("period").contrast("trt.vs.ctrlk"),
        "consec": lambda f: f.means("period").contrast("consec"),
        "poly": lambda f: f.means("period").contrast("poly"),
        "eff": lambda f: f.means("period").contrast("eff"),
        "joint": lambda f: f.joint_tests(),
        "pairs_tukey": lambda f: f.means("period").pairs(),
        **adjusted("period"),
    },
    "dietox": {
        "evit_equal": lambda f: f.means("Evit"),
        "evit_proportional": lambda f: f.means("Evit", weights="proportional"),
        "evit_cells": lambda f: f.means("Evit", weights="cells"),
        "asymptotic": lambda f: f.means("Evit", df=float("inf")),
        "cells": lambda f: f.means("Evit * Cu"),
        "by": lambda f: f.means("Evit", by="Cu").pairs(),
        "by_flat": lambda f: f.means("~ Evit | Cu").contrast("trt.vs.ctrl1"),
        "interaction": lambda f: f.means("Evit * Cu").contrast(
            interaction=["consec", "poly"]
        ),
        "interaction_pairs": lambda f: f.means("Evit * Cu").contrast(interaction=True),
        "joint": lambda f: f.joint_tests(),
        "joint_by": lambda f: f.joint_tests(by="Cu"),
    },
    "machines": {
        "means_kr": lambda f: f.means("Machine", **KR),
        "means_satt": lambda f: f.means("~ Machine", **SATT),
        "pairs_tukey": lambda f: f.means("Machine", **KR).pairs(),
        **adjusted("Machine", **KR),
        "pairs_satt": lambda f: f.means("Machine").pairs(),
        "ctrl": lambda f: f.means("Machine", **KR).contrast("trt.vs.ctrl", ref=1),
        "consec": lambda f: f.means("Machine", **KR).contrast("consec"),
        "poly": lambda f: f.means("Machine", **KR).contrast("poly"),
        "eff": lambda f: f.means("Machine", **KR).contrast("eff"),
        "del_eff": lambda f: f.means("Machine", **KR).contrast("del.eff"),
        "custom": lambda f: f.means("Machine", **KR).contrast(CUSTOM),
        "custom_holm": lambda f: f.means("Machine", **KR).contrast(
            CUSTOM, adjust="holm"
        ),
        "joint": lambda f: f.joint_tests(**KR),
        "joint_satt": lambda f: f.joint_tests(),
    },
    "nested": {
        "class": lambda f: f.means("class", **KR),
        "variety": lambda f: f.means("variety", **KR),
        "variety_at": lambda f: f.means("variety", at={"x": 4}, **KR),
        "class_pairs": lambda f: f.means("class", **KR).pairs(),
        "variety_pairs": lambda f: f.means("variety", **KR).pairs(),
        "joint": lambda f: f.joint_tests(**KR),
    },
    "orthodont": {
        "sex_at_mean": lambda f: f.means("Sex", **KR),
        "sex_by_age": lambda f: f.means("Sex", "age", at={"age": [8, 11, 14]}, **KR),
        "sex_by_age_pairs": lambda f: f.means(
            "Sex", "age", at={"age": [8, 11, 14]}, **KR
        ).pairs(),
        "cells_satt": lambda f: f.means("Sex * age", at={"age": [8, 14]}),
        "trends": lambda f: f.trends("age", "Sex", **KR),
        "trends_pairs": lambda f: f.trends("age", "Sex", **KR).pairs(),
        "trends_satt": lambda f: f.trends("age", "Sex").pairs(),
        "interaction": lambda f: f.means(
            ["Sex", "age"], at={"age": [8, 14]}, **KR
        ).contrast(interaction=True),
        "joint": lambda f: f.joint_tests(**KR),
        "joint_by": lambda f: f.joint_tests(by="age", at={"age": [8, 14]}, **KR),
    },
    "salamanders": {
        "mined": lambda f: f.means("mined", type="response", **NB),
        "by": lambda f: f.means("mined", by="spp", **NB),
        "by_pairs": lambda f: back(f.means("mined", by="spp", **NB)).pairs(),
        "at": lambda f: f.means("mined", at={"DOY": 1}, **NB),
        "proportional": lambda f: f.means("mined", weights="proportional", **NB),
        "spp_holm": lambda f: f.means("spp", **NB).pairs("holm"),
        "interaction": lambda f: f.means("spp * mined", **NB).contrast(
            interaction=["eff", "pairwise"]
        ),
        "trend": lambda f: f.trends("DOY", "mined", **NB),
        "joint": lambda f: f.joint_tests(**NB),
    },
    "salamanders_zi": {
        "cond": lambda f: f.means("mined", type="response", **ZI),
        "zi": lambda f: f.means("mined", component="zi", **ZI),
        "zi_response": lambda f: f.means(
            "mined", component="zi", type="response", **ZI
        ),
        "zi_pairs": lambda f: f.means("mined", component="zi", **ZI).pairs(),
    },
}


# The columns of a table beside R's ---------------------------------------------------

WORDS = ("emmean", "prob", "odds.ratio", "estimate", "response", "rate", "ratio")
OURS = {
    "std_error": ("SE",),
    "df": ("df",),
    "conf_low": ("lower.CL", "asymp.LCL"),
    "conf_high": ("upper.CL", "asymp.UCL"),
    "statistic": ("t.ratio", "z.ratio"),
    "p_value": ("p.value",),
}


def column(rows, names):
    """R's column, missing numbers (infinite degrees of freedom) as infinity."""
    name = next(n for n in rows[0] if n in names)
    return np.array([math.inf if r[name] is None else r[name] for r in rows], float)


def gaps(table, answer):
    """Relative differences by column; limits of differences beside their errors."""
    rows = answer["rows"]
    names = set(WORDS) | {n for n in rows[0] if n.endswith(".trend")}
    theirs = {"estimate": column(rows, names)}
    theirs |= {ours: column(rows, names) for ours, names in OURS.items()}
    found = {}
    for name, known in theirs.items():
        ours = table[name].to_numpy(float)
        if np.isinf(known).all():
            assert np.isinf(ours).all()
            continue
        scale = np.abs(known)
        if name == "p_value" and simulated(answer):  # R's error is an absolute one
            scale = np.ones(len(known))
        if name.startswith("conf_"):
            scale = np.maximum(scale, theirs["std_error"])
        if name in ("estimate", "statistic"):  # of an estimate near zero: its error
            scale = np.maximum(scale, theirs["std_error"] if name == "estimate" else 1)
        adjusted = any("tukey" in note for note in answer["notes"])
        small = 1e-6 if name == "p_value" and adjusted else 1e-12  # of R's ptukey
        told = scale > small  # else a p-value that R gives as zero, or as rounding
        found[name] = (np.abs(ours - known)[told] / scale[told]).max(initial=0)
    return found


def simulated(answer):
    return any("mvt" in note for note in answer["notes"])


def plain(value):
    """A level's name; R writes a name in brackets where it could be a difference."""
    if not isinstance(value, str):
        return f"{value:g}"
    return re.sub(r"\((\S+)\) effect", r"\1 effect", value)
