"""Small tables for the tests of formulas."""

import numpy as np
import pandas as pd


def table(n=60, seed=0):
    """Numbers, factors of two and three levels, groups as ints and texts."""
    r = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": r.normal(size=n),
            "x": r.normal(size=n),
            "z": r.uniform(1.0, 2.0, size=n),
            "a": r.permutation(np.resize(list("pqr"), n)),
            "b": r.permutation(np.resize(list("uv"), n)),
            "t": r.permutation(np.resize([True, False], n)),
            "g": r.permutation(np.resize(np.arange(300, 306), n)),
            "h": r.permutation(np.resize(["h1", "h2", "h3", "h4"], n)),
            "w": r.uniform(0.5, 2.0, size=n),
        }
    )
