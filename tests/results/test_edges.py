"""Models at the edge of what a table can show."""

import numpy as np
import pytest
import twin


def test_no_fixed_effects(sleepstudy):
    fit = twin.make("Reaction ~ 0 + (1 | Subject)", sleepstudy, [10.0])
    assert "Fixed effects" not in fit.summary()
    assert fit.fixef == {}
    assert fit.tidy().empty
    assert fit.confint().empty
    assert fit.r2().marginal == 0.0
    assert fit.glance().loc[0, "npar"] == 2
    assert len(fit.augment()) == 180


def test_rows_of_weight_zero(sleepstudy):
    """They are predicted and simulated, and vary without bound around their mean."""
    w = np.ones(180)
    fit = twin.make("Reaction ~ Days + (1 | Subject)", sleepstudy, [0.9])
    w[3] = 0.0
    fit.design.__dict__["weights"] = w
    assert np.isfinite(fit.simulate(3, seed=0)).all()
    assert fit.resid("scaled")[3] == 0.0
    upper = fit.predict(re="population", interval="prediction")["upper"].to_numpy()
    assert np.isinf(upper[3])
    assert np.isfinite(np.delete(upper, 3)).all()


def test_names_that_look_like_markup(sleepstudy):
    data = sleepstudy.rename(columns={"Days": "<b>"})
    fit = twin.make("Reaction ~ `<b>` + (1 | Subject)", data, [0.9])
    assert "&lt;b&gt;" in fit._repr_html_()
    assert "<b>" not in fit._repr_html_()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_tables_of_tiny_and_huge_responses(sleepstudy, scale):
    """The same fit in other units shows the same digits."""
    lam = [[[0.97, 0.0], [0.015, 0.23]]]
    data = sleepstudy.assign(Reaction=sleepstudy.Reaction * scale)
    fit = twin.make("Reaction ~ Days + (Days | Subject)", data, lam)
    plain = twin.make("Reaction ~ Days + (Days | Subject)", sleepstudy, lam)
    a, b = (f.summary().coefficients for f in (fit, plain))
    np.testing.assert_allclose(a["statistic"], b["statistic"])
    np.testing.assert_allclose(a["estimate"], scale * b["estimate"])
    assert max(map(len, fit.summary().splitlines())) < 90
