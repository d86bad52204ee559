"""Files that an earlier version wrote are read, with the numbers that it found."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxglmm as jg

FOLDER = Path(__file__).parents[1] / "data" / "saved"
NUMBERS = json.loads((FOLDER / "numbers.json").read_text())


def load(name):
    return jg.load(FOLDER / f"{name}.zip")


@pytest.mark.parametrize("name", ["linear", "generalised", "posterior", "many"])
def test_coefficients(name):
    found = np.ravel(load(name).coefficients)
    np.testing.assert_allclose(found, NUMBERS[name], rtol=1e-12)


def test_posteriors():
    found = load("posteriors").frame().to_numpy(float)
    np.testing.assert_allclose(found.ravel(), NUMBERS["posteriors"], rtol=1e-12)


def test_one_of_many_is_fitted_from_its_data():
    one = load("many")[1]
    np.testing.assert_allclose(one.coefficients, NUMBERS["one"], rtol=1e-8)


@pytest.mark.parametrize("name", ["linear", "generalised", "posterior"])
def test_what_was_read_answers_and_is_written_again(name, tmp_path):
    fit = load(name)
    again_at = tmp_path / "again.zip"
    fit.save(again_at)
    again = jg.load(again_at)
    np.testing.assert_array_equal(again.predict(), fit.predict())
    assert str(again.summary()) == str(fit.summary())
