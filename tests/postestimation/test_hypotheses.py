import numpy as np
import pytest
from doors import WaldTest, contrast_matrix

from jaxglmm import NotApplicableError

NAMES = ("(Intercept)", "x", "z")


@pytest.mark.parametrize(
    ("L", "matrix"),
    [
        ("x", [[0, 1, 0]]),
        ({"x": 1, "z": -1}, [[0, 1, -1]]),
        (["x", {"z": 2}], [[0, 1, 0], [0, 0, 2]]),
        ([0, 1, -1], [[0, 1, -1]]),
        ([[0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]),
        (np.eye(3)[1:], [[0, 1, 0], [0, 0, 1]]),
    ],
)
def test_forms_of_a_hypothesis(L, matrix):
    np.testing.assert_array_equal(contrast_matrix(L, NAMES), matrix)


@pytest.mark.parametrize(
    ("L", "message"),
    [("w", "no coefficient 'w'; there are"), ([1, 2], "needs 3 columns")],
)
def test_hypotheses_that_cannot_be_read(L, message):
    with pytest.raises(NotApplicableError, match=message):
        contrast_matrix(L, NAMES)


def test_a_test_shows_its_numbers():
    one = WaldTest(
        4.0, 1, 10, 0.0734, "satterthwaite", np.array([2.0]), np.array([1.0])
    )
    assert one.t == 2.0
    assert repr(one) == (
        "estimate 2.000 (se 1.000), t(10.00) = 2.0000, p = 0.0734 [satterthwaite]"
    )
    two = WaldTest(4.0, 2, 10, 1e-20, "satterthwaite", np.ones(2), np.ones(2))
    assert repr(two) == "F(2, 10.00) = 4.0000, p < 2e-16 [satterthwaite]"
    with pytest.raises(NotApplicableError, match="has an F"):
        _ = two.t


def test_wald_interval_and_its_array(sleep):
    limits = sleep.confint(0.95)
    np.testing.assert_allclose(limits, sleep.conf_int)
    np.testing.assert_allclose(limits.loc["Days"], [7.205956, 13.728616], rtol=1e-6)
    for level in (0, 95):
        with pytest.raises(NotApplicableError, match="between 0 and 1"):
            sleep.confint(level)
    with pytest.raises(NotApplicableError, match="'profile'"):
        sleep.confint(method="exact")
