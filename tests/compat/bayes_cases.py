"""statsmodels' stored cases: designs, values at three points, fits."""

import functools
import json
from pathlib import Path

import numpy as np
from scipy import sparse

from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM, PoissonBayesMixedGLM

REFERENCE = Path(__file__).parent.parent / "reference"
CLASSES = {
    "BinomialBayesMixedGLM": BinomialBayesMixedGLM,
    "PoissonBayesMixedGLM": PoissonBayesMixedGLM,
}
NAMES = sorted(
    path.stem
    for pattern in ("sm_binomial_*", "sm_poisson_*", "sm_glmm_*")
    for path in REFERENCE.glob(f"{pattern}.json")
)
FITTED = [name for name in NAMES if "glmm" not in name]


@functools.cache
def case(name):
    """A stored case."""
    return json.loads((REFERENCE / f"{name}.json").read_text())


def design(name):
    """endog, exog, exog_vc (sparse), ident."""
    r = case(name)
    e = r["exog_vc"]
    Z = sparse.coo_array((e["value"], (e["row"], e["col"])), shape=e["shape"])
    return np.array(r["endog"]), np.array(r["exog"]), Z, np.array(r["ident"])


@functools.cache
def model(name):
    """The case as a model."""
    r = case(name)
    cls = CLASSES[r["family"]]
    return cls(*design(name), vcp_p=r["vcp_p"], fe_p=r["fe_p"])


def joined(record, kind):
    """Means or sds of a stored fit, packed."""
    parts = ("fe", "vcp", "vc")
    return np.concatenate([record[f"{part}_{kind}"] for part in parts])
