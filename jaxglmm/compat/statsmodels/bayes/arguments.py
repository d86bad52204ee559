"""What the constructor of a Bayesian mixed model is given, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import UnboundedLikelihoodError
from jaxglmm.compat.statsmodels.bayes.layout import BayesArrays
from jaxglmm.compat.statsmodels.mixedlm.arguments import aligned
from jaxglmm.formula.matrix import unmasked
from jaxglmm.model.families import AbstractFamily, family_from

Texts = Sequence[str] | None


@dataclass(frozen=True)
class BayesNames:
    """Names of coefficients, scales and random effects (None where none were given)."""

    fep: list[str]
    vcp: list[str]
    vc: list[str] | None


@dataclass(frozen=True)
class BayesInputs:
    """A model's arrays with their names, and the arguments that it gives back.

    data: the arrays; original: endog and exog; priors: fe_p and vcp_p; frame: exog
    where it is one.
    """

    data: BayesArrays
    names: BayesNames
    endog_name: str
    original: tuple[Any, Any]
    priors: tuple[Any, Any]
    frame: pd.DataFrame | None


def read(
    endog: Any,
    exog: Any,
    exog_vc: Any,
    ident: Any,
    priors: tuple[Any, Any],
    names: tuple[Texts, Texts, Texts],
    family: Any,
    dispersion: Any,
    **rows: Any,
) -> BayesInputs:
    """See ``BayesMixedGLM``; rows are offset, exposure, weights, n_trials."""
    exog_vc, *values = aligned(endog, exog, exog_vc=exog_vc, **rows)
    offset, exposure, weights, n_trials = values
    family, original = family_from(family), (endog, exog)
    y, endog_name = _vector(endog, "endog")
    X, columns = matrix(exog, "exog")
    Z = _sparse(exog_vc)
    labels, ident = _ident(ident, Z.shape[1])
    k, n = len(labels), len(y)
    same_length(n, exog=len(X), exog_vc=Z.shape[0])
    named = _named(columns, X.shape[1], k, Z.shape[1], *names)
    trials = _column(1.0 if n_trials is None else n_trials, n, "n_trials")
    if n_trials is not None and family.family_kind != "binomial":
        raise ValueError(f"n_trials belongs to a binomial response, not {family.name}")
    weights = _column(1.0 if weights is None else weights, n, "weights")
    if (weights < 0).any():
        raise ValueError("weights must not be negative")
    _check_response(family, y, trials, n_trials)
    data = BayesArrays(
        y=y,
        X=X,
        Z=Z,
        ident=ident,
        trials=trials,
        weights=weights,
        offset=_offset(offset, exposure, n),
        family=family,
        phi=_dispersion(family, dispersion),
        fe_p=_scale(priors[0], X.shape[1], "fe_p"),
        vcp_p=_scale(priors[1], k, "vcp_p"),
    )
    frame = exog if isinstance(exog, pd.DataFrame) else None
    return BayesInputs(data, named, endog_name, original, priors, frame)


def _named(columns, p: int, k: int, q: int, fep, vcp, vc) -> BayesNames:
    """Names, statsmodels' where there are none."""
    default = [f"FE_{j + 1}" for j in range(p)] if columns is None else columns
    fep = list(map(str, default if fep is None else fep))
    vcp = [f"VC_{j + 1}" for j in range(k)] if vcp is None else list(map(str, vcp))
    vc = None if vc is None else list(map(str, vc))
    if len(fep) != p:
        raise ValueError(f"{len(fep)} fep_names for the {p} columns of exog")
    if len(vcp) != k:
        raise ValueError("The lengths of vcp_names and ident should be the same")
    if vc is not None and len(vc) != q:
        raise ValueError(f"{len(vc)} vc_names for the {q} columns of exog_vc")
    return BayesNames(fep, vcp, vc)


def _dispersion(family: AbstractFamily, value: Any) -> np.ndarray:
    if not family.n_phi:
        if value is not None:
            raise ValueError(f"the family {family.name} has no dispersion parameter")
        return np.zeros(0)
    if value is None:
        raise ValueError(
            f"the family {family.name} has a dispersion parameter "
            f"({family.phi_names[0]}), which this class does not estimate: give "
            "dispersion=, or use jaxglmm.glmm(..., method='map')"
        )
    if not float(value) > 0:
        raise ValueError(f"dispersion={value!r} must be positive")
    return np.log([float(value)])


def _vector(values: Any, name: str) -> tuple[np.ndarray, str]:
    """(n,) numbers and their name; booleans are numbers, text is not."""
    label = getattr(values, "name", None)
    if isinstance(values, pd.DataFrame):
        label = values.columns[0]
    array = np.asarray(unmasked(values))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not {array.shape}")
    array = _numbers(array, name)
    return array, "y" if label is None else str(label)


def matrix(values: Any, name: str) -> tuple[np.ndarray, list[str] | None]:
    """(n, p) numbers, and the names of a frame's columns."""
    columns = None
    if hasattr(values, "columns"):
        columns = [str(c) for c in values.columns]
        values = values.to_numpy()
    array = np.asarray(unmasked(values))
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"'{name}' must have one or two columns")
    return _numbers(array, name), columns


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    try:
        out = array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, not {array.dtype}") from error
    if not np.isfinite(out).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(out)).sum())} missing or infinite values"
        )
    return out


def _sparse(values: Any) -> Any:
    """exog_vc as CSR, never through a dense copy where it is sparse."""
    from scipy import sparse

    if values is None:
        raise ValueError(
            "exog_vc is None: a model without random effects is a GLM; fit it by "
            "jaxglmm.glmm with a formula without (... | g)"
        )
    if sparse.issparse(values):
        out: Any = sparse.csr_array(values).astype(float)
        out.sum_duplicates()
        if not np.isfinite(out.data).all():
            raise ValueError("exog_vc has missing or infinite values")
    else:
        out = sparse.csr_array(matrix(values, "exog_vc")[0])
    out.eliminate_zeros()
    if out.shape[1] == 0:
        raise ValueError("exog_vc has no columns")
    return out


def _ident(values: Any, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels in sorted order, and (q,) positions among them."""
    if values is None:
        raise ValueError(
            "ident is None: give one label a column of exog_vc, equal where columns "
            "share a standard deviation"
        )
    array = np.asarray(unmasked(values))
    if array.ndim != 1:
        raise ValueError("ident must be a one-dimensional array")
    if len(array) != q:
        raise ValueError("len(ident) should match the number of columns of exog_vc")
    return np.unique(array, return_inverse=True)


def _column(value: Any, n: int, name: str) -> np.ndarray:
    array = np.asarray(unmasked(value), float)
    if array.ndim > 1:
        array = array.reshape(-1)
    if array.ndim == 1:
        same_length(n, **{name: len(array)})
    out = np.broadcast_to(array, (n,)).astype(float)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} has missing or infinite values")
    return out


def _offset(offset: Any, exposure: Any, n: int) -> np.ndarray:
    out = _column(0.0 if offset is None else offset, n, "offset")
    if exposure is None:
        return out
    exposure = _column(exposure, n, "exposure")
    if not (exposure > 0).all():
        raise ValueError("exposure must be positive: its logarithm is the offset")
    return out + np.log(exposure)


def _scale(value: Any, k: int, name: str) -> np.ndarray:
    array = np.atleast_1d(np.asarray(value, float))
    if array.shape not in ((1,), (k,)):
        raise ValueError(f"{name} has {array.size} values; give one, or {k}")
    if not ((array > 0) & np.isfinite(array)).all():
        raise ValueError(f"{name}={value!r} must be positive")
    return np.broadcast_to(array, (k,)).astype(float)


def _check_response(
    family: AbstractFamily, y: np.ndarray, trials: np.ndarray, given: Any
) -> None:
    if family.family_kind != "binomial":
        with suppress(UnboundedLikelihoodError):  # which the priors bound
            family.check(y)
    elif given is not None:
        family.check(y, trials)
    elif not np.array_equal(np.unique(y), [0.0, 1.0]):
        raise ValueError("endog values must be 0 and 1, and not all identical")


def same_length(n: int, **lengths: int) -> None:
    """Refuse what has not n rows, by name."""
    for name, length in lengths.items():
        if length != n:
            raise ValueError(f"{name} has {length} rows, endog has {n}")


def plain(value: Any) -> Any:
    """A number, or an array of them."""
    array = np.asarray(unmasked(value), float)
    return float(array) if array.ndim == 0 else array
