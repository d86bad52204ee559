"""Few variances beside one random effect: sums by cells say what the rows do."""

import numpy as np
import pandas as pd
import pytest
from doors import MOST, blocks, strata

import jaxglmm as jg


def rows(n=180, groups=40, seed=3):
    """Unequal groups, one of them empty of a level of ``f``, weights of two digits."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, n)
    f = rng.integers(0, 3, n)
    x = rng.normal(size=n)
    b = 0.8 * rng.normal(size=groups)
    y = 1 + 0.5 * x + b[g] + rng.normal(size=n) * np.array([0.4, 1.0, 2.0])[f]
    letters = pd.Categorical(np.array(list("abc"))[f])
    w = rng.integers(10, 30, n) / 10
    z = np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n))
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "f": letters, "w": w})


MODELS = {
    "reml": ("y ~ x + (1 | g)", {"dispersion": "~ f"}),
    "ml": ("y ~ x + (1 | g)", {"dispersion": "~ f", "reml": False}),
    "varident": ("y ~ x + (1 | g)", {"residual": "varident(f)"}),
    "weights": ("y ~ x + (1 | g)", {"residual": "varident(f)", "weights": "w"}),
    "slope": ("y ~ x + (0 + z | g)", {"dispersion": "~ f"}),
    "no intercept": ("y ~ x + (1 | g)", {"dispersion": "~ 0 + f"}),
    "alone": ("y ~ x", {"residual": "varident(f)"}),
    "held": (
        "y ~ x + (1 | g)",
        {"residual": "varident(f)", "fixed": {"x": 0.4, "sd_(Intercept)|g": 0.7}},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_by_cells_as_by_rows(name, monkeypatch):
    formula, options = MODELS[name]
    data = rows()
    by_rows = jg.lmm(formula, data, **options)
    assert by_rows.engine.cells is None
    monkeypatch.setattr(blocks, "PLAIN", 0)
    by_cells = jg.lmm(formula, data, **options)
    assert by_cells.engine.cells is not None
    assert by_cells.log_likelihood == pytest.approx(by_rows.log_likelihood, rel=1e-10)
    for ask in (
        lambda fit: list(fit.fixef.values()),
        lambda fit: fit.vcov,
        lambda fit: list(fit.dispersions.values()),
        lambda fit: fit.tidy()["df"],
        lambda fit: np.concatenate([*fit.estimates.b, np.zeros((1, 1))]),
        lambda fit: fit.resid("normalized"),
    ):
        np.testing.assert_allclose(ask(by_cells), ask(by_rows), rtol=1e-6, atol=1e-7)


def test_another_response_is_read_again(monkeypatch):
    monkeypatch.setattr(blocks, "PLAIN", 0)
    data = rows()
    fit = jg.lmm("y ~ x + (1 | g)", data, dispersion="~ f")
    again = jg.lmm("y ~ x + (1 | g)", data.assign(y=data["y"] ** 2), dispersion="~ f")
    refit = fit.refit(data["y"].to_numpy() ** 2)
    assert refit.log_likelihood == pytest.approx(again.log_likelihood, rel=1e-10)


def test_kenward_roger_by_cells(monkeypatch):
    data = rows()
    one = jg.lmm("y ~ x + (1 | g)", data, residual="varident(f)", ddf="kenward-roger")
    monkeypatch.setattr(blocks, "PLAIN", 0)
    two = jg.lmm("y ~ x + (1 | g)", data, residual="varident(f)", ddf="kenward-roger")
    np.testing.assert_allclose(two.tidy()["df"], one.tidy()["df"], rtol=1e-6)
    np.testing.assert_allclose(
        two.tidy()["std_error"], one.tidy()["std_error"], rtol=1e-7
    )


@pytest.mark.parametrize(
    "columns",
    [
        np.zeros((5, 0)),
        np.ones((4, 1)),
        np.array([[0.0, 2.0], [1.0, 2.0], [0.0, 2.0], [1.0, 3.5], [-1.0, 2.0]]),
        np.repeat(np.arange(MOST)[:, None] * 1.0, 2, axis=0),
    ],
)
def test_strata_say_the_rows(columns):
    code, few = strata(columns)
    np.testing.assert_array_equal(few[code], columns)
    assert len(few) == len(np.unique(columns, axis=0))


@pytest.mark.parametrize(
    "columns",
    [
        np.arange(MOST + 1.0)[:, None],
        np.concatenate([np.zeros(2000), np.arange(MOST + 1.0)])[:, None] + 0.5,
        np.stack([np.arange(81) // 9, np.arange(81) % 9], axis=1) * 1.0,
        np.array([[0.0], [np.nan], [1.0]]),
    ],
)
def test_many_strata_are_none(columns):
    assert strata(columns) is None
