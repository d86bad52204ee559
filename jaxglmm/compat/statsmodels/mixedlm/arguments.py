"""What the constructor of ``MixedLM`` is given, read: labels, arrays, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError
from jaxglmm.compat.statsmodels.mixedlm.structure import (
    Component,
    LevelNames,
    VCSpec,
    by_levels,
    from_spec,
    rows_of,
)
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.notices import warn


@dataclass(frozen=True)
class ModelInputs:
    """What a model is made of, however it was given.

    endog (n,); exog (n, k_fe); exog_re (n, k_re) and weights (n,), or None; labels (n,)
    of the groups; components, and spec where these came as matrices; names: of the
    response, and of the columns of exog; re_names: of those of exog_re; original:
    endog and exog as given; index: of the rows; is_pandas: whether results are named;
    n_missing: rows left out; use_sparse: see ``MixedLM.from_formula``.
    """

    endog: np.ndarray
    exog: np.ndarray
    exog_re: np.ndarray | None
    weights: np.ndarray | None
    labels: np.ndarray
    components: Sequence[Component]
    spec: VCSpec | None
    names: tuple[str, list[str]]
    re_names: list[str]
    original: tuple[Any, Any]
    index: Any
    is_pandas: bool
    n_missing: int = 0
    use_sparse: bool = False


def read(
    endog: Any, exog: Any, groups: Any, exog_re: Any, exog_vc: Any, missing: str, w: Any
) -> ModelInputs:
    """The arguments of the constructor; ``w`` are the weights."""
    groups, exog_re, w = aligned(endog, exog, groups=groups, exog_re=exog_re, weights=w)
    n = len(endog)
    labels, crossed = factors(groups, n)
    named = names(endog, exog, n)
    arrays: dict[str, Any] = {
        "endog": array("endog", endog, n)[:, 0],
        "exog": array("exog", exog, n),
        "exog_re": None if exog_re is None else array("exog_re", exog_re, n),
        "weights": None if w is None else array("weights", w, n)[:, 0],
    }
    keep, index = complete(arrays, labels, missing), _index(endog, exog)
    if keep is not None:
        if exog_vc is not None:
            raise DataError(
                "missing='drop' cannot drop rows of exog_vc; drop them beforehand, "
                "or use from_formula"
            )
        arrays = {k: None if v is None else v[keep] for k, v in arrays.items()}
        labels = labels[keep]
        crossed = {k: v[keep] for k, v in crossed.items()}
        index = None if index is None else index[keep]
    found, spec = _components(exog_vc, labels, crossed)
    columns = re_names(exog_re, arrays["exog_re"])
    if arrays["exog_re"] is None and not found:
        arrays["exog_re"] = np.ones((len(labels), 1))
        columns = ["Group Var"]  # as statsmodels calls it
    return ModelInputs(
        **arrays,
        labels=labels,
        components=found,
        spec=spec,
        names=named,
        re_names=columns,
        original=(endog, exog),
        index=index,
        is_pandas=any(isinstance(v, pd.Series | pd.DataFrame) for v in (endog, exog)),
        n_missing=0 if keep is None else int((~keep).sum()),
    )


def _index(endog: Any, exog: Any) -> Any:
    """The labels of the rows, None where there are none."""
    return getattr(endog, "index", getattr(exog, "index", None))


def _components(exog_vc: Any, labels: np.ndarray, crossed: dict[str, np.ndarray]):
    """Components of crossed factors, or of matrices, these with their ``VCSpec``."""
    if crossed:
        zeros = np.zeros(len(labels), int)
        out = []
        for name, values in crossed.items():
            levels, codes = np.unique(values, return_inverse=True)
            label = LevelNames(levels)
            out.append(by_levels(name, zeros, 1, codes, len(levels), None, label))
        return sorted(out, key=lambda c: c.name), None
    if exog_vc is None:
        return [], VCSpec([], [], [])
    if isinstance(exog_vc, Mapping):
        warn(
            "Using deprecated variance components format; pass a VCSpec", FutureWarning
        )
        exog_vc = from_dict(exog_vc, np.unique(labels).tolist())
    _, group = np.unique(labels, return_inverse=True)
    rows = rows_of(group, int(group.max()) + 1)
    return from_spec(exog_vc, rows, len(labels)), exog_vc


def factors(groups: Any, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels of the groups; where several factors are given, those of each, crossed."""
    if isinstance(groups, Mapping | pd.DataFrame):
        factors = {str(k): np.asarray(unmasked(groups[k])) for k in groups}
        for name, values in factors.items():
            if len(values) != n:
                raise DataError(f"groups[{name!r}] has {len(values)} rows, endog {n}")
        if len(factors) == 1:
            return next(iter(factors.values())), {}
        return np.zeros(n, int), factors
    labels = np.asarray(unmasked(groups))
    if labels.ndim != 1 or len(labels) != n:
        raise DataError(f"groups has shape {labels.shape}; endog has {n} rows")
    return labels, {}


def array(name: str, given: Any, n: int) -> np.ndarray:
    """Numbers as (n, k); one column where a vector is given."""
    try:
        out = np.asarray(unmasked(given), float)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be numbers") from None
    if out.ndim == 1:
        out = out[:, None]
    if out.ndim != 2 or len(out) != n:
        raise DataError(f"{name} has shape {np.shape(given)}; endog has {n} rows")
    return out


def complete(arrays: dict, labels, missing: str) -> np.ndarray | None:
    """Rows to keep, None for all; complains of what is not finite."""
    if missing not in ("none", "drop", "raise"):
        raise ValueError(f"missing={missing!r} must be 'none', 'drop' or 'raise'")
    keep = np.asarray(pd.notna(labels))
    for name, values in arrays.items():
        if values is None:
            continue
        if np.isinf(values).any():
            raise DataError(f"{name} has infinite values; remove or replace them")
        gone = np.isnan(values)
        keep = keep & ~(gone if gone.ndim == 1 else gone.any(axis=1))
    if keep.all():
        return None
    if missing != "drop":
        raise DataError(
            f"{int((~keep).sum())} of {len(keep)} rows have missing values; "
            "missing='drop' leaves them out"
        )
    return keep


def aligned(endog: Any, exog: Any, **others: Any) -> list[Any]:
    """The others in the order of the rows of ``endog`` and ``exog``.

    Labels of those two must be equal, as statsmodels asks. Others are put in order
    where their labels are the same ones; fresh labels 0, 1, ... say nothing, so that
    rows go by position, as in statsmodels; all else is refused.

    Raises:
        ValueError: labels that contradict each other.
    """
    rows = [row_labels(v) for v in (endog, exog)]
    if rows[0] is not None and rows[1] is not None and not rows[0].equals(rows[1]):
        raise ValueError("The indices for endog and exog are not aligned")
    known = rows[1] if rows[0] is None else rows[0]
    return [in_order(name, value, known) for name, value in others.items()]


def in_order(name: str, value: Any, known: pd.Index | None) -> Any:
    """The value with its rows as ``known`` has them, see ``aligned``."""
    labels = row_labels(value)
    if known is None or labels is None or len(labels) != len(known):
        return value
    fresh = pd.RangeIndex(len(known))
    if labels.equals(fresh) != known.equals(fresh):
        same = len(labels.symmetric_difference(known)) == 0
        if not same or not (labels.is_unique and known.is_unique):
            return value
    return by_labels(name, value, known)


def names(endog: Any, exog: Any, n: int) -> tuple[str, list[str]]:
    """Names of the response and of the columns of exog, as statsmodels makes them."""
    name = getattr(endog, "name", None)
    if isinstance(endog, pd.DataFrame):
        name = endog.columns[0]
    y = "y" if name is None else str(name)
    if isinstance(exog, pd.DataFrame):
        return y, [str(c) for c in exog.columns]
    if isinstance(exog, pd.Series) and exog.name is not None:
        return y, [str(exog.name)]
    X = array("exog", exog, n)
    constant = np.flatnonzero(np.ptp(X, axis=0) == 0) if len(X) else []
    if not len(constant):
        return y, [f"x{j + 1}" for j in range(X.shape[1])]
    out = [f"x{j}" for j in range(1, X.shape[1])]
    out.insert(int(constant[0]), "const")
    return y, out


def re_names(given: Any, values: np.ndarray | None) -> list[str]:
    """Names of the random effects' columns."""
    if values is None:
        return []
    if isinstance(given, pd.DataFrame):
        return [str(c) for c in given.columns]
    if isinstance(given, pd.Series) and given.name is not None:
        return [str(given.name)]
    return [f"x_re{k + 1}" for k in range(values.shape[1])]


def from_dict(given: Mapping, labels: list) -> VCSpec:
    """The older form, name -> group -> matrix."""
    names, colnames, mats = sorted(given), [], []
    for name in names:
        own, columns = [], []
        for label in labels:
            matrix = given[name][label]
            shape = np.shape(matrix)
            own.append(np.asarray(matrix, float).reshape(shape[0], -1))
            found = getattr(matrix, "columns", None)
            width = own[-1].shape[1]
            columns.append(
                [str(j) for j in range(width)] if found is None else list(found)
            )
        mats.append(own)
        colnames.append(columns)
    return VCSpec(names, colnames, mats)
