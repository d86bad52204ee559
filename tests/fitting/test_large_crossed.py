"""Large crossed factors: exactly by one matrix, or by probes; on small data."""

import numpy as np
import pandas as pd
import pytest
from doors import large_crossed, memory, probed_schur
from doors import moments_of_design as layouts

import jaxglmm as jg

FORMULAS = {
    "intercepts": "y ~ x + (1 | a) + (1 | b)",
    "slopes": "y ~ x + (1 + x | a) + (1 + x | b)",
    "three": "y ~ x + (1 | a) + (x || b) + (1 | c)",
}


def table(n=1500, seed=3):
    rng = np.random.default_rng(seed)
    a, b, c = (rng.integers(0, J, n) for J in (90, 60, 6))
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=90)[a] * 0.8 + rng.normal(size=60)[b] * 0.5
    y = y + (rng.normal(size=90)[a] * 0.4 + rng.normal(size=60)[b] * 0.3) * x
    y = y + rng.normal(size=6)[c] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b, "c": c})


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module", params=FORMULAS)
def fits(request, data):
    """The model on the device, by one matrix in place, and by probes."""
    weights = np.linspace(0.5, 2, len(data)) if request.param == "slopes" else None
    formula = FORMULAS[request.param]
    return [
        jg.lmm(formula, data, weights=weights, method=how)
        for how in (jg.REML(), jg.REML(probes=0), jg.REML(probes=64))
    ]


def test_one_matrix_in_place_is_the_same_fit(fits):
    device, exact, _ = fits
    assert exact.converged
    np.testing.assert_allclose(exact.criterion, device.criterion, rtol=1e-10)
    np.testing.assert_allclose(exact.theta, device.theta, atol=2e-5)
    np.testing.assert_allclose(exact.coef, device.coef, atol=1e-6)
    np.testing.assert_allclose(exact.se, device.se, rtol=1e-4)
    for here, there in zip(exact.estimates.b, device.estimates.b, strict=True):
        np.testing.assert_allclose(here, there, atol=1e-4)
    assert exact.plan.probes == 0
    assert "monte_carlo" not in exact.diagnostics


def test_probes_are_within_their_errors(fits):
    device, _, probed = fits
    assert probed.converged
    known = probed.diagnostics["monte_carlo"]
    there, here = (
        np.concatenate([f.varcorr[t.label].sd for t in f.design.terms])
        for f in (device, probed)
    )
    error = np.array(known["sd"])
    assert (error > 0).all()
    assert (np.abs(here - there) <= 4 * error + 1e-5).all()
    assert abs(probed.criterion - device.criterion) <= 4 * known["criterion"] + 1e-6
    np.testing.assert_allclose(probed.coef, device.coef, atol=1e-4)
    np.testing.assert_allclose(probed.se, device.se, rtol=1e-3)


def test_errors_say_how_far_probes_are_off(data):
    """Over other probes the criterion varies as one set of them says."""
    formula, seeds, module = FORMULAS["intercepts"], range(6), probed_schur
    off, said = [], []
    exact = jg.lmm(formula, data, method=jg.ML(probes=0)).criterion
    before = module.SEED
    try:
        for seed in seeds:
            module.SEED = seed
            fit = jg.lmm(formula, data, method=jg.ML(probes=32))
            off.append(fit.criterion - exact)
            said.append(fit.diagnostics["monte_carlo"]["criterion"])
    finally:
        module.SEED = before
    size = np.sqrt(np.mean(np.square(off)))
    assert 0.4 * np.mean(said) < size < 2.5 * np.mean(said)


def test_summary_and_plan_say_so(fits):
    probed = fits[2]
    text = str(probed.summary())
    assert "64 fixed random vectors" in " ".join(text.split())
    assert "64 fixed probes" in repr(probed.plan)
    assert "exact" in repr(fits[1].plan)
    assert fits[0].plan is None


def test_questions_of_one_matrix_are_those_of_the_device(data):
    formula = FORMULAS["intercepts"]
    device = jg.lmm(formula, data)
    exact = jg.lmm(formula, data, method=jg.REML(probes=0))
    for a, b in zip(exact.ranef_cov["b"], device.ranef_cov["b"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    new = data.iloc[:5]
    np.testing.assert_allclose(exact.predict(new), device.predict(new), atol=1e-5)


def test_by_size(data, monkeypatch):
    formula = FORMULAS["intercepts"]
    monkeypatch.setattr(large_crossed, "LARGE", 20)
    assert jg.lmm(formula, data).plan.probes == 0
    monkeypatch.setattr(large_crossed, "MOST_DENSE", 30)
    fit = jg.lmm(formula, data)
    assert fit.plan.probes == large_crossed.PROBES
    assert np.isfinite(fit.predict(data.iloc[:3])).all()
    with pytest.raises(jg.NotApplicableError, match="60 random effects"):
        _ = fit.ranef_cov


def test_streams_are_by_probes_beyond_the_dense_matrix(data, monkeypatch, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    data.to_parquet(path)
    formula = FORMULAS["intercepts"]
    monkeypatch.setattr(layouts, "MOST_DENSE", 30)
    monkeypatch.setattr(large_crossed, "MOST_DENSE", 30)
    streamed = jg.lmm(formula, path)
    whole = jg.lmm(formula, data, method=jg.REML(probes=64))
    np.testing.assert_allclose(streamed.theta, whole.theta, atol=1e-5)


def test_a_matrix_beyond_the_memory_is_refused(data, monkeypatch):
    monkeypatch.setattr(large_crossed, "available", lambda: 20_000.0)
    with pytest.raises(jg.ModelError, match=r"60 columns.*probes=64"):
        jg.lmm(FORMULAS["intercepts"], data, method=jg.REML(probes=0))
    assert callable(memory.available)


def test_probes_are_a_number():
    with pytest.raises(jg.ModelError, match="probes"):
        jg.REML(probes=-1)


def test_zero_variance(data):
    rng = np.random.default_rng(5)
    plain = data.assign(y=rng.normal(size=len(data)) + 0.8 * (data.a % 7))
    for probes in (0, 32):
        method = jg.REML(probes=probes)
        with pytest.warns(jg.SingularFitWarning):
            fit = jg.lmm(FORMULAS["intercepts"], plain, method=method)
        device_sd = fit.varcorr["b"].sd.iloc[0]
        assert fit.converged
        assert device_sd < 1e-2


def test_save_and_refit(fits, tmp_path):
    probed = fits[2]
    probed.save(tmp_path / "fit.jaxglmm")
    back = jg.load(tmp_path / "fit.jaxglmm")
    assert back.criterion == probed.criterion
    assert back.diagnostics["monte_carlo"] == probed.diagnostics["monte_carlo"]
