"""The arguments ``zi=`` and ``dispersion=`` of the front doors, in both spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxglmm._errors import ArgumentError, ModelError
from jaxglmm.formula.components import (
    right_side,
    with_dispersion,
    without_residual,
)
from jaxglmm.formula.design import DISP, Design

if TYPE_CHECKING:
    from jaxglmm.estimate.maximise import Maximise
    from jaxglmm.model.families import AbstractFamily

SPELLINGS = {"zi": "ziformula", "dispersion": "dispformula"}
NOTHING = "0"  # the right side of no residual


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
    from jaxglmm.model.families.composed import ZI

    out = {}
    zeros = right_side(zi, "zi", formula)
    if zeros is not None:
        _may_have_zeros(family)
        out[ZI] = zeros
    spread = right_side(dispersion, "dispersion", formula)
    if is_zero(dispersion, spread):
        if not family.is_linear_model:
            raise ModelError(
                "dispersion='~ 0' leaves rows without a spread of their own: it is for "
                "Gaussian models with the identity link, whose random effects may say "
                "all of the covariance; dispersion='~ 1' or None is one number for "
                "all rows"
            )
        if out:
            raise ModelError(
                "dispersion='~ 0' and zi= do not go together: a response without a "
                "residual has no zeros of its own"
            )
        out[DISP] = NOTHING
        return out
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
    from jaxglmm.model.families.composed import ZI, Composed

    if family.family_kind == "ordinal":
        return design, family  # its parts are made once its categories are known
    made = Composed(family, ZI in design.parts, DISP in design.parts)
    return assemble.precise(design, family), made


def is_zero(dispersion: Any, right: str | None) -> bool:
    """Whether ``dispersion`` is ``"~ 0"``, no residual; ``right`` its right side."""
    return right is None and isinstance(dispersion, str)


def dispersion_of(
    formula: Any, dispersion: Any, bayes: Any, residual: Any
) -> dict[str, str]:
    """Right sides of the other predictors of a linear model.

    Raises:
        ModelError: beside a residual structure, or for a posterior.
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
    if bayes is not None:
        raise ModelError(
            "posteriors of a model with dispersion= come from "
            "jg.glmm(..., family='gaussian', dispersion=..., method='nested-laplace')"
        )
    return others


def formulas(others: dict[str, str]) -> dict[str, str]:
    """Those that are read: ``"0"`` has no columns."""
    return {name: right for name, right in others.items() if right != NOTHING}


def no_residual(others: dict[str, str], bayes: Any) -> bool:
    """Whether a model of ``glmm`` has no residual.

    Raises:
        ModelError: a posterior of one is asked for.
    """
    silent = others.get(DISP) == NOTHING
    if silent and bayes is not None:
        raise ModelError(
            "dispersion='~ 0' has no posteriors here; maximise the likelihood, "
            "method='laplace'"
        )
    return silent


def gaussian(
    design: Design,
    others: dict[str, str],
    family: AbstractFamily,
    reml: bool,
    tol: float,
    max_iter: int,
    started: float,
    held: tuple[Any, Any, Any] | None = None,
) -> Any:
    """A Gaussian model of ``glmm`` as the linear model that it is.

    held: ``fixed=``, ``start=`` and the Bayesian method, where one of the first is.
    """
    from jaxglmm.api.given import known_or_held
    from jaxglmm.estimate.maximise import Maximise
    from jaxglmm.fitting.fit_design import fit_correlated, fit_design
    from jaxglmm.results import faces

    if held is not None:
        design = known_or_held(design, None, *held, bool(others))
    family.check(design.y, design.trials, design.rows)
    estimator = Maximise(reml)
    if others:
        return dispersed(design, estimator, tol, max_iter, started, "satterthwaite")
    if held is not None:
        own = {"fixed": held[0], "start": held[1], "kinds": faces.face}
        return fit_correlated(design, estimator, tol, max_iter, started, **own)
    make = faces.face("linear")
    return fit_design(design, estimator, tol, max_iter, True, started, make=make)


def is_held_linear(design: Design, family: AbstractFamily) -> bool:
    """Whether parameters of this model are held as those of a linear one."""
    return family.is_linear_model and bool(design.terms)


def dispersed(
    design: Design,
    estimator: Maximise,
    tol: float,
    max_iter: int,
    started: float,
    ddf: str,
) -> Any:
    """A linear model with a formula of its residual sd, or without a residual.

    Raises:
        ModelError: by REML with random effects in the formula of the sd.
    """
    from jaxglmm.fitting.fit_design import fit_correlated, fit_generalised
    from jaxglmm.results import faces

    part = design.parts.get(DISP)
    if part is None:
        design = without_residual(design)
    elif not part.terms:
        design = with_dispersion(design)
    elif estimator.reml:
        raise ModelError(
            f"dispersion='~ {_right(part)}' has random effects, whose integral REML "
            "does not go with: write reml=False, or model the residual sd by fixed "
            "effects"
        )
    else:
        from jaxglmm.estimate.presets import Laplace
        from jaxglmm.model.families import family_from

        design, family = composed(design, family_from("gaussian"))
        rest = (Laplace(), tol, max_iter, started, faces.face)
        return fit_generalised(design, family, *rest)
    own = {"ddf": ddf, "kinds": faces.face}
    return fit_correlated(design, estimator, tol, max_iter, started, **own)


def _right(part: Design) -> str:
    return str(part.formula).partition("~")[2].strip()
