"""Tables in disguise: only this package's exceptions, or what the plain table gives.

Formulas are few, so that compilations are shared; types, containers, names, missing
rows, weights and offsets are drawn.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from fuzz import dense
from fuzz.disguises import CONTAINERS, KINDS, NAMES, Disguise, N, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxglmm as jg

LINEAR = [
    "{y} ~ {x} + (1 | {g})",
    "{y} ~ {x} + ({x} | {g})",
    "{y} ~ {x} * {f} + (1 | {g}) + (1 | {h})",
    "{y} ~ I({k} ** 2) + log({p}) + (1 | {g})",
    "{y} ~ 0 + {f} + {k} + ({x} || {g})",
    "log({p}) ~ {x} + C({k} > 5) + (1 | {g}:{h})",
]
GENERALISED = [
    ("{c} ~ {x} + (1 | {g})", "poisson"),
    ("{b} ~ {f} + {x} + (1 | {g})", "binomial"),
]
SEEDS = 4
CASES = 60  # of each linear formula; twice as many of a generalised one
fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def used_by(formula):
    return {name for name in KINDS if "{" + name + "}" in formula}


@st.composite
def disguises(draw, formula):
    used = sorted(used_by(formula))
    kinds = {n: draw(st.sampled_from(sorted(KINDS[n]))) for n in used}
    names = {}
    for name in used:
        new = draw(st.sampled_from(NAMES)).replace("{}", name)
        if new not in names.values():
            names[name] = new
    missing = draw(
        st.lists(st.tuples(st.sampled_from(used), st.integers(0, N - 1)), max_size=2)
    )
    container = draw(st.sampled_from(sorted(CONTAINERS)))
    return Disguise(kinds, names, container, tuple(missing))


arguments = st.sampled_from(["none", "array", "scaled", "column", "series"])


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return function(*args, **options)


@functools.cache
def plainly(formula, seed, rows, family, weighted):
    """The fit of the plain table's rows, with their weights."""
    columns = {k: v[list(rows)] for k, v in plain(seed).items()}
    options = {"weights": weights(seed, weighted)[list(rows)]} if weighted else {}
    text = formula.format(**{k: k for k in KINDS})
    if family is None:
        return quietly(jg.lmm, text, columns, **options)
    return quietly(jg.glmm, text, columns, family=family, **options)


def weights(seed, how):
    w = np.random.default_rng(seed + 99).integers(1, 5, N) / 2.0
    return w * (1e7 if how == "scaled" else 1.0)


def agree(fit, truth, disguise):
    """The same numbers under the disguise's names."""
    assert fit.converged == truth.converged
    size = max(1.0, abs(truth.criterion))
    assert fit.criterion == pytest.approx(truth.criterion, abs=1e-6 * size)
    assert len(fit.coefficients) == len(truth.coefficients)
    scale = np.maximum(truth.se, 1e-12)
    assert np.abs(fit.coefficients - truth.coefficients).max() / scale.max() < 1e-3
    assert list(fit.ngroups.values()) == list(truth.ngroups.values())
    for a, b in zip(fit.ranef.values(), truth.ranef.values(), strict=True):
        np.testing.assert_allclose(
            np.sort(a.to_numpy(), axis=0), np.sort(b.to_numpy(), axis=0), atol=1e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("formula", LINEAR)
def test_linear(formula):
    @settings(fuzz, max_examples=CASES)
    @given(disguises(formula), st.integers(0, SEEDS - 1), arguments)
    def run(disguise, seed, how):
        check(formula, None, disguise, seed, how)

    run()


@pytest.mark.slow
@pytest.mark.parametrize(("formula", "family"), GENERALISED)
def test_generalised(formula, family):
    @settings(fuzz, max_examples=2 * CASES)
    @given(disguises(formula), st.integers(0, SEEDS - 1))
    def run(disguise, seed):
        check(formula, family, disguise, seed, "none")

    run()


def check(formula, family, disguise, seed, how):
    columns = plain(seed)
    table = disguise.table(columns)
    options, used = {}, used_by(formula)
    w = None if how == "none" else weights(seed, how)
    if how == "series" and isinstance(table, pd.DataFrame) and table.index.is_unique:
        # labels say where a weight belongs
        order = np.random.default_rng(seed).permutation(N)
        options["weights"] = pd.Series(w, index=table.index).iloc[order]
    elif how == "column" and isinstance(table, dict | pd.DataFrame):
        table["w"], options["weights"] = w, "w"
    elif w is not None:
        options["weights"] = w
    text = disguise.quoted(formula)
    rows = tuple(disguise.kept(used).tolist())
    truth = plainly(formula, seed, rows, family, None if how == "none" else how)
    if family is None:
        fit = quietly(jg.lmm, text, table, **options)
        reml = dense.criterion(fit, True)
        size = max(1.0, abs(reml))
        assert fit.criterion == pytest.approx(reml, abs=1e-7 * size)
    else:
        fit = quietly(jg.glmm, text, table, family=family, **options)
    agree(fit, truth, disguise)
