"""Tails of Student's t against SciPy's, and where they are used."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from doors import student_t as tails
from doors import t_p_values
from scipy import special

SIZES = [1e-200, 1e-12, 1e-5, 0.01, 0.3, 0.9, 1.0, 2.0, 5.0, 30.0, 1e3, 1e6]
DEGREES = [0.01, 0.5, 1.0, 2.0, 4.7, 17.0, 55.0, 59.9, 60.1, 161.0, 1e3, 9999.0]


@pytest.mark.parametrize("df", DEGREES)
def test_as_scipy_finds_them(df):
    t = np.array(SIZES)
    x, rest = df / (df + t**2), t**2 / (df + t**2)
    near = 1 - special.betainc(0.5, df / 2, rest)
    expected = np.where(rest < 1e-3, near, special.betainc(df / 2, 0.5, x))
    found = np.array([tails.two_sided(-value, df) for value in t])
    far = expected > 1e-290
    assert found[far] == pytest.approx(expected[far], rel=1e-12)
    assert (found[~far] <= 1e-290).all()


def test_ends():
    assert tails.two_sided(1.5, math.inf) == pytest.approx(special.erfc(1.5 / 2**0.5))
    assert tails.two_sided(math.inf, 3.0) == 0.0
    assert tails.two_sided(0.0, 3.0) == 1.0
    assert math.isnan(tails.two_sided(math.nan, 3.0))
    assert math.isnan(tails.two_sided(1.0, -1.0))
    with pytest.raises(ArithmeticError):
        tails.two_sided(1.0, 1e6)


def test_a_table_of_coefficients_needs_no_scipy():
    code = f"""
import json, sys
import numpy as np
from {t_p_values.__module__} import t_p_values
t, df = np.array([2.0, -3.0, 0.1]), np.array([17.0, np.inf, 4.0])
before = t_p_values(t, df).tolist()
scipy = "scipy.special" in sys.modules
print(json.dumps([before, scipy, t_p_values(t, np.array([1e6] * 3)).tolist()]))
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    alone, scipy, many = json.loads(out)
    assert not scipy
    t, df = np.array([2.0, -3.0, 0.1]), np.array([17.0, np.inf, 4.0])
    assert alone == pytest.approx(t_p_values(t, df), rel=1e-13)
    assert many == pytest.approx(t_p_values(t, np.full(3, 1e6)), rel=1e-13)
