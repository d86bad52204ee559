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


@pytest.fixture(scope="module")
def herds(fit):
    return fit.to_arviz()


def test_groups_and_names(tree, sleep):
    posterior = tree["posterior"]
    assert posterior["beta"].dims == ("chain", "draw", "term")
    assert posterior["beta"].shape == (4, 300, 2)
    assert list(posterior["beta"].coords["term"].values) == ["(Intercept)", "Days"]
    assert posterior["sd_Subject"].dims[-1] == "Subject_term"
    assert posterior["cor_Subject"].dims == ("chain", "draw", "Subject_pair")
    correlation = sleep.posterior.parameters["cor_Days.(Intercept)|Subject"]
    pair = posterior["cor_Subject"].sel(Subject_pair="Days.(Intercept)")
    np.testing.assert_array_equal(pair.values.ravel(), correlation)
    assert posterior["cor_Subject"].sizes["Subject_pair"] == 1
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
    assert prior["cor_Subject"].shape == (1, 1000, 1)


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


def test_loo_and_compare(fit, herds, tmp_path):
    rows = az.loo(herds)
    own = fit.loo()
    elpd = rows.elpd_loo if OLD else rows.elpd
    # 1.x sets the smoothed tail's length by the chain's efficiency, which is one here
    near = 2e-3 if OLD else 5e-3
    assert float(elpd) == pytest.approx(own.elpd, abs=near)
    herds = az.loo(fit.to_arviz(log_likelihood="herd"))
    elpd = herds.elpd_loo if OLD else herds.elpd
    assert float(elpd) == pytest.approx(fit.loo("herd").elpd, abs=near)
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
    (axes,) = {a.figure for a in _axes(az.plot_compare(table))}
    axes.savefig(tmp_path / "compare.png")


def _axes(made):
    """Matplotlib's axes of what a function of ArviZ returned."""
    if not OLD and hasattr(made, "viz"):  # a PlotCollection
        return list(made.viz["figure"].item().axes)
    # of a matrix of plots one triangle is taken away
    return [ax for ax in np.ravel(made) if ax is not None and ax.figure is not None]


def _texts(axes):
    """Titles and labels that are shown."""
    shown = []
    for ax in axes:
        shown += [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()]
        shown += [t.get_text() for t in (*ax.get_yticklabels(), *ax.get_xticklabels())]
        shown += [t.get_text() for t in ax.texts]
    return " ".join(shown)


def test_correlation_matrices_have_ones(sleep):
    R = sleep.posterior.draws.corr["Subject"]
    assert (R[:, [0, 1], [0, 1]] == 1).all()
    assert (np.abs(R) <= 1).all()


def test_every_number_of_a_summary_varies(tree):
    """One row a correlation, none that is constant."""
    table = az.summary(tree, var_names=["~r_Subject"])
    assert sum("cor_Subject" in name for name in table.index) == 1
    assert np.isfinite(np.asarray(table["r_hat"], float)).all()


def test_discrete_responses_are_whole_numbers(herds, fit, tree):
    (name,) = herds["observed_data"].data_vars
    seen = herds["observed_data"][name].values
    assert seen.dtype == np.int64
    np.testing.assert_array_equal(seen, fit.design.y)
    assert herds["posterior_predictive"][name].values.dtype == np.int64
    assert tree["observed_data"]["Reaction"].values.dtype == float


def test_what_is_known_is_no_draw():
    fit = jg.lmm(
        "Yield ~ 1 + (1 | Batch)",
        jg.datasets.load("Dyestuff"),
        method=jg.MAP(draws=100),
        priors=jg.Priors(dispersion=jg.Fixed(49.5)),
    )
    tree = fit.to_arviz(groups=("posterior", "prior", "constant_data"))
    assert "sigma" not in tree["posterior"]
    assert tree["constant_data"]["sigma"].values.item() == 49.5


# name -> a function of (NUTS on sleepstudy, importance sampling on cbpp), words in it
PICTURES = {
    "trace_of_all": (lambda sleep, _: az.plot_trace(sleep), ("cor_Subject", "sigma")),
    "posterior_of_correlations": (
        lambda sleep, _: (az.plot_posterior if OLD else az.plot_dist)(
            sleep, var_names=["cor_Subject"]
        ),
        ("cor_Subject",),
    ),
    "forest_of_correlations": (
        lambda sleep, _: az.plot_forest(sleep, var_names=["cor_Subject", "sigma"]),
        ("cor_Subject",),
    ),
    "pair_of_correlations": (
        lambda sleep, _: az.plot_pair(sleep, var_names=["cor_Subject", "sigma"]),
        ("cor_Subject",),
    ),
    "trace": (
        lambda sleep, _: az.plot_trace(sleep, var_names=["beta", "sigma"]),
        ("beta", "sigma"),
    ),
    "rank": (lambda sleep, _: az.plot_rank(sleep, var_names=["beta"]), ("beta",)),
    "forest": (
        lambda sleep, _: az.plot_forest(sleep, var_names=["r_Subject"], combined=True),
        ("308", "372"),
    ),
    "forest_of_chains": (
        lambda sleep, _: az.plot_forest(
            sleep, var_names=["sd_Subject", "sigma"], combined=False
        ),
        ("Days", "sigma"),
    ),
    "density": (
        lambda sleep, _: (az.plot_posterior if OLD else az.plot_dist)(
            sleep, var_names=["sd_Subject"]
        ),
        ("sd_Subject", "Days"),
    ),
    "pair": (
        lambda sleep, _: az.plot_pair(sleep, var_names=["sd_Subject", "sigma"]),
        ("sigma",),
    ),
    "ess": (lambda sleep, _: az.plot_ess(sleep, var_names=["beta"]), ("beta",)),
    "energy": (lambda sleep, _: az.plot_energy(sleep), ()),
    "predictive": (
        lambda sleep, _: (
            az.plot_ppc(sleep, num_pp_samples=30)
            if OLD
            else az.plot_ppc_dist(sleep, num_samples=30)
        ),
        ("Reaction",),
    ),
    "predictive_of_counts": (
        lambda _, herds: (
            az.plot_ppc(herds, num_pp_samples=30)
            if OLD
            else az.plot_ppc_dist(herds, num_samples=30)
        ),
        ("incidence",),
    ),
    "khat": (lambda _, herds: az.plot_khat(az.loo(herds, pointwise=True)), ()),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_pictures(name, tree, herds, tmp_path):
    """They are drawn, with our names; what they show is looked at by people."""
    import matplotlib.pyplot as plt

    draw, words = PICTURES[name]
    axes = _axes(draw(tree, herds))
    try:
        assert axes
        assert any(ax.has_data() for ax in axes)
        shown = _texts(axes)
        for word in words:
            assert word in shown
        axes[0].figure.savefig(tmp_path / f"{name}.png")
    finally:
        plt.close("all")


@pytest.mark.skipif(not OLD, reason="of ArviZ 0.x")
@pytest.mark.parametrize("draw", ["plot_density", "plot_violin"])
def test_older_pictures_of_correlations(draw, tree):
    import matplotlib.pyplot as plt

    names = ["beta", "sd_Subject", "cor_Subject", "sigma"]
    assert all(ax.has_data() for ax in _axes(getattr(az, draw)(tree, var_names=names)))
    plt.close("all")


def test_the_signature_names_the_options():
    import inspect

    from doors import PosteriorFit, to_arviz

    own = inspect.signature(PosteriorFit.to_arviz).parameters
    theirs = inspect.signature(to_arviz).parameters
    assert list(own)[1:] == list(theirs)[1:]
    assert [p.default for p in own.values()] == [p.default for p in theirs.values()]


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
    with pytest.raises(jg.NotApplicableError, match="from 1 to 300: draws"):
        sleep.to_arviz(draws=500)


@pytest.mark.parametrize("name", ["term", "obs", "draw", "chain", "beta", "X"])
def test_factors_called_as_dimensions_are(name, rng, tmp_path):
    data = {"y": rng.normal(size=48), "x": rng.normal(size=48), name: np.arange(48) % 6}
    fit = jg.lmm(f"y ~ x + (x | {name})", data, method=jg.MAP(draws=100))
    posterior = fit.to_arviz()["posterior"]
    (own,) = (v for v in posterior.data_vars if str(v).startswith("r_"))
    assert posterior[own].shape == (1, 100, 6, 2)
    assert posterior["beta"].dims == ("chain", "draw", "term")
    fit.to_arviz().to_netcdf(str(tmp_path / "posterior.nc"))


def test_levels_that_read_alike(rng):
    data = {"y": rng.normal(size=48), "g": np.array([1, "1", "a", "b"] * 12, object)}
    fit = jg.lmm("y ~ 1 + (1 | g)", data, method=jg.MAP(draws=100))
    levels = fit.to_arviz(groups=("posterior",))["posterior"]["g"].values.tolist()
    assert sorted(levels) == ["'1'", "'a'", "'b'", "1"]


@pytest.mark.parametrize("name", ["beta", "sigma", "X", "obs", "sd_g", "r_g", "lp"])
def test_responses_called_as_variables_are(name, rng):
    data = {name: rng.normal(size=48), "x": rng.normal(size=48), "g": np.arange(48) % 6}
    fit = jg.lmm(f"{name} ~ x + (x | g)", data, method=jg.MAP(draws=100))
    tree = fit.to_arviz()
    (own,) = tree["observed_data"].data_vars
    assert str(own).startswith(name)
    np.testing.assert_array_equal(tree["observed_data"][own].values, data[name])
    assert tree["posterior_predictive"][own].shape == (1, 100, 48)
    assert tree["constant_data"]["X"].dims == ("obs", "term")
    assert tree["posterior"]["sd_g"].dims == ("chain", "draw", "g_term")


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
