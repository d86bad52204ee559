"""Files of fits as they were first written, which every later version reads.

``python tests/data/saved/make.py folder`` writes new ones of the present version; those
here stay as they are, whatever becomes of the format.
"""

import json
import sys
from pathlib import Path

import numpy as np

import jaxglmm as jg

MANY = "y ~ 1 + (1 | Batch)"


def main(folder):
    """The fits and their coefficients."""
    dyestuff, cbpp = jg.datasets.load("Dyestuff"), jg.datasets.load("cbpp")
    counts = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    few = jg.MAP(draws=100)
    linear = jg.lmm("Yield ~ 1 + (1 | Batch)", dyestuff)
    Y = linear.simulate(3, seed=1).T
    fits = {
        "linear": linear,
        "generalised": jg.glmm(counts, cbpp),
        "posterior": jg.glmm(counts, cbpp, method=few),
        "many": jg.fit_many(MANY, dyestuff, responses=Y),
        "posteriors": jg.fit_many(MANY, dyestuff, responses=Y, method=few),
    }
    for name, fit in fits.items():
        more = {"data": True} if name == "many" else {}
        fit.save(folder / f"{name}.zip", **more)
    numbers = {k: f.coefficients for k, f in fits.items() if k != "posteriors"}
    numbers["one"] = fits["many"][1].coefficients
    numbers["posteriors"] = fits["posteriors"].frame().to_numpy(float)
    plain = {k: np.ravel(v).tolist() for k, v in numbers.items()}
    (folder / "numbers.json").write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
