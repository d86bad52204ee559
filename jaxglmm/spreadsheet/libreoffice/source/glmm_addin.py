"""The Calc add-in: worksheet functions that ask the jaxglmm server on this machine.

Runs inside LibreOffice, in its own Python: the standard library alone. The server's
address is http://127.0.0.1:8765, or the environment variable JAXGLMM_URL; a token,
where the server asks for one, is JAXGLMM_TOKEN.
"""

# pyright: reportMissingImports=false

import json
import os
import urllib.error
import urllib.request

import unohelper
from org.jaxglmm.calc import XGlmm

URL = "http://127.0.0.1:8765"
PATIENCE = 120  # seconds; the first call of a shape compiles
SERVICE = "org.jaxglmm.calc.Glmm"


def ask(function, arguments):
    """The table, or a text in one cell."""
    url = os.environ.get("JAXGLMM_URL", URL).rstrip("/")
    headers = {"Content-Type": "application/json"}
    token = os.environ.get("JAXGLMM_TOKEN")
    if token:
        headers["Authorization"] = "Bearer " + token
    body = json.dumps({"args": [plain(a) for a in arguments]}).encode("utf-8")
    request = urllib.request.Request(url + "/" + function, body, headers)
    # without proxies: the server is on this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return table(json.load(answer)["result"])
    except urllib.error.HTTPError as error:
        return table(reason(error))
    except (OSError, ValueError) as error:
        return table(
            f"jaxglmm: no answer from {url} ({getattr(error, 'reason', error)}). "
            "Start the server: jaxglmm serve"
        )


def reason(error):
    """What the server says to a refused request."""
    try:
        return "jaxglmm: " + json.load(error)["error"]
    except (ValueError, KeyError):
        return f"jaxglmm: {error}"


def plain(value):
    """What Calc hands over, as JSON: ranges as lists of rows, empty cells as null."""
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return text if text else None


def table(result):
    """A result as rows of cells; blanks where nothing is."""
    rows = result if isinstance(result, list) else [[result]]
    return tuple(tuple("" if c is None else cell(c) for c in row) for row in rows)


def cell(value):
    """Truth values as Calc has them, numbers with a point."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    return str(value)


class Glmm(unohelper.Base, XGlmm):
    """The service behind the functions."""

    def __init__(self, context):
        self.context = context

    def glmmPoisson(self, *arguments):
        return ask("GLMM_POISSON", arguments)

    def glmmBinomial(self, *arguments):
        return ask("GLMM_BINOMIAL", arguments)

    def glmmNegbin(self, *arguments):
        return ask("GLMM_NEGBIN", arguments)

    def glmmGaussian(self, *arguments):
        return ask("GLMM_GAUSSIAN", arguments)

    def lmm(self, *arguments):
        return ask("LMM", arguments)

    def glmmZinb(self, *arguments):
        return ask("GLMM_ZINB", arguments)

    def clmm(self, *arguments):
        return ask("CLMM", arguments)

    def mmrm(self, *arguments):
        return ask("MMRM", arguments)


g_ImplementationHelper = unohelper.ImplementationHelper()
g_ImplementationHelper.addImplementation(
    Glmm, SERVICE, (SERVICE, "com.sun.star.sheet.AddIn")
)
