"""The examples run, and the numbers that they assert hold."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, capsys):
    source = path.read_text(encoding="utf-8")
    assert source.startswith("# %%"), "percent format"
    assert "assert " in source
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_there_are_examples():
    assert {"sleepstudy", "minimal_lmm"} <= {path.stem for path in EXAMPLES}
