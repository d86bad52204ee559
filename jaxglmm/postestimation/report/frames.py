"""Data frames for whoever goes on from here: tidy, glance, augment.

The columns are named as by R's broom.mixed, with underscores for its points; parameters
as in every other table (``Parameter.label``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import model_frame as data
from jaxglmm.fitting.kinds import is_dispersed, is_generalised, is_ordinal
from jaxglmm.model.links import LINKS
from jaxglmm.postestimation.inference.intervals import confint
from jaxglmm.postestimation.report import by_component

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal

EFFECTS = ("fixed", "ran_pars", "ran_vals", "all")
COLUMNS = [
    *[
        "effect",
        "component",
        "group",
        "level",
        "term",
        "estimate",
        "std_error",
        "statistic",
    ],
    *["df", "p_value", "conf_low", "conf_high", "held"],
]


def ratios(fit: FittedModel) -> str | None:
    """What exp of a coefficient is, by the link of a fit."""
    return fit.family.link.ratio if is_generalised(fit) else None


def check_ratios(fit: FittedModel, what: str) -> None:
    """Refuse exp of coefficients where it means nothing."""
    if ratios(fit) is None:
        known = ((name, link.ratio) for name, link in LINKS.items() if link.ratio)
        meanings = ", ".join(f"{name!r} ({text})" for name, text in known)
        raise NotApplicableError(
            f"{what}: exp of a coefficient is a ratio with the links {meanings}, not "
            f"with {fit.link_name!r}; see predictions(), slopes() and contrasts() for "
            "effects on the scale of the response"
        )


def tidy(
    fit: FittedModel,
    effects,
    conf_int: bool,
    level: float,
    method: str,
    exponentiate: bool = False,
) -> pd.DataFrame:
    """One row an estimate; ``effects`` is one of ``EFFECTS`` or several of them."""
    _arguments.level(level)
    conf_int = _arguments.flag("conf_int", conf_int)
    if _arguments.flag("exponentiate", exponentiate):
        check_ratios(fit, "tidy(exponentiate=True)")
    asked = effects_asked(effects)
    makers = {"fixed": _fixed, "ran_pars": _ran_pars, "ran_vals": _ran_vals}
    limits = None
    if conf_int and {"fixed", "ran_pars"} & set(asked):
        limits = confint(fit, level, method)
    parts = [makers[name](fit, conf_int, limits, level) for name in asked]
    if exponentiate:
        parts = [
            exponentiated(part) if name == "fixed" else part
            for name, part in zip(asked, parts, strict=True)
        ]
    several = bool(by_component.components(fit.design))
    if several:
        parts = [by_component.named(fit.design, part) for part in parts]
    out = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if fit.design.fixed:
        out["held"] = out["term"].isin(list(fit.design.fixed))
    unused = set() if conf_int else {"conf_low", "conf_high"}
    unused |= set() if "ran_vals" in asked else {"level"}
    unused |= set() if several else {"component"}
    unused |= set() if fit.design.fixed else {"held"}
    return out.reindex(columns=[c for c in COLUMNS if c not in unused])


def effects_asked(effects) -> list[str]:
    """The kinds of rows of ``tidy``, one or more.

    Raises:
        ArgumentError: no names; NotApplicableError: none, or others.
    """
    asked = _arguments.names("effects", effects, meaning="a kind of effects")
    unknown = [name for name in asked if name not in EFFECTS]
    if unknown or not asked:
        raise NotApplicableError(
            f"tidy(effects={unknown[0] if unknown else asked!r}): there are "
            f"{', '.join(map(repr, EFFECTS))}"
        )
    return list(EFFECTS[:-1]) if "all" in asked else asked


def exponentiated(table: pd.DataFrame) -> pd.DataFrame:
    """exp of estimates and limits, standard errors by the delta method.

    The test stays that of the coefficient.
    """
    out = table.copy()
    with np.errstate(over="ignore"):
        for name in {"estimate", "conf_low", "conf_high"} & set(out.columns):
            out[name] = np.exp(out[name].to_numpy(float))
        return out.assign(std_error=out["std_error"] * out["estimate"])


def _limits(frame: pd.DataFrame, limits: pd.DataFrame | None, labels) -> pd.DataFrame:
    if limits is not None:
        found = limits.reindex(labels).to_numpy(float)
        frame["conf_low"], frame["conf_high"] = found[:, 0], found[:, 1]
    return frame


def _fixed(fit: FittedModel, conf_int: bool, limits, level: float) -> pd.DataFrame:
    table = fit.coefficient_table()
    if is_dispersed(fit):
        table = pd.concat([table, by_component.dispersion_table(fit)])
    frame = table.rename_axis("term").reset_index()
    frame.insert(0, "effect", "fixed")
    if is_ordinal(fit) and fit.design.parts:
        own = frame["term"].isin(fit.threshold_coefficients.index)
        frame.loc[own, "effect"] = "threshold"
    elif is_ordinal(fit):
        frame = pd.concat([_thresholds(fit), frame], ignore_index=True)
    frame.insert(1, "group", None)
    return _limits(frame, limits, frame["term"].tolist())


def _thresholds(fit: FittedOrdinal) -> pd.DataFrame:
    """Threshold parameters, which R's tables have among the coefficients."""
    from scipy import special

    table = fit.threshold_coefficients
    p = 2 * special.ndtr(-np.abs(table["statistic"].to_numpy()))
    table = table.assign(df=np.inf, p_value=p).rename_axis("term").reset_index()
    table.insert(0, "effect", "threshold")
    return table


def _ran_pars(fit: FittedModel, conf_int: bool, limits, level: float) -> pd.DataFrame:
    """Standard deviations and correlations, then dispersion parameters by name."""
    from jaxglmm.postestimation.inference.component_errors import variance_parameters

    pars, errors = variance_parameters(fit)
    if is_ordinal(fit):  # thresholds stand beside the coefficients
        own = [k for k, p in enumerate(pars) if p.kind != "dispersion"]
        pars = tuple(pars[k] for k in own)
        errors = None if errors is None else errors[own]
    frame = pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": [p.group for p in pars],
            "term": [p.label for p in pars],
            "estimate": [p.value for p in pars],
        }
    )
    if errors is not None:
        frame["std_error"] = errors
    return _limits(frame, limits, [p.label for p in pars])


def _ran_vals(fit: FittedModel, conf_int: bool, limits, level: float) -> pd.DataFrame:
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


def glance(fit: FittedModel) -> pd.DataFrame:
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


def glance_generalised(fit: FittedGeneralised) -> pd.DataFrame:
    """One row about a generalised fit: as ``glance``, with family, link, deviance."""
    try:
        deviance = fit.deviance
    except NotApplicableError:  # a family of the user's own may not say it
        deviance = np.nan
    row = glance(fit).iloc[0].to_dict()
    ours = {
        "family": fit.family_name,
        "link": fit.link_name,
        "method": fit.method or "maximum likelihood",
        "dispersion": fit.dispersion,
        "deviance": deviance,
    }
    first = ["nobs", "npar", "family", "link", "method", "sigma", "dispersion"]
    row |= ours
    return pd.DataFrame([{name: row[name] for name in dict.fromkeys([*first, *row])}])


def augment(
    fit: FittedModel, extra: dict[str, np.ndarray] | None = None
) -> pd.DataFrame:
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
        **(extra or {}),
    }
    for name, values in ours.items():
        out[f"{name}_" if name in out.columns else name] = values
    return out.set_axis(data.labels(design))
