"""The progress bar, of which there is one kind."""

from __future__ import annotations

import warnings
from typing import Any

WAIT = 2.0  # seconds before a bar appears by itself


def bar(total: int, shown: bool | None, unit: str, what: str | None = None) -> Any:
    """For ``with``, and ``update(n)``.

    Args:
        total: how many there are of ``unit``.
        shown: None: where somebody is looking, and it takes a while.
        unit: "fit", ...
        what: stands before the bar.
    """
    with warnings.catch_warnings():  # a notebook without ipywidgets has a bar of text
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm

    by_itself: dict[str, Any] = {} if shown is not None else {"delay": WAIT}
    hidden = None if shown is None else not shown
    return tqdm(total=total, disable=hidden, unit=unit, desc=what, **by_itself)
