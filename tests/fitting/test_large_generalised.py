"""Generalised models with large crossed factors, by probes; on small data."""

import numpy as np
import pandas as pd
import pytest

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
