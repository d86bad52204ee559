"""Chains against the same blocks in full: values, solutions, traces, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import ChainSystem, Wide, base, named, on_host

Q, J, TIMES = 7, 5, "0;0.5;2;2.25;4;7;7.5"


def systems():
    rng = np.random.default_rng(3)
    A = rng.integers(0, 4, (Q, J)) * rng.uniform(0.2, 2.0, (Q, J))
    A[:, -1] = 0.0  # padding
    return ChainSystem(A), Wide(np.eye(Q)[:, :, None] * A[None])


CASES = {
    "ar1": ("ar1", [1.3, 0.7]),
    "negative": ("ar1", [0.4, -2.0]),
    "strong": ("ar1", [2.0, 50.0]),
    "ou": (f"ou({TIMES})", [0.8, 0.3]),
    "homdiag": ("homdiag", [0.9]),
    "none": ("ar1", [0.0, 0.7]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_blocks_in_full(case):
    word, theta = CASES[case]
    own = named(word, Q)
    assert own.is_chain
    lam = (own.matrix(np.array(theta)),)
    rng = np.random.default_rng(4)
    w, B = (rng.normal(size=(Q, 3, J)),), (rng.normal(size=(Q, 2, J)),)
    RR = np.eye(2)
    with on_host():
        chain, full = (s.factor(lam) for s in systems())
        np.testing.assert_allclose(chain.log_det(), full.log_det(), atol=1e-9)
        z = chain.forward(w)
        np.testing.assert_allclose(
            chain.backward(z)[0], full.backward(full.forward(w))[0], atol=1e-9
        )
        np.testing.assert_allclose(chain.gram(w), full.gram(w), atol=1e-9)
        for got, expected in zip(
            jax.tree.leaves(chain.project(B, RR)),
            jax.tree.leaves(full.project(B, RR)),
            strict=True,
        ):
            np.testing.assert_allclose(got, expected, atol=1e-9)
        known, whole = chain.selected(), full.selected()
        np.testing.assert_allclose(
            known.diagonal, np.einsum("iig->ig", whole), atol=1e-9
        )
        np.testing.assert_allclose(chain.traces(known)[0], full.traces()[0], atol=1e-9)
        np.testing.assert_allclose(
            chain.inverse_blocks()[0], full.inverse_blocks()[0], atol=1e-9
        )


def test_derivatives():
    """Of log |M| and of the sum of A N A along theta, compiled."""
    own = named("ar1", Q)
    chain, full = systems()

    with jax.enable_x64(True):

        def made(system):
            def value(theta):
                factor = system.factor(base.lambdas(theta, (own,)))
                return factor.log_det(), factor.traces()[0]

            return value

        theta, along = jnp.array([1.1, 0.6]), jnp.array([0.3, -1.0])
        got = jax.jit(lambda t, a: jax.jvp(made(chain), (t,), (a,)))(theta, along)
        expected = jax.jvp(made(full), (theta,), (along,))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "word", ["us", "cs", "toep", "hetar1", f"gau({TIMES})", f"mat({TIMES})"]
)
def test_what_is_no_chain(word):
    assert not named(word, Q).is_chain


def test_times_out_of_order_are_no_chain():
    assert not named("ou(0;2;1)", 3).is_chain
    assert not named("exp(0 0;0 1;1 1)", 3).is_chain
