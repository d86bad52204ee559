import dataclasses
import warnings

import numpy as np
import pytest
import twin
from doors import _errors
from doors import convergence as diagnose


def test_a_good_fit_has_nothing_to_say(sleep):
    assert sleep.warnings == ()
    assert sleep.status == "converged"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnose.warn(sleep.design, sleep.estimates)


def test_zero_variance(singular):
    assert singular.is_singular
    text = "standard deviation of (Intercept) by Batch is estimated as 0"
    assert text in singular.warnings[0]
    with pytest.warns(_errors.SingularFitWarning, match=r"\(Intercept\) by Batch"):
        diagnose.warn(singular.design, singular.estimates)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_perfect_correlation_at_every_scale(sleepstudy, scale):
    data = sleepstudy.assign(Days=sleepstudy.Days * scale)
    lam = [[[1.0, 0.0], [-0.2 / scale, 0.0]]]
    fit = twin.make("Reaction ~ Days + (Days | Subject)", data, lam)
    estimates = dataclasses.replace(fit.estimates, singular=True)
    (note,) = diagnose.notes(fit.design, estimates)
    assert (
        "correlation of (Intercept) and Days by Subject is estimated as -1" in note.text
    )


def test_lost_rank(machines):
    lam = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [0.3, 0.4, 0.0]])
    estimates = dataclasses.replace(machines.estimates, lam=(lam,), singular=True)
    (note,) = diagnose.notes(machines.design, estimates)
    assert "3 by 3 covariance matrix of Worker has rank 2" in note.text


def test_dropped_rows_and_columns(sleepstudy):
    data = sleepstudy.assign(twice=2 * sleepstudy.Days)
    data.loc[3, "Days"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = twin.make("Reaction ~ Days + twice + (1 | Subject)", data, [0.9])
    assert "1 of 180 rows" in fit.warnings[0]
    assert "dropped twice" in fit.warnings[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the formula has warned already
        diagnose.warn(fit.design, fit.estimates)


def test_steps_that_ran_out(sleep):
    stopped = dataclasses.replace(
        sleep.estimates, converged=False, status=1, n_iter=200, decrement=0.5
    )
    with pytest.warns(_errors.ConvergenceWarning, match="max_iter=200 with about 0.5"):
        diagnose.warn(sleep.design, stopped)
