"""Fits of every kind in one process with a cache on disk; prints their numbers.

``python tests/runtime/programs.py folder``: run twice, the second time all is read.
Without a folder by what is on by default, which keeps the programs of single fits: a
few of these, for they are written and read by the same functions.
"""

import json
import sys
import warnings

import numpy as np
import pandas as pd

import jaxglmm as jg


def table():
    """Two crossed factors, one inside another, responses of three kinds."""
    rng = np.random.default_rng(20261130)
    n = 240
    g, h = rng.integers(0, 12, n), rng.integers(0, 8, n)
    data = pd.DataFrame(rng.normal(size=(n, 8)), columns=[f"x{i}" for i in range(8)])
    data["g"], data["h"] = g.astype(str), h.astype(str)
    data["k"] = [f"{a}.{b}" for a, b in zip(g, rng.integers(0, 3, n), strict=True)]
    level = 0.5 * rng.normal(size=12)[g] + 0.5 * rng.normal(size=8)[h]
    eta = 0.3 * data["x0"] + level
    data["y"] = eta + rng.normal(size=n)
    data["count"] = rng.poisson(np.exp(eta))
    data["yes"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    return data


def columns(p):
    """A sum of p - 1 covariates, beside the intercept."""
    return " + ".join(["1", *(f"x{i}" for i in range(p - 1))])


def few(data):
    """Name and number of single fits, and of what is asked of them."""
    wide = jg.lmm(f"y ~ {columns(9)} + (1 | g)", data)
    yield "linear, many columns", wide.criterion
    yield "degrees of freedom", float(wide.summary().coefficients["df"].sum())
    crossed = jg.glmm("count ~ x0 + (1 | g) + (1 | h)", data, family="poisson")
    crossed.summary()
    yield "generalised, crossed", crossed.criterion
    small = jg.lmm("y ~ x0 + (1 | g)", data)
    yield "profile", np.nansum(small.confint(method="profile").to_numpy(float))


def every(data):
    """Name and number of every kind of program."""
    poisson, bernoulli = "poisson", "bernoulli"
    wide = "x0 + x1 + x2 + x3 + x4"
    linear = {
        "many columns": f"y ~ {columns(9)} + (1 | g)",
        "slopes": "y ~ x0 + (x0 | g)",
        "wide, six columns": f"y ~ {wide} + ({wide} | g)",
        "nested": "y ~ x0 + (1 | g) + (1 | k)",
        "crossed": "y ~ x0 + (1 | g) + (1 | h)",
    }
    for name, formula in linear.items():
        fit = jg.lmm(formula, data)
        fit.summary()
        yield f"linear, {name}", fit.criterion
    crossed = fit
    generalised = {
        "many columns": f"count ~ {columns(8)} + (1 | g)",
        "crossed": "count ~ x0 + (1 | g) + (1 | h)",
    }
    for name, formula in generalised.items():
        fit = jg.glmm(formula, data, family=poisson)
        fit.summary()
        yield f"generalised, {name}", fit.criterion
    formula = "yes ~ x0 + (1 | g)"
    fit = jg.glmm(formula, data, family=bernoulli, method=jg.AGQ(7))
    yield "quadrature", fit.criterion
    for method in (jg.MAP(), jg.NestedLaplace(), jg.VB()):
        fit = jg.glmm(formula, data, family=bernoulli, method=method)
        yield f"posterior, {type(method).__name__}", fit.coef[1]
    small = jg.lmm("y ~ x0 + (1 | g)", data)
    yield "profile", np.nansum(small.confint(method="profile").to_numpy(float))
    yield "degrees of freedom", float(crossed.summary().coefficients["df"].sum())
    yield "bootstrap", np.nansum(small.bootstrap(20, seed=1).confint().to_numpy(float))
    many = np.column_stack([data["y"], data["y"] + data["x1"]])
    fits = jg.fit_many("y ~ x0 + (1 | g)", data, responses=many)
    yield "many", float(np.sum(fits.log_likelihood))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    kinds = every if sys.argv[1:] else few
    if sys.argv[1:]:
        jg.enable_compilation_cache(sys.argv[1])
    print(json.dumps([(name, float(x)) for name, x in kinds(table())]))
