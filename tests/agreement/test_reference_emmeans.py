"""Every query that emmeans has answered: estimates, errors, df, limits, p-values."""

import numpy as np
import pandas as pd
import pytest
from cases import reference
from emmeans_cases import OURS, QUESTIONS, column, fit, gaps, plain, simulated

pytestmark = pytest.mark.reference

FILES = {case: reference(f"emm_{case}") for case in QUESTIONS}
ANSWERS = {c: {q["name"]: q for q in FILES[c]["queries"]} for c in QUESTIONS}


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
