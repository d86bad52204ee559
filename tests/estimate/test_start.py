"""Starting values by moments: exact where the moments are, else as defined."""

import jax
import numpy as np
import pytest
from doors import Diagonal, TermColumns, build, start
from integrate import oracle
from structure import designs

compute = jax.jit(start.moments)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 10.0])
def test_exact_on_balanced_one_way_layouts(ratio, rng):
    """The estimates of the analysis of variance."""
    J, k = 16, 5
    y = ratio * np.repeat(rng.normal(size=J), k) + rng.normal(size=J * k) + 50
    codes = np.repeat(np.arange(J, dtype=np.int32), k)
    term = TermColumns("g", codes, np.ones((J * k, 1)), J, Diagonal(1))
    problem = designs.on_device(build(y, np.ones((J * k, 1)), [term], None))
    table = y.reshape(J, k)
    between = k * np.var(table.mean(axis=1), ddof=1)
    within = np.mean(np.var(table, axis=1, ddof=1))
    expected = np.sqrt((between - within) / k / within)
    np.testing.assert_allclose(compute(problem), [expected], rtol=1e-8)


@pytest.mark.parametrize("name", ["terms", "nested", "crossed", "crossed-3"])
@pytest.mark.parametrize("p", [0, 2])
def test_moments_as_they_are_defined(name, p):
    """Quadratic forms of least-squares residuals equated to their expectations."""
    layout = designs.BY_NAME[name]
    rows = designs.rows(layout, padded=True, p=p, weighted=True)
    moments = rows.moments(layout.structure)
    problem = designs.on_device(moments)
    data = oracle.dense(moments, rows.y, rows.X)
    P = np.eye(data.n) - data.X @ data.X.T
    groups = [z[:, :, i] for z in data.Z for i in range(z.shape[2])]
    forms = [P @ g @ g.T @ P for g in groups] + [P]
    A = np.array([[np.sum(a * b) for b in forms] for a in forms])
    gamma = np.linalg.solve(A, [data.y @ a @ data.y for a in forms])
    base = max(gamma[-1], 1e-3 * data.y @ data.y / data.n)
    sd = np.sqrt(np.clip(gamma[:-1] / base, start.LEAST**2, start.MOST**2))
    expected, offset = [], 0
    for f in moments.factors:
        expected += [sd[offset + i] if i == j else 0.0 for i, j in f.covariance.entries]
        offset += f.q
    np.testing.assert_allclose(compute(problem), expected, rtol=1e-6)


def test_the_same_component_twice_is_survived():
    """Two factors with the same levels: no unique moments, but a start."""
    rows = designs.rows(designs.BY_NAME["one"])
    (term,) = rows.terms
    twin = TermColumns("h", term.codes, term.values, term.n_levels, term.covariance)
    moments = build(rows.y, rows.X, [term, twin], None)
    theta = np.asarray(compute(designs.on_device(moments)))
    assert ((theta >= start.LEAST) & (theta <= start.MOST)).all()
