"""Imports point one way, the front door is light, and no global setting is changed."""

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jaxglmm

PACKAGE = Path(jaxglmm.__file__).parent

ROWS = [
    ["_typing", "_errors", "_status", "_brief", "_precision", "_lapack", "_memory"],
    ["_arguments"],
    ["_cache", "_hints"],
    ["_program"],
    ["_stored"],
    ["_compile"],
    ["numerics", "formula", "datasets"],
    ["structure"],
    ["model"],
    ["density"],
    ["integrate"],
    ["estimate"],
    ["batch"],
    ["results"],
    ["api"],
    ["many"],
    ["export", "plots", "compat", "sklearn"],
    ["spreadsheet"],
    ["cli"],
    ["__main__"],
]
ROW = {name: i for i, row in enumerate(ROWS) for name in row}

FORBIDDEN = {  # whatever their row: text and tables know no JAX, mathematics no tables
    "formula": {"jax", "equinox"},
    "datasets": {"jax", "equinox"},
    "numerics": {"pandas", "xarray", "matplotlib"},
}

UPWARD = {  # conveniences that import a later row inside the method that needs it
    ("results/fits/source.py", "api"),
    ("results/fits/plotting.py", "plots"),
    ("results/plotting.py", "plots"),
    ("results/fits/fits.py", "export"),
    ("results/posterior/fit.py", "export"),
    ("results/posterior/many.py", "export"),
    ("results/posterior/plotting.py", "plots"),
}


def imports(source):
    """(module, inside a function?) for every import, TYPE_CHECKING included."""
    tree = ast.parse(source)
    lazy = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxglmm":
            yield from ((f"jaxglmm.{a.name}", node in lazy) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node in lazy
        elif isinstance(node, ast.Import):
            yield from ((a.name, node in lazy) for a in node.names)


def violations(relative, source):
    """What a file of the package imports although it may not."""
    path = Path(relative)
    here = path.with_suffix("").parts[0]
    for name, lazy in imports(source):
        top, *rest = name.split(".")
        if top in FORBIDDEN.get(here, ()):
            yield f"{here} may not import {top}"
        if not top:
            yield f"relative import of {name}"
        if top != "jaxglmm" or not rest or rest[0] == here:
            continue
        if rest[0] not in ROW:
            yield f"imports jaxglmm.{rest[0]}, which has no row"
        elif ROW[rest[0]] >= ROW[here] and not (
            lazy and (path.as_posix(), rest[0]) in UPWARD
        ):
            yield f"row {ROW[here]} imports {rest[0]} of row {ROW[rest[0]]}"


FILES = [
    p
    for p in sorted(PACKAGE.rglob("*.py"))
    if p.relative_to(PACKAGE).parts != ("__init__.py",)
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    relative = path.relative_to(PACKAGE).as_posix()
    assert relative.removesuffix(".py").split("/")[0] in ROW, "a folder without a row"
    assert list(violations(relative, path.read_text())) == []


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("numerics/small.py", "from jaxglmm.results.fit import Fit"),
        ("numerics/small.py", "import jaxglmm.api"),
        ("numerics/small.py", "from jaxglmm import api"),
        ("numerics/small.py", "def f():\n    from jaxglmm import api"),
        (
            "numerics/small.py",
            "if TYPE_CHECKING:\n    from jaxglmm.model import problem",
        ),
        ("numerics/small.py", "from .. import api"),
        ("numerics/small.py", "import pandas as pd"),
        ("formula/parse.py", "import jax.numpy as jnp"),
        ("formula/parse.py", "from jaxglmm.numerics import small"),
        ("results/plotting.py", "from jaxglmm.plots import ranef"),
        ("results/fit.py", "from jaxglmm.nowhere import thing"),
    ],
)
def test_the_import_test_can_fail(relative, source):
    assert list(violations(relative, source))


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("results/fit.py", "from jaxglmm.formula.design import Design"),
        ("results/plotting.py", "def f():\n    from jaxglmm.plots import ranef"),
        ("numerics/blocks.py", "from jaxglmm.numerics import small"),
        ("cli.py", "from jaxglmm.api import lmm"),
    ],
)
def test_the_import_test_can_pass(relative, source):
    assert list(violations(relative, source)) == []


def test_the_exceptions_are_used():
    for relative, target in UPWARD:
        found = {
            name.split(".")[1:2] == [target]
            for name, _ in imports((PACKAGE / relative).read_text())
        }
        assert True in found, f"{relative} no longer imports {target}: unlist it"


def run_python(code):
    """Run code in a fresh interpreter; what it prints last, from JSON."""
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def test_importing_loads_nothing_heavy():
    loaded = run_python("""
        import json, sys
        import jaxglmm
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """)
    heavy = {"pandas", "formulaic", "matplotlib", "arviz", "scipy", "optax", "blackjax"}
    assert heavy.isdisjoint(loaded)


def test_importing_starts_no_device():
    started = run_python("""
        import json
        import jaxglmm, jaxglmm._cache, jaxglmm._precision
        from jax._src import xla_bridge
        print(json.dumps(bool(xla_bridge._backends)))
    """)
    assert started is False


def test_the_global_precision_is_the_users():
    before, imported, fitted, dtype = run_python("""
        import json, jax
        before = jax.config.jax_enable_x64
        import jaxglmm as jg
        jg.lmm
        imported = jax.config.jax_enable_x64
        data = jg.datasets.load("sleepstudy")
        jg.lmm("Reaction ~ Days + (Days | Subject)", data).summary()
        fitted = jax.config.jax_enable_x64
        dtype = str(jax.numpy.ones(1).dtype)
        print(json.dumps([before, imported, fitted, dtype]))
    """)
    assert (before, imported, fitted, dtype) == (False, False, False, "float32")


def test_every_public_name_exists():
    for name in jaxglmm.__all__:
        assert getattr(jaxglmm, name) is not None
    assert set(jaxglmm.__all__) <= set(dir(jaxglmm))


def test_the_front_door_says_the_same_three_times():
    """``__all__``, the table of places, and what type checkers are told."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    told = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    public = set(jaxglmm.__all__)
    assert told == public
    assert set(jaxglmm._WHERE) | {"datasets"} == public


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        jaxglmm.no_such_thing  # noqa: B018
