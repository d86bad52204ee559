"""Held parameters of generalised models, and where their search begins."""

import numpy as np
import pytest
from scipy import special, stats

import jaxglmm as jg
from jaxglmm import ModelError

FORMULA = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
SD, LATER = "sd_(Intercept)|herd", "period[T.2]"
CBPP = jg.datasets.load("cbpp")


@pytest.fixture(scope="module")
def free():
    return jg.glmm(FORMULA, CBPP)


@pytest.fixture(scope="module")
def one():
    return jg.glmm(FORMULA, CBPP, fixed={SD: 1.0})


def test_a_standard_deviation(one, free):
    """glmmTMB 1.1.5 with map=list(theta=factor(NA)), start=list(theta=0)."""
    assert one.criterion == pytest.approx(186.668745704, abs=1e-8)
    beta = [-1.457250509843, -0.953902236016, -1.092077186764, -1.537329466797]
    assert one.coefficients == pytest.approx(beta, abs=1e-6)
    errors = [0.306394890410, 0.310218265602, 0.330008209061, 0.430595620998]
    assert one.se == pytest.approx(errors, rel=1e-5)
    table = one.tidy("ran_pars").set_index("term")
    assert table.held[SD]
    assert np.isnan(table.std_error[SD])
    assert one.npar == free.npar - 1
    assert f"Held: {SD} = 1" in str(one.summary())


def test_at_the_optimum(free):
    """Nothing else moves, and a start makes no difference."""
    fixed = {SD: float(free.varcorr["herd"].sd.iloc[0])}
    held = jg.glmm(FORMULA, CBPP, fixed=fixed)
    assert held.criterion == pytest.approx(free.criterion, abs=1e-9)
    assert (held.se < free.se * (1 + 1e-6)).all()
    begun = jg.glmm(FORMULA, CBPP, start={SD: 2.0, LATER: 0.5})
    assert begun.criterion == pytest.approx(free.criterion, abs=1e-9)
    assert begun.npar == free.npar


def test_a_standard_deviation_of_zero():
    none = jg.glmm(FORMULA, CBPP, fixed={SD: 0})
    plain = jg.glmm(FORMULA.replace(" + (1 | herd)", ""), CBPP)
    assert none.criterion == pytest.approx(plain.criterion, abs=1e-6)
    assert none.se == pytest.approx(plain.se, rel=1e-4)
    assert not none.is_singular


def test_a_coefficient():
    """It is an offset."""
    held = jg.glmm(FORMULA, CBPP, fixed={LATER: -1.0})
    data = CBPP.assign(second=-1.0 * (CBPP.period.astype(str) == "2"))
    data["third"] = (CBPP.period.astype(str) == "3") * 1.0
    data["fourth"] = (CBPP.period.astype(str) == "4") * 1.0
    formula = FORMULA.replace("period", "third + fourth + offset(second)")
    other = jg.glmm(formula, data)
    assert held.criterion == pytest.approx(other.criterion, abs=1e-8)
    rest = [0, 2, 3]
    assert held.coefficients[rest] == pytest.approx(other.coefficients, abs=1e-5)
    assert held.se[rest] == pytest.approx(other.se, rel=1e-5)
    assert np.isnan(held.se[1])
    assert held.coefficients[1] == -1.0


def test_a_held_correlation_keeps_its_sign():
    """Slopes whose correlation with intercepts is -0.9 have none of 0.5."""
    random = np.random.default_rng(4)
    g, x = np.repeat(np.arange(30), 8), np.tile(np.linspace(-1, 1, 8), 30)
    b = random.normal(size=30)
    y = random.poisson(np.exp(1 + b[g] - 0.9 * b[g] * x)).astype(float)
    data = {"y": y, "x": x, "g": g}
    name = "cor_x.(Intercept)|g"
    fit = jg.glmm("y ~ x + (x | g)", data, family="poisson", fixed={name: 0.5})
    alone = jg.glmm("y ~ x + (1 | g)", data, family="poisson")
    assert fit.criterion <= alone.criterion + 1e-6
    table = fit.tidy("ran_pars").set_index("term").estimate
    assert not table[name] < 0
    linear = jg.lmm("y ~ x + (x | g)", data, reml=False, fixed={name: 0.5})
    alone = jg.lmm("y ~ x + (1 | g)", data, reml=False)
    assert linear.criterion <= alone.criterion + 1e-6
    assert not linear.varcorr["g"].corr.iloc[0, 1] < 0


def test_dispersion_and_zeros():
    random = np.random.default_rng(1)
    y = random.negative_binomial(2, 0.3, 60) * (random.random(60) < 0.8)
    data = {"y": y.astype(float)}
    fixed = {"phi": 2.0, "zi~(Intercept)": -1.0}
    options = {"family": "nbinom2", "zi": "~ 1", "fixed": fixed}
    fit = jg.glmm("y ~ 1", data, **options)
    assert fit.dispersions["phi"] == pytest.approx(2.0, rel=1e-12)
    assert fit.fixef["zi~(Intercept)"] == -1.0
    assert fit.npar == 1
    mean, zero = np.exp(fit.coefficients[0]), special.expit(-1.0)
    near = [_inflated(y, np.exp(s) * mean, zero) for s in (-0.01, 0, 0.01)]
    assert fit.criterion == pytest.approx(near[1], abs=1e-8)
    assert near[1] < min(near[0], near[2])


def _inflated(y, mean, zero):
    own = (1 - zero) * stats.nbinom.pmf(y, 2.0, 2.0 / (2.0 + mean))
    return -2 * np.sum(np.log(own + zero * (y == 0)))


def test_what_follows_a_fit(one, tmp_path):
    """Refits, simulated refits and files hold what the fit held."""
    again = one.refit(one.design.y * 1.0)
    assert again.criterion == pytest.approx(one.criterion, abs=1e-9)
    drawn = one.bootstrap(3, seed=1).frame()
    assert drawn[SD].tolist() == pytest.approx([1.0] * 3, rel=1e-9)
    one.save(tmp_path / "fit")
    read = jg.load(tmp_path / "fit")
    assert read.design.fixed == {SD: 1.0}
    assert read.se == pytest.approx(one.se, rel=1e-6)
    with pytest.raises(jg.NotApplicableError, match="held parameters"):
        one.profile()


def test_gaussian_models_are_linear_models():
    data = jg.datasets.load("Dyestuff")
    fit = jg.glmm(
        "Yield ~ 1 + (1 | Batch)", data, family="gaussian", fixed={"sigma": 60.0}
    )
    same = jg.lmm("Yield ~ 1 + (1 | Batch)", data, reml=False, fixed={"sigma": 60.0})
    assert fit.criterion == pytest.approx(same.criterion, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"sd_Intercept|herd": 1.0}}, "did you mean 'sd_(Intercept)|herd'"),
        ({"fixed": {"phi": 1.0}}, "no parameter 'phi'"),
        ({"start": {SD: 0.0}}, "above zero"),
        ({"fixed": {SD: "wide"}}, "must be a finite number"),
        ({"fixed": {SD: 1.0}, "method": "map"}, "priors=jg.Priors("),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ModelError) as caught:
        jg.glmm(FORMULA, CBPP, **options)
    assert message in str(caught.value)


def test_a_dispersion_outside_its_range():
    data = {"y": np.array([0.0, 1, 0, 3, 2, 5]), "g": list("aabbcc")}
    with pytest.raises(ModelError, match="is outside what the dispersion"):
        jg.glmm("y ~ 1 + (1 | g)", data, family="tweedie", fixed={"power": 2.5})
