"""What users give: numbers, words, names, flags, paths. One sentence for what is not.

Each number has a largest value too: ten to the power of twenty draws are a slip of the
hand, and would run for ever, or end in an error of some library far below.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._errors import (
    ArgumentError,
    DataError,
    JaxGLMMError,
    ModelError,
    NotApplicableError,
)

ITERATIONS = 1_000_000_000  # counted in 32 bits on some devices
DRAWS = 1_000_000  # of a posterior, a chain, or simulated for a check
DATASETS = 10_000_000  # simulated or fitted at once
CHAINS = 1_000
NODES = 100  # of quadrature, a dimension
RULE = 50_000  # nodes of a product rule, all dimensions together
SIDES = 3  # random effects a level, for nodes are a power of their number
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


def is_finite(value: Any) -> bool:
    """Whether it is a real number that a double can hold.

    >>> [is_finite(x) for x in (2, float("inf"), 10**400, "2", np.zeros(2))]
    [True, False, False, False, False]
    """
    try:
        return is_number(value) and isfinite(value)
    except OverflowError:
        return False


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
    many = isinstance(value, list | tuple | np.ndarray)
    numbers = list(np.ravel(value)) if isinstance(value, np.ndarray) else value
    numbers = numbers if many else [value]
    many = many and len(numbers) > 0
    numbers = numbers or [value]
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


def is_among(value: Any, words: Collection[Any]) -> bool:
    """Whether it is one of some words (or None); an array or a list never is.

    >>> [is_among(x, (None, "row")) for x in (None, "row", "a", ["row"], np.zeros(2))]
    [True, True, False, False, False]
    """
    return (value is None or isinstance(value, str)) and value in words


def choice(
    name: str,
    value: Any,
    words: Collection[Any],
    *,
    where: str = "",
    error: type[JaxGLMMError] = NotApplicableError,
) -> Any:
    """The value, one of some words; where: what asks, as in ``tidy(effects=...)``.

    Raises:
        NotApplicableError (or ``error``): for anything else.
    """
    if is_among(value, words):
        return value
    what = f"{name}={shown(value)}"
    what = f"{where}({what})" if where else what
    raise error(f"{what} is not one of {', '.join(map(repr, words))}")


def is_flag(value: Any) -> bool:
    """Whether it is True or False, or 1 or 0 for them.

    >>> [is_flag(x) for x in (True, 0, np.bool_(True), None, 2, "yes", np.zeros(2))]
    [True, True, True, False, False, False, False]
    """
    return isinstance(value, bool | np.bool_) or (is_whole(value) and value in (0, 1))


def flag(name: str, value: Any, *, error: type[JaxGLMMError] = ArgumentError) -> bool:
    """True or False.

    Raises:
        ArgumentError (or ``error``): for anything else.
    """
    if is_flag(value):
        return bool(value)
    raise error(f"{name}={shown(value)} must be True or False")


def names(name: str, value: Any, *, meaning: str = "a name") -> list[str]:
    """One name or several, as a list.

    Raises:
        ArgumentError: for anything else.

    >>> names("by", "x"), names("by", ("x", "y"))
    (['x'], ['x', 'y'])
    """
    if isinstance(value, str):
        return [value]
    unfit = isinstance(value, bytes | Mapping) or getattr(value, "ndim", 1) != 1
    if isinstance(value, Iterable) and not unfit:
        found = list(value)
        if all(isinstance(each, str) for each in found):
            return found
    raise ArgumentError(f"{name}={shown(value)} must be {meaning} or a list of them")


def path(value: Any, name: str = "path") -> Path:
    """Where a file lies, or shall lie.

    Raises:
        ArgumentError: no text and no ``os.PathLike``, or an empty one.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text:
            return Path(text)
    raise ArgumentError(f"{name}={shown(value)} must be the path of a file")


def new_file(value: Any, name: str = "path") -> Path:
    """The path of a file to write.

    Raises:
        ArgumentError: no path; DataError: a directory, or in one that is not there.
    """
    found = path(value, name)
    if found.is_dir():
        raise DataError(f"{shown(str(found))} is a directory, and not a file")
    if not found.parent.is_dir():
        raise DataError(f"There is no directory {shown(str(found.parent))}")
    return found


def file(value: Any) -> Path:
    """The path of a file that is there.

    Raises:
        ArgumentError: no path; DataError: no file of that name.
    """
    found = path(value)
    try:
        is_file, is_directory = found.is_file(), found.is_dir()
    except OSError:  # longer than a name can be
        is_file = is_directory = False
    if is_directory:
        raise DataError(f"{shown(str(found))} is a directory, and not a file")
    if not is_file:
        raise DataError(f"There is no file {shown(str(found))}")
    return found


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
