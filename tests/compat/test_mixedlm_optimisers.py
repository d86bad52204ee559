"""Every optimiser of ``MixedLM.fit`` ends at the same optimum, zero variances too."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
import jaxglmm.compat.statsmodels.formula.api as smf
from jaxglmm.compat.statsmodels import MixedLMParams

METHODS = ("lbfgs", "bfgs", "cg", "nm", "powell")
J, K = 24, 5  # groups, rows each

pytestmark = pytest.mark.filterwarnings("ignore::jaxglmm.JaxGLMMWarning")


def drawn(seed, sd):
    rng = np.random.default_rng(seed)
    g, h = np.repeat(np.arange(J), K), np.tile(np.arange(K), J)
    x = rng.normal(size=J * K)
    y = 0.3 * x + rng.normal(size=J * K) + rng.normal(0, sd, J)[g]
    unit = rng.choice([0.01, 1.0, 100.0])
    return pd.DataFrame({"y": unit * y, "x": x, "g": g, "h": h, "one": 1})


def test_lbfgs_leaves_zero_as_reported():
    d = jg.datasets.load("Penicillin")
    m = smf.mixedlm("diameter ~ 1", d, groups="plate")
    best, found = m.fit(), m.fit(method="lbfgs")
    assert found.llf == pytest.approx(-306.62801, abs=1e-5)
    assert found.llf == pytest.approx(best.llf, abs=1e-7)
    assert found.cov_re.iloc[0, 0] == pytest.approx(0.0951, abs=1e-4)


MODELS = {
    "intercepts": {"groups": "g"},
    "elements": {"groups": "g", "use_sqrt": False},
    "slopes": {"groups": "g", "re_formula": "0 + x"},
    "component": {"groups": "one", "vc_formula": {"h": "0 + C(h)"}},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sd", [0.0, 0.2, 0.6])
def test_one_variance(model, sd):
    for seed in (1, 2):
        m = smf.mixedlm("y ~ x", drawn(seed, sd), **MODELS[model])
        best = m.fit()
        for method in METHODS:
            found = m.fit(method=method)
            assert found.llf == pytest.approx(best.llf, abs=1e-6), method
            assert found.converged, method


@pytest.mark.parametrize("method", [None, "lbfgs"])
def test_starts_of_zero_are_left(method):
    m = smf.mixedlm("y ~ x", drawn(3, 0.8), groups="g", re_formula="1 + x")
    best = m.fit()
    assert best.cov_re_unscaled.iloc[0, 0] > 0.1
    nothing = MixedLMParams.from_components(np.zeros(2), np.zeros((2, 2)))
    for start in (nothing, [0.0, 0.0, 0.0]):
        found = m.fit(start_params=start, method=method)
        assert found.llf == pytest.approx(best.llf, abs=1e-6)
    free = MixedLMParams.from_components(np.ones(2), np.eye(2))
    apart = m.fit(free=free)
    found = m.fit(free=free, start_params=nothing, method=method)
    assert found.llf == pytest.approx(apart.llf, abs=1e-6)
    assert found.cov_re.iloc[0, 1] == 0
