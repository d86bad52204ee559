"""The variables of the frame a public function was called from."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Mapping
from types import FrameType
from typing import Any

PACKAGE = __name__.partition(".")[0]
BETWEEN = ("functools", "contextlib")  # decorators' frames among the package's own


def is_inside(frame: FrameType) -> bool:
    """Whether a frame is one of this package, or of a decorator in it."""
    name = frame.f_globals.get("__name__") or ""
    return name.partition(".")[0] in (PACKAGE, *BETWEEN)


def outer_context() -> Mapping[str, Any]:
    """Local, then global names of the first frame outside this package."""
    frame = sys._getframe(1)
    while frame is not None and is_inside(frame):
        frame = frame.f_back
    return {} if frame is None else ChainMap(frame.f_locals, frame.f_globals)


def caller_context(depth: int = 1) -> Mapping[str, Any]:
    """Local, then global names of a caller, so that formulas can use their functions.

    Args:
        depth: 1 is the caller of the function that calls this one, 2 the next one out.
            A frame that does not exist gives no names.
    """
    try:
        frame = sys._getframe(depth + 1)
    except ValueError:
        return {}
    return ChainMap(frame.f_locals, frame.f_globals)
