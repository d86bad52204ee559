"""Generalised models with large crossed factors, by probes; on small data."""

import numpy as np
import pandas as pd
import pytest
from doors import large_generalised

import jaxglmm as jg

CASES = {
    "intercepts": ("y ~ x + (1 | a) + (1 | b)", "binomial", {}),
    "slopes": ("y ~ x + (1 + x | a) + (1 + x | b)", "poisson", {"weights": "w"}),
    "three": ("y ~ x + (1 | a) + (x || b) + (1 | c)", "poisson", {"offset": "o"}),
    "probit": ("y ~ x + (1 | a) + (1 | b)", jg.Binomial(link="probit"), {}),
    "dispersion": ("y ~ x + (1 | a) + (1 | b)", "nbinom2", {}),
}
J = (90, 60, 6)


def table(counts, n=1500, seed=3):
    rng = np.random.default_rng(seed)
    a, b, c = (rng.integers(0, k, n) for k in J)
    x = rng.normal(size=n)
    eta = 0.3 + 0.5 * x + (rng.normal(size=90) * 0.8)[a] + (rng.normal(size=60) / 2)[b]
    eta = eta + ((rng.normal(size=90) * 0.3)[a] + (rng.normal(size=60) * 0.2)[b]) * x
    eta = eta + (rng.normal(size=6) * 0.4)[c]
    if counts:
        y = rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, n))
    else:
        y = (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int)
    w = rng.integers(1, 3, n).astype(float)
    return pd.DataFrame(
        {"y": y, "x": x, "a": a, "b": b, "c": c, "w": w, "o": 0.1 * np.sin(a + b)}
    )


@pytest.fixture(scope="module", params=CASES)
def fits(request):
    """The data, and the model by a dense matrix and by probes."""
    formula, family, more = CASES[request.param]
    data = table(family in ("poisson", "nbinom2"))
    how = {"family": family} | {k: data[v] for k, v in more.items()}
    exact = jg.glmm(formula, data, **how)
    return data, exact, jg.glmm(formula, data, method=jg.Laplace(probes=64), **how)


def sds(fit):
    return np.concatenate([fit.varcorr[t.label].sd for t in fit.design.terms])


def test_probes_are_within_their_errors(fits):
    _, exact, probed = fits
    assert probed.converged
    known = probed.diagnostics["monte_carlo"]
    error = np.array(known["sd"])
    assert (error > 0).all()
    assert (np.abs(sds(probed) - sds(exact)) <= 4 * error + 2e-6).all()
    assert abs(probed.criterion - exact.criterion) <= 4 * known["criterion"] + 1e-6
    apart = np.abs(probed.coef - exact.coef)
    assert (apart <= 4 * np.array(known["coef"]) + 2e-6).all()
    np.testing.assert_allclose(probed.se, exact.se, rtol=2e-3)


def test_questions_without_a_matrix(fits):
    data, exact, probed = fits
    for here, there in zip(probed.estimates.b, exact.estimates.b, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)
    np.testing.assert_allclose(probed.fitted_values, exact.fitted_values, rtol=5e-3)
    new = data.iloc[:5]
    rest = {"offset": data.o.iloc[:5]} if exact.design.offset is not None else {}
    np.testing.assert_allclose(
        probed.predict(new, **rest), exact.predict(new, **rest), rtol=5e-3
    )
    with pytest.raises(jg.NotApplicableError, match="dense matrix of the"):
        _ = probed.ranef_cov


def test_summary_and_plan_say_so(fits):
    probed = fits[2]
    text = " ".join(str(probed.summary()).split())
    assert "64 fixed random vectors" in text
    assert "jg.Laplace(probes=256)" in text
    assert "64 fixed probes" in repr(probed.plan)
    assert fits[1].plan is None


INTERCEPTS = CASES["intercepts"][0]


def test_by_size(monkeypatch):
    data = table(False)
    monkeypatch.setattr(large_generalised, "MOST_DENSE", 30)
    fit = jg.glmm(INTERCEPTS, data)
    assert fit.plan.probes == large_generalised.PROBES
    assert fit.plan.columns == 60
    exact = jg.glmm(INTERCEPTS, data, method=jg.Laplace(probes=0))
    assert exact.plan is None
    np.testing.assert_allclose(sds(fit), sds(exact), atol=1e-4)
    nested = data.assign(b=data.a % 45)
    assert jg.glmm(INTERCEPTS, nested).plan is None


def test_zero_variance():
    rng = np.random.default_rng(5)
    data = table(False)
    y = rng.uniform(size=len(data)) < 0.3 + 0.4 * (data.a % 2)
    plain = data.assign(y=y.astype(int))
    for formula in (INTERCEPTS, "y ~ x + (1 | b) + (1 | c)"):
        found = []
        for method in (jg.Laplace(probes=32), jg.Laplace()):
            with pytest.warns(jg.SingularFitWarning):
                found.append(jg.glmm(formula, plain, method=method))
        probed, exact = found
        assert probed.converged
        assert (sds(probed) == 0).sum() >= 1
        np.testing.assert_allclose(sds(probed), sds(exact), atol=1e-5)
        np.testing.assert_allclose(probed.criterion, exact.criterion, atol=1e-3)


def test_units_do_not_matter():
    data = table(False)
    plain = jg.glmm(INTERCEPTS, data, method=jg.Laplace(probes=32))
    moved = data.assign(x=1e6 * data.x + 3e6)
    far = jg.glmm(INTERCEPTS, moved, method=jg.Laplace(probes=32))
    np.testing.assert_allclose(far.criterion, plain.criterion, rtol=1e-9)
    np.testing.assert_allclose(1e6 * far.coef[1], plain.coef[1], rtol=1e-6)
    np.testing.assert_allclose(1e6 * far.se[1], plain.se[1], rtol=1e-4)


def test_files_refits_and_draws(tmp_path):
    fit = jg.glmm(INTERCEPTS, table(False), method=jg.Laplace(probes=16))
    fit.save(tmp_path / "fit.jaxglmm")
    back = jg.load(tmp_path / "fit.jaxglmm")
    assert back.criterion == fit.criterion
    assert back.diagnostics["monte_carlo"] == fit.diagnostics["monte_carlo"]
    assert repr(back.marginal) == "jg.Laplace(probes=16)"
    draws = fit.simulate(2, seed=1)
    assert draws.shape == (2, 1500)
    again = fit.refit(draws[0])
    assert again.converged
    assert np.abs(again.coef - fit.coef).max() < 6 * fit.se.max()


def test_what_probes_do_not_take():
    data = table(False)
    with pytest.raises(jg.ModelError, match="order=2"):
        jg.Laplace(order=2, probes=16)
    with pytest.raises(jg.ModelError, match="probes"):
        jg.Laplace(probes=-1)
    method = jg.Laplace(probes=16)
    with pytest.raises(jg.ModelError, match="leave them out"):
        jg.glmm(INTERCEPTS, data, method=method, fixed={"sd_(Intercept)|a": 0.5})
    with pytest.raises(jg.ModelError, match="observed"):
        jg.Laplace("expected", probes=16)


def test_probes_that_cannot_be_are_refused(tmp_path):
    """By REML, of several predictors, of data in batches: not in silence."""
    data = table(counts=True)
    formula, own = CASES["intercepts"][0], {"family": "poisson"}
    probes = jg.Laplace(probes=16)
    with pytest.raises(jg.ModelError, match="probes=16 of crossed factors"):
        jg.glmm(formula, data, method=probes, reml=True, **own)
    with pytest.raises(jg.ModelError, match="probes=16 of crossed factors"):
        jg.glmm(formula, data, method=probes, zi="~ 1", **own)
    path = tmp_path / "rows.parquet"
    data.to_parquet(path)
    with pytest.raises(jg.ModelError, match="rows in memory; of data"):
        jg.glmm(formula, path, method=probes, **own)


def test_a_constant_response():
    """Refused where it has no maximum; else no effects, as by a dense matrix."""
    data, formula = table(counts=False).assign(y=1), "y ~ x + (1 | a) + (1 | b)"
    with pytest.raises(jg.ModelError, match="all successes"):
        jg.glmm(formula, data, method=jg.Laplace(probes=16))
    data["y"] = 3
    own = {"family": "poisson"}
    with pytest.warns(jg.SingularFitWarning):
        exact = jg.glmm(formula, data, **own)
    with pytest.warns(jg.SingularFitWarning):
        probed = jg.glmm(formula, data, method=jg.Laplace(probes=16), **own)
    assert (sds(probed) == 0.0).all()
    np.testing.assert_allclose(probed.coef, exact.coef, atol=1e-6)
    assert abs(probed.criterion - exact.criterion) < 1e-6


def test_conditional_errors_are_refused():
    data = table(False)
    fit = jg.glmm(INTERCEPTS, data, method=jg.Laplace(probes=16))
    with pytest.raises(jg.NotApplicableError, match="60 random effects"):
        fit.predict(data.iloc[:3], se=True)
    with pytest.raises(jg.NotApplicableError, match="60 random effects"):
        _ = fit.certificate
    means = fit.predict(data.iloc[:3], re="population", se=True)
    assert np.isfinite(means.to_numpy()).all()
