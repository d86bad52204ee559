"""Double precision inside, invisible outside."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (Days | Subject)"
CROSSED = "diameter ~ 1 + (1 | plate) + (1 | sample)"
CASES = [(SLEEP, "sleepstudy"), (CROSSED, "Penicillin")]

ARRAYS = (
    "coefficients",
    "se",
    "t_values",
    "p_values",
    "df_satterthwaite",
    "theta",
    "fitted_values",
    "residuals",
)
NUMBERS = ("sigma", "criterion", "log_likelihood", "aic", "bic", "deviance")


def numbers(fit):
    """All that a fit says, as arrays by name."""
    out = {name: np.asarray(getattr(fit, name)) for name in (*ARRAYS, *NUMBERS)}
    out["vcov"] = fit.vcov.to_numpy()
    for factor, frame in fit.ranef.items():
        out[f"ranef {factor}"] = frame.to_numpy()
        out[f"ranef_cov {factor}"] = np.asarray(fit.ranef_cov[factor])
    out["predict"] = np.asarray(fit.predict(re="population"))
    out["simulate"] = np.asarray(fit.simulate(2, seed=1))
    out["bootstrap"] = fit.bootstrap(5, seed=2).coefficients
    out["refit"] = fit.refit(fit.design.y + 1.0).coefficients
    return out


def everything(formula, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        return numbers(jg.lmm(formula, jg.datasets.load(name)))


@pytest.mark.parametrize(("formula", "name"), CASES)
def test_the_users_flag_changes_nothing(formula, name):
    found = []
    for flag in (False, True):
        with jax.enable_x64(flag):
            found.append(everything(formula, name))
            assert jax.config.jax_enable_x64 == flag
            expected = jnp.float64 if flag else jnp.float32
            assert jnp.ones(1).dtype == expected
    off, on = found
    assert off.keys() == on.keys()
    for key, value in off.items():
        # single precision would show in the seventh digit; a program that takes over
        # from NumPy between the two shows in the last ones
        near = {"rtol": 1e-10, "atol": 1e-10}
        np.testing.assert_allclose(value, on[key], **near, err_msg=key)
        assert value.dtype == np.float64, key


def test_the_global_flag_is_left_as_it_is():
    before = jax.config.jax_enable_x64
    everything(*CASES[0])
    assert jax.config.jax_enable_x64 == before
    with pytest.raises(jg.JaxGLMMError):  # and when it ends in an error
        jg.lmm("Reaction ~ Nights + (1 | Subject)", jg.datasets.load("sleepstudy"))
    assert jax.config.jax_enable_x64 == before


def leaves(value, path="", seen=None):
    """Every array or number reachable from the public attributes of a result."""
    if isinstance(value, pd.DataFrame | pd.Series):
        yield path, value.to_numpy()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}[{key}]")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value


def test_results_are_numpy_and_never_jax():
    fit = jg.lmm(SLEEP, jg.datasets.load("sleepstudy"))
    names = [*ARRAYS, *NUMBERS, "vcov", "ranef", "ranef_cov", "fixef", "diagnostics"]
    for name in names:
        for path, value in leaves(getattr(fit, name), name):
            assert not isinstance(value, jax.Array), path
            if isinstance(value, np.ndarray):
                assert value.dtype == np.float64, path
            elif isinstance(value, float):
                assert type(value) is float or isinstance(value, np.float64), path


def test_a_pickled_fit_keeps_its_digits():
    """A pickled float64 JAX array would come back as float32, without a word."""
    fit = jg.lmm(SLEEP, jg.datasets.load("sleepstudy"))
    before = numbers(fit)
    after = numbers(pickle.loads(pickle.dumps(fit)))
    for key, value in before.items():
        # (the last digits may be a program's that takes over from NumPy)
        near = {"rtol": 1e-9, "atol": 1e-12}
        np.testing.assert_allclose(after[key], value, **near, err_msg=key)
        assert after[key].dtype == np.float64, key


def test_data_in_single_precision_are_read_in_double():
    """What they hold exactly is fitted exactly."""
    sleep = jg.datasets.load("sleepstudy")
    rough = sleep.assign(Reaction=sleep["Reaction"].astype(np.float32))
    exact = rough.assign(Reaction=rough["Reaction"].astype(np.float64))
    a, b = jg.lmm(SLEEP, rough), jg.lmm(SLEEP, exact)
    assert a.criterion == pytest.approx(b.criterion, rel=1e-10)
    np.testing.assert_allclose(a.coefficients, b.coefficients, rtol=1e-10)
