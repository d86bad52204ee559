"""Profiles of correlations, which the sign of an entry of Lambda could turn round."""

import numpy as np
import pandas as pd

import jaxglmm as jg

COR = "cor_x.(Intercept)|g"


def test_correlation_beside_a_small_slope():
    """Where the best slope variance is zero, the curve is flat at what that costs.

    confint(profile(m)) in R gives [-1, 1] too: every correlation is possible.
    """
    rng = np.random.default_rng(55)
    g = np.repeat(np.arange(12), 10)
    x = rng.normal(size=120)
    b = rng.normal(size=(12, 2)) * [1.0, 0.1]
    y = b[g, 0] + (b[g, 1] + 0.15 * b[g, 0]) * x + rng.normal(size=120)
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    fit = jg.lmm("y ~ x + (x | g)", data, reml=False)
    without = jg.lmm("y ~ x + (1 | g)", data, reml=False)
    cost = without.criterion - fit.criterion
    assert 0 < cost < 3.8  # a slope variance of zero is within the interval
    profile = fit.profile(COR)
    curve = profile.curves[COR]
    zeta = [curve.zeta(v) for v in np.linspace(-0.999, 0.999, 9)]
    assert (np.diff(zeta) > -1e-6).all()
    np.testing.assert_allclose(zeta[0], -np.sqrt(cost), rtol=1e-4)
    np.testing.assert_allclose(profile.intervals(0.95).loc[COR], [-1, 1])
