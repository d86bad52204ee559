"""What a notebook shows of an object: lines, not pages."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import _brief

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (Days | Subject)"
MADE = {
    "linear": lambda sleep: jg.lmm(SLEEP, sleep),
    "generalised": lambda sleep: jg.glmm(
        "I(Reaction > 300) ~ Days + (1 | Subject)", sleep
    ),
    "posterior": lambda sleep: jg.lmm(SLEEP, sleep, method=jg.MAP(draws=100)),
    "many": lambda sleep: jg.fit_many(
        "y ~ Days + (Days | Subject)",
        sleep,
        responses=sleep[["Reaction", "Reaction"]].to_numpy() ** [1, 0.5],
    ),
}
PLAIN = (np.ndarray, np.generic, str, int, float, pd.DataFrame, pd.Series, type(None))


def parts(item, depth=1):
    """An object, and what its attributes hold."""
    yield item
    for name in () if isinstance(item, PLAIN) or not depth else dir(item):
        if name.startswith("_"):
            continue
        try:
            value = getattr(item, name)
        except (jg.JaxGLMMError, AssertionError, TypeError):
            continue
        if not (inspect.isroutine(value) or isinstance(value, PLAIN)):
            own = value.values() if isinstance(value, dict) else value
            inner = list(own)[:2] if isinstance(own, tuple | list) else [value]
            for one in inner:
                yield from parts(one, depth - 1)


@pytest.mark.parametrize("name", list(MADE))
def test_representations_are_short(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = MADE[name](jg.datasets.load("sleepstudy"))
        found = list(parts(made))
    ours = [x for x in found if type(x).__module__.startswith("jaxglmm")]
    assert len(ours) >= 3
    for item in ours:
        text = repr(item)
        assert len(text) < 2500, type(item)
        assert text.count("\n") < 40, type(item)
        assert type(item).__name__ in text or not text.startswith("<jaxglmm")


def test_parameters_take_a_line():
    fit = jg.lmm(SLEEP, jg.datasets.load("sleepstudy"))
    text = repr(fit.params)
    assert "\n" not in text
    assert len(text) < 1000
    assert "coefficients=[251.4, 10.47]" in text
    assert "\n" not in repr(fit.design) + repr(fit.design.terms[0]) + repr(fit.plot)
    assert "Corr" in repr(fit.varcorr["Subject"])


def test_long_formulas_and_many_names():
    rng = np.random.default_rng(0)
    columns = {f"a_rather_long_predictor_{k}": rng.normal(size=60) for k in range(30)}
    data = pd.DataFrame(columns)
    data["g"], data["y"] = np.arange(60) % 6, rng.normal(size=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = jg.lmm(f"y ~ {' + '.join(columns)} + (1 | g)", data)
        many = jg.fit_many(fit.formula, data, responses=rng.normal(size=(60, 2)))
    assert len(repr(fit)) < 250
    assert repr(fit).startswith("<Fit y ~ a_rather_long_predictor_0 ")
    assert len(repr(many)) < 700
    assert "and 21 more" in repr(many)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (np.zeros((3, 2)), "float64[3, 2]"),
        (np.array([1.0, 2.5]), "[1, 2.5]"),
        (np.float64(2.5), "2.5"),
        ("x" * 100, None),
        (tuple(range(100)), "(0, 1, 2, 3, 4, 5, ... 100 in all)"),
        ({"a": np.zeros(9)}, "{'a': float64[9]}"),
        (pd.DataFrame({"a": range(9)}), "DataFrame[9, 1]"),
    ],
)
def test_values_in_brief(item, text):
    found = _brief.value(item)
    assert len(found) <= 70
    assert text in (None, found)
