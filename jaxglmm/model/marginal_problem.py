"""A linear mixed model as covariances of blocks of rows: residuals that are correlated.

y = X beta + e, e ~ N(0, V), V block diagonal. The blocks are the subjects within which
residuals are correlated (or the levels of a factor that holds them), and

    V_ij = exp(s_i + s_j) R_ij + z_i'Sigma z_j, where i and j are of one level,

so that random effects, if any, are integrated out from the start. Many blocks are
alike: a ``Stack`` has the G different covariances of its blocks (``templates``), the K
patterns of rows that occur in them, and the N blocks themselves as [X y], padded to T
rows with zeros. Blocks of one pattern enter by their cross-products alone, so that they
may be replaced by fewer that have the same (``structure.patterns``).

theta: of each group the scales s and then t of the correlation; then, term by term, the
entries or parameters of the random effects' Lambda, here absolute and not relative to a
residual variance.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float, Int, Scalar
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.residuals.correlations import Correlation, Pairs
from jaxglmm.runtime.arrays import block_diag, jnp
from jaxglmm.runtime.trees import Module, field


class BlockEffect(Module):
    """One random term: z (G, T, q) of the rows; same (G, T, T): rows of one level."""

    z: Float[Array, "G T q"]
    same: Float[Array, "G T T"]


class Stack(Module):
    """Blocks of up to T rows.

    scales: (G, T, s) B; pairs; group: (G, n_groups) one-hot; effects: one a term
    mask: (K, T) which rows a pattern has; template: (K,); count: (K,) blocks
    rows: (N, T, p + 1) [X y]; pattern: (N,) of each
    """

    scales: Float[Array, "G T s"]
    pairs: Pairs
    group: Float[Array, "G h"]
    effects: tuple[BlockEffect, ...]
    mask: Float[Array, "K T"]
    template: Int[Array, " K"]
    count: Float[Array, " K"]
    rows: Float[Array, "N T c"]
    pattern: Int[Array, " N"]


class MarginalProblem(Module):
    """n: rows; start: (m,); constant, constant_reml: what the criterion lacks.

    noise: whether there are residuals beside the random effects
    """

    stacks: tuple[Stack, ...]
    n: Scalar
    start: Float[Array, " m"]
    constant: Scalar
    constant_reml: Scalar
    correlation: Correlation | None = field(static=True)
    covariances: tuple[AbstractCovariance, ...] = field(static=True)
    noise: bool = field(static=True, default=True)

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.stacks[0].rows.shape[-1] - 1

    @property
    def n_groups(self) -> int:
        """Groups that have a residual covariance of their own."""
        return self.stacks[0].group.shape[-1]

    @property
    def n_scales(self) -> int:
        """Scales a group."""
        return self.stacks[0].scales.shape[-1]

    @property
    def each(self) -> int:
        """Residual parameters a group."""
        return self.n_scales + (0 if self.correlation is None else self.correlation.k)

    @property
    def n_residual(self) -> int:
        """Residual parameters in all."""
        return self.each * self.n_groups

    @property
    def m(self) -> int:
        """Number of thetas."""
        return self.n_residual + base.total(self.covariances)

    # The covariances of templates and their derivatives ------------------------------

    def tables(
        self, theta: Float[Array, " m"], stack: Stack
    ) -> tuple[Float[Array, "G T T"], Float[Array, "m G T T"]]:
        """V and dV / dtheta of every template."""
        V, parts = 0.0, []
        for g in range(self.n_groups if self.noise else 0):
            own = stack.group[:, g, None, None]
            scale, R, dR = self._group(theta, stack, g)
            covariance = own * scale * R
            V = V + covariance
            parts.append(self._sums(stack) * covariance)
            if self.correlation is not None:
                parts.append(own * scale * dR)
        for effect, lam, J, entries in self._effects(theta, stack):
            U = effect.z @ lam  # (G, T, q)
            V = V + effect.same * (U @ jnp.swapaxes(U, 1, 2))
            made = []
            for i, j in entries:
                half = effect.z[:, :, i, None] * U[:, None, :, j]
                made.append(effect.same * (half + jnp.swapaxes(half, 1, 2)))
            dV = jnp.stack(made)
            parts.append(dV if J is None else jnp.einsum("egij,ea->agij", dV, J))
        return V, jnp.concatenate(parts)

    def bend(
        self, theta: Float[Array, " m"], stack: Stack, M: Float[Array, "G T T"]
    ) -> Float[Array, "m m"]:
        """Sum over the pairs of M, symmetric, times d2V / dtheta dtheta'."""
        blocks = []
        sums = self._sums(stack)
        for g in range(self.n_groups):
            scale, R, dR = self._group(theta, stack, g)
            weight = M * stack.group[:, g, None, None] * scale
            ss = jnp.einsum("agij,bgij->ab", sums * (weight * R), sums)
            if self.correlation is None:
                blocks.append(ss)
                continue
            st = jnp.einsum("agij,bgij->ab", sums * weight, dR)
            tt = self.correlation.bend(self._t(theta, g), stack.pairs, weight)
            top = jnp.concatenate([ss, st], axis=1)
            blocks.append(
                jnp.concatenate([top, jnp.concatenate([st.T, tt], axis=1)], axis=0)
            )
        for (effect, lam, J, entries), c, part in zip(
            self._effects(theta, stack),
            self.covariances,
            self._parts(theta),
            strict=True,
        ):
            z = effect.z
            S = jnp.einsum("gti,gtu,guj->ij", z, M * effect.same, z)
            i, j = (np.array(x) for x in zip(*entries, strict=True))
            square = 2 * S[i][:, i] * (j[:, None] == j)
            slopes = 2 * (S @ lam)[i, j]
            bent = c.bend_matrix(part, slopes)
            square = square if J is None else J.T @ square @ J
            if bent is not None:
                square = square + bent
            blocks.append(square)
        return block_diag(*blocks)

    def second(
        self, theta: Float[Array, " m"], stack: Stack, W: Float[Array, "m m"]
    ) -> Float[Array, "G T T"]:
        """Sum over a, b of W_ab d2V / dtheta_a dtheta_b, W symmetric.

        Random effects enter by their variances and covariances, in which V is linear,
        as in Kenward and Roger: theirs is zero.
        """
        out = 0.0 * stack.pairs.lag
        sums, s = self._sums(stack), self.n_scales
        for g in range(self.n_groups):
            scale, R, dR = self._group(theta, stack, g)
            at = g * self.each
            own = W[at : at + self.each, at : at + self.each]
            there = jnp.einsum("ab,agij,bgij->gij", own[:s, :s], sums, sums) * R
            if self.correlation is not None:
                there = there + 2 * jnp.einsum(
                    "ab,agij,bgij->gij", own[:s, s:], sums, dR
                )
                there = there + self.correlation.second(
                    self._t(theta, g), stack.pairs, own[s:, s:]
                )
            out = out + stack.group[:, g, None, None] * scale * there
        return out

    def _t(self, theta: Array, g: int) -> Array:
        return theta[g * self.each + self.n_scales : (g + 1) * self.each]

    def _sums(self, stack: Stack) -> Array:
        """(s, G, T, T) derivative of s_i + s_j."""
        B = jnp.moveaxis(stack.scales, -1, 0)
        return B[:, :, :, None] + B[:, :, None, :]

    def _group(self, theta: Array, stack: Stack, g: int) -> tuple[Array, Array, Array]:
        """exp(s_i + s_j), R and dR of one group's parameters, for all templates."""
        s = stack.scales @ theta[g * self.each : g * self.each + self.n_scales]
        scale = jnp.exp(s[:, :, None] + s[:, None, :]) * stack.pairs.within
        if self.correlation is None:
            eye = jnp.broadcast_to(jnp.eye(s.shape[1]), scale.shape)
            return scale, eye, eye[None][:0]
        return scale, *self.correlation.tables(self._t(theta, g), stack.pairs)

    def _parts(self, theta: Array) -> list[list[Array]]:
        return base.parts(theta[self.n_residual :], self.covariances)

    def _effects(self, theta: Array, stack: Stack):
        """Every term with its Lambda, the Jacobian of its entries, and these."""
        rest = theta[self.n_residual :]
        if not self.covariances:
            return
        lams = base.lambdas(rest, self.covariances)
        at = 0
        for effect, lam, c in zip(stack.effects, lams, self.covariances, strict=True):
            J = base.jacobian(rest[at : at + c.m], (c,))
            yield effect, lam, J, c.entries
            at += c.m
