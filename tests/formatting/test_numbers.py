import numpy as np
import pytest
from doors import numbers


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([612.0897, 35.0717, 654.941], ["612.09", "35.07", "654.94"]),
        ([1e-6, 2.5e-6], ["1.000e-06", "2.500e-06"]),
        ([1234567.8, 2.0], ["1234568", "2.000"]),
        ([1e6, 1e-6], ["1000000", "1.000e-06"]),
        ([0.0, 13.8], ["0.00", "13.80"]),
        ([0.0], ["0.000"]),
        ([np.nan, 1.5], ["NaN", "1.500"]),
        ([np.inf, -np.inf], ["Inf", "-Inf"]),
        ([-1e-9, 1.5], ["-1.000e-09", "1.500"]),
        ([1e12, 2e12], ["1.000e+12", "2.000e+12"]),
        ([], []),
    ],
)
def test_column(values, shown):
    assert numbers.column(values) == shown


@pytest.mark.parametrize(
    ("estimates", "errors", "shown"),
    [
        (
            [251.405, 10.467],
            [6.8246, 1.5458],
            (["251.405", "10.467"], ["6.825", "1.546"]),
        ),
        (
            [1.5e6, 2e-6],
            [2.5e3, 1e-7],
            (["1500000", "2.000e-06"], ["2500", "1.000e-07"]),
        ),
        ([1.0], [np.nan], (["1.000"], ["NaN"])),
        ([0.0], [0.0], (["0.000"], ["0.000"])),
    ],
)
def test_estimates_have_the_decimals_of_their_errors(estimates, errors, shown):
    assert numbers.with_errors(estimates, errors) == shown


@pytest.mark.parametrize("size", range(-12, 13))
def test_four_digits_survive_at_every_size(size):
    value = 1.2345 * 10.0**size
    for text in (numbers.general(value), numbers.column([value])[0]):
        assert float(text) == pytest.approx(value, rel=5e-4)
        assert len(text) <= 10


@pytest.mark.parametrize(
    ("p", "shown", "stars"),
    [
        (0.0, "< 2e-16", "***"),
        (3.26379e-6, "3.26e-06", "***"),
        (0.000543, "0.000543", "***"),
        (0.0123, "0.0123", "*"),
        (0.05, "0.0500", "*"),
        (0.0712, "0.0712", "."),
        (1.0, "1.0000", ""),
        (np.nan, "NaN", ""),
    ],
)
def test_p_values(p, shown, stars):
    assert numbers.p_value(p) == shown
    assert numbers.stars(p) == stars


def test_degrees_of_freedom_get_fewer_decimals_as_they_grow():
    assert numbers.df([17.0, 5.486]) == ["17.00", "5.49"]
    assert numbers.df([73421.4, 17.0]) == ["73421.4", "17.0"]
    assert numbers.df([123456.7]) == ["123457"]
