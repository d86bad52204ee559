"""Nothing that Linux alone has, without a branch: read from the source, and simulated.

Windows itself is not among the systems that the tests run on.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxglmm

PACKAGE = Path(jaxglmm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "termios"}
POSIX_NAMES = {
    "SIGALRM",
    "SIGHUP",
    "SIGKILL",
    "SIGUSR1",
    "fork",
    "getegid",
    "geteuid",
    "getgid",
    "getloadavg",
    "getuid",
    "mkfifo",
    "sched_getaffinity",
    "setsid",
    "sysconf",
    "uname",
}


def parents(tree):
    """Node -> the node around it."""
    return {
        child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)
    }


def around(node, up):
    """The nodes around a node, the nearest first."""
    while node in up:
        node = up[node]
        yield node


def branched(node, up):
    """Whether something asks first: ``try``, or ``os.name`` in the same function."""
    for outer in around(node, up):
        if isinstance(outer, ast.Try):
            return True
        if isinstance(outer, ast.FunctionDef):
            return "os.name" in ast.unparse(outer)
    return False


def without_a_branch(source):
    """Lines that name what POSIX alone has, and do not ask whether it is there."""
    tree = ast.parse(source)
    up = parents(tree)
    for node in ast.walk(tree):
        names = set()
        if isinstance(node, ast.Import):
            names = {a.name for a in node.names} & POSIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {node.module} & POSIX_MODULES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            ours = node.value.id in ("os", "signal")
            names = {node.attr} & POSIX_NAMES if ours else set()
        if names and not branched(node, up):
            yield node.lineno, *sorted(names)


def without_encoding(source):
    """Lines that read or write text in whatever encoding the system prefers."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        words = {k.arg for k in node.keywords}
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        binary = any(isinstance(t, str) and "b" in t and len(t) < 4 for t in texts[-1:])
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        is_open = isinstance(node.func, ast.Name) and name == "open"
        reads = name in ("read_text", "write_text")
        before = name == "write_text"  # the text itself
        said = "encoding" in words or (reads and len(node.args) > before)
        if ((is_open and not binary) or reads) and not said:
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_source(path):
    source = path.read_text(encoding="utf-8")
    assert list(without_a_branch(source)) == []
    assert list(without_encoding(source)) == []


def test_what_the_reader_of_source_sees():
    assert list(without_a_branch("import fcntl"))
    assert list(without_a_branch("def f():\n    return os.getuid()"))
    asked = "def f():\n    if os.name == 'posix':\n        return os.getuid()"
    assert not list(without_a_branch(asked))
    assert list(without_encoding("open('x')\nopen('x', 'w')")) == [1, 2]
    assert list(without_encoding("p.read_text()\np.write_text('x')")) == [1, 2]
    assert not list(without_encoding("p.read_text('ascii')"))
    assert not list(without_encoding("open('x', 'rb')\nopen('x', encoding='utf-8')"))


SIMULATED = """
import os, signal, sys, warnings
import jax, numpy, pandas, scipy.linalg, scipy.stats, formulaic, matplotlib.pyplot

warnings.filterwarnings("error", category=EncodingWarning, module="jaxglmm")
for name in {modules}:
    sys.modules[name] = None  # importing it raises
for name in {names}:
    for module in (os, signal):
        if hasattr(module, name):
            delattr(module, name)

class Windows:  # of what the package asks; pathlib keeps the real one
    name = "nt"
    def __getattr__(self, name):
        return getattr(os, name)

import jaxglmm as jg

def on_windows():
    for name, module in list(sys.modules.items()):
        if name.startswith("jaxglmm") and getattr(module, "os", None) is os:
            module.os = Windows()

jg.lmm, jg.fit_many, jg.load, jg.warm
on_windows()
sleep = jg.datasets.load("sleepstudy").rename(columns={{"Days": "Größe"}})
fit = jg.lmm("Reaction ~ Größe + (Größe | Subject)", sleep)
assert abs(fit.criterion - 1743.6283) < 1e-3, fit.criterion
fit.save("fit.zip")
again = jg.load("fit.zip")
assert "Größe" in str(again.summary())
sleep.to_csv("sleep.csv", index=False, encoding="utf-8")
from jaxglmm.cli import main
on_windows()
formula = "Reaction ~ Größe + (1 | Subject)"
assert main(["fit", "sleep.csv", formula, "--html", "report.html", "--json"]) == 0
assert "Größe" in open("report.html", encoding="utf-8").read()
assert main(["doctor"]) == 0
kept = list(__import__("pathlib").Path("cache").rglob("*"))
print("programs and folders kept:", len(kept))
assert kept
"""


@pytest.mark.slow
def test_a_session_without_what_posix_alone_has(tmp_path):
    """Also in an encoding that is not UTF-8, as Windows' own."""
    source = SIMULATED.format(modules=sorted(POSIX_MODULES), names=sorted(POSIX_NAMES))
    environment = {
        **os.environ,
        "JAXGLMM_CACHE": "cache",
        "JAXGLMM_COMPILE": "always",
        "LC_ALL": "C",
        "MPLBACKEND": "Agg",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    script = tmp_path / "session.py"
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", script.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
