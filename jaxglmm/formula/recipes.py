"""A recipe of either kind from its dictionary."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxglmm import _arguments
from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.array_recipe import ArrayRecipe
from jaxglmm.formula.components import ComponentsRecipe
from jaxglmm.formula.context import outer_context
from jaxglmm.formula.design import Design
from jaxglmm.formula.expand import CategoriesRecipe
from jaxglmm.formula.recipe import VERSION, FormulaRecipe
from jaxglmm.formula.smooths import SmoothRecipe


def with_functions(
    design: Design, functions: Mapping[str, Any] | None, trusted: bool
) -> Design:
    """A design from a file, whose formula may call these functions again.

    Args:
        design: as it was read.
        functions: by name. With ``trusted`` the caller's own are found as well.
        trusted: whether the formula may use all of Python.

    Raises:
        FormulaError: where ``functions`` are none.
    """
    if not isinstance(functions, Mapping | None):
        raise FormulaError(
            "functions= gives names to functions, as in {'double': double}, not "
            f"{_arguments.shown(functions)}"
        )
    given = dict(functions or {})
    for name, function in given.items():
        if not isinstance(name, str) or not callable(function):
            raise FormulaError(
                f"functions= gives names to functions, as in {{'double': double}}; "
                f"{name!r}: {function!r} does not"
            )
    if design.recipe is None or not (given or trusted):
        return design
    names = ChainMap(given, outer_context()) if trusted else given  # type: ignore
    using = design.recipe.using  # type: ignore
    return replace(design, recipe=using(names, trusted))


def recipe_from_dict(
    saved: Mapping[str, Any],
    *,
    context: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    trusted: bool = False,
) -> FormulaRecipe | ArrayRecipe | ComponentsRecipe | CategoriesRecipe | SmoothRecipe:
    """The recipe that some ``to_dict`` wrote.

    Args:
        saved: the dictionary, also after a trip through JSON.
        context: functions that the formula uses and JSON could not carry.
        variables: columns of the fit (``design.variables``), for ``sum_coded``.
        trusted: False, since a dictionary can come from anybody: its formula may use
            the known functions and ``context``. True: all of Python.
    """
    if saved.get("kind") == "categories":
        read = dict(context=context, variables=variables, trusted=trusted)
        part = recipe_from_dict(saved["part"], **read)
        return CategoriesRecipe(part, tuple(saved["names"]))
    if saved.get("kind") == "smooths":
        read = dict(context=context, variables=variables, trusted=trusted)
        part = recipe_from_dict(saved["part"], **read)
        return SmoothRecipe.from_parts(part, saved)
    if saved.get("kind") == "components":
        read = dict(context=context, variables=variables, trusted=trusted)
        parts = {k: recipe_from_dict(v, **read) for k, v in saved["parts"].items()}
        return ComponentsRecipe(parts)
    kinds = {"formula": FormulaRecipe, "arrays": ArrayRecipe}
    kind, version = saved.get("kind"), saved.get("version")
    if kind not in kinds or not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"cannot read a recipe of kind {kind!r}, version {version!r}; this package "
            f"reads {', '.join(kinds)} up to version {VERSION}"
        )
    made = kinds[kind]
    return made.from_dict(saved, context=context, variables=variables, trusted=trusted)
