"""Arguments as other packages spell them, with the spelling here: one table.

Whoever comes from lme4, glmmTMB, brms, nlme, statsmodels or pymer4 types their words
first. They raise ``ArgumentError``, which is a ``TypeError`` as Python's own would be,
and says how the same thing is asked here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from jaxglmm._errors import ArgumentError

_SAMPLER = (
    "it belongs to the sampler: method=jg.NUTS(draws=1000, chains=4), or another "
    "Bayesian method with its own options"
)
_OPTIMISER = "there is one optimiser; its options are tol= and max_iter="
_IN_FORMULA = "random effects stand in the formula: 'y ~ x + (1 + x | g)'"
_START = "no starting values are needed: they are computed from the data"

MODELS: dict[str, str] = {
    "reml": "write reml=True or reml=False in jg.lmm (method='reml' or 'ml' in "
    "jg.fit_many); generalised models have it in jg.glmm alone",
    "nagq": "write method=jg.AGQ(7) in jg.glmm; nAGQ=1 is method='laplace'",
    "nodes": "write method=jg.AGQ(7) in jg.glmm",
    "control": _OPTIMISER,
    "optimizer": _OPTIMISER,
    "optimiser": _OPTIMISER,
    "maxiter": "write max_iter=",
    "maxit": "write max_iter=",
    "gtol": "write tol=",
    "ftol": "write tol=",
    "verbose": "nothing is printed; fit.timing and fit.diagnostics say what was done",
    "start": _START,
    "startparams": _START,
    "init": _START,
    "link": "the link belongs to the family, such as family=jg.Binomial(link='probit')",
    "dist": "write family=",
    "distribution": "write family=",
    "subset": "choose the rows before, as in data[data['x'] > 0]",
    "naaction": "write missing='drop' (which is the default) or missing='raise'",
    "narm": "write missing='drop' (which is the default)",
    "contrasts": "write contrasts={'f': 'sum'} in jg.lmm and jg.glmm, or C(f, Sum) in "
    "the formula",
    "random": _IN_FORMULA,
    "reformula": _IN_FORMULA,
    "vcformula": _IN_FORMULA,
    "fixed": "the formula is the first argument",
    "group": _IN_FORMULA,
    "groups": _IN_FORMULA,
    "groupcol": _IN_FORMULA,
    "randomeffects": _IN_FORMULA,
    "ziformula": "write zi= in jg.glmm and jg.fit_many",
    "dispformula": "write dispersion= in jg.glmm and jg.fit_many",
    "correlation": "the rows of a group are independent given its random effects; "
    "autocorrelation is not fitted here",
    "prior": "write priors=jg.Priors(...), with a Bayesian method",
    "alpha": "write conf_level=0.95",
    "level": "write conf_level=0.95",
    "ddf": "it is asked of the fit: fit.summary(ddf='kenward-roger')",
    "exposure": "write offset(log(exposure)) in the formula",
    "trial": "write trials=",
    "size": "write trials=, or cbind(successes, failures) on the left side",
    **dict.fromkeys(
        ("chains", "draws", "iter", "warmup", "tune", "cores", "seed", "nsamples"),
        _SAMPLER,
    ),
}

_NEW_LEVELS = (
    "levels that the fit did not see are predicted at the population level, with a "
    "warning: leave it out"
)
_AVERAGES = {
    "conflevel": "write level=",
    "alpha": "write level=0.95",
    "at": "give newdata with these values",
    "variables": "write the variable's name as the first argument",
    "specs": "write the factor's name as the first argument",
    "infer": "intervals and tests are always in the table",
    "vcov": "covariances are those of the fit",
}
METHODS: dict[str, dict[str, str]] = {
    "predict": {
        "reform": "write re='population' for R's re.form=NA or ~0, re='conditional' "
        "(the default) for NULL",
        "reformula": "write re='population' or re='conditional'",
        "allownewlevels": _NEW_LEVELS,
        "samplenewlevels": _NEW_LEVELS,
        "newlevels": _NEW_LEVELS,
        "sefit": "write se=True",
        "exog": "new data are the first argument: fit.predict(newdata)",
        "data": "new data are the first argument: fit.predict(newdata)",
        "conflevel": "write level=",
        "alpha": "write level=0.95",
    },
    "confint": {
        "parm": "choose rows of the table: fit.confint().loc[['x']]",
        "alpha": "write level=0.95",
        "conflevel": "write level=",
        "oldnames": "names are always as in the table; leave it out",
        "boottype": "write kind=",
        "nsim": "write n=",
    },
    "summary": {
        "correlation": "it is always there for few coefficients; fit.vcov has all",
        "alpha": "write conf_level= where the model is fitted, or fit.confint(level=)",
        "conflevel": "write conf_level= where the model is fitted",
    },
    "simulate": {
        "nsim": "write n=",
        "useu": "write re='conditional'",
        "reform": "write re='conditional' to keep the random effects",
        "randomstate": "write seed=",
    },
    "anova": {
        "test": "write type= 1, 2 or 3, and ddf=",
        "typ": "write type=",
        "refit": "models are compared by jg.anova(one, two, refit=...)",
    },
    "tidy": {
        "conflevel": "write level=",
        "alpha": "write level=0.95",
        "confint": "write conf_int=True",
        "exponentiate": "take numpy's exp of the columns",
    },
    **dict.fromkeys(("predictions", "slopes", "contrasts", "test"), _AVERAGES),
    "bootstrap": {"nsim": "write n=", "fun": "fit.bootstrap(n) has the estimates"},
}
EVERYWHERE = {"ddf": "degrees of freedom are asked of a linear mixed model"}


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def unknown_argument(
    function: str,
    unknown: Mapping[str, Any] | Iterable[str],
    known: Iterable[str],
    hints: Mapping[str, str] = MODELS,
) -> ArgumentError:
    """What to raise for arguments that a function has not.

    Args:
        function: its name, as it is called.
        unknown: the arguments.
        known: those it has.
        hints: by names in lower case, letters and digits alone.
    """
    name = next(iter(unknown))
    known = [k for k in known if k not in ("self", "unknown")]
    key = _key(name)
    hint = hints.get(key) or EVERYWHERE.get(key)
    same = [k for k in known if _key(k) == key]
    close = same or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if hint is None or same:
        hint = f"did you mean {close[0]}=?" if close else ""
    there = hint or f"it takes {', '.join(known)}"
    return ArgumentError(f"{function}() has no argument {name}=: {there}")


class Hinted:
    """A class whose methods know other packages' words for their arguments."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, hints in METHODS.items():
            method = cls.__dict__.get(name)
            if inspect.isfunction(method):
                setattr(cls, name, _hinted(method, hints))


def _hinted(method: Callable[..., Any], hints: Mapping[str, str]) -> Callable[..., Any]:
    parameters = inspect.signature(method).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return method

    known = {*parameters, *getattr(method, "also_takes", ())}

    @wraps(method)
    def asked(*args: Any, **options: Any) -> Any:
        unknown = [name for name in options if name not in known]
        if unknown:
            what = f"fit.{method.__name__}"
            raise unknown_argument(what, unknown, parameters, hints)
        return method(*args, **options)

    return asked
