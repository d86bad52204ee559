"""Small fits run in NumPy: the same numbers as those of programs, and no program."""

import json
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as device
import numpy as np
import pytest
from doors import Stored, arrays, host, hosted, jnp, lax, nn, special
from doors import numerics_special as likelihoods
from jax import scipy as device_scipy

import jaxglmm as jg

CBPP = jg.datasets.load("cbpp").assign(
    row=lambda d: np.arange(len(d)).astype(str),
    share=lambda d: np.clip(d["incidence"] / d["size"], 0.02, 0.98),
    more=lambda d: d["incidence"] + 0.5,
    log_size=lambda d: np.log(d["size"]),
)
SHARES = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
COUNTS = "incidence ~ period + offset(log_size) + (1 | herd)"
MORE = "more ~ period + (1 | herd)"

LINEAR = [
    ("sleepstudy", "Reaction ~ Days + (1 | Subject)"),
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    ("sleepstudy", "Reaction ~ C(Days) + (1 | Subject)"),
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    ("Pastes", "strength ~ 1 + (1 | batch / cask)"),
    ("Machines", "score ~ Machine + (0 + Machine | Worker)"),
]
GENERALISED = [
    (SHARES, jg.Binomial(), jg.Laplace()),
    (SHARES, jg.Binomial("probit"), jg.Laplace()),
    (SHARES, jg.Binomial("cloglog"), jg.Laplace()),
    (SHARES, jg.Binomial("cauchit"), jg.Laplace()),
    (SHARES, jg.Binomial(), jg.AGQ(9)),
    (SHARES, jg.Binomial(), jg.AGQ()),
    (SHARES, jg.Binomial(), jg.Laplace(hessian="expected")),
    (SHARES + " + (1 | row)", jg.Binomial(), jg.Laplace()),
    (SHARES, jg.BetaBinomial(), jg.Laplace()),
    (COUNTS, jg.Poisson(), jg.Laplace()),
    (COUNTS, jg.NegativeBinomial(), jg.Laplace()),
    (COUNTS, jg.NegativeBinomial(), jg.AGQ(5)),
    (COUNTS, "nbinom1", jg.Laplace()),
    ("incidence ~ period", jg.NegativeBinomial(), jg.Laplace()),
    ("share ~ period + (1 | herd)", jg.Beta(), jg.Laplace()),
    (MORE, jg.Gamma(), jg.Laplace()),
    (MORE, jg.InverseGaussian(), jg.Laplace()),
    (MORE, jg.StudentT(), jg.Laplace()),
    (MORE, jg.Gaussian("log"), jg.Laplace()),
]


@pytest.fixture
def nothing_compiles(monkeypatch):
    """A function that NumPy cannot run is an error here, and so is a program."""

    def failed(key):
        raise AssertionError("not in NumPy") from None

    monkeypatch.delenv("JAXGLMM_COMPILE", raising=False)
    monkeypatch.setattr(hosted, "_seconds", type(hosted._seconds)())
    monkeypatch.setattr(hosted, "failed", failed)
    for name in ("LONGEST", "PAYS", "READS"):
        monkeypatch.setattr(hosted, name, 600.0)


def numbers_of(fit):
    found = [fit.criterion, *fit.coefficients, *fit.theta, *fit.se]
    found += list(fit.df_satterthwaite) if fit.family_name == "gaussian" else []
    return np.array(found, float)


def linear(data, formula):
    fit = jg.lmm(formula, jg.datasets.load(data))
    table = fit.coefficient_table("kenward-roger").to_numpy(float)
    cov = [x.ravel() for x in fit.ranef_cov.values()]
    return np.concatenate([numbers_of(fit), table.ravel(), *cov])


def generalised(formula, family, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = jg.glmm(formula, CBPP, family=family, method=method)
        return np.array([fit.criterion, *fit.coefficients, *fit.theta, *fit.se])


@pytest.mark.parametrize(("data", "formula"), LINEAR)
def test_linear_fits_run_without_a_program(nothing_compiles, data, formula):
    assert np.isfinite(linear(data, formula)).all()


@pytest.mark.parametrize(("formula", "family", "method"), GENERALISED)
def test_generalised_fits_run_without_a_program(
    nothing_compiles, formula, family, method
):
    assert np.isfinite(generalised(formula, family, method)).all()


# Programs that other tests compile as well: linear of every structure, and generalised
# ones that between them take every rule of differentiation.
@pytest.mark.slow
@pytest.mark.parametrize(("data", "formula"), LINEAR)
def test_linear_numbers_are_those_of_programs(monkeypatch, data, formula):
    here = linear(data, formula)
    monkeypatch.setenv("JAXGLMM_COMPILE", "always")
    there = linear(data, formula)
    np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 4, 7, 8, 10, 15])
def test_generalised_numbers_are_those_of_programs(monkeypatch, which):
    here = generalised(*GENERALISED[which])
    monkeypatch.setenv("JAXGLMM_COMPILE", "always")
    there = generalised(*GENERALISED[which])
    np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)


# When -------------------------------------------------------------------------------


@pytest.fixture
def programs(monkeypatch):
    """Programs made or read so far."""
    made = []
    before = Stored._first_call

    def first_call(self, *args):
        made.append(self)
        return before(self, *args)

    monkeypatch.setattr(Stored, "_first_call", first_call)
    monkeypatch.delenv("JAXGLMM_COMPILE", raising=False)
    return made


SLEEP = jg.datasets.load("sleepstudy")


def test_a_program_is_made_when_it_pays(monkeypatch, programs):
    some = SLEEP[SLEEP["Subject"].isin(SLEEP["Subject"].unique()[:9])]
    monkeypatch.setattr(hosted, "_seconds", type(hosted._seconds)())
    monkeypatch.setattr(hosted, "PAYS", 600.0)
    first = jg.lmm("Reaction ~ Days + (1 | Subject)", some)
    again = [first.refit(some["Reaction"]) for _ in range(5)]
    assert not programs
    monkeypatch.setattr(hosted, "PAYS", 0.0)
    last = first.refit(some["Reaction"])
    assert programs
    assert [f.criterion for f in again] == [first.criterion] * 5
    assert last.criterion == pytest.approx(first.criterion, rel=1e-13)


def test_what_takes_long_in_numpy_is_compiled(monkeypatch, programs):
    some = SLEEP[SLEEP["Subject"].isin(SLEEP["Subject"].unique()[:7])]
    expected = jg.lmm("Reaction ~ 1 + (1 | Subject)", some)
    monkeypatch.setattr(hosted, "_seconds", type(hosted._seconds)())
    monkeypatch.setattr(hosted, "LONGEST", -1.0)
    assert not programs
    found = jg.lmm("Reaction ~ 1 + (1 | Subject)", some)
    assert programs
    assert found.criterion == pytest.approx(expected.criterion, rel=1e-13)


def test_large_arguments_and_the_variable_ask_for_a_program(monkeypatch):
    key, small, large = object(), [np.zeros(3)], [np.zeros(hosted.MOST + 1)]
    monkeypatch.delenv("JAXGLMM_COMPILE", raising=False)
    assert hosted.suits(key, small)
    assert not hosted.suits(key, large)
    monkeypatch.setenv("JAXGLMM_COMPILE", "always")
    assert not hosted.suits(key, small)


# The functions ------------------------------------------------------------------------

POINTS = np.array([0.1, 0.7, 1.3, 2.9])


def mixed(x, y):
    """Every elementwise function that rows are made of."""
    a = jnp.exp(-x) * jnp.log(y + x) + jnp.sqrt(x * y) - jnp.log1p(x) / jnp.expm1(y)
    b = nn.sigmoid(a) + nn.softplus(x - y) + special.ndtr(x) * lax.erfc(y)
    c = jnp.where(x > 1.0, b * x, b - y) + jnp.tanh(x) ** 2 + jnp.logaddexp(x, 2 * y)
    d = jnp.abs(x - 1.0) + jnp.maximum(x, y) * jnp.minimum(x, 0.5) + jnp.clip(x, 0.2, 1)
    e = likelihoods.stirling_error(jnp.log(x)) + likelihoods.log_ndtr(x - 2 * y)
    return (
        c
        + d * 0.1
        + e
        + 1.0 / x
        + y**3
        + jnp.reciprocal(y)
        + jnp.tan(x / 5)
        + jnp.arctan2(x, y)
    )


def derivatives(jvp, x, y):
    one = np.ones_like(x)

    def first(z):
        return jvp(lambda t: mixed(t, y), (z,), (one,))[1]

    def second(z):
        return jvp(first, (z,), (one,))[1]

    def across(w):
        return jvp(lambda t: mixed(t, w), (x,), (one,))[1]

    third = jvp(second, (x,), (one,))
    return mixed(x, y), first(x), *third, jvp(across, (y,), (one,))[1]


def test_nested_derivatives_are_those_of_jax():
    x, y = POINTS, POINTS[::-1].copy() + 0.05
    with jax.enable_x64(True):
        there = derivatives(jax.jvp, device.asarray(x), device.asarray(y))
    with host.on_host():
        here = derivatives(arrays.jvp_rows, x, y)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_a_complex_step_goes_through_rows_and_matrices():
    rng = np.random.default_rng(3)
    A, v = rng.normal(size=(6, 6)), rng.normal(size=6)

    def function(x, cholesky, solve):
        M = A @ A.T + 6 * np.eye(6) + x[:, None] * x
        L = cholesky(M)
        return solve(L, x)

    def device_function(x):
        return function(
            x,
            device.linalg.cholesky,
            lambda L, b: device_scipy.linalg.solve_triangular(L, b, lower=True),
        )

    def host_function(x):
        return function(
            x,
            jnp.linalg.cholesky,
            lambda L, b: arrays.solve_triangular(L, b, lower=True),
        )

    with jax.enable_x64(True):
        _, there = jax.jvp(device_function, (device.asarray(v),), (np.ones(6),))
    with host.on_host():
        _, here = arrays.jvp(host_function, (v,), (np.ones(6),))
    np.testing.assert_allclose(here, there, rtol=1e-11)


def test_what_is_not_positive_definite_is_nan_and_no_exception():
    bad = np.array([[1.0, 2.0], [2.0, 1.0]])
    with host.on_host():
        assert np.isnan(jnp.linalg.cholesky(bad)).all()
        both = jnp.linalg.cholesky(np.stack([np.eye(2), bad]))
        assert (both[0] == np.eye(2)).all()
        assert np.isnan(both[1]).all()
        assert np.isnan(jnp.linalg.solve(np.zeros((2, 2)), np.ones(2))).all()
    assert not host.is_host()


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (8, 0), (0, 3), (5,)])
def test_triangular_systems_of_any_shape(shape, lower, trans):
    rng = np.random.default_rng(4)
    L, B = (
        rng.normal(size=(shape[0],) * 2) + 4 * np.eye(shape[0]),
        rng.normal(size=shape),
    )
    for turn in (1.0, 1.0 + 0.5j):
        A = np.tril(L * turn) if lower else np.triu(L * turn)
        with host.on_host():
            X = arrays.solve_triangular(L * turn, B, lower=lower, trans=trans)
        assert X.shape == B.shape
        np.testing.assert_allclose((A.T if trans else A) @ X, B, atol=1e-13)


def test_a_triangle_that_is_singular_is_nan():
    with host.on_host():
        X = arrays.solve_triangular(np.diag([1.0, 0.0]), np.ones(2), lower=True)
    assert np.isnan(X).all()


def test_updates_and_sums_by_index_are_those_of_jax():
    x, at = np.arange(5.0), np.array([1, 3, 1])
    values = np.array([1.0, 2.0, 4.0])
    there = (
        device.asarray(x).at[at].add(values),
        jax.ops.segment_sum(values, at, 5),
        device.asarray(x).at[at[:2]].set(values[:2]),
    )
    with host.on_host():
        here = (
            arrays.added(x, at, values),
            arrays.segment_sum(values, at, 5),
            arrays.put(x, at[:2], values[:2]),
        )
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b)
    assert (x == np.arange(5.0)).all()


def test_lanes_half_done_in_time_are_finished(monkeypatch):
    """To give way then would cost what is done, and more than what remains."""
    clock = [0.0]
    monkeypatch.setattr(host.time, "thread_time", lambda: clock[0])

    def one(x):
        clock[0] += 1.0
        host.go_on()
        return 2.0 * x

    with host.on_host(3.5):
        assert (lax.map(one, np.arange(6.0)) == 2.0 * np.arange(6.0)).all()
        with pytest.raises(host.TooLong):  # the time of what follows is as before
            host.go_on()
    with host.on_host(2.5), pytest.raises(host.TooLong):
        lax.map(one, np.arange(6.0))


def test_a_first_session_compiles_nothing(tmp_path):
    """Fits, summaries, a profile, Kenward-Roger, intervals and a bootstrap."""
    code = """
import json, jax
made = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: made.append(event)
    if event == "/jax/core/compile/backend_compile_duration" else None
)
import jaxglmm as jg
sleep, cbpp = jg.datasets.load("sleepstudy"), jg.datasets.load("cbpp")
for right in ("(1 | Subject)", "Days + (Days || Subject)", "C(Days) + (1 | Subject)"):
    jg.lmm("Reaction ~ " + right, sleep, reml=False).summary()
fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
fit.summary(ddf="kenward-roger")
fit.confint(method="profile")
fit.predict(sleep, interval="prediction")
fit.bootstrap(20)
formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
jg.glmm(formula, cbpp).summary()
jg.glmm("incidence ~ period + (1 | herd)", cbpp, family="nbinom2").summary()
print(json.dumps(len(made)))
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == 0
