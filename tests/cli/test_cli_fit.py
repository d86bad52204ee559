"""``jaxglmm fit``: every kind of file in, every kind of output out, how it fails."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from doors import as_table, main, read_table
from pyarrow import parquet

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (Days | Subject)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    for name in ("sleepstudy", "cbpp"):
        jg.datasets.load(name).to_csv(out / f"{name}.csv", index=False)
    jg.datasets.load("cbpp").to_csv(out / "cbpp.tsv.gz", sep="\t", index=False)
    return out


def run(capsys, *words):
    code = main(["fit", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_summary_is_printed(folder, capsys):
    code, out, err = run(capsys, folder / "sleepstudy.csv", SLEEP)
    assert code == 0
    assert "REML criterion at convergence: 1743.6" in out
    assert "reading" in err
    assert "fitting" in err
    code, out, err = run(
        capsys, folder / "sleepstudy.csv", SLEEP, "--method", "ml", "--quiet"
    )
    assert "-2*log" in out or "deviance" in out or "AIC" in out
    assert err == ""


def test_json_is_the_whole_output(folder, capsys):
    code, out, _ = run(
        capsys,
        folder / "cbpp.tsv.gz",
        CBPP,
        "--family",
        "binomial",
        "--factor",
        "period",
        "--json",
    )
    found = json.loads(out)
    fit = jg.glmm(CBPP, jg.datasets.load("cbpp"))
    assert code == 0
    assert found["converged"] is True
    assert found["glance"]["log_likelihood"] == pytest.approx(fit.log_likelihood)
    terms = {row["term"]: row for row in found["fixed_effects"]}
    assert terms["period[T.3]"]["estimate"] == pytest.approx(fit.coefficients[2])
    assert terms["period[T.3]"]["conf_low"] < terms["period[T.3]"]["estimate"]
    assert len(found["random_effects"]) == 15
    assert found["n_groups"] == {"herd": 15}


def test_tables_and_files(folder, tmp_path, capsys):
    code, _, err = run(
        capsys,
        folder / "sleepstudy.csv",
        SLEEP,
        "--tidy",
        tmp_path / "t.csv",
        "--effects",
        "all",
        "--augment",
        tmp_path / "a.csv",
        "--save",
        tmp_path / "fit.jaxglmm",
        "--level",
        "0.9",
    )
    assert code == 0
    assert f"writing {tmp_path / 't.csv'}" in err
    tidy = pd.read_csv(tmp_path / "t.csv")
    assert set(tidy["effect"]) == {"fixed", "ran_pars", "ran_vals"}
    days = tidy[(tidy["effect"] == "fixed") & (tidy["term"] == "Days")].iloc[0]
    fit = jg.lmm(SLEEP, jg.datasets.load("sleepstudy"))
    limits = fit.confint(level=0.9).loc["Days"].to_numpy()
    np.testing.assert_allclose([days["conf_low"], days["conf_high"]], limits, rtol=1e-6)
    assert len(pd.read_csv(tmp_path / "a.csv")) == 180
    assert jg.load(tmp_path / "fit.jaxglmm").criterion == pytest.approx(fit.criterion)


class Tags(HTMLParser):
    """Counts what is opened, and checks that it is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        attributes = dict(attrs)
        self.links += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in ("meta", "img", "use", "path", "br") and "/" not in attributes:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_report_stands_alone(folder, tmp_path, capsys):
    path = tmp_path / "report.html"
    code, _, _ = run(
        capsys, folder / "cbpp.csv", CBPP, "--family", "binomial", "--html", path
    )
    assert code == 0
    text = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.seen.count("svg") == 3
    assert tags.seen.count("table") >= 5
    ratios = text[text.index("Odds ratios") : text.index("Standard deviations and")]
    assert "<td class='text'>period</td>" in ratios
    assert "(Intercept)" not in ratios  # exp of it is odds
    assert "56 rows of" in text
    assert "in 15 levels of herd" in text
    assert "grey is where 95% of draws" in text
    assert "<script" not in text
    assert all(link.startswith(("#", "data:")) for link in tags.links)
    assert tags.open == []


def test_reports_of_many_rows_have_bitmaps(tmp_path):
    from doors import report

    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(300), 20)
    data = pd.DataFrame({"g": g, "y": rng.normal(size=300)[g] + rng.normal(size=6000)})
    text = report.page(jg.lmm("y ~ 1 + (1 | g)", data), "title <b>", "data")
    assert "data:image/png" in text
    assert "draws from the fit" in text  # no curve through residuals on an intercept
    assert "title &lt;b&gt;" in text
    assert "100 more are left out" in text


def test_a_profile_in_the_report(folder, tmp_path, capsys):
    path = tmp_path / "report.html"
    code, _, _ = run(
        capsys,
        folder / "sleepstudy.csv",
        "Reaction ~ Days + (1 | Subject)",
        "--html",
        path,
        "--profile",
    )
    assert code == 0
    text = path.read_text(encoding="utf-8")
    assert "Profile likelihood" in text
    assert "the fixed part of the fitted values" in text


@pytest.mark.extras
def test_parquet(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    path = tmp_path / "s.parquet"
    jg.datasets.load("sleepstudy").to_parquet(path)
    code, out, _ = run(capsys, path, SLEEP)
    assert code == 0
    assert "1743.6" in out
    path.write_bytes(b"nonsense")
    code, _, err = run(capsys, path, SLEEP)
    assert code == 2
    assert "cannot be read as Parquet" in err


@pytest.mark.extras
def test_workbooks(tmp_path, capsys):
    pytest.importorskip("openpyxl")
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"x": [1]}).to_excel(book, sheet_name="first", index=False)
        jg.datasets.load("sleepstudy").to_excel(book, sheet_name="sleep", index=False)
    for sheet in ("sleep", "2"):
        code, out, _ = run(capsys, path, SLEEP, "--sheet", sheet)
        assert code == 0
        assert "1743.6" in out
    code, _, err = run(capsys, path, SLEEP, "--sheet", "third")
    assert code == 2
    assert "third" in err


@pytest.mark.extras
def test_formulas_without_values_are_not_gaps(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["y", "x"])
    book.active.append([1.0, None])
    book.active.append([2.0, "=A3 * 2"])
    book.save(tmp_path / "book.xlsx")
    with pytest.raises(jg.DataError, match="cell B3 holds a formula without its value"):
        read_table(str(tmp_path / "book.xlsx"))


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("y;g\n1,5;a\n-2,0;b\n", {}, "';'.*decimal marks"),
        ("y;g\n1.5;a\n-2.0;b\n", {}, "';'"),
        ("y\tg\n1.5\ta\n-2\tb\n", {}, "tab|t'"),
        ("y;g\n1,5;a\n-2,0;b\n", {"sep": ";", "decimal": ","}, None),
        ("y,g\n1.5,a\n-2.0,b\n", {}, None),
    ],
)
def test_what_separates_columns_is_seen(tmp_path, text, words, said):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        frame = read_table(str(path), **words)
    assert frame["y"].tolist() == [1.5, -2.0]
    assert frame["g"].tolist() == ["a", "b"]
    assert len(seen) == (said is not None)
    assert said is None or re.search(said, str(seen[0].message))


@pytest.mark.parametrize("base", [2**60, 2**63])
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_identifiers_of_64_bits_stay_themselves_beside_a_gap(tmp_path, ending, base):
    """Doubles would make one group of all."""
    ids = [base + k for k in (1, 2, 3, 1, 2, 3)]
    path = tmp_path / f"ids.{ending}"
    if ending == "parquet":
        kind = pa.uint64() if base == 2**63 else pa.int64()
        parquet.write_table(
            pa.table({"id": pa.array([*ids, None], kind), "x": [0.5] * 7}), path
        )
    else:
        sep = "," if ending == "csv" else "\t"
        path.write_text(f"id{sep}x\n" + "".join(f"{i}{sep}0.5\n" for i in (*ids, "")))
    frame = read_table(str(path))
    column = as_table(frame).column("id").take(np.arange(6))
    codes, levels = column.as_factor()
    assert codes.tolist() == [0, 1, 2, 0, 1, 2]
    assert [str(level) for level in levels] == [str(i) for i in ids[:3]]
    assert frame["x"].tolist() == [0.5] * 7


def test_large_numbers_beside_a_gap_are_doubles(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("x,z\n1e20,1\n,2\n2.5,3\n")
    np.testing.assert_array_equal(read_table(str(path))["x"], [1e20, np.nan, 2.5])


def test_other_encodings(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("größe,g\n1,é\n2,ü\n", encoding="latin-1")
    with pytest.raises(jg.DataError, match=r"not UTF-8 text.*--encoding latin-1"):
        read_table(str(path))
    assert read_table(str(path), encoding="latin-1")["größe"].tolist() == [1, 2]
    path.write_text("größe,g\n1,é\n2,ü\n", encoding="utf-8-sig")
    assert read_table(str(path))["größe"].tolist() == [1, 2]


def test_standard_input(folder, monkeypatch, capsys):
    text = (folder / "sleepstudy.csv").read_text()
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code, out, _ = run(capsys, "-", SLEEP)
    assert code == 0
    assert "1743.6" in out


def test_weights_offsets_and_links(folder, tmp_path, capsys):
    cbpp = jg.datasets.load("cbpp")
    cbpp.assign(p=cbpp["incidence"] / cbpp["size"]).to_csv(tmp_path / "p.csv")
    code, out, _ = run(
        capsys,
        tmp_path / "p.csv",
        "p ~ period + (1 | herd)",
        "--family",
        "binomial",
        "--trials",
        "size",
        "--link",
        "probit",
        "--factor",
        "period",
        "--json",
    )
    assert code == 0
    found = json.loads(out)
    fit = jg.glmm(CBPP, cbpp, family=jg.Binomial(link="probit"))
    assert found["link"] == "probit"
    assert found["glance"]["log_likelihood"] == pytest.approx(fit.log_likelihood)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.csv", SLEEP], "there is no file"),
        ([SLEEP, "{}"], "the file comes first"),
        (["data.sav", SLEEP], "the ending '.sav' is none of"),
        (["{}", "Reaction ~ Weeks + (1 | Subject)"], "Weeks"),
        (["{}", SLEEP, "--sheet", "1"], "--sheet belongs to Excel"),
        (["{}", SLEEP, "--trials", "Days"], "--trials belongs to"),
        (["{}", SLEEP, "--level", "95"], "must lie between 0 and 1"),
        (["{}", SLEEP, "--factor", "Week"], "no such column"),
        (["{}", SLEEP, "--family", "cauchy"], "cauchy"),
        (["{}", SLEEP, "--method", "magic"], "magic"),
        (["{}", SLEEP, "--family", "poisson", "--link", "cubic"], "cubic"),
        (["{}", SLEEP, "--html", "no/such/folder/x.html"], "no folder no/such/folder"),
        (["{}", SLEEP, "--tidy", "."], "name a file"),
        (["{}", SLEEP, "--encoding", "klingon"], "no such encoding"),
        (["x.parquet", SLEEP, "--decimal", ","], "--decimal belongs to text"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, capsys, words, text):
    words = [w.format(folder / "sleepstudy.csv") for w in words]
    code, _, err = run(capsys, *words, "--quiet")
    assert code == 2
    lines = err.strip().splitlines()
    assert lines[-1].startswith("jaxglmm: error: ")
    assert text in lines[-1]


def test_draws_beside_a_maximum(folder, tmp_path, capsys):
    """The likelihood is what is printed; the file holds the model's posterior."""
    path = tmp_path / "out.nc"
    words = (CBPP, "--family", "binomial", "--method", "laplace", "--arviz", path)
    code, out, err = run(capsys, folder / "cbpp.csv", *words)
    assert code == 0
    assert "Laplace approximation" in out
    assert "a maximum of the likelihood has no draws" in err
    arviz = pytest.importorskip("arviz")
    beta = arviz.from_netcdf(path)["posterior"]["beta"]
    cbpp = jg.datasets.load("cbpp").astype({"period": int, "herd": int})
    fit = jg.glmm(CBPP, cbpp)
    assert beta.dims == ("chain", "draw", "term")
    np.testing.assert_allclose(
        beta.mean(("chain", "draw")), fit.coefficients, atol=0.5 * fit.se.min()
    )


def test_a_family_by_another_name_with_a_link(folder, capsys):
    words = ("size ~ 1 + (1 | herd)", "--family", "negbin", "--link", "sqrt")
    code, out, _ = run(capsys, folder / "cbpp.csv", *words)
    assert code == 0
    assert "nbinom2 (sqrt)" in out


def test_not_converged_has_its_own_code(folder, capsys):
    code, out, err = run(
        capsys, folder / "sleepstudy.csv", SLEEP, "--max-iter", "1", "--json"
    )
    assert code == 3
    found = json.loads(out)
    assert found["converged"] is False
    assert any("max_iter" in text for text in found["warnings"])
    assert "ConvergenceWarning" in err


@pytest.mark.slow
def test_a_command_line_runs_twice_in_fresh_processes(folder, tmp_path):
    """The second reads the programs that the first has kept, and says nothing of it."""
    jg.datasets.load("Dyestuff").to_csv(folder / "dyestuff.csv", index=False)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"JAXGLMM_CACHE": str(tmp_path), "JAXGLMM_COMPILE": "always"}
    command = [sys.executable, "-m", "jaxglmm", "fit", "--quiet"]
    command += [str(folder / "dyestuff.csv"), "Yield ~ 1 + (1 | Batch)"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment)
        for _ in range(2)
    )
    assert second.returncode == first.returncode == 0, second.stderr
    assert list(tmp_path.rglob("*.program"))
    assert "REML criterion at convergence: 319.7" in first.stdout
    assert second.stdout == first.stdout
    assert second.stderr == ""


@pytest.mark.parametrize("option", ["--tidy", "--augment"])
def test_tables_on_standard_output(folder, capsys, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, folder / "sleepstudy.csv", SLEEP, option, "-")
    assert code == 0
    table = pd.read_csv(io.StringIO(out))  # nothing else is on it
    assert {"estimate", "fitted"} & set(table.columns)
    assert not list(tmp_path.iterdir())
    code, _, err = run(capsys, folder / "sleepstudy.csv", SLEEP, option, "-", "--json")
    assert code == 2
    assert "standard output" in err
    code, _, err = run(capsys, folder / "sleepstudy.csv", SLEEP, "--save", "-")
    assert code == 2


def test_the_help_lists_what_there_is(capsys):
    from doors import LINKS as KNOWN_LINKS
    from doors import cli_FAMILIES as FAMILIES
    from doors import cli_LINKS as LINKS

    from jaxglmm.model.families import FAMILIES as KNOWN

    assert set(FAMILIES) == set(KNOWN)
    assert set(LINKS) == set(KNOWN_LINKS)
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    for word in (
        *FAMILIES,
        "examples:",
        "jaxglmm fit sleep.csv",
        "--trust-formula",
        "most evaluations",
    ):
        assert word in shown


@pytest.fixture(scope="module")
def grades(tmp_path_factory):
    """Categories as text and as numbers, counts with zeros."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=60).round(2)
    grade = np.digitize(x + rng.logistic(size=60), [-1, 1])
    count = np.where(rng.random(60) < 0.3, 0, rng.poisson(3, 60))
    words = np.array(["low", "mid", "high"])[grade]
    path = tmp_path_factory.mktemp("grades") / "grades.csv"
    table = {"grade": grade, "word": words, "count": count, "x": x}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_ordered_categories_of_text(grades, tmp_path, capsys):
    words = ("word ~ x", "--family", "cumulative")
    _, _, err = run(capsys, grades, *words)
    assert "--levels high,low,mid" in err
    tex = tmp_path / "out.tex"
    own = ("--levels", "low,mid, high", "--link", "probit", "--latex", tex)
    code, out, _ = run(capsys, grades, *words, *own)
    assert code == 0
    fit = jg.clm("grade ~ x", pd.read_csv(grades), link="probit")
    assert f"{fit.log_likelihood:.1f}" in out
    assert r"low\textbar{}mid & " in tex.read_text()
    numbers = ("grade ~ x", "--family", "cumulative", "--tidy", "-", "--levels")
    code, out, _ = run(capsys, grades, *numbers, "2,1,0")
    assert pd.read_csv(io.StringIO(out))["term"].tolist() == ["2|1", "1|0", "x"]
    nominal = ("grade ~ 1", "--family", "cumulative", "--nominal", "~ x", "--json")
    code, out, _ = run(capsys, grades, *nominal)
    found = [row["component"] for row in json.loads(out)["fixed_effects"]]
    assert found == ["0|1", "0|1", "1|2", "1|2"]
    code, _, err = run(capsys, grades, "count ~ x", "--family", "poisson", *own[:2])
    assert (code, "--levels belongs to --family cumulative" in err) == (2, True)
    code, _, err = run(capsys, grades, *words, "--levels", "low,mid")
    assert (code, "'high'" in err) == (2, True)


def test_ratios_in_the_report_are_those_of_the_mean(grades, tmp_path, capsys):
    page = tmp_path / "zi.html"
    words = ("count ~ x", "--family", "poisson", "--zi", "~ x", "--html", page)
    code, _, _ = run(capsys, grades, *words)
    assert code == 0
    ratios = page.read_text().partition("Ratios of means")[2].partition("</table>")[0]
    assert ratios.count("<tr>") == 2  # its head and x, not x of the zeros
    fit = jg.glmm("count ~ x", pd.read_csv(grades), family="poisson", zi="~ x")
    assert f"{np.exp(fit.coefficients[1]):#.4g}" in ratios
