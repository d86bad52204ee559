"""ArviZ: groups, names, netCDF, and its functions on what we export."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    az = pytest.importorskip("arviz")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # arviz's own, about its next version
]
OLD = int(az.__version__.split(".")[0]) == 0


@pytest.fixture(scope="module")
def fit():
    cbpp = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return jg.glmm(formula, cbpp, method="nested-laplace")


@pytest.fixture(scope="module")
def sleep():
    return jg.lmm(
        "Reaction ~ Days + (Days | Subject)",
        jg.datasets.load("sleepstudy"),
        method=jg.NUTS(draws=300, warmup=200),
    )


@pytest.fixture(scope="module")
def tree(sleep):
    return sleep.to_arviz()


def test_groups_and_names(tree, sleep):
    posterior = tree["posterior"]
    assert posterior["beta"].dims == ("chain", "draw", "term")
    assert posterior["beta"].shape == (4, 300, 2)
    assert list(posterior["beta"].coords["term"].values) == ["(Intercept)", "Days"]
    assert posterior["sd_Subject"].dims[-1] == "Subject_term"
    assert posterior["cor_Subject"].dims[-2:] == ("Subject_term", "Subject_term2")
    assert posterior["r_Subject"].dims == (
        "chain",
        "draw",
        "Subject",
        "Subject_term",
    )
    assert posterior["r_Subject"].coords["Subject"].values[0] == "308"
    assert posterior["sigma"].shape == (4, 300)
    own = sleep.posterior.effects("Subject")[305, 2, 1]
    assert float(posterior["r_Subject"][1, 5, 2, 1]) == own
    assert tree["log_likelihood"]["Reaction"].shape == (4, 300, 180)
    assert tree["posterior_predictive"]["Reaction"].shape == (4, 300, 180)
    np.testing.assert_array_equal(
        tree["observed_data"]["Reaction"].values, sleep.design.y
    )
    constants = tree["constant_data"]
    assert constants["X"].dims == ("obs", "term")
    assert int(constants["Subject_idx"].max()) == 17
    stats = tree["sample_stats"]
    for name in (
        "diverging",
        "acceptance_rate",
        "energy",
        "lp",
        "tree_depth",
        "n_steps",
        "step_size",
    ):
        assert stats[name].shape == (4, 300)
    prior = tree["prior"]
    assert prior["beta"].shape == (1, 1000, 2)
    assert prior["cor_Subject"].shape == (1, 1000, 2, 2)


def test_attributes(tree):
    attrs = tree["posterior"].attrs
    assert attrs["inference_library"] == "jaxglmm"
    assert attrs["formula"] == "Reaction ~ Days + (Days | Subject)"
    assert (attrs["family"], attrs["link"]) == ("gaussian", "identity")
    assert attrs["sampling_time"] > 0


def test_log_likelihoods_are_those_of_the_rows(fit):
    from scipy import stats

    d, draws = fit.design, fit.posterior.draws
    logs = fit.to_arviz(groups=("log_likelihood",))["log_likelihood"]
    (name,) = logs.data_vars
    s = 17
    eta = d.X @ draws.beta[s] + draws.effects["herd"][s, d.terms[0].codes, 0]
    expected = stats.binom.logpmf(d.y, d.trials, 1 / (1 + np.exp(-eta)))
    np.testing.assert_allclose(logs[name].values[0, s], expected, atol=1e-10)


@pytest.mark.parametrize("which", ["fit", "sleep"])
def test_netcdf(which, request, tmp_path):
    own = request.getfixturevalue(which)
    tree = own.to_arviz()
    path = str(tmp_path / "posterior.nc")
    tree.to_netcdf(path)
    back = az.from_netcdf(path)
    np.testing.assert_array_equal(
        back["posterior"]["beta"].values, tree["posterior"]["beta"].values
    )
    for group in ("log_likelihood", "observed_data", "sample_stats", "prior"):
        assert group in (back.groups() if OLD else back.children)
    assert back["posterior"].attrs["inference_library"] == "jaxglmm"


def test_summary(tree, sleep):
    table = az.summary(tree, var_names=["beta", "sd_Subject", "sigma"])
    assert len(table) == 5
    own = sleep.posterior.summary()
    mean = float(np.asarray(table["mean"], float)[1])
    assert mean == pytest.approx(own.loc["Days", "mean"], abs=0.01)
    if OLD:
        assert table.loc["beta[Days]", "ess_bulk"] == pytest.approx(
            own.loc["Days", "ess_bulk"], abs=1
        )


def test_loo_and_compare(fit):
    rows = az.loo(fit.to_arviz())
    own = fit.loo()
    elpd = rows.elpd_loo if OLD else rows.elpd
    # it shortens the smoothed tail by the chain's efficiency, which is one here
    assert float(elpd) == pytest.approx(own.elpd, abs=2e-3)
    herds = az.loo(fit.to_arviz(log_likelihood="herd"))
    elpd = herds.elpd_loo if OLD else herds.elpd
    assert float(elpd) == pytest.approx(fit.loo("herd").elpd, abs=2e-3)
    cbpp = jg.datasets.load("cbpp")
    null = jg.glmm(
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)",
        cbpp,
        method="nested-laplace",
    )
    table = az.compare(
        {
            "period": fit.to_arviz(log_likelihood="herd"),
            "null": null.to_arviz(log_likelihood="herd"),
        }
    )
    assert table.index[0] == "period"


def test_pictures(tree, fit):
    """They are drawn; what they show is looked at by people."""
    az.plot_trace(tree, var_names=["beta", "sigma"])
    az.plot_forest(tree, var_names=["r_Subject"], combined=True)
    if OLD:
        az.plot_ppc(tree, num_pp_samples=30)
        az.plot_khat(az.loo(fit.to_arviz(), pointwise=True))
        az.plot_energy(tree)
    else:
        az.plot_ppc_dist(tree)
        az.plot_khat(az.loo(fit.to_arviz(), pointwise=True))
        az.plot_energy(tree)


def test_some_groups_and_fewer_draws(sleep):
    tree = sleep.to_arviz(
        groups=("posterior", "posterior_predictive"), effects=False, draws=50
    )
    assert "r_Subject" not in tree["posterior"]
    assert tree["posterior_predictive"]["Reaction"].shape == (4, 50, 180)
    assert tree["posterior"]["beta"].shape == (4, 300, 2)
    assert "prior" not in (tree.groups() if OLD else tree.children)
    with pytest.raises(jg.NotApplicableError, match="'posteriors' unknown"):
        sleep.to_arviz(groups=("posteriors",))
    with pytest.raises(jg.NotApplicableError, match="300 draws"):
        sleep.to_arviz(draws=500)


def test_nested_factors_and_odd_names(rng):
    """Labels with a colon, numbers as levels, a response that is an expression."""
    a = np.repeat([1, 2, 3, 4, 5, 6], 8)
    b = np.tile(np.repeat([1, 2], 4), 6)
    y = np.exp(rng.normal(size=48) + 0.5 * a)
    fit = jg.lmm(
        "log(y) ~ 1 + (1 | a / b)",
        {"y": y, "a": a, "b": b},
        method=jg.MAP(draws=100),
    )
    tree = fit.to_arviz()
    names = set(tree["posterior"].data_vars)
    assert {"beta", "sigma"} < names
    assert sum(name.startswith("r_") for name in names) == 2
