"""Profiles of structured covariances: of two columns they are the unstructured ones.

Two standard deviations and one correlation, held as coordinates of a structure, against
the same parameters held by turned columns: two ways to the same likelihood.
"""

import functools

import numpy as np
import pytest

import jaxglmm as jg


@functools.cache
def frame():
    rng = np.random.default_rng(5)
    J, rows = 25, 8
    b = rng.normal(size=(J, 2)) @ np.array([[0.9, 0.4], [0.0, 0.7]])
    code = np.repeat(np.arange(J), rows)
    one = np.tile([1.0, 0.0], J * rows // 2)
    eta = 0.4 + b[code, 0] * one + b[code, 1] * (1 - one)
    return {
        "g": [f"g{k}" for k in code],
        "one": one,
        "two": 1 - one,
        "y": eta + rng.normal(size=len(code)),
        "count": rng.poisson(np.exp(eta)),
    }


@pytest.mark.parametrize("response", ["y", "count"])
def test_two_columns(response):
    def intervals(structure, names):
        formula = f"{response} ~ 1 + {structure}(0 + one + two | g)"
        if response == "y":
            fit = jg.lmm(formula, frame())
        else:
            fit = jg.glmm(formula, frame(), family="poisson")
        return fit.profile(names).intervals().to_numpy()

    sd = "sd_two|g"
    own = intervals("cs", [sd, "cor_cs|g"])
    free = intervals("us", [sd, "cor_two.one|g"])
    np.testing.assert_allclose(own, free, rtol=2e-5)
