"""The Calc add-in: its files, and array formulas in a LibreOffice without a screen."""

import ast
import json
import os
import shutil
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
from doors import FUNCTIONS, arguments_of, libreoffice, main

from jaxglmm.spreadsheet import glmm_poisson, lmm
from jaxglmm.spreadsheet.server import Server

DRIVER = Path(__file__).with_name("libreoffice_driver.py")
Y = [[v] for v in (2, 3, 5, 1, 2, 4)]
X = [[v] for v in (1, 2, 3, 1, 2, 3)]
G = [[v] for v in "aaabbb"]
OOR = "{http://openoffice.org/2001/registry}"


def python_with_uno():
    """An interpreter that can import uno, or None."""
    for name in ("/usr/bin/python3", "python3"):
        found = shutil.which(name)
        if (
            found
            and not subprocess.run(
                [found, "-c", "import uno"], capture_output=True
            ).returncode
        ):
            return found
    return None


@pytest.fixture(scope="module")
def office():
    """soffice, unopkg, a Python with uno."""
    soffice, unopkg = shutil.which("soffice"), shutil.which("unopkg")
    python = python_with_uno()
    if not (soffice and unopkg and python):
        pytest.skip("needs libreoffice-calc-nogui and python3-uno")
    return soffice, unopkg, python


@pytest.fixture(scope="module")
def somebody():
    """Options for running as somebody who is not root: unopkg refuses root."""
    if os.name == "posix" and os.geteuid() == 0:
        return {"user": 65534, "group": 65534, "extra_groups": []}
    return {}


@pytest.fixture(scope="module")
def home(somebody):
    """A folder that this somebody may write to."""
    with tempfile.TemporaryDirectory() as folder:
        if somebody:
            os.chmod(folder, 0o755)
            os.chown(folder, somebody["user"], somebody["group"])
        yield Path(folder)


def test_the_extension_holds_what_its_manifest_says(tmp_path, capsys):
    path = tmp_path / "j.oxt"
    assert main(["libreoffice", "build", "-o", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path.resolve())
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        manifest = archive.read("META-INF/manifest.xml").decode()
        for name in names:
            if name.endswith((".xml", ".xcu")):
                ET.fromstring(archive.read(name))
        assert b"@VERSION@" not in archive.read("description.xml")
    for name in ("XGlmm.rdb", "glmm_addin.py", "CalcAddIns.xcu"):
        assert f'full-path="{name}"' in manifest
        assert name in names
    again = libreoffice.build(tmp_path / "again.oxt")
    assert again.read_bytes() == path.read_bytes()


def test_calc_the_interface_and_the_server_agree():
    tree = ET.parse(libreoffice.SOURCE / "CalcAddIns.xcu")
    nodes = tree.getroot().find("node").find("node").find("node").findall("node")
    shown = {
        node.get(f"{OOR}name"): node.find(f"prop[@{OOR}name='DisplayName']/value").text
        for node in nodes
    }
    assert set(shown.values()) == set(FUNCTIONS)
    idl = (libreoffice.SOURCE / "XGlmm.idl").read_text()
    code = ast.parse((libreoffice.SOURCE / "glmm_addin.py").read_text())
    service = next(n for n in code.body if isinstance(n, ast.ClassDef))
    methods = {n.name for n in service.body if isinstance(n, ast.FunctionDef)}
    for method, name in shown.items():
        assert f" {method}(" in idl
        assert method in methods
        assert method.upper() == name.replace("_", "")
    for node in nodes:
        name = shown[node.get(f"{OOR}name")]
        parameters = node.find("node").findall("node")
        names = [
            p.find(f"prop[@{OOR}name='DisplayName']/value").text for p in parameters
        ]
        assert tuple(names) == arguments_of(name)


def test_the_add_in_needs_the_standard_library_alone():
    code = ast.parse((libreoffice.SOURCE / "glmm_addin.py").read_text())
    imported = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            imported |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"json", "os", "urllib", "unohelper", "org"}


@pytest.mark.libreoffice
def test_the_compiled_interface_is_that_of_the_source(tmp_path):
    from jaxglmm import NotApplicableError

    try:
        made = libreoffice.compiled_interface(tmp_path / "X.rdb")
    except NotApplicableError as error:
        pytest.skip(str(error))
    assert made.read_bytes() == (libreoffice.SOURCE / "XGlmm.rdb").read_bytes()


@pytest.fixture(scope="module")
def session(office, somebody, home):
    """What the driver saw in a headless Calc with the add-in and a server."""
    soffice, unopkg, python = office
    server = Server(port=0, token="let me in")
    server.start()
    extension = libreoffice.build(home / "jaxglmm.oxt")
    driver = home / "driver.py"
    driver.write_text(DRIVER.read_text())
    profile = f"-env:UserInstallation=file://{home}/profile"
    env = {
        **os.environ,
        "HOME": str(home),
        "TMPDIR": str(home),
        "JAXGLMM_URL": server.url,
        "JAXGLMM_TOKEN": "let me in",
    }
    options = {"env": env, "cwd": home, **somebody}
    done = subprocess.run(
        [unopkg, "add", "-s", "-f", profile, str(extension)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pipe = f"jaxglmm{uuid.uuid4().hex}"
    listening = subprocess.Popen(
        [
            soffice,
            "--headless",
            "--norestore",
            profile,
            f"--accept=pipe,name={pipe};urp;",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )
    try:
        seen = subprocess.run(
            [python, str(driver), str(home), pipe],
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )
        assert seen.returncode == 0, seen.stderr
    finally:
        try:
            listening.wait(20)
        except subprocess.TimeoutExpired:
            listening.kill()
            listening.wait()
        server.shutdown()
        server.server_close()
    return json.loads(seen.stdout.splitlines()[-1]), home


def same(shown, expected):
    """Cells as Calc shows them: blanks are empty texts."""
    for a, b in zip(shown, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            if isinstance(y, float | int):
                assert x == pytest.approx(y)
            else:
                assert x == (y or "")


@pytest.mark.libreoffice
def test_array_formulas_show_the_table(session):
    found, _ = session
    shown = found["shown"]
    assert "GLMM_POISSON" in found["formula"]
    same(shown["E1:M8"], glmm_poisson(Y, X, G, None, True, 0.1, method="laplace"))
    same(shown["E20:M28"], glmm_poisson(Y, X, G, X, method="laplace"))
    same(shown["E50:M58"], lmm(Y, X, G))
    same(shown["E60:M67"], glmm_poisson(Y, X, G, method="laplace"))
    text = "Invalid input: y and groups must have the same number of rows."
    assert shown["E40:M40"][0][0] == text
    changed = [[3], *Y[1:]]
    same(found["again"], glmm_poisson(changed, X, G, None, True, 0.1, method="laplace"))


@pytest.mark.libreoffice
def test_what_calc_saved_is_calculated_by_the_command(session, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    _, home = session
    assert (home / "book.ods").exists()
    target = tmp_path / "out.xlsx"
    code = main(["calc", str(home / "book.xlsx"), "-o", str(target), "--place", "over"])
    assert code == 1  # one formula is wrong on purpose
    page = openpyxl.load_workbook(target).worksheets[0]
    expected = glmm_poisson([[3], *Y[1:]], X, G, None, True, 0.1, method="laplace")
    found = [[c.value for c in row] for row in page["E1:M8"]]
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x == (pytest.approx(y) if isinstance(y, float) else y or None)


def test_without_a_server_the_cell_says_what_to_do(tmp_path, monkeypatch):
    """The add-in's own code, with what LibreOffice provides replaced by nothing."""
    import sys
    import types

    fake = types.ModuleType("unohelper")
    fake.Base = type("Base", (), {})
    fake.ImplementationHelper = lambda: types.SimpleNamespace(
        addImplementation=lambda *a: None
    )
    calc = types.ModuleType("org.jaxglmm.calc")
    calc.XGlmm = type("XGlmm", (), {})
    names = {"unohelper": fake, "org.jaxglmm.calc": calc}
    names |= {n: types.ModuleType(n) for n in ("org", "org.jaxglmm")}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("JAXGLMM_URL", "http://127.0.0.1:9")
    code = (libreoffice.SOURCE / "glmm_addin.py").read_text()
    space = {}
    exec(compile(code, "glmm_addin.py", "exec"), space)
    answer = space["Glmm"](None).lmm(
        ((1.0,), (2.0,)), ((1.0,), (2.0,)), (("a",), ("b",))
    )
    assert "Start the server: jaxglmm serve" in answer[0][0]
    server = Server(port=0, token="x")
    server.start()
    monkeypatch.setenv("JAXGLMM_URL", server.url)
    assert "token" in space["ask"]("LMM", [])[0][0]
    server.shutdown()
    server.server_close()
    assert space["plain"]((("", 1.0), (None, "a"))) == [[None, 1.0], [None, "a"]]
    assert space["table"]([[True, None, 2]]) == ((1.0, "", 2.0),)


UNOPKG = """#!/bin/sh
echo "$@" >> "{log}"
if [ "$1" = list ]; then echo "Identifier: {listed}"; exit 0; fi
echo "ImportError: a module"; exit {code}
"""


@pytest.mark.parametrize(
    ("uid", "words", "code", "listed", "fine"),
    [
        (0, (), 0, "", "--shared"),  # refused before unopkg is asked
        (0, ("--shared",), 0, "", None),
        (0, ("--shared",), 1, libreoffice.IDENTIFIER, None),  # a traceback, and there
        (0, ("--shared",), 1, "another", "unopkg: ImportError"),
        (1000, (), 0, "", None),
        (1000, (), 1, libreoffice.IDENTIFIER, "unopkg: ImportError"),
    ],
)
def test_installing(uid, words, code, listed, fine, tmp_path, monkeypatch, capsys):
    program = tmp_path / "unopkg"
    log = tmp_path / "log"
    program.write_text(UNOPKG.format(log=log, listed=listed, code=code))
    program.chmod(0o755)
    monkeypatch.setattr(libreoffice.shutil, "which", lambda *_, **__: str(program))
    monkeypatch.setattr(libreoffice.os, "geteuid", lambda: uid)
    status = main(["libreoffice", "install", *words])
    out = capsys.readouterr()
    if fine is None:
        assert status == 0
        assert "Installed" in out.out
        assert ("--shared" in log.read_text()) == bool(words)
    else:
        assert status != 0
        assert fine in out.err
    assert log.exists() == (fine != "--shared")
    assert (
        libreoffice.IDENTIFIER in (libreoffice.SOURCE / "description.xml").read_text()
    )
