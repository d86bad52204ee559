"""``BayesMixedGLMResults``: what statsmodels' results have, and what they lack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels.bayes.state import PosteriorState
from jaxglmm.compat.statsmodels.bayes.summary import BayesSummary

MOST_MATRIX = 5_000  # unknowns up to which a covariance is written as a matrix


class BayesMixedGLMResults(PosteriorState):
    """The posterior of a Bayesian mixed GLM.

    Args:
        model: the model.
        params: packed posterior means (or the mode).
        cov_params: (k, k) covariance, (k,) variances, or a ``Covariance``.
        optim_retvals: the optimiser's record.
        facts: what else is known: method, status, bound or log marginal likelihood.
        notes: sentences for the summary.

    Attributes:
        fe_mean, fe_sd: (p,) coefficients.
        vcp_mean, vcp_sd: (K,) logarithms of the standard deviations of the effects.
        sd_mean: (K,) posterior means of the standard deviations themselves.
        vc_mean, vc_sd: (q,) random effects.
    """

    def cov_params(self, full: bool = False) -> Any:
        """The covariance: a matrix after ``fit_map``, variances after a mean field.

        Args:
            full: always the whole matrix; a ``scipy.sparse.linalg.LinearOperator``
                where it would have more than 5,000 rows.

        Returns:
            An array; a frame or a series with names where the data had names.
        """
        cov, k = self._cov_params, len(self.params)
        if cov.vector and not full:
            return self._named(cov.variances())
        if k > MOST_MATRIX:
            return _operator(k, cov.times)
        whole = cov.times(np.eye(k))
        return self._named((whole + whole.T) / 2)

    def _named(self, values: np.ndarray) -> Any:
        if not self.model.has_names:
            return values
        names = self._all_names()
        if values.ndim == 2:
            return pd.DataFrame(values, index=names, columns=names)
        return pd.Series(values, index=names)

    def _all_names(self) -> list[str]:
        m = self.model
        effects = m.vc_names or [f"{x}[{j}]" for x, j in self._numbered()]
        return m.fep_names + m.vcp_names + effects

    def _numbered(self) -> list[tuple[str, int]]:
        """Scale's name and position within it, for random effects without names."""
        seen = dict.fromkeys(range(self.model.k_vcp), 0)
        out = []
        for k in self.model.ident:
            seen[int(k)] += 1
            out.append((self.model.vcp_names[k], seen[int(k)]))
        return out

    def random_effects(self, term: Any = None) -> pd.DataFrame:
        """Posterior means and standard deviations of the random effects.

        Args:
            term: name of a variance component, or its position; all where None.

        Raises:
            ValueError: an unknown name or position, with those there are.
        """
        m = self.model
        columns = {"Mean": self.vc_mean, "SD": self.vc_sd}
        frame = pd.DataFrame(columns, index=m.vc_names)  # by number without names
        if term is None:
            return frame
        return frame[m.ident == self._position(term)]

    def _position(self, term: Any) -> int:
        names = self.model.vcp_names
        if isinstance(term, str) and term in names:
            return names.index(term)
        if not isinstance(term, str | bool) and term in range(len(names)):
            return int(term)
        raise ValueError(
            f"term={term!r} is not a variance component; there are "
            f"{', '.join(names)} (positions 0 to {len(names) - 1})"
        )

    def predict(self, exog: Any = None, linear: bool = False) -> np.ndarray:
        """The model's ``predict`` at the posterior means."""
        return self.model.predict(self.params, exog, linear)

    def summary(self, alpha: float | None = None) -> BayesSummary:
        """The table of coefficients and standard deviations.

        Args:
            alpha: 1 - level of the bounds of the standard deviations; statsmodels'
                two posterior standard deviations where None.
        """
        return BayesSummary.of(self, alpha)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.method}>"


def _operator(k: int, times: Any) -> Any:
    from scipy.sparse import linalg

    make: Any = linalg.LinearOperator

    def one(v: np.ndarray) -> np.ndarray:
        return times(v.reshape(-1, 1))[:, 0]

    return make((k, k), matvec=one, rmatvec=one, matmat=times, dtype=float)
