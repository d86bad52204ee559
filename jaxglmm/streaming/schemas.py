"""Types of columns over several files."""

from __future__ import annotations

from typing import Any


def typed(dataset: Any) -> Any:
    """With the types of later files where the first has none: a part without rows."""
    import pyarrow as pa

    schema = dataset.schema
    for k, field in enumerate(schema):
        if not pa.types.is_null(field.type):
            continue
        for fragment in dataset.get_fragments():
            own = fragment.physical_schema
            at = own.get_field_index(field.name)
            if at >= 0 and not pa.types.is_null(own.field(at).type):
                schema = schema.set(k, field.with_type(own.field(at).type))
                break
    return dataset if schema is dataset.schema else dataset.replace_schema(schema)
