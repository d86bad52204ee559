"""Power against lme4's by simulation, and against the published example of simr."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import jaxglmm as jg

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference" / "power.json").read_text()
)
N = 1000


def same_share(found, successes, n):
    """Two simulated shares differ by chance only (Fisher's exact test, 99.9 %)."""
    table = [[found.successes, found.n - found.successes], [successes, n - successes]]
    return stats.fisher_exact(table).pvalue > 1e-3


@pytest.fixture(scope="module")
def pilot():
    data = {k: np.array(v) for k, v in REFERENCE["data"].items()}
    return jg.glmm("z ~ x + (1 | g)", data, family="poisson")


def test_the_pilot_study_is_the_published_one(pilot):
    np.testing.assert_allclose(pilot.coefficients, REFERENCE["beta"], rtol=1e-4)
    assert pilot.coefficients[1] == pytest.approx(-0.1148147, rel=1e-4)


def test_power_of_simrs_published_example(pilot):
    found = pilot.power("x", N, assume={"x": REFERENCE["effect"]}, seed=1)
    assert found.method == "z"
    assert found.failed == 0
    ref = REFERENCE["counts"]
    assert same_share(found, ref["successes"], ref["n"])
    assert same_share(found, REFERENCE["published"]["counts"], 1000)


@pytest.mark.parametrize(
    ("times", "copies", "published"),
    [(20, 1, "counts_20"), (10, 2, "counts_within_2"), (10, 5, "counts_within_5")],
)
def test_power_of_its_larger_studies_from_assumed_parameters(times, copies, published):
    plan = {
        "x": np.tile(np.arange(1, times + 1), 3 * copies),
        "g": np.tile(np.repeat(list("abc"), times), copies),
    }
    values = {
        "(Intercept)": REFERENCE["beta"][0],
        "x": REFERENCE["effect"],
        "sd_(Intercept)|g": REFERENCE["sd"],
    }
    study = jg.design("z ~ x + (1 | g)", plan, values, family="poisson")
    found = study.power("x", N, seed=2)
    assert same_share(found, REFERENCE["published"][published], 1000)
    if published in REFERENCE:
        ref = REFERENCE[published]
        assert same_share(found, ref["successes"], ref["n"])


@pytest.mark.parametrize("method", ["t", "lrt"])
def test_power_for_a_slope_that_varies(method):
    slope = REFERENCE["slope"]
    values = {
        "(Intercept)": slope["values"]["beta"][0],
        "Days": slope["values"]["beta"][1],
        "sd_(Intercept)|Subject": slope["values"]["sd"][0],
        "sd_Days|Subject": slope["values"]["sd"][1],
        "cor_Days.(Intercept)|Subject": slope["values"]["cor"],
        "sigma": slope["values"]["sigma"],
    }
    data = jg.datasets.load("sleepstudy")
    study = jg.design("Reaction ~ Days + (Days | Subject)", data, values)
    found = study.power("Days", N, method=method, seed=4)
    assert found.failed == 0
    assert same_share(found, slope[method]["successes"], slope[method]["n"])
