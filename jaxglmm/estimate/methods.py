"""Bayesian methods as records: what users write as ``method=``.

Each says how the posterior is found and how many draws of it are wanted; the work is
done by ``posterior.run``. Equal seeds give equal draws.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from jaxglmm import _arguments
from jaxglmm._errors import ModelError


@dataclass(frozen=True, repr=False)
class BayesMethod:
    """What all of them have.

    draws: number of draws; seed: of their random numbers; nodes: 1 for Laplace, more
    for adaptive Gauss-Hermite quadrature (one grouping factor), None to choose: 9 nodes
    where groups are small and binary, 25 where their sd exceeds 2 as well.
    """

    draws: int = 4000
    seed: int = 0
    nodes: int | None = None

    def __post_init__(self) -> None:
        self._whole("draws", 1, _arguments.DRAWS)
        self._whole("seed", 0, None)
        if self.nodes is not None:
            self._whole("nodes", 1, _arguments.NODES)

    def _whole(self, name: str, least: int, most: int | None) -> None:
        value = _arguments.whole(name, getattr(self, name), least, most)
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """As it would be typed: the number of draws, and what is not the default."""
        values = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        shown = [
            f"{name}={value!r}"
            for name, value, default in values
            if name == "draws" or value != default
        ]
        return f"jg.{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class MAP(BayesMethod):
    """The mode of the marginal posterior and a Gaussian there, corrected for skewness.

    Random effects are integrated out by Laplace's method or quadrature; the mode of
    (coefficients, log standard deviations, correlations, dispersion) is found by
    Newton's method, the covariance is the inverse of the exact Hessian. Along the axes
    of the standard deviations, correlations and dispersion the posterior's own shape
    replaces the Gaussian's (``estimate.skewed``). What their interplay adds is left
    out: ``Fit.certificate`` says, parameter by parameter, what 90 per cent intervals
    hold.

    >>> import jaxglmm as jg
    >>> jg.MAP(draws=1000)
    jg.MAP(draws=1000)
    """


@dataclass(frozen=True, repr=False)
class NestedLaplace(BayesMethod):
    """Importance sampling of the marginal posterior around its mode: the default.

    Draws from a multivariate t (7 degrees of freedom) are weighed by their posterior
    density, Pareto-smoothed and resampled; the random effects are drawn given each.
    Errors that are left: Monte Carlo's (the k-hat and effective sample size tell) and
    that of Laplace's method in each likelihood (``Fit.certificate`` compares it with
    quadrature).

    >>> import jaxglmm as jg
    >>> jg.NestedLaplace(draws=2000, nodes=9).nodes
    9
    """


@dataclass(frozen=True, repr=False)
class VB(BayesMethod):
    """Gaussian variational Bayes: coefficients and random effects together.

    Args:
        nested: integrate the variance parameters over nodes along their axes (True),
            or take the best point and the curvature there (False: their intervals are
            too narrow); None: True where there are at most ten of them.
        family: "structured"; "stochastic": one Gaussian over everything, found by
            optax's Adam from draws, without expectations in closed form or by
            quadrature (slower; another way to the answer, for any family); or
            "mean-field" for independent Gaussians (too narrow; for comparison,
            independent random effects only). None: "structured", and "stochastic"
            where a row has several predictors (``zi=``, ``dispersion=``, categories),
            over which there are no such expectations.

    >>> import jaxglmm as jg
    >>> jg.VB(nested=True)
    jg.VB(draws=4000, nested=True)
    """

    nested: bool | None = None
    family: Literal["structured", "stochastic", "mean-field"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        families = ("structured", "stochastic", "mean-field")
        if self.family is not None:
            _arguments.choice("family", self.family, families, error=ModelError)
        if self.nested is not None:
            _arguments.flag("nested", self.nested, error=ModelError)
        if self.family in ("stochastic", "mean-field") and self.nested:
            raise ModelError(
                "nested=True belongs to family='structured': the others have their own "
                "Gaussian for the variance parameters"
            )
        if self.nodes is not None:
            raise ModelError(
                "nodes= belongs to methods that integrate the random effects out; VB "
                "does not"
            )

    def of_predictors(self, K: int) -> VB:
        """With its family chosen: for models of K predictors a row."""
        if self.family is not None:
            return self
        stochastic = K > 1 and not self.nested
        return replace(self, family="stochastic" if stochastic else "structured")


@dataclass(frozen=True, repr=False)
class NUTS(BayesMethod):
    """The No-U-Turn sampler, by blackjax.

    Args:
        draws: of each chain.
        chains: number of chains.
        warmup: draws of each chain while its step size is tuned, not kept.
        density: "marginal" (random effects integrated out, then drawn given each draw)
            or "joint" (no approximation of the likelihood at all).
        target_accept: acceptance that step sizes are tuned to; None: 0.7 on the
            marginal, which is nearly Gaussian in its coordinates (a longer step serves
            it best), 0.95 on the joint density, whose geometry is harder.
        progress: show a progress bar.

    The metric is the Hessian at the mode, for the joint density that of all random
    effects, so nothing but the step size is learned.

    >>> import jaxglmm as jg
    >>> jg.NUTS(chains=2).chains
    2
    """

    draws: int = 1000
    chains: int = 4
    warmup: int = 300
    density: Literal["marginal", "joint"] = "marginal"
    target_accept: float | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("chains", 1, _arguments.CHAINS)
        self._whole("warmup", 0, _arguments.DRAWS)
        densities = ("marginal", "joint")
        _arguments.choice("density", self.density, densities, error=ModelError)
        _arguments.flag("progress", self.progress, error=ModelError)
        if self.density == "joint" and self.nodes is not None:
            raise ModelError("nodes= belongs to density='marginal'")
        if self.target_accept is not None:
            _arguments.between(
                "target_accept",
                self.target_accept,
                "the acceptance that step sizes are tuned to",
                error=ModelError,
            )

    @property
    def target(self) -> float:
        """The acceptance that is aimed at."""
        if self.target_accept is not None:
            return float(self.target_accept)
        return 0.7 if self.density == "marginal" else 0.95


NAMED = {
    "map": MAP,
    "vb": VB,
    "nested-laplace": NestedLaplace,
    "nested_laplace": NestedLaplace,
    "nuts": NUTS,
}


def bayes_method(given: Any) -> BayesMethod | None:
    """A Bayesian method from one, its class or its name; None for anything else."""
    if isinstance(given, BayesMethod):
        return given
    if isinstance(given, type) and issubclass(given, BayesMethod):
        return given()
    if isinstance(given, str) and given.lower() in NAMED:
        return NAMED[given.lower()]()
    return None
