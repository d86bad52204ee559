"""A fitted cumulative link (mixed) model: thresholds, and categories for numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import ordinal
from jaxglmm.fitting import residuals as _residuals
from jaxglmm.fitting.categories import OfCategories
from jaxglmm.fitting.fitted_components import FittedComponents
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.fitting.saved import Saved
from jaxglmm.formula.design import MARK
from jaxglmm.model.families import Cumulative
from jaxglmm.model.families.cumulative_parts import DISP, CumulativeParts

if TYPE_CHECKING:
    import pandas as pd


class FittedOrdinal(OfCategories, FittedGeneralised):
    """A fitted model of ordered categories, as a record.

    Fixed effects have no intercept: P(Y <= j) = F(theta_j - x'beta - z'b). ``design.y``
    has the categories' codes 0, 1, ..., ``levels`` their labels.
    """

    @property
    def cumulative(self) -> Cumulative:
        """The family, with its categories."""
        return cast(Cumulative, self.family)

    # Thresholds ----------------------------------------------------------------------

    @property
    def thresholds(self) -> pd.Series:
        """theta_j of P(Y <= j) = F(theta_j - eta), by name (``1|2``)."""
        import pandas as pd

        theta = self.cumulative.theta(self.estimates.phi)
        return pd.Series(theta, index=list(self.cumulative.threshold_names))

    @cached_property
    def threshold_coefficients(self) -> pd.DataFrame:
        """What the thresholds are made of: estimate, std_error, statistic.

        The thresholds themselves where these are flexible; else central ones, spacings
        or the first and the spacing, as in the R package ordinal.
        """
        import pandas as pd

        estimate = self.cumulative.natural(self.estimates.phi)
        error = np.sqrt(np.diagonal(self._natural_covariance))
        error = np.where(error > 0, error, np.nan)
        return pd.DataFrame(
            {
                "estimate": estimate,
                "std_error": error,
                "statistic": estimate / error,
            },
            index=list(self.cumulative.phi_names),
        )

    @cached_property
    def _natural_covariance(self) -> np.ndarray:
        n = self.cumulative.n_phi
        return self.joint_covariance[:n, :n]

    @cached_property
    def joint_covariance(self) -> np.ndarray:
        """(n_phi + p, n_phi + p) of threshold parameters and fixed effects."""
        J = np.concatenate([self._natural_rows, self._beta_rows])
        half = J @ self.parameter_root
        return half @ half.T

    @cached_property
    def _natural_rows(self) -> np.ndarray:
        """Derivatives of the threshold parameters in the internal psi."""
        phi = self.estimates.phi
        return self.cumulative.natural_jacobian(phi) @ self.engine.location.jacobian

    @cached_property
    def _beta_rows(self) -> np.ndarray:
        p, k = self.engine.base.p, self.engine.location.k
        return np.concatenate(
            [self.engine.R_inverse, np.zeros((self.design.p, k - p))], axis=1
        )

    @property
    def joint_vcov(self) -> pd.DataFrame:
        """Covariance of threshold parameters and fixed effects, as R's ``vcov``."""
        import pandas as pd

        names = [*self.cumulative.phi_names, *self.design.x_names]
        return pd.DataFrame(self.joint_covariance, index=names, columns=names)

    def about(self, j: int | None) -> FittedGeneralised:
        """The same fit with threshold j as a coefficient and the others as spacings.

        None: without a location, all thresholds by spacings alone.
        """
        design, family, found = self.design, self.cumulative.about(j), self.estimates
        beta = found.beta
        if j is not None:
            design = ordinal.with_threshold(design, self.cumulative.threshold_names[j])
            theta = self.cumulative.theta(found.phi)[j : j + 1]
            beta = np.concatenate([theta, beta])
        moved = replace(
            found,
            beta=beta,
            phi=found.phi[int(self.cumulative.located) :],
            vcov=None,
        )
        return FittedGeneralised(design, moved, family, self.marginal, None, {})

    # Rows ----------------------------------------------------------------------------

    @property
    def latent(self) -> np.ndarray:
        """What probabilities are a function of, at the modes: eta, (n,)."""
        return self.linear_predictor

    @property
    def latent_fixed(self) -> np.ndarray:
        """The same with random effects of zero."""
        return self.fixed_part

    def probabilities(self, eta: np.ndarray) -> np.ndarray:
        """(n, K) probabilities of the categories at linear predictors (n,)."""
        return self.cumulative.probabilities(eta, self.estimates.phi)

    @cached_property
    def fitted_values(self) -> np.ndarray:
        """Mean of the category's number 1, ..., K at the modes, (n,)."""
        return self.mean_class(self.latent)

    @property
    def population_means(self) -> np.ndarray:
        """The same with random effects of zero, (n,)."""
        return self.mean_class(self.latent_fixed)

    def mean_class(self, eta: np.ndarray) -> np.ndarray:
        """Mean of the category's number 1, ..., K at linear predictors (n,)."""
        return self.probabilities(eta) @ np.arange(1.0, self.cumulative.categories + 1)

    def resid(self, type: str = "deviance", seed=0) -> np.ndarray:
        """Residuals given the modes, (n,).

        Args:
            type: "deviance" (root of -2 log probability of the category, signed),
                "pearson" and "response" (of the category's number), "scaled" (Pearson),
                "quantile" (randomised: standard normal if the model holds), "score" (dl
                / deta, as in Li and Shepherd 2012) or "surrogate" (a latent response
                drawn between the category's thresholds, less its mean; Liu and Zhang
                2018, J. Am. Stat. Assoc. 113, 845).
            seed: of the randomisation.
        """
        eta, phi, y = self.latent, self.estimates.phi, self.design.y
        if type == "response":
            return y + 1.0 - self.fitted_values
        if type in ("score", "surrogate"):
            return self._latent_residuals(type, seed)
        if type == "working":
            raise NotApplicableError(
                "resid(type='working') is for responses that have a mean on the link "
                "scale; categories have 'score' and 'surrogate' residuals"
            )
        return _residuals.resid(self.design, self.family, phi, eta, eta, type, seed)

    def _latent_residuals(self, type: str, seed) -> np.ndarray:
        family, phi = self.cumulative, self.estimates.phi
        eta = self.latent
        k = self.design.y.astype(int)[:, None]
        at = np.concatenate([k, k + 1], axis=1)
        if type == "score":
            f = np.take_along_axis(family.densities(eta, phi), at, axis=1)
            return (
                -(f[:, 1] - f[:, 0])
                / self.probabilities(eta)[np.arange(len(k)), at[:, 0]]
            )
        rng = np.random.default_rng(_arguments.seed(seed))
        ends = np.take_along_axis(family.ends(eta, phi), at, axis=1)
        return family.latent_between(ends[:, 0], ends[:, 1], rng)


class FittedOrdinalParts(FittedOrdinal, FittedComponents):
    """The same where thresholds or the latent scale are functions of the row.

    Names of coefficients of a threshold begin with its name, ``1|2~x``, those of the
    logarithm of the scale with ``disp~``.
    """

    @property
    def thresholds(self) -> pd.DataFrame:
        """Coefficients of the thresholds: a row a term, a column a threshold."""
        import pandas as pd

        family = cast(CumulativeParts, self.family)
        parts = {name: self.fixef[name] for name in family.threshold_predictors}
        made_of = pd.DataFrame(parts)
        theta = made_of.to_numpy() @ family.T.T
        return pd.DataFrame(theta, made_of.index, list(family.threshold_names))

    @cached_property
    def threshold_coefficients(self) -> pd.DataFrame:
        """Estimate, std_error and statistic of the thresholds' coefficients.

        Of structured thresholds those of central ones, spacings or the first.
        """
        table = self.coefficient_table()
        names = cast(CumulativeParts, self.family).threshold_predictors
        marks = tuple(f"{name}{MARK}" for name in names)
        own = [str(name).startswith(marks) for name in table.index]
        return table.loc[own, ["estimate", "std_error", "statistic"]]

    @cached_property
    def joint_covariance(self) -> np.ndarray:
        """(p, p) of all coefficients, those of thresholds among them."""
        return self.coefficient_covariance()

    @property
    def latent(self) -> np.ndarray:
        """Location, thresholds and log scale at the modes, (K, n)."""
        return self.linear_predictors

    @property
    def latent_fixed(self) -> np.ndarray:
        """The same with random effects of zero."""
        return self.fixed_predictors

    def model_facts(self) -> dict[str, Any]:
        """Family, link and method by name."""
        family = self.cumulative
        base = FittedOrdinal(
            self.design,
            self.estimates,
            Cumulative(family.link, family.thresholds, family.levels),
            self.marginal,
        ).model_facts()
        return base | {"scaled": DISP in self.components}

    @classmethod
    def restored(cls, saved: Saved) -> Self:
        """The fit that a file describes."""
        out = super(FittedComponents, cls).restored(saved.without("scaled"))
        known = out.family
        own = saved.facts["scaled"], known.thresholds
        out.family = CumulativeParts(known.link, known.levels, *own)
        return out
