"""Whether other starts end at the same maximum: a certificate of the optimum.

R's ``allFit`` runs other optimisers from one start; here one optimiser starts at other
places, random standard deviations and correlations a factor e or so from the estimates,
which is what tells a second maximum from a slow search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.kinds import is_correlated
from jaxglmm.runtime.precision import double_precision

SPREAD = 1.2  # sd of the logarithm of what a standard deviation is multiplied by
LEAST = 0.05  # of a standard deviation of zero, in internal units
SAME = 1e-4  # of the criterion


@dataclass(frozen=True)
class Starts:
    """Where several starts ended; shows itself.

    table: frame, one row a start, the fit itself first: criterion, above (the best of
    all), status, furthest (the largest distance of a coefficient from the fit's, in
    standard errors)
    """

    table: pd.DataFrame

    @property
    def agree(self) -> bool:
        """Whether all that converged ended at the fit's criterion."""
        done = self.table[self.table["converged"]]
        base = self.table["criterion"].iloc[0]
        return bool((np.abs(done["criterion"] - base) < SAME).all())

    @property
    def better(self) -> float:
        """How far the best start is below the fit, in units of the criterion; or 0."""
        gain = self.table["criterion"].iloc[0] - self.table["criterion"].min()
        return float(gain) if gain > SAME else 0.0

    def __repr__(self) -> str:
        n = len(self.table) - 1
        done = int(self.table["converged"].iloc[1:].sum())
        near = np.abs(self.table["criterion"] - self.table["criterion"].iloc[0]) < SAME
        same = int((near & self.table["converged"]).iloc[1:].sum())
        text = f"{same} of {n} other starts end at the fit's maximum"
        if self.better:
            text += f"; the best is {self.better:.4g} below its criterion"
        elif same < done:
            text += f"; {done - same} end at a worse one"
        if done < n:
            text += f"; {n - done} did not converge"
        return f"<{text}>"


@double_precision
def multistart(fit: Any, n: Any = 10, seed: Any = 0) -> Starts:
    """See ``Fit.multistart``."""
    n = _arguments.whole("n", n, 1, 10_000, error=NotApplicableError)
    if not fit.design.terms and not is_correlated(fit):
        raise NotApplicableError(
            "multistart() moves variances of random effects, and there are none"
        )
    if fit.design.fixed:
        raise NotApplicableError("multistart() is for fits without fixed= parameters")
    rng = np.random.default_rng(_arguments.seed(seed))
    run = _linear if fit.is_linear else _generalised
    se = np.where(fit.se > 0, fit.se, np.nan)
    found = [(fit.criterion, fit.estimates.status, fit.coefficients)]
    found += [run(fit, rng) for _ in range(n)]
    rows = []
    for criterion, status, beta in found:
        away = np.abs(beta - fit.coefficients) / se
        furthest = float(np.nanmax(away)) if np.isfinite(away).any() else np.nan
        word = _status.names([status])[0]
        rows.append((criterion, status == _status.CONVERGED, word, furthest))
    columns = ["criterion", "converged", "status", "furthest"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "above", table["criterion"] - table["criterion"].min())
    return Starts(table)


def _moved(theta: np.ndarray, scales: np.ndarray, rng: np.random.Generator):
    """Standard deviations times random factors, the rest of theta moved likewise."""
    factor = np.exp(SPREAD * rng.standard_normal(len(theta)))
    size = np.maximum(np.abs(theta), LEAST)
    other = theta + np.maximum(np.abs(theta), 0.3) * rng.standard_normal(len(theta))
    return np.where(scales, size * factor, other)


def _linear(fit: Any, rng: np.random.Generator) -> tuple[float, int, np.ndarray]:
    engine, settings = fit.engine, fit.diagnostics
    tol = settings.get("tol", _engine.TOLERANCE)
    steps = settings.get("max_iter", _engine.STEPS)
    theta = engine.theta(fit.estimates)
    scales = np.asarray(engine.scales, bool)
    start = _moved(np.asarray(theta), scales, rng)
    fitted, criterion = engine.fit(tol, steps, theta=start)
    found = engine.estimates(fit.design, fitted, criterion)
    return float(criterion), int(found.status), np.asarray(found.beta)


def _generalised(fit: Any, rng: np.random.Generator) -> tuple[float, int, np.ndarray]:
    engine, settings = fit.engine, fit.diagnostics
    psi, u = fit.internal()
    p, m = engine.base.p, engine.base.m
    psi = np.array(psi)
    scales = np.asarray(engine.scales, bool)
    psi[p : p + m] = _moved(psi[p : p + m], scales, rng)
    tol = settings.get("tol", _engine.TOLERANCE)
    zero = tuple(0 * np.asarray(x) for x in u)
    steps = settings.get("max_iter", _engine.STEPS)
    found = engine.searched_from(psi, zero, tol, steps)
    beta = np.asarray(found.psi)[:p]
    own = engine.R_inverse @ beta if len(engine.R_inverse) == p else beta
    if len(own) != len(fit.coefficients):
        own = np.full(len(fit.coefficients), np.nan)
    return float(found.criterion), int(found.status), own
