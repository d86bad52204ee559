"""The left side: all ways to write successes out of trials give the same numbers."""

import numpy as np
import pandas as pd
import pytest
from doors import design_from_arrays, design_from_formula

import jaxglmm as jg
from jaxglmm import DataError, FormulaError, MissingRowsWarning, ModelError

RIGHT = " ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp():
    data = jg.datasets.load("cbpp")
    return data.assign(
        size=data["size"].astype(int),
        healthy=data["size"] - data["incidence"],
        share=data["incidence"] / data["size"],
        rounded=(data["incidence"] / data["size"]).round(4),
        any=data["incidence"] > 0,
        word=np.where(data["incidence"] > 0, "yes", "no"),
    )


def read(left, data, **kwargs):
    return design_from_formula(left + RIGHT, data, family_kind="binomial", **kwargs)


@pytest.mark.parametrize(
    ("left", "given"),
    [
        ("cbind(incidence, healthy)", {}),
        ("cbind(incidence, size - incidence)", {}),
        ("cbind(`incidence`, healthy)", {}),
        ("incidence | trials(size)", {}),
        ("p(incidence, size)", {}),
        ("prop(incidence, incidence + healthy)", {}),
        ("incidence", {"trials": "size"}),
        ("share", {"trials": "size"}),
        ("rounded", {"trials": "size"}),
        ("incidence / size", {"weights": "size"}),
        ("share", {"weights": "size"}),
    ],
)
def test_successes_out_of_trials(cbpp, left, given):
    design = read(left, cbpp, **given)
    np.testing.assert_array_equal(design.y, cbpp["incidence"])
    np.testing.assert_array_equal(design.trials, cbpp["size"])
    assert design.y.dtype == design.trials.dtype == np.float64
    assert design.weights is None
    assert design.response == left
    assert design.x_names[0] == "(Intercept)"


def test_trials_as_an_array_or_a_number(cbpp):
    sizes = cbpp["size"].to_numpy()
    np.testing.assert_array_equal(read("incidence", cbpp, trials=sizes).trials, sizes)
    np.testing.assert_array_equal(read("incidence", cbpp, trials=40).trials, 40)
    np.testing.assert_array_equal(read("incidence | trials(40)", cbpp).trials, 40)


@pytest.mark.parametrize("left", ["any", "word", "(incidence > 0)", "incidence > 0"])
def test_one_trial_a_row(cbpp, left):
    design = read(left, cbpp)
    np.testing.assert_array_equal(design.y, cbpp["incidence"] > 0)
    assert design.trials is None
    if left == "word":
        assert design.response_levels.tolist() == ["no", "yes"]


def test_the_second_level_is_the_success(cbpp):
    order = pd.Categorical(cbpp["word"], categories=["yes", "no", "never"])
    design = read("word", cbpp.assign(word=order))
    np.testing.assert_array_equal(design.y, cbpp["incidence"] == 0)
    assert design.response_levels.tolist() == ["yes", "no"]


def test_zero_and_one_keep_their_weights(cbpp):
    data = cbpp.assign(hit=(cbpp["incidence"] > 0).astype(int))
    design = read("hit", data, weights="size")
    assert design.trials is None
    np.testing.assert_array_equal(design.weights, cbpp["size"])


def test_weights_beside_trials_stay_weights(cbpp):
    design = read("share", cbpp, trials="size", weights=np.full(len(cbpp), 0.5))
    np.testing.assert_array_equal(design.weights, 0.5)
    np.testing.assert_array_equal(design.y, cbpp["incidence"])


def test_proportions_of_weight_zero_stay_out_of_the_fit(cbpp):
    sizes = cbpp["size"].to_numpy(float).copy()
    sizes[3] = 0
    design = read("share", cbpp, weights=sizes)
    assert design.trials[3] == 1
    assert design.weights[3] == 0
    assert design.weights.sum() == len(cbpp) - 1
    jg.Binomial().check(design.y, design.trials)


def test_missing_trials_drop_the_row(cbpp):
    data = cbpp.assign(size=cbpp["size"].astype(float))
    data.loc[2, "size"] = np.nan
    for left, given in (
        ("incidence | trials(size)", {}),
        ("share", {"trials": "size"}),
    ):
        with pytest.warns(MissingRowsWarning, match="size|trials"):
            design = read(left, data, **given)
        assert len(design.y) == len(design.trials) == len(data) - 1


def test_the_dot_leaves_the_left_side_and_the_trials_out():
    data = {"k": [1, 2, 3, 0], "n": [4, 5, 6, 7], "x": [1.0, 2, 4, 3]}
    for left, given in (
        ("cbind(k, n - k)", {}),
        ("k | trials(n)", {}),
        ("k", {"trials": "n"}),
    ):
        design = design_from_formula(
            f"{left} ~ .", data, family_kind="binomial", **given
        )
        assert design.x_names == ("(Intercept)", "x")


def test_trials_are_not_shared_with_the_data():
    data = {"k": [1.0, 2, 3, 0], "n": np.array([4.0, 5, 6, 7]), "x": [1.0, 2, 4, 3]}
    for left, given in (("k | trials(n)", {}), ("k", {"trials": "n"})):
        design = design_from_formula(
            f"{left} ~ x", data, family_kind="binomial", **given
        )
        assert not np.shares_memory(design.trials, data["n"])


BAD = [
    ("cbind(incidence)", {}, FormulaError, "takes two columns, as in cbind(k, n - k)"),
    ("p(incidence, size, size)", {}, FormulaError, "as in p(k, n)"),
    ("incidence | size", {}, FormulaError, "successes | trials(n)"),
    ("cbind(incidence, healty)", {}, FormulaError, "no column 'healty'"),
    ("incidence", {}, DataError, "cbind(successes, failures) or pass trials="),
    ("share", {}, DataError, "trials are not known"),
    ("share * 3", {}, DataError, "neither 0 and 1 nor a proportion"),
    ("rough", {"trials": "size"}, DataError, "no whole number of successes"),
    ("rough", {"weights": "size"}, DataError, "family='beta'"),
    ("share", {"weights": "share1"}, DataError, "not whole"),
    ("cbind(incidence, size)", {"trials": "size"}, DataError, "given twice"),
    ("cbind(incidence, incidence - size)", {}, DataError, "negative failures"),
    ("cbind(zero, zero)", {}, DataError, "successes + failures > 0"),
    ("three", {}, DataError, "3 values, 'a', 'b', 'c'"),
    ("one", {}, ModelError, "has one value only, 'a'"),
    ("word", {"trials": "size"}, DataError, "one trial a row"),
    ("cbind(word, size)", {}, DataError, "must be numeric"),
    ("coded", {}, DataError, "coded 1 and 2"),
    ("coded", {}, DataError, "Write (coded == 2)"),
    ("incidence", {"trials": "sizes"}, DataError, "trials='sizes': no such column"),
    ("incidence", {"trials": [3, 4]}, DataError, "trials has 2 values"),
]


@pytest.mark.parametrize(("left", "given", "error", "text"), BAD)
def test_messages(cbpp, left, given, error, text):
    n = len(cbpp)
    data = cbpp.assign(
        rough=np.where(cbpp["share"] > 0, 0.123, 0.0),
        share1=cbpp["size"] + 0.5,
        zero=0,
        three=np.resize(["a", "b", "c"], n),
        one="a",
        coded=np.resize([1, 2], n),
    )
    with pytest.raises(error) as caught:
        read(left, data, **given)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "left", ["cbind(incidence, healthy)", "incidence | trials(size)", "p(share, size)"]
)
def test_other_families_have_no_trials(cbpp, left):
    with pytest.raises(FormulaError, match="family='binomial'"):
        design_from_formula(left + RIGHT, cbpp)


def test_other_families_take_no_trials_argument(cbpp):
    with pytest.raises(DataError, match="trials= is for family='binomial'"):
        design_from_formula("incidence" + RIGHT, cbpp, trials="size")


def test_an_unknown_kind_is_a_mistake_of_ours(cbpp):
    with pytest.raises(ValueError, match="family_kind"):
        design_from_formula("any" + RIGHT, cbpp, family_kind="poisson")


# -- arrays --------------------------------------------------------------------------


def from_arrays(y, cbpp, **kwargs):
    X = np.column_stack([np.ones(len(cbpp)), cbpp["period"].cat.codes])
    return design_from_arrays(
        y, X, {"herd": cbpp["herd"]}, family_kind="binomial", **kwargs
    )


def test_arrays_of_successes_and_failures(cbpp):
    pair = cbpp[["incidence", "healthy"]]
    for y, name in ((pair.to_numpy(), "y"), (pair, "cbind(incidence, healthy)")):
        design = from_arrays(y, cbpp)
        np.testing.assert_array_equal(design.y, cbpp["incidence"])
        np.testing.assert_array_equal(design.trials, cbpp["size"])
        assert design.response == name
    assert design.index is not None


def test_arrays_with_trials_or_weights(cbpp):
    for y, given in (
        (cbpp["incidence"].to_numpy(), {"trials": cbpp["size"]}),
        (cbpp["share"], {"trials": cbpp["size"].to_numpy()}),
        (cbpp["share"], {"weights": cbpp["size"]}),
    ):
        design = from_arrays(y, cbpp, **given)
        np.testing.assert_array_equal(design.y, cbpp["incidence"])
        np.testing.assert_array_equal(design.trials, cbpp["size"])
    assert from_arrays(cbpp["word"], cbpp).response_levels.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(
        from_arrays(cbpp["incidence"], cbpp, trials=50).trials, 50
    )


def test_arrays_with_a_missing_failure(cbpp):
    pair = cbpp[["incidence", "healthy"]].to_numpy(float).copy()
    pair[4, 1] = np.nan
    with pytest.warns(MissingRowsWarning, match="1 of"):
        design = from_arrays(pair, cbpp)
    assert len(design.trials) == len(cbpp) - 1


def test_arrays_of_two_columns_are_binomial_only(cbpp):
    pair = cbpp[["incidence", "healthy"]].to_numpy()
    with pytest.raises(DataError, match="only valid for family='binomial'"):
        design_from_arrays(pair, np.ones((len(cbpp), 1)), {"h": cbpp["herd"]})
    with pytest.raises(DataError, match="trials= is for"):
        design_from_arrays(
            pair[:, 0], np.ones((len(cbpp), 1)), {"h": cbpp["herd"]}, trials=3
        )
