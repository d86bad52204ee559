"""Worksheet functions for add-ins that run Python in the browser (Pyodide).

JAX does not run there; the browser asks ``jaxglmm serve`` on the same machine, which
has to allow the add-in's page:

    jaxglmm serve --allow-origin https://addin.xlwings.org

Functions are coroutines, as ``pyodide.http.pyfetch`` is; xlwings Lite takes them as
they are (decorate them with its ``@func``).
"""

import json

URL = "http://127.0.0.1:8765"
TOKEN = ""


async def ask(function, *args):
    """The table of a worksheet function, or a text in one cell."""
    from pyodide.http import pyfetch

    headers = {"Content-Type": "application/json"}
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    try:
        answer = await pyfetch(
            f"{URL}/{function}",
            method="POST",
            headers=headers,
            body=json.dumps({"args": args}),
        )
        reply = await answer.json()
    except OSError as error:
        return [[f"jaxglmm: no answer from {URL} ({error}). Start it: jaxglmm serve"]]
    found = reply.get("result", reply.get("error"))
    return found if isinstance(found, list) else [[found]]


async def glmm_poisson(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Counts with random effects by group."""
    return await ask("GLMM_POISSON", y, x, groups, x_random, fit_intercept, alpha)


async def glmm_binomial(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Zeros and ones with random effects by group."""
    return await ask("GLMM_BINOMIAL", y, x, groups, x_random, fit_intercept, alpha)


async def lmm(y, x, groups, x_random=None, fit_intercept=None, alpha=None):
    """Numbers with random effects by group."""
    return await ask("LMM", y, x, groups, x_random, fit_intercept, alpha)
