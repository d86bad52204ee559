"""Families with dispersion parameters on scales of their own, in sixty decimals."""

import jax
import numpy as np
import pytest
from doors import on_host
from model import decimals

from jaxglmm.model.families import FAMILIES, nested_derivatives

ETAS = {
    "log": (-3.0, 0.3, 2.5, 7.0),
    "identity": (0.3, 2.5, 30.0),
    "sqrt": (0.3, 4.0),
    "inverse": (0.01, 0.3, 2.0),
}
COUNTS, REAL, POSITIVE = (0.0, 1.0, 7.0, 200.0), (-3.0, 0.0, 50.0), (1e-3, 1.0, 40.0)
# family -> the same in decimals, natural values, responses, links
CASES = {
    "t": (
        decimals.student_estimated,
        [(0.3, 1.0), (2.0, 4.0), (1.0, 1e3), (1.0, 8e6)],
        REAL,
        ("identity", "log"),
    ),
    "lognormal": (
        decimals.lognormal,
        [(0.01,), (1.0,), (50.0,)],
        POSITIVE,
        ("log", "identity"),
    ),
    "skewnormal": (
        decimals.skewnormal,
        [(0.3, 1.0), (2.0, -4.0), (1.0, 0.01), (1.0, 40.0)],
        (-3.0, 0.0, 20.0),
        ("identity", "log"),
    ),
    "genpois": (
        decimals.genpois,
        [(0.5,), (1.0,), (1 + 1e-9,), (3.0,), (1e4,)],
        COUNTS,
        ("log", "sqrt", "identity"),
    ),
    "compois": (
        decimals.compois,
        [(0.3,), (2.0,)],
        (0.0, 7.0),
        ("log",),
    ),
    "tweedie": (
        decimals.tweedie,
        [(0.02, 1.05), (0.3, 1.5), (30.0, 1.01), (1.0, 1.99)],
        (0.0, 1e-8, 1.0, 37.0),
        ("log", "identity"),
    ),
}
GRID = [(name, link) for name, case in CASES.items() for link in case[-1]]


def table(name, link):
    """family, phi, natural values and rows with their truth."""
    make, values, responses, _ = CASES[name]
    family = FAMILIES[name](link)
    for natural in values:
        phi = np.asarray(family.from_natural(np.array(natural)))
        density = make(*map(float, family.natural(phi)))
        for y in responses:
            for eta in ETAS[link]:
                if name == "genpois" and not positive(y, eta, link, natural[0]):
                    continue
                if name == "compois" and not 0 < eta < 5:
                    continue  # sums in decimals take their time
                yield phi, y, eta, decimals.derivatives(density, y, eta, 0, 1, link)


def positive(y, eta, link, dispersion):
    """Whether a generalised Poisson count has a density."""
    root = np.sqrt(dispersion)
    mu = float(decimals.MEAN[link](decimals.D(eta)))
    return mu / root + (1 - 1 / root) * y > 0


@pytest.mark.parametrize(("name", "link"), GRID)
def test_against_sixty_digits(name, link):
    """In NumPy and as a program."""
    family = FAMILIES[name](link)
    phi, y, eta, true = (np.array(x) for x in zip(*table(name, link), strict=True))
    with on_host():
        here = family.derivatives(y, eta, phi.T)
    with jax.enable_x64(True):
        there = jax.jit(jax.vmap(family.derivatives, (0, 0, 0)))(y, eta, phi)
    largest = np.maximum.accumulate(np.abs(true), axis=1)
    for found in (here, there):
        error = np.abs(np.stack(found, axis=1) - true)
        allowed = 1e-11 * np.abs(true) + 1e-12 * largest + 1e-12
        assert (error < allowed).all(), (error / allowed).max(axis=0)


@pytest.mark.parametrize("name", list(CASES))
def test_derivatives_are_those_of_the_density(name):
    """In eta three times, in phi once and twice, beside differences."""
    family, rng = FAMILIES[name](), np.random.default_rng(3)
    phi = family.start(np.array([0.5, 1, 2, 3, 4, 0.7]))[1] + 0.1
    eta = rng.uniform(0.3, 1.2, 50)
    y = family.simulate(rng, family.mean(eta), phi)

    def total(f):
        return family.log_density(y, eta, f).sum()

    @jax.jit
    def in_eta(phi):
        auto = nested_derivatives(lambda t: family.log_density(y, t, phi), eta)
        return family.derivatives(y, eta, phi), auto

    steps = 1e-5 * np.eye(family.n_phi)
    with jax.enable_x64(True):
        for a, b in zip(*in_eta(phi), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        of_phi = jax.jit(jax.vmap(jax.value_and_grad(total)))
        (above, _), (below, _) = looked = [of_phi(phi + d) for d in (steps, -steps)]
        (_, rising), (_, falling) = looked
        slope, curve = jax.jit(lambda f: (jax.grad(total)(f), jax.hessian(total)(f)))(
            phi
        )
    np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6, atol=1e-6)
    more = (rising - falling) / 2e-5
    np.testing.assert_allclose(curve, more, rtol=1e-5, atol=1e-5)
