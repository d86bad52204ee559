"""Data frames for whoever goes on from here: tidy, glance, augment.

The columns are named as by R's broom.mixed, with underscores for its points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm._errors import NotApplicableError
from jaxglmm.results import components, data

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

EFFECTS = ("fixed", "ran_pars", "ran_vals", "all")
COLUMNS = [
    *["effect", "group", "level", "term", "estimate", "std_error", "statistic"],
    *["df", "p_value", "conf_low", "conf_high"],
]


def tidy(fit: Fit, effects, conf_int: bool, level: float, method: str) -> pd.DataFrame:
    """One row an estimate; ``effects`` is one of ``EFFECTS`` or several of them."""
    asked = [effects] if isinstance(effects, str) else list(effects)
    for name in asked:
        if name not in EFFECTS:
            raise NotApplicableError(
                f"tidy(effects={name!r}): there are {', '.join(map(repr, EFFECTS))}"
            )
    if "all" in asked:
        asked = list(EFFECTS[:-1])
    makers = {"fixed": _fixed, "ran_pars": _ran_pars, "ran_vals": _ran_vals}
    limits = None
    if conf_int and {"fixed", "ran_pars"} & set(asked):
        limits = fit.confint(level, method=method)
    parts = [makers[name](fit, conf_int, limits, level) for name in asked]
    out = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    unused = set() if conf_int else {"conf_low", "conf_high"}
    unused |= set() if "ran_vals" in asked else {"level"}
    return out.reindex(columns=[c for c in COLUMNS if c not in unused])


def _limits(frame: pd.DataFrame, limits: pd.DataFrame | None, labels) -> pd.DataFrame:
    if limits is not None:
        found = limits.reindex(labels).to_numpy(float)
        frame["conf_low"], frame["conf_high"] = found[:, 0], found[:, 1]
    return frame


def _fixed(fit: Fit, conf_int: bool, limits, level: float) -> pd.DataFrame:
    frame = fit.coefficient_table().reset_index()
    frame.insert(0, "effect", "fixed")
    frame.insert(1, "group", None)
    return _limits(frame, limits, list(fit.coefficient_names))


def _ran_pars(fit: Fit, conf_int: bool, limits, level: float) -> pd.DataFrame:
    pars = components.parameters(fit.design, fit.estimates)
    frame = pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": [p.group for p in pars],
            "term": [f"{p.kind}__{'.'.join(p.names)}" for p in pars],
            "estimate": [p.value for p in pars],
        }
    )
    return _limits(frame, limits, [p.label for p in pars])


def _ran_vals(fit: Fit, conf_int: bool, limits, level: float) -> pd.DataFrame:
    parts = [
        _one_factor(factor, modes, fit.ranef_cov[factor])
        for factor, modes in fit.ranef.items()
    ]
    frame = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    )
    if conf_int:
        from scipy import special

        half = special.ndtri((1 + level) / 2) * frame["std_error"]
        frame["conf_low"] = frame["estimate"] - half
        frame["conf_high"] = frame["estimate"] + half
    return frame


def _one_factor(factor: str, modes: pd.DataFrame, cov: np.ndarray) -> pd.DataFrame:
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    J, q = modes.shape
    return pd.DataFrame(
        {
            "effect": "ran_vals",
            "group": factor,
            "level": np.repeat(modes.index.to_numpy(), q),
            "term": np.tile(modes.columns.to_numpy(), J),
            "estimate": modes.to_numpy().ravel(),
            "std_error": sd.ravel(),
        }
    )


def glance(fit: Fit) -> pd.DataFrame:
    """One row about the whole fit."""
    row = {
        "nobs": fit.nobs,
        "npar": fit.npar,
        "sigma": fit.sigma,
        "log_likelihood": fit.log_likelihood,
        "criterion": fit.criterion,
        "aic": fit.aic,
        "bic": fit.bic,
        "df_resid": fit.df_resid,
        "method": "REML" if fit.reml else "ML",
        "converged": fit.converged,
        "is_singular": fit.is_singular,
    }
    return pd.DataFrame([row])


def augment(fit: Fit) -> pd.DataFrame:
    """The data of the fit with ``fitted``, ``resid`` and ``fixed`` (X beta + offset).

    A column of the data that has one of these names keeps it; ours gets an underscore.
    """
    design = fit.design
    out = data.frame(design)
    if design.response not in out.columns:
        out.insert(0, design.response, design.y)
    ours = {
        "fitted": fit.fitted_values,
        "resid": fit.residuals,
        "fixed": fit.fixed_part,
    }
    for name, values in ours.items():
        out[f"{name}_" if name in out.columns else name] = values
    return out.set_axis(data.labels(design))
