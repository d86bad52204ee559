"""A fit for the package pymmeans, emmeans' port to Python, by its door ``qdrg``.

It reads a formula by patsy, whose columns are in another order than ours and may be
coded in another way. The same model has the same column space, so coefficients and
their covariance are carried over by the matrix B with X_patsy B = X; a formula that
patsy reads as another model has none, and is refused.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.export.marginaleffects import refuse
from jaxglmm.fitting.kinds import is_generalised
from jaxglmm.fitting.model_frame import frame

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

NAME = "to_pymmeans()"
OWN = "fit.means(), trends() and joint_tests() are there for it"
SAME = 1e-8  # share of a column that may be left outside the other columns' space
LINKS = {  # of statsmodels, by whose names pymmeans knows odds and ratios
    "logit": "Logit",
    "probit": "Probit",
    "cloglog": "CLogLog",
    "cauchit": "Cauchy",
    "log": "Log",
    "sqrt": "Sqrt",
    "inverse": "InversePower",
    "1/mu^2": "InverseSquared",
}


def to_pymmeans(fit: FittedModel, df: float | None = None) -> Any:
    """The fit as pymmeans takes it.

    Args:
        fit: linear, or generalised with one linear predictor.
        df: degrees of freedom of all tests of a linear model; None for tests by z.

    Returns:
        A ``pymmeans.utils.ModelInfo``.

    Raises:
        ArgumentError: degrees of freedom that are none.
        NotApplicableError: the package is not installed; posteriors, several
            predictors, categories, dropped columns; a formula without the same meaning
            to patsy.
    """
    if df is not None:
        known = _arguments.is_finite(df) or (_arguments.is_number(df) and df == np.inf)
        if not (known and df > 0):
            raise ArgumentError(
                f"df={_arguments.shown(df)} must be a number of degrees of freedom"
            )
        if is_generalised(fit):
            raise NotApplicableError(
                f"{NAME}: df= goes with linear models; tests of others are by z"
            )
    refuse(fit, NAME, "pymmeans", OWN)
    try:
        import pymmeans  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotApplicableError(
            f"{NAME} needs the package pymmeans ({error}): pip install pymmeans"
        ) from error

    text = getattr(fit.design.recipe, "fixed", None)
    if text is None:
        raise NotApplicableError(
            f"{NAME}: pymmeans reads a formula, and this fit is of arrays; {OWN}"
        )
    data = frame(fit.design).iloc[fit.design.counted].reset_index(drop=True)
    coef, vcov = _carried(fit, text, data)
    info = pymmeans.qdrg(
        f"~ {text}",
        data,
        coef,
        vcov,
        np.inf if df is None else df,
        response_name=_response(fit, data),
        family=_family(fit),
        scale=float(fit.sigma) ** 2 if not is_generalised(fit) else 1.0,
    )
    # full rank: all can be estimated
    changes: dict[str, Any] = {"estimability_basis": np.eye(len(coef))}
    if fit.design.offset is not None:
        offset = np.broadcast_to(fit.design.offset, (fit.design.n,))
        changes["offset_mean"] = float(offset[fit.design.counted].mean())
    return dataclasses.replace(info, **changes)


def _response(fit: FittedModel, data: Any) -> str:
    """A column to stand on the left for patsy, which needs one of numbers."""
    response = fit.design.response
    return response if response in data.columns else str(data.columns[0])


def _carried(fit: FittedModel, text: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """(p,) coefficients and (p, p) their covariance in patsy's columns."""
    import patsy  # pyright: ignore[reportMissingImports]

    try:
        theirs = np.asarray(patsy.dmatrix(f"~ {text}", data), float)
    except Exception as error:  # of its parser, or of a function that it does not know
        raise NotApplicableError(
            f"{NAME}: patsy, by which pymmeans reads formulas, does not read "
            f"{text!r} ({str(error).partition(chr(10))[0]}); {OWN}"
        ) from error
    own = np.asarray(fit.design.X, float)[fit.design.counted]
    size = np.sqrt((theirs**2).mean(axis=0))
    size[size == 0] = 1.0
    back, _, rank, _ = np.linalg.lstsq(theirs / size, own, rcond=None)
    left = np.abs(own - theirs / size @ back).max(axis=0)
    outside = left > SAME * np.abs(own).max(axis=0)
    if theirs.shape[1] != own.shape[1] or rank < own.shape[1] or outside.any():
        names = [n for n, out in zip(fit.design.x_names, outside, strict=True) if out]
        raise NotApplicableError(
            f"{NAME}: to patsy, by which pymmeans reads formulas, {text!r} is another "
            f"model, with {theirs.shape[1]} columns where this one has {own.shape[1]}"
            f"{' and without ' + ', '.join(names) if names else ''}; {OWN}"
        )
    back = back / size[:, None]
    vcov = back @ np.asarray(fit.coefficient_covariance(), float) @ back.T
    return back @ np.asarray(fit.coefficients, float), (vcov + vcov.T) / 2


def _family(fit: Any) -> Any:
    """What pymmeans asks of a family: its link, by statsmodels' class."""
    if not is_generalised(fit) or fit.link_name == "identity":
        return None
    if fit.link_name not in LINKS:
        raise NotApplicableError(
            f"{NAME}: pymmeans has no link {fit.link_name!r}; {OWN}"
        )
    from statsmodels.genmod.families import (  # pyright: ignore[reportMissingImports]
        links,
    )

    return SimpleNamespace(link=getattr(links, LINKS[fit.link_name])())
