"""The worksheet functions: the documented examples, layouts, estimates, determinism."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from doors import laplace_at, moments

import jaxglmm as jg
from jaxglmm.spreadsheet import (
    glmm_binomial,
    glmm_gaussian,
    glmm_negbin,
    glmm_poisson,
    lmm,
)

REFERENCE = Path(__file__).parent.parent / "reference"


def column(values):
    return [[v] for v in values]


G2, G3 = column([1, 1, 1, 2, 2, 2]), column([1, 1, 2, 2, 3, 3])
X1, XB = column([1, 2, 3, 1, 2, 3]), column([1, 2, 1.5, 2.5, 3, 1.2])
HALF, RB = column([1, 1.5, 2, 1, 1.5, 2]), column([1, 1, 1.5, 1.5, 2, 2])
B1, B2 = column([0, 1, 0, 1, 1, 0]), column([0, 1, 1, 0, 1, 1])

EXAMPLES = {  # as documented: arguments by position, and the rows of the table
    "P1": (glmm_poisson, (column([2, 3, 5, 1, 2, 4]), X1, G2), 8),
    "P2": (glmm_poisson, (column([5, 7, 10, 3, 5, 8]), X1, G2, X1), 9),
    "P3": (glmm_poisson, (column([10, 12, 15, 8, 10, 13]), HALF, G2, 0.1), 8),
    "P4": (glmm_poisson, (column([3, 6, 9, 2, 4, 6]), X1, G2, False), 7),
    "B1": (glmm_binomial, (B1, XB, G3), 8),
    "B2": (glmm_binomial, (B2, XB, G3, RB), 9),
    "B3": (glmm_binomial, (B1, XB, G3, False), 7),
    "B4": (glmm_binomial, (B2, XB, G3, RB, True, 0.1), 9),
}
METHODS = [None, "laplace", "vb"]


@pytest.fixture(scope="module")
def tables():
    """Every example by every method, once."""
    return {
        (name, method): function(*arguments, method=method)
        for name, (function, arguments, _) in EXAMPLES.items()
        for method in METHODS
    }


def cells(table):
    return [c for row in table for c in row if isinstance(c, float)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_documented_examples(tables, name, method):
    rows = EXAMPLES[name][2]
    found = tables[name, method]
    assert isinstance(found, list), found
    assert len(found) == rows
    assert all(len(row) == 9 for row in found)
    assert np.isfinite(cells(found)).all()
    last = {row[0]: row[1] for row in found[-3:]}
    assert list(last) == ["log_likelihood", "aic", "bic"]
    assert all(last.values())
    npar = rows - 5
    assert last["aic"] == pytest.approx(2 * npar - 2 * last["log_likelihood"])
    assert last["bic"] == pytest.approx(math.log(6) * npar - 2 * last["log_likelihood"])


@pytest.mark.parametrize("name", ["P1", "P2", "B1", "B4"])
def test_equal_calls_are_equal_and_groups_matter(tables, name):
    function, arguments, _ = EXAMPLES[name]
    assert function(*arguments) == tables[name, None]
    other = list(arguments)
    levels = np.unique(arguments[2]).tolist()
    other[2] = column((levels * 6)[:6])
    changed = function(*other)
    assert changed[1][2] != pytest.approx(tables[name, None][1][2], rel=1e-6)


def test_labels_are_the_documented_ones(tables):
    poisson, slopes = tables["P1", None], tables["P2", None]
    head = "fixed_effects parameter coefficient std_error z_statistic p_value ci_lower"
    assert poisson[0] == [*head.split(), "ci_upper", "incidence_rate_ratio"]
    assert [row[:2] for row in poisson[1:5]] == [
        ["fixed_effects", "Intercept"],
        ["fixed_effects", "0"],
        ["random_effects", "parameter"],
        ["", "Group Var"],
    ]
    assert poisson[3] == ["random_effects", "parameter", "variance", "std_dev"] + 5 * [
        None
    ]
    assert [row[1] for row in slopes[4:6]] == ["Random[0]", "Random[1]"]
    binomial = tables["B2", None]
    assert binomial[0][8] == "odds_ratio"
    assert [row[:2] for row in binomial[1:3]] == [["", "intercept"], ["", "x1"]]
    assert [row[1] for row in binomial[4:6]] == ["intercept", "random_x1"]
    assert tables["P4", None][1][1] == "0"
    assert poisson[5][2:] == 7 * [None]


@pytest.mark.parametrize("name", EXAMPLES)
def test_rows_are_consistent(tables, name):
    alpha = {"P3": 0.1, "B4": 0.1}.get(name, 0.05)
    from scipy.stats import norm

    q = norm.ppf(1 - alpha / 2)
    for row in tables[name, None]:
        if row[0] in ("fixed_effects", "") and isinstance(row[4], float):
            b, se, z, p, low, high, ratio = row[2:]
            assert z == pytest.approx(b / se)
            assert p == pytest.approx(2 * norm.sf(abs(z)))
            assert (low, high) == pytest.approx((b - q * se, b + q * se))
            assert ratio == pytest.approx(math.exp(b))
        elif row[0] == "" and row[4] is None:
            assert row[2] == pytest.approx(row[3] ** 2)
            assert row[3] > 0


def brute(y, x, groups, family):
    """Posterior of a random-intercept model on a grid: nothing of jaxglmm in it.

    Returns means and sds of the coefficients, and the mean of the sd of the intercepts.
    """
    from scipy.special import gammaln, logsumexp

    z, w = np.polynomial.hermite_e.hermegauss(31)
    b0, b1 = np.linspace(-6, 6, 41)[:, None], np.linspace(-4, 6, 41)[None]
    s = np.linspace(-4, 3, 33)
    fixed = b0[..., None] + b1[..., None] * x  # (b0, b1, rows)
    log_p = np.zeros((41, 41, len(s)))
    for k, size in enumerate(np.exp(s)):
        for level in np.unique(groups):
            mine = groups == level
            eta = fixed[..., mine, None] + size * z
            rows = y[mine][:, None] * eta
            if family == "poisson":
                rows = rows - np.exp(eta) - gammaln(y[mine] + 1)[:, None]
            else:
                rows = rows - np.logaddexp(0, eta)
            log_p[:, :, k] += logsumexp(rows.sum(-2), b=w / w.sum(), axis=-1)
    log_p -= ((b0**2 + b1**2) / 8)[..., None] + s**2 / 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    means, sds = [], []
    for values, margin in ((b0[:, 0], p.sum((1, 2))), (b1[0], p.sum((0, 2)))):
        means.append(margin @ values)
        sds.append(math.sqrt(margin @ (values - means[-1]) ** 2))
    return means, sds, float(p.sum((0, 1)) @ np.exp(s))


@pytest.mark.parametrize("name", ["P1", "B1"])
def test_the_default_is_the_posterior_by_brute_force(tables, name):
    function, (y, x, groups), _ = EXAMPLES[name]
    family = "poisson" if function is glmm_poisson else "binomial"
    flat = [np.array(v, float)[:, 0] for v in (y, x, groups)]
    means, sds, sd = brute(*flat, family)
    table = tables[name, None]
    for row, mean, spread in zip(table[1:3], means, sds, strict=True):
        assert row[2] == pytest.approx(mean, abs=0.12 * spread)
        assert row[3] == pytest.approx(spread, rel=0.12)
    assert table[4][3] == pytest.approx(sd, rel=0.12)


@pytest.mark.parametrize("k", [1, 3])
def test_mean_field_is_the_originals(k):
    """Binomial: the original's own fit, which has the groups in it."""
    expected = json.loads((REFERENCE / f"sm_glmm_binomial_ex{k}.json").read_text())
    table = glmm_binomial(*EXAMPLES[f"B{k}"][1], method="vb")
    p = len(expected["fit_vb"]["fe_mean"])
    found = np.array([row[2:4] for row in table[1 : 1 + p]], float)
    np.testing.assert_allclose(found[:, 0], expected["fit_vb"]["fe_mean"], atol=2e-5)
    np.testing.assert_allclose(found[:, 1], expected["fit_vb"]["fe_sd"], atol=2e-5)
    sd = table[p + 2][3]
    assert sd == pytest.approx(math.exp(expected["fit_vb"]["vcp_mean"][0]), abs=2e-5)


def test_maximum_likelihood_is_glmm():
    ticks = jg.datasets.load("grouseticks").head(120)
    y, x = column(ticks["TICKS"].tolist()), column((ticks["HEIGHT"] / 100).tolist())
    g = column(ticks["BROOD"].astype(str).tolist())
    found = glmm_poisson(y, x, g, method="laplace")
    data = {"y": ticks["TICKS"], "x": ticks["HEIGHT"] / 100, "g": ticks["BROOD"]}
    fit = jg.glmm("y ~ x + (1 | g)", data, family="poisson")
    np.testing.assert_allclose(
        [row[2] for row in found[1:3]], fit.coefficients, rtol=1e-6
    )
    np.testing.assert_allclose([row[3] for row in found[1:3]], fit.se, rtol=1e-5)
    assert found[4][3] == pytest.approx(fit.varcorr["g"].sd.iloc[0], rel=1e-5)
    assert found[5][1] == pytest.approx(fit.log_likelihood, abs=1e-6)
    assert found[6][1] == pytest.approx(fit.aic, abs=1e-5)
    value = laplace_at(
        {
            "formula": np.array(y)[:, 0],
            "data": np.column_stack([np.ones(120), np.array(x)]),
            "groups": {"g": np.array(g)[:, 0]},
        },
        jg.Poisson(),
        fit.coefficients,
        fit.varcorr["g"].sd.to_numpy(),
        np.zeros(0),
    )
    assert value == pytest.approx(fit.log_likelihood, abs=1e-8)


def test_the_default_agrees_with_glmm_under_the_same_priors():
    y, x, g = (np.array(v, float)[:, 0] for v in EXAMPLES["P1"][1])
    fit = jg.glmm(
        y,
        np.column_stack([np.ones(6), x]),
        {"Group": g},
        family="poisson",
        method=jg.NestedLaplace(draws=4000),
        priors=jg.Priors.statsmodels(),
    )
    found = glmm_poisson(*EXAMPLES["P1"][1])
    np.testing.assert_allclose([r[2] for r in found[1:3]], fit.coefficients)
    np.testing.assert_allclose([r[3] for r in found[1:3]], fit.se)
    assert found[4][3] == pytest.approx(fit.varcorr["Group"].sd.iloc[0])


def test_negative_binomial_and_linear_tables():
    table = glmm_negbin(*EXAMPLES["P1"][1])
    assert [row[0] for row in table[-4:]] == [
        "log_likelihood",
        "aic",
        "bic",
        "dispersion",
    ]
    assert np.isfinite(cells(table)).all()
    assert "is not there for" in glmm_negbin(*EXAMPLES["P1"][1], method="vb")
    sleep = jg.datasets.load("sleepstudy")
    y, days = column(sleep["Reaction"].tolist()), column(sleep["Days"].tolist())
    g = column(sleep["Subject"].astype(str).tolist())
    found = lmm(y, days, g, extended=True)
    fit = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    assert found[0][4] == "t_statistic"
    assert found[2][2] == pytest.approx(fit.coefficients[1])
    assert found[2][5] == pytest.approx(fit.p_values[1])
    assert found[2][8] == pytest.approx(fit.df_satterthwaite[1])
    assert [row[1] for row in found[4:6]] == ["Group Var", "Residual"]
    assert found[5][3] == pytest.approx(fit.sigma)
    assert glmm_gaussian(y, days, g, extended=True) == found
    ml = lmm(y, days, g, method="ml")
    assert ml[6][1] == pytest.approx(
        jg.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False).log_likelihood
    )


def test_extended_rows(tables):
    function, arguments, rows = EXAMPLES["P2"]
    found = function(*arguments, extended=True)
    assert found[:rows] == tables["P2", None]
    labels = [row[0] for row in found[rows:]]
    assert labels[:6] == [
        "groups",
        "observations",
        "converged",
        "method",
        "warning",
        "group_effects",
    ]
    by_label = {row[0]: row for row in found[rows:]}
    assert by_label["groups"][2] == 2
    assert by_label["observations"][1] == 6
    assert by_label["converged"][1] is True
    assert by_label["method"][1] == "nested-laplace"
    effects = found[rows + 6 : rows + 10]
    assert [row[1:3] for row in effects] == [
        [1, "Random[0]"],
        [1, "Random[1]"],
        [2, "Random[0]"],
        [2, "Random[1]"],
    ]
    assert np.isfinite([row[3:5] for row in effects]).all()
    intervals = found[rows + 11 :]
    assert [row[0] for row in intervals] == 2 * ["incidence_rate_ratio"] + 2 * [
        "std_dev"
    ]
    assert all(row[3] < row[2] < row[4] for row in intervals)
    warned = glmm_poisson(*EXAMPLES["P1"][1], method="laplace", extended=True)
    assert "Singular fit" in {row[0]: row[1] for row in warned}["warning"]
    mean_field = glmm_binomial(*EXAMPLES["B2"][1], method="vb", extended=True)
    assert len([r for r in mean_field if r[2] in ("intercept", "random_x1")]) == 6


def test_two_columns_of_a_binomial_response():
    cbpp = jg.datasets.load("cbpp")
    y = [
        [int(a), int(b)]
        for a, b in zip(
            cbpp["incidence"], cbpp["size"] - cbpp["incidence"], strict=True
        )
    ]
    x = [[float(v == k) for k in ("2", "3", "4")] for v in cbpp["period"].astype(str)]
    g = column(cbpp["herd"].astype(str).tolist())
    found = glmm_binomial(y, x, g, method="laplace", extended=True)
    fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    np.testing.assert_allclose([r[2] for r in found[1:5]], fit.coefficients, rtol=1e-5)
    assert found[7][1] == pytest.approx(fit.log_likelihood, abs=1e-6)
    plain = glmm_binomial(y, x, g)
    assert plain == "Invalid input: y must be a column vector (single column)."


def test_headers_names_and_text_labels():
    y, x, g = EXAMPLES["P1"][1]
    head = glmm_poisson(y, [["dose"], *x], g, [["slope of dose"], *x], method="laplace")
    assert head[2][1] == "dose"
    assert [row[1] for row in head[4:6]] == ["Random[0]", "slope of dose"]
    named = glmm_poisson(y, x, g, names=[["dose"]], method="laplace")
    assert named[2][1] == "dose"
    words = column(["one", "one", "one", "two", "two", "two"])
    assert cells(glmm_poisson(y, x, words, method="laplace")) == pytest.approx(
        cells(glmm_poisson(y, x, g, method="laplace"))
    )
    decimals = column([1.2, 1.2, 1.2, 1.9, 1.9, 1.9])  # no truncation to one group
    assert cells(glmm_poisson(y, x, decimals, method="laplace")) == pytest.approx(
        cells(glmm_poisson(y, x, g, method="laplace"))
    )


def test_shifted_arguments():
    y, x, g = EXAMPLES["P1"][1]
    by_name = glmm_poisson(y, x, g, fit_intercept=False, alpha=0.2, method="laplace")
    assert glmm_poisson(y, x, g, False, 0.2, method="laplace") == by_name
    assert glmm_poisson(y, x, g, 0, 0.2, method="laplace") == by_name
    assert glmm_poisson(y, x, g, 0.0, 0.2, method="laplace") == by_name
    assert glmm_poisson(y, x, g, None, 0.0, 0.2, method="laplace") == by_name
    assert glmm_poisson(y, x, g, "", False, 0.2, method="laplace") == by_name
    text = glmm_poisson(y, x, g, 3)
    assert text == "Invalid input: y and x_random must have the same number of rows."


@pytest.fixture
def compilations():
    """Counts programs that are compiled, or read from the cache on disk."""
    seen = []

    def listen(name, *rest, **more):
        if name == "/jax/core/compile/backend_compile_duration":
            seen.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def sheet(n, J=40):
    rng = np.random.default_rng(4)
    g = rng.integers(0, J, n)
    x = rng.normal(size=n)
    y = rng.poisson(np.exp(0.2 + 0.4 * x + 0.5 * rng.normal(size=J)[g]))
    return [column(v.tolist()) for v in (y, x, g)]


def test_a_row_more_compiles_nothing(compilations):
    y, x, g = sheet(5000)
    first = glmm_poisson(y[:-2], x[:-2], g[:-2])
    assert isinstance(first, list)
    compilations.clear()
    for k in (-1, None):
        again = glmm_poisson(y[:k], x[:k], g[:k])
        assert again[1][2] == pytest.approx(first[1][2], abs=0.01)
    assert compilations == []


def test_few_draws_of_many_rows_are_as_good_as_many(monkeypatch):
    """Moments by differences from a Gaussian, against importance sampling alone."""
    arguments = sheet(5000)
    few = glmm_poisson(*arguments)
    assert glmm_poisson(*arguments, extended=True)[: len(few)] == few
    monkeypatch.setattr(moments, "NEAR", {})  # all rounds
    some = glmm_poisson(*arguments)
    monkeypatch.setattr(moments, "LEAST", 2.0)  # too far from a Gaussian: all draws
    many = glmm_poisson(*arguments)
    for found, tolerance in ((few, 0.03), (some, 0.03)):
        for row, other in zip(found[1:3], many[1:3], strict=True):
            assert row[2] == pytest.approx(other[2], abs=tolerance * other[3])
            assert row[3] == pytest.approx(other[3], rel=tolerance)
        assert found[4][3] == pytest.approx(many[4][3], rel=0.01)
        assert found[5][1] == pytest.approx(many[5][1], abs=0.01)
    assert len({str(t) for t in (few, some, many)}) == 3
