"""Responses drawn from a mixed linear model, singular covariances included."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams, root
from jaxglmm.compat.statsmodels.mixedlm.state import ModelState
from jaxglmm.formula.notices import warn


class Distribution:
    """The distribution of the response at given parameters.

    Args:
        model: whose groups and designs are used.
        params: packed fixed effects, triangle and components, these relative to the
            scale (``results.params``).
        scale: residual variance.
        exog: (n, k_fe); default the model's.
    """

    def __init__(self, model: ModelState, params: Any, scale: float, exog: Any = None):
        self.model = model
        self.exog = model.exog if exog is None else np.asarray(exog, float)
        at = MixedLMParams.from_packed(params, model.k_fe, model.k_re, False, True)
        self.fe_params, self.scale = at.fe_params, float(scale)
        self.cov_re, self.vcomp = scale * at.cov_re, scale * at.vcomp
        self.group_idx = model._group.astype(int)

    def rvs(
        self,
        n: int | None = None,
        rng: Any = None,
        random_state: Any = None,
        *,
        draws: int | None = None,
    ) -> np.ndarray:
        """Simulated responses (nobs,), or (draws, nobs).

        Args:
            n: not used, as in statsmodels: a response has the length of the data.
            rng: a generator or a seed.
            random_state: the older name of ``rng``.
            draws: number of data sets.
        """
        if random_state is not None:
            warn("random_state= is now called rng=", FutureWarning)
            rng = random_state if rng is None else rng
        generator = rng  # the older kind draws as it does for statsmodels
        if not isinstance(rng, np.random.RandomState):
            generator = np.random.default_rng(rng)
        if draws is None:
            return self._one(generator)
        return np.stack([self._one(generator) for _ in range(int(draws))])

    def _one(self, rng: Any) -> np.ndarray:
        model = self.model
        y = self.exog @ self.fe_params
        if model.exog_re is not None:
            u = rng.normal(size=(model.n_groups, model.k_re)) @ root(self.cov_re).T
            y = y + np.einsum("ij,ij->i", u[self.group_idx], model.exog_re)
        for component, variance in zip(model._vc, self.vcomp, strict=True):
            u = np.sqrt(variance) * rng.normal(size=len(component.run))
            for r, run in enumerate(component.runs):
                own = np.zeros(run.n_levels)
                mine = component.run == r
                own[component.level[mine]] = u[mine]
                y = y + run.values * own[run.codes]
        noise = np.sqrt(self.scale) * rng.normal(size=len(y))
        return y + (noise if model.weights is None else noise / np.sqrt(model.weights))
