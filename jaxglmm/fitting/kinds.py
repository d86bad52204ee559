"""Which class a fit is made of: a record of this room, or a face, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_correlated import FittedCorrelated
    from jaxglmm.fitting.fitted_dispersed import FittedDispersed
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal

Kinds = Callable[[str], Any]  # "linear", "generalised", ... -> a class


def record(kind: str) -> Any:
    """The record of a kind, imported when it is asked for."""
    if kind == "linear":
        from jaxglmm.fitting.fitted_model import FittedModel

        return FittedModel
    if kind == "correlated":
        from jaxglmm.fitting.fitted_correlated import FittedCorrelated

        return FittedCorrelated
    if kind == "dispersed":
        from jaxglmm.fitting.fitted_dispersed import FittedDispersed

        return FittedDispersed
    if kind == "generalised":
        from jaxglmm.fitting.fitted_generalised import FittedGeneralised

        return FittedGeneralised
    if kind == "ordinal":
        from jaxglmm.fitting.fitted_ordinal import FittedOrdinal

        return FittedOrdinal
    if kind == "ordinal parts":
        from jaxglmm.fitting.fitted_ordinal import FittedOrdinalParts

        return FittedOrdinalParts
    if kind == "multinomial":
        from jaxglmm.fitting.fitted_multinomial import FittedMultinomial

        return FittedMultinomial
    if kind == "components":
        from jaxglmm.fitting.fitted_components import FittedComponents

        return FittedComponents
    raise ValueError(f"no record of the kind {kind!r}")


def is_correlated(fit: FittedModel) -> TypeGuard[FittedCorrelated]:
    """Whether a fit has a residual structure; asked without importing its class."""
    return fit.design.residual is not None


def is_dispersed(fit: Any) -> TypeGuard[FittedDispersed]:
    """Whether a fit is linear with a formula of its residual standard deviation."""
    term = fit.design.residual
    return term is not None and term.part is not None


def kind_of(family: str, parts: bool = False) -> str:
    """The kind of a generalised fit by the name of its family.

    parts: whether there are several linear predictors.
    """
    if family == "cumulative":
        return "ordinal parts" if parts else "ordinal"
    if family == "multinomial":
        return "multinomial"
    return "components" if parts else "generalised"


def posterior_kind(family: str) -> str:
    """The kind of a posterior by the name of its family."""
    generalised = kind_of(family) == "generalised"
    return "posterior" if generalised else "posterior of categories"


def is_generalised(fit: FittedModel) -> TypeGuard[FittedGeneralised]:
    """Whether a fit has a family and a link; asked without importing its class."""
    return not fit.is_linear


def is_ordinal(fit: Any) -> TypeGuard[FittedOrdinal]:
    """Whether a fit is one of ordered categories."""
    return is_generalised(fit) and fit.family.family_kind == "ordinal"
