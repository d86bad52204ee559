"""The numbers of a fit, its aliases, and what it costs to make one."""

import pickle

import numpy as np
import pytest
import twin

from jaxglmm import Fit, NotApplicableError


def test_sleepstudy_is_lme4s(sleep):
    """lme4 1.1.31, REML."""
    np.testing.assert_allclose(sleep.coefficients, [251.405104848, 10.467285960])
    np.testing.assert_allclose(sleep.se, [6.8245557763, 1.5457889324])
    assert sleep.criterion == pytest.approx(1743.628271958, abs=1e-8)
    assert sleep.log_likelihood == pytest.approx(-871.814135979)
    assert sleep.aic == pytest.approx(1755.628271958)
    assert sleep.bic == pytest.approx(1774.786013064)
    assert (sleep.npar, sleep.df_resid, sleep.nobs) == (6, 174, 180)
    assert sleep.ngroups == {"Subject": 18}
    np.testing.assert_allclose(sleep.p_values, [1.17087e-17, 3.26379e-6], rtol=1e-4)
    np.testing.assert_allclose(sleep.fitted_values[:2], [253.663670349, 273.329928213])
    np.testing.assert_allclose(sleep.ranef["Subject"].iloc[0], [2.2585655, 9.1989719])


def test_names_and_aliases(sleep):
    assert sleep.fixef == dict(zip(("(Intercept)", "Days"), sleep.coef, strict=True))
    assert sleep.vcov.loc["Days", "Days"] == pytest.approx(
        sleep.standard_errors[1] ** 2
    )
    assert sleep.z_values is None
    assert sleep.residual_variance == sleep.dispersion == sleep.sigma**2
    assert sleep.residual_std == sleep.sigma
    assert sleep.deviance == sleep.criterion
    assert sleep.n_obs == sleep.nobs
    assert sleep.n_groups == sleep.ngroups
    assert sleep.random_effects is sleep.ranef
    np.testing.assert_array_equal(
        np.asarray(sleep.ranef["Subject"]), sleep.estimates.b[0]
    )
    assert sleep.ranef["Subject"].index.name == "Subject"


DOCUMENTED = (
    *("coefficients", "coefficient_names", "se", "t_values", "p_values"),
    *("df_satterthwaite", "var_components", "residual_variance", "residual_std"),
    *("log_likelihood", "reml", "aic", "bic", "n_obs", "n_groups", "converged"),
    *("n_iter", "is_singular", "random_effects", "fitted_values", "linear_predictor"),
    *("residuals", "theta"),
)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_params_is_a_view(sleep, name):
    seen, own = getattr(sleep.params, name), getattr(sleep, name)
    if isinstance(own, np.ndarray):
        np.testing.assert_array_equal(seen, own)
    else:
        assert seen is own or seen == own


def test_params_is_frozen(sleep):
    with pytest.raises(AttributeError):
        sleep.params.se = 0


def test_residuals_and_weights(sleepstudy):
    w = np.linspace(0.5, 2, 180)
    fit = twin.make("Reaction ~ Days + (1 | Subject)", sleepstudy, [0.9], weights=w)
    r = fit.resid()
    np.testing.assert_array_equal(r, fit.design.y - fit.fitted_values)
    np.testing.assert_allclose(fit.resid("pearson"), r * np.sqrt(w))
    np.testing.assert_allclose(fit.resid("scaled"), r * np.sqrt(w) / fit.sigma)
    with pytest.raises(NotApplicableError, match="'scaled'"):
        fit.resid("deviance")


def test_offset_is_part_of_the_predictor(sleepstudy):
    offset = np.linspace(0, 5, 180)
    formula = "Reaction ~ Days + (1 | Subject)"
    fit = twin.make(formula, sleepstudy, [0.9], offset=offset)
    shifted = sleepstudy.assign(Reaction=sleepstudy.Reaction - offset)
    plain = twin.make(formula, shifted, [0.9])
    np.testing.assert_allclose(fit.fitted_values, plain.fitted_values + offset)


def test_degrees_of_freedom_without_satterthwaite(machines):
    np.testing.assert_array_equal(machines.df_satterthwaite, [51.0] * 3)
    assert machines.ddf == "residual"
    with pytest.raises(NotApplicableError, match="kenward-roger"):
        machines.coefficient_table("kr")


def test_terms_on_one_factor_are_joined(sleepstudy):
    fit = twin.make("Reaction ~ Days + (Days || Subject)", sleepstudy, [0.98, 0.23])
    assert list(fit.ranef) == ["Subject"]
    assert fit.ranef["Subject"].columns.tolist() == ["(Intercept)", "Days"]
    assert list(fit.varcorr) == ["Subject", "Subject.1"]


def test_repr_is_one_line(sleep, singular):
    assert repr(sleep) == (
        "<Fit Reaction ~ Days + (Days | Subject) | 180 rows, REML criterion 1743.63>"
    )
    assert "singular" in repr(singular)


def test_copies_and_pickles_keep_everything_but_the_engine(sleep):
    loaded = pickle.loads(pickle.dumps(sleep))
    for other in (loaded, sleep.copy()):
        np.testing.assert_array_equal(other.fitted_values, sleep.fitted_values)
        assert other.formula == sleep.formula
        assert other.ddf == sleep.ddf
        assert other._engine is None
    copied = sleep.copy()
    copied.estimates.beta[0] = 0.0
    assert sleep.coefficients[0] != 0.0


def test_nothing_is_computed_before_it_is_asked_for(sleep):
    fit = Fit(sleep.design, sleep.estimates)
    assert set(fit.__dict__) == {
        "design",
        "_estimates",
        "diagnostics",
        "_engine",
        "_ddf",
        "_robust",
    }
    assert fit._robust is None


def test_formula_of_arrays(sleep):
    import dataclasses

    design = dataclasses.replace(sleep.design, formula=None, recipe=None)
    fit = Fit(design, sleep.estimates)
    assert fit.formula == "Reaction ~ 1 + Days + (1 + Days | Subject)"
    with pytest.raises(NotApplicableError, match="no recipe"):
        fit.predict({"Days": [1]})
