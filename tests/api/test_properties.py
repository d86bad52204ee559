"""What must not change a fit, or must change it by a known amount.

Shapes come from a short list, so that compilations are shared; examples are few and the
same in every run.
"""

import contextlib
import warnings
from unittest import mock

import jax
import numpy as np
import pytest
from doors import Maximise, alike, design_from_formula
from doors import fitting_linear as engine
from doors import moments_of_design as build
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxglmm as jg

N, G, H = 72, 8, 6
ONE, SLOPE, CROSSED = "y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (x | g) + (1 | h)"
NESTED = "y ~ x + (x | k) + (1 | h)"

seeds = st.integers(0, 2**32 - 1)
formulas = st.sampled_from([ONE, SLOPE, CROSSED])
few = settings(max_examples=6, derandomize=True, deadline=None, database=None)


def data(seed, n=N):
    """Columns of a model with every effect there is; k lies inside h."""
    rng = np.random.default_rng(seed)
    g, h = rng.permutation(np.arange(n) % G), rng.permutation(np.arange(n) % H)
    k = 3 * h + np.argsort(np.argsort(h, kind="stable")) % 3  # all of them met
    x = rng.normal(size=n)
    y = 3 + x + 1.5 * rng.normal(size=G)[g] + rng.normal(size=G)[g] * x
    y = y + rng.normal(size=H)[h] + rng.normal(size=18)[k] + 0.7 * rng.normal(size=n)
    return {"y": y, "x": x, "g": g, "h": h, "k": k}


def fit(formula, columns, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        found = jg.lmm(formula, columns, tol=1e-10, **options)
    assert found.converged
    return found


def same(a, b, change=0.0):
    """The same optimum, the criterion moved by ``change``."""
    scale = max(1.0, abs(a.criterion))
    np.testing.assert_allclose(b.criterion, a.criterion + change, atol=1e-8 * scale)


def same_estimates(a, b):
    np.testing.assert_allclose(b.coefficients, a.coefficients, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(b.sigma, a.sigma, rtol=1e-5)
    # near the boundary the criterion is flat to second order in theta
    np.testing.assert_allclose(b.theta, a.theta, rtol=1e-4, atol=2e-4)


@few
@given(seeds, formulas)
def test_order_of_rows(seed, formula):
    columns = data(seed)
    order = np.random.default_rng(seed).permutation(N)
    a = fit(formula, columns)
    b = fit(formula, {name: v[order] for name, v in columns.items()})
    same(a, b)
    same_estimates(a, b)


@few
@given(seeds, formulas)
def test_names_of_levels(seed, formula):
    columns = data(seed)
    names = np.random.default_rng(seed).permutation([f"level {i}" for i in range(G)])
    a = fit(formula, columns)
    b = fit(formula, {**columns, "g": names[columns["g"]]})
    same(a, b)
    same_estimates(a, b)
    ours = b.ranef["g"].loc[names].to_numpy()
    np.testing.assert_allclose(ours, a.ranef["g"].to_numpy(), rtol=1e-3, atol=1e-3)


@few
@given(seeds, formulas, st.sampled_from([1e-6, 0.5, 1e6]), st.booleans())
def test_unit_of_the_response(seed, formula, unit, reml):
    """-2 log-likelihood moves by the Jacobian: 2 log(unit) a degree of freedom."""
    columns = data(seed)
    a = fit(formula, columns, reml=reml)
    b = fit(formula, {**columns, "y": unit * (columns["y"] + 5)}, reml=reml)
    same(a, b, 2 * np.log(unit) * (N - 2 * reml))
    np.testing.assert_allclose(b.sigma, unit * a.sigma, rtol=1e-5)
    np.testing.assert_allclose(b.theta, a.theta, rtol=1e-4, atol=2e-4)


@few
@given(
    seeds,
    st.sampled_from([SLOPE, CROSSED]),
    st.sampled_from([(0.0, 1e-6), (100.0, 1.0), (-3.0, 1e6)]),
    st.booleans(),
)
def test_origin_and_unit_of_a_covariate(seed, formula, change, reml):
    """An unstructured term absorbs both; REML moves by log |X'X|."""
    origin, unit = change
    columns = data(seed)
    a = fit(formula, columns, reml=reml)
    b = fit(formula, {**columns, "x": unit * (columns["x"] + origin)}, reml=reml)
    same(a, b, 2 * np.log(unit) * reml)
    slope = a.coefficients[1] / unit
    expected = [a.coefficients[0] - origin * unit * slope, slope]
    np.testing.assert_allclose(b.coefficients, expected, rtol=1e-4)
    np.testing.assert_allclose(b.se[1] * unit, a.se[1], rtol=1e-4)
    np.testing.assert_allclose(b.fitted_values, a.fitted_values, atol=1e-3)


@few
@given(seeds, formulas, st.booleans())
def test_a_constant_weight_is_a_unit_of_sigma(seed, formula, reml):
    columns = data(seed)
    a = fit(formula, columns, reml=reml)
    b = fit(formula, columns, reml=reml, weights=np.full(N, 4.0))
    same(a, b)
    np.testing.assert_allclose(b.sigma, 2 * a.sigma, rtol=1e-5)
    np.testing.assert_allclose(b.theta, a.theta / 2, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(b.coefficients, a.coefficients, rtol=1e-5, atol=1e-7)


@few
@given(seeds)
def test_weights_are_copies_given_the_variances(seed):
    """A row of weight k tells about beta and b what k copies of it tell.

    Not about sigma: copies would show no spread. So at theta and sigma given.
    """
    from doors import exact

    columns = data(seed)
    k = np.random.default_rng(seed).integers(1, 4, N)
    k[-1] += (-k.sum()) % 16  # few numbers of rows
    copies = {name: np.repeat(v, k) for name, v in columns.items()}
    found = []
    for frame, weights in [(columns, k.astype(float)), (copies, None)]:
        formula = "y ~ x + (1 | g) + (1 | h)"
        design = design_from_formula(formula, frame, weights=weights)
        own = engine.build(design, Maximise(True))
        with jax.enable_x64(True):
            # of columns of mean square one under the weights, which copies change
            size = [float(f.T[0, 0]) for f in own.moments.factors]
            lam = own.problem.lambdas(np.array([0.8, 0.5]) * size)
            at = jax.jit(exact.marginal)(own.problem, lam)
        fixed = own.moments.fixed
        r2 = float(at.r2) * fixed.scale**2
        vcov = fixed.vcov(np.asarray(at.LQ), 1.0)
        found.append((fixed.beta(np.asarray(at.beta)), vcov, r2, float(at.log_det)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@few
@given(seeds)
def test_three_ways_to_write_independent_effects(seed):
    columns = data(seed)
    a = fit("y ~ x + (x || g)", columns)
    b = fit("y ~ x + (1 | g) + (0 + x | g)", columns)
    c = fit(
        columns["y"],
        np.column_stack([np.ones(N), columns["x"]]),
        groups={"g": columns["g"]},
        random_effects={"g": ["1", "x"]},
        random_data={"x": columns["x"]},
        correlated=False,
    )
    for other in (b, c):
        same(a, other)
        same_estimates(a, other)


@few
@given(seeds, st.booleans())
def test_coding_of_a_factor(seed, reml):
    """Other columns of the same space: REML moves by log |X'X|, nothing else."""
    columns = data(seed)
    columns["f"] = np.array(["a", "b", "c"])[columns["k"] % 3]
    a = fit("y ~ f + (1 | g)", columns, reml=reml)
    for right in ("C(f, contr.sum)", "0 + f"):
        b = fit(f"y ~ {right} + (1 | g)", columns, reml=reml)
        sizes = [np.linalg.slogdet(m.design.X.T @ m.design.X)[1] for m in (a, b)]
        same(a, b, reml * (sizes[1] - sizes[0]))
        np.testing.assert_allclose(b.theta, a.theta, rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(b.fitted_values, a.fitted_values, atol=1e-5)


@contextlib.contextmanager
def no_padding():
    with contextlib.ExitStack() as patched:
        for module in (build, alike):
            own = mock.patch.object(module, "bucket", lambda size, steps=8: size)
            patched.enter_context(own)
        yield


@few
@given(seeds, st.sampled_from([SLOPE, CROSSED, NESTED]))
def test_padding_is_none(seed, formula):
    columns = data(seed)
    columns["g"] = np.minimum(columns["g"], G - 2)  # seven levels, in a bucket of eight
    a = fit(formula, columns)
    with no_padding():
        b = fit(formula, columns)
    assert max(b.engine.moments.sizes) < max(a.engine.moments.sizes) or min(
        b.engine.moments.sizes
    ) < min(a.engine.moments.sizes)
    same(a, b)
    same_estimates(a, b)


@few
@given(seeds)
def test_structures_agree(seed):
    """nested = arrow = dense, from the same start."""
    design = design_from_formula(NESTED, data(seed))
    found = {}
    for structure in ("nested", "arrow", "arrow-sparse", "dense"):
        own = engine.build(design, Maximise(True), structure)
        fitted, criterion = own.fit(1e-10)
        lam = engine.lambdas(own.problem, fitted.theta)
        found[structure] = criterion, [x @ x.T for x in lam], fitted.beta
    criterion, sigma, beta = found.pop("dense")
    for name, (value, other, b) in found.items():
        np.testing.assert_allclose(value, criterion, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(b, beta, rtol=1e-4, atol=1e-6, err_msg=name)
        for ours, theirs in zip(other, sigma, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_designs_have_what_they_claim():
    columns = data(0)
    assert len(np.unique(columns["k"])) > 8
    design = design_from_formula(NESTED, columns)
    own = engine.build(design, Maximise(True))
    assert type(own.problem.system).__name__ == "Nested"
    with pytest.raises(AssertionError):  # the comparison can fail
        same(fit(ONE, columns), fit(SLOPE, columns))
