"""A second data set of similar size compiles nothing; neither does a refit."""

import numpy as np
import pytest

import jaxglmm as jg
from jaxglmm.estimate.maximise import fit_numbers


def data(levels, rows, seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    a, b = rng.normal(size=(2, levels))
    y = x + a[g] + b[g] * x + rng.normal(size=len(g))
    return {"y": y, "x": x, "g": g}


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_similar_sizes_share_one_program(formula):
    first = jg.lmm(formula, data(29, 6, 0))
    programs = fit_numbers._cache_size()
    other = jg.lmm(formula, data(30, 9, 1))  # other rows, one level more
    other.refit(other.design.y[::-1].copy())
    assert fit_numbers._cache_size() == programs
    assert first.converged
    assert other.converged
