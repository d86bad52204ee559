"""The alphabet of array dimensions, written in every signature that crosses a file.

n rows   p fixed effects   q random effects a level   J levels   m thetas
r right-hand sides   D data sets   S draws   K several vectors at once

Read by people and type checkers. While a program runs they are the arrays' classes and
no more: loading jaxtyping would take a seventh of a first import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int
else:
    from jax import Array

    class Float:
        """``Float[Array, "n p"]``: the class of the array."""

        def __class_getitem__(cls, given: tuple[Any, str]) -> Any:
            return given[0]

    class Bool(Float):
        """As ``Float``."""

    class Int(Float):
        """As ``Float``."""


Scalar = Float[Array, ""]
Flag = Bool[Array, ""]
Count = Int[Array, ""]

__all__ = ["Array", "Bool", "Count", "Flag", "Float", "Int", "Scalar"]
