"""What should be known about a posterior: the search, the weights, the chains."""

from __future__ import annotations

import numpy as np

from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.fitting import convergence as diagnose
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design
from jaxglmm.posterior.draws import Posterior

BAD = 0.7  # Pareto k-hat
SKEWED = "the posterior has heavier tails than the Gaussian"
POINT = "their intervals are too narrow"
EXPECTED = (SKEWED, "mean field", POINT)  # of the method asked for: said, not warned of


def notes(
    design: Design, estimates: Estimates, p: Posterior, bayes: BayesMethod
) -> tuple[str, ...]:
    """What should be known: about the data, the search, the weights, the chains."""
    out = [n.text for n in diagnose.notes(design, estimates)]
    method = type(bayes).__name__
    if p.khat is not None and p.khat > BAD:
        what = {
            "NestedLaplace": "a few draws carry the weights. Use method='nuts'",
            "MAP": f"{SKEWED}. Use method='nested-laplace'",
        }[method]
        out.append(f"Pareto k-hat is {p.khat:.2f} (above {BAD}): {what}")
    if "diverging" in p.sample_stats and (n := int(p.sample_stats["diverging"].sum())):
        out.append(
            f"{n} transitions of NUTS diverged: the posterior has a region of high "
            "curvature. Raise target_accept, or give the variances tighter priors"
        )
    if p.chains > 1:
        worst = float(np.nanmax(p.summary()["rhat"].to_numpy()))
        if worst > 1.01:
            out.append(
                f"R-hat is {worst:.3f} (above 1.01): the chains do not agree yet. Ask "
                "for more draws or a longer warmup"
            )
    if method == "VB" and p.facts.get("nested") is False and len(p.draws.sd):
        out.append(
            "standard deviations, correlations and dispersion have a Gaussian at one "
            f"point, not integrated: {POINT}. VB(nested=True) integrates them"
        )
    if method == "VB" and getattr(bayes, "family", "") == "mean-field":
        out.append(
            "a mean field is too narrow where coefficients and random effects are "
            "correlated; VB() keeps them together"
        )
    return tuple(out)
