"""What is asked of fits with structured random effects, and new places."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import SingularFitWarning

TIMES = np.array([0.0, 1.0, 2.0, 4.0, 6.0])


def table(J=40, seed=3):
    rng = np.random.default_rng(seed)
    R = np.exp(-np.abs(TIMES[:, None] - TIMES[None]) / 2.0)
    own = rng.normal(size=(J, 5)) @ np.linalg.cholesky(R).T
    x = rng.normal(size=5 * J)
    return pd.DataFrame(
        {
            "y": 1 + 0.5 * x + own.ravel() + 0.7 * rng.normal(size=5 * J),
            "count": rng.poisson(np.exp(0.5 + 0.6 * own.ravel())),
            "x": x,
            "t": np.tile(TIMES, J),
            "f": pd.Categorical(np.tile(list("abcde"), J)),
            "g": np.repeat(np.arange(J), 5),
        }
    )


def test_names_and_compact_tables():
    fit = jg.lmm("y ~ x + ar1(0 + f | g)", table())
    own = fit.varcorr["g"]
    assert [*own.parameters] == ["sd", "cor"]
    np.testing.assert_allclose(own.sd, own.parameters["sd"], rtol=1e-12)
    assert float(own.corr.iloc[2, 0]) == pytest.approx(own.parameters["cor"] ** 2)
    text = repr(fit.varcorr)
    assert "(ar1)" in text
    assert "f[a] ... f[e]" in text
    assert len(text.splitlines()) == 4
    assert [*fit.tidy(effects="ran_pars")["term"]] == ["sd_ar1|g", "cor_ar1|g", "sigma"]
    other = jg.lmm("y ~ x + ou(t | g)", table())
    assert [*other.varcorr["g"].parameters] == ["sd", "range"]


def test_errors_of_a_generalised_model():
    fit = jg.glmm("count ~ x + ar1(0 + f | g)", table(), family="poisson")
    rows = fit.tidy(effects="ran_pars").set_index("term")
    assert (rows["std_error"] > 0).all()


def test_a_new_time_of_a_known_level():
    """Its effect is the expectation given the others, its variance what is left."""
    fit = jg.lmm("y ~ x + ou(t | g)", table())
    own = fit.varcorr["g"].parameters
    sd, reach = own["sd"], own["range"]
    b = fit.ranef["g"].loc[3].to_numpy()
    for t in (1.5, 40.0, 2.0):
        c = np.exp(-np.abs(t - TIMES) / reach)
        R = np.exp(-np.abs(TIMES[:, None] - TIMES[None]) / reach)
        w = np.linalg.solve(R, c)
        row = pd.DataFrame({"x": [0.0], "t": [t], "g": [3]})
        found = float(np.asarray(fit.predict(row))[0])
        assert found == pytest.approx(fit.fixef["(Intercept)"] + w @ b, abs=1e-7)
        se = fit.predict(row, se=True)["se"].iloc[0]
        assert se**2 >= sd**2 * (1 - w @ c) - 1e-9
    near, known = (
        fit.predict(pd.DataFrame({"x": [0.0], "t": [t], "g": [3]}), se=True)
        for t in (2.0 + 1e-9, 2.0)
    )
    np.testing.assert_allclose(near, known, rtol=1e-5)


@pytest.mark.parametrize("structure", ["ar1(0 + f | g)", "ou(t | g)", "cs(0 + f | g)"])
def test_an_end_of_the_range_is_said(structure):
    """Effects that do not change, and noise without a trend: the correlation is one."""
    data = table()
    rng = np.random.default_rng(5)
    level, noise = rng.normal(size=(40, 1)), rng.normal(size=(40, 5))
    steps = np.arange(5) - 2.0  # noise without a trend in a group: less than by chance
    noise -= np.outer(noise @ steps, steps) / 10
    data["y"] = (2 * level + noise).ravel() + 0.5 * data["x"]
    with pytest.warns(SingularFitWarning, match="end of its range") as caught:
        fit = jg.lmm(f"y ~ x + {structure}", data)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert structure.partition("(")[0] in str(caught[0].message)
    assert fit.is_singular
    plain = jg.lmm("y ~ x + (1 | g)", data)
    if structure[:2] == "cs":  # a standard deviation a time: more than the plain model
        assert fit.criterion < plain.criterion
        return
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-6)
    np.testing.assert_allclose(fit.coefficients, plain.coefficients, atol=1e-4)


def test_files_refits_and_simulations(tmp_path):
    data = table()
    fit = jg.lmm("y ~ x + ar1(0 + f | g)", data)
    fit.save(tmp_path / "fit.jg")
    again = jg.load(tmp_path / "fit.jg")
    assert again.varcorr["g"].parameters == fit.varcorr["g"].parameters
    twice = fit.refit(2 * data["y"].to_numpy())
    assert twice.varcorr["g"].parameters["sd"] == pytest.approx(
        2 * fit.varcorr["g"].parameters["sd"], rel=1e-4
    )
    assert np.asarray(fit.simulate(2, seed=1)).shape == (2, len(data))
