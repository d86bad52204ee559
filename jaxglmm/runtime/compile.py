"""``jax.jit`` with XLA told to compile faster, and programs that are kept on disk.

Our programs are long and their arrays short: most of the first call is compilation. On
a CPU the fusion emitters, XLA's newer code generator, take half of it, and what they
generate is no faster here than what the older one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxlib.version import __version__ as JAXLIB

from jaxglmm.runtime.stored import Stored

TESTED = (0, 10)  # jaxlib's latest version known to have the option
OPTIONS = {"xla_cpu_use_fusion_emitters": False}


def options(version: str = JAXLIB) -> dict[str, Any] | None:
    """Options of the compiler, None where this jaxlib may not know them.

    >>> options("0.10.2")
    {'xla_cpu_use_fusion_emitters': False}
    >>> options("0.99.0") is None
    True
    """
    known = tuple(int(part) for part in version.split(".")[:2]) <= TESTED
    return dict(OPTIONS) if known else None


def jit(function: Callable[..., Any], **settings: Any) -> Any:
    """``jax.jit(function, **settings)`` with ``options``."""
    return jax.jit(function, compiler_options=options(), **settings)


def stored(
    function: Callable[..., Any] | None = None,
    *,
    static: tuple[str, ...] = (),
    fast: bool = True,
    host: bool = False,
) -> Any:
    """``jit`` whose programs are kept on disk by ``enable_compilation_cache``.

    static: names of arguments whose values belong to the program; fast: compiled by
    ``options``; host: it may run in NumPy while a program is not worth its compiling,
    for it takes ``jnp`` and ``lax`` from ``runtime.arrays``.
    """

    def wrap(f: Callable[..., Any]) -> Stored:
        chosen = options() if fast else None
        return Stored(f, set(static), host, keep_unused=True, compiler_options=chosen)

    return wrap if function is None else wrap(function)
