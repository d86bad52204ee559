"""Meta-analysis against metafor's answers and dense likelihoods."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, ModelError

# 13 trials of BCG against tuberculosis (Colditz et al. 1994): log relative risks
COUNTS = np.array(
    [
        *([4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209]),
        *([62, 13536, 248, 12619], [33, 5036, 47, 5761], [180, 1361, 372, 1079]),
        *([8, 2537, 10, 619], [505, 87886, 499, 87892], [29, 7470, 45, 7232]),
        *([17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338]),
        [27, 16886, 29, 17825],
    ]
)
BCG = pd.DataFrame(COUNTS, columns=["tpos", "tneg", "cpos", "cneg"])
BCG["ablat"] = [44, 55, 42, 52, 13, 44, 19, 13, 27, 42, 18, 33, 33]
BCG["trial"] = range(1, 14)
BCG["yi"] = np.log(BCG.tpos / (BCG.tpos + BCG.tneg)) - np.log(
    BCG.cpos / (BCG.cpos + BCG.cneg)
)
BCG["vi"] = (
    1 / BCG.tpos - 1 / (BCG.tpos + BCG.tneg) + 1 / BCG.cpos - 1 / (BCG.cpos + BCG.cneg)
)


@pytest.mark.parametrize(
    ("method", "tau2", "se_tau2", "log_likelihood"),
    [
        ("REML", 0.313243258136486, 0.166425752836973, -12.2023714154936),
        ("DL", 0.308760262862377, 0.229869992511026, -12.6823357814279),
    ],
)
def test_metafors_answers(method, tau2, se_tau2, log_likelihood):
    fit = jg.meta("yi ~ 1", BCG, "vi", method=method)
    assert fit.tau2 == pytest.approx(tau2, rel=1e-8)
    assert fit.se_tau2 == pytest.approx(se_tau2, rel=1e-8)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-9)
    assert pytest.approx(152.233008082373, rel=1e-9) == fit.Q


def test_knapp_and_hartung():
    fit = jg.meta("yi ~ 1 + (1 | trial)", BCG, "vi", test="knha")
    (row,) = fit.table.itertuples()
    assert row.std_error == pytest.approx(0.180791744092848, rel=1e-8)
    assert row.conf_low == pytest.approx(-1.10844371368555, rel=1e-8)
    assert row.p_value == pytest.approx(0.00192001509605729, rel=1e-7)
    assert pytest.approx((92.2213845212691, 12.8557582353093)) == (fit.I2, fit.H2)
    assert fit.predict().pred_upper[0] == pytest.approx(0.566952149879932, rel=1e-7)
    assert fit.blup()[0] == pytest.approx(-0.80023356197035, rel=1e-7)
    assert fit.bic == pytest.approx(29.3745561305631, rel=1e-8)
    assert "13 studies" in repr(fit)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_dense_likelihood(method):
    from scipy.optimize import minimize_scalar

    fit = jg.meta("yi ~ ablat", BCG, "vi", method=method)
    X, y, v = np.column_stack([np.ones(13), BCG.ablat]), BCG.yi, BCG.vi

    def criterion(tau2):
        W = np.diag(1 / (v + tau2))
        beta = np.linalg.solve(X.T @ W @ X, X.T @ W @ y)
        r = y - X @ beta
        out = np.sum(np.log(v + tau2)) + r @ W @ r
        if method == "REML":
            out += np.linalg.slogdet(X.T @ W @ X)[1] - np.linalg.slogdet(X.T @ X)[1]
            return out + 11 * np.log(2 * np.pi)
        return out + 13 * np.log(2 * np.pi)

    best = minimize_scalar(criterion, bounds=(0, 2), options={"xatol": 1e-12})
    assert -2 * fit.log_likelihood == pytest.approx(best.fun, abs=1e-9)
    assert fit.tau2 == pytest.approx(best.x, rel=1e-5)
    test = fit.moderators()
    assert test["QM"] == pytest.approx(fit.table.statistic["ablat"] ** 2)
    row = fit.predict([[1.0, 30.0]])
    assert row.fit[0] == pytest.approx(fit.coefficients @ [1.0, 30.0])


def test_moments():
    """Paule and Mandel's Q is its expectation; equal effects are weighted means."""
    fit = jg.meta("yi ~ 1", BCG, "vi", method="PM")
    w = 1 / (BCG.vi + fit.tau2)
    mean = np.sum(w * BCG.yi) / np.sum(w)
    assert np.sum(w * (BCG.yi - mean) ** 2) == pytest.approx(12, abs=1e-9)
    equal = jg.meta("yi ~ 1", BCG, "vi", method="EE")
    w = 1 / BCG.vi
    assert equal.coefficients.iloc[0] == pytest.approx(np.sum(w * BCG.yi) / w.sum())
    assert equal.tau2 == 0
    for method in ("HE", "SJ"):
        assert jg.meta("yi ~ 1", BCG, "vi", method=method).tau2 > 0


def test_no_heterogeneity():
    same = pd.DataFrame({"y": [0.1, 0.1, 0.11, 0.09], "v": [0.2, 0.1, 0.3, 0.2]})
    for method in ("REML", "ML", "DL", "HE", "PM"):
        assert jg.meta("y ~ 1", same, "v", method=method).tau2 == 0


def test_what_is_refused():
    for options, error, message in [
        ({"variance": None}, ModelError, "variance= is missing"),
        ({"method": "EB"}, ModelError, "is not one of REML"),
        ({"test": "x"}, ModelError, "is not one of z"),
        ({"variance": BCG.vi * (BCG.trial != 2)}, DataError, "are not positive"),
        ({"variance": np.eye(3)}, DataError, "a row and a column for each of the 13"),
        ({"variance": np.ones((13, 13))}, DataError, "is not positive definite"),
        ({"variance": np.eye(13) + np.eye(13, k=1)}, DataError, "not symmetric: 1 and"),
        ({"variance": "vj"}, DataError, "no such column"),
        ({"variance": 0 * BCG.vi}, DataError, "all sampling variances are zero"),
        ({"data": BCG[:1]}, ModelError, "1 study and 1 coefficient"),
        (
            {"formula": "yi ~ (1 | ablat)", "method": "DL"},
            ModelError,
            "one variance between independent studies",
        ),
        (
            {"formula": "yi ~ (1 | ablat)", "test": "knha"},
            ModelError,
            "take test='t'",
        ),
        ({"fixed": {"sigma": 1.0}}, ModelError, "sigma is what variance= says"),
        ({"fixed": {"tau": 1.0}}, ModelError, "there are '(Intercept)', 'sd_("),
    ]:
        given = {"formula": "yi ~ 1", "data": BCG, "variance": "vi"} | options
        with pytest.raises(error) as caught:
            jg.meta(**given)
        assert message in str(caught.value)
    with pytest.raises(ModelError, match="given moderators"):
        jg.meta("yi ~ ablat", BCG, "vi").predict()


@pytest.mark.parametrize("method", [["REML"], {}, 3, None])
def test_an_unknown_method(method):
    with pytest.raises(jg.ModelError, match="is not one of REML"):
        jg.meta(
            "y ~ 1", {"y": [0.1, 0.4, 0.2], "v": [1.0, 2.0, 1.0]}, "v", method=method
        )


# Berkey et al. 1998: two outcomes of five trials, with their sampling covariances
BERKEY = pd.DataFrame(
    {
        "trial": [1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
        "outcome": ["PD", "AL"] * 5,
        "yi": [0.47, -0.32, 0.2, -0.6, 0.4, -0.12, 0.26, -0.31, 0.56, -0.39],
    }
)
BLOCKS = [
    np.array([[a, b], [b, c]])
    for a, b, c in [
        (0.0075, 0.003, 0.0077),
        (0.0057, 0.0009, 0.0008),
        (0.0021, 0.0007, 0.0014),
        (0.0029, 0.0009, 0.0015),
        (0.0148, 0.0072, 0.0304),
    ]
]


def dense(fit, Sigma, V, reml):
    """-2 log-likelihood of the model by outcome, computed densely."""
    y, X = fit.design.y, fit.design.X
    same = BERKEY.trial.to_numpy()[:, None] == BERKEY.trial.to_numpy()
    z = pd.get_dummies(BERKEY.outcome).to_numpy(float)
    M = V + same * (z @ Sigma @ z.T)
    P = np.linalg.inv(M)
    beta = np.linalg.solve(X.T @ P @ X, X.T @ P @ y)
    r = y - X @ beta
    out = np.linalg.slogdet(M)[1] + r @ P @ r
    n = len(y) - X.shape[1] * reml
    out += n * np.log(2 * np.pi)
    if reml:
        out += np.linalg.slogdet(X.T @ P @ X)[1]
    return out, beta


@pytest.mark.parametrize("given", ["list", "matrix", "sparse"])
def test_outcomes_with_correlated_errors(given):
    """Metafor's UN; the likelihood, Q and errors by dense algebra."""
    from scipy import sparse
    from scipy.linalg import block_diag

    V = block_diag(*BLOCKS)
    kinds = {"list": BLOCKS, "matrix": V, "sparse": sparse.csr_matrix(V)}
    fit = jg.meta("yi ~ 0 + outcome + (0 + outcome | trial)", BERKEY, kinds[given])
    Sigma = fit.model.varcorr["trial"].cov.to_numpy()
    value, beta = dense(fit, Sigma, V, True)
    assert fit.model.criterion == pytest.approx(value, abs=1e-8)
    assert fit.coefficients.to_numpy() == pytest.approx(beta, abs=1e-8)
    assert [fit.tau2] == pytest.approx([np.trace(Sigma) / 2])
    near = [dense(fit, Sigma * s, V, True)[0] for s in (0.98, 1.02)]
    assert min(near) > value  # a minimum
    y, X = fit.design.y, fit.design.X
    P = np.linalg.inv(V)
    P = P - P @ X @ np.linalg.solve(X.T @ P @ X, X.T @ P)
    assert pytest.approx(y @ P @ y, rel=1e-9) == fit.Q
    assert fit.equal.typical == pytest.approx(8 / np.trace(P), rel=1e-9)
    assert fit.components.index.tolist() == [
        "sd_outcome[AL]|trial",
        "sd_outcome[PD]|trial",
        "cor_outcome[PD].outcome[AL]|trial",
    ]
    pred = fit.predict(pd.DataFrame({"outcome": ["AL", "PD"], "trial": [1, 1]}))
    wide = pred.pred_upper - pred.fit
    half = pred.upper - pred.fit
    assert (wide**2 - half**2).to_numpy() == pytest.approx(
        1.959963984540054**2 * np.diag(Sigma), rel=1e-9
    )


@pytest.mark.parametrize("structure", ["homcs", "cs", "ar1", "diag"])
def test_structures_of_outcomes(structure):
    fit = jg.meta(
        f"yi ~ 0 + outcome + {structure}(0 + outcome | trial)", BERKEY, BLOCKS
    )
    from scipy.linalg import block_diag

    Sigma = fit.model.varcorr["trial"].cov.to_numpy()
    value, _ = dense(fit, Sigma, block_diag(*BLOCKS), True)
    assert fit.model.criterion == pytest.approx(value, abs=1e-8)


def test_levels():
    """Schools in districts: shares of I^2 add up, and Q is that of independent rows."""
    rng = np.random.default_rng(3)
    n = 60
    district = np.repeat(np.arange(12), 5)
    y = 0.3 * rng.normal(size=12)[district] + 0.2 * rng.normal(size=n)
    v = rng.uniform(0.01, 0.05, n)
    data = pd.DataFrame({"d": district, "s": np.tile(np.arange(5), 12)})
    data["v"], data["y"] = v, y + np.sqrt(v) * rng.normal(size=n)
    fit = jg.meta("y ~ 1 + (1 | d/s)", data, "v", test="t")
    assert sum(fit.I2_by_level.values()) == pytest.approx(fit.I2)
    w = 1 / data.v
    mean = np.sum(w * data.y) / w.sum()
    assert np.sum(w * (data.y - mean) ** 2) == pytest.approx(fit.Q)
    assert fit.table.df.tolist() == [59.0]
    assert "s:d" in repr(fit)
    again = jg.lmm(
        "y ~ 1 + (1 | d/s)", data, residual=np.diag(data.v), fixed={"sigma": 1.0}
    )
    assert again.criterion == pytest.approx(fit.model.criterion, abs=1e-8)
    assert again.npar == 3


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e12, 1e300])
def test_any_unit(scale):
    """Effects in other units, variances in the square of these."""
    fit = jg.meta("yi ~ ablat", BCG, "vi")
    root = np.sqrt(scale)
    other = jg.meta("yi ~ ablat", BCG.assign(yi=BCG.yi * root, vi=BCG.vi * scale), "vi")
    assert other.tau2 / scale == pytest.approx(fit.tau2, rel=1e-6)
    assert other.table.statistic.to_numpy() == pytest.approx(
        fit.table.statistic.to_numpy(), rel=1e-6
    )
    assert pytest.approx((other.I2, other.Q), rel=1e-6) == (fit.I2, fit.Q)


@pytest.mark.parametrize("method", ["REML", "ML", "DL", "PM", "HE", "SJ", "EE"])
@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_variances_far_from_the_effects(method, scale):
    """Next to none: the effects' own variance; huge: equal effects."""
    with np.errstate(all="ignore"):
        fit = jg.meta("yi ~ 1", BCG.assign(vi=BCG.vi * scale), "vi", method=method)
    if scale < 1 and method not in ("EE", "SJ", "DL"):
        denominator = 13 if method == "ML" else 12
        assert fit.tau2 == pytest.approx(BCG.yi.var() * 12 / denominator, rel=1e-6)
        assert pytest.approx(100) == fit.I2
    if scale > 1 and method != "SJ":
        w = 1 / BCG.vi
        assert fit.tau2 == 0
        assert fit.coefficients.iloc[0] == pytest.approx(np.sum(w * BCG.yi) / w.sum())
    assert "Heterogeneity" in repr(fit)


def test_no_coefficients_and_arrays():
    fit = jg.meta("yi ~ 0", BCG, "vi")
    assert len(fit.table) == 0
    assert pytest.approx(np.sum(BCG.yi**2 / BCG.vi)) == fit.Q
    assert fit.predict().fit.tolist() == [0.0]
    with pytest.raises(ModelError, match="no coefficient"):
        fit.moderators()
    named = jg.meta("yi ~ 1", BCG, "vi")
    plain = jg.meta(BCG.yi.to_numpy(), variance=BCG.vi.to_numpy())
    assert plain.tau2 == pytest.approx(named.tau2, rel=1e-9)
    one = jg.meta("yi ~ 1", BCG[:1], "vi", method="EE")
    assert one.table.std_error.tolist() == pytest.approx([np.sqrt(BCG.vi[0])])
    assert one.I2 == 0


def test_held_and_begun():
    at = jg.meta("yi ~ 1", BCG, "vi", fixed={"sd_(Intercept)|study": 0.5})
    assert at.tau2 == pytest.approx(0.25)
    assert np.isnan(at.se_tau2)
    assert at.npar == 1
    free = jg.meta("yi ~ ablat", BCG, "vi")
    far = jg.meta("yi ~ ablat", BCG, "vi", start={"sd_(Intercept)|study": 5.0})
    assert far.tau2 == pytest.approx(free.tau2, rel=1e-5)
    none = jg.meta("yi ~ ablat", BCG, "vi", fixed={"ablat": 0.0})
    mean = jg.meta("yi ~ 1", BCG, "vi")
    assert none.tau2 == pytest.approx(mean.tau2, rel=1e-6)
    assert np.isnan(none.table.std_error["ablat"])


def test_figures():
    fit = jg.meta("yi ~ 1", BCG, "vi")
    ax = fit.plot.forest(labels=[f"T{i}" for i in range(13)], sort="effect")
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[0] == "mean"
    assert names[-1] == f"T{int(BCG.yi.argmax())}"
    ax = fit.plot.funnel()
    assert ax.get_ylim()[0] > ax.get_ylim()[1] == 0
    assert jg.meta("yi ~ ablat", BCG, "vi").plot.forest() is not None
    with pytest.raises(jg.NotApplicableError, match="2 names for 13"):
        fit.plot.forest(labels=["a", "b"])


def test_missing_variances_are_called_so_and_fits_say_that_they_converged():
    data = BCG.astype({"vi": float}).copy()
    data.loc[2, "vi"] = np.nan
    with pytest.warns(jg.MissingRowsWarning, match=r"variances \(1\)"):
        found = jg.meta("yi ~ 1", data, "vi")
    assert found.nobs == 12
    assert found.converged is True
    assert jg.meta("yi ~ 1", BCG, "vi", method="DL").converged is True
