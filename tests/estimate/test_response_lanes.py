"""Many fits at once are the single fits, whatever happens in the other lanes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import Maximise, _status, spd
from doors import response_lanes as lanes
from numerics.tolerance import assert_close
from structure import designs

pytestmark = pytest.mark.usefixtures("always_compiled")

D = 6
NOISE, BROKEN = 2, 4  # a lane without random effects; one that is not a number
TOL, STEPS = np.float64(1e-10), np.int64(100)


@functools.cache
def setting(name):
    layout = designs.BY_NAME[name]
    rows = designs.rows(layout, padded=True)
    moments = rows.moments(layout.structure)
    problem = designs.on_device(moments)
    rng = np.random.default_rng(11)
    found = []
    for k in range(D):
        y = rng.normal(size=designs.N)
        if k != NOISE:
            y = y + (rows.y - rows.y.mean()) * (0.4 + 0.2 * k)
        else:  # level means too near each other for any variance
            codes = rows.terms[0].codes
            means = np.bincount(codes, y) / np.bincount(codes)
            y = y - 0.9 * means[codes]
        found.append(moments.respond(y))
    Zy = tuple(np.stack(x) for x in zip(*[m.Zy for m in found], strict=True))
    yy = np.array([m.yy for m in found])
    yy[BROKEN] = np.nan
    responses = lanes.ResponseProducts(
        tuple(map(jnp.asarray, Zy)),
        jnp.asarray(np.stack([m.Xy for m in found])),
        jnp.asarray(yy),
    )
    return problem, responses, jnp.asarray(problem.start) * 0.7


def loop(problem, responses, theta, estimator):
    @jax.jit
    def one(r):
        own = problem.with_response(r.Zy, r.Xy, r.yy)
        return estimator.fit(own, theta, TOL, STEPS)

    return [one(jax.tree.map(lambda x, k=k: x[k], responses)) for k in range(D)]


@pytest.mark.parametrize("name", ["slopes", "wide", "nested", "crossed"])
def test_lanes_are_the_loop(name):
    problem, responses, theta = setting(name)
    estimator = Maximise(reml=True)
    chunk = {"slopes": 3, "wide": 1}.get(name, D)
    found = lanes.fit_lanes(estimator, problem, responses, theta, TOL, chunk, STEPS)
    alone = loop(problem, responses, theta, estimator)
    for k, expected in enumerate(alone):
        assert found.status[k] == expected.status, k
        if k == BROKEN:
            assert found.status[k] == _status.NOT_FINITE
            assert np.isnan(found.criterion[k])
            continue
        assert found.status[k] == _status.CONVERGED
        assert_close(found.criterion[k], expected.criterion, f"lane {k}", 1)
        # where the criterion is flat, theta is known to the root of its precision
        digits = 5 if k == NOISE else 3
        for field in ("theta", "beta", "sigma2"):
            ours, theirs = getattr(found, field)[k], getattr(expected, field)
            assert_close(ours, theirs, f"{field} of lane {k}", digits)
    if name in ("slopes", "nested"):
        assert np.abs(found.theta[NOISE]).min() < 0.05


def test_chunks_keep_within_cache_and_threads():
    """No LAPACK call of a chunk may be large enough to be cut up among threads."""
    small, _, _ = setting("slopes")
    assert lanes.chunk_size(small) > 100
    for name, p in [("wide", 2), ("crossed", 2), ("slopes", 28)]:
        layout = designs.BY_NAME[name]
        problem = designs.on_device(designs.rows(layout, p=p).moments(None))
        side = max(p, len(problem.start), *problem.sides)
        if name == "crossed":
            side = max(side, len(problem.system.A22))
        chunk = lanes.chunk_size(problem)
        assert side > spd.SMALL
        assert chunk >= 1
        assert chunk * side**3 <= max(lanes.THREADED, side**3)
