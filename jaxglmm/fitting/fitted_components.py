"""A fitted model of several linear predictors: mean, zero inflation, dispersion.

What differs from ``FittedGeneralised``: a row has a value for each predictor, and
means, residuals and draws are functions of all of them. Names of coefficients and terms
of the predictors after the first begin with the predictor's: ``zi~x``, ``disp~x``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np

from jaxglmm.fitting import components as _components
from jaxglmm.fitting import predictor
from jaxglmm.fitting import residuals as _residuals
from jaxglmm.fitting.fitted_generalised import (
    FittedGeneralised,
    family_of,
)
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import MARK
from jaxglmm.model.families.composed import Composed


class ByComponent(dict):
    """Name -> number for all coefficients; a component's name gives its own.

    ``fixef["zi~x"]`` and ``fixef["zi"]["x"]`` are the same number.
    """

    def __init__(self, values: dict[str, Any], components: tuple[str, ...]):
        super().__init__(values)
        self.components = components

    def __missing__(self, key: str) -> Any:
        if key not in self.components:
            raise KeyError(key)
        mark = f"{key}{MARK}"
        if key != self.components[0]:
            return {
                n.removeprefix(mark): v
                for n, v in self.items()
                if n[: len(mark)] == mark
            }
        marks = tuple(f"{name}{MARK}" for name in self.components[1:])
        return {n: v for n, v in self.items() if not n.startswith(marks)}

    def __reduce__(self):
        return type(self), (dict(self), self.components)


class VarCorrByComponent(_components.VarCorr):
    """Term label -> its covariance; ``varcorr["zi"]["g"]`` is ``varcorr["zi~g"]``."""

    components: tuple[str, ...] = ()

    def __missing__(self, key: str) -> Any:
        own = ByComponent(dict(self), self.components)[key]
        return _components.VarCorr(own, None)


class FittedComponents(FittedGeneralised):
    """A fitted model of several linear predictors, as a record.

    Its arguments are ``FittedGeneralised``'s, the design with ``parts``.
    """

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the linear predictors: "cond", then "zi", "disp"."""
        return tuple(self.design.parts)

    @property
    def formula(self) -> str:
        """That of the response, then those of zi and disp."""
        pairs = list(self.design.parts.items())[1:]
        others = (
            f"{name} ~{str(part.formula).partition('~')[2].rstrip()}"
            for name, part in pairs
        )
        return ", ".join([super().formula, *others])

    @property
    def fixef(self) -> dict[str, float]:
        """Name -> fixed effect; ``fixef["zi"]`` has those of one component."""
        return ByComponent(super().fixef, self.components)

    @cached_property
    def varcorr(self) -> _components.VarCorr:
        """Term label -> its sd, corr and cov."""
        found = VarCorrByComponent(super().varcorr, None)
        found.components = self.components
        return found

    # Rows ----------------------------------------------------------------------------

    @cached_property
    def fixed_predictors(self) -> np.ndarray:
        """X beta + offset of each predictor, (K, n)."""
        d = self.design
        return predictor.fixed_parts(d.X, self.estimates.beta, d.offset, d.columns)

    @cached_property
    def linear_predictors(self) -> np.ndarray:
        """The same with the random effects, (K, n)."""
        d = self.design
        return self.fixed_predictors + predictor.random_parts(
            d.terms, self.estimates.b, len(d.parts)
        )

    @property
    def fixed_part(self) -> np.ndarray:
        """X beta + offset of the mean, (n,)."""
        return self.fixed_predictors[0]

    @property
    def linear_predictor(self) -> np.ndarray:
        """X beta + Z b + offset of the mean, (n,)."""
        return self.linear_predictors[0]

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Expected responses given the modes, zeros counted in, (n,)."""
        return self.means_at(self.linear_predictors)

    @property
    def population_means(self) -> np.ndarray:
        """Expected responses with random effects of zero, (n,)."""
        return self.means_at(self.fixed_predictors)

    def means_at(self, eta: np.ndarray) -> np.ndarray:
        """Expected responses, zeros counted in, at linear predictors (K, n)."""
        mu = self.family.parameters(eta)
        return np.asarray(self.family.mean_of(mu, self.estimates.phi), float)

    def resid(self, type: str = "pearson", seed=0) -> np.ndarray:
        """Residuals given the modes, (n,).

        Args:
            type: "pearson", "response", "scaled" (Pearson), "quantile" (randomised
                where the response is discrete or may be an added zero: standard normal
                if the model holds), "deviance" without zero inflation.
            seed: of the randomisation.
        """
        return _residuals.of_components(
            self.design,
            self.family,
            self.estimates.phi,
            self.linear_predictors,
            type,
            seed,
        )

    @property
    def deviance(self) -> float:
        """``criterion``, -2 log-likelihood, as in glmmTMB."""
        return self.criterion

    @property
    def separation(self) -> None:
        """None: not looked for in models of several predictors."""
        return None

    # Files ---------------------------------------------------------------------------

    def model_facts(self) -> dict[str, Any]:
        """Family, link and method by name."""
        family = self.family
        assert isinstance(family, Composed)
        base = FittedGeneralised(
            self.design, self.estimates, family.base, self.marginal
        ).model_facts()
        return base | {"predictors": {"zi": family.zi, "disp": family.disp}}

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        base = saved.without("predictors")
        out = super().restored(base)
        out.family = Composed(family_of(base.facts), **saved.facts["predictors"])
        return out
