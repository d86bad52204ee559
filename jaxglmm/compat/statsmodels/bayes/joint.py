"""``fit_vb(structure="joint")``: coefficients and random effects in one Gaussian.

The log standard deviations are integrated over nodes where there are few of them, so
the posterior is a mixture of Gaussians, reported by its moments.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm.compat.statsmodels.bayes.layout import DesignLayout
from jaxglmm.compat.statsmodels.bayes.marginal import ScalesBelief, start_from
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.estimate import variational
from jaxglmm.numerics.system import scale, scale_transposed
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.precision import double_precision

NODES = {1: 5, 2: 3, 3: 3}  # log standard deviations: nodes of each


class NodeMixture:
    """Moments of the mixture in statsmodels' packing; a ``Covariance``."""

    vector = False

    def __init__(
        self, layout: DesignLayout, posterior: PosteriorModel, nodes: variational.Nodes
    ):
        self.layout, self.posterior, self.nodes = layout, posterior, nodes
        self.steps = int(np.sum(np.asarray(nodes.found.steps)))
        self._moments()

    @double_precision
    def _moments(self) -> None:
        layout, found = self.layout, self.nodes.found
        p = self.posterior.problem.p
        b, own = _effects(self.posterior, found)
        beta = np.asarray(found.q.beta) / layout.size
        u = layout.by_column(tuple(jnp.moveaxis(x[:, :, 0], 0, 1) for x in b))
        self.w = np.asarray(self.nodes.weights)
        self.means = np.concatenate([beta, np.asarray(found.q.y), u], axis=1)
        self.mean = self.w @ self.means
        within = layout.by_column(tuple(jnp.moveaxis(x, 0, 1) for x in own), power=2)
        self._within_u = self.w @ within
        self.p, self.k = p, len(self.mean)

    def variances(self) -> np.ndarray:
        """(k,)."""
        apart = self.means - self.mean
        head = self.p + len(self.layout.data.vcp_p)
        unit = np.zeros((self.k, head))
        unit[:head] = np.eye(head)
        beta = np.diag(self.times(unit)[:head])
        return np.concatenate([beta, self._within_u + (self.w @ apart**2)[head:]])

    @double_precision
    def times(self, v: np.ndarray) -> np.ndarray:
        """The covariance times v (k, K)."""
        apart = self.means - self.mean
        out = apart.T @ (self.w[:, None] * (apart @ v))
        for j, w in enumerate(self.w):
            found = jax.tree.map(lambda x, j=j: x[j], self.nodes.found)
            out += w * self._node(found, v)
        if len(self.w) == 1:  # a point: the curvature of the bound
            p, q = self.p, self.layout.data.Z.shape[1]
            C = np.linalg.inv(np.asarray(self.nodes.found.H[0]))
            out[p : len(v) - q] += C @ v[p : len(v) - q]
        return out

    def _node(self, found: variational.VariationalFound, v: np.ndarray) -> np.ndarray:
        layout, p = self.layout, self.p
        q = layout.data.Z.shape[1]
        columns = [layout.effects(c) for c in v[len(v) - q :].T]
        right = tuple(
            jnp.concatenate(x, axis=1) / T[:, None, None] ** 2
            for x, T in zip(zip(*columns, strict=True), layout.T, strict=True)
        )
        b, beta = _solve(
            self.posterior, found, right, jnp.asarray(v[:p] / layout.size[:, None])
        )
        out = np.zeros_like(v)
        out[:p] = np.asarray(beta) / layout.size[:, None]
        out[len(v) - q :] = layout.by_column(b).reshape(v.shape[1], q).T
        return out


@jit
def _effects(posterior: PosteriorModel, found: variational.VariationalFound):
    """Means and variances of b at every node, (nodes, q, 1, J) and (nodes, q, J)."""
    posterior = posterior.folded()

    def node(f: variational.VariationalFound):
        _, lam, _ = posterior.parameters(jnp.concatenate([f.q.beta, f.q.y]))
        normal, _ = variational.precision(posterior, lam, f.q.weights)
        blocks = normal.factor.inverse_blocks()
        own = []
        for a, V, U in zip(lam, blocks, normal.U, strict=True):
            if len(normal.L):
                C = jnp.linalg.inv(normal.Q)
                V = V + jnp.einsum("ipg,pr,jrg->ijg", U, C, U)
            own.append(jnp.einsum("ij,jkg,ik->ig", a, V, a))
        return scale(lam, f.q.u), tuple(own)

    return jax.lax.map(node, found)


@jit
def _solve(posterior: PosteriorModel, found: variational.VariationalFound, r, s):
    """The covariance of (b, beta) times (r, s) at one node."""
    posterior = posterior.folded()
    _, lam, _ = posterior.parameters(jnp.concatenate([found.q.beta, found.q.y]))
    normal, _ = variational.precision(posterior, lam, found.q.weights)
    u, beta = normal.solve(scale_transposed(lam, r), s)
    return scale(lam, u), beta


@double_precision
def find(
    layout: DesignLayout,
    start: np.ndarray | None,
    tol: float,
    max_steps: int,
    rule: str,
) -> tuple[NodeMixture, variational.VariationalFound]:
    """The joint Gaussian from a packed start, and the mixture over nodes."""
    data = layout.data
    belief = ScalesBelief(
        layout.scales, jnp.asarray(layout.precision), jnp.asarray(data.phi)
    )
    posterior = PosteriorModel(layout.problem, belief)
    x, u = start_from(layout, start)
    most = jnp.asarray(max_steps)
    fit = partial(variational.fit, rule=rule)
    found = fit(posterior, x, u, jnp.asarray(tol), most)
    count = NODES.get(len(data.vcp_p), 1)
    nodes = variational.nested(
        posterior, found, jnp.asarray(max(tol, 1e-6)), most, count, rule=rule
    )
    return NodeMixture(layout, posterior, nodes), found
