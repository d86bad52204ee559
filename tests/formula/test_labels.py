"""Labels that are met batch by batch."""

import numpy as np
import pytest
from doors import Coder, Growing, read_column

from jaxglmm import DataError


def batches(kind):
    rng = np.random.default_rng(3)
    numbers = rng.integers(-40, 60, 3000)
    found = {
        "short": numbers,
        "unsigned": (numbers + 40).astype(np.uint8),
        "long": numbers.astype(np.int64) * 10_000_000_019,
        "doubles": numbers / 4,
        "text": np.array([f"s{v}" for v in numbers], object),
        "wider and wider": np.sort(np.abs(numbers)) ** 4,
    }
    return np.array_split(found[kind], 7)


KINDS = ("short", "unsigned", "long", "doubles", "text", "wider and wider")


@pytest.mark.parametrize("kind", KINDS)
def test_the_levels_are_those_of_the_whole(kind):
    parts = batches(kind)
    _, levels = read_column("g", np.concatenate(parts)).as_factor()
    noted, added = Growing(), Growing()
    codes = []
    for part in parts:
        noted.note(read_column("g", part))
        codes.append(added.add(read_column("g", part)))
    assert len(noted) == len(added) == len(levels)
    for seen in (noted, added):
        found, _ = seen.sorted()
        assert found.tolist() == levels.tolist()
    found, rank = added.sorted()
    assert found[rank[np.concatenate(codes)]].tolist() == np.concatenate(parts).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_places_among_the_levels(kind):
    parts = batches(kind)
    seen = Growing()
    for part in parts:
        seen.note(read_column("g", part))
    levels, _ = seen.sorted()
    coder = Coder(levels)
    for part in parts:
        assert levels[coder.codes(read_column("g", part))].tolist() == part.tolist()
    strange = parts[0][:2].copy()
    strange[1] = "new" if kind == "text" else 123
    if strange[1] not in levels.tolist():
        assert coder.codes(read_column("g", strange)).tolist()[1] == -1


def test_a_range_that_outgrows_the_table_of_presence():
    seen = Growing()
    for part in ([5, 3], [2**40, 3], [-(2**50)]):
        seen.note(read_column("g", np.array(part)))
    assert seen.sorted()[0].tolist() == [-(2**50), 3, 5, 2**40]


def test_labels_that_change_their_kind():
    seen = Growing()
    seen.note(read_column("g", np.array([1, 2])))
    with pytest.raises(DataError, match="changes its type"):
        seen.note(read_column("g", np.array(["a", "b"], object)))
