"""What a summary says in words: the level that is modelled, columns kept together."""

import numpy as np
import pandas as pd
import pytest
from doors import abbreviate

import jaxglmm as jg

pytestmark = pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    n = 120
    return pd.DataFrame(
        {
            "answer": rng.choice(["wrong", "correct"], n),
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "f": rng.choice(list("abc"), n),
            "g": np.arange(n) % 12,
        }
    )


def test_the_level_that_is_modelled(data):
    fit = jg.glmm("answer ~ x + (1 | g)", data)
    line = "Response: probability of 'wrong' (the other level is 'correct')"
    assert line in str(fit.summary())
    as_numbers = data.assign(answer=(data.answer == "wrong") * 1.0)
    other = jg.glmm("answer ~ x + (1 | g)", as_numbers)
    np.testing.assert_allclose(fit.coefficients, other.coefficients)
    assert "Response:" not in str(other.summary())


def test_columns_of_a_factor_stay_together(data):
    design = jg.lmm("y ~ x + (x || g)", data)
    assert "diag(" not in str(design.summary())
    fit = jg.lmm("y ~ x + (0 + f || g)", data)
    assert "stay correlated, as in lme4. diag(f | g) makes" in " ".join(
        str(fit.summary()).split()
    )


def test_short_names_of_coded_factors():
    names = [
        "C(situ, Sum)[S.other]",
        "C(mode, Treatment('b'))[T.a]",
        "C(f, contr.custom({'up': [1, 0]}))[up]",
        "C(situ, Sum)[S.other]:C(mode, Sum)[S.a]",
        "factor(n)[T.2]",
    ]
    found = abbreviate(names, width=12)
    assert found[:3] == ["situother", "modea", found[2]]
    assert not any("C(" in name or "Sum" in name for name in (*found[:2], found[3]))
    assert len(set(found)) == len(names)
