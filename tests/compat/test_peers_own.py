"""statsmodels' and pystatistics' own tests of mixed models, run on jaxglmm.

They are run where these are installed (``pip install 'jaxglmm[peers]'``), in one
process a module, with our classes and functions put in by name (``peers/``).
All pass but those listed here, each with what it relies on; one that is listed and
passes is an error too. pystatistics' tests are in its source distribution alone (5.1.0
is the last that has them): ``JAXGLMM_PYSTATISTICS_TESTS`` names its folder ``tests``.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

PEERS = Path(__file__).parent / "peers"
TIMEOUT = 1_800  # seconds, against a run that hangs

pytestmark = [pytest.mark.extras, pytest.mark.slow]


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"{package} is not installed: pip install 'jaxglmm[peers]'",
    )


LME = "statsmodels.regression.tests.test_lme"
BAYES = "statsmodels.genmod.tests.test_bayes_mixed_glm"
MARGINAL = "fit_map is the mode of the marginal posterior; joint=True is statsmodels'"

DIFFER = {  # (module, environment) -> test -> why it does not pass
    (LME, ""): {
        "TestMixedLM::test_pastes_vcomp": "expects aic of REML to be NaN; it is the "
        "restricted likelihood's here, and all else in the test holds",
        "test_summary_col": "expects 1.6546, where statsmodels' optimiser stops "
        "(1.654574); the optimum is 1.654551",
        "test_singular": "expects a singular covariance, with a log-likelihood that "
        "grows without bound; the optimum has a variance of 0.00057",
        "test_summary_after_remove_data": "asks for statsmodels' class of summaries; "
        "the summary is made",
    },
    (BAYES, ""): dict.fromkeys(
        (
            "test_simple_logit_map",
            "test_simple_poisson_map",
            "test_crossed_logit_map",
            "test_crossed_poisson_map",
            "test_logit_map_crossed_formula",
            "test_simple_logit_vb",
            "test_simple_poisson_vb",
            "test_crossed_logit_vb",
            "test_crossed_poisson_vb",
            "test_fit_is_fit_map",
        ),
        MARGINAL,
    ),
    (BAYES, "JAXGLMM_JOINT"): {},
}


RESIDUAL = "counts var_components; ours has the residual variance among them"
FRAME = "indexes ranef by position; a factor's effects are a frame of levels here"
GUARD = "expects gaussian and gamma to be refused; both are fitted here"
PYSTATISTICS = {  # test -> why it does not pass
    "TestGLMMFamilyGuard::test_free_dispersion_family_raises[gaussian]": GUARD,
    "TestGLMMFamilyGuard::test_free_dispersion_family_raises[gamma]": GUARD,
    "TestGLMMOptimizerRobustness::test_probit_variance_not_collapsed": "gives "
    "pystatistics' own object of a family; with jg.Binomial(link='probit') it holds",
    "TestLMMCrossed::test_two_grouping_factors": RESIDUAL,
    "TestLMMRandomIntercept::test_variance_components": RESIDUAL,
    "TestLMMRandomIntercept::test_blups_sum_near_zero": FRAME,
    "TestLMMNested::test_two_variance_components": RESIDUAL,
    "TestLMMRandomSlope::test_two_variance_components": RESIDUAL,
    "TestLMMInterceptREML::test_blups": FRAME,
    "TestSingularFitEndToEnd::test_no_effect_data_is_singular_and_warns": "expects "
    "theta 0, where its optimiser stops; the optimum (lme4's too) is 0.1156",
}
INSIDE = ("pls", "grm", "structured", "random_effects", "compute_se")  # not lmm, glmm


def outcomes(arguments, plugin, switch, folder):
    """Test -> "passed", "failed" or "skipped"; and what was printed."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini"]
    command += ["--rootdir", ".", "-p", plugin, "-p", "no:hypothesispytest"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    root = Path(__file__).parents[2]
    paths = [str(PEERS), str(root), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **{switch or "_": "1"}}
    run = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert report.exists(), run.stdout[-3_000:] + run.stderr[-3_000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        inside = case.get("classname", "").rpartition(".")[2]
        name = case.get("name")
        name = f"{inside}::{name}" if inside.startswith("Test") else name
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        skipped = "skipped" if "skipped" in kinds else "passed"
        found[name] = "failed" if failed else skipped
    return found, run.stdout


def as_listed(found, listed, printed):
    """All pass but those that are listed, which do not."""
    assert set(listed) <= set(found), "listed tests that are no longer there"
    failed = {name for name, outcome in found.items() if outcome == "failed"}
    assert not failed - set(listed), printed[-6_000:]
    assert not set(listed) - failed, "listed, but these pass now: take them out"


@needs("statsmodels")
@pytest.mark.parametrize(
    ("module", "switch"), DIFFER, ids=["mixedlm", "bayes", "bayes, joint mode"]
)
def test_statsmodels_own_tests_pass(module, switch, tmp_path):
    found, printed = outcomes(
        ["--pyargs", module], "statsmodels_as_jaxglmm", switch, tmp_path
    )
    assert len(found) >= (100 if module == LME else 17), printed[-3_000:]
    as_listed(found, DIFFER[module, switch], printed)


@needs("pystatistics")
@pytest.mark.skipif(
    "JAXGLMM_PYSTATISTICS_TESTS" not in os.environ,
    reason="JAXGLMM_PYSTATISTICS_TESTS names no folder with pystatistics' tests",
)
def test_pystatistics_own_tests_pass(tmp_path):
    shutil.copytree(os.environ["JAXGLMM_PYSTATISTICS_TESTS"], tmp_path / "tests")
    chosen = ["tests/mixed", *(f"--ignore=tests/mixed/test_{k}.py" for k in INSIDE)]
    found, printed = outcomes(chosen, "pystatistics_as_jaxglmm", "", tmp_path)
    assert len(found) >= 190, printed[-3_000:]
    as_listed(found, PYSTATISTICS, printed)
