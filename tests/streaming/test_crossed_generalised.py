"""Crossed factors of generalised models in batches give the numbers in memory."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import (
    laplace_shared,
    streaming_crossed,
    streaming_crossed_search,
    streaming_parts,
)
from streaming_cases import written

import jaxglmm as jg
from jaxglmm import DataError, ModelError

pytest.importorskip("pyarrow")


def rows(n=2500, J=70, items=25, seed=0):
    """Users, with text for names, and items; a response of each family."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, J, n), rng.integers(0, items, n)
    x, m = rng.normal(5.0, 2.0, n), rng.integers(1, 9, n)
    b = rng.normal(size=(J, 2)) @ np.array([[0.6, 0.1], [0.0, 0.2]])
    c = rng.normal(size=(items, 2)) * [0.5, 0.2]
    school, third = user // 7, rng.integers(0, 6, n)
    c3 = rng.normal(size=6)
    eta = -0.5 + 0.1 * x + 0.6 * (c3[third] + rng.normal(size=J)[school])
    eta += b[user, 0] + c[item, 0] + (b[user, 1] + c[item, 1]) * (x - 5)
    mu = np.exp(0.5 * eta)
    columns = {
        "y": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
        "k": rng.binomial(m, 1 / (1 + np.exp(-eta))),
        "m": m,
        "count": rng.poisson(mu),
        "over": rng.poisson(mu * rng.gamma(2.0, 0.5, n)),
        "x": x,
        "e": rng.uniform(-0.2, 0.2, n),
        "w": rng.integers(1, 4, n).astype(float),
        "user": np.array([f"u{k}" for k in user], object),
        "item": item,
        "third": third,
        "school": school,
    }
    return pd.DataFrame(columns)


def assert_alike(outside, inside):
    """The numbers of two fits."""
    assert outside.converged
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-8)
    assert np.allclose(outside.coef, inside.coef, rtol=0, atol=3e-6 * inside.se)
    assert np.allclose(outside.se, inside.se, rtol=1e-6)
    assert np.allclose(outside.estimates.phi, inside.estimates.phi, atol=1e-6)
    for label, own in inside.varcorr.items():
        assert np.allclose(outside.varcorr[label].sd, own.sd, rtol=1e-6, atol=1e-7)
    for factor, frame in inside.ranef.items():
        found = outside.ranef[factor]
        assert found.index.tolist() == frame.index.tolist()
        assert np.allclose(found, frame, atol=1e-6)
    assert (outside.nobs, outside.ngroups) == (inside.nobs, inside.ngroups)
    assert outside.coefficient_names == inside.coefficient_names


MODELS = [
    ("y ~ x + (1 | user) + (1 | item)", {}),
    ("count ~ x + (x | user) + (1 | item)", {"family": "poisson", "offset": "e"}),
    ("over ~ x + (1 | item) + (1 | user)", {"family": "nbinom2"}),
    ("k ~ (1 | user) + (x || item)", {"trials": "m", "weights": "w"}),
    ("count ~ x + (1 | user) + (x | item) + (1 | third)", {"family": "poisson"}),
    ("y ~ x + (1 | school / user)", {"family": jg.Binomial(link="probit")}),
]


@pytest.mark.parametrize(("formula", "options"), MODELS, ids=[m for m, _ in MODELS])
def test_the_same_as_in_memory(tmp_path, formula, options):
    data = rows()
    inside = jg.glmm(formula, data, **options)
    outside = jg.glmm(formula, written(data, tmp_path / "d", 3), **options)
    assert_alike(outside, inside)
    assert "shared effects" in repr(outside.plan)
    assert outside.plan.passes <= 20


@pytest.mark.parametrize(("formula", "options"), MODELS[1::3], ids=["two", "three"])
def test_the_same_by_conjugate_gradients(tmp_path, monkeypatch, formula, options):
    """As many signs as shared effects: the Hessian is exact too."""
    data = rows(2000)
    monkeypatch.setattr(streaming_crossed, "LARGE", 0)
    source = written(data, tmp_path / "d", 2)
    assert_alike(jg.glmm(formula, source, **options), jg.glmm(formula, data, **options))


def test_few_signs_leave_the_maximum_where_it_is(tmp_path, monkeypatch):
    """They say where the search ends and how curved it is there, roughly."""
    data = rows(2000)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | user) + (1 | item)"
    inside = jg.glmm(formula, data)
    for name, value in {"LARGE": 10, "PROBES": 12, "FEW": 4}.items():
        monkeypatch.setattr(streaming_crossed, name, value)
    outside = jg.glmm(formula, source)
    assert outside.converged
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-6)
    assert np.allclose(outside.coef, inside.coef, rtol=0, atol=1e-3 * inside.se)
    assert np.allclose(outside.se, inside.se, rtol=0.02)
    assert not np.array_equal(outside.se, inside.se)


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("dense", [True, False])
def test_however_many_parts_and_whichever_sums(tmp_path, monkeypatch, parts, dense):
    data = rows(2100)
    source, formula = (
        written(data, tmp_path / "d", 4),
        "y ~ x + (x | user) + (x | item)",
    )
    inside = jg.glmm(formula, data)
    monkeypatch.setattr(streaming_parts, "PART_ROWS", len(data) // parts)
    monkeypatch.setattr(streaming_parts, "BLOCK", 512)
    monkeypatch.setattr(laplace_shared, "DENSE", 1e9 if dense else 0)
    monkeypatch.setattr(laplace_shared, "PAIRS", 5_000)
    monkeypatch.setattr(streaming_crossed_search, "SAMPLE_ROWS", 500)
    assert_alike(jg.glmm(formula, source), inside)


@pytest.mark.parametrize("size", [0.0, 1e-3, 30.0, np.nan])
def test_a_held_inverse_that_does_not_fit_costs_visits_alone(
    tmp_path, monkeypatch, size
):
    data = rows(1000)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | user) + (1 | item)"

    def keep(self, x):
        self.kept = None if x is None else size * x

    held = property(lambda self: self.kept, keep)
    monkeypatch.setattr(streaming_crossed, "PRICE", 0.0)
    monkeypatch.setattr(streaming_crossed_search, "FEW_ROWS", 200)
    monkeypatch.setattr(streaming_parts, "BLOCK", 256)
    likelihood = streaming_crossed.SharedLikelihood
    monkeypatch.setattr(likelihood, "held", held, raising=False)
    outside = jg.glmm(formula, source)
    assert_alike(outside, jg.glmm(formula, data))


def test_the_inverse_of_the_point_before_saves_factors(tmp_path, monkeypatch):
    """Where the shared effects begin far from their modes."""
    data = rows(1000)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | user) + (1 | item)"
    factored, inside = [], jg.glmm(formula, data)
    likelihood, schur = (
        streaming_crossed.SharedLikelihood,
        streaming_crossed.PackedSchur,
    )
    of, mode = schur.factor, likelihood.mode
    monkeypatch.setattr(streaming_crossed_search, "FEW_ROWS", 200)
    monkeypatch.setattr(streaming_parts, "BLOCK", 256)

    def factor(self, lams):
        factored[-1] += 1
        return of(self, lams)

    monkeypatch.setattr(schur, "factor", factor)
    monkeypatch.setattr(likelihood, "mode", lambda own, psi, v: mode(own, psi, 0.0 * v))
    for price in (0.0, np.inf):
        factored.append(0)
        monkeypatch.setattr(streaming_crossed, "PRICE", price)
        assert_alike(jg.glmm(formula, source), inside)
    assert factored[0] < factored[1] - 5, factored


def test_points_of_the_hessian_one_by_one(tmp_path, monkeypatch):
    data = rows(1000)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | user) + (1 | item)"
    monkeypatch.setattr(streaming_crossed, "available", lambda: 1.0)
    outside = jg.glmm(formula, source)
    assert_alike(outside, jg.glmm(formula, data))
    assert outside.plan.passes > 30


@pytest.mark.parametrize("rows_of_start", [0, 10**6])
def test_of_many_shared_effects_no_sample_is_searched(
    tmp_path, monkeypatch, rows_of_start
):
    """The search begins with the Hessian of a few rows, or with nothing but guesses."""
    data = rows(2000)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (x | user) + (1 | item)"
    monkeypatch.setattr(streaming_crossed, "LARGE", 10)
    monkeypatch.setattr(streaming_crossed_search, "FEW_LEVELS", 15)
    monkeypatch.setattr(streaming_crossed_search, "LEAST_ROWS", rows_of_start)
    assert_alike(jg.glmm(formula, source), jg.glmm(formula, data))


def test_a_variance_of_zero(tmp_path):
    data = rows(1500).assign(y=np.random.default_rng(3).integers(0, 2, 1500))
    source = written(data, tmp_path / "d", 2)
    formula = "y ~ x + (1 | user) + (1 | item)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inside, outside = (jg.glmm(formula, s) for s in (data, source))
    assert outside.is_singular == inside.is_singular
    assert outside.criterion == pytest.approx(inside.criterion, abs=1e-6)


def test_questions_without_rows(tmp_path):
    data = rows()
    source, formula = (
        written(data, tmp_path / "d", 2),
        "y ~ x + (1 | user) + (1 | item)",
    )
    inside, outside = (jg.glmm(formula, s) for s in (data, source))
    assert np.allclose(outside.confint(), inside.confint(), rtol=1e-5)
    assert "item" in str(outside.summary())
    known = data.head(30)
    assert np.allclose(outside.predict(known), inside.predict(known), atol=1e-6)
    assert outside.predict(source, to=tmp_path / "out.parquet") == len(data)
    means = pd.read_parquet(tmp_path / "out.parquet")
    assert np.allclose(means["fit"], inside.fitted_values, atol=1e-6)
    assert outside.ranef_to(tmp_path / "b.parquet") == 70 + 25
    written_b = pd.read_parquet(tmp_path / "b.parquet")
    own = written_b[written_b["factor"] == "item"]
    assert np.allclose(
        own["(Intercept)"], inside.ranef["item"]["(Intercept)"], atol=1e-6
    )


class Killed(BaseException):
    """What ends a run from outside."""


def test_a_killed_search_goes_on(tmp_path, monkeypatch):
    data = rows(1500)
    source, run = written(data, tmp_path / "d", 2), tmp_path / "run"
    formula = "count ~ x + (1 | user) + (1 | item)"
    search = streaming_crossed.SharedSearch

    def killed(self):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(search, "renew", killed)
        with pytest.raises(Killed):
            jg.glmm(formula, source, family="poisson", checkpoint=run)
    monkeypatch.setattr(streaming_crossed_search, "started", None)
    monkeypatch.setattr(streaming_parts, "PartWriter", None)
    fit = jg.glmm(formula, source, family="poisson", checkpoint=run)
    assert_alike(fit, jg.glmm(formula, data, family="poisson"))
    with pytest.raises(DataError, match="of another model"):
        jg.glmm(formula, source, checkpoint=run)


def test_refusals(tmp_path, monkeypatch):
    data = rows(600)
    source, formula = written(data, tmp_path / "d"), "y ~ x + (1 | user) + (1 | item)"
    with pytest.raises(ModelError, match="take Laplace's approximation"):
        jg.glmm(formula, source, method=jg.AGQ(5))
    monkeypatch.setattr(streaming_crossed_search, "available", lambda: 6000.0)
    with pytest.raises(ModelError, match=r"25 random effects .* free\. Rows that fit"):
        jg.glmm(formula, source)
