"""The belief about a mixed model: normal coefficients, sds and correlations of blocks.

Coordinates y: block by block the log standard deviations of the user's random effects
and, where a block is unstructured, its partial correlations (``numerics.bijections``);
of a structure its parameters (``StructuredBlock``); then the dispersion parameters on
the scales of their family. The relative factor of a block is Lambda_ij = T_i sd_i L_ij,
T the problem's units over the user's.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.correlations import AbstractCorrelation
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

    scale: (q,) T; factor, start: where its columns are; covariance: of the term.
    """

    sds: tuple[AbstractScalePrior, ...]
    correlations: LKJ | None
    scale: Float[Array, " q"]
    factor: int = field(static=True)
    start: int = field(static=True)
    covariance: AbstractCovariance = field(static=True)

    @property
    def q(self) -> int:
        """Columns."""
        return self.covariance.q

    @property
    def size(self) -> int:
        """Coordinates."""
        pairs = self.q * (self.q - 1) // 2
        return self.q + (pairs if self.correlations is not None else 0)

    def theta(self, y: Float[Array, " m"]) -> list[Array]:
        """The problem's thetas, which are the entries of Lambda."""
        L = self.scale[:, None] * self.cholesky(y)
        return [L[i, j] for i, j in self.covariance.entries]

    def coordinates(self, theta: Float[Array, " m"]) -> Float[Array, " k"]:
        """y of these standard deviations, without correlations."""
        at = [theta[k] for k, (i, j) in enumerate(self.covariance.entries) if i == j]
        sd = jnp.abs(jnp.stack(at)) / self.scale
        logs = jnp.log(jnp.maximum(sd, 1e-6))
        return jnp.concatenate([logs, jnp.zeros(self.size - self.q)])

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


class StructuredBlock(Block):
    """One term whose covariance has parameters of its own: cs, ar1, ou, ...

    y: log standard deviations; correlations by ``to_even``; logarithms of ranges and
    the like, for which ``more`` has priors, in units of the structure.
    """

    more: tuple[AbstractScalePrior, ...] = ()

    @property
    def size(self) -> int:
        """Coordinates."""
        return self.covariance.m

    def theta(self, y: Float[Array, " m"]) -> list[Array]:
        n = len(self.sds)
        sd = jnp.exp(y[:n]) * self.scale[:n]
        z = self._correlation.from_even(y[n:]) if self.size > n else y[n:]
        return [*sd, *z]

    @property
    def _correlation(self) -> AbstractCorrelation:
        return self.covariance.correlation  # type: ignore[attr-defined]

    def coordinates(self, theta: Float[Array, " m"]) -> Float[Array, " k"]:
        n = len(self.sds)
        logs = jnp.log(jnp.maximum(jnp.abs(theta[:n]) / self.scale[:n], 1e-6))
        z = self._correlation.to_even(theta[n:]) if self.size > n else theta[n:]
        return jnp.concatenate([logs, z])

    def log_prior(self, y: Float[Array, " m"]) -> Scalar:
        n, logs = len(self.sds), y[: len(self.sds)]
        total = sum(
            prior.log_density(jnp.exp(logs[i])) + logs[i]
            for i, prior in enumerate(self.sds)
        )
        if self.size == n:
            return jnp.asarray(total)
        if self.correlations is not None:
            return total + self._correlation.log_lkj(y[n:], self.correlations.eta)
        values = self._correlation.natural(list(self._correlation.from_even(y[n:])))
        each = zip(self.more, values, strict=True)
        return total + sum(p.log_density(x) + jnp.log(x) for p, x in each)


class MixedBelief(AbstractBelief):
    """mean, precision: (p,), (p, p) of the problem's beta; constant: of its density."""

    mean: Float[Array, " p"]
    precision: Float[Array, "p p"]
    constant: Scalar
    blocks: tuple[Block, ...]
    dispersion: tuple[AbstractDensity | Fixed, ...]
    family: AbstractFamily

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
        theta = [x for k in self._order for x in self.blocks[k].theta(own[k])]
        phi = self._with_fixed(phi)
        return jnp.concatenate([jnp.stack(theta), phi]) if theta else phi

    @property
    def _order(self) -> list[int]:
        """Blocks as theta has them, factor by factor."""
        places = [(block.factor, block.start) for block in self.blocks]
        return sorted(range(len(places)), key=places.__getitem__)

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
        found, at = {}, 0
        for k in self._order:
            m = self.blocks[k].covariance.m
            found[k] = self.blocks[k].coordinates(theta[at : at + m])
            at += m
        out = [found[k] for k in range(len(self.blocks))]
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
