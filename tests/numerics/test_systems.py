"""Every system x every operation against definitions with n x n matrices.

The rows of the table are the layouts of ``structure.designs`` and the dense twin;
``plain`` is the specification. Padding is part of the table: it never has any.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import DenseSystem, at_least, host_lambdas, scale, scale_transposed
from integrate import oracle
from numerics.tolerance import assert_close
from structure import designs

R = 3  # right-hand sides
DENSE = ("terms", "nested-3", "crossed")
TABLE = [(layout, layout.structure) for layout in designs.LAYOUTS] + [
    (designs.BY_NAME[name], "dense") for name in DENSE
]
CASES = pytest.mark.parametrize(
    ("layout", "structure"), TABLE, ids=lambda x: str(x) if x else "auto"
)
FULL = [case for case in TABLE if case[1] != "arrow-sparse"]  # same shapes as padded
BOTH = pytest.mark.parametrize(
    ("layout", "structure", "padded"),
    [(*case, True) for case in TABLE] + [(*case, False) for case in FULL],
    ids=lambda x: {True: "padded", False: "full", None: "auto"}.get(x, str(x)),
)
BATCHED = ("slopes", "wide", "nested", "crossed-3")
TRACES_LOSE = 5.5  # digits, where Lambda is inverted at its floor


def operations(system, lam, c, B, RR):
    """All that the interface offers, at one Lambda."""
    factor = system.factor(lam)
    K, T = factor.project(B, RR)
    return {
        "log_det": factor.log_det(),
        "forward": factor.forward(c),
        "backward": factor.backward(c),
        "normal": system.normal(c),
        "traces": factor.traces(),
        "inverse_blocks": factor.inverse_blocks(),
        "squares": system.squares(),
        "project": K,
        "project_T": T,
        "gram": factor.gram(c),
        "scale": scale(lam, c),
        "scale_transposed": scale_transposed(lam, c),
    }


one_lambda = jax.jit(operations)
many_lambdas = jax.jit(jax.vmap(operations, in_axes=(None, 0, None, None, None)))


def effects(data, flat):
    """Columns (m, K) as the definitions have them to a (q, K, J) array a factor."""
    out, start = [], 0
    for z in data.Z:
        _, J, q = z.shape
        part = flat[start : start + J * q].reshape(J, q, -1)
        out.append(part.transpose(1, 2, 0))
        start += J * q
    return tuple(out)


def plain(data, lam, flat, right):
    """The same operations by their definitions."""
    Z, Lam = data.flat, oracle.big_lambda(data, lam)
    M = Lam.T @ Z.T @ Z @ Lam + np.eye(len(Lam))
    L = np.linalg.cholesky(M)
    inverse = np.linalg.inv(oracle.V(data, lam))
    blocks, traces, groups, start = [], [], [], 0
    for z in data.Z:
        _, J, q = z.shape
        at = start + np.arange(J * q).reshape(J, q)
        part = np.linalg.inv(M)[at[:, :, None], at[:, None, :]]
        blocks.append(part.transpose(1, 2, 0))
        traces.append(np.einsum("njq,nm,mjr->qr", z, inverse, z))
        groups += [z[:, :, i] for i in range(q)]
        start += J * q
    return {
        "log_det": np.linalg.slogdet(M)[1],
        "forward": effects(data, np.linalg.solve(L, flat)),
        "backward": effects(data, np.linalg.solve(L.T, flat)),
        "normal": effects(data, Z.T @ Z @ flat),
        "traces": traces,
        "inverse_blocks": blocks,
        "squares": (
            np.array([[np.sum((a.T @ b) ** 2) for b in groups] for a in groups]),
            np.array([np.sum(a * a) for a in groups]),
        ),
        "project": right.T @ inverse @ right,
        "project_T": effects(data, Z.T @ inverse @ right),
        "gram": (Z @ flat).T @ inverse @ (Z @ flat),
        "scale": effects(data, Lam @ flat),
        "scale_transposed": effects(data, Lam.T @ flat),
    }


@functools.cache
def problem(layout, structure, padded):
    """System, definitions, random vectors, and Lambdas with all kinds of zeros."""
    rows = designs.rows(layout, padded, weighted=True)
    moments = rows.moments(structure)
    data = oracle.dense(moments, rows.y, rows.X)
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(data.flat.shape[1], R))
    right = rng.normal(size=(data.n, R))
    own = [f.covariance for f in moments.factors]
    lams = [
        host_lambdas(designs.thetas(own, rng, zero), own) for zero in (None, 0, 1, None)
    ]
    lams[3] = [np.zeros_like(x) for x in lams[3]]
    return moments, data, flat, right, lams


def arguments(moments, data, flat, right, dtype=float):
    """c, B = Z'R and R'R, padded."""

    def pad(w):
        return tuple(
            np.pad(x, ((0, 0), (0, 0), (0, size - x.shape[-1]))).astype(dtype)
            for x, size in zip(w, moments.sizes, strict=True)
        )

    B = pad(effects(data, data.flat.T @ right))
    system = jax.tree.map(
        lambda x: jnp.asarray(x, dtype if x.dtype.kind == "f" else None), moments.system
    )
    return system, pad(effects(data, flat)), B, (right.T @ right).astype(dtype)


def compare(found, expected, what="", traces_lose=1.0):
    """``traces_lose``: digits, or None where they are not asked for."""
    for name, value in expected.items():
        if name == "traces" and traces_lose is None:
            continue
        ours = jax.tree.leaves(found[name])
        theirs = jax.tree.leaves(value)
        assert len(ours) == len(theirs), name
        lost = traces_lose if name == "traces" else 1.0
        for a, b in zip(ours, theirs, strict=True):
            size = b.shape[-1] if np.ndim(b) == 3 else None
            assert_close(a[..., :size] if size else a, b, f"{what}{name}", lost)


@BOTH
def test_operations_follow_their_definitions(layout, structure, padded):
    moments, data, flat, right, lams = problem(layout, structure, padded)
    assert type(moments.system).__name__ == (
        "DenseSystem" if structure == "dense" else layout.system
    )
    assert padded == (moments.sizes != tuple(f.n_levels for f in moments.factors)) or (
        structure == "dense"
    )
    system, c, B, RR = arguments(moments, data, flat, right)
    exact = len(moments.factors) == 1 or isinstance(system, DenseSystem)
    for k, lam in enumerate(lams):
        raw = tuple(map(jnp.asarray, lam))
        found = one_lambda(system, raw, c, B, RR)
        expected = plain(data, lam, flat, right)
        compare(found, expected, f"Lambda {k}: ", 1.0 if exact else None)
        if exact:
            continue
        floored = at_least(raw)
        found = one_lambda(system, floored, c, B, RR)
        expected = plain(data, [np.asarray(x) for x in floored], flat, right)
        compare(found, expected, f"Lambda {k} off zero: ", TRACES_LOSE)


@pytest.mark.parametrize("name", BATCHED)
def test_vmap_is_the_loop(name):
    layout = designs.BY_NAME[name]
    structure = layout.structure
    moments, data, flat, right, lams = problem(layout, structure, True)
    system, c, B, RR = arguments(moments, data, flat, right)
    lams = [at_least(tuple(map(jnp.asarray, lam))) for lam in lams]
    stacked = tuple(jnp.stack(x) for x in zip(*lams, strict=True))
    together = many_lambdas(system, stacked, c, B, RR)
    for k, lam in enumerate(lams):
        alone = one_lambda(system, lam, c, B, RR)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            assert_close(a[k], b, f"lane {k}", TRACES_LOSE)


@CASES
def test_padding_stays_empty(layout, structure):
    """Nothing leaks into levels that do not exist: M is I there."""
    moments, data, flat, right, lams = problem(layout, structure, True)
    system, c, B, RR = arguments(moments, data, flat, right)
    found = one_lambda(system, tuple(map(jnp.asarray, lams[0])), c, B, RR)
    for k, f in enumerate(moments.factors):
        for name in ("forward", "backward", "normal", "project_T"):
            assert not np.asarray(found[name][k])[..., f.n_levels :].any(), name
        rest = np.asarray(found["inverse_blocks"][k])[..., f.n_levels :]
        eye = np.broadcast_to(np.eye(f.q)[..., None], rest.shape)
        np.testing.assert_array_equal(rest, eye)


@pytest.mark.parametrize("name", ["slopes", "wide", "crossed-3"])
def test_single_precision_stays_single(name):
    """For people who call the pure layers with their own types."""
    layout = designs.BY_NAME[name]
    moments, data, flat, right, lams = problem(layout, layout.structure, False)
    with jax.enable_x64(False):
        system, c, B, RR = arguments(moments, data, flat, right, np.float32)
        lam = tuple(jnp.asarray(x, np.float32) for x in lams[0])
        found = one_lambda(system, lam, c, B, RR)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype("float32")}
    expected = plain(data, lams[0], flat, right)
    compare(found, expected)
