"""Imports point one way, the front door is light, and no global setting is changed."""

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import doors
import pytest
from architecture_lists import counts, lists
from structure_of_package import (
    below,
    circles,
    edges,
    lost_names,
    module_of,
    naming,
    repeated_classes,
    sources,
    too_long,
    upward,
)

import jaxglmm

PACKAGE = Path(jaxglmm.__file__).parent

ROWS = [
    ["_typing", "_errors", "_status", "_brief", "_pandas", "_version"],
    ["_arguments", "formatting", "runtime"],
    ["_hints", "executors"],
    ["numerics", "formula", "datasets"],
    ["structure"],
    ["model"],
    ["density"],
    ["integrate"],
    ["estimate"],
    ["fitting"],
    ["posterior"],
    ["many"],
    ["streaming"],
    ["postestimation"],
    ["export"],
    ["plots"],
    ["results"],
    ["api"],
    ["compat", "sklearn"],
    ["spreadsheet"],
    ["cli"],
    ["__main__"],
]
ROW = {name: i for i, row in enumerate(ROWS) for name in row}

FORBIDDEN = {  # whatever their row: text and tables know no JAX, mathematics no tables
    "formula": {"jax"},
    "datasets": {"jax"},
    "numerics": {"pandas", "_pandas", "xarray", "matplotlib"},
}

UPWARD: set[tuple[str, str]] = set()  # files that may import a room above: none


def imports(source):
    """Modules that a file imports anywhere: in functions, for type checkers as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxglmm":
            yield from (f"jaxglmm.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def violations(relative, source):
    """What a file of the package imports although it may not."""
    path = Path(relative)
    here = path.with_suffix("").parts[0]
    for name in imports(source):
        top, *rest = name.split(".")
        if FORBIDDEN.get(here, set()) & {top, *rest[:1]}:
            yield f"{here} may not import {name}"
        if not top:
            yield f"relative import of {name}"
        if name == "jaxglmm" and ROW[here] <= ROW["api"]:
            yield f"row {ROW[here]} imports the front door, which knows all rows"
        if top != "jaxglmm" or not rest or rest[0] == here:
            continue
        if rest[0] not in ROW:
            yield f"imports jaxglmm.{rest[0]}, which has no row"
        elif ROW[rest[0]] >= ROW[here] and (path.as_posix(), rest[0]) not in UPWARD:
            yield f"row {ROW[here]} imports {rest[0]} of row {ROW[rest[0]]}"


MOST = {  # exceptions of each kind in architecture.json; to be lowered, never raised
    "circles": 0,
    "circle files": 0,
    "upward": 0,
    "faces": 0,
    "classes": 0,
    "long file": 0,
    "long class": 0,
    "long function": 0,
    "longest file": 500,
    "longest class": 350,
    "longest function": 100,
}

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
        ("export/fits.py", "import jaxglmm"),
        ("numerics/small.py", "def f():\n    from jaxglmm import api"),
        (
            "numerics/small.py",
            "if TYPE_CHECKING:\n    from jaxglmm.model import problem",
        ),
        ("numerics/small.py", "from .. import api"),
        ("numerics/small.py", "import pandas as pd"),
        ("numerics/small.py", "from jaxglmm._pandas import pd"),
        ("formula/parse.py", "import jax.numpy as jnp"),
        ("formula/parse.py", "from jaxglmm.numerics import small"),
        ("fitting/linear.py", "from jaxglmm.plots import ranef"),
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
            for name in imports((PACKAGE / relative).read_text())
        }
        assert True in found, f"{relative} no longer imports {target}: unlist it"


OF_THE_WHOLE = {"agreement", "data", "fuzz", "golden", "reference"}
TOP = {
    "test_architecture.py",
    "test_examples.py",
    "test_docs.py",
    "test_readme.py",
    "test_to_add_something.py",
}


def test_tests_lie_in_a_folder_for_each_room():
    """A room's tests are found by its name; what is asked of the whole has its own."""
    here = Path(__file__).parent
    files = {p.relative_to(here).parts for p in here.rglob("test_*.py")}
    assert {first for first, *rest in files if not rest} == TOP, "put it into a room"
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    folders = {first for first, *rest in files if rest}
    assert folders - OF_THE_WHOLE <= rooms, "no folder of jaxglmm has this name"


STATSMODELS = "jaxglmm.compat.statsmodels"
PUBLIC = {  # what README.md, CHANGELOG.md and examples import from
    "jaxglmm",
    "jaxglmm.cli",
    "jaxglmm.compat",
    STATSMODELS,
    f"{STATSMODELS}.api",
    f"{STATSMODELS}.datasets",
    f"{STATSMODELS}.formula",
    f"{STATSMODELS}.formula.api",
    f"{STATSMODELS}.genmod",
    f"{STATSMODELS}.genmod.api",
    f"{STATSMODELS}.genmod.bayes_mixed_glm",
    f"{STATSMODELS}.regression",
    f"{STATSMODELS}.regression.mixed_linear_model",
    f"{STATSMODELS}.tools",
    f"{STATSMODELS}.tools.sm_exceptions",
    "jaxglmm.datasets",
    "jaxglmm.density",
    "jaxglmm.integrate",
    "jaxglmm.model.families",
    "jaxglmm.plots",
    "jaxglmm.sklearn",
    "jaxglmm.spreadsheet",
    "jaxglmm.spreadsheet.server",
}
MODULES = {module_of(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py")}
DOORS = Path(doors.__file__)
TESTS = {
    p.relative_to(DOORS.parent).as_posix(): p
    for p in sorted(DOORS.parent.rglob("*.py"))
    if p not in (DOORS, Path(__file__))
}


def test_tests_reach_internals_by_doors():
    """A move inside the package is one edit: of tests/doors.py."""
    past = {name: below(p.read_text(), MODULES, PUBLIC) for name, p in TESTS.items()}
    assert {name: modules for name, modules in past.items() if modules} == {}


def test_every_door_leads_somewhere_and_is_used():
    assert {m for m, _ in doors.PLACES.values()} <= MODULES
    used = {
        alias.name
        for path in TESTS.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "doors"
        for alias in node.names
    }
    assert set(doors.PLACES) - used == set(), "doors that no test opens"
    assert used - set(doors.PLACES) == set(), "doors that are not there"


def test_a_door_opens_on_what_lies_behind_it():
    assert doors.double_precision.__module__ == "jaxglmm.runtime.precision"
    assert doors.fitting_linear.__name__ == "jaxglmm.fitting.linear"
    with pytest.raises(ImportError, match="no_such_door"):
        from doors import no_such_door  # noqa: F401


@pytest.mark.parametrize(
    "source",
    [
        "from jaxglmm.a.b import f",
        "import jaxglmm.a.b as c",
        "from jaxglmm.a import b",
        "def f():\n    from jaxglmm.a.b import g",
        'patch("jaxglmm.a.b.f", 1)',
        'code = """\nfrom jaxglmm.a.b import f\n"""',
    ],
)
def test_what_goes_past_the_doors_is_seen(source):
    assert below(source, {"jaxglmm", "jaxglmm.a", "jaxglmm.a.b"}, {"jaxglmm.a"})
    assert below(source, {"jaxglmm", "jaxglmm.a", "jaxglmm.a.b"}, {"jaxglmm.a.b"}) == []


LISTED = json.loads((Path(__file__).parent / "architecture.json").read_text())


@pytest.mark.parametrize("kind", LISTED)
def test_the_listed_exceptions_are_todays(kind):
    """Neither one more nor one that is mended; a diff of the file shows growth."""
    remedy = "python tests/architecture_lists.py > tests/architecture.json"
    assert lists()[kind] == LISTED[kind], remedy


@pytest.mark.parametrize("kind", MOST)
def test_exceptions_only_become_fewer(kind):
    assert counts(LISTED)[kind] <= MOST[kind]


def test_a_circle_is_found_whatever_the_import():
    files = {
        "a/x.py": "from jaxglmm.a import y",
        "a/y.py": "def f():\n    from jaxglmm.b.z import g",
        "b/z.py": "if TYPE_CHECKING:\n    from jaxglmm.a.x import h",
        "b/w.py": "import jaxglmm.b.z",
    }
    found = list(edges(files))
    assert circles((a, b) for a, b, _ in found) == [("a/x.py", "a/y.py", "b/z.py")]
    assert upward(found, {"a": 0, "b": 1}) == ["a/y.py -> b/z.py"]
    assert upward(found, {"a": 1, "b": 0}) == ["b/z.py -> a/x.py"]


def test_names_and_lengths_are_found():
    files = {
        "results/a.py": "if TYPE_CHECKING:\n    from jaxglmm.results.fit import Fit",
        "results/fit.py": "class Fit:\n    def f():\n        pass\n",
        "plots/b.py": "class Fit:\n    pass\nclass _Own:\n    pass",
        "plots/c.py": "class _Own:\n    pass",
    }
    assert naming(files, {"Fit"}, "results/", {"results/fit.py"}) == [
        "results/a.py: Fit"
    ]
    assert repeated_classes(files) == {"Fit": ["plots/b.py", "results/fit.py"]}
    assert too_long(files, {"file": 3, "class": 2, "function": 1}) == {
        "file": {"plots/b.py": 4},
        "class": {"results/fit.py: Fit": 3},
        "function": {"results/fit.py: f": 2},
    }


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


def test_the_doors_load_no_tables():
    loaded = run_python("""
        import json, sys
        import jaxglmm as jg
        jg.lmm, jg.glmm, jg.fit_many
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """)
    heavy = {"pandas", "formulaic", "matplotlib", "scipy", "jaxtyping"}
    assert heavy.isdisjoint(loaded)


def test_a_first_fit_loads_what_it_needs():
    loaded = run_python("""
        import json, sys
        import jaxglmm as jg
        data = jg.datasets.load("sleepstudy")
        str(jg.lmm("Reaction ~ Days + (Days | Subject)", data).summary())
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """)
    heavy = {"formulaic", "matplotlib", "arviz", "scipy", "optax", "blackjax"}
    assert heavy.isdisjoint(loaded)


def test_importing_starts_no_device():
    started = run_python("""
        import json
        import jaxglmm, jaxglmm.runtime.cache, jaxglmm.runtime.precision
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
    assert set(jaxglmm._WHERE) | {"datasets", "executors"} == public


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        jaxglmm.no_such_thing  # noqa: B018


def test_every_name_that_is_imported_is_there():
    """Imports inside functions too, which nobody would miss until they are called."""
    assert list(lost_names(sources(PACKAGE))) == []


def test_lost_names_are_seen():
    files = {
        "a.py": "from jaxglmm.b import f, g, C, D, E\nif True:\n    h = 1",
        "b.py": "def f(): pass\nC: int = 1\nif C:\n    D = 2\nfrom x import E",
        "c.py": "def late():\n    from jaxglmm.a import h, i",
    }
    assert list(lost_names(files)) == [("a.py", "jaxglmm.b.g"), ("c.py", "jaxglmm.a.i")]
