"""Names of a user's levels and coefficients: drawn as they stand, told apart."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import twin
from doors import labels

LONG = "Departement de la Haute-Garonne, canton numero"
HOSTILE = [
    "$0-$50k",
    "$100k_$200k",
    r"$\frac{$",
    "50% & {more}_x^2",
    "C:\\new\\_folder",
    "two\nlines",
    "\u05e9\u05dc\u05d5\u05dd 12",
    "tab\tbed",
    "#1~`tick`",
]


@pytest.mark.parametrize(
    "names",
    [
        [f"{LONG} {k}" for k in range(40)],
        [f"{k} rue de la Republique, troisieme etage" for k in range(9)],
        [f"{'a' * 30}{k}{'b' * 30}" for k in "xyz"],
        ["x" * 50, "x" * 51, "x" * 52],
        ["Product[T.Product with a long name A]", "Product[T.Product with a long n"],
        ["a\nb", "a b"],
        [f"{LONG} {a}, section {b}" for a in range(5) for b in range(5)],
        HOSTILE,
    ],
)
@pytest.mark.parametrize("most", [9, 24])
def test_names_that_differ_stay_different(names, most):
    short = labels.shortened(names, most)
    assert len(set(short)) == len(names)
    assert not any("\n" in text or "\t" in text for text in short)
    assert sum(len(text) <= most for text in short) >= len(short) / 2 or most < 20


def test_short_names_stay_what_they_are():
    names = ["a", "b c", "$x$", 17, ("u", 2)]
    assert labels.shortened(names, 24) == ["a", "b c", "$x$", "17", "('u', 2)"]
    assert labels.short("a" * 12 + "b" * 12, 9) == "aaaa…bbbb"
    assert labels.wrapped("sd_(Intercept)|a long factor", 16).count("\n") == 1
    assert labels.wrapped("sd_x|g", 16) == "sd_x|g"


@pytest.fixture(scope="module")
def hostile():
    """Every name that a fit has is hostile."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "y ($)": rng.normal(size=90),
            "x_$1$": rng.normal(size=90),
            "$g_{": np.array(HOSTILE)[np.arange(90) % 9],
        }
    )
    formula = "`y ($)` ~ `x_$1$` + (`x_$1$` | `$g_{`)"
    fit = twin.make(formula, frame, [[[0.9, 0.0], [0.1, 0.3]]])
    fit.__dict__["ranef_cov"] = {"$g_{": np.tile(np.eye(2), (9, 1, 1))}
    return fit


class Profile:
    """A curve of a coefficient with a hostile name."""

    zeta = pd.DataFrame(
        {"parameter": "x_$1$", "value": [1.0, 2.0, 3.0], "zeta": [-2.0, 0.0, 2.0]}
    )

    def intervals(self, level=0.95):
        return pd.DataFrame({"lower": [1.2], "upper": [2.8]}, index=["x_$1$"])


DRAWN = {
    "ranef": lambda plot: plot.ranef(),
    "many": lambda plot: plot.ranef(max_labels=3),
    "qq": lambda plot: plot.qq("ranef"),
    "residuals": lambda plot: plot.residuals(),
    "profile": lambda plot: plot.profile(Profile()),
}


@pytest.mark.parametrize("tex", [False, True])
@pytest.mark.parametrize("name", list(DRAWN))
def test_names_are_not_read_as_mathematics(hostile, name, tex):
    with mpl.rc_context({"text.usetex": tex}):
        axes = np.ravel(DRAWN[name](hostile.plot))
    figure = axes[0].figure
    figure.canvas.draw()
    shown = [
        text
        for ax in axes
        for text in (ax._left_title, *ax.texts, *ax.get_yticklabels())
        if "$" in text.get_text()
    ]
    assert all(not t.get_parse_math() and not t.get_usetex() for t in shown)
    if name == "ranef":
        levels = {t.get_text() for t in axes[0].get_yticklabels()}
        assert {labels.plain(level) for level in HOSTILE} == levels


def test_levels_with_long_names(hostile):
    fit = twin.make(
        "y ~ 1 + (1 | g)",
        pd.DataFrame(
            {
                "y": np.arange(80.0) % 7,
                "g": [f"{LONG} {k}" for k in np.arange(80) % 40],
            }
        ),
        [[[0.9]]],
    )
    fit.__dict__["ranef_cov"] = {"g": np.full((40, 1, 1), 0.2)}
    (ax,) = fit.plot.ranef()
    assert len({t.get_text() for t in ax.get_yticklabels()}) == 40
    (ax,) = fit.plot.ranef(max_labels=10)
    words = " ".join(t.get_text() for t in ax.texts)
    assert len(set(words.split("ero ")[1:])) >= 3  # the numbers at the names' ends


@pytest.mark.parametrize("size", [(2.2, 1.6), (5.0, 2.0)])
@pytest.mark.parametrize("name", ["ranef", "qq", "residuals"])
def test_small_axes_of_ones_own_keep_their_labels(hostile, name, size):
    draw = {
        "ranef": lambda ax: hostile.plot.ranef(axes=ax, terms="(Intercept)"),
        "qq": lambda ax: hostile.plot.qq(ax=ax),
        "residuals": lambda ax: hostile.plot.residuals(ax=ax),
    }[name]
    figure, ax = plt.subplots(figsize=size)
    draw(ax)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for text in (ax.xaxis.label, ax.yaxis.label, ax._left_title):
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.y1 + 1
    boxes = [t.get_window_extent(renderer) for t in ax.get_yticklabels()]
    if name == "ranef":
        assert all(not a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert not ax.spines["top"].get_visible()


def test_margins_that_somebody_set_stay(hostile):
    figure, ax = plt.subplots()
    figure.subplots_adjust(left=0.4)
    hostile.plot.qq(ax=ax)
    assert figure.subplotpars.left == 0.4
    figure, ax = plt.subplots(layout="constrained")
    hostile.plot.qq(ax=ax)
    assert figure.subplotpars.left == mpl.rcParams["figure.subplot.left"]
