"""What is not here is statsmodels' own, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def falling_through(here: str, there: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``: names that it lacks come from statsmodels.

    Args:
        here: the module's ``__name__``.
        there: statsmodels' module of the same use.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {here!r} has no attribute {name!r}")
        try:
            theirs = import_module(there)
        except ImportError as error:
            raise ImportError(
                f"{here}.{name}: jaxglmm has no {name} of its own (it has "
                "statsmodels' mixed models), and statsmodels, whose name it is, "
                f"cannot be imported ({error}); pip install statsmodels"
            ) from error
        try:
            return getattr(theirs, name)
        except AttributeError:
            raise AttributeError(
                f"neither {here!r} nor {there!r} has {name!r}"
            ) from None

    return __getattr__
