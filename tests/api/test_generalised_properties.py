"""What must not change a generalised fit, or must change it by a known amount."""

import contextlib
import warnings
from unittest import mock

import numpy as np
import pytest
from doors import fit_design
from doors import rows_of_design as build_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxglmm as jg

N, G, H = 96, 8, 6
ONE, SLOPE, CROSSED = "y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"

seeds = st.integers(0, 2**32 - 1)
formulas = st.sampled_from([ONE, SLOPE, CROSSED])
few = settings(max_examples=5, derandomize=True, deadline=None, database=None)


def data(seed, n=N):
    """Counts of a model with every effect there is."""
    rng = np.random.default_rng(seed)
    g, h = rng.permutation(np.arange(n) % G), rng.permutation(np.arange(n) % H)
    x = rng.normal(size=n)
    eta = 0.8 + 0.3 * x + 0.7 * rng.normal(size=G)[g] + 0.3 * rng.normal(size=G)[g] * x
    y = rng.poisson(np.exp(eta + 0.5 * rng.normal(size=H)[h])).astype(float)
    return {"y": y, "x": x, "g": g, "h": h}


def fit(formula, columns, family="poisson", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        found = jg.glmm(formula, columns, family=family, tol=1e-9, **options)
    assert found.converged
    return found


def same(a, b, change=0.0):
    scale = max(1.0, abs(a.criterion))
    np.testing.assert_allclose(b.criterion, a.criterion + change, atol=1e-8 * scale)


def same_estimates(a, b):
    np.testing.assert_allclose(b.coefficients, a.coefficients, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(b.theta, a.theta, rtol=1e-3, atol=1e-3)


@few
@given(seeds, formulas)
def test_order_of_rows(seed, formula):
    columns = data(seed)
    order = np.random.default_rng(seed).permutation(N)
    a = fit(formula, columns)
    b = fit(formula, {name: v[order] for name, v in columns.items()})
    same(a, b)
    same_estimates(a, b)
    np.testing.assert_allclose(b.fitted_values, a.fitted_values[order], rtol=1e-4)


@few
@given(seeds, formulas)
def test_names_of_levels(seed, formula):
    columns = data(seed)
    names = np.random.default_rng(seed).permutation([f"level {i}" for i in range(G)])
    a = fit(formula, columns)
    b = fit(formula, columns | {"g": names[columns["g"]]})
    same(a, b)
    modes = b.ranef["g"].loc[names].to_numpy()
    np.testing.assert_allclose(modes, a.ranef["g"].to_numpy(), rtol=1e-3, atol=1e-4)


@few
@given(seeds, formulas)
def test_unit_and_origin_of_a_covariate(seed, formula):
    """1000 (x - 5): slopes by 1/1000, the intercept moved."""
    columns = data(seed)
    a = fit(formula, columns)
    b = fit(formula, columns | {"x": 1000 * (columns["x"] - 5)})
    same(a, b)
    np.testing.assert_allclose(
        1000 * b.coefficients[1], a.coefficients[1], rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(b.fitted_values, a.fitted_values, rtol=1e-3)


@few
@given(seeds)
def test_offset_is_an_intercept(seed):
    columns = data(seed)
    a = fit(ONE, columns)
    b = fit(ONE, columns, offset=np.full(N, 3.0))
    same(a, b)
    np.testing.assert_allclose(b.coefficients[0], a.coefficients[0] - 3, rtol=1e-4)


@few
@given(seeds)
def test_weights_are_copies(seed):
    """A row of weight two is the row twice (two rows of one level)."""
    columns = data(seed)
    twice = np.arange(N) % 3 == 0
    copies = {k: np.concatenate([v, v[twice]]) for k, v in columns.items()}
    a = fit(ONE, columns, weights=np.where(twice, 2.0, 1.0))
    b = fit(ONE, copies)
    same(a, b)
    same_estimates(a, b)


@few
@given(seeds)
def test_rows_of_weight_zero_are_not_there(seed):
    columns = data(seed)
    out = np.arange(N) % 4 == 0
    a = fit(ONE, {k: v[~out] for k, v in columns.items()})
    b = fit(ONE, columns, weights=(~out).astype(float))
    same(a, b)
    same_estimates(a, b)


@few
@given(seeds)
def test_successes_and_failures_change_places(seed):
    """The logit is odd: coefficients change sign."""
    columns = data(seed)
    k, m = np.minimum(columns["y"], 12), np.full(N, 12.0)
    a = fit("k ~ x + (1 | g)", columns | {"k": k}, "binomial", trials=m)
    b = fit("k ~ x + (1 | g)", columns | {"k": m - k}, "binomial", trials=m)
    same(a, b)
    np.testing.assert_allclose(b.coefficients, -a.coefficients, rtol=1e-4, atol=1e-6)


@few
@given(seeds)
def test_trials_are_rows(seed):
    """Rows of 0 and 1 say what their sums do; the binomial coefficients aside."""
    from scipy.special import gammaln

    columns = {k: v[:48] for k, v in data(seed).items()}
    m = np.full(48, 2.0)
    k = np.minimum(columns["y"], 2.0)
    a = fit("k ~ x + (1 | g)", columns | {"k": k}, "binomial", trials=m)
    rows = {name: np.repeat(v, 2) for name, v in columns.items()}
    rows["k"] = np.column_stack([k > 0, k > 1]).ravel().astype(float)
    b = fit("k ~ x + (1 | g)", rows, "binomial")
    coefficients = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1)
    same(a, b, 2 * coefficients.sum())
    same_estimates(a, b)


@few
@given(seeds)
def test_one_node_is_laplace(seed):
    columns = data(seed)
    a = fit(SLOPE, columns)
    b = fit(SLOPE, columns, method=jg.AGQ(1))
    same(a, b)


def _without_padding():
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(build_rows, "bucket", lambda n, *_: n))
    return stack


@few
@given(seeds, st.sampled_from([ONE, CROSSED]))
def test_padding_is_none(seed, formula):
    columns = data(seed)
    a = fit(formula, columns)
    with _without_padding():
        b = fit(formula, columns)
    same(a, b)
    same_estimates(a, b)


@few
@given(seeds)
def test_gaussian_by_the_generalised_way(seed):
    """Laplace is exact for a Gaussian response: the linear model's ML."""
    columns = data(seed)
    columns["y"] = np.log1p(columns["y"])
    exact = jg.lmm(ONE, columns, reml=False)
    with mock.patch.object(fit_design, "_is_linear", return_value=False):
        laplace = jg.glmm(ONE, columns, family="gaussian", tol=1e-9)
    same(exact, laplace)
    np.testing.assert_allclose(laplace.coefficients, exact.coefficients, rtol=1e-5)
    np.testing.assert_allclose(laplace.sigma, exact.sigma, rtol=1e-4)


def test_gaussian_is_the_linear_model():
    columns = data(3)
    a = jg.lmm(CROSSED, columns, reml=False)
    b = jg.glmm(CROSSED, columns, family="gaussian")
    assert b.criterion == pytest.approx(a.criterion, abs=1e-9)
    assert b.family_name == "gaussian"


@pytest.mark.parametrize("family", ["poisson", "nbinom2", "binomial", "gamma"])
def test_without_random_effects(family):
    """A generalised linear model through the same door: its score is zero."""
    columns = data(5)
    y = {
        "poisson": columns["y"],
        "nbinom2": columns["y"],
        "binomial": (columns["y"] > 1).astype(float),
        "gamma": columns["y"] + 0.5,
    }[family]
    found = fit("y ~ x", columns | {"y": y}, family)
    X = np.column_stack([np.ones(N), columns["x"]])
    working, mu = found.resid("working"), found.fitted_values
    slope = np.asarray(found.family.link.slope(found.linear_predictor))
    variance = found.family.variance(mu, found.estimates.phi, 1.0)
    score = X.T @ (working * slope**2 / variance)
    np.testing.assert_allclose(score, 0, atol=1e-4 * N)
    assert found.ranef == {}
    assert "Random effects" not in found.summary()


@pytest.mark.parametrize("family", [jg.Poisson(link="sqrt"), jg.StudentT(df=7)])
def test_a_file_keeps_family_link_and_method(family, tmp_path):
    before = fit(ONE, data(1), family, method=jg.Laplace(hessian="expected"))
    path = tmp_path / "fit"
    before.save(path)
    after = jg.load(path)
    assert after.family == before.family
    assert after.marginal == before.marginal
    np.testing.assert_allclose(after.se, before.se, rtol=1e-9)
    np.testing.assert_allclose(after.ranef_cov["g"], before.ranef_cov["g"], rtol=1e-6)


def test_as_many_nodes_as_are_needed():
    """Doubling them once more moves -2 log-likelihood by less than 0.001."""
    columns = data(2)
    found = fit(ONE, columns, method=jg.AGQ("auto"))
    nodes = found.marginal.nodes
    assert nodes > 1
    assert f"{nodes} nodes" in found.summary()
    more = fit(ONE, columns, method=jg.AGQ(2 * nodes))
    np.testing.assert_allclose(found.criterion, more.criterion, atol=1e-3)


def test_second_order_is_closer_to_quadrature():
    columns = data(2)
    columns["y"] = (columns["y"] > 1).astype(float)
    first = fit(ONE, columns, "binomial")
    second = fit(ONE, columns, "binomial", method=jg.Laplace(order=2))
    exact = fit(ONE, columns, "binomial", method=jg.AGQ(25))
    error = abs(second.criterion - exact.criterion)
    assert error < 0.3 * abs(first.criterion - exact.criterion)


@pytest.mark.parametrize("method", [jg.AGQ("auto"), jg.AGQ(5), jg.Laplace(order=2)])
def test_refused_where_levels_depend_on_each_other(method):
    with pytest.raises(jg.ModelError, match="one grouping factor"):
        jg.glmm(CROSSED, data(1), family="poisson", method=method)


def test_five_columns_and_more_in_either_layout():
    """Levels of equal size are padded to a block, others are not: the same fit."""
    from doors import row_layout

    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=N) for i in range(4)} | {"g": np.arange(N) % G}
    columns["y"] = rng.poisson(np.exp(0.5 + 0.6 * rng.normal(size=G)[columns["g"]]))
    formula = "y ~ x0 + (x0 + x1 + x2 + x3 || g)"
    a = fit(formula, columns)
    with mock.patch.multiple(row_layout, LARGE_ROWS=0, SMALL_ROWS=0, WASTE=0):
        b = fit(formula, columns)
    assert a.diagnostics["system"] != b.diagnostics["system"]
    same(a, b)
