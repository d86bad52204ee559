"""``fit_map`` as the mode of the marginal posterior, u integrated out by Laplace."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.compat.statsmodels.bayes.layout import DesignLayout
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate.mean_field import Scales
from jaxglmm.integrate.base import Laplace
from jaxglmm.integrate.laplace import predictor, rows_at
from jaxglmm.model.covariances.base import pack
from jaxglmm.model.covariances.diagonal import Diagonal
from jaxglmm.model.priors.joint_prior import AbstractBelief
from jaxglmm.numerics.bordered import through
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.numerics.system import scale
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.precision import double_precision

START_LOG_SD = -0.5


class ScalesBelief(AbstractBelief):
    """x = (beta, zeta): normal priors on coefficients and on log standard deviations.

    precision: (p,) of beta; phi: fixed dispersion parameters.
    """

    scales: Scales
    precision: Float[Array, " p"]
    phi: Float[Array, " r"]

    @property
    def p(self) -> int:
        return len(self.precision)

    def rest(self, y: Float[Array, " r"]) -> Float[Array, " j"]:
        lam = self.scales.lambdas(y)
        own = tuple(Diagonal(len(a)) for a in lam)
        return jnp.concatenate([pack(lam, own), self.phi])

    def coordinates(
        self, theta: Float[Array, " m"], phi: Float[Array, " r"]
    ) -> Float[Array, " r"]:
        return jnp.zeros_like(self.scales.sd)

    def log_prior_beta(self, beta: Float[Array, " p"]) -> Scalar:
        P = self.precision
        return jnp.sum(jnp.log(P) - P * beta**2) / 2 - len(P) * HALF_LOG_2PI

    def log_prior_rest(self, y: Float[Array, " r"]) -> Scalar:
        sd = self.scales.sd
        return -jnp.sum((y / sd) ** 2 / 2 + jnp.log(sd)) - len(sd) * HALF_LOG_2PI

    def normal(self) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
        return jnp.zeros_like(self.precision), jnp.diag(self.precision)


class MarginalPosterior:
    """The mode and the Gaussian around it, in statsmodels' packing: a ``Covariance``.

    mean: (k,); log_marginal: log p(y) by Laplace's method at the mode; mode: as found.
    """

    vector = False

    def __init__(
        self, layout: DesignLayout, mode: _map.Mode, posterior: PosteriorModel
    ):
        self.layout, self.mode, self.posterior = layout, mode, posterior
        self.steps, self.status = int(mode.steps), int(mode.status)
        self._pieces()

    @double_precision
    def _pieces(self) -> None:
        layout, mode = self.layout, self.mode
        p = self.posterior.problem.p
        b, slope, own = _effects(self.posterior, mode)
        x, H = np.asarray(mode.x), np.asarray(mode.H)
        unit = np.concatenate([1 / layout.size, np.ones(len(x) - p)])
        self.mean = np.concatenate([x * unit, layout.by_column(b)])
        C = np.linalg.inv(H)
        self.C = C * np.outer(unit, unit)
        self.G = layout.by_column(slope).T / unit  # (q, k): du/dx in the user's units
        self.own = layout.by_column(own, power=2)
        k = len(x)
        _, log_det = np.linalg.slogdet(H)
        self.log_marginal = float(-mode.value + k * HALF_LOG_2PI - log_det / 2)

    def variances(self) -> np.ndarray:
        """(k,) marginal variances."""
        GC = self.G @ self.C
        u = self.own + np.einsum("ij,ij->i", GC, self.G)
        return np.concatenate([np.diag(self.C), u])

    def times(self, v: np.ndarray) -> np.ndarray:
        """The covariance times v, (k, K)."""
        k = len(self.C)
        x, w = v[:k], v[k:]
        head = self.C @ (x + self.G.T @ w)
        return np.concatenate([head, self.G @ head + self._conditional(w)])

    @double_precision
    def _conditional(self, w: np.ndarray) -> np.ndarray:
        """Cov(u | x) times w, (q, K)."""
        layout = self.layout
        columns = [layout.effects(c) for c in w.T]
        joined = tuple(jnp.concatenate(x, axis=1) for x in zip(*columns, strict=True))
        # effects() multiplies by T, while a covariance's argument is divided by it
        joined = tuple(
            x / T[:, None, None] ** 2 for x, T in zip(joined, layout.T, strict=True)
        )
        out = _solve(self.posterior, self.mode, joined)
        return layout.by_column(out).T.reshape(len(w), -1)


@jit
def _effects(posterior: PosteriorModel, mode: _map.Mode):
    """b, db/dx and the conditional variances of b at the mode."""
    _, lam, _ = posterior.parameters(mode.x)
    factor = _factor(posterior, mode)
    own = tuple(
        jnp.einsum("ij,jkg,ik->ig", a, v, a)[:, None]
        for a, v in zip(lam, factor.inverse_blocks(), strict=True)
    )
    return scale(lam, mode.u), _map.effects_slope(posterior, mode), own


@jit
def _solve(posterior: PosteriorModel, mode: _map.Mode, v):
    return through(_factor(posterior, mode), v)


def _factor(posterior: PosteriorModel, mode: _map.Mode):
    beta, lam, phi = posterior.parameters(mode.x)
    problem = posterior.problem
    w = rows_at(problem, predictor(problem, beta, scale(lam, mode.u)), phi).w
    return problem.rows.weigh(w).factor(lam)


@double_precision
def find(
    layout: DesignLayout, start: np.ndarray | None, tol: float, max_steps: int
) -> MarginalPosterior:
    """The marginal mode from a packed start (zeros where it is None)."""
    data, problem = layout.data, layout.problem
    belief = ScalesBelief(
        layout.scales, jnp.asarray(layout.precision), jnp.asarray(data.phi)
    )
    posterior = PosteriorModel(problem, belief)
    x, u = start_from(layout, start)
    mode = _map.find_compiled(
        Laplace(),
        posterior,
        x,
        u,
        jnp.asarray(tol),
        jnp.asarray(max_steps),
    )
    return MarginalPosterior(layout, mode, posterior)


def start_from(layout: DesignLayout, start: np.ndarray | None) -> tuple[Array, tuple]:
    """x = (beta, zeta) and spherical u from a packed vector (zeros where None)."""
    data = layout.data
    p, K = data.X.shape[1], len(data.vcp_p)
    if start is None:
        scales = np.full(K, START_LOG_SD)
        start = np.concatenate([np.zeros(p), scales, np.zeros(data.Z.shape[1])])
    x = np.concatenate([start[:p] * layout.size, start[p : p + K]])
    u = layout.effects(start[p + K :] * np.exp(-start[p : p + K])[data.ident])
    # spherical effects carry no unit of their own
    u = tuple(a / T[:, None, None] for a, T in zip(u, layout.T, strict=True))
    return jnp.asarray(x), u
