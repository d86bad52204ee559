"""Parameters by name that are held at a value, or that a search starts from.

Names are those of every table: ``Days``, ``sd_Days|Subject``,
``cor_Days.(Intercept)|Subject``, ``sigma``, ``rho|Residual``, ``phi``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm.estimate.held import HeldPart, of_unstructured
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.notices import listed, nearest
from jaxglmm.model.covariances import names as words
from jaxglmm.model.covariances import of
from jaxglmm.model.covariances.base import AbstractCovariance

Given = Mapping[str, float]
NEAR_ONE = 0.999999  # a correlation from which Fisher's z starts, at most


def term_names(term: RandomTerm) -> list[tuple[str, str]]:
    """(kind, name) of a term's parameters, in the order of ``natural``."""
    own = of(term)
    sds, others = own.parameters(term.names)
    every = [(words.SD, one) for one in sds] + others
    return [(kind, words.parameter(kind, one, term.label)) for kind, one in every]


def checked(what: str, given: Any, kinds: Mapping[str, str]) -> dict[str, float]:
    """The values as numbers; kinds: of every parameter that the model has.

    Raises:
        ModelError: no dict, a name that is no parameter, or a value that it cannot
            have; the message lists the parameters, or says the range.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ModelError(
            f"{what}={_arguments.shown(given)} must be a dict from names of parameters "
            f"to values, as {what}={{{next(iter(kinds), 'sigma')!r}: 1.0}}"
        )
    out = {}
    for name, value in given.items():
        if name not in kinds:
            close = nearest(str(name), kinds)
            every = listed(list(kinds), 30)
            more = f"; there are {every}" if "there are" not in close else ""
            raise ModelError(
                f"{what}: the model has no parameter {_arguments.shown(name)}"
                f"{close.split('; there are')[0]}{more or f'; there are {every}'}"
            )
        out[name] = _value(what, name, value, kinds[name])
    return out


def _value(what: str, name: str, value: Any, kind: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    shown = _arguments.shown(value)
    if isinstance(value, bool) or not np.isfinite(number):
        raise ModelError(f"{what}: {name} = {shown} must be a finite number")
    if kind == words.SD and (number < 0 or (what == "start" and number == 0)):
        least = "above zero" if what == "start" else "zero or more"
        raise ModelError(f"{what}: {name} = {shown} is a standard deviation: {least}")
    if kind in ("positive", "range", "nu") and not number > 0:
        raise ModelError(f"{what}: {name} = {shown} must be above zero")
    if kind == words.COR and not abs(number) < 1:
        raise ModelError(f"{what}: {name} = {shown} must lie between -1 and 1")
    return number


def of_design(design: Design) -> dict[str, str]:
    """Name -> kind of the coefficients and of all that random effects have."""
    kinds = dict.fromkeys(design.x_names, "coefficient")
    for term in design.terms:
        kinds |= {name: kind for kind, name in term_names(term)}
    return kinds


def coefficients(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """(p,) which are held; (p,) at what, zero elsewhere."""
    held = np.array([name in design.fixed for name in design.x_names], bool)
    values = [design.fixed.get(name, 0.0) for name in design.x_names]
    return held, np.array(values, float)


def without_held(design: Design, y: np.ndarray, X: np.ndarray):
    """y (n,) less what held coefficients say, and the other columns of X."""
    held, values = coefficients(design)
    return (y - X @ values, X[:, ~held]) if held.any() else (y, X)


def in_units(term: RandomTerm, given: Given, unit: float) -> dict[str, float]:
    """The term's values with standard deviations in multiples of ``unit``."""
    named = [(kind, name) for kind, name in term_names(term) if name in given]
    return {
        name: given[name] / (unit if kind == words.SD else 1.0) for kind, name in named
    }


def has_zero(term: RandomTerm, fixed: Given) -> bool:
    """Whether a standard deviation of the term is held at zero."""
    return any(fixed.get(name) == 0 for _, name in term_names(term))


# Random effects -----------------------------------------------------------------------


def placed(term: RandomTerm, lam: np.ndarray, given: Given) -> np.ndarray:
    """The term's Lambda (q, q) with the given parameters in their places.

    Raises:
        ModelError: correlations that no covariance has.
    """
    names = [name for _, name in term_names(term)]
    if not any(name in given for name in names):
        return lam
    own = of(term)
    sd, rest = own.natural(lam @ lam.T)
    values = np.concatenate([sd, np.where(np.isfinite(rest), rest, 0.0)])
    for k, name in enumerate(names):
        values[k] = given.get(name, values[k])
    if own.has_own:
        return own.matrix(own.from_natural(values))
    if not own.pairs:
        return np.diag(values)
    n = len(sd)
    with np.errstate(divide="ignore"):
        x = np.concatenate([values[:n], np.arctanh(values[n:])])
    out = of_unstructured(own.q)(x)
    if not np.isfinite(out).all():
        wrong = [name for name in names[n:] if name in given]
        raise ModelError(
            f"{', '.join(wrong)}: no covariance has these correlations at once; "
            "bring them closer to zero"
        )
    return out


def term_piece(term: RandomTerm, lam: np.ndarray, fixed: Given) -> HeldPart:
    """One term from its Lambda in the user's units, which the piece makes again.

    Raises:
        ModelError: a parameter that cannot be held alone.
    """
    own, named = of(term), term_names(term)
    held = np.array([name in fixed for _, name in named], bool)
    if own.pairs and not own.has_own and held.any():
        return _natural_piece(own, lam, fixed, named)
    theta = own.theta(lam)
    n = sum(kind == words.SD for kind, _ in named)
    here = np.zeros(len(theta), bool)
    if not held[n:].any() or len(theta) == len(named) == n + 1 or held[n:].all():
        here[: len(held)] = held
    else:
        wrong = [
            name for (_, name), is_held in zip(named, held, strict=True) if is_held
        ]
        raise ModelError(
            f"fixed: of the correlations of {own_word(term)} all can be held, or none: "
            f"one alone ({wrong[-1]}) is no coordinate of it. Hold them all, or take us"
        )
    return HeldPart(theta, here, np.array(own.is_scale), own.matrix)


def own_word(term: RandomTerm) -> str:
    """``toep(... | g)``."""
    return f"{term.structure}(... | {term.factor})"


def _natural_piece(
    own: AbstractCovariance, lam: np.ndarray, fixed: Given, named: Sequence
) -> HeldPart:
    names, q = [name for _, name in named], own.q
    held = np.array([name in fixed for name in names])
    if len(names) != q + len(own.pairs) or len(own.entries) != len(names):
        raise ModelError(
            f"fixed: {names[int(np.argmax(held))]} is no parameter of a reduced-rank "
            "covariance, which has loadings; take us or diag"
        )
    sd, cor = own.natural(lam @ lam.T)
    cor = np.clip(np.where(np.isfinite(cor), cor, 0.0), -NEAR_ONE, NEAR_ONE)
    values = np.concatenate([sd, cor])
    values = np.array([fixed.get(n, v) for n, v in zip(names, values, strict=True)])
    values[q:] = np.arctanh(values[q:])
    return HeldPart(values, held, np.arange(len(names)) < q, of_unstructured(q))


def inverse(natural: Callable[[float], float], value: float) -> float:
    """The t with natural(t) = value, natural rising or falling on the whole line."""
    from scipy.optimize import brentq

    ends = 1.0
    while ends < 1e9:
        low, high = natural(-ends) - value, natural(ends) - value
        if low * high <= 0:
            return float(brentq(lambda t: natural(t) - value, -ends, ends, xtol=1e-15))
        ends *= 4
    raise ModelError(f"{value:g} is outside what the parameter can be")
