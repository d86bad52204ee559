# %% [markdown]
# # A linear mixed model in sixty lines of JAX
#
# What `jaxglmm.lmm` does, without anything that makes it fast, safe or friendly: one
# grouping factor, maximum likelihood. The model is
#
# y = X beta + Z b + e,  b_j = Lambda u_j,  u ~ N(0, s2 I),  e ~ N(0, s2 I),
#
# with one small lower triangular Lambda(theta) for all groups. Integrating u out, and
# taking beta and s2 at their optimum given theta, leaves a function of theta alone:
#
# d(theta) = log|A| + n (1 + log(2 pi r2 / n)),  A = Lambda' Z'Z Lambda + I,
#
# where r2 is the penalised residual sum of squares. A is block-diagonal, one q x q
# block a group, and all it needs of the data are per-group cross-products.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxglmm as jg


def cross_products(y, X, Z, group):
    """Z'Z and Z'[X y] by group, and [X y]'[X y]: all that the likelihood needs."""
    R = jnp.column_stack([X, y])
    J = int(group.max()) + 1
    ZZ = jax.ops.segment_sum(Z[:, :, None] * Z[:, None, :], group, J)
    ZR = jax.ops.segment_sum(Z[:, :, None] * R[:, None, :], group, J)
    return ZZ, ZR, R.T @ R


def deviance(theta, ZZ, ZR, RR, n):
    """-2 log-likelihood with beta and sigma profiled out, and these two."""
    q, p = ZZ.shape[1], RR.shape[0] - 1
    lam = jnp.zeros((q, q)).at[jnp.tril_indices(q)].set(theta)
    A = jnp.einsum("ra,jrs,sb->jab", lam, ZZ, lam) + jnp.eye(q)
    L = jnp.linalg.cholesky(A)
    half = jax.vmap(lambda L, B: jnp.linalg.solve(L, lam.T @ B))(L, ZR)
    S = RR - jnp.einsum("jqa,jqb->ab", half, half)  # [X y]' V^-1 [X y]
    beta = jnp.linalg.solve(S[:p, :p], S[:p, p])
    r2 = S[p, p] - S[:p, p] @ beta
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2)))
    return log_det + n * (1 + jnp.log(2 * jnp.pi * r2 / n)), (beta, jnp.sqrt(r2 / n))


@jax.jit
def fit(theta, *data):
    """Fifteen Newton steps; |H| for H where the deviance is not convex."""

    def value(theta):
        return deviance(theta, *data)[0]

    def step(theta, _):
        g, H = jax.grad(value)(theta), jax.hessian(value)(theta)
        values, vectors = jnp.linalg.eigh(H)
        return theta - vectors @ ((vectors.T @ g) / jnp.abs(values)), None

    theta, _ = jax.lax.scan(step, theta, length=15)
    return theta, deviance(theta, *data)


# %%
with jax.enable_x64(True):
    sleep = jg.datasets.load("sleepstudy")
    days = sleep["Days"].to_numpy(float)
    X = jnp.column_stack([np.ones(180), days])
    y = jnp.asarray(sleep["Reaction"].to_numpy())
    group = jnp.asarray(sleep["Subject"].cat.codes.to_numpy())
    data = (*cross_products(y, X, X, group), 180)
    theta, (minus2loglik, (beta, sigma)) = fit(jnp.array([1.0, 0.0, 1.0]), *data)
    print(f"-2 log-likelihood {minus2loglik:.6f}, beta {beta}, sigma {sigma:.4f}")

    assert np.isclose(minus2loglik, 1751.939344, atol=1e-6)
    assert np.allclose(beta, [251.405105, 10.467286], atol=1e-5)
    # the sign of a column of Lambda means nothing
    assert np.allclose(np.abs(theta), [0.929225, 0.018166, 0.222645], atol=1e-5)

# %%
the_same = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
assert np.isclose(the_same.criterion, minus2loglik, rtol=1e-10)
