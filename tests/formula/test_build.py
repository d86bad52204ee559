"""Formula and table to a design: tables of every make, missing rows, hostile input."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import check_linear, design_from_formula
from formula.frames import table

from jaxglmm import DataError, FormulaError, MissingRowsWarning, ModelError

FORMULA = "y ~ a * x + t + (1 + x | g) + (1 | h)"


def as_polars(data):
    return pytest.importorskip("polars").from_pandas(data)


def as_arrow(data):
    return pytest.importorskip("pyarrow").Table.from_pandas(data)


TABLES = {
    "dict of arrays": lambda d: {k: d[k].to_numpy() for k in d},
    "dict of lists": lambda d: {k: d[k].tolist() for k in d},
    "dict of series": lambda d: {k: d[k] for k in d},
    "record array": lambda d: d.astype(
        {"a": object, "b": object, "h": object}
    ).to_records(index=False),
    "object columns": lambda d: d.astype(object),
    "nullable": lambda d: d.convert_dtypes(),
    "categories": lambda d: d.astype({"a": "category", "h": "category"}),
    "polars": as_polars,
    "arrow": as_arrow,
    "shuffled index": lambda d: d.set_index(np.arange(60)[::-1]),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "missing"])
def test_every_table_gives_the_same_design(kind, holes):
    data = table()
    if holes:
        data = data.astype({"a": object, "h": object, "g": "Int64"})
        data.loc[3, "x"] = np.nan
        data.loc[[3, 5], "a"] = None
        data.loc[7, "g"] = pd.NA
        data.loc[9, "h"] = None
        if kind == "record array":
            data["g"] = data.g.astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingRowsWarning)
        one = design_from_formula(FORMULA, data)
        other = design_from_formula(FORMULA, TABLES[kind](data))
    assert one.n_missing == (4 if holes else 0)
    assert other.x_names == one.x_names
    np.testing.assert_array_equal(other.y, one.y)
    np.testing.assert_array_equal(other.X, one.X)
    for s, t in zip(one.terms, other.terms, strict=True):
        np.testing.assert_array_equal(t.codes, s.codes)
        np.testing.assert_array_equal(t.values, s.values)
        assert t.levels.tolist() == s.levels.tolist()


def test_polars_enums_keep_their_order():
    pl = pytest.importorskip("polars")
    data = table()
    enum = pl.Series(data.a.tolist(), dtype=pl.Enum(["r", "q", "p"]))
    frame = as_polars(data).with_columns(a=enum)
    assert design_from_formula("y ~ a", frame).x_names[1:] == ("a[T.q]", "a[T.p]")
    plain = frame.with_columns(a=enum.cast(pl.String).cast(pl.Categorical))
    assert design_from_formula("y ~ a", plain).x_names[1:] == ("a[T.q]", "a[T.r]")


def test_missing_rows_are_counted_once():
    data = table()
    data.index = [f"row{i}" for i in range(60)]
    data.loc["row1", "y"] = np.nan
    data.loc[["row1", "row2"], "x"] = np.nan
    data.loc["row4", "h"] = None
    data.loc["row6", "w"] = np.nan
    data.loc["row8", "b"] = None  # not in the model
    offset = np.zeros(60)
    offset[10] = np.nan
    with pytest.warns(MissingRowsWarning) as seen:
        design = design_from_formula(
            "y ~ log(x + 9) + (1 | h)", data, weights="w", offset=offset
        )
    assert len(seen) == 1
    assert str(seen[0].message) == (
        "5 of 60 rows were dropped because of missing values: "
        "y (1), x (2), h (1), weights (1), offset (1)"
    )
    assert seen[0].filename == __file__
    assert (design.n, design.n_missing) == (55, 5)
    kept = [i for i in range(60) if i not in (1, 2, 4, 6, 10)]
    assert design.rows.tolist() == kept
    assert list(design.index) == [f"row{i}" for i in kept]
    np.testing.assert_array_equal(design.weights, data.w.to_numpy()[kept])
    np.testing.assert_array_equal(design.variables["x"], data.x.to_numpy()[kept])
    with pytest.raises(DataError, match=r"5 of 60 rows have missing values: y \(1\)"):
        design_from_formula(
            "y ~ log(x + 9) + (1 | h)",
            data,
            weights="w",
            offset=offset,
            missing="raise",
        )


def test_dates_and_decimals():
    from decimal import Decimal

    data = table()
    data["day"] = pd.date_range("2024-01-01", periods=60)
    data["price"] = [Decimal(i % 5) / 4 for i in range(60)]
    data.loc[5, "day"] = pd.NaT
    with pytest.warns(MissingRowsWarning, match=r"day \(1\)"):
        design = design_from_formula("y ~ day.dt.dayofyear + price", data)
    np.testing.assert_array_equal(design.X[:5, 1], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(design.X[:5, 2], [0, 0.25, 0.5, 0.75, 1.0])


def test_offsets_and_weights():
    data = table()
    design = design_from_formula(
        "y ~ x + offset(log(z)) + offset(w)", data, offset="x", weights=[1.0] * 59 + [0]
    )
    np.testing.assert_allclose(design.offset, np.log(data.z) + data.w + data.x)
    assert design.weights[-1] == 0
    assert design.n == 60
    assert design_from_formula("y ~ x", data).offset is None


def test_response():
    data = table()
    logged = design_from_formula("log(y + 9) ~ x", data)
    np.testing.assert_allclose(logged.y, np.log(data.y + 9))
    assert logged.response == "log(y + 9)"
    np.testing.assert_array_equal(design_from_formula("t ~ x", data).y, data.t)
    coded = design_from_formula("b ~ x", data, allow_nonnumeric_response=True)
    assert coded.response_levels.tolist() == ["u", "v"]
    np.testing.assert_array_equal(coded.y, data.b == "v")
    quoted = design_from_formula("`the y` ~ x", data.rename(columns={"y": "the y"}))
    np.testing.assert_array_equal(quoted.y, data.y)
    np.testing.assert_array_equal(
        design_from_formula("I(y / z) ~ 1", data).y, data.y / data.z
    )


def test_no_fixed_part():
    design = design_from_formula("y ~ 0 + (1 | g)", table())
    assert (design.p, design.x_names, design.X.shape) == (0, (), (60, 0))


def test_the_data_are_left_alone():
    data = table()
    before = data.copy()
    design_from_formula(FORMULA, data)
    pd.testing.assert_frame_equal(data, before)


def bad_data():
    data = table()
    data["inf"] = data.x.where(data.index != 4, np.inf)
    data["one"] = "only"
    data["two"] = data.b.map({"u": "yes", "v": "no"})
    data["row"] = np.arange(60)
    data["day"] = pd.date_range("2024-01-01", periods=60)
    data["lists"] = [[1]] * 60
    data["empty"] = np.nan
    data["negative"] = -data.w
    data["zero"] = 0.0
    return data


# (formula, keywords) -> (error, text of the message)
BAD = [
    ("y ~ dys", {}, FormulaError, "no column 'dys' in the data"),
    ("y ~ Inf + (1 | g)", {}, FormulaError, "did you mean 'inf'?"),
    ("Y ~ x", {}, FormulaError, "did you mean 'y'?"),
    ("y ~ x + (1 | grp)", {}, FormulaError, "no column 'grp'"),
    ("y ~ log(xx)", {}, FormulaError, "'xx' in 'log(xx)' is neither a column"),
    ("y ~ logg(x)", {}, FormulaError, "'logg'"),
    (
        "y ~ out",
        {"context": {"out": np.ones(60)}},
        FormulaError,
        "put it into the data",
    ),
    ("y ~ log", {}, FormulaError, "no column 'log'"),
    ("y ~ bs(x, df=2)", {}, FormulaError, "evaluating 'bs(x, df=2)' failed"),
    ("y ~ C(a, Treatment('zz'))", {}, FormulaError, "do not fit its levels"),
    ("y ~ C(a, levels=['p', 'q'])", {}, DataError, "have levels 'r'"),
    ("y ~ C(a, base='p')", {}, FormulaError, "does not know 'base'"),
    ("y ~ x[:5]", {}, DataError, "gives 5 values for 60 rows"),
    ("y ~ I(x[:5])", {}, DataError, "gives 5 values for 60 rows"),
    ("y ~ inf", {}, DataError, "'inf' is infinite in 1 row (position 4)"),
    ("y ~ log(x)", {}, DataError, "infinite or undefined (NaN)"),
    ("y ~ x + (inf | g)", {}, DataError, "'inf' is infinite"),
    ("inf ~ x", {}, DataError, "'inf' is infinite"),
    ("log(y) ~ x", {}, DataError, "'log(y)' is infinite or undefined"),
    ("two ~ x", {}, DataError, "did you mean family='binomial'?"),
    ("a ~ x", {}, DataError, "'a' is not numeric"),
    ("day ~ x", {}, DataError, "holds dates"),
    ("poly(y, 2) ~ x", {}, DataError, "one numeric column"),
    ("cbind(x, y) ~ x", {}, FormulaError, "weights="),
    ("y ~ day", {}, FormulaError, "dates or durations"),
    ("y ~ lists", {}, DataError, "holds list objects"),
    ("y ~ one", {}, ModelError, "'one' has only one level ('only')"),
    ("y ~ x + (1 | one)", {}, ModelError, "'one' has only 1 level"),
    ("y ~ empty", {}, DataError, "no row is complete; missing values: empty (60)"),
    ("y ~ C(row) * x", {}, ModelError, "120 fixed-effect columns but only 60 rows"),
    ("y ~ x", {"missing": "ignore"}, DataError, "'drop' or 'raise'"),
    ("y ~ x", {"weights": "ww"}, DataError, "weights='ww': no such column"),
    ("y ~ x", {"offset": "oo"}, DataError, "offset='oo': no such column"),
    ("y ~ x", {"weights": np.ones(3)}, DataError, "weights has 3 values"),
    ("y ~ x", {"offset": np.ones(3)}, DataError, "offset has 3 values"),
    ("y ~ x", {"weights": "a"}, DataError, "weights must be numeric"),
    ("y ~ x", {"weights": "negative"}, DataError, "60 are, the first at position 0"),
    ("y ~ x", {"weights": "zero"}, DataError, "all weights are zero"),
    ("y ~ x", {"weights": "inf"}, DataError, "'weights' is infinite in 1 row"),
    ("y ~ x", {"offset": "inf"}, DataError, "'offset' is infinite in 1 row"),
    ("y ~ offset(a)", {}, FormulaError, "offset(a) must be one numeric column"),
]


@pytest.mark.parametrize(
    ("formula", "keywords", "error", "text"), BAD, ids=[f"{b[0]} {b[3]}" for b in BAD]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_messages(formula, keywords, error, text):
    with pytest.raises(error) as caught:
        design_from_formula(formula, bad_data(), **keywords)
    assert text in str(caught.value)


BAD_TABLES = [
    (None, "must be a table"),
    ([1, 2], "must be a table"),
    ("file.csv", "must be a table"),
    (np.ones((3, 2)), "must be a table"),
    (object(), "cannot read data of type object"),
    ({}, "no columns"),
    ({"y": [1.0, 2.0], "x": [1.0]}, "'x' has 1 rows, but 'y' has 2"),
    ({"y": 1.0, "x": 2.0}, "single value"),
    ({"y": np.ones((3, 2)), "x": [1, 2, 3]}, "'y' has 2 dimensions"),
    ({"y": [1j, 2.0], "x": [1, 2]}, "'y' is complex"),
    ({"y": [[1], [2]], "x": [1, 2]}, "'y' is nested"),
    (pd.DataFrame({"y": [], "x": []}), "no rows"),
    (pd.DataFrame(np.ones((3, 3)), columns=["y", "x", "x"]), "appears 2 times"),
]


@pytest.mark.parametrize(("data", "text"), BAD_TABLES)
def test_tables_that_cannot_be_read(data, text):
    with pytest.raises(DataError) as caught:
        design_from_formula("y ~ x", data)
    assert text in str(caught.value)


def test_lazy_frames():
    with pytest.raises(DataError, match="collect"):
        design_from_formula("y ~ x", as_polars(table()).lazy())


LINEAR = [
    ("y ~ x + (1 | row)", "has 60 levels for 60 rows: the number of levels must be"),
    ("y ~ x + (x | half)", "30 x 2 = 60 random effects for 60 rows"),
    ("y ~ C(row)", "60 fixed effects and 60 rows"),
]


@pytest.mark.parametrize(("formula", "text"), LINEAR)
def test_linear_models(formula, text):
    data = table().assign(row=np.arange(60), half=np.arange(60) // 2)
    design = design_from_formula(formula, data)
    with pytest.raises(ModelError) as caught:
        check_linear(design)
    assert text in str(caught.value)
    check_linear(design_from_formula("y ~ x + (1 | half)", data))


def test_later_changes_of_the_data_do_not_reach_the_design():
    data = {k: table()[k].to_numpy().copy() for k in "yxzg"}
    design = design_from_formula("y ~ x + z + (x | g)", data, weights=data["z"])
    before = [design.y.copy(), design.recipe.sum_coded(), design.weights.copy()]
    for column in data.values():
        column[:] = 7
    for old, new in zip(
        before, [design.y, design.recipe.sum_coded(), design.weights], strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert design.variables["g"].tolist() != data["g"].tolist()


@pytest.mark.parametrize("text", ["I((t + 1)^2)", "I(((t)+1)**2)", "I((t + 1) ^ 2.0)"])
def test_powers_as_in_r(text):
    """Python's ^ would flip bits of whole numbers, and lose the brackets on the way."""
    data = table().assign(t=np.arange(60))
    design = design_from_formula(f"y ~ {text} + (1 + I(t^2) | g)", data)
    np.testing.assert_array_equal(design.X[:, 1], (data.t + 1) ** 2)
    np.testing.assert_array_equal(design.terms[0].values[:, 1], data.t**2)
    quoted = design_from_formula("y ~ `t^2`", data.rename(columns={"t": "t^2"}))
    np.testing.assert_array_equal(quoted.X[:, 1], data.t)
