"""Families of responses, one file each, and the table that names them.

To add one: a file beside these with a final subclass of ``AbstractFamily``, a row in
``FAMILIES``, a row in the table of tests/model/test_families.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from jaxglmm import _arguments
from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.model.families._base import AbstractFamily as AbstractFamily
from jaxglmm.model.families._base import nested_derivatives as nested_derivatives
from jaxglmm.model.families._base import ratio as ratio
from jaxglmm.model.families.beta import Beta as Beta
from jaxglmm.model.families.beta_binomial import BetaBinomial as BetaBinomial
from jaxglmm.model.families.binomial import Bernoulli as Bernoulli
from jaxglmm.model.families.binomial import Binomial as Binomial
from jaxglmm.model.families.compois import ConwayMaxwellPoisson as ConwayMaxwellPoisson
from jaxglmm.model.families.cumulative import Cumulative as Cumulative
from jaxglmm.model.families.gamma import Gamma as Gamma
from jaxglmm.model.families.gaussian import Gaussian as Gaussian
from jaxglmm.model.families.genpois import GeneralisedPoisson as GeneralisedPoisson
from jaxglmm.model.families.inverse_gaussian import InverseGaussian as InverseGaussian
from jaxglmm.model.families.lognormal import LognormalFamily as LognormalFamily
from jaxglmm.model.families.multinomial import Multinomial as Multinomial
from jaxglmm.model.families.nbinom1 import NegativeBinomial1 as NegativeBinomial1
from jaxglmm.model.families.nbinom2 import NegativeBinomial2 as NegativeBinomial2
from jaxglmm.model.families.one_inflated_beta import OneInflatedBeta as OneInflatedBeta
from jaxglmm.model.families.ordered_beta import OrderedBeta as OrderedBeta
from jaxglmm.model.families.poisson import Poisson as Poisson
from jaxglmm.model.families.skew_normal import SkewNormal as SkewNormal
from jaxglmm.model.families.student import StudentT as StudentT
from jaxglmm.model.families.truncated import (
    TruncatedNegativeBinomial1 as TruncatedNegativeBinomial1,
)
from jaxglmm.model.families.truncated import (
    TruncatedNegativeBinomial2 as TruncatedNegativeBinomial2,
)
from jaxglmm.model.families.truncated import TruncatedPoisson as TruncatedPoisson
from jaxglmm.model.families.tweedie import Tweedie as Tweedie
from jaxglmm.model.links import Link

FAMILIES: dict[str, Callable[..., AbstractFamily]] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "bernoulli": Bernoulli,
    "poisson": Poisson,
    "nbinom2": NegativeBinomial2,
    "nbinom1": NegativeBinomial1,
    "gamma": Gamma,
    "inversegaussian": InverseGaussian,
    "beta": Beta,
    "betabinomial": BetaBinomial,
    "student": StudentT,
    "t": partial(StudentT, df=None),
    "lognormal": LognormalFamily,
    "skewnormal": SkewNormal,
    "genpois": GeneralisedPoisson,
    "compois": ConwayMaxwellPoisson,
    "tweedie": Tweedie,
    "ordbeta": OrderedBeta,
    "one_inflated_beta": OneInflatedBeta,
    "truncated_poisson": TruncatedPoisson,
    "truncated_nbinom2": TruncatedNegativeBinomial2,
    "truncated_nbinom1": TruncatedNegativeBinomial1,
    "cumulative": Cumulative,
    "multinomial": Multinomial,
}
ALIASES = {
    "oneinflatedbeta": "one_inflated_beta",
    "zerooneinflatedbeta": "one_inflated_beta",
    "orderedbeta": "ordbeta",
    "truncatedpoisson": "truncated_poisson",
    "truncatednbinom2": "truncated_nbinom2",
    "truncatednbinom1": "truncated_nbinom1",
    "normal": "gaussian",
    "negativebinomial": "nbinom2",
    "negbin": "nbinom2",
    "nb": "nbinom2",
    "nb2": "nbinom2",
    "nb1": "nbinom1",
    "studentt": "student",
    "tfamily": "t",
    "betafamily": "beta",
    "generalisedpoisson": "genpois",
    "generalizedpoisson": "genpois",
    "conwaymaxwellpoisson": "compois",
    "compoisson": "compois",
    "sn": "skewnormal",
    "ordinal": "cumulative",
    "categorical": "multinomial",
}


def NegativeBinomial(link: str | Link = "log", kind: int = 2) -> AbstractFamily:
    """Overdispersed counts.

    Args:
        link: of the mean.
        kind: 2 for Var y = mu + mu^2 / phi, 1 for Var y = mu (1 + phi); Hardin and
            Hilbe's NB2 and NB1.

    Example:
        >>> import jaxglmm as jg
        >>> jg.NegativeBinomial(kind=1).name
        'nbinom1'
    """
    if not _arguments.is_whole(kind) or kind not in (1, 2):
        raise ModelError(f"kind must be 1 or 2, not {_arguments.shown(kind)}")
    return NegativeBinomial2(link) if kind == 2 else NegativeBinomial1(link)


def _written(name: str, link: str) -> str:
    """A family with a link as an object."""
    key = "".join(c for c in name.lower() if c not in "_-. ")
    family = FAMILIES.get(ALIASES.get(key, key))
    shown = getattr(family, "__name__", name)
    if isinstance(family, partial):
        return f"jg.StudentT(link={link!r}, df=None)"
    if shown.startswith("NegativeBinomial"):
        return f"jg.NegativeBinomial(link={link!r}, kind={shown[-1]})"
    return f"jg.{shown}(link={link!r})"


def _foreign(given: Any) -> str:
    """What an object is; for statsmodels' families the same of ours."""
    kind = given if isinstance(given, type) else type(given)
    if not kind.__module__.startswith("statsmodels."):
        return kind.__name__
    name = kind.__name__
    if name.lower() not in FAMILIES and name != "NegativeBinomial":
        return f"statsmodels' {name}; there are {', '.join(map(repr, FAMILIES))}"
    link = type(given.link).__name__.lower() if kind is not given else "log"
    link = {"inversepower": "inverse", "inversesquared": "1/mu^2"}.get(link, link)
    ours = _written(name, link) if kind is not given else f"jg.{name}()"
    return f"statsmodels' {name}; write {ours}"


def _of_one_predictor(family: AbstractFamily) -> AbstractFamily:
    names = family.predictors
    if len(names) > 1 and family.family_kind != "nominal":
        raise NotApplicableError(
            f"family {family.name!r} has {len(names)} linear predictors "
            f"({', '.join(map(repr, names))}), and a formula states one of them; build "
            "its problem from arrays (jaxglmm.model.generalised_problem)"
        )
    return family


def family_from(given: Any) -> AbstractFamily:
    """A family by name (any case, ``_``, ``-``, ``.`` and blanks left out) or as it is.

    Raises:
        ModelError: for an unknown name, with the names there are.
        NotApplicableError: for a family of several linear predictors, of which a
            formula states one.

    Example:
        >>> family_from("inverse.gaussian").name, family_from("t").name
        ('inversegaussian', 't')
    """
    if isinstance(given, AbstractFamily):
        return _of_one_predictor(given)
    if callable(given) and given in (*FAMILIES.values(), NegativeBinomial):
        return given()
    if isinstance(given, type) and issubclass(given, AbstractFamily):
        return _of_one_predictor(given())
    if not isinstance(given, str):
        raise ModelError(
            "family must be a name such as 'poisson' or an object such as "
            f"jg.Poisson(), not {_foreign(given)}"
        )
    written = re.fullmatch(r"""\s*(\w+)\s*\(\s*(?:link\s*=)?\s*['"]?(\w+).*""", given)
    if written:
        raise ModelError(
            f"family={given!r} is a text; give the object "
            f"{_written(written.group(1), written.group(2))}"
        )
    key = "".join(c for c in given.lower() if c not in "_-. ")
    key = ALIASES.get(key, key)
    if key not in FAMILIES:
        import difflib

        key = key.removeprefix("quasi")
        close = (
            ["nbinom2"]
            if key == "poisson"
            else difflib.get_close_matches(key, [*FAMILIES, *ALIASES], n=1)
        )
        hint = f"; did you mean {ALIASES.get(close[0], close[0])!r}?" if close else ""
        raise ModelError(
            f"unknown family {given!r}; there are "
            f"{', '.join(map(repr, FAMILIES))}{hint}"
        )
    return FAMILIES[key]()
