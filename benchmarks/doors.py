"""The other doors: worksheets, the server that they ask, statsmodels' MixedLM.

A worksheet's line is the time that a cell waits: lists of rows in, a table out.
"""

from __future__ import annotations

import atexit
import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

CROWD = 1_000
CLIENTS = 100

Run = Callable[[], "float | None"]


# Data ---------------------------------------------------------------------------------


def sheet(n: int = 5_000, groups: int = 200) -> pd.DataFrame:
    """5,000 rows, two predictors, 200 groups: counts, 0 and 1, numbers."""
    rng = np.random.default_rng(21)
    g = rng.integers(groups, size=n)
    x1, x2 = rng.normal(size=(2, n))
    eta = 0.3 + 0.4 * x1 - 0.2 * x2 + 0.5 * rng.normal(size=groups)[g]
    return pd.DataFrame(
        {
            "count": rng.poisson(np.exp(eta)),
            "clumped": rng.poisson(np.exp(eta) * rng.gamma(1.5, 1 / 1.5, n)),
            "binary": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
            "number": eta + rng.normal(size=n),
            "x1": x1,
            "x2": x2,
            "g": g,
        }
    )


def small_sheet() -> pd.DataFrame:
    """The first documented example: six rows."""
    return pd.DataFrame(
        {
            "count": [2, 3, 5, 1, 2, 4],
            "x1": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
            "g": [1, 1, 1, 2, 2, 2],
        }
    )


def pairs(groups: int = 125_066) -> pd.DataFrame:
    """250,132 rows in 125,066 groups of two."""
    rng = np.random.default_rng(22)
    g = np.repeat(np.arange(groups), 2)
    x = rng.normal(size=len(g))
    y = 1.0 + 0.5 * x + rng.normal(size=groups)[g] + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": g})


def arguments(problem: Any, frame: pd.DataFrame) -> list[Any]:
    """A call's arguments by position, as a spreadsheet sends them.

    ``problem.fixed`` names the columns of x; a slope in ``problem.random`` is
    x_random.
    """
    ((group, terms),) = problem.random
    slopes = [t for t in terms if t != "1"]
    columns = [[problem.response], list(problem.fixed), [group], slopes]
    return [rows(frame, names) for names in columns if names]


def rows(frame: pd.DataFrame, names: list[str]) -> list[list[Any]]:
    """Columns as a list of rows of plain numbers."""
    return [list(r) for r in zip(*(frame[c].tolist() for c in names), strict=True)]


def function(problem: Any) -> str:
    """The name of the function of a problem's family."""
    names = {"poisson": "GLMM_POISSON", "binomial": "GLMM_BINOMIAL"}
    names |= {"nbinom2": "GLMM_NEGBIN", "gaussian": "LMM"}
    return names[problem.family]


def shown(table: Any) -> float:
    """The log-likelihood in a table; its text is an error."""
    if isinstance(table, str):
        raise RuntimeError(table)
    return next(row[1] for row in table if row[0] == "log_likelihood")


# jaxglmm ------------------------------------------------------------------------------


def jaxglmm_sheet(problem: Any, frame: pd.DataFrame) -> Run:
    """A worksheet function in this process."""
    from jaxglmm.spreadsheet.sheets import call

    name, given = function(problem), arguments(problem, frame)
    return lambda: shown(call(name, given))


def jaxglmm_served(problem: Any, frame: pd.DataFrame) -> Run:
    """The same by HTTP, with JSON written and read on both sides."""
    server = _server()
    name, given = function(problem), arguments(problem, frame)
    return lambda: shown(_ask(server, name, given))


def jaxglmm_crowd(problem: Any, frame: pd.DataFrame) -> Run:
    """A thousand requests by a hundred clients at once; all are answered alike."""
    server = _server()
    name = function(problem)
    given = [*arguments(problem, frame), None, True, 0.05, "laplace"]

    def run():
        with ThreadPoolExecutor(CLIENTS) as pool:
            tasks = [pool.submit(_ask, server, name, given) for _ in range(CROWD)]
            found = {shown(task.result()) for task in tasks}
        (value,) = found
        return value

    return run


def jaxglmm_compat(problem: Any, frame: pd.DataFrame) -> Run:
    """``MixedLM`` of ``jaxglmm.compat.statsmodels``, formula to standard errors."""
    import jaxglmm.compat.statsmodels.formula.api as smf

    return _mixedlm(smf, problem, frame)


def _server() -> Any:
    from jaxglmm.spreadsheet.server import Server

    server = Server(port=0)
    server.start()
    atexit.register(server.server_close)
    return server


def _ask(server: Any, name: str, given: list[Any]) -> Any:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.request("POST", f"/{name}", json.dumps({"args": given}))
    answer = json.load(connection.getresponse())
    connection.close()
    return answer["result"]


# Peers --------------------------------------------------------------------------------


def statsmodels_sheet(problem: Any, frame: pd.DataFrame) -> Run:
    """The engine of the reference functions, with the groups in the model."""
    from scipy.sparse import csr_array
    from statsmodels.genmod import bayes_mixed_glm as reference

    kinds = {
        "poisson": reference.PoissonBayesMixedGLM,
        "binomial": reference.BinomialBayesMixedGLM,
    }
    ((group, _),) = problem.random
    y = frame[problem.response].to_numpy(float)
    X = np.column_stack([np.ones(len(y)), frame[list(problem.fixed)].to_numpy(float)])
    codes, levels = pd.factorize(frame[group])
    n, J = len(y), len(levels)

    def run():
        Z = csr_array((np.ones(n), (np.arange(n), codes)), shape=(n, J))
        kinds[problem.family](y, X, Z, np.zeros(J, int)).fit_vb()

    return run


def statsmodels_compat(problem: Any, frame: pd.DataFrame) -> Run:
    """statsmodels' own."""
    import statsmodels.formula.api as smf

    return _mixedlm(smf, problem, frame)


def _mixedlm(smf: Any, problem: Any, frame: pd.DataFrame) -> Run:
    ((group, terms),) = problem.random
    formula = f"{problem.response} ~ {' + '.join(problem.fixed)}"
    re_formula = f"~ {' + '.join(terms)}"

    def run():
        model = smf.mixedlm(formula, frame, groups=frame[group], re_formula=re_formula)
        result = model.fit(reml=problem.reml)
        result.bse  # noqa: B018 - standard errors may be computed when asked for
        return float(result.llf)

    return run
