"""ICC and R squared of generalised fits, by Nakagawa, Johnson and Schielzeth (2017).

Their formulas written out once more, with their recipe for the mean: lambda =
exp(b0 + v / 2) from a model with an intercept alone.
"""

import numpy as np
import pandas as pd
import pytest
from doors import generalised_variance_explained as explained
from postestimation import generalised_cases as cases
from scipy import special

import jaxglmm as jg
from jaxglmm import NotApplicableError


def by_hand(fit, row):
    """Marginal and conditional R squared from the variance of a row."""
    fixed = np.var(fit.design.X @ fit.coefficients, ddof=1)
    random = sum(c.cov.to_numpy().trace() for c in fit.varcorr.values())
    total = fixed + random + row
    return fixed / total, (fixed + random) / total


def check(found, expected):
    assert (found.marginal, found.conditional) == pytest.approx(expected, rel=1e-7)


def test_probabilities():
    fit = cases.cbpp()
    check(fit.r2(), by_hand(fit, np.pi**2 / 3))
    assert fit.r2().method == "theoretical"
    v = fit.varcorr["herd"].cov.iloc[0, 0]
    assert fit.icc["herd"] == pytest.approx(v / (v + np.pi**2 / 3))
    assert fit.icc() == pytest.approx(fit.icc["herd"])
    formula = cases.CBPP.replace("period", "1")
    null = jg.glmm(formula, jg.datasets.load("cbpp"))
    p = null.predict({"herd": ["1"]}, re="marginal")[0]
    check(fit.r2("observation"), by_hand(fit, 1 / (p * (1 - p))))
    row = 1 / (0.3 * 0.7)
    check(fit.r2("observation", mean=0.3), by_hand(fit, row))
    assert fit.icc(method="observation", mean=0.3) == pytest.approx(v / (v + row))


@pytest.mark.parametrize(
    ("link", "row"), [("probit", 1.0), ("cloglog", np.pi**2 / 6), ("cauchit", None)]
)
def test_links(link, row):
    fit = jg.glmm("y ~ x", cases.logit_data(), family=jg.Binomial(link=link))
    if row is None:  # the Cauchy distribution has no variance
        assert fit.r2().method == "observation"
        mean = cases.logit_data()["y"].mean()
        slope = fit.family.link.slope(fit.family.link.link(mean))
        row = mean * (1 - mean) / slope**2
    assert fit.r2().marginal == pytest.approx(by_hand(fit, row)[0], rel=1e-6)
    assert fit.icc == {}
    assert fit.icc() == 0.0


@pytest.fixture(scope="module")
def beetles():
    """Counts of two crossed factors, and the null model's mean."""
    rng = np.random.default_rng(777)
    g, h = np.repeat(np.arange(12), 12), np.tile(np.arange(6), 24)
    data = pd.DataFrame({"g": g.astype(str), "h": h.astype(str)})
    data["x"] = rng.normal(size=144)
    eta = (
        0.8 + 0.4 * data.x + 0.5 * rng.normal(size=12)[g] + 0.3 * rng.normal(size=6)[h]
    )
    data["y"] = rng.poisson(np.exp(eta))
    fit = jg.glmm("y ~ x + (1 | g) + (1 | h)", data, family="poisson")
    null = jg.glmm("y ~ 1 + (1 | g) + (1 | h)", data, family="poisson")
    v = sum(c.cov.iloc[0, 0] for c in null.varcorr.values())
    return fit, np.exp(null.coefficients[0] + v / 2)


def test_counts(beetles):
    fit, lam = beetles
    assert explained.null_mean(fit) == pytest.approx(lam, rel=1e-6)
    check(fit.r2(), by_hand(fit, np.log1p(1 / lam)))
    check(fit.r2("delta"), by_hand(fit, 1 / lam))
    check(fit.r2("trigamma"), by_hand(fit, special.polygamma(1, lam)))
    row = np.log1p(1 / lam)
    v = {name: c.cov.iloc[0, 0] for name, c in fit.varcorr.items()}
    total = sum(v.values()) + row
    assert dict(fit.icc) == pytest.approx({k: x / total for k, x in v.items()})
    assert fit.icc(by="g") == pytest.approx(v["g"] / total)
    assert fit.icc(by=True) == pytest.approx(dict(fit.icc))
    assert fit.icc(adjusted=False) == pytest.approx(
        fit.r2().conditional - fit.r2().marginal
    )
    parts = fit.icc(adjusted=False, by=True)
    assert sum(parts.values()) == pytest.approx(fit.icc(adjusted=False))
    with pytest.raises(NotApplicableError, match="'g', 'h'"):
        fit.icc(by="herd")


def test_gamma_needs_no_mean():
    fit = cases.gamma()
    phi = fit.dispersion
    check(fit.r2(), by_hand(fit, np.log1p(phi)))
    check(fit.r2("trigamma"), by_hand(fit, special.polygamma(1, 1 / phi)))


@pytest.mark.parametrize(
    ("family", "link", "phi", "row"),
    [
        ("NegativeBinomial", "log", [np.log(3.0)], np.log(1 + 1 / 2.0 + 1 / 3.0)),
        ("Poisson", "sqrt", [], 0.25),
        ("Gaussian", "identity", [np.log(2.0)], 4.0),
        ("Beta", "logit", [np.log(4.0)], 1 / (5 * 0.6 * 0.4)),
    ],
)
def test_other_families(family, link, phi, row):
    """The variance of a row at a mean that is given."""

    class Of:
        pass

    fit = Of()
    fit.family = getattr(jg, family)(link=link)
    fit.estimates = Of()
    fit.estimates.phi = np.array(phi)
    method = explained.methods(fit.family)[0]
    mean = 0.6 if family == "Beta" else 2.0
    assert explained.row_variance(fit, method, mean) == pytest.approx(row)


def test_a_factor_with_one_row_a_level_is_overdispersion():
    data = jg.datasets.load("cbpp").assign(row=np.arange(56))
    formula = cases.CBPP + " + (1 | row)"
    fit = jg.glmm(formula, data)
    herd, row = (fit.varcorr[k].cov.iloc[0, 0] for k in ("herd", "row"))
    assert set(fit.icc) == {"herd"}
    total = herd + row + np.pi**2 / 3
    assert fit.icc["herd"] == pytest.approx(herd / total)
    fixed = np.var(fit.design.X @ fit.coefficients, ddof=1)
    assert fit.r2().conditional == pytest.approx((fixed + herd) / (fixed + total))


def test_random_slopes_and_offsets():
    """Mean variances over the rows; the mean at the mean offset."""
    fit = cases.slopes()
    z = fit.design.terms[0].values
    v = np.einsum("ij,jk,ik->i", z, fit.varcorr["g"].cov.to_numpy(), z).mean()
    null = explained.null_estimates(fit)
    sigma = null.lam[0] @ null.lam[0].T
    at = null.beta[0] + np.mean(fit.design.offset)
    lam = np.exp(at + np.einsum("ij,jk,ik->i", z, sigma, z).mean() / 2)
    fixed = np.var(fit.design.X @ fit.coefficients, ddof=1)
    total = fixed + v + np.log1p(1 / lam)
    check(fit.r2(), (fixed / total, (fixed + v) / total))


def test_messages():
    fit = cases.slopes()
    with pytest.raises(NotApplicableError, match="'lognormal', 'delta', 'trigamma'"):
        fit.r2("theoretical")
    with pytest.raises(NotApplicableError, match="range of the response"):
        cases.cbpp().r2("observation", mean=0.0)
    with pytest.raises(NotApplicableError, match="finite number"):
        fit.r2(mean=np.nan)


def test_it_travels(tmp_path):
    import pickle

    fit = cases.cbpp()
    assert pickle.loads(pickle.dumps(fit.icc)) == fit.icc
    again = pickle.loads(pickle.dumps(fit))
    assert again.icc() == pytest.approx(fit.icc(), rel=1e-9)
    path = tmp_path / "fit.jaxglmm"
    fit.save(path)
    loaded = jg.load(path)
    np.testing.assert_allclose(
        loaded.predict(re="marginal", se=True),
        fit.predict(re="marginal", se=True),
        rtol=1e-6,
    )
    assert loaded.r2("observation") == fit.r2("observation")
