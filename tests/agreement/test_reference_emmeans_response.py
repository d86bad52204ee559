"""Means of transformed responses on the scale of the response, against emmeans."""

import json
from pathlib import Path

import numpy as np
import pytest
from comparison import close

import jaxglmm as jg

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference" / "emmeans_response.json").read_text()
)
COLUMNS = {
    "estimate": "estimate",
    "SE": "std_error",
    "df": "df",
    "lower.CL": "conf_low",
    "upper.CL": "conf_high",
    "t.ratio": "statistic",
    "p.value": "p_value",
}


def fitted(response):
    data = jg.datasets.load("Machines")
    return jg.lmm(f"{response} ~ Machine + (1 | Worker)", data)


def agree(found, rows, but=()):
    for theirs, ours in COLUMNS.items():
        if theirs in rows[0] and theirs not in but:
            loose = 1e-3 if theirs == "p.value" else 1e-5
            close(found.table[ours], [r[theirs] for r in rows], loose, 1e-12, theirs)


@pytest.mark.parametrize("response", list(REFERENCE))
def test_means_and_pairs_of_a_transformed_response(response):
    ref, fit = REFERENCE[response], fitted(response)
    means = fit.means("Machine", type="response")
    agree(means, ref["means"])
    agree(means.pairs(), ref["pairs"])
    ratio = response in ("log(score)", "log2(score)", "log10(score)", "log(score + 5)")
    assert means.pairs().table["contrast"][0] == ("A / B" if ratio else "A - B")
    agree(fit.means("Machine").showing(type="response"), ref["means"])
    agree(means.regrid(), ref["regrid"])
    # emmeans gives the average the df of a cell, here they are the average's own
    agree(means.regrid().pairs(), ref["regrid_pairs"])
    overall = fit.means(regrid=True)
    agree(overall, ref["overall"], ("df", "lower.CL", "upper.CL", "p.value"))


def test_the_scale_is_said_and_bases_of_logarithms_agree():
    natural, two = fitted("log(score)"), fitted("np.log2(score)")
    assert "Scale: log\n" in repr(natural.means("Machine"))
    assert "Scale: log2 ratio" in repr(two.means("Machine").pairs())
    for one in ("means", "pairs"):
        tables = [
            getattr(f.means("Machine", type="response"), one)().table
            if one == "pairs"
            else f.means("Machine", type="response").table
            for f in (natural, two)
        ]
        np.testing.assert_allclose(
            tables[0]["conf_low"], tables[1]["conf_low"], rtol=1e-6
        )


def test_joint_tests_of_turned_means_are_of_those_means():
    means = fitted("log(score)").means("Machine", type="response").regrid()
    found = means.test()
    J = means.rows.jacobian
    V = J @ means.means.covariance @ J.T
    F = means.rows.value @ np.linalg.solve(V, means.rows.value) / 3
    assert found["statistic"][0] == pytest.approx(F, rel=1e-6)


@pytest.mark.parametrize(
    "response", ["I(score ** 2)", "scale(score)", "1 / score", "log(score / 2)"]
)
def test_what_cannot_be_turned_back_is_refused(response):
    fit = fitted(response)
    means = fit.means("Machine")
    assert f"Scale: {response}" in repr(means)
    assert "Scale" not in repr(fitted("score").means("Machine"))
    for ask in (
        lambda: fit.means("Machine", type="response"),
        lambda: fit.means("Machine", regrid=True),
        lambda: means.showing(type="response"),
        means.regrid,
    ):
        with pytest.raises(jg.NotApplicableError, match="inverse is not known"):
            ask()


def test_draws_are_turned_back_one_by_one():
    data = jg.datasets.load("Machines")
    fit = jg.lmm("log(score) ~ Machine + (1 | Worker)", data, method="map")
    link, back = fit.means("Machine"), fit.means("Machine", type="response")
    turned = np.exp(link.rows.jacobian)
    np.testing.assert_allclose(back.table["estimate"], turned.mean(axis=1))
    assert back.pairs().table["contrast"][0] == "A / B"


def test_many_models_are_turned_back_alike():
    data = jg.datasets.load("Machines")
    data = data.assign(half=np.arange(len(data)) % 2)
    fits = jg.fit_many("log(score) ~ Machine + (1 | Worker)", data, by="half")
    table = fits.means("Machine", type="response").table
    one = fits[1].means("Machine", type="response").table
    np.testing.assert_allclose(table["estimate"][3:], one["estimate"], rtol=1e-6)


def test_models_without_factors_say_how_numbers_have_means():
    data = jg.datasets.load("sleepstudy")
    fit = jg.lmm("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(jg.DataError, match=r"no factor, and numbers \(Days\).*trends"):
        fit.means("Subject")
    bare = jg.lmm("Reaction ~ 1 + (1 | Subject)", data)
    with pytest.raises(jg.DataError, match="no variable: means"):
        bare.means("Days")
