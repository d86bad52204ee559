"""The coverage of intervals by either of its names.

``level`` is its name everywhere; ``conf_level``, as R's broom has it, is read as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from jaxglmm._errors import ArgumentError

P = ParamSpec("P")
T = TypeVar("T")


def conf_level_too(method: Callable[P, T]) -> Callable[P, T]:
    """The same method, which takes ``conf_level=`` for its ``level=``."""

    @functools.wraps(method)
    def either(*args: P.args, **kwargs: P.kwargs) -> T:
        if "conf_level" in kwargs:
            if "level" in kwargs:
                raise ArgumentError(
                    "level= and conf_level= are the same: give one of them"
                )
            kwargs["level"] = kwargs.pop("conf_level")
        return method(*args, **kwargs)

    either.also_takes = ("conf_level",)  # pyright: ignore[reportAttributeAccessIssue]
    return either
