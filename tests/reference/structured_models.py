"""Simulated models with structured covariances, the same in every run.

What R and we are compared on in ``tests/agreement/test_structured_models.py``: structures
of random effects in linear and generalised models, structures of residuals alone and
beside a random intercept; balanced, with missing rows, with weights; by ML and by REML.
``python structured_models.py FOLDER`` writes the data and ``models.json`` for
``structured_models.R``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

EFFECTS = (
    *("us", "diag", "homdiag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep"),
    *("ou", "exp", "gau", "mat", "rr"),
)
KERNELS = ("ou", "exp", "gau", "mat")
FAMILIES = ("poisson", "binomial", "nbinom2", "gamma")
WITHIN = (
    *("ar1", "cs", "us", "toep", "toeph", "ar1h", "csh", "ad", "adh", "arma11"),
    *("car1", "sp_exp", "sp_gau"),
)
ALONE = ("cs", "csh", "us", "toep", "toeph", "ad", "adh")  # none beside (1 | g)
VARIANCES = ("varident(f)", "varpower(s)", "varexp(s)")
JOINED = (
    *("ar1(v | g) + varident(a)", "car1(t | g) + varpower(s)"),
    *("cs(v | g) + varexp(s)",),
)
GROUPED = ("us", "ar1", "csh")


@dataclass(frozen=True)
class Model:
    """number; part: "effects", "counts" or "residual"; word: its structure.

    formula: with the random effects, as we read it; residual: "" for none; family: ""
    for linear models; visits: how many there are; missing: whether rows are.
    """

    number: int
    part: str
    word: str
    formula: str
    residual: str
    family: str
    reml: bool
    weights: bool
    missing: bool
    visits: int


def effect(word: str) -> str:
    """The term of a structure of random effects."""
    if word in KERNELS:
        return f"{word}(0 + t | g)"
    return "rr(0 + f | g, d=1)" if word == "rr" else f"{word}(0 + f | g)"


def catalogue() -> list[Model]:
    """All models."""
    found: list[Model] = []

    def add(part, word, formula, residual="", family="", visits=4, **how) -> None:
        given = {"reml": False, "weights": False, "missing": False, **how}
        found.append(
            Model(len(found), part, word, formula, residual, family, visits=visits, **given)
        )

    for word in EFFECTS:
        for reml in (True, False):
            for missing in (True, False):
                visits = 4 + missing
                formula = f"y ~ x + {effect(word)}"
                add("effects", word, formula, visits=visits, reml=reml, missing=missing)
    for word in EFFECTS:
        for family in FAMILIES:
            left = "cbind(k, m - k)" if family == "binomial" else "y"
            # R has hetar1 nowhere; of two visits it is unstructured
            visits = 2 if word == "hetar1" else 4
            formula = f"{left} ~ x + {effect(word)}"
            missing = family in ("binomial", "gamma")
            add("counts", word, formula, "", family, visits, missing=missing)
    for word in (*WITHIN, *VARIANCES, *JOINED):
        text = word if "(" in word else f"{word}({'t' if word in WITHIN[-3:] else 'v'} | g)"
        beside = "y ~ x + v" if word in (*ALONE, JOINED[-1]) else "y ~ x + v + (1 | g)"
        add("residual", word, "y ~ x + v", text, reml=True, missing=True)
        add("residual", word, "y ~ x + v", text, weights=True, visits=5)
        add("residual", word, beside, text, reml="(1" in beside, missing=True, visits=6)
    for word in GROUPED:
        for reml in (True, False):
            text = f"{word}(v | a / g)"
            add("grouped", word, "y ~ a * x", text, reml=reml, missing=reml, weights=not reml)
    return found


def columns(model: Model) -> pd.DataFrame:
    """The data of a model; all rows of the first level are there."""
    rng = np.random.default_rng(14_000 + model.number)
    T, part = model.visits, model.part
    repeats = 2 if part in ("effects", "counts") else 1
    G = 40 if part in ("counts", "grouped") else 30
    g = np.repeat(np.arange(G), T * repeats)
    v = np.tile(np.repeat(np.arange(T), repeats), G)
    times = np.cumsum(rng.choice([0.5, 1.0, 1.5], T))
    t = times[v]
    x, s = rng.normal(size=len(g)), rng.uniform(0.5, 3.0, len(g))
    a = g % 2
    # something between all structures: sds that grow, correlations that fall
    distance = np.abs(times[:, None] - times)
    sd = np.linspace(0.8, 1.5, T) * rng.uniform(0.85, 1.15, T)
    C = 0.25 + 0.75 * rng.uniform(0.4, 0.8) ** distance
    b = rng.multivariate_normal(np.zeros(T), sd[:, None] * C * sd, G)
    w = rng.integers(1, 5, len(g)).astype(float)
    data = pd.DataFrame({"g": g, "v": v + 1, "t": t, "x": x, "s": s})
    data["f"] = "v" + data["v"].astype(str)
    data["a"] = np.where(a == 0, "p", "q")
    if part in ("residual", "grouped"):
        spread = 1.0 + 0.5 * (a == 1) * (part == "grouped")
        e = rng.normal(size=len(g)) * 0.4
        if "varp" in model.word or "vare" in model.word:
            spread = spread * s**0.6
        if "varident" in model.word:
            spread = spread * sd[v] * (1 + 0.4 * a)
        intercepts = 0.7 * rng.normal(size=G)[g] * ("(1" in model.formula)
        data["y"] = 2 + 0.5 * x + 0.2 * v + (b[g, v] + e) * spread + intercepts
        if model.weights:
            data["y"] = data["y"] + rng.normal(size=len(g)) / np.sqrt(w)
            data["w"] = w
    elif part == "effects":
        data["y"] = 2 + 0.5 * x + b[g, v] + 0.6 * rng.normal(size=len(g))
    else:
        data = data.assign(**response(model.family, 0.6 + 0.4 * x + 0.6 * b[g, v], rng))
    if model.missing:
        there = rng.random(len(data)) > 0.15
        data = data[there | (g == 0)]
    return data.reset_index(drop=True)


def response(family: str, eta: np.ndarray, rng) -> dict:
    """Of a generalised model, by name."""
    mu = np.exp(np.clip(eta, -4, 4))
    if family == "poisson":
        return {"y": rng.poisson(mu).astype(float)}
    if family == "nbinom2":
        return {"y": rng.poisson(mu * rng.gamma(3.0, 1 / 3, len(mu))).astype(float)}
    if family == "gamma":
        return {"y": rng.gamma(4.0, mu / 4.0)}
    m = rng.integers(2, 12, len(mu))
    k = rng.binomial(m, 1 / (1 + np.exp(-eta)))
    return {"k": k.astype(float), "m": m.astype(float)}


def main(folder: Path) -> None:
    """Data as CSV files, the models as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    models = catalogue()
    for model in models:
        columns(model).to_csv(
            folder / f"{model.number}.csv", index=False, float_format="%.17g"
        )
    (folder / "models.json").write_text(json.dumps([asdict(m) for m in models]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
