"""Random models of all families, the same in every run: data, formula, arguments.

What peers and we are compared on in ``tests/agreement/test_random_models.py``: slopes far from
zero, means of random slopes that are not among the fixed effects, covariates of any
origin and scale, weights and offsets of any size. ``python random_models.py FOLDER``
writes the data and ``models.json`` for ``random_models.R``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COUNT = 200
N, G, H = 120, 10, 6
LINEAR = ("ml", "reml")
GENERALISED = (
    ("binomial", "logit"),
    ("bernoulli", "logit"),
    ("poisson", "log"),
    ("nbinom2", "log"),
    ("nbinom1", "log"),
    ("gamma", "log"),
    ("gaussian", "log"),
    ("invgauss", "log"),
    ("beta", "logit"),
    ("binomial", "cloglog"),
)


@dataclass(frozen=True)
class Model:
    """number; kind: "ml", "reml" or a family; columns: name -> values of N rows."""

    number: int
    kind: str
    link: str
    fixed: str
    random: str
    columns: dict[str, np.ndarray]
    weights: bool
    offset: bool

    @property
    def linear(self) -> bool:
        return self.kind in LINEAR

    @property
    def formula(self) -> str:
        left = "cbind(k, m - k)" if self.kind == "binomial" else "y"
        offset = " + offset(o)" if self.offset else ""
        return f"{left} ~ {self.fixed}{offset} + {self.random}"


def model(i: int) -> Model:
    """The model of a number below ``COUNT``."""
    rng = np.random.default_rng(7_000 + i)
    linear = i % 2 == 0
    kind, link = (
        (LINEAR[i // 2 % 2], "identity")
        if linear
        else GENERALISED[i // 2 % len(GENERALISED)]
    )
    g, h = rng.permutation(np.arange(N) % G), rng.permutation(np.arange(N) % H)
    t, z = rng.normal(size=N), rng.normal(size=N)
    mean = rng.choice([0.0, 1.0, 8.0, 60.0]) if linear else rng.choice([0.0, 0.4])
    size = 1.0 if linear else 0.35
    b = size * rng.normal(size=(2, G)) * rng.uniform(0.3, 1.5, (2, 1))
    slopes = rng.random() < 0.6
    crossed = rng.random() < 0.35
    eta = rng.normal() * (3 if linear else 0.5) + b[0][g] + 0.3 * z
    if slopes:
        eta = eta + (mean + b[1][g]) * t
    if crossed:
        eta = eta + size * rng.normal(size=H)[h]
    # the covariate as users have it: any origin, any unit
    origin = rng.choice([0.0, 50.0, 2000.0, -3e4])
    unit = 10.0 ** rng.integers(-4, 5)
    columns = {"x": origin * unit + unit * t, "z": z, "g": g, "h": h}
    fixed = "z" if slopes and rng.random() < 0.5 else "x + z"
    if fixed == "z" and not linear:
        fixed = "x + z" if mean else "z"
    bars = ("(x | g)", "(x || g)") if abs(origin) < 1 else ("(x | g)",)
    random = str(rng.choice(bars)) if slopes else "(1 | g)"
    if crossed:
        random += " + (1 | h)"
    offset = bool(rng.random() < 0.3)
    if offset:
        columns["o"] = rng.normal(size=N) * (
            10.0 ** rng.integers(-2, 4) if linear else 0.5
        )
        eta = eta + columns["o"]
    weights = bool(rng.random() < 0.4) and (linear or kind == "poisson")
    if weights and linear:
        columns["w"] = 10.0 ** rng.integers(-8, 9) * rng.uniform(0.2, 5, N)
    elif weights:
        columns["w"] = rng.integers(1, 4, N).astype(float)
    columns |= response(kind, eta, columns, rng)
    return Model(i, kind, link, fixed, random, columns, weights, offset)


def response(kind: str, eta: np.ndarray, columns: dict, rng) -> dict[str, np.ndarray]:
    """The response by name."""
    w = columns.get("w", np.ones(N))
    if kind in LINEAR:
        y = eta + rng.normal(size=N) / np.sqrt(w / np.exp(np.mean(np.log(w))))
        return {"y": y * 10.0 ** rng.integers(-3, 4) if "o" not in columns else y}
    mu = np.exp(np.clip(eta, -6, 4))
    if kind in ("binomial", "bernoulli"):
        p = 1 / (1 + np.exp(-np.clip(eta, -6, 6)))
        if kind == "bernoulli":
            return {"y": (rng.random(N) < p).astype(float)}
        m = rng.integers(1, 12, N)
        return {"k": rng.binomial(m, p).astype(float), "m": m.astype(float)}
    if kind == "poisson":
        return {"y": rng.poisson(mu).astype(float)}
    if kind == "nbinom2":
        return {"y": rng.poisson(mu * rng.gamma(2.0, 0.5, N)).astype(float)}
    if kind == "nbinom1":
        return {"y": rng.poisson(rng.gamma(mu / 1.5, 1.5)).astype(float)}
    if kind == "gamma":
        return {"y": np.maximum(rng.gamma(3.0, mu / 3.0), 1e-8)}
    if kind == "gaussian":
        return {"y": mu + 0.3 * rng.normal(size=N) * mu.mean()}
    if kind == "invgauss":
        return {"y": rng.wald(mu, 4.0)}
    p = 1 / (1 + np.exp(-np.clip(eta, -3, 3)))
    return {"y": np.clip(rng.beta(8 * p, 8 * (1 - p)), 1e-6, 1 - 1e-6)}


def main(folder: Path) -> None:
    """Data as CSV files, the models as JSON."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i in range(COUNT):
        one = model(i)
        frame = pd.DataFrame(one.columns)
        frame.to_csv(folder / f"{i}.csv", index=False, float_format="%.17g")
        out.append(
            {
                "number": i,
                "kind": one.kind,
                "link": one.link,
                "formula": one.formula,
                "weights": one.weights,
            }
        )
    (folder / "models.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
