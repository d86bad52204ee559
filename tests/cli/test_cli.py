"""The command line: what it prints, what it writes, how it fails."""

import html
import json
import re
import subprocess
import sys
import warnings

import pandas as pd
import pytest
from doors import demo, main, parser

import jaxglmm as jg


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """What ``jaxglmm demo`` leaves behind, with its output."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    run = subprocess.run(
        [sys.executable, "-m", "jaxglmm", "demo", "--out", str(folder)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder, run


def test_demo_prints_the_summaries(demo_folder):
    folder, run = demo_folder
    assert "REML criterion at convergence: 1743.6" in run.stdout
    assert "period[T.4]" in run.stdout
    assert "k-hat" in run.stdout
    assert f"{demo.WORLDS} fits" in run.stdout
    assert str(folder.resolve()) in run.stdout
    assert "fitting sleepstudy" in run.stderr
    assert "Warning" not in run.stderr


def test_demo_writes_what_it_lists(demo_folder):
    folder, run = demo_folder
    files = sorted(path.name for path in folder.iterdir())
    expected = [
        f"{example.stem}_{what}"
        for example in demo.EXAMPLES
        for what in [
            "summary.txt",
            *(f"{name}.csv" for name in example.tables),
            *(f"{name}.png" for name in example.figures),
        ]
    ]
    more = ["index.html", "many.csv", "many_estimates.png"]
    assert files == sorted([*expected, *more])
    assert all(name in run.stdout for name in files)


def test_demo_tables_can_be_read(demo_folder):
    folder, _ = demo_folder
    fixed = pd.read_csv(folder / "sleepstudy_fixed.csv").set_index("term")
    assert fixed.loc["Days", "estimate"] == pytest.approx(10.46729, abs=1e-4)
    assert len(pd.read_csv(folder / "cbpp_ranef.csv")) == 15
    assert len(pd.read_csv(folder / "many.csv")) >= demo.WORLDS * 2
    assert len(pd.read_csv(folder / "sleepstudy_augment.csv")) == 180


def test_demo_page_shows_what_was_written(demo_folder):
    folder, _ = demo_folder
    page = (folder / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:src|href)='([^']+)'", page))
    assert named == {path.name for path in folder.iterdir()} - {"index.html"}
    for example in demo.EXAMPLES:
        assert html.escape(example.title) in page
        assert html.escape(example.call) in page
    assert "<script" not in page


def test_demo_figures_are_figures(demo_folder):
    folder, _ = demo_folder
    for path in folder.glob("*.png"):
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) > 5_000, path.name


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert "float64 inside" in out
    assert "jaxlib" in out


def test_doctor_json(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["devices"]
    assert report["packages"]["jax"]
    assert all(check["ok"] for check in report["checks"].values())
    assert report["seconds"]["again"] > 0


def test_errors_are_one_line(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main(["demo", "--out", str(blocked / "below")]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert err[0].startswith("jaxglmm: error: ")


def test_our_own_errors_are_one_line(capsys, monkeypatch):
    def fail(args):
        warnings.warn("a word of warning", jg.ScaleWarning, stacklevel=1)
        raise jg.DataError("no column 'x'")

    monkeypatch.setattr(demo, "run", fail)
    assert main(["demo"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err == [
        "jaxglmm: ScaleWarning: a word of warning",
        "jaxglmm: error: no column 'x'",
    ]


def test_an_interrupt_has_its_own_code(monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert main(["demo"]) == 130


def test_no_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "demo" in parser().format_help()


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"jaxglmm {jg.__version__}"
