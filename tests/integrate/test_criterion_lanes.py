"""Lanes by types of levels: the criterion and its derivatives are those of one fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import TermColumns, Unstructured, assemble, build, exact, information, named
from doors import exact_one_factor as crit
from doors import level_types as grouped
from doors import linear_lanes as linear
from doors import per_dataset_design as own
from doors import shared_design as shared
from numerics.tolerance import assert_close

pytestmark = pytest.mark.usefixtures("always_compiled")

L = 3
CASES = {  # q, p, balanced
    "intercepts": (1, 2, False),
    "no fixed effects": (1, 0, True),
    "slopes": (2, 2, True),
    "three columns": (3, 1, False),
    "independent": (2, 1, False),
}


@functools.cache
def setting(name):
    """A design, L responses, its problem, and one theta a lane."""
    q, p, balanced = CASES[name]
    rng = np.random.default_rng(5)
    J, rows = 8, 6
    codes = np.repeat(np.arange(J, dtype=np.int32), rows)
    time = np.tile(np.linspace(-1, 1, rows), J)
    noise = rng.normal(size=len(codes))
    columns = [np.ones(len(codes)), time, time**2 if balanced else noise]
    if not balanced:
        columns[1] = rng.normal(size=len(codes))
    Z = np.column_stack(columns[:q])
    X = np.column_stack(columns[:p]) if p else np.zeros((len(codes), 0))
    kind = "diag" if name == "independent" else "us"
    Y = rng.normal(size=(len(codes), L)) + rng.normal(size=(J, L))[codes]
    m = build(Y[:, 0], X, [TermColumns("g", codes, Z, J, named(kind, q))], None)
    covariance = m.factors[0].covariance
    theta = 0.5 + 0.2 * rng.normal(size=(covariance.m, L))
    theta[-1, 0] = 0.0  # next to the boundary
    return m, Y, covariance, theta


def lanes_of(name, with_types=True):
    m, Y, _, _ = setting(name)
    rows, groups = jax.device_put(shared.rows(m))
    if not with_types:  # every lane its own, every level its own type
        A = np.asarray(m.system.A)
        zeros = np.zeros(L)
        groups = grouped.Groups(
            None,
            jnp.asarray(A[..., None] + zeros),
            jnp.asarray(m.ZX[0][..., None] + zeros),
            jnp.asarray(m.XX[..., None] + zeros),
            jnp.asarray(m.n + zeros),
        )
        found = [m.respond(y) for y in Y.T]
        y = np.stack([x.Zy[0] for x in found], -1)
        sums = grouped.Sums(
            jnp.asarray(y),
            jnp.asarray(y[:, None] * y[None]),
            jnp.asarray(np.stack([x.Xy for x in found], -1)),
            jnp.asarray([x.yy for x in found]),
        )
        return groups, sums
    return groups, shared.prepare(rows, Y).sums


def problem_of(name, k):
    m, Y, _, _ = setting(name)
    return jax.device_put(assemble.problem(m.respond(Y[:, k])))


@pytest.mark.parametrize("with_types", [True, False])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_value_score_and_curvature(name, reml, with_types):
    _, _, covariance, theta = setting(name)
    g, r = lanes_of(name, with_types)
    theta = jnp.asarray(theta)
    value, score, H, D = linear._derivatives(g, r, theta, covariance, reml)
    for k in range(L):
        found = exact.profiled_derivatives(
            problem_of(name, k), jnp.asarray(theta[:, k]), reml
        )
        here = (value[k], score[:, k], H[:, :, k], D[:, k])
        digits = (1, 3, 3, 3)
        for a, b, d, what in zip(
            here, found, digits, ["value", "score", "H", "D"], strict=False
        ):
            # Jacobi rotations are stopped early: the curvature is a stand-in
            if what == "H" and CASES[name][0] == 3:
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
                continue
            assert_close(a, b, f"{what} of lane {k}", d)


def test_balanced_designs_have_one_type():
    for name, types in (("slopes", 1), ("no fixed effects", 1), ("intercepts", 8)):
        g, _ = lanes_of(name)
        assert g.A.shape[2] == types, name
    rng = np.random.default_rng(0)
    A = np.repeat(rng.normal(size=(1, 1, 3)), 2, axis=2)
    X = np.zeros((1, 2, 6))
    assert grouped.types(A, X).tolist() == [0, 0, 1, 1, 2, 2] or (
        len(set(grouped.types(A, X).tolist())) == 3
    )
    assert grouped.types(np.zeros((1, 1, 4)), np.zeros((1, 0, 4))).max() == 0


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", ["slopes", "intercepts", "three columns"])
def test_degrees_of_freedom_from_the_exact_hessian(name, reml):
    m, _, covariance, theta = setting(name)
    theta = np.where(theta == 0.0, 0.4, theta)
    g, r = lanes_of(name)
    theta = jnp.asarray(theta)
    at = crit.marginal(g, r, list(theta), covariance)
    back = m.fixed.R_inverse
    told = linear._inference(
        g, theta, at, jnp.asarray(back[..., None]), covariance, reml
    )
    df, se, df_sigma, unsure = told.df, told.se, told.df_sigma, told.unsure
    for k in range(L):
        problem = problem_of(name, k)
        lam = problem.lambdas(jnp.asarray(theta[:, k]))
        s2 = exact.marginal(problem, lam).r2 / exact.degrees(problem, reml)
        found = information.curvature(problem, jnp.asarray(theta[:, k]), s2, reml)
        H = np.asarray(found.hessian)
        if np.linalg.eigvalsh(H)[0] <= 0:  # away from an optimum it may be indefinite
            assert unsure[k] == 1
            continue
        A = 2 * np.linalg.inv(H)
        C = np.einsum("ja,ab,jb->j", back, found.vcov, back)
        grad = np.einsum("ja,abk,jb->jk", back, found.dvcov, back)
        expected = 2 * C**2 / np.einsum("jk,kl,jl->j", grad, A, grad)
        assert_close(se[:, k], np.sqrt(C), "se", 3)
        assert_close(df[:, k], expected, "df", 5)
        assert_close(df_sigma[k], 2 / A[-1, -1], "df of sigma", 5)


def test_eigenvalues_by_jacobi():
    rng = np.random.default_rng(1)
    G = rng.normal(size=(3, 3, 5))
    G = G + np.swapaxes(G, 0, 1)
    G[:, :, 4] = np.diag([1.0, -2.0, 0.0])
    rows = [[jnp.asarray(G[i, j]) for j in range(3)] for i in range(3)]
    part = np.array([[np.asarray(x) for x in row] for row in crit.positive_part(rows)])
    for k in range(5):
        values, vectors = np.linalg.eigh(G[:, :, k])
        expected = (vectors * np.maximum(values, 0)) @ vectors.T
        np.testing.assert_allclose(part[:, :, k], expected, atol=1e-6)


def test_own_coordinates_are_those_of_a_single_fit():
    """Weights and missing rows: the cross-products of ``build`` for that data set."""
    m, Y, _, _ = setting("slopes")
    rng = np.random.default_rng(2)
    (factor,) = m.factors
    n, J = len(Y), factor.n_levels
    W = rng.uniform(0.5, 2, size=(n, L))
    W[:2, 1], W[10, 2] = 0.0, 0.0
    rows = own.DesignRows(m.basis.whole, factor.values.T, None, factor.codes, J)
    raw = own.weigh(jax.device_put(rows), jnp.asarray(Y), jnp.asarray(W))
    local = own.localise(raw, ((0, 2, True),))
    Z = factor.values @ factor.T
    X = m.basis.whole @ m.fixed.R
    for k in range(L):
        single = build(
            Y[:, k],
            X,
            [TermColumns("g", factor.codes, Z, J, Unstructured(Z.shape[1]))],
            W[:, k],
        )
        back = m.fixed.R_inverse @ np.asarray(local.back[:, :, k])
        assert_close(back, single.fixed.R_inverse, "R^-1", 3)
        T = factor.T_inverse @ np.asarray(local.T_inverse[:, :, k])
        assert_close(T, single.factors[0].T_inverse, "T^-1", 3)
        assert_close(local.groups.A[:, :, :J, k], single.system.A[..., :J], "A", 4)
        assert_close(local.groups.X[:, :, :J, k], single.ZX[0][..., :J], "Z'X", 4)
        assert_close(local.sums.y[:, :J, k], single.Zy[0][..., :J], "Z'y", 4)
        assert_close(raw.scale[k], single.fixed.scale, "scale", 3)
        assert_close(raw.log_weights[k], single.log_weights, "log weights", 3)
        assert raw.n[k] == single.n
