"""A recipe of either kind from its dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxglmm._errors import DataError
from jaxglmm.formula.array_recipe import ArrayRecipe
from jaxglmm.formula.recipe import VERSION, FormulaRecipe


def recipe_from_dict(
    saved: Mapping[str, Any],
    *,
    context: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> FormulaRecipe | ArrayRecipe:
    """The recipe that some ``to_dict`` wrote.

    Args:
        saved: the dictionary, also after a trip through JSON.
        context: functions that the formula uses and JSON could not carry.
        variables: columns of the fit (``design.variables``), for ``sum_coded``.
    """
    kinds = {"formula": FormulaRecipe, "arrays": ArrayRecipe}
    kind, version = saved.get("kind"), saved.get("version")
    if kind not in kinds or not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"cannot read a recipe of kind {kind!r}, version {version!r}; this package "
            f"reads {', '.join(kinds)} up to version {VERSION}"
        )
    return kinds[kind].from_dict(saved, context=context, variables=variables)
