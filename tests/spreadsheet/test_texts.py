"""Every text of the worksheet functions, one row a text, and the order of checks."""

import math

import pytest

from jaxglmm.spreadsheet import glmm_binomial, glmm_negbin, glmm_poisson, lmm

Y, X, G = [[2], [3], [5], [1]], [[1], [2], [3], [4]], [[1], [1], [2], [2]]
B = [[0], [1], [1], [0]]
GOOD = {"y": Y, "x": X, "groups": G}
NAMES = ("y", "x", "groups", "x_random")


def with_(name, value, base=GOOD):
    return {**base, name: value}


POISSON = []
for name in NAMES:
    is_y = name == "y"
    POISSON += [
        ({name: {}}, f"{name} must be a 2D list."),
        ({name: []}, f"{name} cannot be empty."),
        ({name: [[1], 2, [3], [4]]}, f"{name} row 1 must be a list."),
        ({name: [[1], [], [3], [4]]}, f"{name} row 1 cannot be empty."),
        ({name: [[1], [None], [3], [4]]}, f"{name}[1][0] must be numeric."),
        ({name: [[1], ["2"], [3], [4]]}, f"{name}[1][0] must be numeric."),
        ({name: [[1], [math.nan], [3], [4]]}, f"{name}[1][0] must be finite."),
        ({name: [[1], [math.inf], [3], [4]]}, f"{name}[1][0] must be finite."),
        ({name: [[1], [10**400], [3], [4]]}, f"{name}[1][0] must be finite."),
    ]
    if not is_y:
        POISSON.append(
            (
                {name: [[1], [2], [3]]},
                f"y and {name} must have the same number of rows.",
            )
        )
    POISSON.append(
        ({name: [[1], [2, 3], [3], [4]]}, f"{name} row 1 has 2 columns, expected 1.")
    )
POISSON += [
    ({"y": [[1, 2]] * 4}, "y must be a column vector (single column)."),
    ({"groups": [[1, 2]] * 4}, "groups must be a column vector (single column)."),
    ({"y": [[1], [-1], [2], [3]]}, "y[1] must be non-negative (count data)."),
    ({"y": [[1], [2.5], [2], [3]]}, "y[1] must be an integer (count data)."),
    ({"fit_intercept": "TRUE"}, "fit_intercept must be a boolean."),
    ({"fit_intercept": 2}, "fit_intercept must be a boolean."),
    ({"alpha": "0.05"}, "alpha must be numeric."),
    ({"alpha": True}, "alpha must be numeric."),
    ({"alpha": math.nan}, "alpha must be finite."),
    ({"alpha": 0}, "alpha must be between 0 and 1."),
    ({"alpha": 1.5}, "alpha must be between 0 and 1."),
]

BINOMIAL = []
for name in NAMES:
    BINOMIAL += [
        ({name: {}}, f"{name} must be a 2D list."),
        ({name: [[1]]}, f"{name} must have at least 2 row(s)."),
        ({name: [[1], 1, [1], [1]]}, f"{name} row 1 must be a list."),
        ({name: [[], [1], [1], [1]]}, f"{name} must have at least 1 column(s)."),
        ({name: [[1], [1, 0], [1], [1]]}, f"{name} must have consistent column count."),
        ({name: [[1], [None], [1], [1]]}, f"{name}[1][0] must be numeric."),
        ({name: [[1], [math.inf], [1], [1]]}, f"{name}[1][0] must be finite."),
        ({name: [[1], [-(10**400)], [1], [1]]}, f"{name}[1][0] must be finite."),
    ]
BINOMIAL += [
    ({"y": [[0, 1]] * 4}, "y must be a column vector (single column)."),
    ({"groups": [[0, 1]] * 4}, "groups must be a column vector (single column)."),
    ({"x": [[1], [2]]}, "y, x, and groups must have the same number of rows."),
    ({"groups": [[1], [2]]}, "y, x, and groups must have the same number of rows."),
    ({"y": [[0], [1], [2], [1]]}, "y must contain only 0 or 1 values."),
    ({"alpha": "a"}, "alpha must be numeric."),
    ({"alpha": math.inf}, "alpha must be finite."),
    ({"alpha": 10**400}, "alpha must be finite."),
    ({"alpha": 1}, "alpha must be between 0 and 1."),
    ({"fit_intercept": 0.5}, "fit_intercept must be a boolean."),
    ({"x_random": [[1], [2]]}, "x_random must have the same number of rows as y."),
]


@pytest.mark.parametrize(("change", "text"), POISSON)
@pytest.mark.parametrize("function", [glmm_poisson, glmm_negbin])
def test_texts_of_counts(function, change, text):
    assert function(**{**GOOD, **change}) == f"Invalid input: {text}"


@pytest.mark.parametrize(("change", "text"), BINOMIAL)
def test_texts_of_binomial(change, text):
    assert glmm_binomial(**{**GOOD, "y": B, **change}) == f"Invalid input: {text}"


def test_linear_models_take_any_number():
    texts = [(c, t) for c, t in POISSON if "count data" not in t]
    for change, text in texts:
        assert lmm(**{**GOOD, **change}) == f"Invalid input: {text}"
    assert isinstance(lmm([[1.5], [-2.0], [0.3], [1.0]], X, G), list)


ORDERS = [  # everything is wrong at once; then one thing after the other is mended
    (
        glmm_poisson,
        [
            ("y", {}, "y must be a 2D list."),
            ("y", [[-1.5, 1], [2, 2], [1, 1], [1, 1]], "x cannot be empty."),
            ("x", [[1], [2]], "groups[0][0] must be numeric."),
            ("groups", [[1, 2]] * 3, "x_random row 0 must be a list."),
            ("x_random", [[1], [2]], "y and x must have the same number of rows."),
            ("x", X, "y and groups must have the same number of rows."),
            (
                "groups",
                [[1, 2]] * 4,
                "y and x_random must have the same number of rows.",
            ),
            ("x_random", [[1], [2], [3, 4], [5]], "y must be a column vector"),
            ("y", [[-1.5], [2], [1], [1]], "groups must be a column vector"),
            ("groups", G, "x_random row 2 has 2 columns, expected 1."),
            ("x_random", X, "y[0] must be non-negative"),
            ("y", [[1.5], [2], [1], [1]], "y[0] must be an integer"),
            ("y", Y, "fit_intercept must be a boolean."),
            ("fit_intercept", True, "alpha must be between 0 and 1."),
        ],
    ),
    (
        glmm_binomial,
        [
            ("y", {}, "y must be a 2D list."),
            ("y", [[3, 3]] * 4, "y must be a column vector"),
            ("y", [[3]] * 4, "x must have at least 2 row(s)."),
            ("x", [[1], [2]], "groups[0][0] must be numeric."),
            ("groups", [[1, 2]] * 4, "groups must be a column vector"),
            ("groups", G, "y, x, and groups must have the same number of rows."),
            ("x", X, "y must contain only 0 or 1 values."),
            ("y", B, "alpha must be between 0 and 1."),
            ("alpha", 0.05, "fit_intercept must be a boolean."),
            ("fit_intercept", True, "x_random row 0 must be a list."),
            (
                "x_random",
                [[1], [2]],
                "x_random must have the same number of rows as y.",
            ),
        ],
    ),
]


@pytest.mark.parametrize(("function", "steps"), ORDERS)
def test_the_order_of_checks(function, steps):
    now = {
        "y": None,
        "x": [],
        "groups": [[None], [1], [2], [3]],
        "x_random": [1, 2, 3, 4],
        "fit_intercept": "yes",
        "alpha": 7,
    }
    for name, value, text in steps:
        now[name] = value
        assert function(**now).startswith(f"Invalid input: {text}")


def test_mixed_labels_are_refused_and_text_is_not():
    mixed = [["a"], [1], ["b"], ["b"]]
    assert glmm_poisson(Y, X, mixed) == "Invalid input: groups[0][0] must be numeric."
    assert glmm_binomial(B, X, mixed) == "Invalid input: groups[0][0] must be numeric."
    assert isinstance(
        glmm_poisson(Y, X, [["a"], ["a"], ["b"], ["b"]], method="laplace"), list
    )


def test_a_scalar_is_a_matrix_of_one_cell():
    text = "Invalid input: y and x must have the same number of rows."
    assert glmm_poisson(2, X, G) == text
    assert glmm_binomial(1, X, G) == "Invalid input: y must have at least 2 row(s)."


ENGINE = [
    (glmm_poisson, {"groups": [[1]] * 4}, "jaxglmm.glmm error: "),
    (glmm_binomial, {"y": B, "groups": [[1]] * 4}, "Error fitting GLMM: "),
    (lmm, {"y": [[1], [1], [1], [1]]}, "jaxglmm.lmm error: "),
    (glmm_poisson, {"method": "magic"}, "jaxglmm.glmm error: method 'magic'"),
    (glmm_binomial, {"y": B, "method": "reml"}, "Error fitting GLMM: method 'reml'"),
    (glmm_poisson, {"names": ["a", "b"]}, "jaxglmm.glmm error: 2 names for 1 columns"),
    (glmm_poisson, {"x": [[0]] * 4}, "jaxglmm.glmm error: columns of x depend on"),
    (
        glmm_poisson,
        {"x": [[0]] * 4, "method": "vb"},
        "jaxglmm.glmm error: columns of x depend on",
    ),
    (lmm, {"x": [["a", "b"], [1, 2], [2, 4], [4, 8], [8, 16]]}, "jaxglmm.lmm error: "),
    (
        glmm_poisson,
        {"x": [[1] * 6] * 4},
        "jaxglmm.glmm error: 7 coefficients for 4 rows",
    ),
    (glmm_poisson, {"x_random": [[1] * 21] * 4}, "jaxglmm.glmm error: x_random has 21"),
]


@pytest.mark.parametrize(("function", "change", "text"), ENGINE)
def test_engines_fail_in_words(function, change, text):
    found = function(**{**GOOD, **change})
    assert isinstance(found, str)
    assert found.startswith(text)
    assert "\n" not in found
