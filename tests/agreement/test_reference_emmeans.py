"""Every query that emmeans has answered: estimates, errors, df, limits, p-values."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from cases import reference
from emmeans_cases import QUESTIONS, fit

pytestmark = pytest.mark.reference

FILES = {case: reference(f"emm_{case}") for case in QUESTIONS}
ANSWERS = {c: {q["name"]: q for q in FILES[c]["queries"]} for c in QUESTIONS}
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


@pytest.mark.parametrize("case", QUESTIONS)
def test_every_query_is_asked(case):
    assert list(ANSWERS[case]) == list(QUESTIONS[case])


ALL = [(c, q) for c in QUESTIONS for q in QUESTIONS[c]]


@pytest.mark.parametrize(("case", "question"), ALL)
def test_answers_are_those_of_emmeans(case, question):
    answer = ANSWERS[case][question]
    found = QUESTIONS[case][question](fit(case))
    if "F.ratio" in answer["rows"][0]:
        check_tests(found, answer["rows"])
        return
    table = found.table
    for name in answer["rows"][0]:
        if name in table and name not in OURS and name != "estimate":
            shown = [plain(row[name]) for row in answer["rows"]]
            assert [plain(value) for value in table[name]] == shown
    gap = gaps(table, answer)
    for name, worst in gap.items():
        adjusted = name == "p_value" or name.startswith("conf_")
        # R integrates by sampling; its Tukey and Dunnett are approximate
        limit = 4e-3 if adjusted and simulated(answer) else 1e-4
        limit = max(limit, 1e-3 if name == "p_value" else 0)
        assert worst < limit, (name, worst)


def check_tests(table, rows):
    """emmeans rounds F to three decimals, denominators to two.

    A test of several contrasts by Satterthwaite's method has lmerTest's denominator
    here, one by Kenward and Roger's pbkrtest's, which scales F. emmeans' is the least
    of the single contrasts' of one basis, which another order of the levels would
    change, and its F is not scaled.
    """
    assert isinstance(table, pd.DataFrame)
    assert table["term"].tolist() == [row["model term"] for row in rows]
    assert table["num_df"].tolist() == [row["df1"] for row in rows]
    F = np.array([row["F.ratio"] for row in rows])
    np.testing.assert_allclose(table["statistic"], F, atol=6e-4)
    den = column(rows, ("df2",))
    np.testing.assert_allclose(table["den_df"], den, rtol=3e-4, atol=6e-3)
    p = np.array([row["p.value"] for row in rows])
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-3)
