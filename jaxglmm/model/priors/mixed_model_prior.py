"""The belief about a mixed model: normal coefficients, sds and correlations of blocks.

Coordinates y: block by block the log standard deviations of the user's random effects
and, where a block is unstructured, its partial correlations (``numerics.bijections``);
then the dispersion parameters on the scales of their family. The relative factor of a
block is then Lambda_ij = T_i sd_i L_ij, T the problem's units over the user's.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors.distributions import (
    LKJ,
    AbstractDensity,
    AbstractScalePrior,
    Fixed,
)
from jaxglmm.model.priors.joint_prior import AbstractBelief
from jaxglmm.numerics.bijections import correlation, log_lkj
from jaxglmm.runtime.trees import Module, field


class Block(Module):
    """One term: its sds' priors, that of its correlations (None: independent), units.

    factor, start: where its columns are; scale: (q,) T.
    """

    sds: tuple[AbstractScalePrior, ...]
    correlations: LKJ | None
    scale: Float[Array, " q"]
    factor: int = field(static=True)
    start: int = field(static=True)

    @property
    def q(self) -> int:
        """Columns."""
        return len(self.sds)

    @property
    def size(self) -> int:
        """Coordinates."""
        pairs = self.q * (self.q - 1) // 2
        return self.q + (pairs if self.correlations is not None else 0)

    def cholesky(self, y: Float[Array, " m"]) -> Float[Array, "q q"]:
        """sd_i L_ij, the factor of the user's covariance."""
        sd = jnp.exp(y[: self.q])
        if self.correlations is None:
            return jnp.diag(sd)
        return sd[:, None] * correlation(y[self.q :], self.q)

    def log_prior(self, y: Float[Array, " m"]) -> Scalar:
        """log p(y), Jacobians included."""
        logs = y[: self.q]
        total = sum(
            prior.log_density(jnp.exp(logs[i])) + logs[i]
            for i, prior in enumerate(self.sds)
        )
        if self.correlations is None:
            return jnp.asarray(total)
        return total + log_lkj(y[self.q :], self.q, self.correlations.eta)


class MixedBelief(AbstractBelief):
    """mean, precision: (p,), (p, p) of the problem's beta; constant: of its density."""

    mean: Float[Array, " p"]
    precision: Float[Array, "p p"]
    constant: Scalar
    blocks: tuple[Block, ...]
    dispersion: tuple[AbstractDensity | Fixed, ...]
    family: AbstractFamily
    covariances: tuple[AbstractCovariance, ...] = field(static=True)

    @property
    def p(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> int:
        """Length of x."""
        inside = sum(block.size for block in self.blocks)
        return self.p + inside + sum(self.free)

    @property
    def free(self) -> tuple[bool, ...]:
        """Which dispersion parameters are unknown."""
        return tuple(not isinstance(prior, Fixed) for prior in self.dispersion)

    def parts(self, y: Float[Array, " r"]) -> tuple[list[Array], Array]:
        """The coordinates of each block, and those of the dispersion."""
        out, k = [], 0
        for block in self.blocks:
            out.append(y[k : k + block.size])
            k += block.size
        return out, y[k:]

    def rest(self, y: Float[Array, " r"]) -> Float[Array, " j"]:
        own, phi = self.parts(y)
        entries = {}
        for block, part in zip(self.blocks, own, strict=True):
            L = block.scale[:, None] * block.cholesky(part)
            for i in range(block.q):
                for j in range(i + 1):
                    key = (block.factor, block.start + i, block.start + j)
                    entries[key] = L[i, j]
        theta = [
            entries[f, i, j]
            for f, own in enumerate(self.covariances)
            for i, j in own.entries
        ]
        phi = self._with_fixed(phi)
        return jnp.concatenate([jnp.stack(theta), phi]) if theta else phi

    def _with_fixed(self, phi: Float[Array, " f"]) -> Float[Array, " r"]:
        """phi from those that are free."""
        if all(self.free):
            return phi
        if not any(self.free):
            known = [prior.value for prior in self.dispersion]  # pyright: ignore
            return self.family.from_natural(jnp.stack(known))
        values, k = [], 0
        for prior, scale in zip(self.dispersion, self.family.scales, strict=True):
            if isinstance(prior, Fixed):
                values.append(scale.to(jnp.asarray(prior.value)))
            else:
                values.append(phi[k])
                k += 1
        return jnp.stack(values)

    def coordinates(
        self, theta: Float[Array, " m"], phi: Float[Array, " r"]
    ) -> Float[Array, " r"]:
        diagonal, k = {}, 0
        for f, own in enumerate(self.covariances):
            for i, j in own.entries:
                if i == j:
                    diagonal[f, i] = theta[k]
                k += 1
        out = []
        for block in self.blocks:
            at = [diagonal[block.factor, block.start + i] for i in range(block.q)]
            sd = jnp.abs(jnp.stack(at)) / block.scale
            out += [jnp.log(jnp.maximum(sd, 1e-6)), jnp.zeros(block.size - block.q)]
        free = [value for value, is_free in zip(phi, self.free, strict=True) if is_free]
        return jnp.concatenate([*out, jnp.stack(free) if free else phi[:0]])

    def log_prior_beta(self, beta: Float[Array, " p"]) -> Scalar:
        rest = beta - self.mean
        return self.constant - rest @ self.precision @ rest / 2

    def log_prior_rest(self, y: Float[Array, " r"]) -> Scalar:
        own, phi = self.parts(y)
        total = jnp.zeros(())
        for block, part in zip(self.blocks, own, strict=True):
            total = total + block.log_prior(part)
        if not any(self.free):
            return total
        phi = self._with_fixed(phi)
        values = self.family.natural(phi)
        if not self.family.phi_apart:
            total = total + self.family.log_natural_slope(phi)
        for r, prior in enumerate(self.dispersion):
            if isinstance(prior, Fixed):
                continue
            total = total + prior.log_density(values[r])
            if self.family.phi_apart:
                total = total + self.family.scales[r].log_slope(phi[r])
        return total

    def normal(self) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
        return self.mean, self.precision
