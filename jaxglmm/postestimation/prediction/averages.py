"""Means over normal linear predictors: E h(eta + s Z), Z standard normal, h = 1/link.

In closed form for the identity, the logarithm, the square root and the probit. For the
others by the trapezoidal rule in Z, which for an integrand with a Gaussian factor
converges faster than Gauss-Hermite's rule with as many nodes: its error is about
exp(d^2 / 2 - 2 pi d / step), where h(s z) is analytic as far as d from the real axis
(Goodwin 1949, Proc. Camb. Phil. Soc. 45, 241; Trefethen and Weideman 2014, SIAM Review
56, 385). The step follows s, so rounding is what is left, however large s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.model.families import AbstractFamily

REACH = 8.7  # standard deviations: beyond them lies less than 1e-17
EXPONENT = 36.0  # -log of the error
MOST_NODES = 20_001  # reached where s is in the hundreds
AT_ONCE = 1_000_000  # numbers in one batch
STEP = 6e-6


@dataclass(frozen=True)
class Average:
    """E h(eta + s Z) and its derivatives in eta and in s, each (n,)."""

    value: np.ndarray
    by_eta: np.ndarray
    by_sd: np.ndarray


def slope(family: AbstractFamily, eta: np.ndarray) -> np.ndarray:
    """d mean / d eta, elementwise; by a difference where a family has its own mean."""
    if has_plain_mean(family):
        return np.asarray(family.link.slope(eta), float)
    step = STEP * np.maximum(np.abs(eta), 1.0)
    above, below = eta + step, eta - step
    rise = np.asarray(family.mean(above)) - np.asarray(family.mean(below))
    return rise / (above - below)


def over_normal(family: AbstractFamily, eta: np.ndarray, sd: np.ndarray) -> Average:
    """Mean of the family at a normal linear predictor, row by row.

    Args:
        family: of the response.
        eta: (n,) means of the linear predictor.
        sd: (n,) its standard deviations.

    Raises:
        NotApplicableError: where the mean does not exist.
    """
    eta, sd = np.broadcast_arrays(np.asarray(eta, float), np.asarray(sd, float))
    if has_plain_mean(family):
        with np.errstate(over="ignore"):
            closed = family.link.over_normal(eta, sd)
        if closed is not None:
            return Average(*closed)
    if family.link.positive:
        _check_positive(family, eta, sd)
    pairs, back = np.unique(np.column_stack([sd, eta]), axis=0, return_inverse=True)
    found = _by_quadrature(family, pairs[:, 1], pairs[:, 0])
    return Average(*(part[back.ravel()] for part in found))


def nodes(step: float, reach: float = REACH) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the trapezoidal rule for the standard normal."""
    k = int(np.ceil(reach / step))
    z = step * np.arange(-k, k + 1)
    w = np.exp(-0.5 * z**2)
    return z, w / w.sum()


def _step(family: AbstractFamily, sd: float) -> tuple[float, float]:
    """Step and reach of the rule for predictors of this spread."""
    link = family.link
    bounded = link.positive or link.strip is not None
    reach = REACH if bounded else REACH + min(sd, 12.0)
    widest = np.sqrt(2 * EXPONENT)  # of d: what the Gaussian factor allows
    strip = np.inf if link.positive else link.strip or 1.0
    d = min(strip / max(sd, 1e-12), widest)
    step = 2 * np.pi * d / (EXPONENT + d**2 / 2)
    return max(step, 2 * reach / MOST_NODES), reach


def _by_quadrature(
    family: AbstractFamily, eta: np.ndarray, sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three means for rows in order of their sd: batches share a step."""
    out = np.full((3, len(eta)), np.nan)
    begin, last = 0, int(np.isfinite(sd).sum())  # NaNs come last
    while begin < last:
        end = min(begin + 4096, last)
        step, reach = _step(family, sd[end - 1])
        z, w = nodes(step, reach)
        end = min(end, begin + max(1, AT_ONCE // len(z)))
        at = eta[begin:end, None] + sd[begin:end, None] * z
        rise = slope(family, at)
        out[0, begin:end] = np.asarray(family.mean(at)) @ w
        out[1, begin:end] = rise @ w
        out[2, begin:end] = rise @ (w * z)
        begin = end
    return out[0], out[1], out[2]


def _check_positive(family: AbstractFamily, eta: np.ndarray, sd: np.ndarray) -> None:
    """Refuse predictors that reach zero, where the inverse link has a pole."""
    bad = np.flatnonzero(eta - REACH * sd <= 0)
    if len(bad):
        row = bad[0]
        raise NotApplicableError(
            f"re='marginal': with link {family.link.name!r} the mean over normal "
            f"random effects does not exist, since the linear predictor can be zero "
            f"(row {row}: {eta[row]:.3g}, standard deviation {sd[row]:.3g}). Use "
            "re='population' or 'conditional', or a fit with link='log'"
        )


def has_plain_mean(family: AbstractFamily) -> bool:
    """Whether the mean is the inverse link."""
    return type(family).mean is AbstractFamily.mean
