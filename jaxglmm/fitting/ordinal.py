"""Ordered categories: a design whose intercept is the thresholds' location.

Users see X without an intercept, and thresholds. The likelihood's algebra sees X with
one and thresholds about zero, for there the intercept is centred, scaled and started as
any other; ``Location`` goes from one to the other, which is linear:

    theta = c + A d,   c = -intercept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError, ModelError
from jaxglmm.formula.array_recipe import INTERCEPT
from jaxglmm.formula.components import joined
from jaxglmm.formula.design import Design
from jaxglmm.formula.expand import expanded
from jaxglmm.formula.smooths import SmoothRecipe
from jaxglmm.model.families import AbstractFamily, Cumulative, Multinomial
from jaxglmm.model.families.cumulative_parts import (
    COND,
    DISP,
    CumulativeParts,
)

NOMINAL = "nominal"


def settled(design: Design, family: AbstractFamily) -> tuple[Design, AbstractFamily]:
    """A design without an intercept and the family of its categories.

    Others come back as they are.

    Raises:
        FormulaError: for a formula without an intercept.
    """
    if isinstance(family, Multinomial):
        return _multinomial(design, family)
    if not isinstance(family, Cumulative):
        return design, family
    assert design.response_levels is not None
    if isinstance(family, CumulativeParts):
        return design, family
    known = family.of_levels(design.response_levels)
    if design.parts:
        return _parts(design, known)
    return without_intercept(design), known


def is_settled(design: Design, family: AbstractFamily) -> bool:
    """Whether a design has no intercept any more, and its family all predictors."""
    if isinstance(family, Multinomial):
        return bool(design.parts)
    if not isinstance(family, Cumulative) or isinstance(family, CumulativeParts):
        return True
    return bool(family.categories) and not (design.parts or INTERCEPT in design.x_names)


def _multinomial(design: Design, family: Multinomial) -> tuple[Design, AbstractFamily]:
    """A predictor for every category but the first."""
    if design.parts:
        return design, family
    assert design.response_levels is not None
    known = Multinomial(family.link, design.response_levels)
    return expanded(design, known.predictors), known


def _parts(design: Design, family: Cumulative) -> tuple[Design, AbstractFamily]:
    """A predictor for all that thresholds are made of, perhaps one for the scale."""
    assert family.levels is not None
    own = DISP in design.parts, family.thresholds
    made = CumulativeParts(family.link, family.levels, *own)
    cond, nominal = without_intercept(design.parts[COND]), design.parts[NOMINAL]
    both = [name for name in cond.x_names if name in nominal.x_names]
    if both:
        raise ModelError(
            f"{both[0]!r} is in the formula and in nominal=: its effect on all "
            "thresholds is among those on each. Leave it out of one of them"
        )
    cond, nominal = (_of_rows(design, part) for part in (cond, nominal))
    if design.offset is not None and design.offset.ndim == 1:
        cond = replace(cond, offset=design.offset)
    parts = {COND: cond, **dict.fromkeys(made.threshold_predictors, nominal)}
    if made.scaled:
        parts[DISP] = _of_rows(design, without_intercept(design.parts[DISP]))
        if not parts[DISP].p and not parts[DISP].terms:
            raise ModelError(
                "dispersion='~ 1' of an ordinal model has nothing to estimate: its "
                "latent scale is one where no variable moves it"
            )
    return joined(parts), made


def _of_rows(design: Design, part: Design) -> Design:
    """A part with the response of its design, which may be another than it was."""
    return replace(
        part,
        y=design.y,
        weights=design.weights,
        response_levels=design.response_levels,
    )


def without_intercept(design: Design) -> Design:
    """The design with its column of ones left out, in new rows too."""
    if INTERCEPT not in design.x_names:
        if design.formula is None or design.p == 0:
            return design
        raise FormulaError(
            f"formula {design.formula!r} leaves the intercept out; the thresholds of "
            "an ordinal model stand in its place anyway. Write it without 0 + or - 1"
        )
    at = design.x_names.index(INTERCEPT)
    rest = [j for j in range(design.p) if j != at]

    def moved(columns: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(j - (j > at) for j in columns if j != at)

    return replace(
        design,
        X=np.ascontiguousarray(design.X[:, rest]),
        x_names=tuple(design.x_names[j] for j in rest),
        fixed_terms=tuple(
            replace(term, columns=moved(term.columns))
            for term in design.fixed_terms
            if term.name != INTERCEPT
        ),
        recipe=_without_column(design.recipe, at),
    )


def _without_column(recipe: Any, at: int) -> Any:
    """The recipe without one of the columns that are kept, none of a smooth."""
    if recipe is None:
        return None
    if isinstance(recipe, SmoothRecipe):
        return replace(recipe, part=_without_column(recipe.part, at))
    return replace(recipe, kept=(*recipe.kept[:at], *recipe.kept[at + 1 :]))


def with_ones(X: np.ndarray) -> np.ndarray:
    """X with an intercept in front."""
    return np.concatenate([np.ones((len(X), 1)), X], axis=1)


def with_threshold(design: Design, name: str) -> Design:
    """The design with a threshold as its first coefficient: a column of minus one."""
    X = np.concatenate([-np.ones((design.n, 1)), design.X], axis=1)
    terms = tuple(
        replace(term, columns=tuple(k + 1 for k in term.columns))
        for term in design.fixed_terms
    )
    names = (name, *design.x_names)
    return replace(
        design, X=X, x_names=names, fixed_terms=terms, null_space=None, recipe=None
    )


def has_location(family: AbstractFamily) -> bool:
    """Whether the first dispersion parameter is minus an intercept."""
    return isinstance(family, Cumulative) and family.located


def core(family: AbstractFamily) -> AbstractFamily:
    """The family that the likelihood's algebra sees."""
    return family.core if isinstance(family, Cumulative) else family


@dataclass(frozen=True)
class Location:
    """phi of the user from psi: (c, log spacings), or phi itself.

    row: (p,) of c = row'beta~, or (..., p) of each fit its own, None where there is
    none; k: parameters; n_phi: of the likelihood's family.
    """

    row: np.ndarray | None
    k: int
    n_phi: int

    def phi(self, psi: np.ndarray) -> np.ndarray:
        """(..., n) from (..., k)."""
        own = psi[..., self.k - self.n_phi :]
        if self.row is None:
            return own
        c = np.sum(psi[..., : self.row.shape[-1]] * self.row, axis=-1)
        return np.concatenate([np.asarray(c)[..., None], own], axis=-1)

    @property
    def jacobian(self) -> np.ndarray:
        """(..., n, k) derivatives of phi in psi."""
        own = np.eye(self.k)[self.k - self.n_phi :]
        if self.row is None:
            return own
        first = np.zeros((*self.row.shape[:-1], 1, self.k))
        first[..., 0, : self.row.shape[-1]] = self.row
        own = np.broadcast_to(own, (*first.shape[:-2], *own.shape))
        return np.concatenate([first, own], axis=-2)
