"""Small generalised fits that several tests share, each made once."""

import functools

import numpy as np
import pandas as pd
from doors import lambdas, to_user

import jaxglmm as jg

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@functools.cache
def cbpp():
    return jg.glmm(CBPP, jg.datasets.load("cbpp"))


@functools.cache
def slopes_data() -> pd.DataFrame:
    """Counts with correlated intercepts and slopes, an offset and a factor."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(20), 8)
    b = rng.normal(size=(20, 2)) @ np.array([[0.6, 0.25], [0.0, 0.3]])
    data = pd.DataFrame(
        {
            "g": [f"g{i:02d}" for i in g],
            "x": rng.normal(size=160).round(3),
            "kind": np.where(rng.uniform(size=160) < 0.4, "a", "b"),
            "area": rng.uniform(0.5, 3.0, 160).round(3),
        }
    )
    eta = 0.3 + 0.4 * data.x + 0.5 * (data.kind == "b") + np.log(data.area)
    data["y"] = rng.poisson(np.exp(eta + b[g, 0] + b[g, 1] * data.x))
    return data


@functools.cache
def slopes():
    formula = "y ~ x + kind + offset(np.log(area)) + (1 + x | g)"
    return jg.glmm(formula, slopes_data(), family="poisson")


@functools.cache
def logit_data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=150), "z": rng.uniform(size=150)})
    data["kind"] = np.array(["u", "v", "w"])[rng.integers(0, 3, 150)]
    eta = -0.4 + 1.1 * data.x - 0.8 * data.z + 0.7 * (data.kind == "w")
    return data.assign(y=(rng.uniform(size=150) < 1 / (1 + np.exp(-eta))) * 1)


@functools.cache
def logit():
    """A generalised linear model: no random effects."""
    return jg.glmm("y ~ x + z + kind", logit_data(), family="binomial")


@functools.cache
def gamma():
    """A dispersion parameter, and variances of two factors."""
    rng = np.random.default_rng(8)
    g, h = np.repeat(np.arange(12), 12), np.tile(np.arange(6), 24)
    a, b = 0.5 * rng.normal(size=12), 0.4 * rng.normal(size=6)
    data = pd.DataFrame({"g": g.astype(str), "h": h.astype(str)})
    data["x"] = rng.normal(size=144)
    mean = np.exp(1 + 0.3 * data.x + a[g] + b[h])
    data["y"] = rng.gamma(4.0, mean / 4.0)
    return jg.glmm("y ~ x + (1 | g) + (1 | h)", data, family="gamma")


def user_parameters(fit, psi):
    """beta and the Sigma of each term at internal parameters psi."""
    engine = fit.engine
    beta, theta, _ = engine.base.split(psi)
    sigmas = {}
    for factor, lam in zip(engine.factors, lambdas(engine.base, theta), strict=True):
        full = to_user(lam, factor)
        for term, a, b in factor.spans:
            sigmas[term] = full[a:b, a:b] @ full[a:b, a:b].T
    return engine.R_inverse @ beta, [sigmas[k] for k in sorted(sigmas)]


def derivative(function, psi, step=1e-5):
    """Central differences, (outputs, k)."""
    columns = []
    for k in range(len(psi)):
        e = np.zeros(len(psi))
        e[k] = step
        columns.append((function(psi + e) - function(psi - e)) / (2 * step))
    return np.array(columns).T
