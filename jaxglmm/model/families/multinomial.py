"""Multinomial logit: unordered categories against the first of them.

With K categories 0, ..., K - 1 and a linear predictor for each but the first,

    P(Y = k) = exp(eta_k) / (1 + sum_l exp(eta_l)),    eta_0 = 0,

so that p = (P_1, ..., P_{K-1}) gives s = e_y - p, w = diag(p) - pp'. Log concave, and
observed information is expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import AbstractFamily, Derivatives, Phi, Rows, Trials
from jaxglmm.model.families.cumulative import category_levels
from jaxglmm.model.links import Link
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field


class Multinomial(AbstractFamily):
    """Unordered categories; ``mu`` of its functions is the predictors, (K - 1, n).

    Args:
        levels: the categories, the first the one that others are compared with; those
            of the response in their own order where it is left out.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Multinomial(levels=["car", "bus", "train"])
        Multinomial(levels=['car', 'bus', 'train'])
    """

    name: ClassVar[str] = "multinomial"
    canonical: ClassVar[str | None] = "logit"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = ("logit",)
    family_kind: ClassVar[Literal["numeric", "binomial", "ordinal", "nominal"]] = (
        "nominal"
    )
    discrete: ClassVar[bool] = True

    levels: tuple[Any, ...] | None = field(static=True)

    def __init__(
        self, link: str | Link | None = None, levels: Sequence[Any] | None = None
    ):
        super().__init__(link)
        self.levels = category_levels(levels)

    def __repr__(self) -> str:
        shown = "" if self.levels is None else f"levels={list(self.levels)}"
        return f"Multinomial({shown})"

    @property
    def categories(self) -> int:
        """How many there are; 0 before that is known."""
        return 0 if self.levels is None else len(self.levels)

    @property
    def predictors(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("mean",) if self.levels is None else tuple(map(str, self.levels[1:]))

    @property
    def predictor_links(self) -> tuple[Link, ...]:
        return (self.link,) * len(self.predictors)

    # -- the likelihood --------------------------------------------------------------

    def _parts(self, y: Rows, eta: Rows) -> tuple[Rows, list[Rows], list[Rows]]:
        """log density, probabilities and indicators of all categories but the first."""
        own = [eta] if self.categories == 2 else [eta[k] for k in range(len(eta))]
        y = y.real
        top = jnp.maximum(own[0], 0.0)
        for x in own[1:]:
            top = jnp.maximum(top, x)
        e = [jnp.exp(x - top) for x in own]
        total = sum(e) + jnp.exp(-top)
        here = [jnp.where(y == k + 1, 1.0, 0.0) for k in range(len(own))]
        l = sum(m * x for m, x in zip(here, own, strict=True)) - top - jnp.log(total)
        return l, [x / total for x in e], here

    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        return self._parts(y, eta)[0]

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        l, p, here = self._parts(y, eta)
        s = [m - x for m, x in zip(here, p, strict=True)]
        if self.categories == 2:
            w = p[0] * (1 - p[0])
            return l, s[0], w, w * (1 - 2 * p[0])
        P = jnp.stack(p)
        eye = np.eye(len(p))
        # dp_k / deta_m = p_k (delta_km - p_m), and w = diag(p) - pp'
        w = _wide(eye, P.ndim - 1) * P - P[:, None] * P
        w1 = (
            _wide(eye, P.ndim - 1)[:, :, None] * w[:, None]
            - w[:, None] * P[:, None]
            - P[:, None, None] * w
        )
        return l, jnp.stack(s), w, w1

    def expected_block(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        zero = jnp.zeros_like(eta[0])
        return self.kernel_derivatives(zero, eta, phi)[2]

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        return self.kernel_derivatives(jnp.zeros_like(eta), eta, phi)[2]

    # -- on the host -----------------------------------------------------------------

    def mean(self, eta: Any) -> Any:
        """The predictors themselves; see ``probabilities``."""
        return eta

    def probabilities(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """(n, K) from predictors (K - 1, n)."""
        eta = np.asarray(eta, float)
        whole = np.concatenate([np.zeros((1, *eta.shape[1:])), eta])
        e = np.exp(whole - whole.max(axis=0))
        return np.moveaxis(e / e.sum(axis=0), 0, -1)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        if self.categories == 2:  # as the binomial family starts
            return np.asarray(self.link.link((y + 0.5) / 2)), np.zeros(0)
        count = np.bincount(np.asarray(y, int), minlength=self.categories) + 0.5
        eta = np.repeat(np.log(count[1:] / count[0])[:, None], len(y), axis=1)
        return eta, np.zeros(0)

    def of_rows(self, y: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """Probability of the observed category, (n,)."""
        P = self.probabilities(mu, np.zeros(0))
        return P[np.arange(len(P)), np.asarray(y, int)]

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        below = np.cumsum(self.probabilities(mu, phi), axis=-1)[..., :-1]
        u = rng.uniform(size=below.shape[:-1])
        return np.sum(u[..., None] > below, axis=-1).astype(np.float64)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        """By the order of the codes, for randomised residuals."""
        below = np.cumsum(self.probabilities(mu, phi), axis=-1)
        below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
        at = np.clip(np.floor(y) + 1, 0, self.categories).astype(int)
        at = np.broadcast_to(at, below.shape[:-1])
        return np.minimum(np.take_along_axis(below, at[..., None], -1)[..., 0], 1.0)


def _wide(x: np.ndarray, axes: int) -> np.ndarray:
    return x.reshape(*x.shape, *(1,) * axes)
