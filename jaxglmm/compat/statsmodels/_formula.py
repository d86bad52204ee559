"""Formulas of a Bayesian mixed model: fixed part, and one part a variance component."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError


@dataclass(frozen=True)
class Read:
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


def read(formula: str, vc_formulas: Any, data: Any, extras: Mapping[str, Any]) -> Read:
    """Read ``formula`` and the variance-component formulas.

    Args:
        formula: response and fixed effects; with ``vc_formulas=None`` lme4's terms
            ``(1 | g)``, ``(x || g)`` make the components.
        vc_formulas: dict name -> one-sided formula; or a list of these, named by their
            texts.
        data: a frame or a dict of arrays.
        extras: name -> column name, array, number or None (offset, weights, ...): rows
            where one is missing are dropped as well.
    """
    frame = data if isinstance(data, pd.DataFrame) else _frame(data)
    components = named(vc_formulas)
    if components is None:
        return _lme4(formula, frame)
    if "|" in formula:
        raise FormulaError(
            "both vc_formulas and (... | g) terms are given; write the random effects "
            "in one place"
        )
    frame, rows = _complete(formula, components, frame, extras)
    return _patsy(formula, components, frame, rows)


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


def _frame(data: Any) -> pd.DataFrame:
    import narwhals as nw

    native = nw.from_native(data, eager_only=True, pass_through=True)
    return native.to_pandas() if hasattr(native, "to_pandas") else pd.DataFrame(data)


def _complete(
    formula: str, components: dict[str, str], frame: pd.DataFrame, extras
) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows without a missing value in any variable of any part."""
    texts = [formula, *components.values()]
    given = {v for v in extras.values() if isinstance(v, str)}
    known = [c for c in frame if c in given or any(_in(c, text) for text in texts)]
    bad = frame[known].isna().any(axis=1).to_numpy()
    rows = np.flatnonzero(~bad)
    return (frame.iloc[rows] if bad.any() else frame), rows


def _in(column: Any, formula: str) -> bool:
    """Whether the formula mentions the column as a word."""
    pattern = rf"(?<![\w.]){re.escape(str(column))}(?![\w.])"
    return re.search(pattern, formula) is not None


def _patsy(
    formula: str, components: dict[str, str], frame: pd.DataFrame, rows: np.ndarray
) -> Read:
    from formulaic import model_matrix
    from formulaic.errors import FormulaicError
    from scipy import sparse

    try:
        both = model_matrix(formula, frame)
        parts = [model_matrix(f, frame, output="sparse") for f in components.values()]
    except FormulaicError as error:
        raise FormulaError(str(error)) from error
    if not hasattr(both, "lhs"):
        raise FormulaError(f"{formula!r} has no response: write 'y ~ ...'")
    left = pd.DataFrame(both.lhs)
    if left.shape[1] != 1:
        raise DataError(
            f"the response of {formula!r} has {left.shape[1]} columns "
            f"({', '.join(map(str, left.columns))}); give one column of numbers"
        )
    blocks: list[Any] = [sparse.csr_array(part) for part in parts]
    specs: list[Any] = [part.model_spec for part in parts]
    names = [list(map(str, spec.column_names)) for spec in specs]
    return Read(
        left.iloc[:, 0].to_numpy(float),
        pd.DataFrame(both.rhs),
        sparse.hstack(blocks, format="csr"),
        np.repeat(np.arange(len(blocks)), [b.shape[1] for b in blocks]),
        str(left.columns[0]),
        list(components),
        [name for own in names for name in own],
        frame,
        rows,
    )


def _lme4(formula: str, frame: pd.DataFrame) -> Read:
    """Terms (1 | g) and (x || g): one component a column."""
    from scipy import sparse

    from jaxglmm.formula import design_from_formula

    design = design_from_formula(formula, frame)
    if not design.terms:
        raise FormulaError(
            "no variance components: give vc_formulas, such as {'village': "
            "'0 + C(Village)'}, or a term such as (1 | village) in the formula"
        )
    blocks, ident, vcp_names, vc_names = [], [], [], []
    for term in design.terms:
        if term.covariance == "us" and term.values.shape[1] > 1:
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
    return Read(
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
