"""Warnings point at the user's line, whichever function was called."""

import sys
import types
import warnings

import numpy as np
import pytest

import jaxglmm as jg

N = 60
rng = np.random.default_rng(0)
DATA = {
    "y": rng.integers(1, 4, N),
    "z": rng.normal(size=N),
    "x": np.where(np.arange(N) == 3, np.nan, rng.normal(size=N)),
    "g": np.repeat(np.arange(12), 5),
    "v": np.tile(np.arange(5), 12),
    "s": np.full(N, 0.5),
}
CALLS = {
    "clmm": lambda: jg.clmm("y ~ x + (1 | g)", DATA, max_iter=1),
    "clm": lambda: jg.clm("y ~ x", DATA, max_iter=1),
    "mmrm": lambda: jg.mmrm("z ~ x + ar1(v | g)", DATA, max_iter=1),
    "residual": lambda: jg.lmm("z ~ x", DATA, residual="ar1(v | g)", max_iter=1),
    "meta": lambda: jg.meta("z ~ x", DATA, "s"),
    "lmm": lambda: jg.lmm("z ~ x + (1 | g)", DATA, max_iter=1),
    "poisson": lambda: jg.glmm("y ~ x + (1 | g)", DATA, family="poisson", max_iter=1),
    "disp": lambda: jg.glmm("z ~ x", DATA, family=jg.Gaussian(), dispersion="~ x"),
    "again": lambda: jg.lmm("z ~ x + (1 | g)", DATA, max_iter=1).refit(DATA["z"][1:]),
    "map": lambda: jg.lmm("z ~ x + (1 | g)", DATA, method="map"),
}


def seen(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if issubclass(w.category, jg.JaxGLMMWarning)]


@pytest.mark.parametrize("name", CALLS)
def test_a_warning_points_at_the_call(name):
    found = seen(CALLS[name])
    assert found, "of the missing row at least"
    assert {w.filename for w in found} == {__file__}


@pytest.mark.parametrize("name", ["jaxglmm_of_mine", "study"])
def test_of_a_module_whose_name_begins_like_ours(name, monkeypatch):
    module = types.ModuleType(name)
    code = "def fit(jg, data):\n    double = lambda x: 2 * x\n    return jg.lmm('z ~ "
    code += "double(x) + (1 | g)', data)\n"
    exec(compile(code, f"{name}.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    found = seen(lambda: module.fit(jg, DATA))
    assert {w.filename for w in found} == {f"{name}.py"}
