"""Formulas of a Bayesian mixed model: fixed part, and one part a variance component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import FormulaError
from jaxglmm.compat.statsmodels import patsy
from jaxglmm.compat.statsmodels.mixedlm.formula import as_frame
from jaxglmm.model import covariances


@dataclass(frozen=True)
class BayesFormulaInputs:
    """What formulas and data give: arrays with names, rows with missing values gone."""

    endog: np.ndarray
    exog: pd.DataFrame
    exog_vc: Any
    ident: np.ndarray
    endog_name: str
    vcp_names: list[str]
    vc_names: list[str]
    frame: Any
    rows: np.ndarray


def read(
    formula: str,
    vc_formulas: Any,
    data: Any,
    extras: Mapping[str, Any],
    context: Mapping[str, Any],
) -> BayesFormulaInputs:
    """Read ``formula`` and the variance-component formulas.

    Args:
        formula: response and fixed effects; with ``vc_formulas=None`` lme4's terms
            ``(1 | g)``, ``(x || g)`` make the components.
        vc_formulas: dict name -> one-sided formula; or a list of these, named by their
            texts.
        data: a frame or a dict of arrays.
        extras: name -> column name, array, number or None (offset, weights, ...): rows
            where one is missing are dropped as well.
        context: the caller's names.
    """
    frame = as_frame(data)
    components = named(vc_formulas)
    if components is None:
        return _lme4(formula, frame, context)
    if "|" in formula:
        raise FormulaError(
            "both vc_formulas and (... | g) terms are given; write the random effects "
            "in one place"
        )
    frame, rows = _complete(formula, components, frame, extras)
    return _patsy(formula, components, frame, rows, context)


def named(vc_formulas: Any) -> dict[str, str] | None:
    """Component name -> formula."""
    if vc_formulas is None:
        return None
    if isinstance(vc_formulas, str):
        vc_formulas = [vc_formulas]
    if isinstance(vc_formulas, Mapping):
        out = {str(k): str(v) for k, v in vc_formulas.items()}
    elif isinstance(vc_formulas, Sequence):
        out = {str(f): str(f) for f in vc_formulas}
    else:
        raise FormulaError(
            f"vc_formulas is a {type(vc_formulas).__name__}; give a dict name -> "
            "one-sided formula, such as {'village': '0 + C(Village)'}, or a list"
        )
    if not out:
        raise FormulaError(
            "vc_formulas is empty: give one formula a variance component, such as "
            "{'village': '0 + C(Village)'}"
        )
    return out


def _complete(
    formula: str, components: dict[str, str], frame: pd.DataFrame, extras
) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows without a missing value in any variable of any part."""
    used = {v for v in extras.values() if isinstance(v, str)}
    for text in (formula, *components.values()):
        used |= patsy.variables(text)
    known = [c for c in frame if c in used]
    bad = frame[known].isna().any(axis=1).to_numpy()
    rows = np.flatnonzero(~bad)
    return (frame.iloc[rows] if bad.any() else frame), rows


def _patsy(
    formula: str,
    components: dict[str, str],
    frame: pd.DataFrame,
    rows: np.ndarray,
    context: Mapping[str, Any],
) -> BayesFormulaInputs:
    from scipy import sparse

    sides = patsy.parse(formula)
    y = patsy.response(sides, frame, context)
    spec, X = patsy.learn(sides.right, frame, context)
    blocks: list[Any] = []
    names: list[list[str]] = []
    for text in components.values():
        part, block = patsy.learn(patsy.parse(text).right, frame, context, sparse=True)
        blocks.append(block)
        names.append(part.names)
    return BayesFormulaInputs(
        y.to_numpy(float),
        pd.DataFrame(X, columns=spec.names, index=frame.index),
        sparse.hstack(blocks, format="csr"),
        np.repeat(np.arange(len(blocks)), [b.shape[1] for b in blocks]),
        str(y.name),
        list(components),
        [name for own in names for name in own],
        frame,
        rows,
    )


def _lme4(
    formula: str, frame: pd.DataFrame, context: Mapping[str, Any]
) -> BayesFormulaInputs:
    """Terms (1 | g) and (x || g): one component a column."""
    from scipy import sparse

    from jaxglmm.formula import design_from_formula

    design = design_from_formula(formula, frame, context=context)
    if not design.terms:
        raise FormulaError(
            "no variance components: give vc_formulas, such as {'village': "
            "'0 + C(Village)'}, or a term such as (1 | village) in the formula"
        )
    blocks, ident, vcp_names, vc_names = [], [], [], []
    for term in design.terms:
        if covariances.of(term).pairs:
            raise FormulaError(
                f"({' + '.join(term.names)} | {term.factor}) has correlated effects, "
                "which this class has not: write (... || "
                f"{term.factor}), or fit by jaxglmm.glmm(..., method='map')"
            )
        for i, name in enumerate(term.names):
            shape = (design.n, term.n_levels)
            entries = (term.values[:, i], (np.arange(design.n), term.codes))
            blocks.append(sparse.csr_array(entries, shape=shape))
            label = term.label if name == "(Intercept)" else f"{term.label}:{name}"
            ident += [len(vcp_names)] * term.n_levels
            vcp_names.append(label)
            vc_names += [f"{label}[{level}]" for level in term.levels]
    rows = np.arange(len(frame)) if design.rows is None else design.rows
    names = ["Intercept" if x == "(Intercept)" else x for x in design.x_names]
    return BayesFormulaInputs(
        design.y,
        pd.DataFrame(design.X, columns=names),
        sparse.hstack(blocks, format="csr"),
        np.array(ident),
        design.response,
        vcp_names,
        vc_names,
        frame,
        rows,
    )
