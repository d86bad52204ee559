"""Lanes of models of several predictors and dispersions are the fits of one, each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    LaneRows,
    generalised_lanes,
    integrator,
    laplace,
    laplace_derivatives,
    quadrature,
    tree_at,
)
from doors import estimate_generalised as estimate
from doors import hessian as exact
from doors import laplace_derivatives_lanes as lanes
from integrate import test_predictors as toys

L = 2
SEEDS = {"contaminated": (4, 5)}  # data with one mode of the effects


@functools.cache
def setting(family, kind):
    """Problems of several responses, and the same as lanes."""
    seeds = SEEDS.get(family.name, (1, 2))
    first, *_ = toys.case(family, kind, seeds[0])
    problems, starts = [first], []
    for seed in seeds:
        other, start, _ = toys.case(family, kind, seed)
        starts.append(start)
        if seed != seeds[0]:  # its response, on the design of the first
            shuffle = other.rows.codes[0] == first.rows.codes[0]
            assert bool(jnp.all(shuffle))
            problems.append(tree_at(lambda p: p.y, first, other.y))
    folded = [p.folded() for p in problems]
    (one, *_), shape = folded, folded[0].y.shape

    def last(x, *to):
        x = jnp.asarray(x)
        return x.reshape(*x.shape[: x.ndim - len(shape)], *shape)[..., None]

    of = one.rows.of
    d = LaneRows(
        last(one.X),
        last(one.rows.z[0]),
        jnp.stack([p.y for p in folded], axis=-1),
        last(jnp.broadcast_to(one.trials, shape)),
        last(one.weights),
        last(one.offset),
        family,
        predictors=one.predictors,
        of=None if of is None else of[0],
    )
    (covariance,) = one.covariances
    split = lanes.Split(one.p, covariance, family.n_phi)
    return problems, folded, starts, d, split


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


CASES = toys.table(
    [(toys.ZeroInflated(), "same"), (toys.TwoDispersions(), "mean")],
    [
        (toys.LocationScale(), "slope"),
        (toys.Fisher(), "same"),
        (toys.Contaminated(), "slope"),
    ],
)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_points(family, kind):
    """Value, score, curvature, and how the modes move, off the mode."""
    problems, folded, _, d, split = setting(family, kind)
    psi = jnp.stack([toys.somewhere(problems[0], seed) for seed in (3, 4)], axis=1)
    rng = np.random.default_rng(0)
    u = 0.2 * jnp.asarray(rng.normal(size=(d.q, d.shape[1], L)))
    change = 1e-2 * jnp.asarray(rng.normal(size=psi.shape))
    for truly in (False, True):
        found = jax.jit(lanes.evaluate, static_argnums=1)(
            d, split, psi, u, jnp.full(L, truly)
        )
        follow = lanes.moved(split, found, change)
        for k in range(L):
            terms = laplace_derivatives.terms_of(folded[k])
            mode = (u[:, None, :, k],)
            at = laplace_derivatives.evaluate(folded[k], terms, psi[:, k], mode, truly)
            assert bool(at.valid) == bool(found.valid[k])
            if not np.isfinite(at.nu):  # M is not positive definite
                assert truly
                assert not np.isfinite(found.nu[k])
                continue
            names = ["value", "score", "curvature", "scale", "nu"]
            for name in names:
                own = getattr(found, name)[..., k]
                size = np.abs(own).max()
                np.testing.assert_allclose(
                    own, getattr(at, name), rtol=1e-9, atol=1e-10 * size, err_msg=name
                )
            (there,) = laplace_derivatives.moved(folded[k], at, change[:, k])
            np.testing.assert_allclose(follow[:, :, k], there[:, 0], atol=1e-10)


@pytest.mark.slow
def test_quadrature():
    family = toys.ZeroInflated()
    problems, folded, _, d, split = setting(family, "same")
    psi = jnp.stack([toys.somewhere(problems[0], seed) for seed in (3, 4)], axis=1)
    zero, modes = estimate.zeros(problems[0]), []
    for k in range(L):
        beta, theta, phi = problems[k].split(psi[:, k])
        lam = problems[k].lambdas(theta)
        modes.append(laplace.find_mode(problems[k], beta, lam, phi, zero).u[0][:, 0])
    u = jnp.stack(modes, axis=-1)
    at = lanes.evaluate(d, split, psi, u, jnp.ones(L, bool))
    value, score = quadrature.improve_lanes(d, split, psi, at, u, 5)
    for k in range(L):
        terms, mode = laplace_derivatives.terms_of(folded[k]), (u[:, None, :, k],)
        here = laplace_derivatives.evaluate(folded[k], terms, psi[:, k], mode)
        better = quadrature.improve(folded[k], terms, psi[:, k], here, mode, 5)
        np.testing.assert_allclose(value[k], better.value, rtol=1e-11)
        np.testing.assert_allclose(score[:, k], better.score, atol=1e-8)


def polished(marginal, problem, psi, u):
    """psi after Newton steps with the exact Hessian, and that."""
    for _ in range(2):
        H = exact.hessian(marginal, problem, psi, u)
        slope = exact.slope(marginal, problem, psi, u)
        psi = psi - np.linalg.solve(np.asarray(H), np.asarray(slope))
    return psi, exact.hessian(marginal, problem, psi, u)


@pytest.mark.parametrize(
    ("family", "kind", "nodes"),
    [
        pytest.param(*given.values, 1, id=given.id, marks=given.marks)
        for given in toys.table(
            [(toys.TwoDispersions(), "mean")],
            [
                (toys.ZeroInflated(), "same"),
                (toys.Fisher(), "same"),  # location and scale by its information
                (toys.Contaminated(), "slope"),  # these and a dispersion
            ],
        )
    ]
    + [
        pytest.param(toys.ZeroInflated(), "same", 5, id="nodes", marks=pytest.mark.slow)
    ],
)
def test_fits(family, kind, nodes):
    """Estimates, criterion and Hessian of a whole fit are those of one data set."""
    problems, _, starts, d, split = setting(family, kind)
    marginal = integrator("observed", nodes)
    fold = problems[0].rows.fold
    guess = jnp.stack([fold(eta) for eta, _ in starts], axis=-1)
    phi = jnp.stack([phi for _, phi in starts], axis=-1)
    run = jax.jit(generalised_lanes.fit, static_argnums=(0, 2))
    levels, back = jnp.array([8.0]), jnp.eye(d.p)[..., None]
    report = run(
        marginal, d, split.covariance, guess, phi, levels, 1e-10, 300, back, None
    )
    assert report.status.tolist() == [0] * L
    for k, (problem, (eta, phi_k)) in enumerate(zip(problems, starts, strict=True)):
        one = estimate.fit_compiled(marginal, problem, eta, phi_k, 1e-10, 300)
        assert int(one.status) == 0
        np.testing.assert_allclose(report.criterion[k], one.criterion, rtol=1e-9)
        psi, H = polished(marginal, problem, one.psi, one.u)
        sign = np.sign(psi) * np.sign(report.psi[:, k])
        np.testing.assert_allclose(sign * report.psi[:, k], psi, rtol=1e-8, atol=1e-8)
        own = report.hessian[..., k]
        np.testing.assert_allclose(own, H, rtol=1e-5, atol=1e-5 * np.abs(H).max())
