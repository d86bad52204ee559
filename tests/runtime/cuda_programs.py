"""Every program of some fits, lowered for CUDA where there is no GPU.

``python tests/runtime/cuda_programs.py GROUP``: fits the models of a group and prints,
for every program that JAX is asked for on the way, what it would call on an NVIDIA GPU
that is not XLA's own, as JSON: ``{model: {program: [targets]}}``.

Nothing is compiled where that can be helped. Programs that may run in NumPy are lowered
and their result comes from NumPy; only the others are compiled for this machine as
well. A program that cannot be lowered has the reason in place of targets.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
import warnings
from pathlib import Path

os.environ["JAXGLMM_CACHE"] = "off"  # a program that is read is not lowered
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "shared" in sys.argv[1:]:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import numpy as np
import pandas as pd
from jax._src.interpreters import pxla

sys.path.insert(0, str(Path(__file__).parent.parent))  # doors
from doors import devices, host, hosted, ragged_residuals

import jaxglmm as jg
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM

TARGET = re.compile(r"custom_call @([\w.$]+)|call_target_name = \"([^\"]+)\"")


class Lowered(Exception):
    """It was, and its result comes from elsewhere."""


class Seen:
    """What was met, by the model under way."""

    def __init__(self):
        self.found, self.now = {}, None
        self.this = threading.local()

    @contextlib.contextmanager
    def of(self, model):
        """The programs of a model."""
        self.now = self.found[model] = {}
        yield

    def note(self, name, text):
        calls = {a or b for a, b in TARGET.findall(text)}
        known = set(self.now.get(name, ()))
        self.now[name] = sorted(known | calls)


seen = Seen()


def watch():
    """Lower all that JAX lowers from now on for CUDA too."""
    plain = pxla.lower_sharding_computation

    def lowered(jaxpr, api, name, *args, **kwargs):
        if kwargs.get("lowering_platforms") is None:
            there = {**kwargs, "lowering_platforms": ("cuda",)}
            try:
                module = plain(jaxpr, api, name, *args, **there)
                seen.note(name, str(module.stablehlo()))
            except Exception as error:
                seen.now[name] = [f"{type(error).__name__}: {error}"[:300]]
            if getattr(seen.this, "alone", False):
                raise Lowered
        return plain(jaxpr, api, name, *args, **kwargs)

    pxla.lower_sharding_computation = lowered
    known = set()

    def attempt(key, leaves, run, otherwise, kept=None):
        """A program is lowered once, and NumPy gives its result."""
        del kept
        if key not in known:
            known.add(key)
            before, seen.this.alone = getattr(seen.this, "alone", False), True
            try:
                return otherwise()
            except Lowered:
                pass
            finally:
                seen.this.alone = before
        with contextlib.suppress(Exception), host.on_host():
            return run()
        return otherwise()

    hosted.attempt = attempt
    assert devices.hosted is hosted
    devices.LITTLE = 10**9
    ragged_residuals.FEW = ragged_residuals.WORTH = 2  # data sets worth a program


# Data ---------------------------------------------------------------------------------


def table():
    """Two crossed factors, one inside another, responses of several kinds."""
    rng = np.random.default_rng(20261130)
    n = 120
    g, h = np.repeat(np.arange(12), 10), rng.integers(0, 6, n)
    data = pd.DataFrame(rng.normal(size=(n, 8)), columns=[f"x{i}" for i in range(8)])
    data["g"], data["h"] = g.astype(str), h.astype(str)
    data["k"] = [f"{a}.{b}" for a, b in zip(g, np.arange(n) % 3, strict=True)]
    data["visit"] = np.tile(np.arange(5), n // 5)
    data["subject"] = np.repeat(np.arange(n // 5), 5).astype(str)
    data["set"] = np.repeat(np.arange(4), n // 4)
    level = 0.5 * rng.normal(size=12)[g] + 0.5 * rng.normal(size=6)[h]
    eta = 0.3 * data["x0"] + level
    data["y"] = eta + rng.normal(size=n)
    data["w"] = rng.uniform(0.5, 2, n)
    data["count"] = rng.poisson(np.exp(eta)).astype(float)
    data["over"] = rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, n)).astype(float)
    data["zero"] = data["over"] * (rng.uniform(size=n) < 0.7)
    data["positive"] = np.exp(0.3 * eta + 0.3 * rng.normal(size=n))
    data["part"] = 1 / (1 + np.exp(-eta - rng.normal(size=n)))
    data["yes"] = rng.binomial(1, 1 / (1 + np.exp(-eta))).astype(float)
    grade = np.clip(np.digitize(eta + rng.logistic(size=n), [-1, 0.5]), 0, 2)
    data["grade"] = pd.Categorical.from_codes(grade, list("abc"), ordered=True)
    return data


def columns(p):
    """A sum of p - 1 covariates, beside the intercept."""
    return " + ".join(["1", *(f"x{i}" for i in range(p - 1))])


# Models -------------------------------------------------------------------------------


def lmm(formula, ask=(), **options):
    """A linear model; ``ask``: what is asked of the fit."""

    def run(data):
        fit = jg.lmm(formula, data, **options)
        for question in ask:
            question(fit)

    return run


def glmm(formula, ask=(), **options):
    """A generalised one."""

    def run(data):
        fit = jg.glmm(formula, data, **options)
        for question in ask:
            question(fit)

    return run


def many(formula, response=None, **options):
    """Several responses, or data sets of different sizes where there is none."""

    def run(data):
        given = dict(options)
        if response is not None:
            y = data[response].to_numpy(float)
            given["responses"] = np.column_stack([np.roll(y, k) for k in range(6)])
        fits = jg.fit_many(formula, data, **given)
        assert len(fits) > 1

    return run


def profile(fit):
    fit.confint(method="profile")


def bootstrap(fit):
    fit.bootstrap(8, seed=1)


def summary(fit):
    fit.summary()


def tests(fit):
    fit.anova()
    fit.anova(ddf="Kenward-Roger")


def influence(fit):
    fit.influence("g")


def shared_levels(data):
    """One fit whose levels are on two devices."""
    with jg.on_devices("all"):
        jg.lmm(f"y ~ {SLOPE}", data)


def from_files(fit, formula, **options):
    """A fit of rows in two files."""

    def run(data):
        with tempfile.TemporaryDirectory() as folder:
            for k in range(2):
                data.iloc[k::2].to_parquet(Path(folder) / f"{k}.parquet")
            fit(formula, folder, **options)

    return run


def mixed_lm(data):
    smf.mixedlm("y ~ x0", data, groups="g").fit().summary()


def fit_vb(data):
    model = BinomialBayesMixedGLM.from_formula("yes ~ x0", {"g": "0 + C(g)"}, data)
    model.fit_vb()


def callback(data):
    """What asks the host in the middle of a program."""
    shape = jax.ShapeDtypeStruct((), np.float32)

    @jax.jit
    def asks(x):
        return jax.pure_callback(lambda x: x, shape, x)

    asks(np.float32(1))


def cpu_alone(data):
    """What only LAPACK has."""

    @jax.jit
    def schur(A):
        return jax.scipy.linalg.schur(A)[0]

    schur(np.eye(2, dtype=np.float32))


FACTOR = "x0 + (1 | g)"
SLOPE = "x0 + (x0 | g)"
CROSSED = "x0 + (1 | g) + (1 | h)"
WIDE = columns(6)

GROUPS = {
    "linear": {
        "one factor": lmm(f"y ~ {FACTOR}", [summary, tests]),
        "ml, weights": lmm(f"y ~ {FACTOR}", reml=False, weights="w"),
        "slopes": lmm(f"y ~ {SLOPE}", [summary]),
        "many columns": lmm(f"y ~ {columns(9)} + ({WIDE} | g)", [summary]),
        "nested": lmm("y ~ x0 + (1 | g) + (1 | k)", [summary, tests]),
        "crossed": lmm(f"y ~ {CROSSED}", [summary, tests]),
    },
    "structures": {
        "effects, ar1": lmm("y ~ x0 + ar1(0 + C(visit) | subject)", [summary]),
        "residuals, ar1": lmm(
            f"y ~ {FACTOR}", [summary], residual="ar1(visit | subject)"
        ),
        "repeated measures": lambda data: jg.mmrm(
            "y ~ x0 + us(visit | subject)", data
        ).summary(),
        "smooth": lmm("y ~ s(x0, k=6) + (1 | g)", [summary]),
    },
    "generalised": {
        "laplace": glmm(f"yes ~ {FACTOR}", [summary], family="bernoulli"),
        "slopes": glmm(f"count ~ {SLOPE}", [summary], family="poisson"),
        "crossed": glmm(f"count ~ {CROSSED}", [summary], family="poisson"),
        "quadrature": glmm(
            f"yes ~ {FACTOR}", [summary], family="bernoulli", method=jg.AGQ(7)
        ),
        "negative binomial": glmm(f"over ~ {FACTOR}", [summary], family="nbinom2"),
        "linear variance": glmm(f"over ~ {FACTOR}", family="nbinom1"),
        "many columns": glmm(f"count ~ {columns(8)} + (1 | g)", family="poisson"),
    },
    "families": {
        "gamma": glmm(f"positive ~ {FACTOR}", family="gamma"),
        "inverse Gaussian": glmm(
            f"positive ~ {FACTOR}", family=jg.InverseGaussian("log")
        ),
        "beta": glmm(f"part ~ {FACTOR}", family="beta"),
        "tweedie": glmm(f"zero ~ {FACTOR}", family="tweedie"),
        "student": glmm(f"y ~ {FACTOR}", family="t"),
        "lognormal": glmm(f"positive ~ {FACTOR}", family="lognormal"),
        "compois": glmm(f"count ~ {FACTOR}", family="compois"),
        "genpois": glmm(f"over ~ {FACTOR}", family="genpois"),
    },
    "predictors": {
        "added zeros": glmm(f"zero ~ {FACTOR}", [summary], family="poisson", zi="~ x1"),
        "dispersion": glmm(
            f"over ~ {FACTOR}", [summary], family="nbinom2", dispersion="~ x1"
        ),
        "ordered": lambda data: jg.clmm(f"grade ~ {FACTOR}", data).summary(),
        "multinomial": glmm(f"grade ~ {FACTOR}", family="multinomial"),
    },
    "posteriors": {
        "nested Laplace": glmm(
            f"yes ~ {FACTOR}", family="bernoulli", method="nested-laplace"
        ),
        "crossed": glmm(
            f"count ~ {CROSSED}", family="poisson", method="nested-laplace"
        ),
        "linear": lmm(f"y ~ {FACTOR}", method="nested-laplace"),
        "map": glmm(f"count ~ {FACTOR}", family="poisson", method="map"),
        "variational": glmm(f"yes ~ {FACTOR}", family="bernoulli", method="vb"),
        "variational, zeros": glmm(
            f"zero ~ {FACTOR}", family="poisson", zi="~ 1", method="vb"
        ),
    },
    "chains": {
        "nuts": glmm(
            f"yes ~ {FACTOR}",
            family="bernoulli",
            method=jg.NUTS(draws=6, warmup=6, chains=2),
        ),
        "nuts, crossed": glmm(
            f"count ~ {CROSSED}",
            family="poisson",
            method=jg.NUTS(draws=6, warmup=6, chains=2),
        ),
    },
    "many linear": {
        "responses": many(f"y ~ {FACTOR}", "y"),
        "slopes, ml": many(f"y ~ {SLOPE}", "y", method="ml"),
        "nested": many("y ~ x0 + (1 | g) + (1 | k)", "y"),
        "crossed": many(f"y ~ {CROSSED}", "y"),
        "many columns": many(f"y ~ x0 + ({WIDE} | g)", "y"),
        "sets": many(f"y ~ {FACTOR}", by="set"),
        "residuals": many(f"y ~ {FACTOR}", "y", residual="ar1(visit | subject)"),
        "residuals, sets": many("y ~ x0", by="g", residual="ar1(visit | subject)"),
    },
    "many generalised": {
        "responses": many(f"y ~ {FACTOR}", "count", family="poisson"),
        "negative binomial": many(f"y ~ {FACTOR}", "over", family="nbinom2"),
        "slopes": many(f"y ~ {SLOPE}", "count", family="poisson"),
        "crossed": many(f"y ~ {CROSSED}", "count", family="poisson"),
        "quadrature": many(
            f"y ~ {FACTOR}", "yes", family="bernoulli", method=jg.AGQ(5)
        ),
        "sets": many(f"count ~ {FACTOR}", by="set", family="poisson"),
        "posteriors": many(
            f"y ~ {FACTOR}", "yes", family="bernoulli", method="nested-laplace"
        ),
    },
    "shared": {
        "responses": many(f"y ~ {FACTOR}", "y", devices="all"),
        "counts": many(f"y ~ {FACTOR}", "count", family="poisson", devices="all"),
        "levels": shared_levels,
    },
    "streams": {
        "linear": from_files(jg.lmm, f"y ~ {SLOPE}"),
        "generalised": from_files(jg.glmm, f"count ~ {FACTOR}", family="poisson"),
    },
    "other doors": {
        "statsmodels, linear": mixed_lm,
        "statsmodels, variational": fit_vb,
    },
    "unfit": {"callback": callback, "cpu alone": cpu_alone},
    "questions": {
        "linear": lmm(f"y ~ {FACTOR}", [profile, bootstrap, influence]),
        "slopes": lmm(f"y ~ {SLOPE}", [profile, bootstrap]),
        "generalised": glmm(
            f"count ~ {FACTOR}", [profile, bootstrap], family="poisson"
        ),
    },
}


def main(group):
    """Print what was met."""
    warnings.simplefilter("ignore")
    watch()
    data = table()
    for name, run in GROUPS[group].items():
        with seen.of(name):
            run(data.copy())
    print(json.dumps(seen.found))


if __name__ == "__main__":
    main(sys.argv[1])
