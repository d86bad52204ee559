"""Today's answers are those that were recorded, number by number.

A net under changes of the house: nothing that only moves code may move a number. A
change that is meant to: ``python tests/golden/make.py``, and say which and why.
"""

import json

import pytest
from golden.make import GOLDEN
from golden.models import CASES
from golden.record import distance, record, tolerance

RECORDED = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_the_recorded_ones(name):
    then, now = RECORDED[name], record(name)
    assert list(now) == list(then)
    apart = {q: distance(then, q, now[q]) for q in then}
    far = {
        q: f"{d:.1e}: {then[q]} -> {now[q]}"
        for q, d in apart.items()
        if d > tolerance(name, q)
    }
    assert far == {}


def test_every_record_has_its_case():
    assert list(RECORDED) == list(CASES)


@pytest.mark.parametrize(
    ("quantity", "by"),
    [("log_likelihood", 3e-7), ("coefficients", 1e-7), ("ranef/Subject/Days", 1e-7)],
)
def test_a_small_change_is_seen(quantity, by):
    then = RECORDED["sleep_reml"]
    now = [value + by for value in then[quantity]]
    assert distance(then, quantity, now) > tolerance("sleep_reml", quantity)


def test_other_changes_are_seen():
    then = RECORDED["sleep_reml"]
    assert distance(then, "se", then["se"][:1]) == float("inf")
    assert distance(then, "se", [float("nan"), 1.0]) == float("inf")
    assert distance(then, "facts", ["other"]) == float("inf")
    assert distance(then, "facts", list(then["facts"])) == 0
