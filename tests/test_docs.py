"""The site: every public object has a page, and what the pages link to is there.

That pages run is shown by building the site, which CI does.
"""

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

import jaxglmm as jg

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
LISTS = re.compile(r"```\{eval-rst\}\n(.*?)```", re.DOTALL)
MODULES = ["density", "integrate", "datasets", "executors", "sklearn", "spreadsheet"]


def listed():
    """(module, name) of every object that a reference page lists."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        for block in LISTS.findall(page.read_text(encoding="utf-8")):
            module = re.search(r"currentmodule:: (\S+)", block).group(1)
            for name in re.findall(r"^   (\w+)$", block, re.MULTILINE):
                yield module, name


def public():
    """(module, name) of all that the package says is public."""
    for name in jg.__all__:
        if name not in ("datasets", "executors"):
            yield "jaxglmm", name
    for module in [*MODULES, "compat.statsmodels", "plots"]:
        found = importlib.import_module(f"jaxglmm.{module}")
        names = getattr(found, "__all__", None)
        if names is None:  # re-exports, one a line
            source = Path(found.__file__).read_text(encoding="utf-8")
            names = re.findall(r"import \w+ as (\w+)", source)
        yield from ((f"jaxglmm.{module}", name) for name in names)


def test_every_public_object_has_a_reference_page():
    pytest.importorskip("sklearn")
    missing = sorted(set(public()) - set(listed()))
    assert not missing


def test_reference_pages_list_what_exists():
    pytest.importorskip("sklearn")
    for module, name in listed():
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links_between_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    targets += re.findall(r":link: (\S+)", text)
    for target in targets:
        base = DOCS / target[1:] if target.startswith("/") else page.parent / target
        assert base.with_suffix(".md").exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_pages_are_in_a_table_of_contents(page):
    name = page.relative_to(DOCS).with_suffix("").as_posix()
    trees = [p for p in PAGES if "{toctree}" in p.read_text(encoding="utf-8")]
    entries = set()
    for p in trees:
        for block in re.findall(
            r"\{toctree\}\n(.*?)```", p.read_text(encoding="utf-8"), re.DOTALL
        ):
            here = p.parent.relative_to(DOCS)
            lines = [x for x in block.split("\n") if x and not x.startswith(":")]
            entries |= {(here / x.strip()).as_posix() for x in lines}
    assert name == "index" or name in entries


def test_code_of_pages_runs_when_they_are_built():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if "{code-cell}" in text:
            assert text.startswith("---\nfile_format: mystnb\n"), page.name


def test_the_speed_page_has_every_problem_that_was_measured():
    shown = set((DOCS / "speed.md").read_text(encoding="utf-8").split())
    for report in (DOCS.parent / "benchmarks" / "results").glob("*.json"):
        lines = json.loads(report.read_text(encoding="utf-8"))["lines"]
        measured = {line["problem"] for line in lines if line["engine"] == "jaxglmm"}
        assert measured <= shown, report.name


def test_what_a_release_says_of_itself_agrees():
    """The version and the dependencies, in each place that has them."""
    root = DOCS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert jg.__version__ == project["version"]
    citation = (root / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {jg.__version__}\n" in citation
    recipe = (root / "conda" / "meta.yaml").read_text("utf-8")
    assert f'set version = "{jg.__version__}"' in recipe
    wanted = {
        re.sub(r"^([\w-]+)", r"\1 ", d).replace("matplotlib ", "matplotlib-base ")
        for d in project["dependencies"]
    }
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"- (.+)", run)) == wanted | {"python >=3.11"}
    latest = (root / "CHANGELOG.md").read_text("utf-8").partition("\n## ")[2]
    assert latest.startswith(jg.__version__)
