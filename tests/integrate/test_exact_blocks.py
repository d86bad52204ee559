"""The marginal by blocks against a dense matrix, its derivatives by a complex step.

The dense twin is written here: V from its definition, the profiled criterion from
determinants and inverses. A complex step differentiates it, and the score.
"""

import jax
import numpy as np
import pytest
from doors import (
    BY_VISIT,
    BlockEffect,
    BlockRows,
    MarginalProblem,
    Pairs,
    Stack,
    arrange,
    exact_blocks,
    fewest,
    named,
    on_host,
)
from doors import residual_PLACES as PLACES
from doors import residuals_correlation as correlation

VISITS, SUBJECTS, STEP = 4, 11, 1e-30
KINDS = {
    "visits": {},
    "groups": {"groups": 2},
    "own rows": {"own": True},
    "random effects": {"effects": True},
    "subjects in levels": {"effects": True, "nested": True},
}


def rows_of(name, groups=1, own=False, effects=False, nested=False):
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(SUBJECTS), VISITS)
    position = np.tile(np.arange(VISITS), SUBJECTS)
    keep = rng.random(len(block)) > 0.2
    block, position = block[keep], position[keep]
    n = len(block)
    times = position[:, None].astype(float)
    if PLACES.get(name) == "number":
        times = times + (rng.random((n, 1)) if own else 0.1 * times**2)
    scales = np.eye(VISITS)[position] if name in BY_VISIT else np.ones((n, 1))
    if own:
        scales = np.concatenate([scales, 0.3 * rng.normal(size=(n, 1))], axis=1)
    z = np.stack([np.ones(n), position - 2.0], axis=1)
    terms = ((z, block // 3 if nested else block),) if effects else ()
    known = BlockRows(
        block // 3 if nested else block,
        block,
        position,
        times,
        block % groups,
        groups,
        scales,
        terms,
    )
    X = np.stack([np.ones(n), rng.normal(size=n), position], axis=1)
    return known, np.concatenate([X, rng.normal(size=(n, 1))], axis=1)


def problem_of(name, known, rows, nugget=False):
    stacks = []
    for a in arrange(known):
        blocks, pattern = fewest(a.padded(rows), a.pattern, a.mask)
        if known.effects:
            blocks, pattern = a.padded(rows), a.pattern
        effects = tuple(BlockEffect(z, same) for z, same in a.effects)
        pairs = Pairs(a.position, a.lag, a.within)
        count = a.count.astype(float)
        made = (a.scales, pairs, a.group, effects, a.mask, a.template, count)
        stacks.append(Stack(*made, blocks, pattern))
    own = correlation(name, VISITS, nugget)
    covariances = (named("us", 2),) if known.effects else ()
    n = float(len(rows))
    return MarginalProblem(tuple(stacks), n, np.zeros(0), 0.0, 0.0, own, covariances)


def dense_covariance(problem, known, theta):
    """V of all rows, from the definition."""
    same = known.subject[:, None] == known.subject
    apart = known.times[:, None] - known.times[None]
    lag = np.sqrt(np.sum(apart**2, axis=-1))
    V = 0.0
    for g in range(known.n_groups):
        own = theta[g * problem.each : (g + 1) * problem.each]
        s = known.scales @ own[: problem.n_scales]
        R = np.eye(len(s))
        if problem.correlation is not None:
            pairs = Pairs(known.position[None], lag[None])
            R = problem.correlation.tables(own[problem.n_scales :], pairs)[0][0]
        here = known.group == g
        V = V + np.exp(s[:, None] + s) * R * same * np.outer(here, here)
    for z, level in known.effects:
        a, b, c = theta[problem.n_residual :]
        U = z @ np.array([[a, 0 * a], [b, c]])
        V = V + (U @ U.T) * (level[:, None] == level)
    return V


def dense_criterion(problem, known, rows, theta, reml):
    V = dense_covariance(problem, known, theta)
    X, y = rows[:, :-1], rows[:, -1]
    W = np.linalg.inv(V)
    Q = X.T @ W @ X
    e = y - X @ np.linalg.solve(Q, X.T @ W @ y)
    d = np.log(np.linalg.det(V)) + e @ W @ e
    n = len(y) - (X.shape[1] if reml else 0)
    d = d + n * np.log(2 * np.pi)
    return d + np.log(np.linalg.det(Q)) if reml else d


def by_complex_step(function, theta):
    eye = np.eye(len(theta))
    return np.array([np.imag(function(theta + 1j * STEP * e)) / STEP for e in eye])


def made(name, kind, nugget=False):
    known, rows = rows_of(name, **KINDS[kind])
    problem = problem_of(name, known, rows, nugget)
    theta = 0.2 * np.random.default_rng(5).normal(size=problem.m)
    return known, rows, problem, theta


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*PLACES, ""])
def test_value_score_and_hessian_are_the_dense_ones(name, kind):
    known, rows, problem, theta = made(name, kind)
    with on_host():
        for reml in (True, False):
            d = exact_blocks.derivatives(problem, theta, reml)

            def dense(x, reml=reml):
                return dense_criterion(problem, known, rows, x, reml)

            def score(x, reml=reml):
                return exact_blocks.derivatives(problem, x, reml).score

            assert abs(d.value - dense(theta)) < 1e-9
            scale = 1 + np.abs(d.score).max()
            assert np.abs(d.score - by_complex_step(dense, theta)).max() < 1e-9 * scale
            exact = by_complex_step(score, theta)
            assert np.abs(d.hessian - exact).max() < 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["car1", "sp_exp", "sp_gau"])
def test_a_nugget(name):
    known, rows, problem, theta = made(name, "own rows", nugget=True)
    with on_host():
        d = exact_blocks.derivatives(problem, theta, True)
        exact = by_complex_step(
            lambda x: exact_blocks.derivatives(problem, x, True).score, theta
        )
        dense = dense_criterion(problem, known, rows, theta, True)
    assert abs(d.value - dense) < 1e-9
    assert np.abs(d.hessian - exact).max() < 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize("name", [*PLACES, ""])
def test_second_derivatives_of_covariances(name):
    """Those that Kenward and Roger's method sums, by a complex step of the first."""
    _, _, problem, theta = made(name, "groups")
    W = np.random.default_rng(1).normal(size=(problem.m, problem.m))
    W = W + W.T
    with on_host():
        for stack in problem.stacks:
            second = by_complex_step(lambda x, s=stack: problem.tables(x, s)[1], theta)
            expected = np.einsum("ab,abgij->gij", W, second)
            found = problem.second(theta, stack, W)
            assert np.abs(found - expected).max() < 1e-9 * (1 + np.abs(expected).max())


@pytest.mark.parametrize("kind", ["visits", "random effects"])
def test_programs_give_the_same(kind):
    _, _, problem, theta = made("us", kind)
    with on_host():
        here = exact_blocks.derivatives(problem, theta, True)
    with jax.enable_x64(True):
        there = jax.jit(exact_blocks.derivatives, static_argnums=2)(
            problem, theta, True
        )
    np.testing.assert_allclose(there.value, here.value, rtol=1e-12)
    np.testing.assert_allclose(there.score, here.score, rtol=0, atol=1e-10)
    np.testing.assert_allclose(there.hessian, here.hessian, rtol=0, atol=1e-9)


def test_fewer_blocks_have_the_same_sums():
    """Subjects that differ in two columns are as few as their rank."""
    rng = np.random.default_rng(0)
    n, T = 300, 3
    arm, x = rng.integers(0, 2, n), rng.normal(size=n)
    visit = np.eye(T)
    X = np.concatenate(
        [
            np.tile(visit, (n, 1, 1)),
            arm[:, None, None] * visit,
            x[:, None, None] + 0 * visit[:, :1],
        ],
        axis=2,
    )
    rows = np.concatenate([X, rng.normal(size=(n, T, 1))], axis=2)
    few, pattern = fewest(rows, np.zeros(n, int), np.ones((1, T)))
    assert len(few) <= 3 + T
    assert (pattern == 0).all()
    np.testing.assert_allclose(
        np.einsum("ntc,nsd->tcsd", few, few),
        np.einsum("ntc,nsd->tcsd", rows, rows),
        atol=1e-9,
    )


def test_a_covariance_that_is_not_definite_is_not_finite():
    _, _, problem, theta = made("toep", "visits")
    theta[problem.n_scales :] = [3.0, -3.0, 3.0]
    with on_host():
        assert not np.isfinite(exact_blocks.derivatives(problem, theta, True).value)
