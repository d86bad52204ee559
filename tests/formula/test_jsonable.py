"""Arrays and small dictionaries to JSON and back."""

import json

import numpy as np
import pytest
from doors import jsonable_pack as pack
from doors import jsonable_unpack as unpack

VALUES = [
    None,
    True,
    3,
    2.5,
    float("inf"),
    "text",
    [1, [2.0, None]],
    (1, (2, "a")),
    {"a": {1: 2.0, (3, 4): None}, "$b": 5},
    np.arange(6).reshape(2, 3),
    np.array([1.5, np.nan, -np.inf]),
    np.array([True, False]),
    np.array(["a", 3, None], dtype=object),
    np.array(["2024-01-01", "NaT"], dtype="datetime64[D]"),
    np.zeros((0, 2)),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_there_and_back(value):
    text = json.dumps(pack(value), allow_nan=False)
    found = unpack(json.loads(text))
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
    else:
        assert found == value


def test_numpy_scalars_and_what_has_no_form():
    assert unpack(pack(np.float64(2.5))) == 2.5
    assert unpack(pack(np.int32(3))) == 3
    with pytest.raises(TypeError, match="function cannot be written"):
        pack(lambda: None)
