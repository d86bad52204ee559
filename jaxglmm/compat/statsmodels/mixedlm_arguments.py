"""What the constructor of ``MixedLM`` is given, read: labels, arrays, names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError
from jaxglmm.compat.statsmodels.mixedlm_structure import VCSpec
from jaxglmm.formula.matrix import unmasked


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


def aligned(**given: Any) -> None:
    """Refuse pandas objects whose row labels contradict each other.

    The first two are ``endog`` and ``exog``, whose labels must be equal, as statsmodels
    asks; the labels of others may be of another kind (then rows go by position), but
    not the same ones in another order.
    """
    indices = {
        name: value.index
        for name, value in given.items()
        if isinstance(value, pd.Series | pd.DataFrame)
    }
    y, x = indices.pop("endog", None), indices.pop("exog", None)
    if y is not None and x is not None and not y.equals(x):
        raise ValueError("The indices for endog and exog are not aligned")
    first = x if y is None else y
    for name, index in indices.items():
        if first is None or index.equals(first) or len(index) != len(first):
            continue
        if (
            index.is_unique
            and first.is_unique
            and len(first.symmetric_difference(index))
        ):
            continue
        if sorted(map(str, index)) == sorted(map(str, first)):
            raise ValueError(
                f"the row labels of {name} are those of the data in another order: "
                f"align them, or give {name} without labels"
            )


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
