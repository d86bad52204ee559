"""Several models in one table: what stands where, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import ArgumentError, ModelError, NotApplicableError


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def fits(sleep):
    return [
        jg.lmm("Reaction ~ Days + (1 | Subject)", sleep),
        jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False),
        jg.lmm("Reaction ~ Days", sleep, residual="ar1(Days | Subject)"),
    ]


@pytest.fixture(scope="module")
def counts():
    data = jg.datasets.load("Salamanders")
    return [
        jg.glmm("count ~ mined + (1 | site)", data, family="poisson"),
        jg.glmm("count ~ mined + (1 | site)", data, family="nbinom2", zi="~ mined"),
    ]


def test_cells_are_the_fits_numbers(fits):
    found = jg.table(*fits)
    for k, fit in enumerate(fits):
        column = found.frame[f"({k + 1})"]
        cell = column[("Fixed effects", "Days")]
        estimate, error = re.fullmatch(r"([\d.]+)\*{3} \(([\d.]+)\)", cell).groups()
        assert float(estimate) == pytest.approx(fit.fixef["Days"], abs=5e-3)
        assert float(error) == pytest.approx(fit.se[1], abs=5e-3)
        assert column[("Model", "Observations")] == "180"
        assert float(column[("Model", "AIC")]) == pytest.approx(fit.aic, abs=0.05)
    own = found.frame.loc[("Random effects", "sd_Days|Subject")]
    assert list(own == "") == [True, False, True]
    assert list(found.frame.loc[("Model", "Method")]) == ["REML", "ML", "REML"]
    assert list(found.frame.loc[("Model", "Levels of Subject")]) == ["18", "18", ""]


def test_numbers_behind_it_are_those_of_tidy(fits):
    values = jg.table(*fits, names=["a", "b", "c"]).values
    for name, fit in zip("abc", fits, strict=True):
        own = values[values["model"] == name]
        expected = fit.tidy(["fixed", "ran_pars"])
        np.testing.assert_array_equal(own["estimate"], expected["estimate"])
        assert list(own["term"]) == list(expected["term"])


def test_residual_parameters_stand_last_of_the_random_effects(fits):
    terms = [t for p, t in jg.table(*fits).frame.index if p == "Random effects"]
    assert terms[-2:] == ["sigma", "rho|Residual"]


def test_components_have_sections_of_their_own(counts):
    found = jg.table(*counts, names=["one", "two"])
    parts = list(dict.fromkeys(part for part, _ in found.frame.index))
    zi = "Fixed effects, zero-inflation model"
    assert parts[:2] == ["Fixed effects", zi]
    assert found.frame.loc[(zi, "mined[T.no]"), "one"] == ""
    assert found.frame.loc[(zi, "mined[T.no]"), "two"] != ""


@pytest.mark.parametrize(
    ("below", "shape"),
    [
        ("conf_int", r"[\d.]+\** \[[\d.]+, [\d.]+\]"),
        ("statistic", r"[\d.]+\** \([\d.]+\)"),
        ("p_value", r"[\d.]+\** \([\d.e-]+\)"),
        ("none", r"[\d.]+\**"),
    ],
)
def test_what_stands_below(fits, below, shape):
    cells = jg.table(*fits, below=below).frame.loc[("Fixed effects", "Days")]
    for cell in cells:
        assert re.fullmatch(shape, cell.replace("< ", "")), cell


def test_ratios_and_labels(counts):
    plain, ratios = (jg.table(*counts, exponentiate=e).values for e in (False, True))
    fixed = plain["effect"] == "fixed"
    np.testing.assert_allclose(
        ratios["estimate"][fixed], np.exp(plain["estimate"][fixed])
    )
    np.testing.assert_array_equal(ratios["estimate"][~fixed], plain["estimate"][~fixed])
    found = jg.table(*counts, labels={"mined[T.no]": "not mined"})
    assert ("Fixed effects", "not mined") in found.frame.index


def test_every_kind_of_fit_and_every_form():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "y": rng.integers(1, 4, 80),
            "x_1": rng.normal(size=80),
            "g": np.repeat(np.arange(8), 10),
        }
    )
    ordinal = jg.clm("y ~ x_1", data)
    nominal = jg.glmm("y ~ x_1", data, family="multinomial")
    linear = jg.lmm("y ~ x_1 + (1 | g)", data)
    posterior = jg.lmm("y ~ x_1 + (1 | g)", data, method="nested-laplace")
    found = jg.table(ordinal, nominal, linear, posterior)
    assert ("Thresholds", "1|2") in found.frame.index
    assert ("Fixed effects, 2", "x_1") in found.frame.index
    row = found.frame.loc[("Fixed effects", "x_1")]
    assert "*" not in row["(4)"]
    assert "(" in row["(4)"]
    assert list(found.frame.loc[("Model", "Method")])[2:] == ["REML", "nested Laplace"]
    for text in (str(found), found.html, found.latex, found.markdown):
        assert text.count("Thresholds") == 1
    assert r"x\_1" in found.latex
    assert r"x\_1" in found.markdown
    assert r"\quad x\_1" in found.latex
    assert "&nbsp;&nbsp;x_1" in found.html
    lines = [x for x in found.markdown.splitlines() if x.startswith("|")]
    assert {x.replace(r"\|", "").count("|") for x in lines} == {6}
    assert found._repr_html_() == found.html


def test_refusals(fits, counts):
    with pytest.raises(ArgumentError, match="one fit or several"):
        jg.table()
    with pytest.raises(ArgumentError, match="not list"):
        jg.table(fits)
    with pytest.raises(ArgumentError, match="must name 3 models"):
        jg.table(*fits, names=["a", "a", "b"])
    with pytest.raises(NotApplicableError, match="'conf_int'"):
        jg.table(*fits, below="se")
    with pytest.raises(NotApplicableError, match="'identity'"):
        jg.table(*counts, *fits, exponentiate=True)
    with pytest.raises(ModelError, match="digits=0"):
        jg.table(*fits, digits=0)
