"""What eta does not enter, by the number of rows beyond each count."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import host, row_terms

from jaxglmm.model.families import family_from


@pytest.mark.parametrize("top", [0, 40, 4095, 5000])
@pytest.mark.parametrize("log_size", [-2.0, 1.0, 25.0])
def test_it_is_the_sum_over_the_rows(top, log_size):
    """Counts of any size; rows of weight zero may hold anything."""
    rng = np.random.default_rng(0)
    y = np.minimum(rng.negative_binomial(1.0, 0.05, (6, 9)), top).astype(float)
    y.flat[:2] = top, 0.0
    weights = rng.integers(0, 4, y.shape).astype(float)
    weights.flat[0] = 2.0
    y[weights == 0] = 1e9
    family = family_from("nbinom2")
    problem = SimpleNamespace(family=family, y=y, weights=weights)
    phi = np.array([log_size])
    with jax.enable_x64(True):

        def twin(x):
            own = jnp.asarray(weights) * family.log_separable(y, x)
            return jnp.sum(jnp.where(weights > 0, own, 0.0))

        def found(x):
            device = SimpleNamespace(
                family=family, y=jnp.asarray(y), weights=jnp.asarray(weights)
            )
            return row_terms.separable(device, x)

        value, slope = jax.jit(jax.value_and_grad(found))(phi)
        truth, its_slope = jax.value_and_grad(twin)(phi)
    np.testing.assert_allclose(value, truth, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(slope, its_slope, rtol=1e-8, atol=1e-9)
    with host.on_host(60.0):
        np.testing.assert_allclose(
            row_terms.separable(problem, phi), truth, rtol=1e-11, atol=1e-11
        )
