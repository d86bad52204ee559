"""Compiled programs kept on disk, so that a fresh process need not compile again.

Off by default in the library, because a library does not write to a disk unasked; on in
the command line. A first fit of a shape that was seen before compiles nothing then, and
the programs of single fits are not even traced (``runtime.stored``, in a folder below).

Entries are native code: those of another processor may crash, so the processor's
identity is part of the folder's name, and whoever can write into it can run code
as its reader, so it is private (mode 0700).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxglmm._errors import CacheWarning

ENVIRONMENT = "JAX_COMPILATION_CACHE_DIR"
SHORTEST = "jax_persistent_cache_min_compile_time_secs"
NEVER = 1e9  # seconds that no program takes to compile
TRIAL = 1 << 20  # bytes that a folder must have room for
_ASIDE = threading.RLock()


def enable_compilation_cache(dir: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder, for this process and later ones.

    Changes JAX's settings of the whole process (the cache is JAX's own). A folder that
    cannot be used is no error, since a fit needs none: one ``CacheWarning`` says why.

    Args:
        dir: where; the user's cache folder by default, or what the environment variable
            ``JAX_COMPILATION_CACHE_DIR`` says, which is taken as it is. Below ``dir``
            and the default, JAX's version and the processor get a folder each.

    Returns:
        The folder.

    Example:
        >>> import jaxglmm as jg
        >>> path = jg.enable_compilation_cache()  # doctest: +SKIP
    """
    chosen = os.environ.get(ENVIRONMENT)
    own = dir is not None or not chosen
    if own:
        root = user_cache() if dir is None else Path(dir).expanduser()
        path = root / f"jax-{jax.__version__}" / processor_identity()
    else:
        path = Path(chosen or "")
    try:
        _prepare(path, own)
    except OSError as error:
        _warn(f"compiled programs are not kept in {path}: {error}")
        return path
    global _enabled
    _enabled = path
    jax.config.update("jax_compilation_cache_dir", str(path))
    # the defaults skip what compiles within a second: all our kernels
    jax.config.update(SHORTEST, 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX warns for each program that it cannot read or write; ``keep_no_more`` once
    warnings.filterwarnings("ignore", "Error (read|writ)ing persistent compilation")
    _forget_open_cache()
    try:
        _try_writing(path)
    except OSError as error:
        keep_no_more(error)
    return path


_enabled: Path | None = None  # the folder that ``enable_compilation_cache`` set


def _prepare(path: Path, own: bool) -> None:
    """Make the folder; raises where it cannot be used at all.

    own: below a folder of ours, thus private. Whoever else owns it could put code there
    for this process to run.
    """
    if not own:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name != "posix":
        return
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise PermissionError("it belongs to another user")
    if facts.st_mode & 0o077:
        path.chmod(0o700)


def _try_writing(path: Path) -> None:
    """Raises where a program could not be written."""
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(TRIAL))


def keep_no_more(error: OSError) -> None:
    """From now on programs are read and none is written; said once."""
    if not keeps():
        return
    jax.config.update(SHORTEST, NEVER)
    _warn(f"compiled programs are kept no more in {_enabled}: {error}")


def keeps() -> bool:
    """Whether programs are written at present."""
    return getattr(jax.config, SHORTEST) < NEVER


def _warn(text: str) -> None:
    advice = "fits are right, and compile anew in each process"
    warnings.warn(f"{text}; {advice}", CacheWarning, stacklevel=3)


def program_folder() -> Path | None:
    """Where programs are kept that need not be traced again (``runtime.stored``).

    None unless the cache was enabled here and still is.
    """
    if _enabled is None or not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir != str(_enabled):
        return None
    return _private(_enabled)


@functools.cache
def _private(path: Path) -> Path | None:
    """A folder below it that nobody else may read, made once; None where it cannot."""
    own = path / "jaxglmm"
    try:
        _prepare(own, own=True)
    except OSError:
        return None
    return own


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """What is compiled meanwhile is neither read from JAX's cache nor kept in it."""
    with _ASIDE:
        before = jax.config.jax_enable_compilation_cache
        jax.config.update("jax_enable_compilation_cache", False)
        _forget_open_cache()
        try:
            yield
        finally:
            jax.config.update("jax_enable_compilation_cache", before)
            _forget_open_cache()


def cache_size(path: Path) -> tuple[int, int]:
    """Number of files below ``path`` and their bytes."""
    sizes = []
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):  # another process may have removed it
            if file.is_file():
                sizes.append(file.stat().st_size)
    return len(sizes), sum(sizes)


def user_cache() -> Path:
    """The folder for jaxglmm in the user's cache, by the system's custom."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxglmm"


def processor_identity() -> str:
    """A short hash of what native code depends on: processor model and features."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        keys = ("vendor_id", "model name", "flags", "Features", "CPU part")
        lines = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
        facts += [line for line in lines if line.startswith(keys)]
    elif sys.platform == "darwin":  # all Apple's processors are "arm" up to here
        facts.append(_said_by("sysctl", "-n", "machdep.cpu.brand_string"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _said_by(*command: str) -> str:
    """Output of a command, empty where there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _forget_open_cache() -> None:
    """JAX opens its cache at the first compile and never looks again; let it look."""
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
