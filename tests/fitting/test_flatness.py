"""Variances of which the data say nothing are named, with numbers."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

ROWS, LEVELS = 60, 12


def table():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(LEVELS), ROWS // LEVELS)
    x = rng.normal(size=ROWS)
    y = x + rng.normal(size=LEVELS)[g] + rng.normal(size=ROWS)
    other = np.array(list("lkjihgfedcba"))[g]
    crossed = rng.permutation(g)
    return {"y": y, "x": x, "g": g, "h": other, "k": crossed}


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("y ~ C(g) + (1 | g)", "each of the 12 levels of 'g': the data say nothing"),
        ("y ~ x + (1 | g) + (1 | h)", "'g' and 'h' cut the rows into the same 12"),
    ],
)
def test_flat_directions_are_said(formula, said):
    with pytest.warns(jg.RankDeficientWarning, match=said):
        fit = jg.lmm(formula, table())
    assert any(said in text for text in fit.warnings)


@pytest.mark.parametrize(
    ("formula", "reml"),
    [
        ("y ~ x + (1 | g)", True),
        ("y ~ C(g) + (1 | g)", False),  # the likelihood has a maximum, at zero
        ("y ~ x + (1 | g) + (1 | k)", True),
    ],
)
def test_nothing_is_said_where_the_likelihood_bends(formula, reml):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        warnings.simplefilter("error", jg.RankDeficientWarning)
        jg.lmm(formula, table(), reml=reml)
