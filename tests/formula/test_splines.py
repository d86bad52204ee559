"""Natural splines against R 4's ``splines::ns``, basis and predictions."""

import numpy as np
import pytest
from doors import natural_spline

import jaxglmm as jg
from jaxglmm import FormulaError

X = np.array([0.3, 1.7, 2.2, 3.9, 4.1, 5.5, 6.4, 7.7, 8.1, 9.6, -1.2, 3.3])
# R, by columns: ns(X, df=3), then at -10 and 20
THREE = np.array(
    [
        -0.09523147294,
        -0.100932188441,
        -0.06846420814,
        0.220176206521,
        0.265565712209,
        0.525272623188,
        0.552166330012,
        0.372060239625,
        0.279122563378,
        -0.150403715236,
        0.0,
        0.090367448244,
        0.29205350486,
        0.492985463678,
        0.535025861824,
        0.518879896453,
        0.503583997904,
        0.381886234896,
        0.335166773178,
        0.33490157195,
        0.346363590438,
        0.414269882316,
        0.0,
        0.551925810067,
        -0.186021340675,
        -0.314003480049,
        -0.34078080371,
        -0.325980936861,
        -0.312815500072,
        -0.158709014968,
        -0.007099185061,
        0.267968743981,
        0.362178319869,
        0.73613383292,
        0.0,
        -0.351298656982,
    ]
).reshape(3, -1)
BEYOND = np.array(
    [
        0.650888097719,
        -3.324080426408,
        -1.792797041087,
        0.945274156948,
        1.141908943367,
        3.37880626946,
    ]
).reshape(3, -1)
# ns(X, df=4, intercept=TRUE)
FOUR = np.array(
    [
        0.178296538999,
        0.5020151144,
        0.566800057708,
        0.513853210117,
        0.483976312778,
        0.236401664832,
        0.112625063172,
        0.023574685922,
        0.011600024054,
        0.0,
        -0.299835463244,
        0.579992021496,
        -0.151499174333,
        -0.027744222814,
        0.034891717189,
        0.339438608695,
        0.379029223025,
        0.58243588297,
        0.579409146629,
        0.377762707861,
        0.281928487025,
        -0.150403715236,
        -0.236469149643,
        0.219195458426,
        0.447036471854,
        0.291397558353,
        0.250343751707,
        0.190385209763,
        0.191061696182,
        0.224436554445,
        0.260129541444,
        0.319194773474,
        0.338634993725,
        0.414269882316,
        0.651327306911,
        0.197083746936,
        -0.284736606276,
        -0.185603540352,
        -0.159454618921,
        -0.116748652345,
        -0.113756709166,
        -0.058422594299,
        0.040695230056,
        0.27797307422,
        0.367100992934,
        0.73613383292,
        -0.414858157268,
        -0.125284604033,
    ]
).reshape(4, -1)
# ns(X, knots=c(2, 5), Boundary.knots=c(0, 8)) at -5, 0, 4, 8, 20
KNOTS = np.array(
    [
        0.550667323661,
        0.0,
        0.377543436078,
        -0.142857142857,
        -4.428571428571,
        -1.652001970982,
        0.0,
        0.452554876951,
        0.428571428571,
        1.285714285714,
        1.101334647322,
        0.0,
        -0.252320535251,
        0.714285714286,
        4.142857142857,
    ]
).reshape(3, -1)


def columns(found):
    return np.array(list(found.values()))


def test_the_basis_is_that_of_r():
    state = {}
    np.testing.assert_allclose(
        columns(natural_spline(X, 3, _state=state)), THREE, atol=1e-11
    )
    beyond = columns(natural_spline(np.array([-10.0, 20.0]), 3, _state=state))
    np.testing.assert_allclose(beyond, BEYOND, atol=1e-10)
    four = natural_spline(X, 4, intercept=True, _state={})
    np.testing.assert_allclose(columns(four), FOUR, atol=1e-11)
    state = {}
    natural_spline(X, knots=[5, 2], boundary_knots=[0, 8], _state=state)
    at = np.array([-5.0, 0, 4, 8, 20])
    found = columns(natural_spline(at, _state=state))
    np.testing.assert_allclose(found, KNOTS, atol=1e-10)


def test_a_fit_is_that_of_lme4():
    sleep = jg.datasets.load("sleepstudy")
    fit = jg.lmm("Reaction ~ ns(Days, df=3) + (1 | Subject)", sleep)
    assert fit.criterion == pytest.approx(1767.420217, abs=1e-6)
    lme4 = [255.52537147, 50.17799102, 100.65069109, 80.30875949]
    np.testing.assert_allclose(fit.coefficients, lme4, rtol=1e-8)
    again = fit.predict(sleep)
    np.testing.assert_allclose(again, fit.fitted_values)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"df": 0}, "df must be"),
        ({"df": 2.5}, "df must be"),
        ({"knots": [2, 2]}, "must be different"),
        ({"knots": [99]}, "lie between"),
        ({"df": 2, "boundary_knots": [3, 1]}, "smaller first"),
        ({"df": 8, "boundary_knots": [3.95, 4.05]}, "no number lies"),
    ],
)
def test_what_makes_no_spline(options, part):
    with pytest.raises(FormulaError, match=part):
        natural_spline(X, **options, _state={})
