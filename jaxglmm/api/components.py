"""The arguments ``zi=`` and ``dispersion=`` of the front doors, in both spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxglmm._errors import ArgumentError, ModelError
from jaxglmm.formula.components import right_side
from jaxglmm.formula.design import Design

if TYPE_CHECKING:
    from jaxglmm.model.families import AbstractFamily

SPELLINGS = {"zi": "ziformula", "dispersion": "dispformula"}


def spelt(unknown: dict[str, Any], zi: Any, dispersion: Any) -> tuple[Any, Any, Any]:
    """Both arguments, taken out of ``unknown`` where glmmTMB's names were used.

    The third is ``nominal``, of ordinal models alone.

    Raises:
        ArgumentError: one of them under both names.
    """
    found = []
    for (ours, theirs), given in zip(SPELLINGS.items(), (zi, dispersion), strict=True):
        other = unknown.pop(theirs, None)
        if other is not None and given is not None:
            raise ArgumentError(
                f"{ours}= and {theirs}= are two names of one argument; give one of them"
            )
        found.append(given if other is None else other)
    return found[0], found[1], unknown.pop("nominal", None)


def right_sides(
    formula: Any,
    zi: Any,
    dispersion: Any,
    family: AbstractFamily,
    nominal: Any = None,
) -> dict[str, str]:
    """Predictor -> right side of its formula, for those that have a model.

    Raises:
        ModelError: a model where the family has nothing to be modelled.
    """
    if family.family_kind == "ordinal":
        return _of_ordinal(formula, zi, dispersion, nominal)
    if nominal is not None:
        raise ModelError(
            "nominal= is for ordered categories, family=jg.Cumulative(): effects that "
            "differ from threshold to threshold"
        )
    if zi is None and dispersion is None:
        return {}
    if not isinstance(formula, str):
        raise ModelError(
            "zi= and dispersion= go with a formula and a table: "
            "jg.glmm('y ~ x + (1 | g)', data, zi='~ x')"
        )
    from jaxglmm.model.families.composed import DISP, ZI

    out = {}
    zeros = right_side(zi, "zi", formula)
    if zeros is not None:
        _may_have_zeros(family)
        out[ZI] = zeros
    spread = right_side(dispersion, "dispersion", formula)
    if spread is None and dispersion is not None:
        raise ModelError(
            "dispersion='~ 0' leaves rows without a spread of their own, which is not "
            "fitted here; dispersion='~ 1' or None is one number for all rows"
        )
    if spread is not None and spread != "1":
        if not family.n_phi:
            raise ModelError(
                f"family {family.name!r} has no dispersion parameter to be modelled by "
                f"dispersion={dispersion!r}{_with_dispersion(family)}"
            )
        out[DISP] = spread
    return out


def _of_ordinal(formula: Any, zi: Any, dispersion: Any, nominal: Any) -> dict[str, str]:
    """Thresholds, where rows have theirs, and the latent scale."""
    if zi is not None:
        raise ModelError(
            "zi= is for counts and positive values; the lowest of ordered categories "
            "has a threshold of its own"
        )
    if nominal is None and dispersion is None:
        return {}
    if not isinstance(formula, str):
        raise ModelError(
            "nominal= and dispersion= go with a formula and a table: "
            "jg.clmm('y ~ x + (1 | g)', data, nominal='~ z')"
        )
    from jaxglmm.fitting.ordinal import NOMINAL
    from jaxglmm.model.families.composed import DISP

    out = {NOMINAL: right_side(nominal, "nominal", formula) or "1"}
    spread = right_side(dispersion, "dispersion", formula)
    if spread is not None:
        out[DISP] = spread
    return out


def _may_have_zeros(family: AbstractFamily) -> None:
    if len(family.predictors) > 1:
        raise ModelError(
            f"family {family.name!r} has several linear predictors; zi= is for those "
            "of one"
        )


def _with_dispersion(family: AbstractFamily) -> str:
    other = family.overdispersed
    return "" if other is None else f"; family={other!r} has one"


def composed(design: Design, family: AbstractFamily) -> tuple[Design, AbstractFamily]:
    """The family with its other predictors.

    Weights of a linear model are precisions.
    """
    from jaxglmm.model import assemble
    from jaxglmm.model.families.composed import DISP, ZI, Composed

    if family.family_kind == "ordinal":
        return design, family  # its parts are made once its categories are known
    made = Composed(family, ZI in design.parts, DISP in design.parts)
    return assemble.precise(design, family), made


def dispersion_of(
    formula: Any, dispersion: Any, method: Any, reml: Any, residual: Any
) -> dict[str, str]:
    """Right sides of the other predictors of a linear model.

    Raises:
        ModelError: by REML, or beside a residual structure.
    """
    if dispersion is None:
        return {}
    from jaxglmm.model.families import family_from

    others = right_sides(formula, None, dispersion, family_from("gaussian"))
    if not others:
        return {}
    if residual is not None:
        raise ModelError(
            "dispersion= and residual= are two models of the residuals; give one"
        )
    by_ml = method is None and reml is False
    if not by_ml and not (isinstance(method, str) and method.lower() == "ml"):
        raise ModelError(
            "dispersion= is fitted by maximum likelihood here: write reml=False; REML "
            "with a residual sd for each level is residual= with a covariance whose "
            "name ends in h"
        )
    return others


def dispersed(design: Design, tol: float, max_iter: int, started: float) -> Any:
    """A linear model with a formula of its residual sd."""
    from jaxglmm.estimate.presets import Laplace
    from jaxglmm.fitting.fit_design import fit_generalised
    from jaxglmm.model.families import family_from
    from jaxglmm.results import faces

    design, family = composed(design, family_from("gaussian"))
    marginal = Laplace()
    return fit_generalised(design, family, marginal, tol, max_iter, started, faces.face)
