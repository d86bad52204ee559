"""Marginals as objects: what options, files and reprs make of them."""

import pytest
from doors import REGISTRY, from_facts, integrator

import jaxglmm as jg
from jaxglmm import DataError

ALL = [jg.Laplace(), jg.Laplace("expected"), jg.Laplace(order=2), jg.AGQ(7)]


@pytest.mark.parametrize("marginal", [*ALL, jg.AGQ("auto")])
def test_facts_are_read_back(marginal):
    again = from_facts(marginal.facts)
    assert again == marginal
    assert hash(again) == hash(marginal)
    assert type(again) is REGISTRY[marginal.name]
    assert eval(repr(marginal), {"jg": jg}) == marginal


def test_files_of_before_kept_options():
    old = {"hessian": "observed", "nodes": 1, "order": 1}
    assert from_facts(old) == jg.Laplace()
    assert from_facts(old | {"nodes": 9}) == jg.AGQ(9) == integrator(nodes=9)
    assert from_facts(old | {"order": 2}) == jg.Laplace(order=2)
    with pytest.raises(DataError, match="'saddlepoint', which is unknown"):
        from_facts({"name": "saddlepoint"})


def test_they_differ():
    assert len({m.words for m in ALL}) == 4
    assert all(a != b for i, a in enumerate(ALL) for b in ALL[:i])
    assert [m.beyond for m in ALL] == [False, False, True, True]
    assert [m.suits_lanes() for m in ALL] == [True, True, False, True]
    assert jg.AGQ(1) == jg.Laplace()
