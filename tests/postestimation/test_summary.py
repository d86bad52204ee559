import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from doors import summary

from jaxglmm import Fit

SLEEP = """\
Linear mixed model fit by REML. t-tests use Satterthwaite's method
Formula: Reaction ~ Days + (Days | Subject)

REML criterion at convergence: 1743.6

Scaled residuals:
    Min      1Q Median     3Q    Max
-3.9536 -0.4634 0.0231 0.4634 5.1793

Random effects:
Groups   Name        Variance Std.Dev. Corr
Subject  (Intercept)   612.09   24.740
         Days           35.07    5.922 0.07
Residual               654.94   25.592
Number of obs: 180, groups: Subject, 18

Fixed effects:
            Estimate Std. Error    df t value Pr(>|t|)
(Intercept)  251.405      6.825 17.00  36.838  < 2e-16 ***
Days          10.467      1.546 17.00   6.771 3.26e-06 ***
---
Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1

Correlation of Fixed Effects:
     (Intr)
Days -0.138"""


def test_sleepstudy(sleep):
    assert sleep.summary() == SLEEP


def test_it_shows_itself_and_carries_its_numbers(sleep):
    text = sleep.summary()
    assert repr(text) == text
    assert text.coefficients.loc["Days", "estimate"] == sleep.coefficients[1]
    assert text.scaled_residuals["Max"] == pytest.approx(5.1793, abs=1e-4)
    assert text.criteria["df.resid"] == 174
    assert text.correlation.iloc[0, 1] == pytest.approx(-0.13755, abs=1e-5)
    assert "<table>" in text._repr_html_()
    assert "Pr(&gt;|t|)" in text._repr_html_()
    assert sleep._repr_html_() == text._repr_html_()


def test_it_pickles(sleep):
    text = pickle.loads(pickle.dumps(sleep.summary()))
    assert text == SLEEP
    assert text.coefficients.equals(sleep.summary().coefficients)


def test_maximum_likelihood_has_the_information_criteria(sleep_ml):
    text = sleep_ml.summary()
    assert "fit by maximum likelihood" in text
    header, values = next(
        (a, b) for a, b in itertools.pairwise(text.splitlines()) if "AIC" in a
    )
    assert header.split() == ["AIC", "BIC", "logLik", "-2*log(L)", "df.resid"]
    assert values.split() == ["1763.9", "1783.1", "-876.0", "1751.9", "174"]


def test_crossed_factors_and_one_coefficient(penicillin):
    text = penicillin.summary()
    assert "Number of obs: 144, groups: plate, 24; sample, 6" in text
    assert "Correlation of Fixed Effects" not in text


def test_three_correlations_line_up(machines):
    lines = machines.summary().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Worker"))
    assert len(lines[start + 1].split()) == 4
    assert len(lines[start + 2].split()) == 5
    assert lines[start + 1].index(".B") == lines[start + 2].index(".C")


def test_notes_of_singular_fits_and_stopped_ones(singular):
    text = singular.summary()
    assert "Note: Singular fit" in text
    assert max(map(len, text.splitlines())) < 90
    stopped = dataclasses.replace(
        singular.estimates, converged=False, status=1, n_iter=200, decrement=0.5
    )
    fit = Fit(singular.design, stopped, compute_satterthwaite=False)
    text = fit.summary()
    assert "REML criterion where the optimiser stopped" in text
    assert "max_iter=200" in text
    assert len(text.notes) == 2


def test_many_coefficients_leave_the_correlations_out(sleep, rng):
    p = 25
    design = dataclasses.replace(
        sleep.design,
        X=rng.normal(size=(180, p)),
        x_names=tuple(f"covariate{i}" for i in range(p)),
    )
    estimates = dataclasses.replace(sleep.estimates, beta=np.ones(p), vcov=np.eye(p))
    text = Fit(design, estimates, compute_satterthwaite=False).summary()
    assert "not shown for 25 coefficients" in text
    assert text.correlation.shape == (25, 25)


def test_scales_from_1e_minus_6_to_1e6(sleep):
    estimates = dataclasses.replace(
        sleep.estimates, beta=np.array([1.5e6, 2.5e-6]), vcov=np.diag([1e8, 1e-14])
    )
    text = Fit(sleep.design, estimates, compute_satterthwaite=False).summary()
    assert " 1500000 " in text
    assert "2.500e-06  1.000e-07" in text


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["(Intercept)", "Days"], ["(Intr)", "Days"]),
        (["Machine[T.B]", "Machine[T.C]"], ["MachnB", "MachnC"]),
        (["temperature1", "temperature2", "x"], ["tmptr1", "tmptr2", "x"]),
        (["aaaaaaaab", "aaaaaaaacb"], None),
    ],
)
def test_abbreviations_are_short_and_distinct(names, short):
    found = summary.abbreviate(names)
    assert len(set(found)) == len(names)
    assert max(map(len, found)) <= 6
    if short is not None:
        assert found == short
