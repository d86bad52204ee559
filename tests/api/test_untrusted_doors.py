"""Formulas and names from somebody else: saved files, tables, the command line."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from doors import main

import jaxglmm as jg

CODE = "__import__('pathlib').Path({path!r}).touch()"


def double(v):
    return 2 * v


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "y": rng.normal(size=60),
            "x": rng.normal(size=60),
            "g": np.repeat(list("abcdef"), 10),
        }
    )


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "ran"


def swapped(path, old, new):
    """A saved file with something else in its formula."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    name = next(n for n in parts if n.endswith(".json"))
    text = json.dumps(json.loads(parts[name]))
    changed = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
    assert changed != text
    parts[name] = changed.encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)


def test_a_column_named_by_code_is_a_column(data, mark, tmp_path, capsys):
    code = CODE.format(path=str(mark))
    evil = f"x`+I(0*({code} or 0)*x)+`x"
    table = data.assign(**{evil: data["x"] ** 2})
    fit = jg.lmm("y ~ . + (1|g)", table)
    assert list(fit.fixef) == ["(Intercept)", "x", evil]
    fit.save(tmp_path / "a.fit")
    assert jg.load(tmp_path / "a.fit").predict(table).shape == (60,)
    table.to_csv(tmp_path / "evil.csv", index=False)
    assert main(["fit", str(tmp_path / "evil.csv"), "y ~ . + (1|g)"]) == 0
    capsys.readouterr()
    assert not mark.exists()


def test_columns_named_by_numbers():
    rng = np.random.default_rng(5)
    d = pd.DataFrame({0: rng.normal(size=60), 1: rng.normal(size=60)})
    d["g"] = np.repeat(list("abcdef"), 10)
    d["y"] = d[1] * 2 + rng.normal(size=60)
    named = jg.lmm("y ~ `0` + `1` + (1|g)", d)
    assert list(named.fixef) == ["(Intercept)", "0", "1"]
    assert jg.lmm("y ~ . + (1|g)", d).fixef == pytest.approx(named.fixef, rel=1e-9)
    assert named.fixef["1"] == pytest.approx(2, abs=0.5)


def test_a_saved_fit_runs_nothing(data, mark, tmp_path):
    code = CODE.format(path=str(mark))
    path = tmp_path / "a.fit"
    jg.lmm("y ~ I(x * 3) + (1|g)", data).save(path)
    swapped(path, "I(x * 3)", f"I(x + 0 * ({code} or 0))")
    loaded = jg.load(path)
    for ask in (
        lambda: loaded.predict(data),
        lambda: loaded.predictions(data),
        lambda: loaded.slopes("x"),
    ):
        with pytest.raises(jg.FormulaError, match=r"'__import__'.*not on the list"):
            ask()
    assert not mark.exists()
    assert jg.load(path, trusted=True).predict(data).shape == (60,)
    assert mark.exists()  # so that the rest of this test means something


def test_functions_of_ones_own_come_back(data, tmp_path):
    path = tmp_path / "a.fit"
    fit = jg.lmm("y ~ double(x) + (1|g)", data)
    fit.save(path)
    with pytest.raises(jg.FormulaError, match=r"'double' .*not saved.*functions="):
        jg.load(path).predict(data)
    for loaded in (
        jg.load(path, functions={"double": double}),
        jg.load(path, trusted=True),
        jg.Fit.load(path, functions={"double": double}),
    ):
        np.testing.assert_array_equal(loaded.predict(data), fit.predict(data))
    with pytest.raises(jg.FormulaError, match="gives names to functions"):
        jg.load(path, functions={"double": 3})


def test_many_fits_from_a_file(data, mark, tmp_path):
    path = tmp_path / "many.fits"
    Y = np.random.default_rng(1).normal(size=(60, 3))
    fits = jg.fit_many("y ~ I(x * 3) + (1|g)", data, responses=Y)
    fits.save(path, data=True)
    loaded = jg.load(path)
    assert isinstance(loaded, jg.Fits)
    np.testing.assert_array_equal(loaded.coefficients, fits.coefficients)
    code = CODE.format(path=str(mark))
    swapped(path, "I(x * 3)", f"I(x + 0 * ({code} or 0))")
    with pytest.raises(jg.FormulaError, match="not on the list"):
        jg.load(path)[0].predict(data)
    assert not mark.exists()


def test_the_command_line_trusts_no_formula(data, mark, tmp_path, capsys):
    table = str(tmp_path / "a.csv")
    data.to_csv(table, index=False)
    formula = f"y ~ I(x + 0*({CODE.format(path=str(mark))} or 0)) + (1|g)"
    assert main(["fit", table, formula]) == 2
    assert "'__import__'" in (said := capsys.readouterr().err)
    assert "--trust-formula" in said
    assert not mark.exists()
    assert main(["fit", table, "y ~ os.system(x) + (1|g)"]) == 2
    assert main(["fit", table, formula, "--trust-formula"]) == 0
    assert mark.exists()
    fine = "y ~ poly(x, 2) + I(x > 0) + (1|g)"
    report = str(tmp_path / "a.html")
    assert main(["fit", table, fine, "--html", report]) == 0
    capsys.readouterr()


def test_python_code_may_call_its_own(data):
    fit = jg.lmm("y ~ double(x) + I(np.maximum(x, 0) * len('ab')) + (1|g)", data)
    assert list(fit.fixef)[1] == "double(x)"
    assert np.isfinite(fit.predict(data)).all()
