"""What a formula may call wherever it comes from: a closed list.

Arithmetic is in ``jaxglmm.formula.evaluate``. Here are NumPy's mathematical functions,
the transforms (formulaic's, R's names for them, our own), the contrasts, and what may
be asked of a column: its mean, its day of the week. Nothing on the list reads or writes
a file, changes the data, or makes more numbers than there are rows and arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError
from jaxglmm.formula.contrasts import mark

PLAIN: dict[str, Any] = {  # nothing to remember, so formulaic need not be imported
    "I": lambda x: x,
    "np": np,
    "TRUE": True,
    "FALSE": False,
    "C": mark,
    "factor": mark,
    **{
        name: getattr(np, name)
        for name in (
            *("log", "log2", "log10", "log1p", "exp", "exp2", "expm1"),
            *("sqrt", "abs", "sin", "cos", "tan"),
        )
    },
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMPY = _words("""
pi e inf nan newaxis
abs absolute fabs sign negative positive square sqrt cbrt power float_power reciprocal
exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2
sin cos tan arcsin arccos arctan arctan2 hypot sinh cosh tanh arcsinh arccosh arctanh
asin acos atan atan2 asinh acosh atanh
deg2rad rad2deg degrees radians sinc i0 heaviside
floor ceil trunc rint round around fix
add subtract multiply divide true_divide floor_divide mod remainder fmod
minimum maximum fmin fmax clip where nan_to_num
equal not_equal less less_equal greater greater_equal isnan isfinite isinf isin
logical_and logical_or logical_xor logical_not
mean median std var min max amin amax sum prod ptp percentile quantile
nanmean nanmedian nanstd nanvar nanmin nanmax nansum nanpercentile nanquantile
cumsum cumprod digitize interp searchsorted
""")
NUMPY = frozenset(name for name in _NUMPY if hasattr(np, name))
_OPTIONS = _words(
    "axis ddof decimals a_min a_max min max q left right nan posinf neginf "
    "keepdims interpolation"
)
CONTRASTS = frozenset(("helmert", "poly", "sum", "treatment", "SAS", "diff", "custom"))

BUILTINS = frozenset(("abs", "round", "min", "max", "sum", "len"))

# Of a column; what stands behind ``dt`` and ``cat`` is on the list as well.
ATTRIBUTES = _words(
    """
    dt cat codes T values
    year month day hour minute second microsecond nanosecond quarter dayofyear
    day_of_year dayofweek day_of_week weekday days seconds days_in_month
    is_leap_year is_month_start is_month_end is_quarter_start is_quarter_end
    is_year_start is_year_end
    """
)
METHODS = _words(
    """
    mean median std var min max sum prod abs round clip fillna isna isnull notna notnull
    between isin rank cumsum cumprod cummax cummin diff shift quantile sem skew
    eq ne lt le gt ge add sub mul div pow mod total_seconds
    """
)
_METHOD_OPTIONS = _words(
    "ddof decimals lower upper inclusive pct ascending periods q value method"
)


def numpy_function(name: str) -> Any:
    """A function of NumPy that is on the list; it takes no output array."""
    found = getattr(np, name)
    return _limited(found, f"np.{name}", _OPTIONS) if callable(found) else found


def method(found: Any, name: str) -> Any:
    """A method of a column that is on the list; it changes nothing in place."""
    return _limited(found, f".{name}", _METHOD_OPTIONS)


def _limited(function: Any, name: str, options: frozenset[str]) -> Any:
    @wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        strange = sorted(set(kwargs) - options)
        if strange:
            raise FormulaError(f"{name}() takes no {strange[0]}= in a formula")
        if isinstance(function, np.ufunc) and len(args) > function.nin:
            raise FormulaError(f"{name}() takes {function.nin} arguments in a formula")
        return function(*args, **kwargs)

    return limited


@lru_cache(maxsize=1)
def transforms() -> dict[str, Any]:
    """formulaic's transforms under R's and patsy's names, and our own."""
    from formulaic.transforms import TRANSFORMS
    from formulaic.utils.stateful_transforms import stateful_transform

    from jaxglmm.formula.splines import natural_spline

    table = {
        **{k: v for k, v in TRANSFORMS.items() if k not in ("hashed", "Q", "np")},
        "ns": stateful_transform(natural_spline),
        "exp10": lambda x: np.power(10.0, x),
        **PLAIN,
    }
    for name in ("bs", "cc", "cr", "cs", "ns", "poly"):
        table[name] = _sized(name, table[name])
    return table


def _sized(name: str, function: Callable) -> Callable:
    """Refuse more columns than there are rows before they take all memory."""

    @wraps(function)
    def sized(x: Any, *args: Any, **kwargs: Any) -> Any:
        n = len(x) if hasattr(x, "__len__") else 0
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and value > max(n, 10):
                raise FormulaError(f"{name}(): {value:,} is too many for {n:,} rows")
        return function(x, *args, **kwargs)

    return sized
