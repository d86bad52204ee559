"""Formulas of workbooks: what is read, what is evaluated, where tables are written."""

import numpy as np
import pytest
from doors import Call, Named, Reference, Unreadable, main, mentions
from doors import formulas_read as read

import jaxglmm as jg
from jaxglmm.spreadsheet import glmm_poisson, lmm

openpyxl = pytest.importorskip("openpyxl")
from openpyxl.workbook.defined_name import DefinedName  # noqa: E402
from openpyxl.worksheet.formula import ArrayFormula  # noqa: E402

pytestmark = pytest.mark.extras

Y, X = [2, 3, 5, 1, 2, 4], [1, 2, 3, 1, 2, 3]
G = ["a", "a", "a", "b", "b", "b"]
METHOD = ',,TRUE,0.05,"laplace"'


def column(values):
    return [[v] for v in values]


EXPECTED = glmm_poisson(column(Y), column(X), column(G), method="laplace")


@pytest.fixture
def book(tmp_path):
    """Sheets 'data' and 'My sheet', without formulas."""
    made = openpyxl.Workbook()
    page = made.active
    page.title = "data"
    for row in zip(Y, X, G, strict=True):
        page.append(row)
    other = made.create_sheet("My sheet")
    for row in zip(Y, X, G, strict=True):
        other.append([None, *row])
    return made


def calculated(book, tmp_path, *words):
    source, target = tmp_path / "in.xlsx", tmp_path / "out.xlsx"
    book.save(source)
    code = main(["calc", str(source), "-o", str(target), *words])
    return code, openpyxl.load_workbook(target)


def block(page, top, first, rows, columns=9):
    found = page.iter_rows(top, top + rows - 1, first, first + columns - 1)
    return [[c.value for c in row] for row in found]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            if isinstance(y, float):
                assert x == pytest.approx(y)
            else:
                assert x == (y or None)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("=GLMM_POISSON(A1:A6,B1:B6,C1:C6)", ("A1:A6", "B1:B6", "C1:C6")),
        ("= glmm_poisson( A1:A6 , $B$1:$B$6 ; C:C )", ("A1:A6", "$B$1:$B$6", "C:C")),
        ("=_xlfn.GLMM_POISSON(1:3,A1,B2)", ("1:3", "A1", "B2")),
        ("=_xll._xlws.GLMM_POISSON(A1,A2,A3)", ("A1", "A2", "A3")),
        ("=ORG.JAXGLMM.CALC.GLMM.GLMMPOISSON(A1,A2,A3)", ("A1", "A2", "A3")),
        (
            "=COM.SUN.STAR.SHEET.ADDIN.ORG.JAXGLMM.CALC.GLMM.GLMMPOISSON(A1,A2,A3)",
            ("A1", "A2", "A3"),
        ),
    ],
)
def test_references_are_read(formula, arguments):
    assert mentions(formula)
    found = read(formula)
    assert found.function == "GLMM_POISSON"
    assert tuple(a.area for a in found.arguments) == arguments


def test_constants_are_read():
    found = read(
        '=LMM({1,2;3,4},\'it\'\'s\'!A1,Sheet2!$B$2:C3,,TRUE(),-0.5%,"a ""b""",name)'
    )
    assert found == Call(
        "LMM",
        (
            [[1, 2], [3, 4]],
            Reference("it's", "A1"),
            Reference("Sheet2", "$B$2:C3"),
            None,
            True,
            -0.005,
            'a "b"',
            Named("name"),
        ),
    )
    assert read("=INDEX(LMM(A1,A2,A3),2,3)").index == (2, 3)
    assert read("=INDEX(LMM(A1,A2,A3),2)").index == (2, 0)
    assert read("=LMM()").arguments == ()


@pytest.mark.parametrize(
    "formula",
    [
        "=LMM(A1,A2,A3)+1",
        "=SUM(LMM(A1,A2,A3))",
        "=LMM(A1:A3*2,A2,A3)",
        "=LMM(OFFSET(A1,1,1),A2,A3)",
        "=LMM(A1,A2",
        "=LMM({1,2,A2)",
        "=LMM('x'!,A2)",
        "=LMM(A1 A2)",
        "=1+LMM(A1)",
        "=INDEX(LMM(A1),1.5)",
    ],
)
def test_what_is_no_call_is_said(formula):
    assert mentions(formula)
    with pytest.raises(Unreadable):
        read(formula)


def test_other_formulas_are_left_alone():
    for text in ("=SUM(A1)", "LMM(A1)", '="LMM(A1)"', "=ALMM(1)", 3, None, "=LMM"):
        assert not mentions(text)


def test_tables_stand_beside_their_formulas(book, tmp_path, capsys):
    page = book["data"]
    page["E1"] = f"=GLMM_POISSON(A1:A6,B1:B6,C1:C6{METHOD})"
    page["E20"] = "=SUM(A1:A6)"
    code, out = calculated(book, tmp_path)
    assert code == 0
    same(block(out["data"], 1, 6, 8), EXPECTED)
    assert out["data"]["E1"].value.startswith("=GLMM_POISSON")
    assert out["data"]["E20"].value == "=SUM(A1:A6)"
    said = capsys.readouterr().out
    assert "1 formulas, 0 with an error text" in said
    assert "#NAME? where the functions are not installed; --place over" in said
    calculated(book, tmp_path, "--place", "over")
    assert "#NAME?" not in capsys.readouterr().out


def test_tables_find_another_place_where_cells_are_taken(book, tmp_path):
    page = book["data"]
    page["E1"] = f"=GLMM_POISSON(A1:A6,B1:B6,C1:C6{METHOD})"
    page["G4"] = "taken"
    code, out = calculated(book, tmp_path)
    assert code == 0
    assert out["data"]["G4"].value == "taken"
    apart = out["jaxglmm"]
    assert apart["A1"].value == "data!E1"
    assert apart["B1"].data_type == "s"
    same(block(apart, 2, 1, 8), EXPECTED)
    _, out = calculated(book, tmp_path, "--place", "sheet")
    same(block(out["jaxglmm"], 2, 1, 8), EXPECTED)


def test_array_formulas_over_their_range(book, tmp_path):
    page = book["My sheet"]
    text = f"=GLMM_POISSON(B1:B6,C1:C6,D1:D6{METHOD})"
    page["F2"] = ArrayFormula("F2:N12", text)
    code, out = calculated(book, tmp_path, "--place", "over")
    assert code == 0
    same(block(out["My sheet"], 2, 6, 8), EXPECTED)
    assert out["My sheet"]["F11"].value is None
    code, out = calculated(book, tmp_path)
    same(block(out["My sheet"], 2, 15, 8), EXPECTED)


def test_references_across_sheets_whole_columns_and_names(book, tmp_path):
    book.defined_names["outcome"] = DefinedName(
        "outcome", attr_text="'My sheet'!$B$1:$B$6"
    )
    book["data"]["E1"] = f"=GLMM_POISSON(outcome,'My sheet'!C1:C6,C1:C6{METHOD})"
    page = book["My sheet"]
    page["AA1"] = f"=GLMM_POISSON(B:B,C:C,data!C:C{METHOD})"
    code, out = calculated(book, tmp_path)
    assert code == 0
    same(block(out["data"], 1, 6, 8), EXPECTED)
    same(block(out["My sheet"], 1, 28, 8), EXPECTED)


def test_index_and_inline_arrays(book, tmp_path):
    page = book["data"]
    y, x = ",".join(map(str, Y)), ";".join(map(str, X))
    page["E1"] = f"=INDEX(GLMM_POISSON({{{y}}},{{{x}}},C1:C6{METHOD}),3,3)"
    page["E2"] = f"=INDEX(GLMM_POISSON(A1:A6,B1:B6,C1:C6{METHOD}),99,3)"
    code, out = calculated(book, tmp_path)
    assert code == 1
    assert out["data"]["F1"].value == pytest.approx(EXPECTED[2][2])
    assert "outside the table" in out["data"]["F2"].value


def test_errors_are_texts_in_cells(book, tmp_path, capsys):
    page = book["data"]
    page["E1"] = "=GLMM_POISSON(A1:A6,B1:B6,C1:C3)"
    page["E3"] = "=LMM(A1:A6*2,B1:B6,C1:C6)"
    page["E5"] = "=LMM(nothing!A1:A6,B1:B6,C1:C6)"
    page["E7"] = "=LMM(nothing,B1:B6,C1:C6)"
    code, out = calculated(book, tmp_path)
    assert code == 1
    found = out["data"]
    # empty rows at the end of one range are kept where others are not empty
    assert found["F1"].value == (
        "Invalid input: y and groups must have the same number of rows."
    )
    assert "cannot read" in found["F3"].value
    assert found["F5"].value == "Invalid input: there is no sheet 'nothing'"
    assert "neither a range nor a defined name" in found["F7"].value
    assert "data!E1: Invalid input" in capsys.readouterr().err


def test_results_never_become_formulas(book, tmp_path):
    page = book["data"]
    for i in range(6):
        page.cell(i + 1, 3).value = f"=group{i // 3}"
        page.cell(i + 1, 3).data_type = "s"
    page["E1"] = f'=GLMM_POISSON(A1:A6,B1:B6,C1:C6{METHOD[:-1]}",TRUE)'
    _, out = calculated(book, tmp_path)
    cells = [c for row in out["data"].iter_rows(min_col=6) for c in row]
    labels = [c for c in cells if isinstance(c.value, str) and c.value.startswith("=")]
    assert labels
    assert all(c.data_type == "s" for c in labels)


def test_the_default_name_and_what_is_refused(book, tmp_path, capsys):
    source = tmp_path / "book.xlsx"
    book["data"]["E1"] = "=LMM(A1:A6,B1:B6,C1:C6)"
    book.save(source)
    assert main(["calc", str(source)]) == 0
    out = openpyxl.load_workbook(tmp_path / "book_values.xlsx")
    same(block(out["data"], 1, 6, 9), lmm(column(Y), column(X), column(G)))
    assert main(["calc", str(source), "-o", str(source)]) == 2
    assert "is the workbook itself" in capsys.readouterr().err
    assert main(["calc", str(tmp_path / "none.xlsx")]) == 2
    (tmp_path / "bad.xlsx").write_bytes(b"PK nonsense")
    assert main(["calc", str(tmp_path / "bad.xlsx")]) == 2
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    assert main(["calc", str(tmp_path / "empty.xlsx")]) == 2
    assert "has no formula" in capsys.readouterr().err


def test_a_workbook_of_real_data(tmp_path):
    sleep = jg.datasets.load("sleepstudy")
    made = openpyxl.Workbook()
    page = made.active
    for row in sleep[["Reaction", "Days", "Subject"]].itertuples(index=False):
        page.append([float(row[0]), int(row[1]), str(row[2])])
    page["E1"] = "=LMM(A:A,B:B,C:C,B:B)"
    _, out = calculated(made, tmp_path)
    found = out.worksheets[0]
    fit = jg.lmm("Reaction ~ Days + (Days || Subject)", sleep)
    assert found["H3"].value == pytest.approx(fit.fixef["Days"], rel=1e-6)
    sds = [found.cell(5, 9).value, found.cell(6, 9).value]
    expected = [fit.varcorr[t].sd.iloc[0] for t in ("Subject", "Subject.1")]
    np.testing.assert_allclose(sds, expected, rtol=1e-4)
