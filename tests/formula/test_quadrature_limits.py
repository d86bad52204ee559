"""Formulas and estimators draw the line of quadrature in the same place."""

from types import SimpleNamespace

import pytest
from doors import Predictors, check_quadrature, integrator

import jaxglmm as jg


def refused(q, nodes):
    """By the check of the design, and by the estimator's."""
    term = SimpleNamespace(factor="g", names=[f"x{k}" for k in range(q)])
    design = SimpleNamespace(terms=(term,))
    problem = SimpleNamespace(sides=(q,), predictors=Predictors())
    early = None
    try:
        check_quadrature(design, nodes)
    except jg.ModelError as error:
        early = str(error)
    return early, integrator(nodes=nodes).refusal(problem)


@pytest.mark.parametrize("q", [1, 2, 3, 4])
@pytest.mark.parametrize("nodes", [3, 30, 36, 37, 100])
def test_both_refuse_the_same(q, nodes):
    early, late = refused(q, nodes)
    assert (early is None) == (late is None) == (q <= 3 and nodes**q <= 50_000)


def test_the_number_of_nodes_that_is_proposed_is_taken():
    early, _ = refused(3, 37)
    assert "Use at most nodes=36" in early
    assert refused(3, 36) == (None, None)
