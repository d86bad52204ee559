"""What a Bayesian fit answers: tables, predictions, files, refusals, certificates."""

import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from posterior.conftest import FORMULA

import jaxglmm as jg


@pytest.fixture(scope="module")
def fit(cbpp_fit):
    return cbpp_fit(jg.NestedLaplace())


@pytest.fixture(scope="module")
def sleep_fit():
    return jg.lmm(
        "Reaction ~ Days + (Days | Subject)",
        jg.datasets.load("sleepstudy"),
        method="nested-laplace",
    )


def test_point_estimates_are_posterior_means(fit):
    m = fit.posterior.moments
    np.testing.assert_array_equal(fit.coefficients, m.beta)
    np.testing.assert_allclose(fit.se**2, np.diag(m.beta_cov))
    assert fit.varcorr["herd"].sd.iloc[0] == pytest.approx(m.sd["herd"][0])
    assert fit.ranef["herd"].shape == (15, 1)
    assert fit.ranef_sd["herd"].index.equals(fit.ranef["herd"].index)
    assert fit.ranef_cov["herd"].shape == (15, 1, 1)
    sds = np.sqrt(fit.ranef_cov["herd"][:, 0, 0])
    assert sds == pytest.approx(fit.ranef_sd["herd"].iloc[:, 0].to_numpy(), rel=0.05)
    assert fit.p_values is None
    assert fit.z_values is None
    assert "k-hat" in repr(fit)


def test_intervals_are_quantiles(fit):
    table = fit.confint(level=0.9)
    draws = fit.posterior.draws.beta[:, 0]
    assert table.loc["(Intercept)"].tolist() == pytest.approx(
        np.quantile(draws, [0.05, 0.95]).tolist()
    )
    assert "sd_(Intercept)|herd" in fit.confint(parameters="all").index
    assert fit.conf_int.shape == (4, 2)
    with pytest.raises(jg.NotApplicableError, match="method='posterior'"):
        fit.confint(method="wald")


def test_tidy(fit, sleep_fit):
    table = fit.tidy("all", conf_int=True)
    assert list(table.columns[:4]) == ["effect", "group", "level", "term"]
    assert (table["effect"] == "ran_vals").sum() == 15
    assert (table["conf_low"] < table["estimate"]).all()
    odds = fit.tidy(exponentiate=True)
    assert odds["estimate"].to_numpy() == pytest.approx(np.exp(fit.coefficients))
    pars = sleep_fit.tidy("ran_pars")
    assert list(pars["term"]) == [
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
        "sigma",
    ]
    assert list(pars["group"]) == ["Subject"] * 3 + ["Residual"]
    with pytest.raises(jg.NotApplicableError, match="'fixed', 'ran_pars'"):
        fit.tidy("some")


def test_summary_says_it_all(fit):
    summary = fit.summary()
    for text in (
        "Bayesian mixed model",
        "importance sampling of the marginal posterior",
        "sd_(Intercept)|herd",
        "Priors:",
        "LogNormal(mean=0, sd=1)",
        "Pareto k-hat",
        "Log marginal likelihood",
    ):
        assert text in summary
    assert summary.criteria["khat"] == fit.khat
    assert "<table>" in summary._repr_html_()
    assert "lower 80%" in fit.summary(level=0.8)


def test_frame_of_draws(fit, sleep_fit):
    frame = fit.posterior.frame()
    assert frame.shape == (4000, 5)
    assert (frame["(Intercept)"] < 0).mean() > 0.99
    assert "cor_Days.(Intercept)|Subject" in sleep_fit.posterior.frame()
    assert sleep_fit.sigma == pytest.approx(25.9, abs=0.5)
    assert fit.posterior.effects("herd").shape == (4000, 15, 1)
    with pytest.raises(jg.NotApplicableError, match="'cow': 'herd'"):
        fit.posterior.effects("cow")


def test_predictions_average_over_draws(fit):
    means = fit.predict()
    assert means == pytest.approx(fit.fitted_values, abs=1e-12)
    assert means.shape == (56,)
    new = pd.DataFrame({"period": ["1", "4"], "herd": ["1", "1"]})
    table = fit.predict(new, se=True, interval="confidence")
    assert list(table.columns) == ["fit", "se", "lower", "upper"]
    draws = fit.posterior.draws
    eta = draws.beta[:, 0] + draws.effects["herd"][:, 0, 0]
    p = 1 / (1 + np.exp(-eta))
    assert table["fit"].iloc[0] == pytest.approx(p.mean(), abs=1e-12)
    assert table["lower"].iloc[0] == pytest.approx(np.quantile(p, 0.025), abs=1e-12)
    population = fit.predict(new, re="population")
    assert population[0] == pytest.approx(
        (1 / (1 + np.exp(-draws.beta[:, 0]))).mean(), abs=1e-12
    )
    marginal = fit.predict(re="marginal")
    assert marginal[0] > population[0]  # the mean over herds is nearer to one half
    link = fit.predict(new, type="link")
    assert link[0] == pytest.approx(eta.mean(), abs=1e-12)


COLUMNS = ["estimate", "std_error", "conf_low", "conf_high", "p_direction"]


def _of_draws(x, level=0.95):
    tails = np.quantile(x, [(1 - level) / 2, (1 + level) / 2])
    return [x.mean(), x.std(ddof=1), *tails, max((x > 0).mean(), (x < 0).mean())]


def test_contrasts_and_slopes_are_made_of_draws(fit, sleep_fit):
    beta = fit.posterior.draws.beta
    eta = np.column_stack([beta[:, 0], beta[:, :1] + beta[:, 1:]])
    odds = fit.contrasts("period", type="link", ratio=True, level=0.9)
    assert list(odds.columns) == ["contrast", *COLUMNS]
    change = eta[:, 0] - eta[:, 2]
    expected = _of_draws(np.exp(change), 0.9)[:4] + _of_draws(change)[4:]
    np.testing.assert_allclose(odds.iloc[1, 1:].astype(float), expected)
    p = 1 / (1 + np.exp(-eta))
    risk = fit.contrasts("period").iloc[0, 1:].astype(float)
    np.testing.assert_allclose(risk, _of_draws(p[:, 0] - p[:, 1]))
    ratio = fit.contrasts("period", ratio=True).iloc[0, 1:].astype(float)
    np.testing.assert_allclose(ratio[:4], _of_draws(p[:, 0] / p[:, 1])[:4])
    slope = sleep_fit.slopes("Days")[COLUMNS].iloc[0]
    days = sleep_fit.posterior.draws.beta[:, 1]
    np.testing.assert_allclose(slope, _of_draws(days), rtol=1e-7)


def test_predictions_are_made_of_draws(fit, cbpp, monkeypatch):
    draws = fit.posterior.draws.beta
    p = 1 / (1 + np.exp(-draws @ fit.design.X.T))
    table = fit.predictions(by="period")
    assert list(table.columns) == ["period", *COLUMNS]
    for k, period in enumerate(table["period"]):
        own = p[:, (cbpp.period == period).to_numpy()].mean(axis=1)
        np.testing.assert_allclose(table.iloc[k, 1:].astype(float), _of_draws(own))
    assert fit.predictions().shape == (56, len(fit.design.variables) + 5)
    marginal = fit.predictions(by="period", re="marginal", type="link")
    population = fit.predictions(by="period", type="link")
    assert (marginal["estimate"] > population["estimate"]).all()  # towards one half
    from doors import posterior_predictive as predict

    monkeypatch.setattr(predict, "AT_ONCE", 5 * fit.posterior.n_draws)  # in pieces
    again = fit.predictions(by="period")
    pd.testing.assert_frame_equal(again, table, rtol=1e-12)
    with pytest.raises(jg.NotApplicableError, match="every draw"):
        fit.predictions()


def test_hypotheses_are_asked_of_draws(fit):
    beta = fit.posterior.draws.beta
    L = [{"period[T.2]": 1, "period[T.3]": -1}, "period[T.4]"]
    table = fit.test(L, rhs=[0.0, -1.0])
    assert table.index.tolist() == ["period[T.2] - period[T.3]", "period[T.4]"]
    np.testing.assert_allclose(table.iloc[0], _of_draws(beta[:, 1] - beta[:, 2]))
    np.testing.assert_allclose(table.iloc[1], _of_draws(beta[:, 3] + 1))


@pytest.mark.filterwarnings("ignore::jaxglmm.RankDeficientWarning")
def test_what_cannot_be_told_is_nan_in_a_posterior(cbpp):
    data = cbpp.assign(big=np.where(cbpp["size"] > 14, "big", "small"))
    data = data[(data.period != "2") | (data.big != "big")]
    left = "cbind(incidence, size - incidence)"
    fit = jg.glmm(f"{left} ~ period * big + (1 | herd)", data, method="map")
    with pytest.warns(jg.NotEstimableWarning, match="1 of 1 contrasts is not"):
        assert fit.contrasts("big").iloc[0, 1:].isna().all()
    with pytest.warns(jg.NotEstimableWarning, match="3 of 6 contrasts are not"):
        periods = fit.contrasts("period", type="link")
    assert periods["estimate"].isna().sum() == 3
    new = {"period": ["2", "3"], "big": ["big", "big"]}
    with pytest.warns(jg.NotEstimableWarning, match="1 of 2 rows"):
        found = fit.predict(new, re="population", interval="confidence")
    assert found.isna().all(axis=1).tolist() == [True, False]


def test_prediction_intervals_hold_the_data(fit, sleep_fit):
    """Ninety per cent intervals of the fit's own rows hold about ninety."""
    own = sleep_fit.predict(interval="prediction", level=0.9)
    y = sleep_fit.design.y
    inside = (own["lower"].to_numpy() <= y) & (y <= own["upper"].to_numpy())
    assert 0.86 < inside.mean() < 0.98
    counts = fit.predict(interval="prediction", level=0.9)
    share = fit.design.y / fit.design.trials
    inside = (counts["lower"] <= share) & (share <= counts["upper"])
    assert inside.mean() > 0.9


def test_new_levels_are_drawn_from_their_distribution(sleep_fit):
    new = pd.DataFrame({"Days": [5.0, 5.0], "Subject": ["308", "new"]})
    with pytest.warns(jg.NewLevelsWarning):
        table = sleep_fit.predict(new, se=True)
    known, unknown = table["se"]
    assert unknown > 3 * known
    with pytest.raises(jg.DataError, match="new"):
        sleep_fit.predict(new, new_levels="error")


def test_simulated_data_follow_the_posterior_predictive(fit):
    y = fit.simulate(2000, seed=1, re="conditional")
    assert y.shape == (2000, 56)
    assert (y <= fit.design.trials).all()
    np.testing.assert_allclose(
        y.mean(0), fit.design.trials * fit.fitted_values, atol=0.35
    )
    fresh = fit.simulate(500, seed=1)
    assert fresh.std(0).mean() > y.std(0).mean()
    np.testing.assert_array_equal(fit.simulate(3, seed=5), fit.simulate(3, seed=5))


def test_files_and_pickles(fit, sleep_fit, tmp_path):
    for own in (fit, sleep_fit):
        own.save(tmp_path / "fit.jaxglmm")
        for back in (
            jg.load(tmp_path / "fit.jaxglmm"),
            pickle.loads(pickle.dumps(own)),
        ):
            assert type(back) is type(own)
            assert back.summary() == own.summary()
            np.testing.assert_array_equal(back.posterior.draws.x, own.posterior.draws.x)
            assert back.priors.table() == own.priors.table()
            assert back.bayes == own.bayes
            np.testing.assert_allclose(back.predict(), own.predict())


def test_priors_survive_a_file(tmp_path, cbpp):
    priors = jg.Priors(
        coefficients={"period[T.2]": jg.Normal(0, np.inf)},
        sd={"herd": jg.Exponential.tail(1)},
    )
    fit = jg.glmm(FORMULA, cbpp, method=jg.NestedLaplace(draws=4000), priors=priors)
    fit.save(tmp_path / "fit.jaxglmm")
    back = jg.load(tmp_path / "fit.jaxglmm")
    assert str(back.priors) == str(fit.priors)


def test_refit_keeps_method_and_priors(fit):
    again = fit.refit(fit.design.y)
    assert again.coefficients == pytest.approx(fit.coefficients, abs=1e-10)
    other = fit.refit(np.minimum(fit.design.y + 1, fit.design.trials))
    assert other.coefficients[0] > fit.coefficients[0]


def test_what_belongs_to_likelihood_is_refused(fit, cbpp):
    for call, text in (
        (fit.profile, "marginals"),
        (fit.bootstrap, "draws"),
        (lambda: fit.compare(fit), "log_evidence"),
        (fit.anova, "contrasts"),
        (lambda: fit.contrasts("period", adjust="tukey"), "p-values"),
    ):
        with pytest.raises(jg.NotApplicableError, match=text):
            call()
    ml = jg.glmm(FORMULA, cbpp)
    for fits, text in (((fit, fit), "log_evidence"), ((ml, fit), "model2 .*posterior")):
        with pytest.raises(jg.ComparisonError, match=text):
            jg.anova(*fits)
    assert np.isnan([fit.aic, fit.bic]).all()
    undefined = {"aic", "bic", "log_likelihood", "criterion", "deviance", "df_resid"}
    assert not undefined & set(fit.glance().columns)
    assert fit.glance()["log_evidence"].iloc[0] == fit.log_evidence
    assert fit.in_words().startswith("log marginal likelihood")
    assert ml.khat is None
    for call in (lambda: ml.posterior, ml.to_arviz):
        with pytest.raises(jg.NotApplicableError, match="nested-laplace"):
            call()


def test_leave_one_out(fit):
    rows, herds = fit.loo(), fit.loo("herd")
    assert len(rows.khat) == 56
    assert len(herds.khat) == 15
    assert herds.khat.max() < rows.khat.max()
    assert "whole groups" in str(rows)
    assert rows.elpd == pytest.approx(-99.3, abs=1.5)
    with pytest.raises(jg.NotApplicableError, match="'row' or a grouping factor"):
        fit.loo("cow")


def test_group_likelihoods_by_brute_force(fit):
    """log p(y_g | parameters) by adaptive quadrature, at a few draws."""
    from doors import group_log_likelihood
    from scipy import integrate, stats

    found = group_log_likelihood(fit, "herd")
    draws, d = fit.posterior.draws, fit.design
    codes = d.terms[0].codes
    for s in (0, 1000, 3999):
        beta, sd = draws.beta[s], draws.sd["herd"][s, 0]
        for g in (0, 7):
            rows = codes == g

            def f(v, rows=rows, beta=beta, sd=sd):
                p = 1 / (1 + np.exp(-(d.X[rows] @ beta + sd * v)))
                logs = stats.binom.logpmf(d.y[rows], d.trials[rows], p).sum()
                return np.exp(logs) * stats.norm.pdf(v)

            exact = np.log(integrate.quad(f, -8, 8, epsabs=1e-13)[0])
            assert found[s, g] == pytest.approx(exact, abs=2e-3)


def test_certificates_of_maximum_likelihood(cbpp):
    ml = jg.glmm(FORMULA, cbpp)
    certificate = ml.certificate
    assert certificate.verdict == "trust"
    gap = certificate["likelihood"].value
    assert gap == pytest.approx(-91.9838 - -92.0263, abs=1e-3)
    assert "15-node" in str(certificate)
    sleep = jg.lmm("Reaction ~ Days + (1 | Subject)", jg.datasets.load("sleepstudy"))
    assert sleep.certificate.what == "Exact likelihood"
    assert "<pre>" in certificate._repr_html_()


def test_a_certificate_by_importance_sampling(rng):
    """Two factors: log p(y) by importance sampling of u, against 2-d quadrature."""
    from doors import importance_corrected

    a = np.array(["1", "1", "2", "2"] * 2)
    b = np.array(["1", "2"] * 4)
    y = np.array([1, 0, 1, 1, 0, 0, 1, 1])
    data = {"y": y, "a": a, "b": b}
    fit = jg.glmm(
        "y ~ 1 + (1 | a) + (1 | b)",
        data,
        method=jg.MAP(draws=64),
        priors=jg.Priors(sd=jg.HalfNormal(1)),
    )
    problem = fit.density.posterior.problem
    psi = np.array([0.4, 0.9, 0.7])
    from doors import mode_at

    with jax.enable_x64(True):
        u = mode_at(problem, psi)
    laplace, corrected, khat, error = importance_corrected(problem, psi, u)
    z, w = np.polynomial.hermite_e.hermegauss(30)
    w = w / w.sum()
    # at most two levels a factor: four effects, by product quadrature
    grid = np.stack(np.meshgrid(z, z, z, z, indexing="ij"), -1).reshape(-1, 4)
    weight = np.prod(np.stack(np.meshgrid(w, w, w, w, indexing="ij"), -1), -1).ravel()
    beta = fit.density.R_inverse[0, 0] * psi[0]
    eta = beta + 0.0
    logs = 0.0
    first = fit.density.factors[0].name
    sds = {first: psi[1], ({"a", "b"} - {first}).pop(): psi[2]}
    for i in range(8):
        ga, gb = int(a[i]) - 1, int(b[i]) - 1
        eta = beta + sds["a"] * grid[:, ga] + sds["b"] * grid[:, 2 + gb]
        logs = logs - np.logaddexp(0, -eta if y[i] else eta)
    exact = np.log(np.sum(weight * np.exp(logs)))
    assert abs(corrected - exact) < 5 * error + 1e-3
    assert khat < 0.7
    assert abs(corrected - exact) < abs(laplace - exact) + 3 * error


@pytest.mark.mcmc
def test_certificate_of_chains(cbpp_fit):
    certificate = cbpp_fit(jg.NUTS(draws=800)).certificate
    names = {c.name for c in certificate.checks}
    assert {"rhat", "ess", "divergences", "bfmi", "integrator"} <= names
    assert certificate.verdict == "trust"
    short = cbpp_fit(jg.NUTS(draws=20, warmup=20))
    assert short.certificate.verdict != "trust"
    assert any("more draws" in text for text in short.certificate.advice)
