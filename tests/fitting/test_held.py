"""Parameters held at values, and where a search begins."""

import numpy as np
import pytest

import jaxglmm as jg
from jaxglmm import ModelError

FORMULA = "Reaction ~ Days + (Days | Subject)"
SLEEP = jg.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def free():
    return jg.lmm(FORMULA, SLEEP)


def dense(sds, cor, sigma, beta=None):
    """-2 REML log-likelihood, less what it is with a known coefficient of Days."""
    y = SLEEP.Reaction.to_numpy(float)
    X = np.column_stack([np.ones(180), SLEEP.Days])
    if beta is not None:
        y, X = y - X[:, 1] * beta, X[:, :1]
    S = np.diag(sds) @ np.array([[1, cor], [cor, 1]]) @ np.diag(sds)
    z = np.column_stack([np.ones(180), SLEEP.Days])
    subject = SLEEP.Subject.astype(str).to_numpy()
    V = (subject[:, None] == subject) * (z @ S @ z.T) + sigma**2 * np.eye(180)
    P = np.linalg.inv(V)
    XPX = X.T @ P @ X
    r = y - X @ np.linalg.solve(XPX, X.T @ P @ y)
    out = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XPX)[1] + r @ P @ r
    return out + (180 - X.shape[1]) * np.log(2 * np.pi)


@pytest.mark.parametrize(
    ("fixed", "name"),
    [
        ({"sigma": 30.0}, "sigma"),
        ({"sd_Days|Subject": 5.0}, "sd_Days|Subject"),
        ({"cor_Days.(Intercept)|Subject": 0.3}, "cor_Days.(Intercept)|Subject"),
        ({"Days": 10.0}, "Days"),
    ],
)
def test_held(fixed, name, free):
    """Where it was asked for, and nothing near it is better."""
    fit = jg.lmm(FORMULA, SLEEP, fixed=fixed)
    values = fit.tidy("all").set_index("term")
    values = values[~values.index.duplicated()]
    assert values.estimate[name] == pytest.approx(fixed[name], rel=1e-12)
    assert values.held[name]
    assert np.isnan(values.std_error[name])
    assert fit.npar == free.npar - 1
    assert f"Held: {name} = " in str(fit.summary())
    sds = fit.varcorr["Subject"].sd.to_numpy()
    cor = fit.varcorr["Subject"].corr.iloc[0, 1]
    beta = fixed.get("Days")
    here = dense(sds, cor, fit.sigma, beta)
    assert fit.criterion == pytest.approx(here, abs=1e-7)
    for k, up in [(k, up) for k in range(4) for up in (0.97, 1.03)]:
        moved = [*sds, cor, fit.sigma]
        names = ["", "sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma"]
        if name == names[k] and k:
            continue
        moved[k] *= up
        assert dense(moved[:2], moved[2], moved[3], beta) > here - 1e-9


def test_held_at_the_optimum(free):
    """Nothing else moves, and a start makes no difference."""
    held = jg.lmm(FORMULA, SLEEP, fixed={"sigma": free.sigma})
    assert held.criterion == pytest.approx(free.criterion, abs=1e-8)
    assert held.se == pytest.approx(free.se, rel=1e-5)
    begun = jg.lmm(FORMULA, SLEEP, start={"sigma": 60.0, "sd_Days|Subject": 20.0})
    assert begun.criterion == pytest.approx(free.criterion, abs=1e-8)
    assert begun.npar == free.npar


def test_a_standard_deviation_of_zero():
    none = jg.lmm(FORMULA, SLEEP, fixed={"sd_Days|Subject": 0.0})
    plain = jg.lmm("Reaction ~ Days + (1 | Subject)", SLEEP)
    assert none.criterion == pytest.approx(plain.criterion, abs=1e-7)


@pytest.mark.parametrize("structure", ["ar1", "us", "car1", "cs"])
def test_residual_structures(structure):
    """Held parameters of residuals are where they were put."""
    data = jg.datasets.load("Orthodont")
    residual = f"{structure}(age | Subject)"
    fit = jg.lmm("distance ~ age", data, residual=residual)
    names = list(fit.dispersions)
    fixed = {names[-1]: 0.4, names[0]: 2.0}
    held = jg.lmm("distance ~ age", data, residual=residual, fixed=fixed)
    assert [held.dispersions[k] for k in fixed] == pytest.approx([0.4, 2.0], rel=1e-9)
    assert held.npar == fit.npar - 2
    assert held.criterion > fit.criterion
    table = held.residual_parameters
    assert table.std_error[list(fixed)].isna().all()
    at = {name: fit.dispersions[name] for name in fixed}
    same = jg.lmm("distance ~ age", data, residual=residual, fixed=at)
    assert same.criterion == pytest.approx(fit.criterion, abs=1e-6)


def test_weights_beside_residual_structures():
    """Random effects are not divided by the weights of rows."""
    data = SLEEP.assign(w=np.linspace(0.5, 3, 180))
    plain = jg.lmm(FORMULA, data, weights="w")
    blocks = jg.lmm(FORMULA, data, weights="w", start={})
    assert blocks.criterion == pytest.approx(plain.criterion, abs=1e-7)


def test_a_file(tmp_path):
    fit = jg.lmm(FORMULA, SLEEP, fixed={"sigma": 30.0})
    fit.save(tmp_path / "fit")
    again = jg.load(tmp_path / "fit")
    assert again.design.fixed == {"sigma": 30.0}
    assert again.denominator_df == pytest.approx(fit.denominator_df, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"sd_Day|Subject": 1.0}}, "did you mean 'sd_Days|Subject'"),
        ({"fixed": {"x": 1.0}}, "there are '(Intercept)', 'Days', 'sd_(Intercept)|"),
        ({"fixed": {"sigma": -1.0}}, "sigma = -1.0 must be above zero"),
        ({"fixed": {"sigma": "a"}}, "must be a finite number"),
        ({"fixed": {"sd_Days|Subject": -1.0}}, "zero or more"),
        ({"start": {"cor_Days.(Intercept)|Subject": 1.0}}, "between -1 and 1"),
        ({"fixed": [1]}, "must be a dict"),
        ({"fixed": {"sigma": 1.0}, "method": "map"}, "is for maximum likelihood"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ModelError) as caught:
        jg.lmm(FORMULA, SLEEP, **options)
    assert message in str(caught.value)
