"""Worksheet functions for Excel by xlwings, Windows: they ask ``jaxglmm serve``.

Name this file as the UDF module of the xlwings add-in and press "Import Functions";
``=GLMM_POISSON(A1:A6, B1:B6, C1:C6)`` then spills its table. xlwings hands a range over
as a list of rows (``ndim=2``), and a single cell of an option as a scalar.
"""

import json
import os
import urllib.error
import urllib.request

import xlwings as xw

URL = os.environ.get("JAXGLMM_URL", "http://127.0.0.1:8765")


def ask(function, *args):
    """The table of a worksheet function, or a text in one cell."""
    headers = {"Content-Type": "application/json"}
    if "JAXGLMM_TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['JAXGLMM_TOKEN']}"
    body = json.dumps({"args": args}).encode()
    request = urllib.request.Request(f"{URL}/{function}", body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            found = json.load(answer)["result"]
    except urllib.error.HTTPError as error:
        found = json.load(error)["error"]
    except OSError as error:
        found = f"jaxglmm: no answer from {URL} ({error}). Start it: jaxglmm serve"
    return found if isinstance(found, list) else [[found]]


@xw.func
@xw.arg("y", ndim=2)
@xw.arg("x", ndim=2)
@xw.arg("groups", ndim=2)
@xw.ret(expand="table")
def GLMM_POISSON(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Counts with random effects by group."""
    return ask("GLMM_POISSON", y, x, groups, x_random, fit_intercept, alpha)


@xw.func
@xw.arg("y", ndim=2)
@xw.arg("x", ndim=2)
@xw.arg("groups", ndim=2)
@xw.ret(expand="table")
def GLMM_BINOMIAL(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Zeros and ones with random effects by group."""
    return ask("GLMM_BINOMIAL", y, x, groups, x_random, fit_intercept, alpha)


@xw.func
@xw.arg("y", ndim=2)
@xw.arg("x", ndim=2)
@xw.arg("groups", ndim=2)
@xw.ret(expand="table")
def LMM(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Numbers with random effects by group."""
    return ask("LMM", y, x, groups, x_random, fit_intercept, alpha)
