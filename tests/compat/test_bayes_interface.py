"""Signatures, names, errors and tables of the Bayesian mixed GLM classes."""

import inspect
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compat.bayes_cases import case, design, model
from scipy import sparse

import jaxglmm as jg
from jaxglmm.compat import statsmodels as compat
from jaxglmm.compat.statsmodels import (
    BayesMixedGLMResults,
    BinomialBayesMixedGLM,
    MixedGLMResults,
    PoissonBayesMixedGLM,
)

DATA = Path(__file__).parent.parent / "data"


def read(name):
    return pd.read_csv(DATA / f"{name}.csv.gz")


def positional(function):
    kinds = inspect.signature(function).parameters.values()
    return [p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (
            BinomialBayesMixedGLM.__init__,
            "self endog exog exog_vc ident vcp_p fe_p fep_names vcp_names vc_names",
        ),
        (
            PoissonBayesMixedGLM.from_formula,
            "formula vc_formulas data vcp_p fe_p vcp_names vc_names",
        ),
        (BinomialBayesMixedGLM.fit, "self method minim_opts"),
        (BinomialBayesMixedGLM.fit_map, "self method minim_opts scale_fe rng"),
        (
            BinomialBayesMixedGLM.fit_vb,
            "self mean sd fit_method minim_opts scale_fe verbose rng",
        ),
        (BinomialBayesMixedGLM.logposterior, "self params"),
        (BinomialBayesMixedGLM.vb_elbo, "self vb_mean vb_sd"),
        (
            BinomialBayesMixedGLM.vb_elbo_grad_base,
            "self h tm tv fep_mean vcp_mean vc_mean fep_sd vcp_sd vc_sd",
        ),
        (BinomialBayesMixedGLM.predict, "self params exog linear"),
        (BayesMixedGLMResults.random_effects, "self term"),
        (BayesMixedGLMResults.predict, "self exog linear"),
    ],
)
def test_signatures(function, names):
    assert positional(function) == names.split()


def test_public_names():
    assert MixedGLMResults is BayesMixedGLMResults
    for name in compat.__all__:
        assert getattr(compat, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        compat.no_such  # noqa: B018


def test_attributes():
    m = model("sm_binomial_crossed")
    assert (m.k_fep, m.k_vcp, m.k_vc, m.nobs) == (2, 2, 22, 240)
    assert m.endog_names == "y"
    assert m.fep_names == ["FE_1", "FE_2"]
    assert m.exog_names == ["const", "x1"]
    assert m.vcp_names == ["VC_1", "VC_2"]
    assert m.names == ["FE_1", "FE_2", "VC_1", "VC_2"]
    assert m.vc_names is None
    assert (m.fe_p, m.vcp_p, m.rng, m.verbose) == (2.0, 1.0, 5, False)
    assert sparse.issparse(m.exog_vc)
    assert (m.exog_vc2 != m.exog_vc.multiply(m.exog_vc)).nnz == 0
    assert m.family.name == "binomial"
    with pytest.raises(AttributeError):
        m.ident = np.zeros(22)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"exog": np.ones((6, 1, 1))}, "'exog' must have one or two columns"),
        ({"exog_vc": np.ones((6, 3, 1))}, "'exog_vc' must have one or two columns"),
        ({"ident": np.zeros((3, 1))}, "ident must be a one-dimensional array"),
        ({"ident": [0, 0]}, "len(ident) should match the number of columns of exog_vc"),
        ({"vcp_names": ["a", "b"]}, "The lengths of vcp_names and ident should be"),
        ({"endog": [0, 1, 2, 0, 1, 2]}, "endog values must be 0 and 1, and not all"),
        ({"endog": np.ones(6)}, "endog values must be 0 and 1, and not all identical"),
        ({"endog": list("abcabc")}, "endog must hold numbers"),
        ({"exog": np.ones((5, 1))}, "exog has 5 rows, endog has 6"),
        ({"exog_vc": None}, "exog_vc is None"),
        ({"ident": None}, "ident is None"),
        ({"vcp_p": -1}, "vcp_p=-1 must be positive"),
        ({"fe_p": [1, 2, 3]}, "fe_p has 3 values"),
        ({"weights": [-1] * 6}, "weights must not be negative"),
        ({"exposure": [0] * 6}, "exposure must be positive"),
        ({"dispersion": 2}, "no dispersion parameter"),
        ({"exog": [np.nan] * 6}, "1 missing|6 missing"),
        ({"n_trials": 0}, "trials"),
    ],
)
def test_errors(change, text):
    y, X, Z, ident = design("sm_glmm_binomial_ex1")
    given = {"endog": y, "exog": X, "exog_vc": Z, "ident": ident, **change}
    with pytest.raises(ValueError, match=re.escape(text) if "|" not in text else text):
        BinomialBayesMixedGLM(**given)


def test_lengths_of_vectors():
    m = model("sm_binomial_crossed")
    with pytest.raises(ValueError, match="mean has incorrect length, 3 != 26"):
        m.fit_vb(mean=np.zeros(3))
    with pytest.raises(ValueError, match="sd has incorrect length, 2 != 26"):
        m.fit_vb(sd=np.ones(2))
    with pytest.raises(ValueError, match="params has incorrect length"):
        m.logposterior([0.0])


def test_array_likes():
    """Lists, a vector for exog, a frame, booleans."""
    y, X, Z, ident = design("sm_glmm_binomial_ex1")
    lists = BinomialBayesMixedGLM(
        list(y.astype(bool)), X[:, 1].tolist(), Z.toarray().tolist(), ident.tolist()
    )
    assert lists.k_fep == 1
    frame = BinomialBayesMixedGLM(
        pd.Series(y, name="hit"), pd.DataFrame(X, columns=["one", "x"]), Z, ident
    )
    assert frame.fep_names == ["one", "x"]
    assert frame.endog_names == "hit"
    assert frame.vcp_names == ["VC_1"]
    alias = BinomialBayesMixedGLM(y, X, Z, ident, vc_p=0.5)
    assert alias.vcp_p == 0.5


@pytest.mark.reference
def test_the_documented_example_runs():
    """Village intercepts and slopes, as a dict and as a list."""
    frame = read("sim_village")
    random = {"a": "0 + C(Village)", "b": "0 + C(Village)*year_cen"}
    m = BinomialBayesMixedGLM.from_formula("y ~ year_cen", random, frame)
    r = case("sm_binomial_village")
    assert m.fep_names == r["fep_names"]
    assert m.vcp_names == ["a", "b"]
    assert m.vc_names == r["vc_names"]
    point = r["points"][1]
    assert m.logposterior(point["params"]) == pytest.approx(
        point["logposterior"], rel=1e-12
    )
    listed = BinomialBayesMixedGLM.from_formula(
        "y ~ year_cen", list(random.values()), frame
    )
    assert listed.vcp_names == list(random.values())
    np.testing.assert_array_equal(listed.exog_vc.toarray(), m.exog_vc.toarray())
    assert m.fit_vb().cov_params().index[0] == "Intercept"


@pytest.mark.reference
def test_formulas_of_stored_cases():
    frame = read("sim_crossed")
    m = PoissonBayesMixedGLM.from_formula(
        "count ~ x", {"a": "0 + C(a)", "b": "0 + C(b)"}, frame
    )
    r = case("sm_poisson_crossed")
    assert m.fep_names == r["fep_names"]
    assert m.vc_names == r["vc_names"]
    assert m.endog_names == "count"
    stored = r["fit_vb"]
    assert m.fit_vb().fe_mean == pytest.approx(stored["fe_mean"], abs=1e-4)


def test_terms_of_lme4():
    frame = read("sim_crossed")
    m = PoissonBayesMixedGLM.from_formula("count ~ x + (1 | a) + (1 | b)", None, frame)
    assert m.vcp_names == ["a", "b"]
    assert m.fep_names == ["Intercept", "x"]
    assert m.vc_names[0] == "a[a01]"
    assert type(m.layout.rows).__name__ == "ArrowRows"
    slopes = PoissonBayesMixedGLM.from_formula("count ~ x + (x || a)", None, frame)
    assert slopes.vcp_names == ["a", "a.1:x"] or len(slopes.vcp_names) == 2
    with pytest.raises(jg.FormulaError, match="correlated"):
        PoissonBayesMixedGLM.from_formula("count ~ x + (x | a)", None, frame)
    with pytest.raises(jg.FormulaError, match="one place"):
        PoissonBayesMixedGLM.from_formula("count ~ x + (1 | a)", {"b": "0 + b"}, frame)
    with pytest.raises(jg.FormulaError, match="no variance components"):
        PoissonBayesMixedGLM.from_formula("count ~ x", None, frame)


def test_missing_rows_go_everywhere():
    frame = read("sim_crossed")
    frame.loc[3, "x"] = np.nan
    frame["w"] = 1.0
    frame.loc[5, "w"] = np.nan
    exposure = np.linspace(1, 2, len(frame))
    m = PoissonBayesMixedGLM.from_formula(
        "count ~ x", {"a": "0 + C(a)"}, frame, weights="w", exposure=exposure
    )
    assert m.nobs == len(frame) - 2
    kept = np.delete(exposure, [3, 5])
    np.testing.assert_allclose(m._data.offset, np.log(kept))
    with pytest.raises(jg.DataError, match="not a column"):
        PoissonBayesMixedGLM.from_formula(
            "count ~ x", {"a": "0 + C(a)"}, frame, offset="nothing"
        )


@pytest.fixture(scope="module")
def fits():
    frame = read("sim_crossed")
    vc = {"a": "0 + C(a)", "b": "0 + C(b)"}
    m = BinomialBayesMixedGLM.from_formula("y ~ x", vc, frame)
    return {
        "map": m.fit_map(),
        "vb": m.fit_vb(),
        "arrays": model("sm_binomial_crossed").fit_vb(),
    }


def test_results_members(fits):
    fit = fits["vb"]
    m = fit.model
    assert fit.params.shape == (26,)
    np.testing.assert_array_equal(
        np.concatenate([fit.fe_mean, fit.vcp_mean, fit.vc_mean]), fit.params
    )
    assert fit.sd_mean == pytest.approx(np.exp(fit.vcp_mean + fit.vcp_sd**2 / 2))
    low, high = fit.sd_interval(0.05).T
    assert np.log(high / low) == pytest.approx(2 * 1.959964 * fit.vcp_sd, rel=1e-6)
    np.testing.assert_allclose(
        fit.predict(linear=True), m.exog @ fit.fe_mean, rtol=1e-12
    )
    new = fit.predict(np.array([[1.0, 2.0]]))
    eta = fit.fe_mean @ [1.0, 2.0]
    assert new == pytest.approx([1 / (1 + np.exp(-eta))])
    with pytest.raises(ValueError, match="exog has 1 columns"):
        fit.predict([1.0])


def test_shapes_and_names_of_covariances(fits):
    series, frame = fits["vb"].cov_params(), fits["map"].cov_params()
    assert isinstance(series, pd.Series)
    assert isinstance(frame, pd.DataFrame)
    assert list(series.index) == list(frame.index) == fits["vb"].model.names
    assert isinstance(fits["arrays"].cov_params(), np.ndarray)
    assert fits["arrays"].cov_params().shape == (26,)
    full = fits["arrays"].cov_params(full=True)
    np.testing.assert_allclose(np.diag(full), fits["arrays"].cov_params())


def test_random_effects(fits):
    fit = fits["vb"]
    assert len(fit.random_effects()) == 22
    assert list(fit.random_effects("b").columns) == ["Mean", "SD"]
    pd.testing.assert_frame_equal(fit.random_effects(1), fit.random_effects("b"))
    assert fit.random_effects("b").index[0] == "C(b)[b01]"
    assert list(fits["arrays"].random_effects(0).index[:2]) == [0, 1]
    with pytest.raises(ValueError, match="there are a, b"):
        fit.random_effects("c")


def test_summary(fits):
    summary = fits["vb"].summary()
    text = str(summary)
    title, double, _, single, *rest = text.splitlines()
    assert title.strip() == "Binomial Mixed GLM Results"
    assert (set(double), set(single), len(double)) == ({"="}, {"-"}, len(single))
    assert rest[4] == double
    text = " ".join(text.split())  # notes are wrapped
    for column in ("Type", "Post. Mean", "Post. SD", "SD (LB)", "SD (UB)"):
        assert column in text
    assert "Parameter types are mean structure (M) and variance structure (V)" in text
    assert "Variance parameters are modeled as log standard deviations" in text
    assert "mean field is too narrow" in text
    assert "Evidence lower bound" in text
    table = summary.tables[0]
    assert list(table["Type"]) == ["M", "M", "V", "V"]
    fit = fits["vb"]
    assert table.loc["a", "SD"] == f"{np.exp(fit.vcp_mean[0]):.3f}"
    bound = np.exp(fit.vcp_mean[0] - 2 * fit.vcp_sd[0])
    assert table.loc["a", "SD (LB)"] == f"{bound:.3f}"
    narrow = fit.summary(alpha=0.5).tables[0]
    assert float(narrow.loc["a", "SD (LB)"]) > float(table.loc["a", "SD (LB)"])
    assert "<table>" in summary._repr_html_()
    assert r"\begin{tabular}" in summary.as_latex()
    assert "Log marginal likelihood" in str(fits["map"].summary())


def test_large_covariances_are_operators(fits, monkeypatch):
    from doors import results as _results

    whole = np.asarray(fits["map"].cov_params())
    monkeypatch.setattr(_results, "MOST_MATRIX", 10)
    operator = fits["map"].cov_params()
    v = np.arange(26.0)
    np.testing.assert_allclose(operator @ v, whole @ v, rtol=1e-8)


def test_counts_that_are_all_zero():
    """statsmodels' mode of the same data (0.15.0) is at -4.07: priors bound it."""
    rng = np.random.default_rng(0)
    g = np.arange(60) % 6
    data = pd.DataFrame({"y": np.zeros(60), "x": rng.normal(size=60), "g": g})
    made = PoissonBayesMixedGLM.from_formula("y ~ x", {"g": "0 + C(g)"}, data)
    fit = made.fit_map()
    assert np.isfinite(fit.params).all()
    assert -5 < fit.fe_mean[0] < -3
