"""Running a Bayesian method on an engine: from its record to draws and facts.

Everything comes back as NumPy in the engine's coordinates (``Outcome``); names and
units are the engine's and the fit's business.
"""

from __future__ import annotations

import time

from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate.methods import MAP, NUTS, VB, BayesMethod, NestedLaplace
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.gaussian import run_gaussian
from jaxglmm.posterior.mode import find_mode
from jaxglmm.posterior.outcome import Outcome
from jaxglmm.runtime.precision import double_precision


@double_precision
def run(engine: PosteriorEngine, method: BayesMethod) -> Outcome:
    """The posterior of an engine's model by a method."""
    if isinstance(method, VB):
        from jaxglmm.posterior.vb import run_vb

        return run_vb(engine, method)
    began = time.perf_counter()
    marginal, mode = find_mode(engine, method)
    found = time.perf_counter()
    if isinstance(method, NUTS):
        from jaxglmm.posterior.nuts import run_nuts

        out = run_nuts(engine, method, marginal, mode)
    elif isinstance(method, MAP):
        out = run_gaussian(engine, method, marginal, mode)
    elif isinstance(method, NestedLaplace):
        from jaxglmm.posterior.importance import run_importance

        out = run_importance(engine, method, marginal, mode)
    else:
        raise NotApplicableError(f"{method!r} is not a method that is known here")
    done = time.perf_counter()
    out.seconds |= {"mode": found - began, "draws": done - found}
    out.facts |= {
        "steps": int(mode.steps),
        "decrement": float(mode.decrement),
        "nodes": marginal.nodes,
    }
    out.status = int(mode.status)
    return out
