"""LAPACK made ready for machine code that was compiled in another process.

An executable calls LAPACK by pointers that jaxlib fills when it lowers a first such
call (jax issues 28908 and 29610). Code that was read from disk was lowered elsewhere:
here the pointers are null, and following one ends the process. No public function
fills them, so this is the one place that reaches for jaxlib's own; where it is not to
be found the answer is that nothing is ready.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

TARGET = re.compile(r'custom_call_target\s*=\s*"([^"]*)"')


def targets(text: str) -> list[str]:
    """What a program calls outside itself, by its text in XLA's language.

    >>> targets('x = f64[2,2] custom-call(a), custom_call_target="lapack_dpotrf_ffi"')
    ['lapack_dpotrf_ffi']
    """
    return sorted(set(TARGET.findall(text)))


def ready(called: Iterable[str]) -> bool:
    """Whether everything in ``called`` can be called now; LAPACK is made so.

    >>> ready([]), ready(["something_else"])
    (True, False)
    """
    names = set(called)
    return not names or names <= _initialised()


@functools.cache
def _initialised() -> frozenset[str]:
    """The functions of jaxlib's LAPACK, ready; none with a jaxlib of another make."""
    try:
        from jaxlib import lapack

        names = [name for name, *_ in lapack.registrations()["cpu"]]
        lapack._lapack.initialize()  # pyright: ignore
    except Exception:
        return frozenset()
    return frozenset(names)
