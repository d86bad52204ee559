"""Generalised models read in batches give the numbers of the same table in memory."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import UnboundedLikelihoodError, streaming_parts
from doors import streaming_searching as searching
from streaming_cases import written

import jaxglmm as jg
from jaxglmm import (
    DataError,
    DispersionWarning,
    ModelError,
    NotApplicableError,
    SeparationWarning,
    SingularFitWarning,
)

pytest.importorskip("pyarrow")


def rows(n=3000, J=60, seed=0):
    """Groups with text for names, a response of each family."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, J, n)
    x, f = rng.normal(5.0, 2.0, n), rng.choice(list("cab"), n)
    b = rng.normal(size=(J, 2)) @ np.array([[0.6, 0.1], [0.0, 0.2]])
    eta = -0.5 + 0.1 * x + 0.4 * (f == "b") + b[g, 0] + b[g, 1] * (x - 5)
    mu, m = np.exp(0.5 * eta), rng.integers(1, 9, n)
    columns = {
        "y": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
        "k": rng.binomial(m, 1 / (1 + np.exp(-eta))),
        "count": rng.poisson(mu),
        "over": rng.poisson(mu * rng.gamma(2.0, 0.5, n)),
        "size": mu * rng.gamma(3.0, 1 / 3, n),
        "m": m,
        "x": x,
        "f": f,
        "e": rng.uniform(-0.2, 0.2, n),
        "w": rng.integers(1, 4, n).astype(float),
        "g": np.array([f"s{i}" for i in g], object),
    }
    return pd.DataFrame(columns)


def assert_alike(outside, inside):
    """The numbers of two fits; a search stops within 1e-10 of -2 log-likelihood."""
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-8)
    assert np.allclose(outside.coef, inside.coef, rtol=0, atol=3e-5 * inside.se)
    assert np.allclose(outside.se, inside.se, rtol=1e-6)
    assert np.allclose(outside.estimates.phi, inside.estimates.phi, atol=1e-5)
    for one, two in zip(outside.varcorr.values(), inside.varcorr.values(), strict=True):
        assert np.allclose(one.sd, two.sd, rtol=1e-5, atol=1e-7)
    assert np.allclose(outside.ranef["g"], inside.ranef["g"], atol=1e-5)
    assert outside.ranef["g"].index.tolist() == inside.ranef["g"].index.tolist()
    assert outside.coefficient_names == inside.coefficient_names
    assert (outside.nobs, outside.ngroups) == (inside.nobs, inside.ngroups)


MODELS = [
    ("y ~ x + f + (x | g)", {}),
    ("y ~ x + (x || g)", {"weights": "w", "offset": "e"}),
    ("cbind(k, m - k) ~ x + (1 | g)", {"family": jg.Binomial(link="probit")}),
    ("k ~ f + (1 | g)", {"trials": "m"}),
    ("count ~ x + offset(e) + (1 | g)", {"family": "poisson"}),
    ("over ~ x + (1 | g)", {"family": "nbinom2"}),
    ("size ~ x + (0 + x | g)", {"family": jg.Gamma(link="log")}),
]


@pytest.mark.parametrize(("formula", "options"), MODELS, ids=[m for m, _ in MODELS])
def test_the_same_as_in_memory(tmp_path, formula, options):
    data = rows()
    inside = jg.glmm(formula, data, **options)
    outside = jg.glmm(formula, written(data, tmp_path / "d", 3), **options)
    assert_alike(outside, inside)
    assert outside.converged
    assert outside.plan.passes <= 9
    assert outside.family_name == inside.family_name


def test_however_many_parts_and_blocks(tmp_path, monkeypatch):
    data = rows(2000, 80)
    source = written(data, tmp_path / "d", 4)
    whole = jg.glmm("y ~ x + (1 | g)", source)
    monkeypatch.setattr(streaming_parts, "PART_ROWS", 300)
    monkeypatch.setattr(streaming_parts, "BLOCK", 256)
    many = jg.glmm("y ~ x + (1 | g)", source)
    assert many.criterion == pytest.approx(whole.criterion, abs=1e-8)
    assert np.allclose(many.coef, whole.coef, rtol=0, atol=1e-5 * whole.se)
    assert np.allclose(many.ranef["g"], whole.ranef["g"], atol=1e-6)


def test_equal_rows_are_joined_exactly(tmp_path):
    data = rows(2000, 20)[["k", "m", "f", "g", "y", "e"]].assign(m=4)
    data["k"] = data["k"].clip(upper=4)
    for formula, options in (
        ("y ~ f + (f | g)", {}),
        ("k ~ f + (1 | g)", {"trials": "m"}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inside = jg.glmm(formula, data, **options)
            outside = jg.glmm(formula, written(data, tmp_path / "d", 2), **options)
        assert outside.criterion == pytest.approx(inside.criterion, abs=1e-8)
        assert np.allclose(outside.se, inside.se, rtol=1e-5)


def test_questions_without_rows(tmp_path):
    data = rows()
    source = written(data, tmp_path / "d", 2)
    inside, outside = (jg.glmm("y ~ x + (1 | g)", s) for s in (data, source))
    fit = pickle.loads(pickle.dumps(outside))
    assert np.allclose(fit.confint(), inside.confint(), rtol=1e-5)
    assert "60" in str(fit.summary())
    new = data.head(20)
    assert np.allclose(fit.predict(new), inside.predict(new), atol=1e-6)
    assert fit.predict(source, to=tmp_path / "out.parquet") == len(data)
    means = pd.read_parquet(tmp_path / "out.parquet")
    assert np.allclose(means["fit"], inside.fitted_values, atol=1e-6)
    assert fit.ranef_to(tmp_path / "b.parquet") == 60
    assert fit.aic == pytest.approx(inside.aic, abs=1e-7)
    assert fit.separation is None
    assert fit.warnings == inside.warnings == ()
    asked = fit.resid, fit.simulate, fit.profile, fit.bootstrap
    by_name = (lambda: fit.ranef_cov, lambda: fit.certificate)
    slopes = jg.glmm("y ~ x + (x | g)", source)
    for question in (*asked, *by_name, slopes.profile, lambda: slopes.certificate):
        with pytest.raises(NotApplicableError, match="batches"):
            question()


def test_a_variance_of_zero(tmp_path):
    data = rows()
    data["y"] = np.random.default_rng(8).integers(0, 2, len(data))
    data["g"] = np.arange(len(data)) % 40
    source = written(data, tmp_path / "d", 2)
    with pytest.warns(SingularFitWarning):
        inside = jg.glmm("y ~ x + (1 | g)", data)
    with pytest.warns(SingularFitWarning):
        outside = jg.glmm("y ~ x + (1 | g)", source)
    assert inside.is_singular
    assert outside.is_singular
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-6)


def test_refusals_name_the_file(tmp_path):
    data = rows(600, 10)
    source = written(data.assign(y=data["y"].replace(1, 2)), tmp_path / "d", 2)
    with pytest.raises(DataError, match="part000"):
        jg.glmm("y ~ x + (1 | g)", source)
    with pytest.raises(ModelError, match="no random effects"):
        jg.glmm("count ~ x", source, family="poisson")
    with pytest.raises(ModelError, match="table in memory"):
        jg.glmm("count ~ x + (1 | g)", source, family="poisson", zi="~ 1")
    with pytest.raises(ModelError, match="all failures"):
        jg.glmm("z ~ x + (1 | g)", written(data.assign(z=0), tmp_path / "z", 1))


class Killed(BaseException):
    """What ends a run from outside."""


def test_a_killed_search_goes_on(tmp_path, monkeypatch):
    data = rows(2000)
    source, run = written(data, tmp_path / "d", 2), tmp_path / "run"
    evaluated, calls = searching.evaluated, []

    def counted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return evaluated(*args)

    monkeypatch.setattr(searching, "evaluated", counted)
    with pytest.raises(Killed):
        jg.glmm("y ~ x + (1 | g)", source, checkpoint=run)
    monkeypatch.setattr(searching, "evaluated", evaluated)
    monkeypatch.setattr(streaming_parts, "PartWriter", None)
    fit = jg.glmm("y ~ x + (1 | g)", source, checkpoint=run)
    assert_alike(fit, jg.glmm("y ~ x + (1 | g)", data))
    with pytest.raises(DataError, match="of another model"):
        jg.glmm("y ~ x + (1 | g)", source, family="poisson", checkpoint=run)
    for part in (run / "parts").iterdir():
        part.unlink()
    with pytest.raises(DataError, match="leave the folder alone"):
        jg.glmm("y ~ x + (1 | g)", source, checkpoint=run)


def test_quadrature_and_levels_of_all_sizes(tmp_path):
    data = rows(2500)
    data["g"] = np.where(data.index < 1500, "a", data["g"])
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | g)"
    for method in ("laplace", jg.AGQ(5)):
        inside = jg.glmm(formula, data, method=method)
        assert_alike(jg.glmm(formula, source, method=method), inside)


def test_tables_of_engines_and_missing_values(tmp_path):
    data = rows(1500, 30)
    data.loc[::50, "x"] = np.nan
    source = written(data, tmp_path / "d", 2)
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    several = [
        source,
        duckdb.read_parquet(str(source / "*.parquet")),
        polars.scan_parquet(source / "*.parquet"),
    ]
    formula = "count ~ x + (1 | g)"
    with pytest.warns(jg.MissingRowsWarning):
        inside = jg.glmm(formula, data, family="poisson")
    for own in several:
        with pytest.warns(jg.MissingRowsWarning, match="30 of 1500"):
            outside = jg.glmm(formula, own, family="poisson")
        assert_alike(outside, inside)


def test_a_file_that_vanishes_is_named(tmp_path, monkeypatch):
    data = rows(600, 10)
    source = written(data, tmp_path / "d", 2)
    deal = streaming_parts.PartWriter

    def vanished(parts):
        (source / "part001.parquet").unlink()
        return deal(parts)

    monkeypatch.setattr(streaming_parts, "PartWriter", vanished)
    with pytest.raises(DataError, match="part001"):
        jg.glmm("y ~ x + (1 | g)", source)


# What is told ------------------------------------------------------------------------


def told_rows():
    """Responses that a predictor parts, that a level does, and of no overdispersion."""
    rng = np.random.default_rng(2)
    n = 1200
    data = pd.DataFrame({"g": rng.integers(0, 40, n), "x": rng.normal(size=n)})
    data["f"] = rng.choice(list("abc"), n)
    data["parted"] = (data["x"] > 0).astype(int)
    data["never"] = ((data["f"] != "c") & (rng.uniform(size=n) < 0.4)).astype(int)
    data["ever"] = ((data["f"] == "c") | (rng.uniform(size=n) < 0.4)).astype(int)
    data["count"] = np.where(data["f"] == "b", 0, rng.poisson(2.0, n))
    data["under"] = rng.binomial(20, 0.5, n)
    data["size"] = rng.integers(1, 4, n)
    data["none"] = np.where(data["f"] == "b", 0, rng.binomial(data["size"], 0.5))
    data["h"] = rng.integers(0, 6, n)
    return data


def told(formula, data, **options):
    """Categories of the warnings, and the fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = jg.glmm(formula, data, **options)
    return fit, {w.category for w in caught}


@pytest.mark.parametrize(
    ("formula", "options", "infinite"),
    [
        ("parted ~ x + (1 | g)", {}, ("(Intercept)", "x")),
        ("ever ~ f + x + (1 | g)", {}, ("f[T.c]",)),
        ("never ~ f + (1 | g)", {}, ("f[T.c]",)),
        ("never ~ f + (1 | g) + (1 | h)", {}, ("f[T.c]",)),
        ("count ~ f + x + (1 | g)", {"family": "poisson"}, ("f[T.b]",)),
        ("cbind(none, size - none) ~ f + (1 | g)", {}, ("f[T.b]",)),
        ("never ~ x + (1 | g)", {}, None),
    ],
)
def test_separation_is_told(tmp_path, formula, options, infinite):
    data = told_rows()
    options = {"family": "binomial"} | options
    inside, said = told(formula, data, **options)
    outside, heard = told(formula, written(data, tmp_path / "d", 3), **options)
    assert (SeparationWarning in heard) == (SeparationWarning in said)
    assert (SeparationWarning in heard) == (infinite is not None)
    if infinite is None:
        assert outside.separation is inside.separation is None
        return
    assert outside.separation.coefficients == inside.separation.coefficients == infinite
    assert len(outside.separation.rows) == len(inside.separation.rows)
    assert outside.separation.zeros == inside.separation.zeros
    assert any("Separation" in text for text in outside.warnings)


@pytest.mark.parametrize("family", ["nbinom2", "nbinom1"])
def test_dispersion_at_its_limit_is_told(tmp_path, family):
    data, formula = told_rows(), "under ~ x + (1 | g)"
    source = written(data, tmp_path / "d", 3)
    (inside, said), (outside, heard) = (
        told(formula, rows, family=family) for rows in (data, source)
    )
    assert said == heard
    assert DispersionWarning in heard
    assert outside.log_likelihood == pytest.approx(inside.log_likelihood, abs=1e-5)
    again = pickle.loads(pickle.dumps(outside))
    assert any("no overdispersion" in text for text in again.warnings)


@pytest.mark.parametrize(
    ("value", "family", "text"),
    [(0, "poisson", "every count is zero"), (1, "binomial", "all successes")],
)
def test_a_response_that_is_constant(tmp_path, value, family, text):
    data = told_rows().assign(y=value)
    source = written(data, tmp_path / "d", 2)
    for given in (data, source):
        with pytest.raises(UnboundedLikelihoodError, match=text):
            jg.glmm("y ~ x + (1 | g)", given, family=family)
