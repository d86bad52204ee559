"""Types of columns over several files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

READERS = 16  # schemas read at a time, which takes a disk's or a network's time


def common(dataset: Any) -> Any:
    """The schema of a ``pyarrow.dataset``, its numbers wide enough for all files.

    A file without rows says nothing of its types; one without a missing value may have
    whole numbers where another has doubles. Doubles that seem whole numbers are names
    more often than not, and become whole numbers, as long as all of them are.
    """
    schema = dataset.schema
    for fragment, own in _schemas(dataset):
        for k, field in enumerate(schema):
            at = own.get_field_index(field.name)
            if at < 0 or own.field(at).type == field.type:
                continue
            wider = _wider(field.type, own.field(at).type)
            if wider is not None and not _seem_whole(field, fragment):
                schema = schema.set(k, field.with_type(wider))
    return schema


def _schemas(dataset: Any) -> Iterator[tuple[Any, Any]]:
    fragments = list(dataset.get_fragments())
    if len(fragments) < 2:
        return
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda one: one.physical_schema, fragments)
        yield from zip(fragments, found, strict=True)


def _seem_whole(field: Any, fragment: Any) -> bool:
    """Whether a column of whole numbers elsewhere has doubles here that are, too."""
    import pyarrow as pa

    own = fragment.physical_schema.field(field.name).type
    if not (pa.types.is_integer(field.type) and pa.types.is_floating(own)):
        return False
    ends: list[float] = []
    for group in getattr(fragment, "row_groups", ()):
        said = (group.statistics or {}).get(field.name, {})
        ends += [said[end] for end in ("min", "max") if said.get(end) is not None]
    return bool(ends) and all(float(end).is_integer() for end in ends)


def _wider(one: Any, two: Any) -> Any:
    """The type of both; None where ``one`` serves, or nothing does."""
    import pyarrow as pa

    types = pa.types
    if types.is_null(one):
        return two
    if types.is_dictionary(one):  # theirs may not fit into its numbers
        return pa.dictionary(pa.int32(), one.value_type, one.ordered)
    if types.is_integer(one) and types.is_floating(two):
        return pa.float64()
    if types.is_integer(one) and types.is_integer(two):
        return pa.int64() if two.bit_width > one.bit_width else None
    if types.is_floating(one) and types.is_floating(two):
        return two if two.bit_width > one.bit_width else None
    return None


def differing(one: Any, two: Any, names: Sequence[str]) -> str:
    """Words on columns whose types differ: ``column 'x' is string here, ...``."""
    said = []
    for name in names:
        a, b = one.get_field_index(name), two.get_field_index(name)
        if min(a, b) < 0 or one.field(a).type == two.field(b).type:
            continue
        said.append(
            f"column {name!r} is {one.field(a).type} here and {two.field(b).type} in "
            "other files"
        )
    return "; ".join(said)


def kind_of(dtype: Any) -> str:
    """``number``, ``any`` of nothing yet, or the type itself."""
    import pyarrow.types as types

    if types.is_null(dtype):
        return "any"
    if types.is_dictionary(dtype):
        dtype = dtype.value_type
    numeric = types.is_integer(dtype) or types.is_floating(dtype)
    return "number" if numeric or types.is_decimal(dtype) else str(dtype)
