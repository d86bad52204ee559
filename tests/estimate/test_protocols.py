"""Every preset by every structure: shapes, finite values, status, jit, vmap, pickle."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    AbstractEstimator,
    AbstractFactor,
    AbstractSystem,
    Fitted,
    _status,
    fit_compiled,
)
from structure import designs

import jaxglmm as jg

PRESETS = {"ml": jg.ML, "reml": jg.REML}
NAMES = ("one", "nested", "crossed-3")
EVERY = pytest.mark.parametrize("name", NAMES)


@functools.cache
def problem(name):
    layout = designs.BY_NAME[name]
    return designs.on_device(
        designs.rows(layout, padded=True).moments(layout.structure)
    )


@functools.cache
def fitted(name, preset):
    """By the one compiled function, and by vmap over two responses."""
    estimator, own = PRESETS[preset](), problem(name)
    tol, steps = np.float64(1e-10), np.int64(200)
    alone = fit_compiled(estimator, own, tol, steps)

    def scaled(factor):
        B = tuple(b.at[:, -1].multiply(factor) for b in own.B)
        RR = own.RR.at[-1].multiply(factor).at[:, -1].multiply(factor)
        Zy = tuple(b[:, -1] for b in B)
        return estimator.fit(
            own.with_response(Zy, RR[-1, :-1], RR[-1, -1]), None, tol, steps
        )

    # one lane at a time where LAPACK would be batched (see ``numerics.wide``)
    unrolled = name in ("one", "nested")
    many = jax.vmap(scaled) if unrolled else functools.partial(jax.lax.map, scaled)
    return alone, jax.jit(many)(jnp.array([1.0, 3.0]))


@EVERY
@pytest.mark.parametrize("preset", PRESETS)
def test_fitted(name, preset):
    own = problem(name)
    found, many = fitted(name, preset)
    m = own.m
    shapes = {
        "theta": (m,),
        "beta": (own.p,),
        "LQ": (own.p, own.p),
        "sigma2": (),
        "criterion": (),
        "decrement": (),
        "steps": (),
        "status": (),
    }
    for field, shape in shapes.items():
        value = getattr(found, field)
        assert value.shape == shape, field
        assert np.isfinite(value).all(), field
        assert getattr(many, field).shape == (2, *shape), field
    for b, B in zip(found.b, own.B, strict=True):
        assert b.shape == (B.shape[0], 1, B.shape[-1])
        assert np.isfinite(b).all()
    assert found.status == _status.CONVERGED
    assert 0 < found.steps < 60
    assert abs(found.decrement) < 1e-4
    assert found.sigma2 > 0


@EVERY
@pytest.mark.parametrize("preset", PRESETS)
def test_lanes_of_another_unit(name, preset):
    """y and 3 y in two lanes: the first is the fit alone, the second known from it."""
    found, many = fitted(name, preset)
    N = float(problem(name).n) - (problem(name).p if preset == "reml" else 0)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    close(many.criterion[0], found.criterion, rtol=1e-9)
    close(many.criterion[1], found.criterion + 2 * N * np.log(3), rtol=1e-9)
    close(many.beta[1], 3 * np.asarray(found.beta))
    close(many.sigma2[1], 9 * np.asarray(found.sigma2))
    assert (np.asarray(many.status) == _status.CONVERGED).all()


@EVERY
@pytest.mark.parametrize("preset", PRESETS)
def test_pickle(name, preset):
    found = jax.device_get(fitted(name, preset)[0])
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, Fitted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


@EVERY
def test_a_problem_is_a_pytree(name):
    own = problem(name)
    leaves, structure = jax.tree.flatten(own)
    assert all(isinstance(x, jax.Array) for x in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert again.covariances == own.covariances
    assert hash(structure) == hash(jax.tree.structure(again))  # a key for compilations
    copy = pickle.loads(pickle.dumps(jax.device_get(own)))
    assert jax.tree.structure(copy) == structure


def subclasses(kind):
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


@pytest.mark.parametrize("kind", [AbstractSystem, AbstractFactor, AbstractEstimator])
def test_abstract_or_final(kind):
    """One level of inheritance: a class is one or the other."""
    final = [sub for sub in subclasses(kind) if not sub.__name__.startswith("Abstract")]
    assert final
    for sub in final:
        assert sub.__subclasses__() == []
        assert not sub.__abstractmethods__
