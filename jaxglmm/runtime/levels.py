"""One fit on several devices: the levels of the largest factor are shared among them.

Arrays with these levels last are cut there, everything else is on every device, and
JAX's own partitioner turns the sums over levels of a program into sums on each device
and one reduction of the few numbers that they make: scores, information, the Schur
complement. Nothing in the programs knows of it. What goes from levels to rows and back
would be gathered, so that is done on each device for itself (``each``): the rows of a
level are where the level is (``structure.cut_rows``, ``numerics.cut_coupling``).

The devices may be those of several processes (``hosts``). All of them make the same
calls within ``on_devices``, results are on every device, and so each process has them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxglmm._errors import ModelError
from jaxglmm.runtime import hosts, placement
from jaxglmm.runtime.devices import choose

LEVELS = "levels"  # the axis of the mesh
_over_processes = False  # whether anything ever was
_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextlib.contextmanager
def on_devices(devices: Any = "all") -> Iterator[None]:
    """Choose the device of fits made in here, or share one fit among several.

    By default a single fit is on JAX's default device, and on the CPU where it is
    small; in here it is on the one that is named, whatever its size.

    Several devices are for one model with very many levels, linear or generalised, with
    one factor or several crossed ones: the memory and the work of the fit are shared.
    Many models share devices by ``fit_many(..., devices=)``. Sums over levels are added
    in another order, so that numbers are the same to about 1e-10 and not to the last
    digit. Nested factors, several linear predictors and levels of which one share has
    far more rows than the others are not cut: their numbers are the same, and nothing
    is gained.

    Over several processes (``jax.distributed.initialize`` first) "all" are the devices
    of all of them. Every process has the whole table and does the same in here, in the
    same order; what one alone calls waits for the others. After it each has its own fit
    and is on its own: what is asked of it then is computed by the process that asks.

    Args:
        devices: "all", "cpu", "gpu", or several JAX devices.

    Raises:
        ModelError: there is no such device.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> with jg.on_devices("all"):
    ...     fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> round(fit.criterion, 4)
    1743.6283
    """
    found = _chosen(devices)
    kinds = {placement.platform(d) for d in found}
    if len(kinds) > 1:
        raise ModelError(f"devices of one kind share a fit, not {sorted(kinds)}")
    mesh = Mesh(np.array(found), (LEVELS,)) if len(found) > 1 else None
    token = _mesh.set(mesh)
    one = None if devices == "all" and mesh is None else next(iter(found))
    try:
        with placement.chosen(None if mesh is not None else one):
            yield
    finally:
        _mesh.reset(token)


def _chosen(devices: Any) -> tuple[Any, ...]:
    """Those of all processes where words name them."""
    own = choose(devices, np.inf).devices
    if isinstance(devices, str) and jax.process_count() > 1:
        return tuple(jax.devices(own[0].platform))
    return own


def mesh() -> Mesh | None:
    """The devices that fits are shared among at present; None of one."""
    return _mesh.get()


def is_left(engine: Any) -> bool:
    """Whether an engine has arrays on devices of processes that are on their own now.

    Within ``on_devices`` all processes do the same; outside each is on its own.
    """
    if not _over_processes or mesh() is not None:
        return False
    return any(map(hosts.spans, jax.tree.leaves(getattr(engine, "base", None))))


def placed(tree: Any, cut: Collection[int]) -> Any:
    """Arrays on the device, or on all: those whose last axis is in ``cut`` in parts."""
    here = mesh()
    if here is None:
        return placement.put(tree)
    global _over_processes
    _over_processes |= len({d.process_index for d in here.devices.flat}) > 1

    def place(x: Any) -> Any:
        shape = np.shape(x)
        parts = bool(shape) and shape[-1] in cut and shape[-1] % here.size == 0
        axes = (*[None] * (len(shape) - 1), LEVELS) if parts else ()
        return hosts.put(x, NamedSharding(here, PartitionSpec(*axes)))

    return jax.tree.map(place, tree)


LAST = PartitionSpec(LEVELS)  # of (n,), cut
WHOLE = PartitionSpec()  # on every device


def last(ndim: int) -> PartitionSpec:
    """An array whose last axis is cut."""
    return PartitionSpec(*[None] * (ndim - 1), LEVELS)


def each(function: Callable[..., Any], mesh: Mesh, specs: Any, out: Any) -> Any:
    """In a program: ``function`` on each device, of the parts that are there.

    specs, out: how arguments and results are cut (``last``, ``WHOLE``).
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False
    )


def number() -> Any:
    """In ``each``: the number of the device."""
    return jax.lax.axis_index(LEVELS)


def total(x: Any) -> Any:
    """In ``each``: the sum over the devices, on every one."""
    return jax.lax.psum(x, LEVELS)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """In a program: arrays that stay on every device, however small their parts.

    The partitioner would cut parameters like levels that they are put beside.
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, WHOLE)
    return jax.lax.with_sharding_constraint(tree, everywhere)


def constrained(x: Any, mesh: Mesh | None) -> Any:
    """In a program: ``x`` with its last axis, levels, cut; as it is without a mesh."""
    if mesh is None or x.shape[-1] % mesh.size:
        return x
    axes = (*[None] * (x.ndim - 1), LEVELS)
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*axes))
    )
