"""Residuals' correlations in closed form are those of random effects, by duals."""

import numpy as np
import pytest
from doors import Pairs
from doors import model_correlations as shared
from doors import residuals_correlations as closed

T = 4
LAG = np.abs(np.subtract.outer(np.arange(T), np.arange(T))).astype(float)
AT = Pairs(np.arange(T)[None], LAG[None])
TIMES = tuple((float(t),) for t in range(T))
SMOOTH = {
    "cs": (closed.CompoundSymmetry(T), shared.Exchangeable(T), [0.3]),
    "ar1": (closed.FirstOrder(), shared.Autoregressive(T), [-0.4]),
    "arma11": (closed.Arma11(), shared.MovingAverage(T), [0.5, -0.3]),
    "toep": (closed.ByLag(T), shared.Toeplitz(T), [0.4, 0.2, -0.1]),
    "ad": (closed.BySteps(T), shared.Antedependence(T), [0.5, -0.6, 0.7]),
}
BY_RANGE = {
    "sp_exp": (closed.Distance(1), shared.ExponentialKernel(TIMES)),
    "sp_gau": (closed.Distance(2), shared.GaussianKernel(TIMES)),
}


def packed(x):
    column, row = np.triu_indices(T)
    return np.asarray(x)[..., 0, row, column]


@pytest.mark.parametrize("name", SMOOTH)
def test_value_and_two_derivatives(name):
    own, other, natural = SMOOTH[name]
    R, dR, d2R = own.of_natural(np.array(natural), AT)
    value, first, second = other.derivatives(natural, natural=True)
    close(packed(R), value)
    close(packed(dR), np.stack(first))
    d2R = np.zeros((own.k, own.k, 1, T, T)) if d2R is None else d2R
    close(packed(d2R), np.array([[np.asarray(x) for x in row] for row in second]))


@pytest.mark.parametrize("name", BY_RANGE)
def test_correlations_of_distances(name):
    own, other = BY_RANGE[name]
    t = np.array([0.7])
    R, dR = own.tables(t, AT)
    bend = own.second(t, AT, np.ones((1, 1)))
    r, slope, curve = (float(x[0]) for x in own.natural(t))
    value, (first,), ((second,),) = other.derivatives([r], natural=True)
    close(packed(R), value)
    close(packed(dR[0]), slope * np.asarray(first))
    close(packed(bend), curve * np.asarray(first) + slope**2 * np.asarray(second))


def close(a, b):
    np.testing.assert_allclose(a, np.asarray(b), rtol=1e-10, atol=1e-12)
