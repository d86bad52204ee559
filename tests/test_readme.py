"""What the README shows is what happens: its Python runs, and prints what it says."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

import jaxglmm as jg

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "jaxglmm" / "README.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """(python source, what it should print or None) in order."""
    found = BLOCK.findall(text)
    for i, (kind, source) in enumerate(found):
        if kind == "python":
            after = found[i + 1] if i + 1 < len(found) else ("", "")
            yield source, after[1] if after[0] == "text" else None


def lines(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_run_and_print_what_the_page_says(page):
    names = {}
    for source, expected in blocks(page.read_text(encoding="utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.NewLevelsWarning)
            exec(compile(source, str(page), "exec"), names)
        if expected is not None:
            assert lines(out.getvalue()) == lines(expected)


def test_the_readme_has_the_two_commands_and_python():
    text = PAGES[0].read_text(encoding="utf-8")
    assert "pip install -q . && .venv/bin/jaxglmm demo" in text
    assert "pip install -q '.[test]' && .venv/bin/python -m pytest -q" in text
    assert len(list(blocks(text))) >= 3


def test_links_into_the_tree_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
