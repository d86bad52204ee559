"""Means, slopes and contrasts of many models are those of single fits."""

import numpy as np
import pandas as pd
import pytest
from doors import many_combinations as combinations

import jaxglmm as jg
from jaxglmm import NotApplicableError

NUMBERS = ["estimate", "std_error", "df", "statistic", "p_value"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    data = jg.datasets.load("Machines")
    data["x"] = rng.normal(size=54)
    return data


@pytest.fixture(scope="module")
def fits(table):
    rng = np.random.default_rng(2)
    Y = table["score"].to_numpy()[:, None] + rng.normal(size=(54, 5)) * 3
    Y[3, 2] = np.nan
    return jg.fit_many("y ~ Machine * x + (1 | Worker)", table, responses=Y)


def agree(fits, asked, rtol=1e-5):
    found = asked(fits).table
    labels = range(len(fits)) if fits.labels is None else fits.labels
    for i, label in enumerate(labels):
        own = asked(fits[i]).table
        mine = found[found["dataset"] == label]
        for name in [*NUMBERS, "conf_low", "conf_high"]:
            np.testing.assert_allclose(
                mine[name].to_numpy(float),
                own[name].to_numpy(float),
                rtol=rtol,
                atol=1e-7,
                err_msg=f"{label} {name}",
            )
        keys = [k for k in own if k not in (*NUMBERS, "conf_low", "conf_high")]
        assert mine[keys].astype(str).to_numpy().tolist() == (
            own[keys].astype(str).to_numpy().tolist()
        )
    return found


AT = {"x": [0.5]}


@pytest.mark.parametrize(
    "asked",
    [
        lambda f: f.means("Machine", at=AT),
        lambda f: f.means("Machine", at=AT).pairs(),
        lambda f: f.means("Machine", at=AT).pairs("holm"),
        lambda f: f.means("Machine", at=AT).contrast("trt.vs.ctrl"),
        lambda f: f.means("Machine", at=AT).contrast("eff", adjust="scheffe"),
        lambda f: f.trends("x", "Machine"),
        lambda f: f.means("Machine", at={"x": [-1, 1]}, by="x").pairs(),
        lambda f: f.means("Machine", at=AT).showing(level=0.9),
    ],
    ids=["means", "pairs", "holm", "control", "scheffe", "trends", "by", "level"],
)
def test_linear_models_are_their_single_fits(fits, asked):
    found = agree(fits, asked)
    assert (found["p_adjusted"] >= 0).all()


def test_counts_on_the_scale_of_the_response():
    rng = np.random.default_rng(3)
    data = jg.datasets.load("grouseticks")
    b = rng.normal(size=118)[pd.factorize(data["BROOD"])[0]]
    mean = np.exp(0.2 + 0.3 * (data["YEAR"] == "96").to_numpy() + b)
    Y = rng.poisson(mean[:, None], size=(403, 3)).astype(float)
    many = jg.fit_many("y ~ YEAR + (1 | BROOD)", data, responses=Y, family="poisson")
    agree(many, lambda f: f.means("YEAR", type="response"), 1e-4)
    ratios = agree(many, lambda f: f.means("YEAR", type="response").pairs(), 1e-4)
    assert ratios["contrast"][0] == "YEAR95 / YEAR96"


def test_data_sets_of_their_own_rows():
    rng = np.random.default_rng(4)
    g = rng.integers(0, 6, 300)
    data = pd.DataFrame(
        {
            "y": rng.normal(size=300) + rng.normal(size=6)[g],
            "f": np.tile(list("ab"), 150),
            "g": g.astype(str),
            "e": np.repeat(list("pqr"), 100),
        }
    )
    # a data set without one of the levels has no difference of them
    data = data[(data["e"] != "r") | (data["f"] != "b")]
    many = jg.fit_many("y ~ f + (1 | g)", data, by="e")
    some = agree(many[:2], lambda f: f.means("f").pairs())
    assert some["dataset"].tolist() == ["p", "q"]
    every = many.means("f").pairs().table
    assert every["estimate"].isna().tolist() == [False, False, True]
    assert every["p_adjusted"].isna().tolist() == [False, False, True]


def test_moderated_models_have_moderated_contrasts(fits):
    rng = np.random.default_rng(5)
    data = jg.datasets.load("Machines")
    scale = rng.uniform(0.5, 2, size=40)
    Y = rng.normal(size=(54, 40)) * scale + data["score"].to_numpy()[:, None]
    many = jg.fit_many("y ~ Machine + (1 | Worker)", data, responses=Y).moderate()
    table = many.means("Machine").contrast({"B - A": [-1, 1, 0]}).table
    k = list(many.coefficient_names).index("Machine[T.B]")
    np.testing.assert_allclose(table["estimate"], many.coefficients[:, k], rtol=1e-6)
    np.testing.assert_allclose(table["std_error"], many.se[:, k], rtol=1e-5)
    np.testing.assert_allclose(table["df"], many.df[:, k], rtol=1e-4)


def test_many_degrees_of_freedom_are_interpolated():
    rng = np.random.default_rng(6)
    data = jg.datasets.load("Machines")
    Y = rng.normal(size=(54, 60)) * 3 + data["score"].to_numpy()[:, None]
    many = jg.fit_many("y ~ Machine + (1 | Worker)", data, responses=Y)
    some = many.means("Machine").pairs().table
    for i in (0, 31, 59):
        own = many[i].means("Machine").pairs().table
        mine = some[some["dataset"] == i]
        for name in ("conf_low", "conf_high"):
            np.testing.assert_allclose(
                mine[name].to_numpy(), own[name].to_numpy(), rtol=2e-4
            )


def test_rounds_are_independent_rows():
    L = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1], [0, 0, 0], [2, -2, 0.0]])
    found = combinations.rounds(L)
    assert sorted(np.concatenate(found).tolist()) == [0, 1, 2, 4]
    for own in found:
        assert np.linalg.matrix_rank(L[own]) == len(own)


def test_what_many_models_do_not_answer(fits, table):
    with pytest.raises(NotApplicableError, match="covariances of each model"):
        fits.means("Machine").pairs("mvt")
    with pytest.raises(NotApplicableError, match="has no ddf="):
        fits.means("Machine", ddf="residual")
    with pytest.raises(NotApplicableError, match="not at hand"):
        fits[0].bootstrap(20).means("Machine")
    zi = jg.fit_many(
        "y ~ f + (1 | g)",
        {"f": np.tile(list("ab"), 30), "g": np.repeat(np.arange(6), 10)},
        responses=np.random.default_rng(0).poisson(1, size=(60, 2)).astype(float),
        family="poisson",
        zi="~ 1",
    )
    with pytest.raises(NotApplicableError, match="one linear predictor"):
        zi.means("f")
