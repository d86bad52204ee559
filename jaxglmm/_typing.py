"""The alphabet of array dimensions, written in every signature that crosses a file.

n rows   p fixed effects   q random effects a level   J levels   m thetas
r right-hand sides   D data sets   S draws   K several vectors at once
"""

from jaxtyping import Array, Bool, Float, Int

Scalar = Float[Array, ""]
Flag = Bool[Array, ""]
Count = Int[Array, ""]

__all__ = ["Array", "Bool", "Count", "Flag", "Float", "Int", "Scalar"]
