"""Priors of thresholds: each has its own, and they are drawn until they are in order.

That is the product of the priors where thresholds rise, divided by the probability that
they do: 1 over the factorial of their number where all priors are the same, else by
simulation. Where rows have thresholds of their own (``nominal=``) these are intercepts
of linear predictors, with the same priors, and rows out of order are impossible.
"""

from __future__ import annotations

from itertools import groupby
from math import inf, lgamma
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.model.families import AbstractFamily, Cumulative
from jaxglmm.model.families.cumulative_parts import CumulativeParts
from jaxglmm.model.priors.distributions import (
    AbstractDensity,
    Fixed,
    LogNormal,
    Normal,
    Priors,
    density_from,
    named,
    normal_from,
    of,
)

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design

WIDTH = 2.5  # standard deviation of a threshold
TRIED = 400_000  # draws that say how often thresholds are in order
RARE = 1e-4  # less often than this they cannot be drawn


def resolved(
    design: Design, family: AbstractFamily, priors: Priors, given: set[str]
) -> tuple[tuple[AbstractDensity | Fixed, ...], np.ndarray] | None:
    """(n_phi,) the priors of what thresholds are made of; (p,) covariates there.

    None of other families.

    Raises:
        ModelError: a prior of what the model has not, or improper ones.
    """
    if not isinstance(family, Cumulative):
        if priors.thresholds is not None:
            raise ModelError(
                f"priors give thresholds, and the family {family.name!r} has none: "
                "they are for family=jg.Cumulative()"
            )
        return None
    found = _resolved(family, priors, given)
    return found, _level(design, family, priors, found)


def _resolved(
    family: Cumulative, priors: Priors, given: set[str]
) -> tuple[AbstractDensity | Fixed, ...]:
    if priors.dispersion is not None:
        raise ModelError(
            "priors give a dispersion, and an ordinal model has none: its thresholds "
            "take jg.Priors(thresholds=...), a scale modelled by dispersion= the "
            "priors of its coefficients"
        )
    if priors.intercept is not None:
        raise ModelError(
            "priors give an intercept, and an ordinal model has thresholds in its "
            "place: jg.Priors(thresholds=jg.Normal(0, 2))"
        )
    known = list(family.phi_names)
    if not known:
        return ()
    by_name = named(priors.thresholds, known, "thresholds")
    ends = [scale.ends for scale in family.scales]
    out: list[Any] = []
    for name, own in zip(known, ends, strict=True):
        prior = of(by_name, known, name)
        if prior is None and not by_name and own == (-inf, inf):
            prior = priors.thresholds
        if prior is None:
            usual = Normal(0.0, WIDTH) if own == (-inf, inf) else LogNormal(0.0, 1.0)
            out.append(usual)
            continue
        given.add(f"threshold {name}")
        if own == (-inf, inf) and not isinstance(prior, Fixed):
            prior = normal_from(prior, name)
        if isinstance(prior, Normal) and not np.isfinite(prior.sd):
            raise ModelError(
                f"the prior of {name} is flat (sd=inf), and thresholds need proper "
                "ones: jg.Normal(0, 10) says next to nothing"
            )
        out.append(density_from(prior, name, own))
    fixed = sum(isinstance(prior, Fixed) for prior in out)
    if 0 < fixed < len(out):
        raise ModelError(
            f"the thresholds {', '.join(known)} are known together or not at all: fix "
            "all of them or none"
        )
    return tuple(out)


def of_intercepts(
    design: Design, family: AbstractFamily, priors: Priors, intercepts: tuple[int, ...]
) -> dict[int, Any]:
    """Column -> prior of the intercepts that are thresholds, where one was given."""
    if not isinstance(family, CumulativeParts):
        return {}
    known = list(family.threshold_predictors)
    by_name = named(priors.thresholds, known, "thresholds")
    place = {list(design.parts)[design.of_x[j]]: j for j in intercepts}
    out = {}
    for name in known:
        own = of(by_name, known, name) if by_name else priors.thresholds
        if own is not None and name in place:
            out[place[name]] = own
    return out


def _level(
    design: Design,
    family: Cumulative,
    priors: Priors,
    dispersion: tuple[AbstractDensity | Fixed, ...],
) -> np.ndarray:
    """(p,) covariates at which thresholds have their priors."""
    fixed = any(isinstance(prior, Fixed) for prior in dispersion)
    if not family.located or not priors.centered or fixed:
        return np.zeros(design.p)
    return np.where(design.X.std(axis=0) > 0, design.X.mean(axis=0), 0.0)


def log_ordered(
    family: AbstractFamily, priors: tuple[AbstractDensity | Fixed, ...]
) -> float:
    """-log P(in order) of independent draws.

    Raises:
        ModelError: they are never in order.
    """
    total = 0.0
    for own in _groups(family, priors):
        if _alike(own):
            total += lgamma(len(own) + 1.0)
            continue
        share = float(_in_order(own, np.random.default_rng(0)).shape[0]) / TRIED
        if share < RARE:
            raise ModelError(
                "the priors of the thresholds contradict their order: of draws "
                f"{share:.1g} are in order. Let their means rise"
            )
        total -= np.log(share)
    return total


def drawn(
    family: AbstractFamily,
    priors: tuple[AbstractDensity | Fixed, ...],
    rng: np.random.Generator,
    S: int,
) -> np.ndarray:
    """(n_phi, S) draws of the priors, thresholds in order."""
    if not priors:
        return np.zeros((0, S))
    out = np.stack([np.asarray(prior.sample(rng, S)) for prior in priors])
    rising = family.rising if isinstance(family, Cumulative) else ()
    for at, own in zip(rising, _groups(family, priors), strict=False):
        if _alike(own):
            out[list(at)] = np.sort(out[list(at)], axis=0)
            continue
        found = _in_order(own, rng)
        out[list(at)] = found[rng.integers(0, len(found), S)].T
    return out


def _groups(family: AbstractFamily, priors: tuple[Any, ...]) -> list[list[Any]]:
    """Priors of what must rise, one list a group."""
    free = isinstance(family, Cumulative) and not any(
        isinstance(prior, Fixed) for prior in priors
    )
    return [[priors[k] for k in at] for at in family.rising if priors] if free else []


def _alike(priors: list[Any]) -> bool:
    kinds = [(type(prior), *vars(prior).values()) for prior in priors]
    return len(list(groupby(kinds))) <= 1


def _in_order(priors: list[Any], rng: np.random.Generator) -> np.ndarray:
    """(kept, L) of the draws those that rise."""
    x = np.stack([prior.sample(rng, TRIED) for prior in priors], axis=1)
    return x[(np.diff(x, axis=1) > 0).all(axis=1)]
