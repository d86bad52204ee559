"""Linear models read in batches give the numbers of the same table in memory."""

import pickle

import numpy as np
import pandas as pd
import pytest
from streaming_cases import assert_same, table, written

import jaxglmm as jg
from jaxglmm import MissingRowsWarning, RankDeficientWarning

pytest.importorskip("pyarrow")


MODELS = [
    ("y ~ x + z + f + (x | g)", {}),
    ("y ~ x + f + (x || g)", {"weights": "w"}),
    ("y ~ x * f + (1 | g)", {"weights": "w", "reml": False}),
    ("y ~ 0 + f + x + (0 + x | g)", {}),
    ("y ~ scale(x) + np.log(z) + I(x**2) + (1 | g)", {}),
    ("y ~ C(h) + x + (1 | g) + (0 + x | g)", {}),
    ("log(y + 100) ~ x + offset(z) + (1 | g)", {"offset": "x"}),
    ("y ~ x + (1 | f:h)", {}),
    ("y ~ f + (1 | g)", {"contrasts": {"f": "sum"}}),
    ("y ~ x + (1 | k/g)", {}),
    ("y ~ x + (1 | k) + (x | g)", {"weights": "w"}),
    ("y ~ x + (1 | g) + (1 | h)", {}),
    ("y ~ x + f + (x | g) + (x || h) + (1 | f:h)", {"weights": "w", "reml": False}),
]


@pytest.mark.parametrize(("formula", "options"), MODELS, ids=[m for m, _ in MODELS])
def test_the_same_as_in_memory(tmp_path, formula, options):
    data = table()
    inside = jg.lmm(formula, data, **options)
    outside = jg.lmm(formula, written(data, tmp_path / "d", 3), **options)
    assert_same(outside, inside)
    assert outside.plan.passes == 2
    assert outside.plan.rows == len(data)


def test_however_many_parts(tmp_path):
    data = table(2000)
    fits = [
        jg.lmm("y ~ x + (x | g)", written(data, tmp_path / f"p{k}", k))
        for k in (1, 2, 50)
    ]
    for fit in fits[1:]:
        assert_same(fit, fits[0])


def test_missing_values_and_weights_of_zero(tmp_path):
    data = table()
    data.loc[::97, "x"] = np.nan
    data.loc[5::301, "f"] = None
    data.loc[3::500, "w"] = 0.0
    data.loc[data["g"] == "s7", "w"] = 0.0
    source = written(data, tmp_path / "d", 4)
    with pytest.warns(MissingRowsWarning, match="x \\(42\\), f \\(14\\)"):
        outside = jg.lmm("y ~ x + f + (1 | g)", source, weights="w")
    with pytest.warns(MissingRowsWarning):
        inside = jg.lmm("y ~ x + f + (1 | g)", data, weights="w")
    assert_same(outside, inside)
    with pytest.raises(jg.DataError, match="missing values"):
        jg.lmm("y ~ x + f + (1 | g)", source, missing="raise")


def test_collinear_columns_are_dropped(tmp_path):
    data = table().assign(x2=lambda d: 3 * d["x"] + 1)
    with pytest.warns(RankDeficientWarning, match="x2"):
        outside = jg.lmm("y ~ x + x2 + f + (1 | g)", written(data, tmp_path / "d", 2))
    with pytest.warns(RankDeficientWarning):
        inside = jg.lmm("y ~ x + x2 + f + (1 | g)", data)
    assert_same(outside, inside)
    assert outside.design.dropped_columns == inside.design.dropped_columns
    for name in ("kept", "lost", "weights", "centre", "constant"):
        mine = getattr(outside.design.null_space, name)
        theirs = getattr(inside.design.null_space, name)
        assert np.allclose(mine, theirs, rtol=1e-7, atol=1e-9), name


def test_columns_far_from_zero_are_read_again(tmp_path):
    """A product of numbers far from zero costs digits; a second pass wins them back."""
    data = table()
    data["t"] = 2000 + data["x"]
    data["u"] = 5000 + data["h"]
    formula = "y ~ t * u + (1 | g)"
    outside = jg.lmm(formula, written(data, tmp_path / "d", 2))
    inside = jg.lmm(formula, data)
    assert outside.plan.passes > 2
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-6)
    assert np.allclose(outside.se, inside.se, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(tmp_path, scale):
    data = table(1500)
    plain = jg.lmm("y ~ x + (x | g)", written(data, tmp_path / "a"))
    data["y"] *= scale
    data["x"] /= scale
    other = jg.lmm("y ~ x + (x | g)", written(data, tmp_path / "b"))
    assert np.allclose(other.sigma / scale, plain.sigma, rtol=1e-8)
    assert np.allclose(other.coef / plain.coef, [scale, scale**2], rtol=1e-7)


def test_a_response_that_is_reproduced_is_refused(tmp_path):
    data = table(500)
    data["y"] = 2 * data["x"] + 1
    with pytest.raises(jg.ModelError, match="exactly"):
        jg.lmm("y ~ x + (1 | g)", written(data, tmp_path / "a"))
    data["y"] = 4.0
    with pytest.raises(jg.ModelError, match="constant"):
        jg.lmm("y ~ x + (1 | g)", written(data, tmp_path / "b"))


# Questions ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    data = table()
    source = written(data, tmp_path_factory.mktemp("pair") / "d", 3)
    formula = "y ~ x * f + (x | g)"
    return (
        jg.lmm(formula, data, weights="w"),
        jg.lmm(formula, source, weights="w"),
        data,
    )


def test_questions_of_the_model_alone(pair):
    inside, outside, data = pair
    for type in (1, 2, 3):
        one, two = outside.anova(type), inside.anova(type)
        assert np.allclose(one["statistic"], two["statistic"], rtol=1e-6)
    assert np.allclose(outside.confint(), inside.confint(), rtol=1e-7)
    new = data.head(20)
    assert np.allclose(outside.predict(new), inside.predict(new), rtol=1e-8)
    one, two = (f.predict(new, se=True)["se"] for f in (outside, inside))
    assert np.allclose(one, two, rtol=1e-6)
    cov = outside.ranef_cov["g"] / inside.ranef_cov["g"]
    assert np.allclose(cov, 1.0, rtol=1e-7)
    one, two = (str(f.summary()) for f in (outside, inside))
    assert one.partition("Random effects:")[2] == two.partition("Random effects:")[2]


def test_questions_of_rows_say_what_to_do(pair):
    _, outside, _ = pair
    asked = ("residuals", "fitted_values", "linear_predictor")
    for name in asked:
        with pytest.raises(jg.NotApplicableError, match="not in memory"):
            getattr(outside, name)
    for question in (
        lambda: outside.simulate(2),
        lambda: outside.refit(np.zeros(4000)),
        lambda: outside.influence(),
        lambda: outside.predict(),
        lambda: outside.augment(),
        lambda: outside.means("f"),
        lambda: outside.predictions(),
        lambda: outside.slopes("x"),
        lambda: outside.check(),
        lambda: outside.profile("x"),
        lambda: outside.r2(),  # with weights
        lambda: outside.with_vcov("CR2"),
        lambda: outside.save("nowhere.jg"),
    ):
        with pytest.raises(jg.NotApplicableError, match="in batches"):
            question()


def test_shares_and_comparisons(tmp_path):
    data = table()
    source = written(data, tmp_path / "d", 3)
    big, small = "y ~ x * f + (x | g) + (1 | h)", "y ~ x + (x | g)"
    inside, outside = jg.lmm(big, data), jg.lmm(big, source)
    assert outside.icc.adjusted == pytest.approx(inside.icc.adjusted, rel=1e-7)
    one, two = outside.r2(), inside.r2()
    assert one.marginal == pytest.approx(two.marginal, rel=1e-7)
    assert one.conditional == pytest.approx(two.conditional, rel=1e-7)
    others = jg.lmm(small, data), jg.lmm(small, source)
    one, two = (jg.anova(a, b) for a, b in zip((inside, outside), others, strict=True))
    assert str(one) == str(two)
    weighted = jg.lmm(small, source, weights="w")
    for other in (weighted, others[0]):
        with pytest.raises(jg.ComparisonError, match="different responses"):
            jg.anova(outside, other)
    with pytest.raises(jg.ComparisonError, match="different responses"):
        jg.anova(inside, others[1])


def test_draws_of_sums_and_pickles(pair):
    _, outside, _ = pair
    assert outside.bootstrap(5, seed=1).converged.all()
    again = pickle.loads(pickle.dumps(outside))
    assert again.criterion == outside.criterion
    assert np.allclose(again.anova()["den_df"], outside.anova()["den_df"])
    assert repr(again.plan) == repr(outside.plan)


def test_predictions_and_effects_go_to_files(pair, tmp_path):
    inside, outside, data = pair
    source = written(data, tmp_path / "d", 5)
    assert outside.predict(source, to=tmp_path / "out.parquet") == len(data)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert np.allclose(out["fit"], inside.fitted_values, rtol=1e-8)
    assert np.allclose(out["residual"], inside.residuals, rtol=1e-6, atol=1e-8)
    assert out["g"].tolist() == data["g"].tolist()
    outside.predict(
        source, "population", se=True, to=tmp_path / "p.parquet", keep=["h"]
    )
    out = pd.read_parquet(tmp_path / "p.parquet")
    assert out.columns.tolist() == ["h", "fit", "se"]
    found = inside.predict(re="population", se=True)
    assert np.allclose(out["se"], found["se"], rtol=1e-6)
    assert outside.ranef_to(tmp_path / "b.parquet", se=True) == 60
    b = pd.read_parquet(tmp_path / "b.parquet").set_index("level")
    assert np.allclose(b[["(Intercept)", "x"]], inside.ranef["g"], rtol=1e-7, atol=1e-9)
    sd = np.sqrt(inside.ranef_cov["g"][:, 1, 1])
    assert np.allclose(b["se_x"], sd, rtol=1e-6)
    with pytest.raises(jg.DataError, match="no folder"):
        outside.ranef_to(tmp_path / "nowhere" / "b.parquet")
    assert sorted(p.name for p in tmp_path.glob("*.part")) == []


# What cannot be streamed -------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "options", "says"),
    [
        ("y ~ poly(x, 2) + (1 | g)", {}, "other rows"),
        ("y ~ I(x - x.mean()) + (1 | g)", {}, "other rows"),
        ("y ~ s(x) + (1 | g)", {}, "smooth"),
        ("y ~ x + ar1(0 + h | g)", {}, "table in memory"),
        ("y ~ x", {}, "no random effects"),
        ("y ~ x + (1 | nothing)", {}, "no column 'nothing'"),
        ("y ~ x + (1 | g)", {"weights": np.ones(3)}, "name of a column"),
        ("y ~ x + (1 | g)", {"residual": "ar1(h | g)"}, "residual="),
        ("y ~ x + (1 | g)", {"method": "vb"}, "method="),
        ("f ~ x + (1 | g)", {}, "not numeric"),
        ("y ~ g + (1 | h)", {"contrasts": {"q": "sum"}}, "contrasts"),
    ],
)
def test_what_is_refused(tmp_path, formula, options, says):
    source = written(table(300, 20), tmp_path / "d")
    with pytest.raises(jg.JaxGLMMError, match=says):
        jg.lmm(formula, source, **options)
