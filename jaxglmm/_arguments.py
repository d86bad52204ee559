"""Numbers that users give: whole numbers, levels, seeds. One sentence for what is not.

Each has a largest value too: ten to the power of twenty draws are a slip of the hand,
and would run for ever, or end in an error of some library far below.
"""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np

from jaxglmm._errors import ArgumentError, JaxGLMMError, ModelError, NotApplicableError

ITERATIONS = 1_000_000_000  # counted in 32 bits on some devices
DRAWS = 1_000_000  # of a posterior, a chain, or simulated for a check
DATASETS = 10_000_000  # simulated or fitted at once
CHAINS = 1_000
NODES = 100  # of quadrature, a dimension
TOLERANCE = 10.0  # of the criterion; more than a model's parameters are worth
KEY = 2**63 - 1  # the largest seed of JAX's
CELLS = 2**32  # numbers in one result: 32 GiB


def whole(
    name: str,
    value: Any,
    least: int,
    most: int | None,
    *,
    meaning: str = "",
    error: type[JaxGLMMError] = ModelError,
) -> int:
    """The value as an int; most: None where any size will do.

    Raises:
        ModelError (or ``error``): for anything but a whole number from least to most.

    >>> whole("draws", 100, 1, 1000)
    100
    >>> whole("draws", 10**20, 1, 1000, meaning="draws")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxglmm._errors.ModelError: ... must be a whole number from 1 to 1,000: draws
    """
    if is_whole(value) and least <= value and (most is None or value <= most):
        return int(value)
    more = f": {meaning}" if meaning else ""
    bound = f"of at least {least}" if most is None else f"from {least} to {most:,}"
    raise error(f"{name}={shown(value)} must be a whole number {bound}{more}")


def is_number(value: Any) -> bool:
    """Whether it is a real number of any type; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number of any type.

    >>> [is_whole(x) for x in (2, 2.0, np.int64(2), 2.5, True, "2", None)]
    [True, True, True, False, False, False, False]
    """
    if not is_number(value):
        return False
    return isinstance(value, Integral) or (isfinite(value) and value == int(value))


def between(
    name: str,
    value: Any,
    meaning: str,
    *,
    error: type[JaxGLMMError] = NotApplicableError,
) -> float:
    """A number strictly between 0 and 1, as a float.

    Raises:
        ArgumentError: no number; ``error``: another one.
    """
    if not is_number(value):
        raise ArgumentError(
            f"{name}={shown(value)} must be a number, and must lie between 0 and 1: "
            f"{meaning}"
        )
    if 0 < value < 1:
        return float(value)
    raise error(f"{name}={shown(value)} must lie between 0 and 1: {meaning}")


def level(
    value: Any, name: str = "level", error: type[JaxGLMMError] = NotApplicableError
) -> float:
    """The coverage of an interval, above all 95 for 0.95."""
    return between(name, value, "0.95 for 95 per cent", error=error)


def positive(name: str, value: Any, most: float, meaning: str) -> float:
    """A positive number, as a float; raises ``ModelError`` otherwise."""
    if is_number(value) and 0 < value <= most:
        return float(value)
    raise ModelError(
        f"{name}={shown(value)} must be a positive number, at most {most:g}: {meaning}"
    )


def seed(value: Any, *, error: type[JaxGLMMError] = NotApplicableError) -> Any:
    """A seed of random numbers: None, whole numbers from 0 on, or NumPy's own kinds."""
    own = np.random.SeedSequence | np.random.Generator | np.random.BitGenerator
    if value is None or isinstance(value, own):
        return value
    many = isinstance(value, list | tuple | np.ndarray) and np.size(value) > 0
    numbers = np.ravel(np.asarray(value, object)) if many else [value]
    if all(isinstance(x, Integral) and is_whole(x) and int(x) >= 0 for x in numbers):
        return value if many else int(value)
    raise error(f"seed={shown(value)} must be a whole number of at least 0, or None")


def sequence(value: Any) -> np.random.SeedSequence:
    """A seed that others are made from; equal ones give equal numbers."""
    if isinstance(value, np.random.SeedSequence):  # a copy: spawning changes it
        return np.random.SeedSequence(
            value.entropy, spawn_key=value.spawn_key, pool_size=value.pool_size
        )
    if isinstance(value, np.random.Generator | np.random.BitGenerator):
        raise NotApplicableError(
            f"seed={shown(value)} has a state of its own; give a whole number"
        )
    return np.random.SeedSequence(seed(value))


def key_seed(value: Any) -> int:
    """A seed as JAX takes it: as it is, or folded where it has no 63 bits.

    >>> key_seed(7), key_seed(10**20) == key_seed(10**20) < 2**63
    (7, True)
    """
    if isinstance(value, Integral) and value <= KEY:
        return int(value)
    return int(sequence(value).generate_state(1, np.uint64)[0] >> 1)


def cells(name: str, n: int, rows: int) -> None:
    """Refuse a result of n times ``rows`` numbers that no memory holds."""
    if n * rows > CELLS:
        raise NotApplicableError(
            f"{name}={n:,} would be {n * rows * 8 / 2**30:,.0f} GiB for {rows:,} rows; "
            f"at most {CELLS // max(rows, 1):,} at once"
        )


def shown(value: Any) -> str:
    """The value as it was written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
