"""The example modules for xlwings and Pyodide, against a server, hosts replaced."""

import asyncio
import http.client
import json
import runpy
import sys
import types
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jaxglmm.spreadsheet import lmm
from jaxglmm.spreadsheet.server import Server

FOLDER = Path(__file__).parent.parent.parent / "examples" / "spreadsheets"
Y = [[v] for v in (2.0, 3, 5, 1, 2, 4)]
X = [[v] for v in (1.0, 2, 3, 1, 2, 3)]
G = [[v] for v in "aaabbb"]


@pytest.fixture(scope="module")
def server():
    made = Server(port=0, token="t")
    made.start()
    yield made
    made.shutdown()
    made.server_close()


def test_xlwings(server, monkeypatch):
    decorated = []
    fake = types.ModuleType("xlwings")
    fake.func = lambda f: decorated.append(f.__name__) or f
    fake.arg = fake.ret = lambda *a, **k: lambda f: f
    monkeypatch.setitem(sys.modules, "xlwings", fake)
    monkeypatch.setenv("JAXGLMM_URL", server.url)
    monkeypatch.setenv("JAXGLMM_TOKEN", "t")
    module = runpy.run_path(str(FOLDER / "xlwings_functions.py"))
    assert decorated == ["GLMM_POISSON", "GLMM_BINOMIAL", "LMM"]
    assert module["LMM"](Y, X, G) == lmm(Y, X, G)
    assert "same number" in module["GLMM_POISSON"](Y, X, G[:2])[0][0]
    monkeypatch.setenv("JAXGLMM_TOKEN", "wrong")
    assert "token" in module["LMM"](Y, X, G)[0][0]
    monkeypatch.setitem(module["ask"].__globals__, "URL", "http://127.0.0.1:9")
    assert "jaxglmm serve" in module["LMM"](Y, X, G)[0][0]


def test_pyodide(server, monkeypatch):
    class Answer:
        def __init__(self, text):
            self.text = text

        async def json(self):
            return json.loads(self.text)

    async def pyfetch(url, method, headers, body):
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.request(method, parts.path, body, headers)
        text = connection.getresponse().read()
        connection.close()
        return Answer(text)

    names = {n: types.ModuleType(n) for n in ("pyodide", "pyodide.http")}
    names["pyodide.http"].pyfetch = pyfetch
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    module = runpy.run_path(str(FOLDER / "pyodide_functions.py"))
    space = module["ask"].__globals__
    monkeypatch.setitem(space, "URL", server.url)
    assert "token" in asyncio.run(module["lmm"](Y, X, G))[0][0]
    monkeypatch.setitem(space, "TOKEN", "t")
    assert asyncio.run(module["lmm"](Y, X, G)) == lmm(Y, X, G)
    assert "same number" in asyncio.run(module["glmm_poisson"](Y, X, G[:2]))[0][0]
    monkeypatch.setitem(space, "URL", "http://127.0.0.1:9")
    assert "jaxglmm serve" in asyncio.run(module["glmm_binomial"](Y, X, G))[0][0]
