"""The page "to add something, touch these files" of jaxglmm/README.md is true.

Each kind is added here as the page says, by its own class and a row in a table, and is
then used by name like those that are shipped: no other file need know it.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from doors import Homogeneous, Laplace, covariances
from doors import formula_parse as parse
from doors import formula_residual as residual
from doors import formula_structures as structures
from doors import integrate_marginals as marginals
from doors import residuals_structures as correlations

import jaxglmm as jg
from jaxglmm.model.families import FAMILIES, Poisson

PACKAGE = Path(jg.__file__).parent
README = (PACKAGE / "README.md").read_text()


def page(title):
    """A section of the README."""
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def paths(title):
    named = re.findall(r"`([\w/]+(?:\.py|/))`", page(title))
    return sorted({name for name in named if "/" in name})


def there(name):
    root = PACKAGE.parent if name.startswith("tests/") else PACKAGE
    return (root / name).exists()


@pytest.mark.parametrize(
    "title", ["To add something, touch these files", "What stands twice, and why"]
)
def test_the_files_of_the_page_are_there(title):
    assert len(paths(title)) > 12
    assert [name for name in paths(title) if not there(name)] == []
    assert not there("model/nowhere.py")


@pytest.fixture
def counts():
    rng = np.random.default_rng(2)
    g, t = np.repeat(np.arange(12), 4), np.tile(np.arange(4), 12)
    effect = rng.normal(size=12)[g]
    return {
        "g": [f"g{k}" for k in g],
        "t": [f"t{k}" for k in t],
        "time": t,
        "y": rng.poisson(np.exp(0.5 + 0.6 * effect)),
        "x": effect + rng.normal(size=48),
    }


def test_a_family(counts, monkeypatch):
    class Toy(Poisson):
        name = "toy"

    monkeypatch.setitem(FAMILIES, "toy", Toy)
    toy = jg.glmm("y ~ 1 + (1 | g)", counts, family="toy")
    assert toy.family_name == "toy"
    known = jg.glmm("y ~ 1 + (1 | g)", counts, family="poisson")
    assert toy.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-10)


def test_a_covariance(counts, monkeypatch):
    words = (*structures.WORDS, "toy")
    for module in (structures, parse):
        if hasattr(module, "WORDS"):
            monkeypatch.setattr(module, "WORDS", words)
    monkeypatch.setitem(covariances.REGISTRY, "toy", lambda q, _: Homogeneous(q))
    toy = jg.glmm("y ~ 1 + toy(0 + t | g)", counts, family="poisson")
    known = jg.glmm("y ~ 1 + homdiag(0 + t | g)", counts, family="poisson")
    assert toy.design.terms[0].covariance == "toy"
    assert toy.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-10)


def test_a_residual_structure(counts, monkeypatch):
    monkeypatch.setitem(correlations.MAKE, "toy", correlations.MAKE["ar1"])
    monkeypatch.setitem(correlations.TITLES, "toy", "a toy")
    monkeypatch.setitem(residual.PLACES, "toy", "whole")
    toy = jg.mmrm("x ~ 1 + toy(time | g)", counts)
    known = jg.mmrm("x ~ 1 + ar1(time | g)", counts)
    assert toy.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-10)
    assert "a toy" in str(toy.summary())


def test_a_marginal(counts, monkeypatch):
    class Toy(Laplace):
        name = "toy"

    monkeypatch.setitem(marginals.REGISTRY, "toy", Toy)
    toy = jg.glmm("y ~ 1 + (1 | g)", counts, family="poisson", method=Toy())
    known = jg.glmm("y ~ 1 + (1 | g)", counts, family="poisson")
    assert toy.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-10)
    assert isinstance(marginals.from_facts(toy.marginal.facts), Toy)
