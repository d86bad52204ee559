"""A fitted multinomial logit (mixed) model: categories without an order."""

from __future__ import annotations

from functools import cached_property
from typing import Self, cast

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import residuals as _residuals
from jaxglmm.fitting.categories import OfCategories
from jaxglmm.fitting.fitted_components import ByComponent, FittedComponents
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.fitting.saved import Saved
from jaxglmm.model.families.multinomial import Multinomial


class FittedMultinomial(OfCategories, FittedComponents):
    """A fitted model of unordered categories, as a record.

    ``design.y`` has the categories' codes 0, 1, ..., ``levels`` their labels; the
    first is the one that the others are compared with. Coefficients of a category
    begin with its name, ``bus~x``; ``fixef["bus"]`` has its own.
    """

    @property
    def multinomial(self) -> Multinomial:
        """The family, with its categories."""
        return cast(Multinomial, self.family)

    @property
    def formula(self) -> str:
        """The one of all categories."""
        return super(FittedComponents, self).formula

    @property
    def fixef(self) -> dict[str, float]:
        """Name -> fixed effect; ``fixef["bus"]`` has those of one category."""
        plain = super(FittedComponents, self).fixef
        return ByComponent(plain, ("", *self.components))

    def probabilities(self, eta: np.ndarray) -> np.ndarray:
        """(n, K) probabilities of the categories at predictors (K - 1, n)."""
        return self.multinomial.probabilities(eta, self.estimates.phi)

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Probability of the observed category at the modes, (n,)."""
        return self.multinomial.of_rows(self.design.y, self.linear_predictors)

    @property
    def population_means(self) -> np.ndarray:
        """The same with random effects of zero, (n,)."""
        return self.multinomial.of_rows(self.design.y, self.fixed_predictors)

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals given the modes, (n,).

        Args:
            type: "deviance", the root of -2 log probability of the category (no sign:
                categories have no order); "quantile", randomised, by the order of the
                codes: standard normal if the model holds; "response", 1 less that
                probability.
            seed: of the randomisation.
        """
        if type == "deviance":
            return np.sqrt(-2 * np.log(self.fitted_values))
        if type == "response":
            return 1 - self.fitted_values
        if type != "quantile":
            raise NotApplicableError(
                f"resid(type={type!r}): categories have no distance from their mean; "
                "there are 'deviance', 'response', 'quantile'"
            )
        eta = self.linear_predictors
        phi = self.estimates.phi
        return _residuals.resid(self.design, self.family, phi, eta, eta, type, seed)

    def model_facts(self):
        """Family, link and method by name."""
        return FittedGeneralised.model_facts(self)

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        return super(FittedComponents, cls).restored(saved)
