"""pandas, loaded when something of it is first used.

Half of what this package takes to import would be pandas, which only tables need: who
brings one has loaded it, others load it with their first table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Later:
    """A module that is imported when something of it is first used.

    >>> Later("math").floor(2.5)
    2
    """

    def __init__(self, name: str):
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        vars(self)[name] = found  # the next time by the shortest way
        return found


if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

__all__ = ["pd"]
