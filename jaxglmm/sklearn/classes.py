"""Classes and their order: what a response and a family say of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.formula.matrix import unmasked


def order_of(y: Any, family: Any) -> list[Any] | None:
    """The classes in the order that family or response give; None for the sorted ones.

    Raises:
        ValueError: ordered classes of text without an order.
    """
    if family is None:
        return None
    if family.levels is not None:
        return list(family.levels)
    categories = getattr(getattr(y, "cat", y), "categories", None)
    ordered = bool(getattr(getattr(y, "cat", y), "ordered", False))
    if categories is not None and ordered:
        return list(categories)
    kind = np.asarray(unmasked(y)).dtype.kind
    if family.family_kind == "ordinal" and kind not in "biuf":
        raise ValueError(
            "the classes are text, which has no order: give it by "
            "family=jg.Cumulative(levels=[...]), or y as an ordered categorical"
        )
    return None


def in_order(y: np.ndarray, order: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The classes that y has, in this order, and their codes (n,).

    Raises:
        ValueError: a label that is not among them.
    """
    place = {label: k for k, label in enumerate(order)}
    strange = [label for label in y.tolist() if label not in place]
    if strange:
        raise ValueError(
            f"y has the class {strange[0]!r}, which is not among the levels {order}"
        )
    places = np.array([place[label] for label in y.tolist()])
    seen, codes = np.unique(places, return_inverse=True)
    return np.array([order[k] for k in seen]), codes


def coded_family(family: Any, K: int) -> Any:
    """The family over the codes 0 to K - 1 in the place of labels."""
    if family.family_kind == "ordinal":
        return type(family)(family.link, family.thresholds, levels=range(K))
    return type(family)(family.link, levels=range(K))
