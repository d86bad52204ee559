"""Arguments of the wrong kind: whatever is given, an answer or jaxglmm's own error.

Every argument of the public functions, methods and constructors is given what it is
not meant for. The calls are read from the signatures, so that a new method is among
them without being listed.
"""

import contextlib
import functools
import inspect
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from doors import (
    FitsPlots,
    GeneralisedFit,
    GeneralisedICC,
    JointDraws,
    PlotAccessor,
    PosteriorFit,
    Posteriors,
    PosteriorsPlots,
    Profile,
    SimulatedResiduals,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxglmm as jg
from jaxglmm import Fit, Fits

N = 24
JUNK = {
    "None": None,
    "True": True,
    "minus one": -1,
    "zero": 0,
    "a half": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "huge": 10**400,
    "complex": 1j,
    "empty text": "",
    "text": "zz",
    "variable": "x",
    "bytes": b"x",
    "empty list": [],
    "list of names": ["x", "zz"],
    "list of factors": ["f"],
    "lists": [[1, 2], [3]],
    "empty dict": {},
    "dict": {"x": "a"},
    "dict of lists": {"x": [1.0, 2.0], "f": ["a"]},
    "tuple": (),
    "set": {1, 2},
    "object": object(),
    "function": lambda v: v,
    "type": int,
    "slice": slice(None),
    "array": np.zeros(3),
    "matrix": np.zeros((2, 2)),
    "texts": np.array(["a", "b"]),
    "scalar array": np.array(2.0),
    "empty frame": pd.DataFrame(),
    "frame": pd.DataFrame({"x": [1.0, 2.0], "f": ["a", "b"]}),
    "series": pd.Series([1.0, np.nan], name="x"),
    "date": np.datetime64("2020-01-01"),
    "missing": pd.NA,
}


@functools.cache
def data():
    rng = np.random.default_rng(0)
    g, f = np.arange(N) % 6, np.arange(N) % 3
    columns = {
        "y": rng.normal(size=N) + rng.normal(size=6)[g],
        "k": rng.poisson(3, N).astype(float),
        "x": rng.normal(size=N),
        "f": np.array(list("abc"))[f],
        "g": np.array([f"g{i}" for i in g]),
    }
    return pd.DataFrame(columns)


RESPONSES = np.random.default_rng(1).normal(size=(N, 3))
LINEAR, COUNTS = "y ~ x + f + (1 | g)", "k ~ x + f + (1 | g)"


@functools.cache
def made(kind):
    """An object of the class, from tiny data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _makers()[kind]()


def _posteriors():
    """Draws of three data sets as a run would leave them."""
    draws = np.random.default_rng(2).normal(size=(3, 40, 2))
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    none, good = np.full(3, np.nan), np.ones(3, bool)
    return Posteriors(
        ("x", "sd_x|g"),
        ("x",),
        draws.mean(axis=1),
        draws.std(axis=1),
        low,
        high,
        draws,
        none,
        none,
        none,
        np.zeros(3, int),
        good,
    )


def _makers():
    few = jg.MAP(draws=50)
    return {
        Fit: lambda: jg.lmm(LINEAR, data()),
        GeneralisedFit: lambda: jg.glmm(COUNTS, data(), family="poisson"),
        PosteriorFit: lambda: jg.glmm(COUNTS, data(), family="poisson", method=few),
        Fits: lambda: jg.fit_many(LINEAR, data(), responses=RESPONSES),
        Posteriors: _posteriors,
        PlotAccessor: lambda: made(Fit).plot,
        FitsPlots: lambda: made(Fits).plot,
        PosteriorsPlots: lambda: made(Posteriors).plot,
        GeneralisedICC: lambda: made(GeneralisedFit).icc,
        Profile: lambda: made(Fit).profile("beta"),
        SimulatedResiduals: lambda: made(Fit).simulated_residuals(20),
        JointDraws: lambda: made(Fit).draws(5),
    }


SLOW = {
    (PlotAccessor, "profile"),
    (Fit, "bootstrap"),
    (Fit, "power_curve"),
    *((GeneralisedFit, x) for x in ("bootstrap", "power", "power_curve")),
    (GeneralisedFit, "cross_validate"),
}
HIDDEN = {  # of the package's own use, or without an argument
    *(
        "keep",
        "kept_estimates",
        "kept_diagnostics",
        "model_facts",
        "restored",
        "take_robust",
    ),
    *(
        "like",
        "with_design",
        "unfolded",
        "drawn",
        "working",
        "internal",
        "limits",
        "plain_df",
        "kenward_roger_of",
    ),
    *("from_table", "showing", "one", "part", "place", "checked_ddf"),
    *("copy", "in_words"),
    *("items", "keys", "values", "get", "pop", "popitem", "update", "setdefault"),
    *("clear", "fromkeys"),
}
OPTIONS = {  # arguments behind ``**options``, by class and method
    (PlotAccessor, "ranef"): ("terms", "level", "sort", "max_labels", "axes"),
    (PlotAccessor, "residuals"): ("type", "against", "smooth", "ax"),
    (PlotAccessor, "check"): ("draws", "seed", "axes"),
    (PlotAccessor, "influence"): ("n", "axes"),
    (PlotAccessor, "qq"): ("level", "factor", "ax", "axes"),
    (PlotAccessor, "simulated_residuals"): ("n", "seed", "re", "axes"),
    (FitsPlots, "volcano"): ("rate", "labels", "ax"),
    (FitsPlots, "p_values"): ("bins", "ax"),
    (FitsPlots, "estimates"): ("marks", "axes"),
    (PosteriorsPlots, "intervals"): ("max_labels", "ax"),
}
GOOD = {  # what the other arguments of a call are
    "with_vcov": {"vcov": "CR0"},
    "load": {"path": "nowhere.jaxglmm"},
    "save": {"path": "no/such/folder/fit.jaxglmm"},
    "contrasts": {"factor": "f"},
    "slopes": {"variable": "x"},
    "trends": {"variable": "x"},
    "test": {"L": "x"},
    "top": {"term": "x"},
    "volcano": {"term": "x"},
    "p_values": {"term": "x"},
    "intervals": {"term": "x"},
    "simulated_residuals": {"n": 20},
    "simulated_statistic": {"of": np.max, "n": 20},
    "draws": {"n": 5},
    "means": {"specs": "f"},
    "observations": {},
    "check": {"n": 20},
    "overdispersion": {"n": 20},
    "zero_inflation": {"n": 20},
    "ranks": {"truth": np.zeros((3, 2))},
    "by": {"groups": "g"},
    "spatial": {"x": "x", "y": "x"},
    "temporal": {"time": "x"},
    "power": {"test": "x", "n_simulations": 20},
    "power_curve": {"test": "x", "along": "g", "sizes": [8], "n_simulations": 20},
    "refit": {"y": np.arange(float(N)) % 5},
    "to_arviz": {"groups": ("posterior",)},
    "annotate": {"adata": SimpleNamespace(var=pd.DataFrame(), var_names=[])},
    "to_image": {"like": "nowhere.nii", "term": "x"},
}
FUNCTIONS = {  # name -> a call that is right
    "lmm": lambda: {"formula": LINEAR, "data": data()},
    "glmm": lambda: {"formula": COUNTS, "data": data(), "family": "poisson"},
    "fit_many": lambda: {"formula": LINEAR, "data": data(), "responses": RESPONSES},
    "load": lambda: {"path": "nowhere.jaxglmm"},
    "Priors": dict,
    "Normal": dict,
    "HalfNormal": dict,
    "HalfT": dict,
    "Exponential": dict,
    "LogNormal": dict,
    "LKJ": dict,
    "Fixed": dict,
    "MAP": dict,
    "NestedLaplace": dict,
    "VB": dict,
    "NUTS": dict,
    "Laplace": dict,
    "AGQ": dict,
    "NegativeBinomial": dict,
    "Binomial": dict,
    "Gamma": dict,
    "StudentT": dict,
}
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _arguments(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in NAMED and p.name != "self"]


def _cases():
    """(class or None, name, argument) of every call."""
    found = []
    for name in FUNCTIONS:
        found += [(None, name, each) for each in _arguments(getattr(jg, name))]
    for kind in _makers():
        for name in dir(kind):
            method = getattr(kind, name, None)
            private = name.startswith("_") and name != "__call__"
            hidden = private or name in HIDDEN or (kind, name) in SLOW
            if hidden or not callable(method):
                continue
            names = [*_arguments(method), *OPTIONS.get((kind, name), ())]
            found += [(kind, name, each) for each in names]
    return sorted(found, key=lambda case: (str(case[0]), *case[1:]))


CASES = _cases()


def call(case, junk):
    """The call with junk for one argument."""
    kind, name, argument = case
    if kind is None:
        function, right = getattr(jg, name), FUNCTIONS[name]()
    else:
        function = getattr(made(kind), name)
        taken = inspect.signature(function).parameters
        right = {k: v for k, v in GOOD.get(name, {}).items() if k in taken}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(function(**{**right, argument: JUNK[junk]}))
        finally:
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    """Files that a call may write go where nobody looks."""
    pytest.importorskip("matplotlib").use("Agg")
    with contextlib.chdir(tmp_path_factory.mktemp("files")):
        yield


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(case=st.sampled_from(CASES), junk=st.sampled_from(sorted(JUNK)))
def test_any_argument_of_any_kind(case, junk):
    with contextlib.suppress(jg.JaxGLMMError):
        call(case, junk)


KINDS = [
    *[(Fit, "anova", "ddf", x) for x in ("array", "frame", "missing", "list of names")],
    (Fit, "predict", "re", "matrix"),
    (Fit, "predict", "se", "text"),
    (Fit, "predict", "interval", "array"),
    (Fit, "predictions", "by", "a half"),
    (Fit, "predictions", "newdata", "dict"),
    (Fit, "predictions", "newdata", "dict of lists"),
    (Fit, "slopes", "by", "series"),
    (Fit, "contrasts", "adjust", "series"),
    (Fit, "contrasts", "ratio", "a half"),
    (Fit, "coef_by", "factor", "list of factors"),
    (Fit, "confint", "method", "frame"),
    (Fit, "profile", "which", "object"),
    (Fit, "tidy", "effects", "empty list"),
    (Fit, "tidy", "conf_int", "array"),
    (Fit, "test", "L", "bytes"),
    (Fit, "test", "L", "lists"),
    (Fit, "test", "rhs", "text"),
    (Fit, "test", "rhs", "NaN"),
    (Fit, "refit", "y", "function"),
    (Fit, "load", "path", "empty text"),
    (Fit, "load", "path", "object"),
    (Fits, "tidy", "effects", "array"),
    (Fits, "top", "term", "list of names"),
    (Fits, "confint", "method", "array"),
    (FitsPlots, "volcano", "rate", "text"),
    (PlotAccessor, "ranef", "level", "text"),
    (PlotAccessor, "qq", "ax", "text"),
    (Posteriors, "top", "n", "text"),
    (Posteriors, "ranks", "truth", "text"),
    (None, "lmm", "missing", "array"),
    (None, "lmm", "reml", "array"),
    (None, "fit_many", "by", "object"),
    (None, "fit_many", "formula", "lists"),
    (None, "glmm", "method", "array"),
    (None, "Normal", "sd", "array"),
    (None, "Priors", "centered", "text"),
    (None, "NUTS", "density", "array"),
    (None, "StudentT", "df", "text"),
    (None, "NegativeBinomial", "kind", "array"),
]


@pytest.mark.parametrize(("kind", "name", "argument", "junk"), KINDS)
def test_what_an_argument_cannot_be_is_refused(kind, name, argument, junk):
    with pytest.raises(jg.JaxGLMMError):
        call((kind, name, argument), junk)
