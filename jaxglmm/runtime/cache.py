"""Compiled programs kept on disk, so that a fresh process need not compile again.

By default the programs of this package go to a private folder in the user's cache
(``runtime.stored``; ``runtime.store`` bounds what they take), and JAX's settings are
left alone. ``JAXGLMM_CACHE`` names another folder, or is ``off``;
``disable_compilation_cache`` does the same from now on. ``enable_compilation_cache``
switches JAX's own cache on as well, which keeps all that is compiled in the process.
Where a user has JAX's own cache on already, that one keeps, and ours is only read.

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
OWN_ENVIRONMENT = "JAXGLMM_CACHE"
OFF = ("off", "0", "no", "none", "false")
SHORTEST = "jax_persistent_cache_min_compile_time_secs"
CHANGED = (
    "jax_compilation_cache_dir",
    SHORTEST,
    "jax_persistent_cache_min_entry_size_bytes",
)
NEVER = 1e9  # seconds that no program takes to compile
TRIAL = 1 << 20  # bytes that a folder must have room for
_ASIDE = threading.RLock()


def enable_compilation_cache(dir: str | os.PathLike[str] | None = None) -> Path:
    """Keep all compiled programs in a folder, for this process and later ones.

    The programs of single fits are kept without it, in a folder of the user's cache
    (the environment variable ``JAXGLMM_CACHE`` names another, or says ``off``). This
    keeps what else JAX compiles too, batches and sampling among it, and changes JAX's
    settings of the whole process (the cache is JAX's own). A folder that cannot be used
    is no error, since a fit needs none: one ``CacheWarning`` says why.

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
        path = _below(_root() if dir is None else Path(dir).expanduser())
    else:
        path = Path(chosen or "")
    try:
        _prepare(path, own)
    except OSError as error:
        _warn(f"compiled programs are not kept in {path}: {error}")
        return path
    global _enabled, _off, _full
    if _enabled is None:
        _before.update({name: getattr(jax.config, name) for name in CHANGED})
    _enabled, _off, _full = path, False, False
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


def disable_compilation_cache() -> None:
    """Neither read nor keep programs on disk from now on, in this process.

    JAX's settings are again what they were before ``enable_compilation_cache``. For all
    processes: the environment variable ``JAXGLMM_CACHE=off``.

    Example:
        >>> import jaxglmm as jg
        >>> jg.disable_compilation_cache()  # doctest: +SKIP
    """
    global _enabled, _off
    _off = True
    if _enabled is not None:
        for name, value in _before.items():
            jax.config.update(name, value)
        _forget_open_cache()
    _enabled = None


_enabled: Path | None = None  # the folder that ``enable_compilation_cache`` set
_off = False  # by ``disable_compilation_cache``
_full = False  # nothing can be written any more
_before: dict[str, object] = {}  # JAX's settings before they were changed


def enabled() -> Path | None:
    """The folder that ``enable_compilation_cache`` set."""
    return _enabled


def switched_off() -> bool:
    """Whether the user wants no programs on disk."""
    said = os.environ.get(OWN_ENVIRONMENT, "").strip().lower()
    return _off or said in OFF


def _root() -> Path:
    """The folder of all versions: what the environment says, or the user's cache."""
    said = os.environ.get(OWN_ENVIRONMENT, "").strip()
    if said and said.lower() not in OFF:
        return Path(said).expanduser()
    return user_cache()


def _below(root: Path) -> Path:
    """Its folder of this version of JAX and this processor."""
    return root / f"jax-{jax.__version__}" / processor_identity()


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
    """From now on programs are read and none is written; said once, if asked for."""
    global _full
    if not keeps():
        return
    _full = True
    if _enabled is not None:
        jax.config.update(SHORTEST, NEVER)
    if _enabled is not None or os.environ.get(OWN_ENVIRONMENT):
        _warn(f"compiled programs are kept no more in {_enabled or _root()}: {error}")


def keeps() -> bool:
    """Whether programs are written at present."""
    return not _full and not is_jax_alone()


def is_jax_alone() -> bool:
    """Whether the user has switched JAX's own cache on, and not ours."""
    return _enabled is None and _jax_keeps()


def _jax_keeps() -> bool:
    """Whether JAX's own cache is on."""
    on = jax.config.jax_enable_compilation_cache
    return on and jax.config.jax_compilation_cache_dir is not None


def _warn(text: str) -> None:
    advice = "fits are right, and compile anew in each process"
    warnings.warn(f"{text}; {advice}", CacheWarning, stacklevel=3)


def program_folder() -> Path | None:
    """Where programs are kept that need not be traced again (``runtime.stored``).

    None where that is switched off, here or in JAX, or cannot be.
    """
    if switched_off() or not jax.config.jax_enable_compilation_cache:
        return None
    if _enabled is None:
        return _by_default()
    if jax.config.jax_compilation_cache_dir != str(_enabled):
        return None
    return _private(_enabled)


def _by_default() -> Path | None:
    """The folder that nobody asked for; where there cannot be one, nobody misses it."""
    try:
        return _private(_below(_root()))
    except (OSError, RuntimeError):  # no home
        return None


@functools.lru_cache(16)
def _private(path: Path) -> Path | None:
    """A folder below it that nobody else may read, made once; None where it cannot."""
    own = path / "jaxglmm"
    try:
        _prepare(own, own=True)
    except OSError as error:
        if os.environ.get(OWN_ENVIRONMENT):  # asked for
            _warn(f"compiled programs are not kept in {own}: {error}")
        return None
    return own


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """What is compiled meanwhile is neither read from JAX's cache nor kept in it."""
    if not _jax_keeps():
        yield
        return
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
        lines = cpuinfo.read_text("ascii", "replace").split("\n\n")[0].splitlines()
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
