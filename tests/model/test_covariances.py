"""Every covariance keeps the promises of its interface; names; the table of them."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    Diagonal,
    FactorAnalytic,
    Homogeneous,
    SideBySide,
    Unstructured,
    base,
    covariances,
    names,
    on_host,
)
from doors import formula_structures as structures
from model.compound_symmetry import CompoundSymmetry

KINDS = [
    Diagonal(1),
    Unstructured(3),
    Diagonal(3),
    CompoundSymmetry(2),
    CompoundSymmetry(4),
    SideBySide((Unstructured(2), CompoundSymmetry(3), Diagonal(2))),
    Homogeneous(3),
    FactorAnalytic(4, 2),
    *(covariances.named(kind, 4) for kind in ("cs", "homcs", "ar1", "hetar1")),
    *(covariances.named(kind, 4) for kind in ("toep", "homtoep")),
    covariances.named("ou(0;1.5;2;5)", 4),
    covariances.named("exp(0 0;1 0.4;0.2 2)", 3),
    covariances.named("gau(0 0;1 0.4;0.2 2)", 3),
    covariances.named("mat(0;1.5;2)", 3),
    SideBySide((covariances.named("ar1", 3), Diagonal(1), FactorAnalytic(3, 1))),
]
EVERY = pytest.mark.parametrize("covariance", KINDS, ids=repr)


def thetas(covariance, *shape):
    rng = np.random.default_rng(5)
    theta = 0.4 * rng.normal(size=(*shape, covariance.m))
    return np.where(covariance.is_scale, 1.0 + theta / 4, theta)


def has_kernel(covariance):
    return "coordinates" in repr(covariance)


@EVERY
def test_sizes(covariance):
    q, theta = covariance.q, thetas(covariance)
    assert len(covariance.values(list(theta))) == len(covariance.entries)
    assert len(covariance.bounds) == len(covariance.is_scale) == covariance.m
    assert all(i >= j for i, j in covariance.entries)
    whole = {(i, i) for i in range(q)} <= set(covariance.entries)
    assert whole or "FactorAnalytic" in repr(covariance)
    assert all(lower < upper for lower, upper in covariance.bounds)
    for known, (lower, _) in zip(covariance.is_scale, covariance.bounds, strict=True):
        assert known == (lower == 0) or "FactorAnalytic" in repr(covariance)


@EVERY
def test_from_theta_to_lambda_and_back(covariance):
    theta = thetas(covariance, 3)
    lam = covariance.matrix(theta)
    assert lam.shape == (3, covariance.q, covariance.q)
    assert not np.triu(lam, 1).any()
    flat = (
        1e-3
        if "MaternKernel" in repr(covariance)
        else 1e-9
        if has_kernel(covariance)
        else 1e-12
    )
    np.testing.assert_allclose(covariance.theta(lam), theta, rtol=flat)
    for row, one in zip(theta, lam, strict=True):
        np.testing.assert_allclose(covariance.matrix(row), one, rtol=1e-15)
    device = base.lambdas(jnp.asarray(theta[0]), (covariance,))[0]
    np.testing.assert_allclose(device, lam[0], rtol=1e-13)
    packed = base.pack((device,), (covariance,))
    entries = [lam[0][at] for at in covariance.entries]
    np.testing.assert_allclose(packed, entries, rtol=1e-13)


@EVERY
def test_columns_that_are_not_correlated_are_not(covariance):
    lam = covariance.matrix(thetas(covariance))
    cov = lam @ lam.T
    q = covariance.q
    others = {(i, j) for j in range(q) for i in range(j + 1, q)} - {*covariance.pairs}
    for i, j in others:
        assert cov[i, j] == 0
    for i, j in covariance.pairs:
        assert cov[i, j] != 0


@EVERY
def test_it_starts_at_given_standard_deviations(covariance):
    """Uncorrelated, where it can be; of one sd for all at their mean square."""
    sd = np.array([1.0 + 0.1 * i for i in range(covariance.q)])
    lam = covariance.matrix(np.array(covariance.start(list(sd))))
    if "FactorAnalytic" in repr(covariance):
        assert np.isfinite(lam).all()
        return
    if len(set(covariance.sharing)) == 1:
        sd = np.full(len(sd), np.sqrt(np.mean(sd**2)))
    cov = lam @ lam.T
    np.testing.assert_allclose(np.diagonal(cov), sd**2, rtol=1e-10)
    if not has_kernel(covariance):
        np.testing.assert_allclose(cov, np.diag(sd**2), atol=1e-14)


@EVERY
def test_jacobian_and_second_derivatives(covariance):
    """Of lanes all at once, as automatic differentiation has them lane by lane.

    Of one model by matrices, in NumPy too.
    """
    theta = thetas(covariance, 2)
    slopes = np.random.default_rng(1).normal(size=(2, len(covariance.entries)))

    def entries(x):
        return base.values(x, (covariance,))

    def twin(x):
        return entries(x), jax.jacfwd(entries)(x), jax.hessian(entries)(x)

    @jax.jit
    def program(theta):
        whole = [base.jacobian(x, (covariance,)) for x in theta]
        return covariance.jacobian(list(theta.T)), whole, *jax.vmap(twin)(theta)

    J, whole, values, first, second = program(theta)

    def bends(theta, slopes):
        return covariance.bend(list(theta.T), list(slopes.T))

    with on_host():  # whole fits have it as a program, which takes long to compile
        bend = bends(theta, slopes)
    traced = jax.eval_shape(bends, theta, slopes)
    assert jax.tree.structure(traced) == jax.tree.structure(bend)
    assert (J is None) == (bend is None) == covariance.free
    for lane, (x, s) in enumerate(zip(theta, slopes, strict=True)):
        expected = first[lane]
        if J is None:
            np.testing.assert_array_equal(expected, np.eye(covariance.m))
            assert whole[lane] is None
            continue
        here = np.array([[v[lane] for v in row] for row in J])
        np.testing.assert_allclose(here, expected, atol=1e-9)
        np.testing.assert_allclose(whole[lane], expected, atol=1e-12)
        with on_host():
            host = base.jacobian(x, (covariance,))
            own = base.values(x, (covariance,))
            bent = covariance.bend_matrix(list(x), s)
        np.testing.assert_allclose(host, expected, atol=1e-12)
        np.testing.assert_allclose(own, values[lane], atol=1e-12)
        curve = np.einsum("e,eab->ab", s, second[lane])
        here = np.array([[v[lane] for v in row] for row in bend])
        np.testing.assert_allclose(here, curve, atol=1e-8)
        bent = np.zeros_like(curve) if bent is None else bent
        np.testing.assert_allclose(bent, curve, atol=1e-8)


@EVERY
def test_a_key_for_programs(covariance):
    again = pickle.loads(pickle.dumps(covariance))
    assert again == covariance
    assert hash(again) == hash(covariance)
    assert len({repr(x) for x in KINDS}) == len(set(KINDS)) == len(KINDS)


def test_one_name_for_what_is_the_same():
    """Programs are compiled for a covariance: equal ones have to share them."""
    assert covariances.named("diag", 1) == covariances.named("us", 1)
    assert Diagonal(1).beside([Diagonal(1), Diagonal(2)]) == Diagonal(4)
    assert Diagonal(2).beside([]) == Diagonal(2)
    mixed = Unstructured(2).beside([Diagonal(1)])
    assert mixed.entries == ((0, 0), (1, 0), (1, 1), (2, 2))


def test_the_table_has_what_formulas_can_say():
    assert {*structures.WORDS, "known", "te"} == {*covariances.REGISTRY}
    inside = {"te": "te(0 1 1;1 1 0)"}  # of two margins, by their penalties
    for name in covariances.REGISTRY:
        assert covariances.named(inside.get(name, name), 3).q == 3


def test_names():
    columns = ["(Intercept)", "x", "a|b"]
    us = Unstructured(3)
    assert us.sd_names(columns, "g") == ["sd_(Intercept)|g", "sd_x|g", "sd_a|b|g"]
    assert us.correlation_names([*columns[:2], "z"], "g") == [
        "cor_x.(Intercept)|g",
        "cor_z.(Intercept)|g",
        "cor_z.x|g",
    ]
    four = ["a", "b", "c", "d"]
    by_row = Unstructured(4).correlation_names(four, "g", by_row=True)
    assert by_row[2:4] == ["cor_c.b|g", "cor_d.a|g"]
    assert Unstructured(4).correlation_names(four, "g")[2] == "cor_d.a|g"
    assert Diagonal(3).correlation_names(columns, "g") == []
    found = map(names.kind, ["sd_x|g", "cor_x.y|g", "sigma", "sd_x", "x|g"])
    assert [*found] == ["sd", "cor", None, None, None]


BESIDE = SideBySide((covariances.named("ou(0;1.5;2;5)", 4), Diagonal(1)))


@pytest.mark.parametrize("covariance", [*KINDS, BESIDE], ids=repr)
@pytest.mark.filterwarnings("error")
def test_matrices_on_the_host_are_double_wherever_they_are_made(covariance):
    theta = thetas(covariance)
    here = covariance.matrix(theta)
    with jax.enable_x64(False):
        there = covariance.matrix(theta)
        again = covariance.theta(there)
    assert there.dtype == again.dtype == float
    np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("kind", ["exp", "gau"])
def test_a_range_is_read_from_a_pair_that_tells(kind):
    """The nearest two of irregular positions are correlated by one, but for digits."""
    places = [(0.0, 0.0), (1e-4, 0.0), (2.0, 1.0), (5.0, 3.0)]
    text = ";".join(f"{x} {z}" for x, z in places)
    covariance = covariances.named(f"{kind}({text})", 4)
    theta = covariance.from_natural(np.array([0.7, 3.0]))
    lam = covariance.matrix(np.stack([theta, theta]))
    found = covariance.natural(lam @ np.swapaxes(lam, -1, -2))[1]
    np.testing.assert_allclose(found, 3.0, rtol=1e-9)
